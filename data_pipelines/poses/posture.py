"""Posture and gait of a walker seen from the front or the back, in numbers that need no network.

All are of the picture: a tilted camera tilts every line, and no number is a Cobb angle. Left and right are the walker's own,
and positive is what rises, leans or shifts towards the walker's left. Lengths are in per cent of the body's height, which is
estimated frame by frame from eyes and ankles, so that neither distance nor approach matters.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data_pipelines.gait import Legs, gait_of
from data_pipelines.poses.joints import ANKLES, HIPS, JOINTS, SHOULDERS, WRISTS

EYES, NOSE = (1, 2), 0
EYES_TO_ANKLES = 0.897  # of the body's height: 0.936 less 0.039 (Winter, Biomechanics and Motor Control of Human Movement)
CERTAIN = 0.1  # least confidence of a joint that is measured
STEADY = 15  # frames before and after each one, over which the body's height is smoothed: a stride
SMOOTH = 10  # part of a stride over which the height of the feet is smoothed, as its divisor
LEAST_SEEN = 0.75  # share of the frames of a stride from which its range is taken
SHORTEST, LONGEST = 0.5, 2.0  # strides, by the usual one
BRIEFEST, SLOWEST = 0.5, 3.0  # seconds of a stride: 240 and 40 steps a minute


@dataclass(frozen=True)
class Measure:
    """One measure of a walk; NaN where it cannot be told."""

    name: str
    unit: str
    about: str  # what it means, and its sign
    median: float  # over all frames in which it is seen; of what only a stride has, over strides
    spread: float  # standard deviation over strides of the stride's own median or value; NaN for fewer than two strides
    strides: int  # number of strides in which it was measured
    curve: np.ndarray  # float64 [s]; what a frame shows


@dataclass(frozen=True)
class Strides:
    """The strides of a walk, each from where the left foot rises above the right one to where it does so again."""

    first: np.ndarray  # float64 [i]; frame, with a fraction, at which stride i begins
    turn: np.ndarray  # float64 [i]; at which the right foot rises above the left one
    last: np.ndarray  # float64 [i]; at which it ends

    def __iter__(self) -> Iterator[slice]:
        """The frames of each stride."""
        for first, last in zip(self.first, self.last, strict=True):
            yield slice(int(np.ceil(first)), int(np.ceil(last)))


def posture(poses: np.ndarray, times: np.ndarray | None = None) -> tuple[Measure, ...]:
    """Measures of a pose sequence `[s, 17, 3]`; `times` are those of the frames in seconds, float `[s]`, None if unknown.

    In this order: shoulder line, pelvis line, trunk lean, lateral shift, swing of the left and of the right arm, cadence, step
    symmetry. Without times the cadence is NaN.
    """
    if poses.ndim != 3 or poses.shape[1:] != (len(JOINTS), 3):
        raise ValueError(f"poses of shape {poses.shape}; give [frames, {len(JOINTS)}, 3]")
    if times is not None and np.shape(times) != (len(poses),):
        raise ValueError(f"{np.shape(times)} times for {len(poses)} frames")
    places = certain_places(poses)  # s 17 2
    side = facing(places)
    height = body_heights(places)  # s
    strides = find_strides(places, height, times)
    shoulders, hips = middle(places, SHOULDERS), middle(places, HIPS)  # s 2, s 2
    across, up = side * (shoulders - hips)[:, 0], (hips - shoulders)[:, 1]  # s, s
    lean, shift = np.degrees(np.arctan2(across, up)), 100 * across / height  # s, s

    def of_frames(name: str, unit: str, about: str, curve: np.ndarray) -> Measure:
        values = _finite([_median(curve[frames]) for frames in strides])  # i
        return Measure(name, unit, about, _median(curve), _spread(values), len(values), curve)

    def of_strides(name: str, unit: str, about: str, values: np.ndarray, curve: np.ndarray) -> Measure:
        values = _finite(values)  # i
        return Measure(name, unit, about, _median(values), _spread(values), len(values), curve)

    def swing(name: str, arm: int) -> Measure:
        curve = 100 * (places[:, SHOULDERS[arm], 1] - places[:, WRISTS[arm], 1]) / height  # s
        about = f"range of the {name} wrist's height within a stride; in this view an arm that swings forward is shorter"
        ranges = np.array([_range(curve[frames]) for frames in strides])  # i
        return of_strides(f"arm swing {name}", "% of height", about, ranges, curve)

    duration = np.array([_seconds(strides.first, times), _seconds(strides.last, times)])  # 2 i
    cadence = 120 / (duration[1] - duration[0])  # i
    share = 100 * (strides.turn - strides.first) / (strides.last - strides.first)  # i
    return (
        of_frames("shoulder line", "degrees", "tilt; positive: the left shoulder is higher", _tilt(places, SHOULDERS, side)),
        of_frames("pelvis line", "degrees", "tilt; positive: the left hip is higher", _tilt(places, HIPS, side)),
        of_frames("trunk lean", "degrees", "from hips to shoulders; positive: to the left", lean),
        of_frames("lateral shift", "% of height", "of the shoulders from the hips; positive: to the left", shift),
        swing("left", 0),
        swing("right", 1),
        of_strides("cadence", "steps per minute", "two steps a stride", cadence, _over_frames(cadence, strides, len(poses))),
        of_strides("step symmetry", "% of stride", "in which the left foot is the higher one; 50: even steps", share,
                   _over_frames(share, strides, len(poses))),
    )  # fmt: skip


def certain_places(poses: np.ndarray) -> np.ndarray:
    """Places of the joints of poses `[s, 17, 3]`, float64 `[s, 17, 2]`; NaN for a joint that is not sure to be measured."""
    return np.where(poses[..., 2:] >= CERTAIN, poses[..., :2], np.nan).astype(np.float64)  # s 17 2


def lift_of(places: np.ndarray, height: np.ndarray) -> np.ndarray:
    """By how many body heights the left foot is higher than the right one, float64 `[s]`, of places `[s, 17, 2]`."""
    return (places[:, ANKLES[1], 1] - places[:, ANKLES[0], 1]) / height  # s


def body_heights(places: np.ndarray) -> np.ndarray:
    """Height of the body in pixels, float64 `[s]`, of places `[s, 17, 2]`, NaN for what is not seen; smoothed over frames."""
    eyes = middle(places, EYES)[:, 1]  # s
    top = np.where(np.isfinite(eyes), eyes, places[:, NOSE, 1])  # s
    ground = np.fmax(places[:, ANKLES[0], 1], places[:, ANKLES[1], 1])  # s; of the foot that stands
    heights = (ground - top) / EYES_TO_ANKLES  # s
    heights[~(heights > 0)] = np.nan
    smooth = np.full(len(heights), np.nan)  # s
    for frame in range(len(heights)):
        reach = min(STEADY, frame, len(heights) - 1 - frame)  # as far on both sides, because who comes nearer grows
        found = np.sort(_finite(heights[frame - reach : frame + reach + 1]))
        quarter = len(found) // 4
        if len(found):
            smooth[frame] = found[quarter : len(found) - quarter].mean()  # without the lowest and the highest quarter
    return smooth


def find_strides(places: np.ndarray, height: np.ndarray, times: np.ndarray | None = None) -> Strides:
    """The strides of a walk, from places `[s, 17, 2]` and heights `[s]`; none where the steps do not repeat.

    Where a foot is not seen for some frames, its height is interpolated. What is far shorter or longer than the usual stride,
    or than people's, is none.
    """
    lift = lift_of(places, height)  # s
    seen = np.flatnonzero(np.isfinite(lift))
    if len(seen) < 2:
        return Strides(*np.empty((3, 0)))
    frames = np.arange(len(lift))  # s
    lift = np.interp(frames, seen, lift[seen])  # s
    period = gait_of(Legs(lift, 0.0, 0.0, 0.0), times).frames_per_cycle
    if period is None:
        return Strides(*np.empty((3, 0)))
    width = max(2 * int(period / SMOOTH / 2) + 1, 1)
    padded = np.pad(lift, width // 2, mode="edge")
    smooth = np.convolve(padded, np.full(width, 1 / width), mode="valid")  # s
    smooth -= (np.percentile(smooth, 95) + np.percentile(smooth, 5)) / 2  # a tilted camera shows one foot lower
    before = np.flatnonzero(np.diff(smooth >= 0))  # crossings of 0; the frame before each
    crossing = before + smooth[before] / (smooth[before] - smooth[before + 1])  # crossings; frame with a fraction
    rises = smooth[before] < 0  # crossings
    found = []
    for begin, end in itertools.pairwise(crossing[rises]):
        turns = crossing[~rises & (crossing > begin) & (crossing < end)]
        if len(turns) == 1 and SHORTEST < (end - begin) / period < LONGEST:
            lasts = np.ptp(_seconds(np.array([begin, end]), times))  # NaN where no times are known
            if not (lasts < BRIEFEST or lasts > SLOWEST):
                found.append((begin, turns[0], end))
    return Strides(*np.array(found).reshape(-1, 3).T)


def facing(places: np.ndarray) -> float:
    """1 where the walker's left is at the right of the picture, as of somebody who comes; -1 where it is at the left."""
    across = np.concatenate([places[:, left, 0] - places[:, right, 0] for left, right in (SHOULDERS, HIPS)])  # 2s
    return -1.0 if _median(across) < 0 else 1.0


