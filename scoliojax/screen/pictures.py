"""Pictures of a screening: silhouettes and figures, never frames of the video."""

from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from data_pipelines.schema import CLASSES, FRAME_SIZE
from data_pipelines.silhouettes import cut_sides
from data_pipelines.video.people import Person
from scoliojax.scores.figures import COLOURS, new_figure, stamp
from scoliojax.scores.strips import StripContribution, draw_contribution
from scoliojax.screen.answer import Answer

SHEET_FRAMES = 60
SHEET_COLUMNS = 12
ANIMATED_FRAMES = 90
CAPTION = 14  # pixels
CANDIDATE_FRAMES = 8
ON_TOP = 8  # silhouettes at the top of a report


def contact_sheet(silhouettes: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Up to 60 evenly spaced silhouettes of `[s, 64, 64]`, each above the number of its frame: uint8 `[h, w]`."""
    chosen = _evenly(len(silhouettes), min(len(silhouettes), SHEET_FRAMES))
    cells = [_captioned(silhouettes[index], str(numbers[index])) for index in chosen]
    columns = min(SHEET_COLUMNS, len(cells))
    cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
    return np.vstack([np.hstack(cells[start : start + columns]) for start in range(0, len(cells), columns)])


def _evenly(frames: int, count: int) -> np.ndarray:
    return np.linspace(0, frames - 1, count).round().astype(int)


def _captioned(silhouette: np.ndarray, text: str) -> np.ndarray:
    cell = np.pad(silhouette, ((0, CAPTION), (0, 0)), constant_values=40)
    return cv2.putText(cell, text, (2, FRAME_SIZE + 11), cv2.FONT_HERSHEY_SIMPLEX, 0.35, 200, 1, cv2.LINE_AA)


def write_animation(path: Path, silhouettes: np.ndarray, times: np.ndarray | None) -> None:
    """Write the first 90 silhouettes of `[s, 64, 64]` as a GIF at the speed of the walk, or at 25 frames a second."""
    shown = silhouettes[:ANIMATED_FRAMES].repeat(3, axis=1).repeat(3, axis=2)  # s 192 192
    milliseconds = 40.0 if times is None or len(times) < 2 else 1000.0 * float(np.median(np.diff(times)))
    images = [Image.fromarray(frame) for frame in shown]
    duration = max(20, int(10 * round(milliseconds / 10)))  # a GIF counts hundredths of a second
    images[0].save(path, save_all=True, append_images=images[1:], duration=duration, loop=0)


def eight(silhouettes: np.ndarray, numbers: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Up to eight evenly spaced silhouettes of `[s, 64, 64]`, each with the number of its frame."""
    chosen = _evenly(len(silhouettes), min(len(silhouettes), ON_TOP))
    return [(int(numbers[index]), silhouettes[index]) for index in chosen]


def candidates_sheet(people: list[Person], shape: tuple[int, int]) -> np.ndarray:
    """A row for each candidate, numbered from 1: places in the frame of `shape` (height, width), and some silhouettes.

    The sheet is uint8 `[h, w]`.
    """
    rows = []
    for number, person in enumerate(people, 1):
        label = np.zeros((FRAME_SIZE + CAPTION, FRAME_SIZE), np.uint8)
        label = cv2.putText(label, str(number), (16, 52), cv2.FONT_HERSHEY_SIMPLEX, 1.6, 255, 3, cv2.LINE_AA)
        rows.append(np.hstack([label, _place(person, shape), *_some(person, CANDIDATE_FRAMES)]))
    return np.vstack(rows)


def candidate(person: Person, shape: tuple[int, int]) -> np.ndarray:
    """The places of one candidate in the frame of `shape` (height, width), and three silhouettes: uint8 `[h, w]`."""
    return np.hstack([_place(person, shape), *_some(person, 3)])


def _place(person: Person, shape: tuple[int, int]) -> np.ndarray:
    """Boxes of a candidate in an empty frame, as high as a silhouette with its caption."""
    place, used = np.full(shape, 70, np.uint8), person.usable
    for sighting in used[:: max(1, len(used) // 10)]:
        top, left, bottom, right = sighting.box
        cv2.rectangle(place, (left, top), (right, bottom), 220, 2)
    size = (max(1, round(shape[1] * FRAME_SIZE / shape[0])), FRAME_SIZE)  # width and height
    return np.pad(cv2.resize(place, size, interpolation=cv2.INTER_AREA), ((0, CAPTION), (0, 0)), constant_values=40)


def _some(person: Person, count: int) -> list[np.ndarray]:
    """Evenly spaced silhouettes of a candidate, with their times."""
    shown = [person.usable[index] for index in _evenly(len(person.usable), count)]
    return [_captioned(np.asarray(sighting.silhouette), f"{sighting.time:.1f} s") for sighting in shown]


def draw_windows(answer: Answer) -> Figure:
    """Probability of each class in every window, and of "positive or neutral" with the threshold of the operating point."""
    walk, calibration = answer.walk, answer.network.calibration
    figure, axes = new_figure(9.4, 2.9)
    position = walk.frames if walk.times is None else walk.times
    middles = [0.5 * (position[window.first] + position[window.last]) for window in answer.windows]
    for index, name in enumerate(CLASSES):
        values = [window.probabilities[index] for window in answer.windows]
        axes.plot(middles, values, marker="o", markersize=4, color=COLOURS[name], label=name)
    screening = [window.screening for window in answer.windows]
    axes.plot(middles, screening, "--", color=COLOURS["screening"], linewidth=1.2, label="positive or neutral")
    if calibration is not None and calibration.threshold is not None:
        height, right = calibration.threshold, axes.get_yaxis_transform()
        axes.axhline(height, color="black", linewidth=0.8, linestyle=":")
        axes.text(1.0, height, f" threshold\n {height:.2f}", transform=right, fontsize=8, va="center")
    for window in answer.windows[1:]:
        axes.axvline(position[window.first], color="#dddddd", linewidth=0.6, zorder=0)
    axes.set(ylim=(-0.02, 1.02), ylabel="probability", xlabel="frame" if walk.times is None else "time in the video (s)")
    axes.legend(frameon=False, fontsize=9, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return _stamped(figure, answer)


def draw_strips(answer: Answer) -> Figure:
    """Contribution of each strip to each class, over the mean frame of the walk; lines: the range over the windows.

    The class called comes first.
    """
    centred = np.stack([reading.centred for reading in (answer.whole, *answer.windows)])  # v p k
    contribution = StripContribution(centred[0], centred.min(axis=0), centred.max(axis=0))
    mean = cut_sides(answer.pictures).mean(axis=0)  # 64 44
    silhouettes, first = np.stack([mean] * len(CLASSES)), CLASSES.index(answer.whole.called)
    network = answer.network
    figure = draw_contribution(contribution, silhouettes, network.config.model.strips, CLASSES, first, network.marks)
    return _stamped(figure, answer)


def _stamped(figure: Figure, answer: Answer) -> Figure:
    """A figure with a remark if the network was trained on synthetic walkers; the report around it names the walk."""
    return stamp(figure, False, "read by a network of SYNTHETIC walkers" if answer.network.synthetic else "")
