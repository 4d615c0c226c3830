"""Posture of walkers whose true tilt, shift and rhythm are known."""

from types import SimpleNamespace

import numpy as np
import pytest

from data_pipelines.poses.joints import mirrored
from data_pipelines.poses.posture import Measure, body_heights, posture
from data_pipelines.poses.synthetic import detect, true_joints
from data_pipelines.synthetic import STATURE, draw_walker

FRAMES, RATE = 120, 25.0
TIMES = np.arange(FRAMES) / RATE


def walker(subject: int = 0, **signs: float) -> SimpleNamespace:
    found = draw_walker(np.random.default_rng((11, subject)), subject % 3)
    vars(found).update(signs)
    return found


def seen(joints: np.ndarray) -> np.ndarray:
    """True joints `[s, 17, 2]` as poses without a doubt, `[s, 17, 3]`."""
    return np.insert(joints, 2, 1.0, axis=2).astype(np.float32)


def measured(poses: np.ndarray, times: np.ndarray | None = TIMES) -> dict[str, Measure]:
    return {measure.name: measure for measure in posture(poses, times)}


@pytest.mark.parametrize("degrees", [0, 3, -6, 10])
def test_the_true_tilt_of_shoulders_and_pelvis(degrees):
    for subject in range(3):
        body = walker(subject, shoulder_tilt=np.radians(degrees), pelvic_tilt=np.radians(-degrees / 2))
        found = measured(seen(true_joints(body, FRAMES)))
        assert found["shoulder line"].median == pytest.approx(degrees, abs=0.3)
        assert found["pelvis line"].median == pytest.approx(-degrees / 2, abs=0.5)
        assert found["shoulder line"].spread < 0.2
        assert np.std(found["shoulder line"].curve) > 0.3  # the line moves within a stride


def test_a_detector_s_error_stays_below_what_its_misplaced_joints_explain():
    errors = []
    for subject in range(8):
        body = walker(subject, shoulder_tilt=np.radians(6))
        poses = detect(true_joints(body, FRAMES), np.random.default_rng(subject))
        errors.append(measured(poses)["shoulder line"].median - 6)
    assert np.mean(np.abs(errors)) < 2
    assert abs(np.mean(errors)) < 1.5


@pytest.mark.parametrize("shift", [0.0, 0.02, -0.05])
def test_the_true_shift_and_lean_of_the_trunk(shift):
    body = walker(1, trunk_shift=shift)
    found = measured(seen(true_joints(body, FRAMES)))
    assert found["lateral shift"].median == pytest.approx(100 * shift, abs=0.15)
    lean = np.degrees(np.arctan2(shift, body.trunk - 0.045 + 0.03))
    assert found["trunk lean"].median == pytest.approx(lean, abs=0.2)


def test_cadence_and_strides():
    for period in (20.0, 27.5, 36.0):
        found = measured(seen(true_joints(walker(2, period=period), FRAMES)))
        assert found["cadence"].median == pytest.approx(120 * RATE / period, rel=0.01)
        assert found["cadence"].spread < 1
        assert FRAMES / period - 2 <= found["cadence"].strides <= FRAMES / period
        assert found["step symmetry"].median == pytest.approx(50, abs=0.6)
        within = np.isfinite(found["cadence"].curve)
        assert np.count_nonzero(within) == pytest.approx(period * found["cadence"].strides, abs=1.5)
    assert np.isnan(measured(seen(true_joints(walker(2), FRAMES)), None)["cadence"].median)


def test_uneven_steps():
    """The left foot is the higher one in 60 of 100 parts of a stride."""
    body = walker(0, period=100.0, phase=0.0, pelvic_tilt=0.0, sway=0.0)
    fine = seen(true_joints(body, 101))  # one stride, in which the foot at the left of the picture, the right one, rises first
    part = np.arange(FRAMES) / 25 % 1  # of a stride
    uneven = np.where(part < 0.4, part / 0.4 * 50, 50 + (part - 0.4) / 0.6 * 50)
    found = measured(fine[np.rint(uneven).astype(int)])
    assert found["step symmetry"].median == pytest.approx(60, abs=2.5)
    assert found["cadence"].median == pytest.approx(120, rel=0.02)


