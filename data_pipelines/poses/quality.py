"""Judgement of a walk's poses without a network: damaged frames, and what is no walk towards the camera or away from it.

It gives findings as `data_pipelines.quality` does for silhouettes. The bounds were chosen on synthetic walkers, the poses of no
walk in `tests/data_pipelines/poses/test_quality.py`, and BlazePose's joints of `demo.mp4`.
"""

from collections.abc import Iterator

import numpy as np

from data_pipelines.findings import Finding
from data_pipelines.gait import STAYS, Gait, Legs, gait_of, movement
from data_pipelines.poses.joints import ANKLES, FACE, HIPS, SHOULDERS
from data_pipelines.poses.posture import body_heights, certain_places, lift_of, middle
from data_pipelines.quality import IN_TURN, MOST_BAD, Quality, many_bad
from data_pipelines.schema import FEWEST_FRAMES

TRUNK = [*SHOULDERS, *HIPS]  # joints of which a frame needs all; of the ankles it needs one
FEWEST_JOINTS = 8  # of the twelve from the shoulders down
JUMP = 0.35  # body heights, of the trunk's middle from a frame to the next
SIZE_CHANGE = 0.3  # relative difference of the trunk's length from the usual one of the frames around
AROUND = 15  # frames before and after each one
TURNED = 0.05  # body heights by which the left shoulder is on the other side than in most frames
EXCHANGED = "with left and right exchanged"
MOST_EXCHANGED = 0.1  # share of the frames
LEANING = 25.0  # degrees of the trunk off the upright; synthetic walkers reach 16
FOLDED = 0.34  # body heights from the hips down to the lower ankle: less of who sits or squats; 0.41 or more of walkers
NARROW = 0.11  # body heights: width of the shoulders of somebody seen from the side; 0.17 or more of walkers
TURNING = 0.12  # body heights by which that width changes, from the 10th to the 90th percentile; 0.03 of walkers
STILL = 0.01  # body heights: deviation of the ankles' difference; 0.007 of a detector's trembling, 0.012 or more of walkers
DEVIATIONS = 2.56  # from the 10th to the 90th percentile
SLIGHT = 0.005  # body heights, added to changes from frame to frame, so that trembling is no change


def judge_poses(poses: np.ndarray, times: np.ndarray | None = None) -> Quality:
    """Judge a walk of poses `[s, 17, 3]` with at least one frame; `times` in seconds, float `[s]`.

    One cause gives one finding: posture and movement are judged where damage leaves a body to look at, and the movement of
    somebody who stands upright and is seen from the front or the back.
    """
    places = certain_places(poses)  # s 17 2
    heights = body_heights(places)  # s
    bad = _damage(places, heights)
    findings, gait = list(many_bad(bad, "poses", "find the joints anew")), Gait(None, None, None)
    if not any(finding.grave for finding in findings):
        findings += _posture(places, heights, bad[EXCHANGED])
    if not any(finding.grave for finding in findings):
        findings += _feet(places)
    if not any(finding.grave for finding in findings):
        legs = _legs(places, heights)
        gait = gait_of(legs, times)
        findings += _movement(legs, gait, times, places, heights)
    no_walk = any(finding.grave for finding in findings)
    return Quality(bad, tuple(findings), Gait(None, None, None) if no_walk else gait)


def _damage(places: np.ndarray, heights: np.ndarray) -> dict[str, np.ndarray]:
    """Frames of places `[s, 17, 2]` and body heights `[s]` that are damaged: by kind, bool `[s]`."""
    found = np.isfinite(places[..., 0])  # s 17
    few = ~found[:, TRUNK].all(axis=1) | ~found[:, ANKLES].any(axis=1) | (found[:, FACE:].sum(axis=1) < FEWEST_JOINTS)  # s
    centre = places[:, TRUNK].mean(axis=1)  # s 2
    jumps = np.zeros(len(places), bool)  # s
    with np.errstate(invalid="ignore"):
        jumps[1:] = np.linalg.norm(np.diff(centre, axis=0), axis=1) > JUMP * heights[1:]
        lengths = np.linalg.norm(middle(places, HIPS) - middle(places, SHOULDERS), axis=1)  # s
        usual = np.array([_median(lengths[max(0, at - AROUND) : at + AROUND + 1]) for at in range(len(lengths))])  # s
        size = np.abs(lengths / usual - 1) > SIZE_CHANGE  # s
        across = (places[:, SHOULDERS[0], 0] - places[:, SHOULDERS[1], 0]) / heights  # s
        turned = np.sign(_median(across)) * across < -TURNED  # s
    return {
        "with too few joints": few,
        "far from the frame before": jumps,
        "of another size": size & ~few,
        EXCHANGED: turned,
    }


