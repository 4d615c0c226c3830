"""Pose files as people have them: what is read, and the one line for what is not. A new kind of file is a row of a table."""

import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from data_pipelines import files
from data_pipelines.poses.reading import check_poses, read_poses, read_sequence
from data_pipelines.poses.synthetic import walk_poses
from data_pipelines.schema import CLASSES, DataError
from data_pipelines.scoliosis1k.release_tree import look_through
from data_pipelines.scoliosis1k.safe_pickle import load_silhouettes
from tests.conftest import write_tree

POSES = walk_poses(0, 12, seed=5)


def as_json(numbers: list, **more) -> str:
    return json.dumps({"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": numbers, **more}]})


def write_frames(folder: Path, poses: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    for number, frame in enumerate(poses):
        (folder / f"{number}_keypoints.json").write_text(as_json(frame.ravel().tolist()), encoding="utf-8")
    return folder


READ = {  # how one walk is written
    "numpy's array": lambda poses: pickle.dumps(poses),
    "double precision": lambda poses: pickle.dumps(poses.astype(np.float64)),
    "Python 2": lambda poses: pickle.dumps(poses, 2),
    "gzip": lambda poses: gzip.compress(pickle.dumps(poses)),
    "a list of frames": lambda poses: pickle.dumps([*poses]),
    "other byte order": lambda poses: pickle.dumps(poses.astype(">f4")),
}


@pytest.mark.parametrize("kind", READ)
def test_a_pickle_of_poses(tmp_path, kind):
    (tmp_path / "walk.pkl").write_bytes(READ[kind](POSES))
    found = read_poses(tmp_path / "walk.pkl")
    np.testing.assert_array_equal(found.joints, POSES)
    assert found.joints.dtype == np.float32
    assert (found.places.tolist(), found.given, found.remarks) == ([*range(12)], 12, ())


def test_a_folder_of_one_json_a_frame_in_natural_order(tmp_path):
    folder = write_frames(tmp_path / "000_180", POSES)
    (folder / ".DS_Store").write_bytes(b"Mac OS X")
    found = read_poses(folder)
    np.testing.assert_array_equal(found.joints, POSES)
    assert found.remarks == ()


def test_frames_in_which_nobody_is_seen_are_left_out_and_named(tmp_path):
    poses = POSES.copy()
    poses[[3, 7]] = 0
    found = check_poses(poses, "walk.pkl")
    np.testing.assert_array_equal(found.joints, np.delete(POSES, [3, 7], axis=0))
    assert found.places.tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10, 11]
    assert found.remarks == ("walk.pkl: no joint is seen in 2 of 12 frames (number 3, 7); they are left out",)
    folder = write_frames(tmp_path / "walk", POSES)
    (folder / "3_keypoints.json").write_text('{"people": []}', encoding="utf-8")
    (folder / "5_keypoints.json").write_text(json.dumps({"people": [
        {"pose_keypoints_2d": POSES[5].ravel().tolist()}, {"pose_keypoints_2d": []},
    ]}), encoding="utf-8")  # fmt: skip
    (folder / "9_keypoints.json").unlink()
    found = read_poses(folder)
    np.testing.assert_array_equal(found.joints, np.delete(POSES, [3, 9], axis=0))
    assert [line.partition(": ")[2] for line in found.remarks] == [
        "1 of 11 frames show several people (5_keypoints.json); the first is taken",
        "frames that are missing by their numbers: 1",
        "no joint is seen in 1 of 11 frames (number 3); they are left out",
    ]


def test_joints_that_are_never_seen_are_named():
    poses = POSES.copy()
    poses[:, [11, 16]] = 0
    assert check_poses(poses, "00001").remarks == ("00001: seen in no frame: left hip, right ankle",)


def changed(value: object, *place: object) -> np.ndarray:
    poses = POSES.copy()
    poses[place] = value
    return poses


