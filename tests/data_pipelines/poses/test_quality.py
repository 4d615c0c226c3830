"""Which poses are a walk, and what is said of those that are none."""

import numpy as np
import pytest

from data_pipelines.poses.joints import HIPS, MIRRORED, mirrored
from data_pipelines.poses.quality import judge_poses
from data_pipelines.poses.synthetic import walk_poses

RNG = np.random.default_rng(3)
WALK = walk_poses(4, 60, 3)
TIMES = np.arange(60) / 25
MIDDLE = WALK[:, HIPS, :2].mean(axis=1, keepdims=True)  # s 1 2


def trembling(one: np.ndarray) -> np.ndarray:
    """One pose `[17, 3]` as a detector sees it in 60 frames."""
    poses = one[None].repeat(60, axis=0)
    poses[..., :2] += RNG.normal(0, 0.4, (60, 17, 2))  # 0.5 % of the height
    return poses


def moved(change) -> np.ndarray:
    """The walk with places from the middle of the hips on, `[s, 17, 2]`, that `change` makes of them."""
    places = change(WALK[..., :2] - MIDDLE) + MIDDLE
    return np.concatenate([np.where(WALK[..., 2:] > 0, places, 0), WALK[..., 2:]], axis=2)


def turned(degrees: float) -> np.ndarray:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return moved(lambda places: places @ np.array([[cos, sin], [-sin, cos]]))


def without(joints: list[int], frames: slice = slice(None)) -> np.ndarray:
    poses = WALK.copy()
    poses[frames, joints] = 0
    return poses


def crouched(places: np.ndarray) -> np.ndarray:
    places = places.copy()
    places[:, 13:, 1] *= 0.55  # knees and ankles
    return places


def spinning(places: np.ndarray) -> np.ndarray:
    return places * np.stack([np.abs(np.cos(np.arange(60) / 8)), np.ones(60)], axis=1)[:, None]


def exchanged() -> np.ndarray:
    poses = WALK.copy()
    poses[::7] = poses[::7, MIRRORED]
    return poses


def by_turns() -> np.ndarray:
    poses = np.stack([walk_poses(5, 60, 3), walk_poses(8, 60, 3)], axis=1).reshape(120, 17, 3)
    return poses[np.r_[0:120:4, 1:120:4].reshape(2, -1).T.ravel()]


NO_WALKS = {
    "somebody who stands": (trembling(WALK[0]), "still"),
    "one picture": (WALK[:1].repeat(60, axis=0), "still"),
    "a jump": (np.concatenate([trembling(WALK[0])[:55], trembling(WALK[8])[:5]]), "still"),
    "lying on the side": (turned(90), "not upright"),
    "a picture turned by 30 degrees": (turned(30), "not upright"),
    "upside down": (turned(180), "not upright"),
    "from the side": (moved(lambda places: places * [0.3, 1]), "from the side"),
    "turning": (moved(spinning), "turning"),
    "a detector that takes left for right": (exchanged(), "left and right change"),
    "squatting": (moved(crouched), "no standing person"),
    "no hips": (without([11, 12]), "bad poses"),
    "no legs": (without([13, 14, 15, 16]), "bad poses"),
    "one leg": (without([13, 15]), "feet not seen"),
    "a face": (without([*range(5, 17)]), "bad poses"),
    "half of the frames without a trunk": (without([5, 11], slice(0, 40)), "bad poses"),
    "noise": (np.insert(RNG.uniform(1, 400, (60, 17, 2)), 2, 0.9, axis=2), "bad poses"),
    "shuffled frames": (walk_poses(4, 90, 3)[RNG.permutation(90)], "no periodic gait"),
    "two people in turn": (by_turns(), "frames in turn"),
    "ten different frames": (WALK[:10].repeat(6, axis=0), "repeated frames"),
    "nobody": (np.zeros((60, 17, 3), np.float32), "bad poses"),
}


@pytest.mark.parametrize("kind", NO_WALKS)
def test_what_is_no_walk_is_refused_for_one_reason(kind):
    poses, name = NO_WALKS[kind]
    quality = judge_poses(poses.astype(np.float32), np.arange(len(poses)) / 25)
    assert [finding.name for finding in quality.grave] == [name], quality.findings
    assert quality.gait.cadence is None
    assert ";" in quality.grave[0].message  # meaning and remedy


@pytest.mark.parametrize(
    "change",
    [
        lambda poses: poses,
        lambda poses: mirrored(poses, 72),
        lambda poses: poses * np.float32([3, 3, 1]),
        lambda poses: np.concatenate([poses[..., :2] * np.linspace(1, 4, len(poses))[:, None, None], poses[..., 2:]], axis=2),
        lambda poses: poses[::2],
    ],
    ids=["as it is", "mirrored", "larger", "who comes nearer", "every second frame"],
)
def test_walks_are_walks(change):
    for subject in range(12):
        for frames in (30, 60, 150):
            poses = change(walk_poses(subject, frames, 5))
            quality = judge_poses(poses, np.arange(len(poses)) / 25)
            assert not quality.grave
            assert quality.bad_frames <= 0.25 * len(poses) or any(one.name == "bad poses" for one in quality.findings)
            assert frames < 150 or quality.gait.cadence is not None


def test_damaged_frames_are_counted_by_kind_and_flagged_where_they_are_many():
    poses = walk_poses(4, 60, 3)
    poses[5:15, 11] = 0  # hips
    poses[20:26] = poses[20:26, MIRRORED]
    poses[40:42, :, :2] += 60
    quality = judge_poses(poses, TIMES)
    assert quality.bad["with too few joints"][5:15].all()
    assert quality.bad["with left and right exchanged"][20:26].all()
    assert np.flatnonzero(quality.bad["far from the frame before"]).tolist() == [40, 42]
    (finding,) = (one for one in quality.findings if one.name == "bad poses")
    assert not finding.grave
    assert finding.frames == quality.bad_frames >= 18
    assert "6 with left and right exchanged" in finding.message
