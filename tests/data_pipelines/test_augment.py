"""What a camera does to a walk, in an evaluation and in training batches."""

import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.augment import STREAM, Augmentation, augment
from data_pipelines.perturbations import PERTURBATIONS, dilated, eroded, mirrored, moved, perturbations_of, tilted
from data_pipelines.pipelines import SequenceCache, TrainSampler
from data_pipelines.poses.maps import skeleton_maps
from data_pipelines.poses.synthetic import walk_poses
from data_pipelines.schema import DataError
from data_pipelines.silhouettes import cut_sides
from data_pipelines.synthetic import synthetic_walkers, walk
from tests.conftest import make_set

ALL = Augmentation(shift=2, mirror=0.5, dilation=0.3, erosion=0.3, tilt=5.0, cut_out=0.4)


@pytest.fixture(scope="module")
def walker() -> np.ndarray:
    return cut_sides(walk(2, 12, 5)[1])


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_perturbation_gives_silhouettes_and_leaves_the_walk_as_it_is(name, walker):
    before = walker.copy()
    walker.flags.writeable = False  # as the cache gives it
    found = PERTURBATIONS[name](walker)
    np.testing.assert_array_equal(walker, before)
    assert found.dtype == np.uint8
    assert found.shape == (6 if name == "every second frame" else 12, 64, 44)
    assert (found[:6] != walker[:6]).any(), f"{name} does nothing"
    assert 0.6 < found[:6].astype(int).sum() / before[:6].astype(int).sum() < 1.5  # it is still the walker
    assert PERTURBATIONS[name](walker[:0]).shape == (0, 64, 44)
    assert PERTURBATIONS[name](np.zeros((2, 64, 64), np.uint8)).shape[1:] == (64, 64)


@pytest.mark.parametrize("change", [*PERTURBATIONS, *range(8)])
def test_of_a_skeleton_map_both_channels_are_changed_as_each_alone(change, walker):
    maps = np.stack([walker, walker[::-1]], axis=1)  # s 2 64 44
    draws = ALL.draw(0, 0, 8)
    way = PERTURBATIONS[change] if change in PERTURBATIONS else lambda clip: augment(clip, draws, change)
    found = way(maps)
    assert found.dtype == np.uint8
    for channel in range(2):
        np.testing.assert_array_equal(found[:, channel], way(np.ascontiguousarray(maps[:, channel])))


def test_moves_lose_what_leaves_and_bring_nothing():
    columns = np.tile(np.arange(1, 45, dtype=np.uint8), (2, 64, 1))  # s 64 44
    for by in (-50, -3, -1, 0, 1, 2, 44, 99):
        expected = [column - by if 0 < column - by <= 44 else 0 for column in range(1, 45)]
        assert moved(columns, by)[1, 7].tolist() == expected, by
    np.testing.assert_array_equal(PERTURBATIONS["shifted left"](columns), moved(columns, -1))
    np.testing.assert_array_equal(PERTURBATIONS["shifted right"](columns), moved(columns, 1))


def test_a_mirror_turns_left_and_right_and_its_own_mirror_is_the_walk(walker):
    np.testing.assert_array_equal(mirrored(mirrored(walker)), walker)
    assert mirrored(walker)[3, 20, 0] == walker[3, 20, 43]
    assert walk(2, 12, 5)[0] == 2  # a positive walker, bent to one side: the class names none


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(2, 50))
def test_thicker_and_thinner_are_those_of_opencv(seed, frames, width):
    noise = np.random.default_rng(seed).integers(0, 256, (frames, 64, width), dtype=np.uint8)
    for ours, theirs in ((dilated, cv2.dilate), (eroded, cv2.erode)):
        np.testing.assert_array_equal(ours(noise), [theirs(frame, np.ones((3, 3), np.uint8)) for frame in noise])


