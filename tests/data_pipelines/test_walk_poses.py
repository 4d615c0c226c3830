"""Poses of a walk: those of the pose backend, left where left is, and those of files."""

import json
import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_pipelines.poses.joints import BLAZEPOSE, JOINTS, LEFT, LIMBS, RIGHT
from data_pipelines.poses.synthetic import walk_poses
from data_pipelines.schema import DataError
from data_pipelines.scoliosis1k.safe_pickle import load_silhouettes
from data_pipelines.synthetic import draw_walker, render_walk
from data_pipelines.video import pose
from data_pipelines.video.decoding import Video
from data_pipelines.video.fetch import models_there
from data_pipelines.video.pose import Pose, joints_of
from data_pipelines.video.synthetic_clip import walk_towards, write_clip
from data_pipelines.video.walk import checksum, inputs_of, read_walk
from tests.conftest import shared_folder

POSES = walk_poses(2, 60, 1)


def as_frames(folder: Path, poses: np.ndarray) -> Path:
    """One JSON a frame, as OpenPose writes it."""
    folder.mkdir(parents=True)
    for number, joints in enumerate(poses):
        person = {"pose_keypoints_2d": joints.ravel().tolist()}
        (folder / f"{number:04d}.json").write_text(json.dumps({"people": [person]}), encoding="utf-8")
    return folder


def as_pickle(path: Path, poses: np.ndarray) -> Path:
    path.write_bytes(pickle.dumps(poses))
    return path


# From files


@pytest.mark.parametrize("write", [as_frames, as_pickle])
def test_poses_of_a_file_are_a_walk_of_their_own_kind(write, tmp_path):
    path = write(tmp_path / "walk.pkl", POSES) if write is as_pickle else write(tmp_path / "walk", POSES)
    assert inputs_of(path) == [path]
    walk = read_walk(path, None)
    assert walk.kind == "poses"
    np.testing.assert_allclose(walk.poses, POSES, rtol=1e-6)
    assert walk.silhouettes.shape == (0, 64, 64)
    np.testing.assert_array_equal(walk.frames, np.arange(60))
    assert walk.times is None
    assert walk.source == {"frames": 60, "sha256": checksum(path)}
    assert walk.quality is walk.pose_quality
    assert not walk.quality.grave


def test_frames_without_anybody_are_left_out_and_told(tmp_path):
    poses = POSES.copy()
    poses[10:13] = 0
    poses[:, 3] = 0
    walk = read_walk(as_frames(tmp_path / "walk", poses), None)
    assert len(walk.poses) == len(walk.frames) == 57
    assert walk.frames[10] == 13
    said = [flag.message for flag in walk.flags if flag.name == "poses"]
    assert said == ["no joint is seen in 3 of 60 frames (number 10, 11, 12); they are left out", "seen in no frame: left ear"]


NO_POSES = {  # what a pickle holds, and what is said of it
    "COCO-18": (np.zeros((20, 18, 3), np.float32), "has 18 joints (COCO-18 of OpenPose, with a neck)"),
    "no confidences": (POSES[..., :2], "has no confidences"),
    "other axes": (POSES.transpose(0, 2, 1), "has its axes in another order"),
    "one frame": (POSES[0], "is one frame"),
    "rows": (POSES.reshape(60, 51), "has all numbers of a frame in a row"),
    "people": (POSES[:, None], "has an axis of people"),
    "nobody": (np.zeros((20, 17, 3), np.float32), "nobody is seen"),
    "fractions": (POSES * np.float32([1e-3, 1e-3, 1]), "are fractions of the picture"),
    "NaN": (np.where(POSES > 0, POSES, np.nan), "are not all numbers"),
    "few": (POSES[:10], "only 10 usable frames, 15 are needed"),
}


@pytest.mark.parametrize("kind", NO_POSES)
def test_poses_that_are_none_are_named_with_what_they_are(kind, tmp_path):
    content, words = NO_POSES[kind]
    with pytest.raises(DataError) as caught:
        read_walk(as_pickle(tmp_path / "walk.pkl", content), None)
    assert words in str(caught.value)
    assert "walk.pkl" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_pose_folder_is_named(tmp_path):
    folder = as_frames(tmp_path / "walk", POSES)
    (folder / "0007.json").write_text('{"people": [', encoding="utf-8")
    with pytest.raises(DataError, match=r"0007\.json: is no JSON"):
        read_walk(folder, None)
    with pytest.raises(DataError, match="perhaps the pose of one frame; give the folder"):
        read_walk(folder / "0001.json", None)
    with pytest.raises(DataError, match=r"holds folders of mask PNGs or poses .*give the folder of one walk"):
        inputs_of(tmp_path)
    with pytest.raises(DataError, match="--person"):
        read_walk(folder, None, [1])
    with pytest.raises(DataError, match="the pose release; give the silhouette release"):
        load_silhouettes(as_pickle(tmp_path / "walk.pkl", POSES))


def test_masks_beside_a_json_stay_masks_without_poses(tmp_path):
    rng = np.random.default_rng(0)
    for number, mask in enumerate(render_walk(draw_walker(rng, 0), 20, rng)):
        cv2.imwrite(str(tmp_path / f"{number:03d}.png"), mask)
    (tmp_path / "about.json").write_text("{}", encoding="utf-8")
    assert inputs_of(tmp_path) == [tmp_path]
    walk = read_walk(tmp_path, None)
    assert (walk.kind, walk.poses) == ("masks", None)
    with pytest.raises(DataError, match="has no poses, only silhouettes; give poses, or a video"):
        _ = walk.pose_quality


