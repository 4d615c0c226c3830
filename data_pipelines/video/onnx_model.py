"""Segmentation with an ONNX model of the user, run by onnxruntime.

The file `MODEL.json` beside `MODEL.onnx` describes the model's input and output:

    {"height": 256, "width": 256, "layout": "nhwc", "mean": [0, 0, 0], "std": [255, 255, 255],
     "output": "mask", "channel": 0, "activation": "sigmoid", "threshold": 0.5}

Pixels are RGB, 0 to 255; the input is (pixel - `mean`) / `std`. `output` is the name of one of the model's outputs, an array
`[1, h, w]`, or with a channel axis in the place given by `layout`; `channel` is the index of the class of people. `activation`
is applied to the output: "sigmoid", "softmax" over the channels, or "none".
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy.special

from data_pipelines.schema import DataError
from data_pipelines.video.background import bodies
from data_pipelines.video.decoding import Frame, Video
from data_pipelines.video.people import Outline, Person

KEYS = {"height", "width", "layout", "mean", "std", "output", "channel", "activation", "threshold"}


class OnnxModel:
    """Segments with a model (.onnx file) that gives one mask for the whole frame; its connected regions are the people."""

    name = "onnx"

    def __init__(self, path: Path):
        self._path = path
        try:
            import onnxruntime
        except ModuleNotFoundError:
            raise DataError('--backend onnx needs onnxruntime: pip install "scoliojax[screen]"') from None
        if not path.is_file():
            raise DataError(f"--onnx-model={path} does not exist; give an .onnx file")
        self._settings = read_settings(path.with_suffix(".json"))
        try:
            content = path.read_bytes()
            self._session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has its own exception for every kind of error
            raise DataError(f"--onnx-model={path} cannot be loaded ({str(error).splitlines()[0]})") from None
        self.models = {path.name: hashlib.sha256(content).hexdigest()}
        names = [output.name for output in self._session.get_outputs()]
        if self._settings["output"] not in names:
            raise DataError(f"{path} has no output {self._settings['output']!r}; it has {', '.join(names)}")
        blank = np.zeros((self._settings["height"], self._settings["width"], 3), np.uint8)
        self.probability(blank)  # detects a model that does not fit before the video is read

    def study(self, video: Video) -> None:
        """The model needs no information about the whole video."""

    def review(self, people: list[Person]) -> None:
        """Nothing is known of a person that the masks do not say."""

    def __call__(self, frame: Frame) -> list[Outline]:
        height, width = frame.image.shape[:2]
        probability = cv2.resize(self.probability(frame.image), (width, height), interpolation=cv2.INTER_LINEAR)  # h w
        return [Outline(mask) for mask in bodies((probability > self._settings["threshold"]).astype(np.uint8))]

    def probability(self, image: np.ndarray) -> np.ndarray:
        """Probability of a person at each pixel of the model's output, `[h', w']`, for a frame `[h, w, 3]`."""
        settings = self._settings
        picture = cv2.resize(image, (settings["width"], settings["height"]), interpolation=cv2.INTER_AREA)  # h' w' 3
        batch = ((picture - np.array(settings["mean"])) / np.array(settings["std"]))[None].astype(np.float32)  # 1 h' w' 3
        if settings["layout"] == "nchw":
            batch = batch.transpose(0, 3, 1, 2)  # 1 3 h' w'
        try:
            (output,) = self._session.run([settings["output"]], {self._session.get_inputs()[0].name: batch})
        except Exception as error:  # as above
            raise DataError(f"{self._path} does not take pictures as its .json says ({str(error).splitlines()[0]})") from None
        output = np.asarray(output, np.float32)
        if output.ndim == 3:
            output = output[..., None] if settings["layout"] == "nhwc" else output[:, None]  # 1 h' w' 1 or 1 1 h' w'
        channels_last = output if settings["layout"] == "nhwc" else np.moveaxis(output, 1, -1)  # 1 h' w' c
        if output.ndim != 4 or len(output) != 1 or settings["channel"] >= channels_last.shape[-1]:
            raise DataError(
                f"{self._path}: output {settings['output']!r} has shape {output.shape}, expected one picture with a channel "
                f"{settings['channel']}; fix layout or channel in the .json"
            )
        maps = channels_last[0]  # h' w' c
        if settings["activation"] == "softmax":
            maps = scipy.special.softmax(maps, axis=-1)  # h' w' c
        elif settings["activation"] == "sigmoid":
            maps = scipy.special.expit(maps)  # h' w' c
        return np.ascontiguousarray(maps[..., settings["channel"]])  # h' w'


def read_settings(path: Path) -> dict[str, Any]:
    """The model's description; raises `DataError` naming a key that is missing, unknown or has a wrong value."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing; it has to say {', '.join(sorted(KEYS))} (see docs/screening.md)") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error})") from None
    if not isinstance(settings, dict) or settings.keys() != KEYS:
        odd = sorted(settings.keys() ^ KEYS) if isinstance(settings, dict) else "no object"
        raise DataError(f"{path}: {odd} is missing or unknown; the keys are {', '.join(sorted(KEYS))}")
    checks = {side: isinstance(settings[side], int) and 16 <= settings[side] <= 4096 for side in ("height", "width")} | {
        "layout": settings["layout"] in ("nchw", "nhwc"),
        "mean": _three(settings["mean"]),
        "std": _three(settings["std"]) and all(settings["std"]),
        "channel": isinstance(settings["channel"], int) and settings["channel"] >= 0,
        "activation": settings["activation"] in ("none", "sigmoid", "softmax"),
        "threshold": isinstance(settings["threshold"], (int, float)) and math.isfinite(settings["threshold"]),
    }
    if wrong := [key for key, right in checks.items() if not right]:
        raise DataError(f"{path}: {wrong[0]}={settings[wrong[0]]!r} is not possible; see docs/screening.md")
    return settings


def _three(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(isinstance(number, (int, float)) for number in value)