@pytest.mark.parametrize("degrees", [-45.0, -3.0, 1.0, 3.0, 30.0])
def test_a_tilt_leans_the_head_by_its_degrees(degrees):
    bar = np.zeros((2, 64, 44), np.uint8)
    bar[:, 14:50, 19:25] = 255
    found = tilted(bar, degrees)[1]
    y, x = np.nonzero(found)
    grey = found[y, x].astype(float)
    _, axes = np.linalg.eigh(np.cov(x, y, aweights=grey))
    across, down = axes[:, 1] * -np.sign(axes[1, 1])  # from the foot to the head
    assert np.degrees(np.arctan2(across, -down)) == pytest.approx(degrees, abs=0.1)
    assert [np.average(place, weights=grey) for place in (x, y)] == [
        pytest.approx(21.5, abs=0.05),
        pytest.approx(31.5, abs=0.05),
    ]
    for name, sense in (("tilted left", -3.0), ("tilted right", 3.0)):
        np.testing.assert_array_equal(PERTURBATIONS[name](bar), tilted(bar, sense))


def sampler(augmentation: Augmentation, frames: int = 12, **changes) -> TrainSampler:
    data = make_set(per_class=3, frames=frames)
    settings = dict(rows=np.arange(9), seed=5, subjects_per_batch=4, clips_per_subject=4, frames_per_clip=6)
    return TrainSampler(data=data, augmentation=augmentation, **settings | changes)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4]))
def test_a_changed_batch_is_the_same_on_any_number_of_processes(step, count, together):
    whole = sampler(ALL)(step)
    one = sampler(ALL, clips_together=together if together <= 16 // count else 1)
    shares = [replace(one, process_index=index, process_count=count)(step) for index in range(count)]
    assert shares[0].keys() == whole.keys()  # frames that clips share are changed alike, so none are shared
    for name in whole:
        np.testing.assert_array_equal(np.concatenate([share[name] for share in shares]), whole[name])
    assert whole["frames"].dtype == np.uint8


def test_sequences_and_frames_are_drawn_as_without_augmentation():
    plain, changing = sampler(Augmentation()), sampler(ALL)
    for step in range(20):
        rng = np.random.default_rng((5, step))  # written out: this is what a batch was before there was augmentation
        rows = rng.choice(np.arange(9), 4, replace=False)
        frames = [rng.permuted(np.tile(np.arange(12), (4, 1)), axis=1)[:, :6] for _ in range(4)]
        expected = [cut_sides(plain.data.read(row))[clip] for row, clips in zip(rows, frames, strict=True) for clip in clips]
        batch, changed = plain(step), changing(step)
        np.testing.assert_array_equal(batch["frames"], expected)
        for name in ("labels", "identities"):
            np.testing.assert_array_equal(changed[name], batch[name])
        draws = ALL.draw(5, step, 16)
        for clip in range(16):  # all frames of a clip alike
            np.testing.assert_array_equal(changed["frames"][clip], augment(batch["frames"][clip], draws, clip))


def test_a_change_is_a_function_of_seed_and_step_and_of_no_other_change():
    draws = ALL.draw(3, 7, 500)
    for again, same in ((ALL.draw(3, 7, 500), True), (ALL.draw(3, 8, 500), False), (ALL.draw(4, 7, 500), False)):
        assert all(np.array_equal(one, other) for one, other in zip(draws, again, strict=True)) is same
    for off, left in (("mirror", "mirror"), ("tilt", "tilt"), ("shift", "shift"), ("cut_out", "hole")):
        without = replace(ALL, **{off: 0}).draw(3, 7, 500)
        for name, one in draws._asdict().items():
            assert np.array_equal(one, getattr(without, name)) is (name != left), (off, name)
        assert not getattr(without, left).any()
    assert not (replace(ALL, dilation=0.0).draw(3, 7, 500).thicker > 0).any()
    assert not (replace(ALL, erosion=0.0).draw(3, 7, 500).thicker < 0).any()
    own = np.random.default_rng(np.random.SeedSequence((3, 7), spawn_key=(STREAM,))).random(4)
    assert not np.intersect1d(own, np.random.default_rng((3, 7)).random(1000)).size  # not the numbers of the sampler


def test_draws_are_as_often_and_as_far_as_the_config_says():
    draws = ALL.draw(0, 0, 20_000)
    assert draws.mirror.mean() == pytest.approx(0.5, abs=0.02)
    assert (draws.thicker > 0).mean() == pytest.approx(0.3, abs=0.02)
    assert (draws.thicker < 0).mean() == pytest.approx(0.3, abs=0.02)
    assert np.bincount(draws.shift + 2) == pytest.approx(np.full(5, 4000), rel=0.1)
    assert (draws.tilt != 0).mean() == pytest.approx(0.5, abs=0.02)
    assert (draws.tilt.min(), draws.tilt.max()) == (pytest.approx(-5, abs=0.01), pytest.approx(5, abs=0.01))
    top, bottom, left, right = draws.hole[draws.hole[:, 1] > 0].T
    assert len(top) / 20_000 == pytest.approx(0.4, abs=0.02)
    assert (top.min(), bottom.max(), left.min(), right.max()) == (0, 64, 0, 44)
    assert set(bottom - top) == set(range(4, 21))
    assert set(right - left) == set(range(4, 13))
    blank = np.full((2, 64, 44), 9, np.uint8)
    clip = int(np.flatnonzero(Augmentation(cut_out=1.0).draw(0, 0, 1).hole[:, 1])[0])
    cut = augment(blank, Augmentation(cut_out=1.0).draw(0, 0, 1), clip)
    assert 16 <= (cut[0] == 0).sum() <= 240
    assert (blank == 9).all()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"shift": 2.5}, "shift=2.5 must be a whole number of columns from 0, which turns it off, to 10"),
        ({"shift": 11}, "shift=11 must be a whole number of columns from 0, which turns it off, to 10"),
        ({"shift": -1}, "shift=-1"),
        ({"mirror": 1.01}, "mirror=1.01 must be a probability"),
        ({"cut_out": float("nan")}, "cut_out=nan"),
        ({"tilt": 46.0}, "tilt=46.0 must be degrees"),
        ({"dilation": 0.6, "erosion": 0.5}, "dilation=0.6 and erosion=0.5 are more than 1 together"),
    ],
)
def test_a_value_that_cannot_be_is_named(values, words):
    with pytest.raises(DataError, match=words):
        Augmentation(**values)