# From BlazePose


def test_landmarks_become_joints_in_pixels_with_the_smaller_probability():
    landmarks = np.zeros((39, 5), np.float32)
    landmarks[:, :2] = np.arange(39)[:, None] + [10, 20]
    landmarks[:, 3], landmarks[:, 4] = 4.0, 6.0  # logits: visible, present
    landmarks[15, 3:] = 8.0, 0.0  # the left wrist
    landmarks[27, 1] = 300.0  # the left ankle, below the picture
    joints = joints_of(landmarks, (200, 300))
    assert joints.dtype == np.float32
    for joint, landmark in enumerate(BLAZEPOSE):
        expected = {9: 0.5, 15: 0.0}.get(joint, 1 / (1 + np.exp(-4)))
        assert joints[joint, 2] == pytest.approx(expected), JOINTS[joint]
        assert joints[joint, :2].tolist() == ([0, 0] if joint == 15 else [landmark + 10, landmark + 20])


def test_a_drawn_person_s_landmarks_land_on_the_limbs_whose_names_they_bear(monkeypatch):
    """A network that finds the coloured spots of a picture, turned and scaled by the region, through all of the backend."""
    walker = walk_poses(0, 1, 1)[0, :, :2] * 3 + [60, 20]  # 17 2
    image = np.zeros((340, 360, 3), np.uint8)
    for number, (x, y) in enumerate(walker):
        cv2.circle(image, (round(float(x)), round(float(y))), 4, (40 + 10 * number, 255, 0), -1)
    order = np.full(33, 0)
    order[list(BLAZEPOSE)] = np.arange(17)

    def network(crop: np.ndarray) -> dict[tuple[int, ...], np.ndarray]:
        picture = (crop[0] * 255).round()  # 256 256 3
        landmarks = np.full((39, 5), 5.0, np.float32)
        for landmark, joint in enumerate(order):
            spot = (np.abs(picture[..., 0] - (40 + 10 * joint)) < 4) & (picture[..., 1] > 252)
            landmarks[landmark, :2] = np.argwhere(spot).mean(axis=0)[::-1] if spot.any() else [128, 128]
        landmarks[[pose.HIPS, pose.REACH], :2] = [[128, 128], [128, 20]]
        logits = np.full((1, 256, 256, 1), 1.0, np.float32)
        return {(1, 195): landmarks.reshape(1, 195), (1, 1): np.ones((1, 1)), (1, 256, 256, 1): logits}

    backend = Pose.__new__(Pose)
    monkeypatch.setattr(backend, "_landmarks", network, raising=False)
    for angle in (0.0, 0.5, -0.3):
        found, _ = backend.outline(image, pose.Region(170.0, 170.0, 420.0, angle))
        np.testing.assert_allclose(found.joints[:, :2], walker, atol=4.0)  # spots of the face overlap
    assert (found.joints[LEFT, 0] > found.joints[RIGHT, 0]).all()  # who comes has the left at the right of the picture
    upper = found.joints[:, 1] < found.joints[[11, 12], 1].mean()
    assert upper[:9].all()
    assert not upper[13:].any()


@pytest.fixture(scope="module")
def blazepose():
    models = Path(os.environ["SCOLIOJAX_MODELS"])
    if not models_there(models):
        pytest.skip("the pose models are not there: python -m data_pipelines.video.fetch")
    return Pose(models)


@pytest.mark.slow
def test_blazepose_finds_the_joints_of_somebody_who_faces_the_camera_and_turns(blazepose):
    """In `demo.mp4` a man stands on a roof with his face to the camera, then turns to the picture's right."""
    path = shared_folder("SCOLIOJAX_CLIPS", "clips") / "demo.mp4"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    blazepose.study(video := Video(path))
    joints = []
    for frame in video.frames():
        found = [one for one in blazepose(frame) if one.joints[[15, 16], 1].max() < 290]  # who is on the roof
        joints += [(one.joints, one.mask) for one in found]
        if frame.number >= 60:
            break
    assert len(joints) >= 40
    facing = np.mean([one[LEFT, 0] > one[RIGHT, 0] for one, _ in joints], axis=0)  # of eight pairs
    assert facing.min() > 0.8, facing
    shares = []
    for one, mask in joints[20:]:
        drawn = np.zeros_like(mask)
        for start, end in LIMBS[8:]:
            cv2.line(drawn, *(tuple(one[joint, :2].round().astype(int).tolist()) for joint in (start, end)), 255, 1)
        shares.append(np.count_nonzero(drawn & cv2.dilate(mask, np.ones((9, 9), np.uint8))) / np.count_nonzero(drawn))
        assert one[0, 1] < one[[5, 6], 1].min() < one[[11, 12], 1].min() < one[[13, 14], 1].min() < one[[15, 16], 1].min()
    assert np.mean(shares) > 0.8


def test_poses_of_a_video_belong_to_its_silhouettes(blazepose, tmp_path):
    images, masks = walk_towards(2, 2, 60)
    walk = read_walk(write_clip(tmp_path / "near.mp4", images), blazepose)
    assert walk.poses.shape == (len(walk.silhouettes), 17, 3)
    assert walk.poses.dtype == np.float32
    for joints, frame in zip(walk.poses, walk.frames, strict=True):
        rows, columns = (np.flatnonzero(masks[frame].any(axis=axis)) for axis in (1, 0))
        x, y = joints[[11, 12], :2].mean(axis=0)
        assert columns[0] < x < columns[-1]
        assert rows[0] < y < rows[-1]