def test_the_arm_that_swings_more():
    for asymmetry, arms in ((0.6, ("left", "right")), (-0.6, ("right", "left"))):
        found = measured(seen(true_joints(walker(3, swing_asymmetry=asymmetry, shoulder_tilt=0.1), FRAMES)))
        more, less = (found[f"arm swing {arm}"].median for arm in arms)
        assert more > 2 * less
    even = measured(seen(true_joints(walker(3, swing_asymmetry=0.0), FRAMES)))
    assert even["arm swing left"].median == pytest.approx(even["arm swing right"].median, rel=0.05)


SIGNED = ("shoulder line", "pelvis line", "trunk lean", "lateral shift")


def test_signs_are_the_walker_s_own():
    poses = seen(true_joints(walker(5, shoulder_tilt=0.1, trunk_shift=0.03), FRAMES))
    usual = measured(poses)
    other = measured(mirrored(poses, 72))  # somebody else, who has all on the other side
    behind = poses.copy()
    behind[..., 0] = 72 - behind[..., 0]  # the same walker, seen from behind
    behind = measured(behind)
    for name in SIGNED:
        assert other[name].median == pytest.approx(-usual[name].median, abs=1e-3), name
        assert behind[name].median == pytest.approx(usual[name].median, abs=1e-3), name
    assert other["arm swing left"].median == pytest.approx(usual["arm swing right"].median, abs=0.1)
    assert behind["arm swing left"].median == pytest.approx(usual["arm swing left"].median, abs=1e-3)


def test_neither_distance_nor_approach_nor_place_matters():
    poses = seen(true_joints(walker(4, trunk_shift=0.04), FRAMES))
    usual = measured(poses)
    nearer = poses.copy()
    nearer[..., :2] = nearer[..., :2] * np.linspace(2, 4, FRAMES)[:, None, None] + [400, 90]
    nearer = measured(nearer)
    for name, measure in usual.items():
        assert nearer[name].median == pytest.approx(measure.median, rel=0.05, abs=0.05), name


def test_the_height_of_the_body():
    body = walker(0)
    heights = body_heights(true_joints(body, FRAMES))
    np.testing.assert_allclose(heights, STATURE, rtol=0.03)


def test_joints_that_are_not_seen_leave_gaps_and_no_wrong_number():
    poses = seen(true_joints(walker(6), FRAMES))
    usual = measured(poses)
    poses[30:50, 5] = 0  # the left shoulder
    poses[60:64, 15] = 0  # the left ankle
    poses[:, 10, 2] = 0.05  # the right wrist, never sure
    found = measured(poses)
    curve = found["shoulder line"].curve
    assert np.flatnonzero(np.isnan(curve)).tolist() == [*range(30, 50)]
    assert found["shoulder line"].median == pytest.approx(usual["shoulder line"].median, abs=0.2)
    assert found["cadence"].median == pytest.approx(usual["cadence"].median, rel=0.02)
    assert np.isnan(found["arm swing right"].median)
    assert found["arm swing right"].strides == 0
    assert found["arm swing left"].median == pytest.approx(usual["arm swing left"].median, rel=0.1)


@pytest.mark.parametrize("frames", [0, 1, 2, 5])
def test_somebody_seen_too_briefly_has_a_posture_but_no_gait(frames):
    found = measured(seen(true_joints(walker(0), 5))[:frames], TIMES[:frames])
    assert np.isfinite(found["shoulder line"].median) == (frames > 0)
    assert np.isnan(found["shoulder line"].spread)
    assert np.isnan([found[name].median for name in ("arm swing left", "cadence", "step symmetry")]).all()
    assert {len(measure.curve) for measure in found.values()} == {frames}


def test_nobody_and_somebody_who_stands_have_no_gait():
    assert all(np.isnan(measure.median) for measure in posture(np.zeros((40, 17, 3), np.float32)))
    standing = measured(seen(true_joints(walker(0), 1)).repeat(60, axis=0), TIMES[:60])
    assert np.isfinite(standing["trunk lean"].median)
    assert np.isnan(standing["cadence"].median)


def test_other_arrays_are_refused():
    with pytest.raises(ValueError, match="17, 3"):
        posture(np.zeros((4, 17, 2)))
    with pytest.raises(ValueError, match="3"):
        posture(np.zeros((4, 17, 3)), TIMES[:3])
