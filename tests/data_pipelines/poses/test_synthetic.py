import pickle

import numpy as np
import pytest

from data_pipelines.files import POSES
from data_pipelines.poses.joints import JOINTS, LIMBS
from data_pipelines.poses.reading import check_poses, read_sequence
from data_pipelines.poses.synthetic import detect, true_joints, walk_poses
from data_pipelines.schema import DataError
from data_pipelines.scoliosis1k.release_tree import look_through
from data_pipelines.synthetic import draw_walker, render_walk, walk
from tests.conftest import assert_one_clear_error, run_here


def test_poses_are_a_function_of_the_walk_and_change_no_silhouette():
    poses = walk_poses(4, 12, seed=3)
    silhouettes = walk(4, 12, seed=3)[1]
    np.testing.assert_array_equal(walk_poses(4, 12, seed=3), poses)
    assert not np.array_equal(walk_poses(4, 12, seed=4), poses)
    assert not np.array_equal(walk_poses(7, 12, seed=3), poses)
    np.testing.assert_array_equal(walk(4, 12, seed=3)[1], silhouettes)
    # What was drawn before walkers had joints; a library of pictures may round otherwise.
    assert silhouettes.sum() == pytest.approx(2_372_401, rel=1e-4)


def test_true_joints_lie_on_the_walker_and_limbs_within_its_body():
    for subject in range(6):
        rng = np.random.default_rng((0, subject))
        body = draw_walker(rng, subject % 3)
        mask = render_walk(body, 20, rng) > 0  # s h w
        joints = true_joints(body, 20)  # s 17 2

        def inside(places: np.ndarray, mask: np.ndarray = mask) -> float:
            x, y = np.rint(places).astype(int).T  # 17 s, or s
            return float(mask[np.arange(len(mask)), y, x].mean())

        for joint, name in enumerate(JOINTS):
            assert inside(joints[:, joint]) > 0.9, (subject, name)
        for start, end in LIMBS[1:]:
            if min(start, end) > 4 and (start, end) not in ((5, 11), (6, 12)):  # a line to the hips leaves a narrow waist
                assert inside(joints[:, [start, end]].mean(axis=1)) > 0.9, (subject, JOINTS[start], JOINTS[end])
        assert (joints[:, 5, 0] > joints[:, 6, 0]).all()  # the walker comes: its left is at the right of the picture


def test_a_detector_misplaces_loses_and_doubts():
    joints = np.concatenate([true_joints(draw_walker(np.random.default_rng(row), 0), 100) for row in range(4)])
    poses = detect(joints, np.random.default_rng(0))
    lost = poses[..., 2] == 0
    assert (poses[lost] == 0).all()
    assert 0.003 < lost.mean() < 0.05
    assert lost[:, 9:11].mean() > lost[:, 11:].mean()
    error = np.linalg.norm(poses[..., :2] - joints, axis=2)[~lost]
    confidence = poses[..., 2][~lost]
    assert 0.2 < np.median(error) < 1.0  # pixels, of 86
    assert confidence.min() > 0
    assert confidence.max() < 1
    assert np.corrcoef(error, confidence)[0, 1] < -0.2
    assert check_poses(poses, "synthetic").remarks == ()


def test_in_every_frame_somebody_is_found(monkeypatch):
    monkeypatch.setattr("data_pipelines.poses.synthetic.LOST", 1.0)
    monkeypatch.setattr("data_pipelines.poses.synthetic.LOST_WRIST", 1.0)
    poses = walk_poses(0, 6, seed=0)
    assert (poses[:, 0, 2] > 0).any()
    assert (poses[..., 2] > 0).any(axis=1).all()


def test_a_walk_without_frames_is_none():
    with pytest.raises(DataError, match=r"data\.synthetic\.frames=0"):
        walk_poses(0, 0, seed=0)


def test_the_command_writes_silhouettes_and_poses_of_the_same_walks(tmp_path):
    command = "data_pipelines.synthetic", "--subjects", 3, "--frames", 4, "--seed", 2
    result = run_here(*command, "--output", tmp_path / "tree", "--poses", tmp_path / "poses")
    assert result.returncode == 0, result.stderr
    assert str(tmp_path / "poses") in result.stdout
    for row, sequence in enumerate(look_through(tmp_path / "poses", "--input", frames=POSES).sequences):
        np.testing.assert_array_equal(read_sequence(sequence).joints, walk_poses(row, 4, seed=2))
        silhouettes = tmp_path / "tree" / sequence.folder.relative_to(tmp_path / "poses") / sequence.names[0]
        np.testing.assert_array_equal(pickle.loads(silhouettes.read_bytes()), walk(row, 4, seed=2)[1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--sheet", "sheet.png", "--poses", "poses"), ("--poses is of --output",)),
        (("--output", "tree", "--poses", "full"), ("--poses=", "is not empty; give a new folder")),
        (("--output", "tree", "--poses", "tree/poses"), ("--poses=", "are not apart; give another folder")),
        (("--output", "tree", "--poses", "tree"), ("--poses=", "are not apart; give another folder")),
    ],
)
def test_no_place_for_poses(tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    result = run_here("data_pipelines.synthetic", "--subjects", 3, "--frames", 1, *options)
    assert_one_clear_error(result, *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]
