"""Augmentation: what happens to the clips of a training batch, a function of seed and step alone.

The draws are a stream of their own beside those of the sampler, so a batch has the same sequences and frames with and without
it, and every transformation draws its own numbers, so one that is turned off changes no other. All frames of a clip are changed
alike, as a camera would.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data_pipelines.perturbations import dilated, eroded, mirrored, moved, tilted
from data_pipelines.schema import FRAME_SIZE, FRAME_WIDTH, SIDE_CUT, DataError

STREAM = 1  # key of the draws, beside those of the sampler
TILTED = 0.5  # share of the clips that are tilted: the others keep their sharp edges
HOLE = ((4, 20), (4, 12))  # least and largest height and width of what is cut out, in pixels
MOST_TILT = 45.0  # degrees


class Draws(NamedTuple):
    """What happens to each clip, in the order in which it happens."""

    mirror: np.ndarray  # n; bool
    tilt: np.ndarray  # n; degrees, positive to the right
    shift: np.ndarray  # n; columns, positive to the right
    thicker: np.ndarray  # n; 1 dilated, -1 eroded, 0 neither
    hole: np.ndarray  # n 4; first and last row and column, plus one; all 0: no hole


@dataclass(frozen=True)
class Augmentation:
    """How much is drawn; all 0, the default, changes nothing. Raises `DataError` for a value that cannot be."""

    shift: int = 0  # most columns that a clip is moved, to either side; each distance is equally likely
    mirror: float = 0.0  # probability that left becomes right
    dilation: float = 0.0  # probability of one pixel more all round
    erosion: float = 0.0  # probability of one pixel less all round; never together with dilation
    tilt: float = 0.0  # most degrees that a clip is tilted, to either side; half of the clips are
    cut_out: float = 0.0  # probability of an empty rectangle, at the same place in all frames of a clip

    def __post_init__(self):
        limits = {"shift": (SIDE_CUT, "a whole number of columns"), "tilt": (MOST_TILT, "degrees")}
        for name, value in vars(self).items():
            most, what = limits.get(name, (1, "a probability"))
            if not 0 <= value <= most or (name == "shift" and value != int(value)):
                raise DataError(f"{name}={value} must be {what} from 0, which turns it off, to {most:g}")
        if self.dilation + self.erosion > 1:
            raise DataError(
                f"dilation={self.dilation} and erosion={self.erosion} are more than 1 together; no clip gets both, so lower one"
            )

    def __bool__(self) -> bool:
        return any(vars(self).values())

    def draw(self, seed: int, step: int, clips: int) -> Draws:
        """The draws of all clips of the global batch of a step."""
        rng = np.random.default_rng(np.random.SeedSequence((seed, step), spawn_key=(STREAM,)))
        mirror, tilt, shift, thicker, cut, *place = rng.random((9, clips))  # each n
        sizes = [least + np.floor(chance * (most - least + 1)) for chance, (least, most) in zip(place[:2], HOLE, strict=True)]
        edges = []
        for chance, size, whole in zip(place[2:], sizes, (FRAME_SIZE, FRAME_WIDTH), strict=True):
            first = np.floor(chance * (whole - size + 1))
            edges += [first, first + size]
        return Draws(
            mirror=mirror < self.mirror,
            tilt=np.where(tilt < TILTED, (2.0 * tilt / TILTED - 1.0) * self.tilt, 0.0),
            shift=np.floor(shift * (2 * self.shift + 1)).astype(int) - self.shift,
            thicker=(thicker < self.dilation).astype(int) - (thicker >= 1.0 - self.erosion),
            hole=np.where(cut < self.cut_out, edges, 0).T.astype(int),
        )


UNCHANGED = Augmentation()


def augment(frames: np.ndarray, draws: Draws, clip: int) -> np.ndarray:
    """The frames uint8 `[s, ..., 64, 44]` as the draws say of one clip; the given array is left as it is."""
    out = frames
    if draws.mirror[clip]:
        out = mirrored(out)
    if draws.tilt[clip]:
        out = tilted(out, draws.tilt[clip])
    if draws.shift[clip]:
        out = moved(out, draws.shift[clip])
    if draws.thicker[clip]:
        out = dilated(out) if draws.thicker[clip] > 0 else eroded(out)
    top, bottom, left, right = draws.hole[clip]
    if bottom:
        out = out.copy() if out is frames else out
        out[..., top:bottom, left:right] = 0
    return out
