"""Skeleton maps: byte for byte the published ones, however they are computed, and the same wherever the walker stands."""

import cv2
import numpy as np
import pytest

from data_pipelines.poses import maps
from data_pipelines.poses.joints import LIMBS, MIRRORED, mirrored
from data_pipelines.poses.maps import flat_frames, skeleton_maps
from data_pipelines.poses.synthetic import walk_poses
from data_pipelines.schema import DataError
from data_pipelines.silhouettes import cut_sides


def test_the_published_maps_byte_for_byte(golden):
    numbers = [name.removeprefix("pose") for name in golden if name.startswith("pose")]
    assert numbers
    for number in numbers:
        np.testing.assert_array_equal(skeleton_maps(golden[f"pose{number}"]), golden[f"map{number}"], err_msg=number)


def box(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    (left, top), (right, bottom) = (np.trunc(low - 24).astype(int), np.trunc(high + 24).astype(int) + 1)
    x, y = np.arange(max(left, 0), min(right, 128)), np.arange(max(top, 0), min(bottom, 128))
    return x.astype(np.float32)[None], y.astype(np.float32)[:, None]


def draw(canvas: np.ndarray, start: np.ndarray, end: np.ndarray, first: np.float32, second: np.float32) -> None:
    """A limb, pixel by pixel as it is published; a joint where both ends are one."""
    square = (start[0] - end[0]) ** 2 + (start[1] - end[1]) ** 2
    if min(first, second) < 1e-3:
        return
    end, peak = (start, first) if square < 1 else (end, min(first, second))
    x, y = box(np.minimum(start, end), np.maximum(start, end))
    if not (x.size and y.size):
        return
    from_start = (x - start[0]) ** 2 + (y - start[1]) ** 2  # h w
    if square < 1:
        drawn = np.exp(-from_start / 2 / 64) * peak  # h w
    else:
        from_end = (x - end[0]) ** 2 + (y - end[1]) ** 2  # h w
        share = (from_start - from_end + square) / 2 / square  # h w
        foot = start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])
        between = (x - foot[0]) ** 2 + (y - foot[1]) ** 2  # h w
        distance = np.select([share <= 0, share >= 1], [from_start, from_end], between)  # h w
        drawn = np.exp(-distance.astype(np.float64) / 2 / 64) * peak  # h w
    part = canvas[int(y[0, 0]) : int(y[-1, 0]) + 1, int(x[0, 0]) : int(x[0, -1]) + 1]
    part[:] = np.maximum(part, drawn)


def drawn_slowly(poses: np.ndarray) -> np.ndarray:
    """Maps of poses in which no coordinate is 0, every Gaussian on every pixel of its box."""
    found = np.zeros((len(poses), 2, 64, 64), np.uint8)
    for number, frame in enumerate(poses):
        places, sure = frame[:, :2], frame[:, 2]
        scale = np.float32(85) / (places[:, 1].max() - places[:, 1].min())
        places = (places - (places[11] + places[12]) / 2) * scale + 64
        for kind, ends in enumerate((LIMBS, [(joint, joint) for joint in range(17)])):
            canvas = np.zeros((128, 128), np.float32)
            for start, end in ends:
                draw(canvas, places[start], places[end], sure[start], sure[end])
            index = np.minimum((canvas * 256).astype(int), 255)
            grey = (np.linspace(0, 1, 256)[index] * 255).astype(np.uint8)
            rows = np.flatnonzero(grey.any(axis=1))
            if len(rows):
                half = (rows[-1] + 1 - rows[0]) // 2
                crop = grey[rows[0] : rows[-1] + 1, 64 - half : 64 + half + 1]
                found[number, kind] = cv2.resize(crop / 255.0, (64, 64), interpolation=cv2.INTER_AREA) * 255
    return found


def seen_poses(subject: int, frames: int = 8) -> np.ndarray:
    """A walk in which every joint was found."""
    poses = walk_poses(subject, 4 * frames, seed=1)
    return poses[(poses[..., 2] > 0).all(axis=1)][:frames] + np.float32([300, 40, 0])


def sure_steps(poses: np.ndarray) -> np.ndarray:
    """Confidences at the very steps of brightness, where rounding decides."""
    poses[..., 2] = np.resize(np.float32([1, 0.5, 0.25, 0.75, 0.999, 1e-3, 9e-4]), poses.shape[:2])
    return poses


def on_whole_pixels(poses: np.ndarray) -> np.ndarray:
    """Exact distances between joints and pixels."""
    poses[..., :2] = np.rint(poses[..., :2])
    poses[:, 0, 1], poses[:, 15, 1] = 40, 125  # scale 1
    poses[..., 1] = poses[..., 1].clip(40, 125)
    poses[:, 12, 0] = poses[:, 11, 0] - 8
    return poses