def middle(places: np.ndarray, pair: tuple[int, int]) -> np.ndarray:
    """The middle of a pair of joints, float64 `[s, 2]`, of places `[s, 17, 2]`."""
    return (places[:, pair[0]] + places[:, pair[1]]) / 2  # s 2


def _tilt(places: np.ndarray, pair: tuple[int, int], side: float) -> np.ndarray:
    """Degrees by which the line from the right to the left joint rises, float64 `[s]`."""
    across, down = (places[:, pair[0]] - places[:, pair[1]]).T  # s, s
    return np.degrees(np.arctan2(-down, side * across))  # s


def _seconds(frames: np.ndarray, times: np.ndarray | None) -> np.ndarray:
    """Times of frames with a fraction, float64 `[i]`; NaN where no times are known."""
    if times is None or not len(times):
        return np.full(len(frames), np.nan)  # i
    return np.interp(frames, np.arange(len(times)), times)  # i


def _over_frames(values: np.ndarray, strides: Strides, count: int) -> np.ndarray:
    """The value of its stride for each frame, float64 `[s]`; NaN outside of strides."""
    curve = np.full(count, np.nan)  # s
    for value, frames in zip(values, strides, strict=True):
        curve[frames] = value
    return curve


def _range(curve: np.ndarray) -> float:
    """From the 5th to the 95th percentile of a stride's frames `[s]`; NaN where too few of them are seen."""
    found = _finite(curve)
    if len(found) < max(LEAST_SEEN * len(curve), 2):
        return np.nan
    return float(np.percentile(found, 95) - np.percentile(found, 5))


def _finite(values) -> np.ndarray:
    values = np.asarray(values, np.float64)
    return values[np.isfinite(values)]


def _median(values: np.ndarray) -> float:
    found = _finite(values)
    return float(np.median(found)) if len(found) else np.nan


def _spread(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
