"""The one judge of masks, for `prepare`, a released tree as `data.root`, and `screen`: is this a mask of something?

Whether that something is a person who walks, others judge. A sequence is judged as a whole, because a single frame of a good
sequence may be empty, dim or filled by a speck; a frame by itself only has to have nothing that no mask has.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from data_pipelines.pictures import MOST_LABELS, read_mask
from data_pipelines.schema import FRAME_SIZE, DataError, abbreviate
from data_pipelines.silhouettes import MIN_PIXEL_SUM, normalise_silhouette

VERSION = 2  # of the rules; raise it where masks that were taken are refused or change now: what a cache holds is made anew
BLACK, WHITE = 15, 240  # grey levels: largest of the background, smallest of the person; between are soft edges
MOST_GREY = 0.5  # largest fraction of grey among the pixels of a sequence that are not black; small masks have soft edges
LEAST_LEVEL = 0.5  # of a frame's pixels that are not black, this fraction lies within `SPREAD` of one grey level
SPREAD = 16  # grey levels
MOST_BORDER = 0.5  # largest fraction of white at the border of a sequence: real walkers stay under 0.1, cut closely under 0.4
FULL_BORDER = 0.9  # the same for one frame
REMEDY = "give masks, 0 and 255"
FAINT = 2.0  # largest ratio of faint pixels, 1 to 15, to soft edges: resizing gives up to 1.3, JPEG of sharp masks 1.6 to 8,000
FAINT_WHITE = 0.01  # fewer faint pixels than this fraction of the white ones are no matter
MOST_FLAT = 0.01  # of the white pixels; more of one grey level among equal neighbours are a second label, no soft edge
MOST_DIM = 0.1  # largest fraction of frames without white in a sequence with white; a single such frame always stays as it is
LEAST_BLACK = 0.15  # of an inverted frame that was cut closely; a person who fills the picture leaves less between the arms
MOST_GROWN = 1.1  # largest ratio of a crop's height with faint pixels off the person to that without; ringing gives up to 1.05
FILLED, UNFILLED = 0.9, 0.5  # fractions of frames that reach both ends; normalised people do from top to bottom, few sideways
PIECE = 2**20  # pixels that are counted at a time: counting takes eight bytes for each
PIECE_FRAMES = 256  # normalised frames that are judged at a time


class Judge:
    """Collects what one sequence of masks consists of, frame by frame, and then gives its verdict.

    `name` is the file or folder of the sequence, for messages.
    """

    def __init__(self, name: object):
        self.name = name
        self.levels = np.zeros(256, np.int64)  # level: number of pixels by grey level
        self.border = np.zeros(256, np.int64)  # level: the same of the outermost pixels of each frame
        self.flat = np.zeros(256, np.int64)  # level: the same of the pixels whose neighbours are equal, of frames with white
        self.frames: list[tuple[object, int, int, float]] = []  # name, smallest and largest level, share of the border near it
        self.inverted: list[str] = []  # names of frames
        self.dim: list[str] = []  # names of usable frames without white
        self.dusty: list[str] = []  # names of raw frames whose crop faint pixels would widen
        self.usable = 0  # number of frames that are not black

    def add(self, masks: np.ndarray, name: object = "", first: int = 0) -> None:
        """Look at frames of one size, uint8 `[s, h, w]`; raises `DataError` naming a frame that is a photograph.

        With `name` it is a single raw frame, which the verdict will judge by itself, too. `first` is the number of the first
        frame.
        """
        levels = _levels(masks)  # level
        border = np.concatenate(
            [masks[:, 0].ravel(), masks[:, -1].ravel(), masks[:, :, 0].ravel(), masks[:, :, -1].ravel()]
        )  # pixel
        edge = np.bincount(border, minlength=256)  # level
        self.levels += levels
        self.border += edge
        if name:
            values = np.flatnonzero(levels)  # level that is there
            low, high = int(values[0]), int(values[-1])
            near = edge[max(high - SPREAD, high // 2 + 1) :].sum()
            self.frames.append((name, low, high, near / len(border)))
            if levels[1 : BLACK + 1].any() and _dusty(masks[0]):
                self.dusty.append(Path(str(name)).name)
        numbers = range(first, first + len(masks))
        self._look_at_each(masks, levels, [Path(str(name)).name] if name else [f"frame {number}" for number in numbers])
        if np.count_nonzero(levels) <= MOST_LABELS:  # of few levels, the whole sequence says more
            return
        seen = np.array([*map(np.count_nonzero, masks > BLACK)])  # s; several times as fast as with axis=(1, 2)
        white = np.array([*map(np.count_nonzero, masks >= WHITE)])  # s
        for number in np.flatnonzero(white < LEAST_LEVEL * seen):
            if _is_photograph(_levels(masks[number])):
                where = name or f"{self.name}: frame {first + number}"
                grey = 1 - white[number] / seen[number]
                raise DataError(f"{where} is no mask but a picture ({grey:.0%} of what is not black is grey); {REMEDY}")

    def _look_at_each(self, masks: np.ndarray, levels: np.ndarray, names: list[str]) -> None:
        """Which frames are dim or inverted, and how much of them is evenly grey; `levels` are those of `masks`."""
        values = np.flatnonzero(levels)  # level that is there
        most = np.array([mask.max() for mask in masks])  # s; faster than with axis=(1, 2), as below
        self.usable += np.count_nonzero(most)
        dim = np.flatnonzero((most > 0) & (most < WHITE))  # s that is dim
        self.dim += [names[number] for number in dim if masks[number].sum(dtype=np.int64) > MIN_PIXEL_SUM]
        middle = (int(values[0]) + int(values[-1])) // 2
        edges = np.concatenate([masks[:, 0], masks[:, -1], masks[:, :, 0], masks[:, :, -1]], axis=1) > middle  # s edge
        for number in np.flatnonzero((border := edges.mean(axis=1)) > MOST_BORDER):
            black = np.count_nonzero(masks[number] <= middle) / masks[number].size
            if black > max(LEAST_BLACK, 1 - border[number]):  # it is inside, not at the border
                self.inverted.append(names[number])
        if levels[BLACK + 1 : WHITE].any():
            self.flat += _flat(masks[most >= WHITE])

    def verdict(self) -> np.ndarray | None:
        """What every grey level becomes, uint8 `[256]`; None if masks are right as they are.

        Raises `DataError` with the reason and the remedy if the sequence is none of masks.
        """
        values = np.flatnonzero(self.levels)  # level that is there
        if len(values) == 0 or not values.any():
            return None  # nothing was drawn; whoever counts the usable frames says so
        if len(values) == 1:
            self.refuse(f"every pixel is {values[0]}, so it shows nobody", REMEDY)
        low, high = int(values[0]), int(values[-1])
        two = len(values) == 2
        if not two:
            self._refuse_greys(values)
        middle = high if two else (BLACK + WHITE) // 2
        if (share := self.border[middle:].sum() / self.border.sum()) > MOST_BORDER:
            remedy = "subtract the values from 255, or cut the person out with a margin"
            self.refuse(f"{share:.0%} of its border is white, so it is inverted (a black person) or has no background", remedy)
        for name, least, most, near in self.frames:
            if most >= high - SPREAD and near > FULL_BORDER:
                raise DataError(f"{name}: {near:.0%} of its border is white, so it is all white or inverted; remove this frame")
            if least == most > low:
                raise DataError(f"{name}: every pixel is {most}, so it shows nobody; remove this frame")
        if self.inverted:
            self.refuse(
                f"{abbreviate(self.inverted, 3)}: inverted (a black person)", "subtract the values from 255 or remove it"
            )
        if not two and len(self.dim) > max(1, MOST_DIM * self.usable):
            dim = f"grey in {len(self.dim)} of {self.usable} ({abbreviate(self.dim, 3)})"
            self.refuse(f"the person is white in some frames and {dim}", "write the person as 255 in all of them")
        if self.dusty and not two:
            dust = f"faint pixels off the person (1 to {BLACK}), which would make the person smaller"
            self.refuse(f"{abbreviate(self.dusty, 3)}: {dust}", f"write values up to {BLACK} as 0")
        if not two or (low, high) == (0, 255):
            return None
        return np.where(np.arange(256) >= high, 255, 0).astype(np.uint8)  # level

    def _refuse_greys(self, values: np.ndarray) -> None:
        """More than two values are soft edges, or labels, or a picture."""
        white, seen = int(self.levels[WHITE:].sum()), int(self.levels[BLACK + 1 :].sum())
        faint, soft = int(self.levels[1 : BLACK + 1].sum()), int(self.levels[BLACK + 1 : WHITE].sum())
        listed = f"has the values {abbreviate(values, 4)}"
        if white == 0 or white < (1 - MOST_GREY) * seen:
            if len(values) <= MOST_LABELS:
                self.refuse(f"{listed}, a label map", "write the label of the person as 255 and all others as 0")
            if white == 0:
                self.refuse(f"its largest value is {values[-1]}", "scale the values so that the person is 255")
            grey = 1 - white / seen
            self.refuse(f"no masks but pictures ({grey:.0%} of what is not black is grey)", REMEDY)
        if self.flat.max() > MOST_FLAT * white:
            what = f"{int(np.argmax(self.flat))} fills whole areas beside {WHITE} to 255, a label map"
            self.refuse(f"{listed}: {what}", "write the label of the person as 255 and all others as 0")
        if faint > FAINT * soft and faint > FAINT_WHITE * white:
            what = "a label map" if len(values) <= 8 else "as JPEG leaves it"
            self.refuse(f"{listed}: its background is not black, {what}", "write masks anew, as PNG, 0 and 255")

    def refuse(self, reason: str, remedy: str) -> None:
        """Raise `DataError` with the name of the sequence."""
        raise DataError(f"{self.name}: {reason}; {remedy}")


def _levels(masks: np.ndarray) -> np.ndarray:
    """Number of pixels by grey level, int64 `[256]`; nearly all of a mask are 0 or 255, and counted faster than others."""
    pixels, levels = masks.reshape(-1), np.zeros(256, np.int64)  # pixel, level
    for first in range(0, len(pixels), PIECE):
        piece = pixels[first : first + PIECE]  # pixel
        levels += np.bincount(piece[(piece != 0) & (piece != 255)], minlength=256)
        levels[255] += np.count_nonzero(piece == 255)
    levels[0] = masks.size - levels.sum()
    return levels


def _flat(masks: np.ndarray) -> np.ndarray:
    """Number of grey pixels whose eight neighbours are equal, by grey level, int64 `[256]`: soft edges have hardly any."""
    pixels, width, levels = masks.reshape(-1), masks.shape[2], np.zeros(256, np.int64)  # pixel, level
    for first in range(0, len(pixels), PIECE):
        piece = pixels[first : first + PIECE]  # pixel
        places = first + np.flatnonzero((piece > BLACK) & (piece < WHITE))  # grey pixel
        for step in (1, -1, width, -width, width + 1, width - 1, 1 - width, -1 - width):  # nearly none is left after two
            places = places[pixels.take(places + step, mode="clip") == pixels[places]]  # grey pixel
        levels += np.bincount(pixels[places], minlength=256)
    return levels


def _dusty(mask: np.ndarray) -> bool:
    """Of a raw mask, uint8 `[h, w]`: faint pixels that touch no other ones widen the rows that are cut out."""
    import cv2  # imported here so that commands answer --help without it

    clear, drawn = mask > BLACK, mask > 0  # h w
    person, whole = np.flatnonzero(clear.any(axis=1)), np.flatnonzero(drawn.any(axis=1))  # row that is reached
    height = np.ptp(whole) + 1
    if not len(person) or height <= MOST_GROWN * (np.ptp(person) + 1):
        return False
    _, parts, stats, _ = cv2.connectedComponentsWithStats(drawn.view(np.uint8))  # h w, parts 5
    stats = stats[np.unique(parts[clear]).astype(np.intp)]  # part with clear pixels, 5
    top, bottom = stats[:, cv2.CC_STAT_TOP], stats[:, cv2.CC_STAT_TOP] + stats[:, cv2.CC_STAT_HEIGHT]  # part
    return bool(height > MOST_GROWN * (bottom.max() - top.min()))


def _is_photograph(levels: np.ndarray) -> bool:
    """Of one frame's numbers of pixels by grey level: what is not black has no common level."""
    seen = levels[BLACK + 1 :]  # level
    if np.count_nonzero(levels) <= MOST_LABELS or not seen.any():
        return False
    common = int(np.argmax(seen))
    return bool(seen[max(common - SPREAD, 0) : common + SPREAD + 1].sum() < LEAST_LEVEL * seen.sum())


