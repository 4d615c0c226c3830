"""People by a segmentation model of the user's own, through onnxruntime.

Beside `MODEL.onnx` lies `MODEL.json`, which says how the model wants its pictures and what its output means:

    {"height": 256, "width": 256, "layout": "nhwc", "mean": [0, 0, 0], "std": [255, 255, 255],
     "output": "mask", "channel": 0, "activation": "sigmoid", "threshold": 0.5}

Pixels are RGB, 0 to 255; `mean` is taken off and the rest divided by `std`. `output` names one of the model's outputs, an array
of numbers `[1, h, w]`, or with a channel axis where `layout` has it; `channel` is that of people. `activation` is what is still
to be applied: "sigmoid", "softmax" over the channels, or "none".
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_pipelines.schema import DataError
from data_pipelines.video.background import bodies
from data_pipelines.video.decoding import Frame, Video

KEYS = {"height", "width", "layout", "mean", "std", "output", "channel", "activation", "threshold"}


class OnnxModel:
    """Segments with a model that gives one mask for the whole frame; its regions are the people.

    Args:
      path: of the model; its description lies beside it, with the ending .json.

    Raises:
      DataError: when either file is missing or does not fit the other, or onnxruntime is not installed.
    """

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
        except Exception as error:  # onnxruntime has a kind of its own for every fault
            raise DataError(f"--onnx-model={path} cannot be loaded ({str(error).splitlines()[0]})") from None
        self.models = {path.name: hashlib.sha256(content).hexdigest()}
        names = [output.name for output in self._session.get_outputs()]
        if self._settings["output"] not in names:
            raise DataError(f"{path} has no output {self._settings['output']!r}; it has {', '.join(names)}")
        blank = np.zeros((self._settings["height"], self._settings["width"], 3), np.uint8)
        self.probability(blank)  # so that a model that does not fit is met before the video is read

    def study(self, video: Video) -> None:
        """Nothing needs to be known of a video beforehand."""

    def __call__(self, frame: Frame) -> list[np.ndarray]:
        """Masks of the people in a frame, uint8 `[h, w]`, 0 or 255."""
        height, width = frame.image.shape[:2]
        probability = cv2.resize(self.probability(frame.image), (width, height), interpolation=cv2.INTER_LINEAR)  # h w
        return list(bodies((probability > self._settings["threshold"]).astype(np.uint8)))

    def probability(self, image: np.ndarray) -> np.ndarray:
        """Probability of a person at each pixel of the model's output, `[h', w']`, of a frame `[h, w, 3]`."""
        settings = self._settings
        picture = cv2.resize(image, (settings["width"], settings["height"]), interpolation=cv2.INTER_AREA)  # h' w' 3
        batch = ((picture - np.array(settings["mean"])) / np.array(settings["std"]))[None].astype(np.float32)  # 1 h' w' 3
        if settings["layout"] == "nchw":
            batch = batch.transpose(0, 3, 1, 2)  # 1 3 h' w'
        try:
            (found,) = self._session.run([settings["output"]], {self._session.get_inputs()[0].name: batch})
        except Exception as error:  # as above
            raise DataError(f"{self._path} does not take pictures as its .json says ({str(error).splitlines()[0]})") from None
        found = np.asarray(found, np.float32)
        if found.ndim == 3:
            found = found[..., None] if settings["layout"] == "nhwc" else found[:, None]  # 1 h' w' 1 or 1 1 h' w'
        channels_last = found if settings["layout"] == "nhwc" else np.moveaxis(found, 1, -1)  # 1 h' w' c
        if found.ndim != 4 or len(found) != 1 or settings["channel"] >= channels_last.shape[-1]:
            raise DataError(
                f"{self._path}: output {settings['output']!r} has shape {found.shape}, expected one picture with a channel "
                f"{settings['channel']}; mend layout or channel in the .json"
            )
        maps = channels_last[0]  # h' w' c
        if settings["activation"] == "softmax":
            shares = np.exp(maps - maps.max(axis=-1, keepdims=True))  # h' w' c
            maps = shares / shares.sum(axis=-1, keepdims=True)  # h' w' c
        elif settings["activation"] == "sigmoid":
            maps = 0.5 + 0.5 * np.tanh(0.5 * maps)  # h' w' c
        return np.ascontiguousarray(maps[..., settings["channel"]])  # h' w'


def read_settings(path: Path) -> dict[str, Any]:
    """The model's description; raises `DataError` naming what is missing, unknown or of another kind."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing; it has to say {', '.join(sorted(KEYS))} (see docs/screening.md)") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error})") from None
    if not isinstance(found, dict) or found.keys() != KEYS:
        odd = sorted(found.keys() ^ KEYS) if isinstance(found, dict) else "no object"
        raise DataError(f"{path}: {odd} is missing or unknown; the keys are {', '.join(sorted(KEYS))}")
    checks = {
        "height": isinstance(found["height"], int) and 16 <= found["height"] <= 4096,
        "width": isinstance(found["width"], int) and 16 <= found["width"] <= 4096,
        "layout": found["layout"] in ("nchw", "nhwc"),
        "mean": _three(found["mean"]),
        "std": _three(found["std"]) and all(found["std"]),
        "channel": isinstance(found["channel"], int) and found["channel"] >= 0,
        "activation": found["activation"] in ("none", "sigmoid", "softmax"),
        "threshold": isinstance(found["threshold"], (int, float)) and math.isfinite(found["threshold"]),
    }
    if wrong := [key for key, right in checks.items() if not right]:
        raise DataError(f"{path}: {wrong[0]}={found[wrong[0]]!r} is not possible; see docs/screening.md")
    return found


def _three(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(isinstance(one, (int, float)) for one in value)