def flattened(poses: np.ndarray) -> np.ndarray:
    """A body so low that most of it lies far outside the canvas."""
    poses[..., 1] = 50 + poses[..., 1] / 500
    return poses


def far_wrists(poses: np.ndarray) -> np.ndarray:
    """Joints that end limbs and begin none, far beside the body."""
    poses[:, 9:11, 0] = [[18796.215, 21444.256], [23369.27, 23416.46], [-26035.05, -15499.457]][: len(poses)]
    return poses


def short_limbs(poses: np.ndarray) -> np.ndarray:
    """Limbs of less than a pixel, and such a joint."""
    poses[:, 7] = poses[:, 5] + np.float32([0.3, 0.3, -0.2])
    poses[:, 10] = poses[:, 8]
    return poses


@pytest.mark.parametrize(
    "change",
    [lambda poses: poses, sure_steps, on_whole_pixels, flattened, far_wrists, short_limbs],
    ids=lambda change: change.__name__,
)
def test_the_quick_way_gives_the_bytes_of_the_slow_one(change):
    for subject in (0, 3):
        poses = change(seen_poses(subject, 3 if change in (flattened, far_wrists) else 8))
        np.testing.assert_array_equal(skeleton_maps(poses), drawn_slowly(poses))


def test_frames_are_drawn_as_if_there_were_no_others(monkeypatch):
    poses = seen_poses(3)
    whole = skeleton_maps(poses)
    np.testing.assert_array_equal(np.concatenate([skeleton_maps(poses[[frame]]) for frame in range(len(poses))]), whole)
    monkeypatch.setattr(maps, "PIECE", 7)
    np.testing.assert_array_equal(skeleton_maps(poses), whole)


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (lambda poses: poses, {"sigma": 4.0}),  # drawn within the canvas, not up to its edge
        (lambda poses: poses, {"sigma": 4.0, "align": "shared", "body_only": True}),
        (on_whole_pixels, {}),
    ],
    ids=["each", "shared", "whole pixels"],
)
def test_a_mirrored_pose_gives_the_mirrored_map(change, options):
    for subject in range(3):
        poses = change(seen_poses(subject))
        one, other = (skeleton_maps(each, **options).astype(int) for each in (poses, mirrored(poses, 640)))
        assert np.abs(one - other[..., ::-1]).max() <= 2  # a box ends at a whole pixel, and sums begin at the other end
        assert np.mean(one != other[..., ::-1]) < 0.02
        assert np.abs(one - one[..., ::-1]).max() > 40  # a mirrored map is another one


def test_a_body_that_fills_the_canvas_is_half_a_column_off_as_published():
    poses = seen_poses(2)
    one, other = (skeleton_maps(each).astype(int) for each in (poses, mirrored(poses, 640)))
    assert 10 < np.abs(one - other[..., ::-1]).max() < 30


@pytest.mark.parametrize(("scale", "shift"), [(2, (0, 0)), (0.5, (0, 0)), (4, (64, 32)), (1, (-200, 300))])
def test_neither_scale_nor_place_changes_a_map(scale, shift):
    poses = seen_poses(4)
    poses[..., :2] = np.rint(poses[..., :2] * 8) / 8  # so that no rounding comes in
    moved = poses.copy()
    moved[..., :2] = moved[..., :2] * np.float32(scale) + np.float32(shift)
    np.testing.assert_array_equal(skeleton_maps(moved), skeleton_maps(poses))


def test_any_scale_and_place_change_a_map_by_rounding_alone(golden):
    for number, (scale, shift) in enumerate([(1.37, 11.3), (0.61, 212.9), (3.3, 0.0)]):
        poses = golden[f"pose{number}"]
        moved = poses.copy()
        moved[..., :2] = np.where(poses[..., :2] != 0, poses[..., :2] * np.float32(scale) + np.float32(shift), 0)
        one, other = skeleton_maps(poses).astype(int), skeleton_maps(moved).astype(int)
        assert np.mean(one != other) < 0.01
        assert np.mean(np.abs(one - other)) < 0.05


def test_shared_boxes_lay_joints_upon_their_limbs():
    poses = seen_poses(5)
    poses[:, 13:15, 2] = 0  # without knees no limb reaches the ankles
    each, shared = (skeleton_maps(poses, align=align) for align in ("each", "shared"))
    rows = [np.flatnonzero(found[:, kind].any(axis=(0, 2))) for found in (each, shared) for kind in (0, 1)]
    assert [reached[-1] for reached in rows] == [63, 63, rows[2][-1], 63]  # each by itself fills its box
    assert rows[2][-1] < 50
    np.testing.assert_array_equal(each[:, 1], shared[:, 1])  # of both, joints reach further
    sure = seen_poses(5)
    sure[..., 2] = 1
    shared = skeleton_maps(sure, align="shared", body_only=True).astype(int)
    assert (shared[:, 1] <= shared[:, 0] + 1).all()  # every joint ends a limb