def judged(silhouettes: np.ndarray, name: object) -> np.ndarray:
    """Normalised silhouettes uint8 `[s, h, w]`, with 0 and 255 for whatever two values they have; raises `DataError`."""
    import cv2  # imported here so that commands answer --help without it

    if not silhouettes.any():
        raise DataError(f"{name}: every value is 0, so it shows nobody; {REMEDY}")
    judge = Judge(name)
    for first in range(0, len(silhouettes), PIECE_FRAMES):
        judge.add(silhouettes[first : first + PIECE_FRAMES], first=first)
    table = judge.verdict()
    if table is not None:
        silhouettes = cv2.LUT(silhouettes.reshape(-1, silhouettes.shape[2]), table).reshape(silhouettes.shape)  # s h w
    if _filled(silhouettes[:, [0, -1]]) > UNFILLED:  # the usual ones, cheaper to see
        return silhouettes
    across, upright = _filled(silhouettes.swapaxes(1, 2)), _filled(silhouettes)
    if across > FILLED and upright < UNFILLED:
        reach = f"{across:.0%} of its frames reach from side to side and {upright:.0%} from top to bottom"
        judge.refuse(f"{reach}, so nobody stands in them", "give the axes in the order [frames, rows, columns]")
    return silhouettes


def _filled(silhouettes: np.ndarray) -> float:
    """Of uint8 `[s, h, w]`: the fraction of frames that reach the first and the last row that any frame reaches."""
    reached = np.asarray(silhouettes.any(axis=2))  # s h
    ends = np.flatnonzero(reached.any(axis=0))  # row that is reached
    return float((reached[:, ends[0]] & reached[:, ends[-1]]).mean()) if len(ends) else 0.0


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
            try:
                silhouette = normalise_silhouette(mask)
            except DataError as error:
                raise DataError(f"{file}: {error}") from None
            if silhouette is not None:
                kept[number] = silhouette
        frames = np.stack([*kept.values()]) if kept else np.zeros((0, FRAME_SIZE, FRAME_SIZE), np.uint8)  # s 64 64
        return frames, np.array([*kept], np.int64)

    found = normalised(None)
    table = judge.verdict()
    if table is not None:  # two other values than 0 and 255: known only now that all are read
        found = normalised(table)
    if not len(found[1]):
        raise DataError(f"{name}: none of its {len(files)} masks shows a usable person; {REMEDY}")
    return found