def _posture(places: np.ndarray, heights: np.ndarray, exchanged: np.ndarray) -> Iterator[Finding]:
    """What places `[s, 17, 2]` with body heights `[s]` show of no upright person seen from the front or the back.

    `exchanged`: frames in which left and right are, bool `[s]`.
    """
    trunk = middle(places, HIPS) - middle(places, SHOULDERS)  # s 2
    lean = abs(np.degrees(np.arctan2(_median(trunk[:, 0]), _median(trunk[:, 1]))))
    if lean > LEANING:
        message = f"the trunk is {lean:.0f} degrees off the upright: bending, or a turned picture; record an upright walk"
        yield Finding("not upright", None, message, True)
        return
    legs = _median((np.fmax(*places[:, ANKLES, 1].T) - middle(places, HIPS)[:, 1]) / heights)
    if legs < FOLDED:
        message = "the hips are too near to the ankles: sitting, squatting, or a camera high above; record a walk"
        yield Finding("no standing person", None, message, True)
        return
    width = np.abs(places[:, SHOULDERS[0], 0] - places[:, SHOULDERS[1], 0]) / heights  # s
    if _median(width) < NARROW:
        message = "one shoulder is behind the other: a view from the side; record a walk towards the camera or away from it"
        yield Finding("from the side", None, message, True)
    elif _extent(width) > TURNING:
        message = "the width of the shoulders changes: somebody who turns or dances; record one walk straight on"
        yield Finding("turning", None, message, True)
    elif exchanged.mean() > MOST_EXCHANGED:
        message = (
            f"left and right change places in {exchanged.sum()} of {len(exchanged)} frames, so the detector does not know this "
            "person's joints; record a person whose face or back is seen well"
        )
        yield Finding("left and right change", int(exchanged.sum()), message, True)


def _feet(places: np.ndarray) -> Iterator[Finding]:
    """The finding that both ankles are rarely seen at once, so that no step is."""
    both = np.all(np.isfinite(places[:, ANKLES, 0]), axis=1).astype(int)  # s
    if both.mean() <= 1 - MOST_BAD:
        message = f"both ankles are seen in {both.sum()} of {len(both)} frames; record a walk with both feet in the picture"
        yield Finding("feet not seen", int(len(both) - both.sum()), message, True)


def _legs(places: np.ndarray, heights: np.ndarray) -> Legs:
    """Movement of the ankles, with frames in which they are not seen interpolated, in a form that `gait` reads."""
    lift = lift_of(places, heights)  # s
    seen = np.flatnonzero(np.isfinite(lift))
    lift = np.interp(np.arange(len(lift)), seen, lift[seen]) if len(seen) else np.zeros(len(lift))  # s
    return Legs(lift, 1.0, 0.0, 1.0)


def _movement(legs: Legs, gait: Gait, times: np.ndarray | None, places: np.ndarray, heights: np.ndarray) -> Iterator[Finding]:
    """What is wrong with the movement: no steps, frames that do not follow each other, or no rhythm."""
    if _extent(legs.signal) < STILL * DEVIATIONS:  # a single jump has a large deviation, and is no walk
        message = "no ankle rises above the other one: a picture, or somebody who stands or jumps; record a walk"
        yield Finding(STAYS, None, message, True)
        return
    order = list(_order(places, heights))
    unit = Legs(legs.signal / legs.signal.std(), 1.0, 0.0, 1.0)  # how high the feet rise was judged above
    yield from order or movement(unit, gait, times)


def _order(places: np.ndarray, heights: np.ndarray) -> Iterator[Finding]:
    """The finding of frames that do not follow each other as those of one walk."""
    body = (places - middle(places, HIPS)[:, None]) / heights[:, None, None]  # s 17 2
    next_but_one, following = (_mean(np.abs(body[step:] - body[:-step])) for step in (2, 1))
    if next_but_one + SLIGHT < IN_TURN * (following + SLIGHT):
        message = "every other frame shows something else: two people in turn; give the frames of one walk"
        yield Finding("frames in turn", None, message, True)
    same = (np.nan_to_num(places[1:]) == np.nan_to_num(places[:-1])).all(axis=(1, 2))  # s-1
    different = 1 + int((~same).sum())
    if different < FEWEST_FRAMES <= len(places):
        message = f"only {different} different poses in {len(places)} frames: frames are repeated; record a longer walk"
        yield Finding("repeated frames", len(places) - different, message, True)


def _median(values: np.ndarray) -> float:
    found = values[np.isfinite(values)]
    return float(np.median(found)) if len(found) else np.nan


def _extent(values: np.ndarray) -> float:
    """From the 10th to the 90th percentile; 0 where nothing is known."""
    found = values[np.isfinite(values)]
    return float(np.ptp(np.percentile(found, [10, 90]))) if len(found) else 0.0


def _mean(values: np.ndarray) -> float:
    found = values[np.isfinite(values)]
    return float(found.mean()) if len(found) else 0.0