def test_what_a_changed_batch_costs_is_small_beside_what_it_reads():
    data = synthetic_walkers(9, 60)
    cache = SequenceCache(data, 10**9)
    one = TrainSampler(data, np.arange(9), 0, 6, 2, 6, cache=cache, augmentation=ALL)

    def seconds(call, *arguments) -> float:
        start = time.perf_counter()
        call(*arguments)
        return time.perf_counter() - start

    reading = min(sum(seconds(data.read, row) for row in range(6)) for _ in range(3))
    for row in range(9):
        cache(row)
    batch = min(seconds(one, step) for step in range(10))
    assert batch < reading / 10, f"{batch / reading:.2f} of reading its walks once"


def test_a_camera_moves_no_map_and_makes_no_limb_thicker():
    assert set(perturbations_of("silhouettes")) == set(PERTURBATIONS)
    poses = walk_poses(0, 12, 0)
    moved = poses + np.where(poses[..., 2:] > 0, np.array([31, -7, 0], np.float32), 0)
    apart = np.abs(skeleton_maps(poses).astype(int) - skeleton_maps(moved))
    assert apart.mean() < 0.2  # of rounding
    assert set(perturbations_of("skeletons")) == {"mirrored", "tilted left", "tilted right", "every second frame"}
    maps = cut_sides(skeleton_maps(poses))
    for name, perturb in perturbations_of("skeletons").items():
        found = perturb(maps)
        assert found.shape == (6 if name == "every second frame" else 12, 2, 64, 44)
        for channel in range(2):
            np.testing.assert_array_equal(found[:, channel], perturb(maps[:, channel]))