def test_a_body_alone_has_no_head():
    poses = seen_poses(6)
    bodies = skeleton_maps(poses, body_only=True)
    other = poses.copy()
    other[:, :5] = np.random.default_rng(0).uniform(0, 300, (len(poses), 5, 3))
    np.testing.assert_array_equal(skeleton_maps(other, body_only=True), bodies)
    whole = skeleton_maps(poses)
    assert whole[:, 1, :8].max() > 150  # a face
    assert bodies[:, 1].any(axis=2).all()  # shoulders to ankles fill the box
    assert not np.array_equal(bodies, whole)


def test_sigma_is_the_width_of_what_is_drawn():
    poses = seen_poses(7, 2)
    widths = [np.count_nonzero(skeleton_maps(poses, sigma=sigma)[:, 0] > 100) for sigma in (2.0, 4.0, 8.0)]
    assert widths[0] < widths[1] < widths[2]
    np.testing.assert_array_equal(skeleton_maps(poses, sigma=8.0), skeleton_maps(poses))


def test_a_frame_without_a_joint_is_black_and_changes_no_other():
    poses = seen_poses(8, 4)
    poses[2, :, 2] = 0
    found = skeleton_maps(poses)
    assert not found[2].any()
    np.testing.assert_array_equal(np.delete(found, 2, axis=0), skeleton_maps(np.delete(poses, 2, axis=0)))
    alone = np.zeros((1, 17, 3), np.float32)
    assert not skeleton_maps(alone).any()
    assert skeleton_maps(poses[:0]).shape == (0, 2, 64, 64)


def test_a_missing_joint_is_taken_from_frames_that_are_alike():
    poses = seen_poses(2)
    lost = poses.copy()
    lost[3, 9, :2] = 0  # its confidence stays
    found = skeleton_maps(lost)
    assert np.abs(found.astype(int) - skeleton_maps(poses)).mean() < 3
    np.testing.assert_array_equal(np.delete(found, 3, axis=0), np.delete(skeleton_maps(poses), 3, axis=0))


def test_the_sides_of_a_map_can_be_cut_as_those_of_silhouettes():
    assert cut_sides(skeleton_maps(seen_poses(0, 2))).shape == (2, 2, 64, 44)


@pytest.mark.parametrize(
    ("options", "change", "words"),
    [
        ({"align": "both"}, None, "align='both' is unknown; give 'each' or 'shared'"),
        ({"sigma": 0.0}, None, "sigma=0.0 pixels"),
        ({"sigma": float("nan")}, None, "sigma=nan pixels"),
        ({"sigma": 65.0}, None, "sigma=65.0 pixels"),
        ({}, lambda poses: poses[1, :, 1].fill(7), "frame 1: all its joints have one height"),
        ({}, lambda poses: np.multiply(poses, np.float32([1, 1e-38, 1]), out=poses), "frame 0: all its joints have one height"),
    ],
)
def test_what_cannot_be_drawn(options, change, words):
    poses = seen_poses(0, 3)
    if change:
        change(poses)
    with pytest.raises(DataError, match=words):
        skeleton_maps(poses, **options)


def test_the_other_side_of_the_other_side_is_the_same():
    poses = seen_poses(1)
    assert [MIRRORED[joint] for joint in MIRRORED] == list(range(17))
    np.testing.assert_allclose(mirrored(mirrored(poses, 500), 500), poses, atol=1e-4)


def test_the_preparation_refuses_the_frames_of_which_no_map_can_be_drawn():
    poses = walk_poses(0, 12, seed=1)
    poses[3, :, 1] = 7
    poses[5, 1:] = 0  # what is missing comes from other frames
    poses[8, :, 1] = np.where(np.arange(17) < 9, 30, 0)  # likewise
    poses[9, :, 1], poses[9, :, 2] = 7, 0  # nobody
    assert flat_frames(poses).tolist() == [3]
    with pytest.raises(DataError, match="frame 3: all its joints have one height"):
        skeleton_maps(poses)
    assert skeleton_maps(np.delete(poses, 3, axis=0)).any(axis=(1, 2, 3)).sum() == 10
    never = walk_poses(0, 12, seed=1)
    never[:, 4] = 0  # so nothing comes from elsewhere: 0 is a height
    never[6, :, 1] = np.where(np.arange(17) != 4, 7, 0)
    assert flat_frames(never).tolist() == []
    assert skeleton_maps(never)[6].any()