ONES = np.ones((4, 17, 1), np.float32)
REFUSED = {  # an array, and what is said of it
    "COCO-18": (np.ones((4, 18, 3)), "has 18 joints (COCO-18 of OpenPose, with a neck); give [frames, 17, 3]"),
    "BODY-25": (np.ones((4, 25, 3)), "has 25 joints (BODY-25 of OpenPose); give [frames, 17, 3]"),
    "BlazePose": (np.ones((4, 33, 3)), "has 33 joints (the landmarks of BlazePose); give"),
    "some joints": (np.ones((4, 13, 3)), "has 13 joints; give"),
    "no confidences": (POSES[..., :2], "has no confidences; give [frames, 17, 3]: x, y and confidence of COCO's joints"),
    "other axes": (POSES.swapaxes(1, 2), "has its axes in another order"),
    "one frame": (POSES[0], "is one frame"),
    "people": (POSES[:, None], "has an axis of people"),
    "rows": (POSES.reshape(12, 51), "has all numbers of a frame in a row"),
    "no frames": (POSES[:0], "has no frame"),
    "a number": (np.float32(3), "is none of poses"),
    "four numbers": (np.ones((4, 17, 4)), "is none of poses"),
    "silhouettes": (np.ones((4, 64, 64), np.uint8), "is the silhouette release; give the pose release"),
    "cut silhouettes": (np.ones((4, 64, 44), np.uint8), "is the silhouette release"),
    "silhouettes of a channel": (np.ones((4, 1, 64, 64), np.uint8), "is the silhouette release"),
    "maps": (np.ones((4, 2, 64, 64), np.uint8), "is the silhouette release"),
    "truth values": (POSES > 0, "dtype bool"),
    "NaN": (changed(np.nan, 4, 3, 1), "frame 4, left ear: "),
    "NaN, remedy": (changed(np.nan, 4), "frame 4, nose: nan, nan, nan are not all numbers; write 0, 0, 0 for"),
    "infinite": (changed(np.inf, 2, 5, 0), "frame 2, left shoulder: inf, "),
    "beyond single precision": (POSES.astype(np.float64) * 1e300, "are not all numbers"),
    "per cent": (POSES * [1, 1, 100], "divide by 100"),
    "scores": (changed(1.25, 1, 2, 2), "frame 1, right eye: confidence 1.25; write confidences 0..1"),
    "negative": (changed(-0.5, 1, 2, 2), "confidence -0.5; write confidences 0..1"),
    "far away": (changed(1e6, 0, 16, 1), "frame 0, right ankle: x="),
    "fractions": (POSES / [100, 100, 1], "are fractions of the picture; multiply x by its width"),
    "nothing": (np.zeros((4, 17, 3)), "no joint in any frame (4 frames), so nobody is seen"),
    "no confidence": (POSES * [1, 1, 0], "places, but every confidence is 0 (12 frames), so nobody is seen"),
    "y upwards": ([0, 100, 0] + POSES * [1, -1, 1], "the body is upside down; give x to the right and then y down"),
    "y, x": (POSES[..., [1, 0, 2]], "the body lies on its side"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_pose_sequence_is_one_line(tmp_path, kind):
    array, words = REFUSED[kind]
    path = tmp_path / "000_180.pkl"
    path.write_bytes(pickle.dumps(np.asarray(array)))
    with pytest.raises(DataError) as error:
        read_poses(path)
    assert str(error.value).startswith(str(path))
    assert words in str(error.value)
    assert ";" in str(error.value)  # the remedy
    assert "\n" not in str(error.value)


LETTERS = [*"ab", *POSES[0].ravel().tolist()[2:]]
BROKEN = {  # the content of one frame, and what is said of it
    "cut off": (as_json(POSES[0].ravel().tolist())[:80], "is no JSON (", "write it again"),
    "empty": ("", "is no JSON (an empty file); write it again", ""),
    "a web page": ("<!DOCTYPE html><html>", "is no JSON (a web page", "download it with the browser"),
    "COCO-18": (as_json([1.0] * 54), "54 numbers in pose_keypoints_2d (18 joints: COCO-18", "give 51, x, y and confidence"),
    "BODY-25": (as_json([1.0] * 75), "75 numbers in pose_keypoints_2d (25 joints: BODY-25", "give 51"),
    "no confidences": (as_json([1.0] * 34), "34 numbers in pose_keypoints_2d (17 joints without confidences)", "give 51"),
    "too few": (as_json([1.0] * 50), "50 numbers in pose_keypoints_2d;", "give 51"),
    "letters": (as_json(LETTERS), "'a' in pose_keypoints_2d is no number", "write 51"),
    "truth values": (as_json([True] * 51), "'True' in pose_keypoints_2d is no number", "write 51"),
    "a number of 400 digits": (as_json([10**400] * 51), "is beyond all pictures", "write pixels"),
    "NaN": (as_json([float("nan")] * 51), "frame 2, nose: nan, nan, nan are not all numbers", "write 0, 0, 0"),
    "a list": ("[1, 2]", 'has no list "people"', "write it as OpenPose does"),
    "people of another kind": ('{"people": {"0": []}}', 'has no list "people"', "pose_keypoints_2d"),
    "a person without a pose": ('{"people": [{"face": []}]}', 'has no list "pose_keypoints_2d"', "give 51 numbers"),
    "a person who is a number": ('{"people": [3]}', 'has no list "pose_keypoints_2d"', "give 51 numbers"),
    "brackets": ("[" * 100_000, "is no JSON (", "write it again"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_one_frame_that_cannot_be_read_is_one_line_with_its_name(tmp_path, kind):
    content, *words = BROKEN[kind]
    folder = write_frames(tmp_path / "walk", POSES)
    (folder / "2_keypoints.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as error:
        read_poses(folder)
    for word in (str(folder if kind == "NaN" else folder / "2_keypoints.json"), *words):
        assert word in str(error.value)
    assert "\n" not in str(error.value)


OTHER = {  # what stands at the place of a pose sequence
    "nothing": (lambda path: None, "is no folder of .json frames and no pickle"),
    "a file": (lambda path: path.write_bytes(b"x"), "is no folder of .json frames and no pickle"),
    "an empty folder": (lambda path: path.mkdir(), "holds no .json frame"),
    "a part of a download": (
        lambda path: (path.mkdir(), (path / "0.json.part").touch()), "0.json.part is a part of 0.json",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHER)
def test_what_is_no_place_of_poses(tmp_path, kind):
    do, words = OTHER[kind]
    do(tmp_path / "walk")
    with pytest.raises(DataError, match=words):
        read_poses(tmp_path / "walk")


def test_a_pickle_of_something_else_says_what_is_wanted(tmp_path):
    (tmp_path / "walk.pkl").write_bytes(pickle.dumps({"pose": POSES}))
    with pytest.raises(DataError, match=r"a dict; refused; give numpy's array \[frames, 17, 3\]: x, y and confidence"):
        read_poses(tmp_path / "walk.pkl")


@pytest.fixture
def tree(tmp_path):
    """A tree of poses: four pickles, a folder of frames, and another broken one."""
    root = tmp_path / "poses"
    for number in range(6):
        view = root / f"{number:05d}" / CLASSES[number % 3].capitalize() / "000_180"
        if number < 4:
            view.mkdir(parents=True)
            (view / "000_180.pkl").write_bytes(pickle.dumps(walk_poses(number, 6, seed=0)))
        else:
            write_frames(view, walk_poses(number, 6, seed=0))
    (view / "4_keypoints.json").write_bytes(b"{")
    return root


def test_a_tree_of_poses_is_read_and_what_is_broken_is_named(tree):
    found = look_through(tree, "--input", frames=files.POSES)
    assert [one.sequence for one in found.sequences] == [f"{number:05d}" for number in range(6)]
    assert not found.problems
    for number, one in enumerate(found.sequences[:5]):
        np.testing.assert_array_equal(read_sequence(one).joints, walk_poses(number, 6, seed=0))
        assert one.label == number % 3
    with pytest.raises(DataError, match=r"4_keypoints\.json: is no JSON"):
        read_sequence(found.sequences[5])


def test_silhouettes_and_poses_are_told_apart(tree, tmp_path):
    other = look_through(tree, "--input")  # as masks
    assert len(other.sequences) == 4
    words = r"0 \.pkl and 0 \.png files \(but 6 frames of poses, \.json\); expected"
    with pytest.raises(DataError, match=words):
        raise DataError(other.problems[0])
    with pytest.raises(DataError, match="is the pose release; give the silhouette release"):
        load_silhouettes(other.sequences[0].files[0])
    silhouettes = write_tree(tmp_path / "silhouettes", per_class=1)
    with pytest.raises(DataError, match="is the silhouette release; give the pose release"):
        read_sequence(look_through(silhouettes, "--input", frames=files.POSES).sequences[0])
    (silhouettes / "00000/Negative/000_180/000_180.pkl").rename(silhouettes / "00000/Negative/000_180/0.png")
    problems = look_through(silhouettes, "--input", frames=files.POSES).problems
    assert "0 .pkl and 0 .json files (but 1 frames of silhouettes, .png); expected" in problems[0]
