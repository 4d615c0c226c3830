import numpy as np
import pytest

from data_pipelines.poses.asymmetry import ENTRIES, MEASURES, Normalisation, asymmetry_vector, frame_asymmetries
from data_pipelines.poses.joints import PAIRS, mirrored
from data_pipelines.poses.synthetic import true_joints, walk_poses
from data_pipelines.schema import DataError
from data_pipelines.synthetic import draw_walker


def test_the_published_vectors(golden):
    count = len(golden["pav"])
    vectors = np.stack([asymmetry_vector(golden[f"pose{number}"]) for number in range(count)])
    np.testing.assert_allclose(vectors, golden["pav"], rtol=0, atol=1e-5)
    normalised = Normalisation.fit(vectors[golden["train"]])(vectors)
    np.testing.assert_allclose(normalised, golden["pav_normalised"], rtol=0, atol=1e-5)
    assert normalised.dtype == vectors.dtype == np.float32


def test_the_entries_are_named_in_their_order():
    assert len(ENTRIES) == 24
    assert PAIRS == ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    assert ENTRIES[:4] == ("eye: height difference", "eye: offset from the midline", "eye: angle", "ear: height difference")
    poses = standing()
    poses[:, 5, 1] -= 6.4  # the left shoulder, of a body of 100 pixels
    vector = dict(zip(ENTRIES, asymmetry_vector(poses).ravel(), strict=True))
    assert vector["shoulder: height difference"] == pytest.approx(6.4 * 1.28, rel=1e-5)
    assert vector["shoulder: angle"] == pytest.approx(np.arctan2(6.4, 20), rel=1e-5)
    assert [name for name, value in vector.items() if abs(value) > 1e-3] == [
        "shoulder: height difference", "shoulder: angle",
    ]  # fmt: skip
    poses[:, 15:17, 0] += 5
    assert asymmetry_vector(poses)[7, 1] == pytest.approx(5 * 1.28, rel=1e-5)


def standing(frames: int = 5) -> np.ndarray:
    """Somebody of 100 pixels who is the same on both sides: x of the left joints 110, of the right 90."""
    heights = np.repeat([20, 40, 60, 70, 80, 100, 119], 2)
    poses = np.ones((frames, 17, 3), np.float32)
    poses[:, 0, :2] = 100, 21
    poses[:, 1:, 1] = [19, 19, *heights]
    poses[:, 1::2, 0], poses[:, 2::2, 0] = 110, 90
    return poses


@pytest.mark.parametrize("subject", range(3))
def test_neither_mirror_nor_scale_nor_place_changes_a_vector(subject):
    poses = walk_poses(subject, 40, seed=2)
    vector = asymmetry_vector(poses).ravel()
    turned = mirrored(poses, 72)
    np.testing.assert_allclose(asymmetry_vector(turned).ravel(), vector, atol=2e-4)
    moved = poses.copy()
    moved[..., :2] = np.where(poses[..., 2:] > 0, poses[..., :2] * 3.7 + np.float32([250, 31]), 0)
    np.testing.assert_allclose(asymmetry_vector(moved).ravel(), vector, atol=2e-4)


def test_a_joint_that_is_missing_does_not_count():
    poses = walk_poses(0, 12, seed=0)
    poses[(poses[..., 2] == 0)] = [1, 1, 0.5]
    whole = frame_asymmetries(poses)
    poses[4, 9] = 0
    poses[6, 11] = 0
    found = frame_asymmetries(poses)
    assert np.isnan(found[4, 4]).all()
    np.testing.assert_array_equal(np.delete(found[4], 4, axis=0), np.delete(whole[4], 4, axis=0))
    assert np.isnan(found[6, 5]).all()
    assert abs(found[6, 2, 1] - whole[6, 2, 1]) > 1e-3  # without a hip, from the middle of all joints
    poses[7, :, 2] = 0
    poses[7, 3, 2] = 1  # one joint is no body
    poses[8, :, 1] = 50  # nor is a line
    assert np.isnan(frame_asymmetries(poses)[[7, 8]]).all()


def test_outliers_do_not_count_and_nothing_is_nought():
    poses = standing(9)
    poses[:, 7, 1] += np.linspace(0, 1, 9)
    usual = asymmetry_vector(poses)
    poses[4, 7, 1] += 30
    assert asymmetry_vector(poses)[3, 0] == pytest.approx(usual[3, 0], rel=0.1)
    poses[:, 13] = 0
    assert asymmetry_vector(poses)[6].tolist() == [0, 0, 0]
    assert not asymmetry_vector(np.zeros((3, 17, 3), np.float32)).any()
    assert not asymmetry_vector(np.zeros((0, 17, 3), np.float32)).any()


def test_the_normalisation_knows_the_training_part_alone():
    vectors = np.random.default_rng(0).uniform(0, 5, (6, 8, 3)).astype(np.float32)
    vectors[:, 0, 0] = 3
    fitted = Normalisation.fit(vectors[:4])
    found = fitted(vectors)
    assert found.min() == 0
    assert found.max() == 1
    np.testing.assert_array_equal(found[:, 0, 0], 0)  # of no range
    np.testing.assert_allclose(
        found[0, 1, 1], np.ptp([vectors[0, 1, 1], fitted.low[1, 1]]) / np.ptp(vectors[:4, 1, 1]), rtol=1e-5
    )
    np.testing.assert_array_equal(Normalisation(fitted.low, fitted.high)(vectors[4]), found[4])
    with pytest.raises(DataError, match="training part"):
        Normalisation.fit(vectors[:0])


def test_the_true_tilt_of_the_shoulders_is_in_the_vector():
    walker = draw_walker(np.random.default_rng(3), 2)
    for degrees in (3, 6, 10):
        walker.shoulder_tilt = np.radians(degrees)
        poses = np.insert(true_joints(walker, 90), 2, 1.0, axis=2)  # s 17 3
        assert np.degrees(asymmetry_vector(poses)[2, MEASURES.index("angle")]) == pytest.approx(degrees, abs=0.5)
