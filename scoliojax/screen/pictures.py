"""Pictures of a screening: silhouettes and drawings, never the video's own frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from data_pipelines.schema import CLASSES, FRAME_SIZE
from data_pipelines.silhouettes import cut_sides
from data_pipelines.video.people import Person
from scoliojax.scores.figures import COLOURS, stamp
from scoliojax.scores.strips import StripContribution, draw_contribution
from scoliojax.screen.answer import Answer

SHEET_FRAMES = 60
SHEET_COLUMNS = 12
ANIMATED_FRAMES = 90
CAPTION = 14  # pixels
CANDIDATE_FRAMES = 8


def contact_sheet(silhouettes: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Up to 60 evenly spaced silhouettes of `[s, 64, 64]`, each over its frame's number: uint8 `[h, w]`."""
    chosen = np.linspace(0, len(silhouettes) - 1, min(len(silhouettes), SHEET_FRAMES)).round().astype(int)
    cells = [_captioned(silhouettes[index], str(numbers[index])) for index in chosen]
    columns = min(SHEET_COLUMNS, len(cells))
    cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
    return np.vstack([np.hstack(cells[start : start + columns]) for start in range(0, len(cells), columns)])


def _captioned(silhouette: np.ndarray, text: str) -> np.ndarray:
    cell = np.vstack([silhouette, np.full((CAPTION, FRAME_SIZE), 40, np.uint8)])
    return cv2.putText(cell, text, (2, FRAME_SIZE + 11), cv2.FONT_HERSHEY_SIMPLEX, 0.35, 200, 1, cv2.LINE_AA)


def write_animation(path: Path, silhouettes: np.ndarray, times: np.ndarray | None) -> None:
    """The first 90 silhouettes of `[s, 64, 64]` as a GIF at the walk's own speed (25 frames a second where it has no times)."""
    shown = silhouettes[:ANIMATED_FRAMES].repeat(3, axis=1).repeat(3, axis=2)  # s 192 192
    milliseconds = 40.0 if times is None or len(times) < 2 else 1000.0 * float(np.median(np.diff(times)))
    images = [Image.fromarray(frame) for frame in shown]
    duration = max(20, int(10 * round(milliseconds / 10)))  # a GIF counts hundredths of a second
    images[0].save(path, save_all=True, append_images=images[1:], duration=duration, loop=0)


def candidates_sheet(people: list[Person], shape: tuple[int, int]) -> np.ndarray:
    """A row for each candidate: where in the picture, and some silhouettes. Uint8 `[h, w]`.

    Args:
      people: in the order of their numbers, from 1.
      shape: height and width of a frame.
    """
    height, width = shape
    rows = []
    for number, person in enumerate(people, 1):
        used = person.usable
        place = np.full((height, width), 70, np.uint8)
        for one in used[:: max(1, len(used) // 10)]:
            top, left, bottom, right = one.box
            cv2.rectangle(place, (left, top), (right, bottom), 220, 2)
        map_width = max(1, round(width * FRAME_SIZE / height))
        place = cv2.resize(place, (map_width, FRAME_SIZE), interpolation=cv2.INTER_AREA)
        place = np.vstack([place, np.full((CAPTION, map_width), 40, np.uint8)])
        label = np.zeros((FRAME_SIZE + CAPTION, FRAME_SIZE), np.uint8)
        label = cv2.putText(label, str(number), (16, 52), cv2.FONT_HERSHEY_SIMPLEX, 1.6, 255, 3, cv2.LINE_AA)
        chosen = np.linspace(0, len(used) - 1, CANDIDATE_FRAMES).round().astype(int)
        cells = [_captioned(np.asarray(used[index].silhouette), f"{used[index].time:.1f} s") for index in chosen]
        rows.append(np.hstack([label, place, *cells]))
    return np.vstack(rows)


def draw_windows(answer: Answer) -> Figure:
    """Probability of each class in every window, and of "positive or neutral" with the operating point."""
    walk, calibration = answer.walk, answer.network.calibration
    figure = Figure(figsize=(9.4, 2.9), layout="constrained")
    axes = figure.subplots()
    position = walk.frames if walk.times is None else walk.times
    middles = [0.5 * (position[one.first] + position[one.last]) for one in answer.windows]
    for index, name in enumerate(CLASSES):
        values = [one.probabilities[index] for one in answer.windows]
        axes.plot(middles, values, marker="o", markersize=4, color=COLOURS[name], label=name)
    screening = [one.screening for one in answer.windows]
    axes.plot(middles, screening, "--", color=COLOURS["screening"], linewidth=1.2, label="positive or neutral")
    if calibration is not None and calibration.threshold is not None:
        axes.axhline(calibration.threshold, color="black", linewidth=0.8, linestyle=":")
        axes.text(
            1.0, calibration.threshold, " refer\n from here", transform=axes.get_yaxis_transform(), fontsize=7, va="center"
        )
    for one in answer.windows[1:]:
        axes.axvline(position[one.first], color="#dddddd", linewidth=0.6, zorder=0)
    axes.set(ylim=(-0.02, 1.02), ylabel="probability", xlabel="frame" if walk.times is None else "time in the video (s)")
    axes.legend(frameon=False, fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return stamp(figure, False, _whose(answer))


def draw_strips(answer: Answer) -> Figure:
    """What each strip of the body contributes to each class, over the walk's mean silhouette; lines: the range of windows."""
    centred = np.stack([_centred(one.strip_logits) for one in (answer.whole, *answer.windows)])  # v p k
    contribution = StripContribution(centred[0], centred.min(axis=0), centred.max(axis=0))
    mean = cut_sides(answer.walk.silhouettes[: answer.frames_used]).mean(axis=0)  # 64 44
    means = np.stack([mean] * len(CLASSES))  # k 64 44
    return stamp(draw_contribution(contribution, means, answer.network.config.model.strips, CLASSES), False, _whose(answer))


def _whose(answer: Answer) -> str:
    """Whose walk, and whether the network ever saw a person."""
    return answer.walk.name + (", read by a network of SYNTHETIC walkers" if answer.synthetic else "")


def _centred(strip_logits: np.ndarray) -> np.ndarray:
    return strip_logits - strip_logits.mean(axis=1, keepdims=True)  # p k
