"""The one judge of masks, for `prepare`, a released tree as `data.root`, and `screen`: is this a mask of something?

Whether that something is a person who walks, others judge. A sequence is judged as a whole, because a single frame of a good
sequence may be empty, dim or filled by a speck; a frame by itself only has to have nothing that no mask has.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from data_pipelines.pictures import read_mask
from data_pipelines.schema import FRAME_SIZE, DataError, abbreviate
from data_pipelines.silhouettes import normalise_silhouette

VERSION = 2  # of the rules; raise it where masks that were taken are refused or change now: what a cache holds is made anew
BLACK, WHITE = 15, 240  # grey levels: largest of the background, smallest of the person; between are soft edges
MOST_GREY = 0.5  # largest fraction of grey among the pixels of a sequence that are not black; small masks have soft edges
LEAST_LEVEL = 0.5  # of a frame's pixels that are not black, this fraction lies within `SPREAD` of one grey level
SPREAD = 16  # grey levels
MOST_BORDER = 0.5  # largest fraction of white at the border of a sequence: real walkers stay under 0.1, cut closely under 0.4
FULL_BORDER = 0.9  # the same for one frame
MOST_LABELS = 16  # what is no mask and has at most so many grey levels is called a label map, not a picture
REMEDY = "give masks, 0 and 255"
FAINT = 2.0  # largest ratio of faint pixels, 1 to 15, to soft edges: resizing gives up to 1.3, JPEG of sharp masks 1.6 to 8,000
FAINT_WHITE = 0.01  # fewer faint pixels than this fraction of the white ones are no matter


class Judge:
    """Collects what one sequence of masks consists of, frame by frame, and then gives its verdict.

    `name` is the file or folder of the sequence, for messages.
    """

    def __init__(self, name: object):
        self.name = name
        self.levels = np.zeros(256, np.int64)  # number of pixels by grey level
        self.border = np.zeros(256, np.int64)  # the same of the outermost pixels of each frame
        self.frames: list[tuple[object, int, int, float]] = []  # name, smallest and largest level, share of the border near it

    def add(self, masks: np.ndarray, name: object = "") -> None:
        """Look at frames of one size, uint8 `[s, h, w]`; raises `DataError` naming a frame that is a photograph.

        With `name` it is a single raw frame, which the verdict will judge by itself, too.
        """
        levels = _levels(masks)
        border = np.concatenate([masks[:, 0].ravel(), masks[:, -1].ravel(), masks[:, :, 0].ravel(), masks[:, :, -1].ravel()])
        edge = np.bincount(border, minlength=256)
        self.levels += levels
        self.border += edge
        if name:
            values = np.flatnonzero(levels)
            low, high = int(values[0]), int(values[-1])
            near = edge[max(high - SPREAD, high // 2 + 1) :].sum()
            self.frames.append((name, low, high, near / len(border)))
        seen = np.array([*map(np.count_nonzero, masks > BLACK)])  # s; several times as fast as with axis=(1, 2)
        white = np.array([*map(np.count_nonzero, masks >= WHITE)])  # s
        for number in np.flatnonzero(white < LEAST_LEVEL * seen):
            if _is_photograph(np.bincount(masks[number].ravel(), minlength=256)):
                where = name or f"{self.name}: frame {number}"
                grey = 1 - white[number] / seen[number]
                raise DataError(f"{where} is no mask but a picture ({grey:.0%} of what is not black is grey); {REMEDY}")

    def table(self) -> np.ndarray | None:
        """What every grey level becomes, uint8 `[256]`; None if masks are right as they are.

        Raises `DataError` with the reason and the remedy if the sequence is none of masks.
        """
        values = np.flatnonzero(self.levels)
        if len(values) == 0 or not values.any():
            return None  # nothing was drawn; whoever counts the usable frames says so
        if len(values) == 1:
            self._refuse(f"every pixel is {values[0]}, so it shows nobody", REMEDY)
        low, high = int(values[0]), int(values[-1])
        two = len(values) == 2
        if not two:
            self._refuse_greys(values)
        middle = high if two else (BLACK + WHITE) // 2
        if (share := self.border[middle:].sum() / self.border.sum()) > MOST_BORDER:
            remedy = "subtract the values from 255, or cut the person out with a margin"
            self._refuse(f"{share:.0%} of its border is white, so it is inverted (a black person) or has no background", remedy)
        for name, least, most, near in self.frames:
            if most >= high - SPREAD and near > FULL_BORDER:
                raise DataError(f"{name}: {near:.0%} of its border is white, so it is all white or inverted; remove this frame")
            if least == most > low:
                raise DataError(f"{name}: every pixel is {most}, so it shows nobody; remove this frame")
        if not two or (low, high) == (0, 255):
            return None
        return np.where(np.arange(256) >= high, 255, 0).astype(np.uint8)

    def _refuse_greys(self, values: np.ndarray) -> None:
        """More than two values are soft edges, or labels, or a picture."""
        white, seen = int(self.levels[WHITE:].sum()), int(self.levels[BLACK + 1 :].sum())
        faint, soft = int(self.levels[1 : BLACK + 1].sum()), int(self.levels[BLACK + 1 : WHITE].sum())
        listed = f"has the values {abbreviate(values, 4)}"
        if white == 0 or white < (1 - MOST_GREY) * seen:
            if len(values) <= MOST_LABELS:
                self._refuse(f"{listed}, a label map", "write the label of the person as 255 and all others as 0")
            if white == 0:
                self._refuse(f"its largest value is {values[-1]}", "scale the values so that the person is 255")
            grey = 1 - white / seen
            self._refuse(f"no masks but pictures ({grey:.0%} of what is not black is grey)", REMEDY)
        if faint > FAINT * soft and faint > FAINT_WHITE * white:
            what = "a label map" if len(values) <= 8 else "as JPEG leaves it"
            self._refuse(f"{listed}: its background is not black, {what}", "write masks anew, as PNG, 0 and 255")

    def _refuse(self, reason: str, remedy: str) -> None:
        raise DataError(f"{self.name}: {reason}; {remedy}")


def _levels(masks: np.ndarray) -> np.ndarray:
    """Number of pixels by grey level, int64 `[256]`; nearly all of a mask are 0 or 255, and counted faster than others."""
    levels = np.bincount(masks[(masks != 0) & (masks != 255)], minlength=256)
    levels[255] = np.count_nonzero(masks == 255)
    levels[0] = masks.size - levels.sum()
    return levels


def _is_photograph(levels: np.ndarray) -> bool:
    """Of one frame's numbers of pixels by grey level: what is not black has no common level."""
    seen = levels[BLACK + 1 :]
    if np.count_nonzero(levels) <= MOST_LABELS or not seen.any():  # of few levels, the whole sequence says more
        return False
    common = int(np.argmax(seen))
    return bool(seen[max(common - SPREAD, 0) : common + SPREAD + 1].sum() < LEAST_LEVEL * seen.sum())


