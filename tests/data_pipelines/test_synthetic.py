import pickle

import numpy as np
import pytest

from data_pipelines import synthetic
from data_pipelines.schema import CLASSES, DataError
from data_pipelines.scoliosis1k.release_tree import look_through
from data_pipelines.synthetic import draw_walker, synthetic_walkers, walk
from tests.conftest import assert_one_clear_error, run_module


def test_a_walk_is_a_function_of_its_arguments():
    label, frames = walk(4, 12, seed=3)
    again, same = walk(4, 12, seed=3)
    assert label == again == 1
    np.testing.assert_array_equal(frames, same)
    assert not np.array_equal(frames, walk(4, 12, seed=4)[1])
    assert not np.array_equal(frames, walk(7, 12, seed=3)[1])


def test_drawing_a_part_where_it_can_be_seen_changes_nothing(monkeypatch):
    near = [walk(subject, 12, seed=0)[1] for subject in range(6)]
    monkeypatch.setattr(synthetic, "SEEN", 1_000.0)  # every part everywhere
    for subject in range(6):
        np.testing.assert_array_equal(walk(subject, 12, seed=0)[1], near[subject])


def test_a_walker_looks_like_a_person():
    for subject in range(9):
        _, frames = walk(subject, 30, seed=0)
        body = frames > 127  # s h w
        widths = body.sum(axis=2).mean(axis=0)  # h
        head, neck, shoulders, feet = widths[1:7].max(), widths[7:11].min(), widths[12:22].max(), widths[-3:].mean()
        assert neck < head < shoulders, widths
        assert feet < shoulders
        assert 0.10 < body.mean() < 0.35  # a standing person fills about a fifth of the square
        legs = [np.count_nonzero(np.diff(np.flatnonzero(row)) > 1) for frame in body for row in frame[52:60]]
        assert np.mean(legs) > 0.3  # two legs, not a skirt


def test_a_walk_repeats_with_its_gait_cycle_and_moves_within_it():
    rng = np.random.default_rng((0, 0))
    period = draw_walker(rng, 0).period
    _, frames = walk(0, 80, seed=0)
    frames = frames.astype(float)

    def apart(gap: float) -> float:
        return float(np.mean(np.abs(frames[: 80 - round(gap)] - frames[round(gap) :])))

    assert apart(period) < 0.85 * apart(period / 2)


def asymmetry(frames: np.ndarray) -> float:
    """How far the head stands beside the hips, in columns: one of the five signs, measured on silhouettes alone."""
    columns = np.arange(64)
    centre = [(frames[:, rows].astype(float) @ columns).sum() / frames[:, rows].sum() for rows in (slice(0, 12), slice(30, 40))]
    return abs(centre[0] - centre[1])


def test_the_signs_grow_from_negative_over_neutral_to_positive_and_overlap():
    by_class = [[asymmetry(walk(3 * i + label, 4, seed=0)[1]) for i in range(60)] for label in range(3)]
    means = [np.mean(values) for values in by_class]
    assert means[0] < means[1] < means[2]
    assert max(by_class[0]) > min(by_class[1])
    assert max(by_class[1]) > min(by_class[2])


def test_a_set_has_every_class_and_says_that_it_is_synthetic():
    data = synthetic_walkers(subjects=7, frames=5, seed=1)
    assert data.synthetic
    assert "synthetic" in data.name
    assert data.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert data.n_frames.tolist() == [len(data.read(row)) for row in range(7)]
    np.testing.assert_array_equal(data.read(4), walk(4, 5, seed=1)[1])


@pytest.mark.parametrize(("subjects", "frames", "words"), [(2, 5, "subjects=2"), (5, 0, "frames=0")])
def test_impossible_sets(subjects, frames, words):
    with pytest.raises(DataError, match=words):
        synthetic_walkers(subjects=subjects, frames=frames)


def test_the_command_writes_a_tree_in_the_released_layout(tmp_path):
    result = run_module("data_pipelines.synthetic", "--output", tmp_path / "tree", "--subjects", 3, "--frames", 4)
    assert result.returncode == 0, result.stderr
    assert "synthetic" in result.stdout
    found = look_through(tmp_path / "tree", "--input")
    assert not found.problems
    assert [CLASSES[one.label] for one in found.sequences] == list(CLASSES)
    np.testing.assert_array_equal(pickle.loads(found.sequences[1].files[0].read_bytes()), walk(1, 4, seed=0)[1])
    again = run_module("data_pipelines.synthetic", "--output", tmp_path / "tree")
    assert_one_clear_error(again, "--output", "not empty")


def test_walkers_are_drawn_when_they_are_read(monkeypatch):
    drawn = []
    monkeypatch.setattr(synthetic, "walk", lambda subject, frames, seed: drawn.append(subject) or walk(subject, frames, seed))
    walkers = synthetic.synthetic_walkers(9, 4)
    assert drawn == []
    assert len(walkers.read(5)) == 4
    assert drawn == [5]
