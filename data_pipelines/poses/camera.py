"""The camera's tilt, estimated from the walk: by how much is the picture's upright off that of the world?

The vertical of a walker is known: over whole strides the middle of the hips stays above the middle of the ankles, or the walker
would fall. So people who walk upright calibrate a camera (Lv, Zhao and Nevatia, IEEE TPAMI 28(9), 2006); from the hips down,
because the trunk may be shifted. What a walker leans from the ankles on is taken for the camera's tilt.
"""

from typing import NamedTuple

import numpy as np

from data_pipelines.poses.joints import ANKLES, HIPS
from data_pipelines.poses.posture import body_heights, certain_places, find_strides, middle

FEWEST_STRIDES = 2
DETECTOR = 0.5  # degrees: error that misplaced joints leave however long the walk is (docs/posture.md)
MOST_ERROR = 1.0  # degrees
TILTED = 2.0  # degrees: what is said to be a tilted camera; four times the error
OFF_MIDDLE = 0.06  # of the picture's longer side; further off it a camera that looks down by 10 degrees adds half a degree


class Tilt(NamedTuple):
    """How much the picture is turned."""

    degrees: float  # by which what is upright leans to the right in the picture; NaN where nothing is known
    error: float  # standard error in degrees, without what is said in `why`
    known: bool  # False where the estimate is not to be relied upon
    why: str  # reason; empty where it is known


def camera_tilt(poses: np.ndarray, times: np.ndarray | None = None, shape: tuple[int, int] | None = None) -> Tilt:
    """The tilt in a walk of poses `[s, 17, 3]`; `times` in seconds, float `[s]`; `shape`: height and width of the picture."""
    places = certain_places(poses)  # s 17 2
    heights = body_heights(places)  # s
    hips = middle(places, HIPS)  # s 2
    legs = (hips - middle(places, ANKLES)) / heights[:, None]  # s 2
    means = [legs[frames][np.isfinite(legs[frames]).all(axis=1)] for frames in find_strides(places, heights, times)]
    upright = np.array([found.mean(axis=0) for found in means if len(found)]).reshape(-1, 2)  # i 2
    if len(upright) < FEWEST_STRIDES:
        return Tilt(np.nan, np.nan, False, f"whole strides found: {len(upright)}, {FEWEST_STRIDES} are needed")
    angles = np.degrees(np.arctan2(upright[:, 0], -upright[:, 1]))  # i
    degrees, error = float(np.median(angles)), float(np.hypot(DETECTOR, angles.std(ddof=1) / np.sqrt(len(angles))))
    if error > MOST_ERROR:
        return Tilt(degrees, error, False, "the walker's upright differs from stride to stride")
    if shape is None:
        return Tilt(
            degrees,
            error,
            False,
            "the picture's middle is not known, and beside it a camera that looks down tilts what is upright",
        )
    off = abs(float(np.nanmedian(hips[:, 0])) - shape[1] / 2)
    if off > OFF_MIDDLE * max(shape):
        return Tilt(
            degrees,
            error,
            False,
            f"the walk is {off:.0f} pixels beside the picture's middle, where a camera that looks down tilts what is upright",
        )
    return Tilt(degrees, error, True, "")


def levelled(poses: np.ndarray, degrees: float) -> np.ndarray:
    """Poses `[s, 17, 3]` as a camera without this tilt shows them, turned around the corner of the picture."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turned = poses.astype(np.float64)
    turned[..., :2] = poses[..., :2] @ np.array([[cos, -sin], [sin, cos]])  # s 17 2
    return turned