def judged(silhouettes: np.ndarray, name: object) -> np.ndarray:
    """Normalised silhouettes uint8 `[s, h, w]`, with 0 and 255 for whatever two values they have; raises `DataError`."""
    if not silhouettes.any():
        raise DataError(f"{name}: every value is 0, so it shows nobody; {REMEDY}")
    judge = Judge(name)
    judge.add(silhouettes)
    table = judge.table()
    return silhouettes if table is None else table[silhouettes]  # s h w


def read_masks(files: Iterable[Path], name: object) -> tuple[np.ndarray, np.ndarray]:
    """Read, judge and normalise the masks of one sequence: silhouettes uint8 `[s, 64, 64]`, and their places, int `[s]`.

    Frames in which nobody is seen are missing. `DataError` names a file or, with `name`, the sequence that cannot be used.
    """
    files, judge = list(files), Judge(name)

    def normalised(table: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        kept: dict[int, np.ndarray] = {}
        for number, file in enumerate(files):
            mask = read_mask(file)  # h w
            if table is None:
                judge.add(mask[None], file)
            else:
                mask = table[mask]  # h w
            if (silhouette := normalise_silhouette(mask)) is not None:
                kept[number] = silhouette
        frames = np.stack([*kept.values()]) if kept else np.zeros((0, FRAME_SIZE, FRAME_SIZE), np.uint8)  # s 64 64
        return frames, np.array([*kept], np.int64)

    found = normalised(None)
    table = judge.table()
    if table is not None:  # two other values than 0 and 255: known only now that all are read
        found = normalised(table)
    if not len(found[1]):
        raise DataError(f"{name}: none of its {len(files)} masks shows a usable person; {REMEDY}")
    return found
