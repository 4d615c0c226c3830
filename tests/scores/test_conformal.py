"""Prediction sets hold the class as often as they say, for people who are like the validation people."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from scoliojax.errors import RunError
from scoliojax.scores import calibration, conformal
from scoliojax.scores.calibration import fit, with_margins
from scoliojax.scores.metrics import softmax
from scoliojax.scores.people import one_of_each

SCALE = 16.0


def people(rng: np.random.Generator, labels: np.ndarray, walks: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Labels, logits and subjects of people's walks, for a network that is often wrong; walks of a person are alike."""
    means = rng.normal(0.0, 0.15, (len(labels), 3)) + 0.12 * np.eye(3)[labels]  # one row for each person
    person = np.repeat(np.arange(len(labels)), walks)
    return labels[person], means[person] + rng.normal(0.0, 0.03, (len(person), 3)), [str(one) for one in person]


@pytest.mark.parametrize(("coverage", "count"), [(0.9, 30), (0.8, 12), (0.9, 9)])
def test_each_class_is_covered_as_often_as_asked_in_a_thousand_trials(coverage, count):
    trials, rng = 1000, np.random.default_rng(0)
    held = np.zeros(3)
    for _ in range(trials):
        labels, logits, subjects = people(rng, np.repeat(np.arange(3), count), rng.integers(1, 4, 3 * count))
        by_class = conformal.class_margins(labels, softmax(logits, SCALE), subjects)
        new, their, _ = people(rng, np.arange(3), np.ones(3, int))
        sets, note = conformal.prediction_set(by_class, softmax(their, SCALE), coverage)
        assert not note
        held += sets[np.arange(3), new]
    exact = np.ceil(coverage * (count + 1)) / (count + 1)  # what theory gives, at least what was asked
    low, high = stats.binom(trials, exact).interval(0.999)
    assert ((held >= low) & (held <= high)).all(), (held, low, high)
    assert exact >= coverage


def test_the_temperature_changes_no_set():
    rng = np.random.default_rng(1)
    labels, logits, subjects = people(rng, np.repeat(np.arange(3), 20), np.ones(60, int))
    _, new, _ = people(rng, rng.integers(0, 3, 200), np.ones(200, int))
    found = []
    for temperature in (0.3, 1.0, 4.0):
        by_class = conformal.class_margins(labels, softmax(logits, SCALE / temperature), subjects)
        found.append(conformal.prediction_set(by_class, softmax(new, SCALE / temperature), 0.85)[0])
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    assert 1.0 < found[0].sum(1).mean() < 3.0


def test_the_class_called_is_always_in_the_set_and_certain_networks_give_it_alone():
    labels = np.repeat(np.arange(3), 40)
    sure = softmax(np.eye(3)[labels], SCALE)
    by_class = conformal.class_margins(labels, sure, [str(row) for row in range(120)])
    sets, _ = conformal.prediction_set(by_class, softmax(np.array([[0.3, 0.29, 0.0], [0.0, 0.0, 1.0]]), SCALE), 0.5)
    assert sets.tolist() == [[True, False, False], [False, False, True]]
    tied, _ = conformal.prediction_set(by_class, np.full((1, 3), 1 / 3), 0.5)
    assert tied.all()


def test_a_class_with_too_few_people_is_never_excluded_and_named():
    rng = np.random.default_rng(2)
    labels, logits, subjects = people(rng, np.repeat([0, 1, 2], [9, 8, 0]), np.full(17, 3))
    by_class = conformal.class_margins(labels, softmax(logits, SCALE), subjects)
    assert [len(one) for one in by_class] == [9, 8, 0], "one walk of each person"
    certain = softmax(np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), 100.0)
    sets, note = conformal.prediction_set(by_class, certain, 0.9)
    assert sets[:, 1:].all()
    assert sets[:, 0].tolist() == [True, False]
    assert "needs 9 validation subjects" in note
    assert note.endswith("neutral (8), positive (0)")
    assert conformal.prediction_set(by_class, certain, 0.5)[1].endswith("never excluded: positive (0)")


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.1, 90.0, float("nan"), float("inf")])
def test_a_coverage_that_is_no_share_is_refused(coverage):
    with pytest.raises(RunError, match=r"--coverage=.* must lie between 0 and 1"):
        conformal.prediction_set(((0.0,) * 20,) * 3, np.full((1, 3), 1 / 3), coverage)


def test_one_walk_of_each_person_and_not_the_first_of_all():
    names = [str(person) for person in range(50) for _ in range(3)]
    rows = one_of_each(names)
    assert [names[row] for row in rows] == [str(person) for person in range(50)]
    assert len(set((rows % 3).tolist())) == 3
    np.testing.assert_array_equal(rows, one_of_each(names))


def test_the_file_of_an_older_version_opens_and_says_what_to_do_for_sets(tmp_path):
    rng = np.random.default_rng(3)
    labels, logits, subjects = people(rng, np.repeat(np.arange(3), 20), np.ones(60, int))
    new = fit(labels, logits, SCALE, subjects, 0.9, "abc")
    path = calibration.calibration_file(tmp_path, 7)
    calibration.write(path, new)
    content = json.loads(path.read_text(encoding="utf-8"))
    probabilities = new.probabilities(logits, SCALE)
    sets, note = calibration.read(path, "abc").prediction_set(probabilities, 0.9)
    assert sets.shape == (60, 3)
    assert not note
    del content["margins"]
    path.write_text(json.dumps(content), encoding="utf-8")
    old = calibration.read(path, "abc")
    assert old == replace(new, margins=None)
    nothing, remedy = old.prediction_set(probabilities, 0.9)
    assert nothing is None
    assert "evaluate it again" in remedy
    assert with_margins(old, labels, logits, SCALE, subjects) == new


@pytest.mark.parametrize("margins", [[[0.1]], [[0.1], [0.2]], [[0.1]] * 4, [[], [], []], [[0.2, 0.1], [0.1], [0.1]]])
def test_margins_that_no_fit_gives_are_one_error(margins, tmp_path):
    labels, logits, subjects = people(np.random.default_rng(3), np.repeat(np.arange(3), 20), np.ones(60, int))
    path = calibration.calibration_file(tmp_path, 7)
    calibration.write(path, fit(labels, logits, SCALE, subjects, 0.9, "abc"))
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"margins": margins}), encoding="utf-8")
    with pytest.raises(RunError, match=r"margins.*delete it, then evaluate again"):
        calibration.read(path, "abc")
