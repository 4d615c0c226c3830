import json
import math

import numpy as np
import pytest

from scoliojax.errors import RunError
from scoliojax.scores import calibration
from scoliojax.scores.calibration import choose_threshold, fit, fit_temperature
from scoliojax.scores.metrics import softmax


def sampled(n: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from the very probabilities that logits have at a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.uniform(-0.3, 0.3, (n, 3))
    shares = softmax(logits, 16.0 / temperature)
    return (shares.cumsum(1) < rng.random((n, 1))).sum(1), logits


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    labels, logits = sampled(20_000, temperature)
    assert fit_temperature(labels, logits, 16.0) == pytest.approx(temperature, rel=0.05)


def test_the_temperature_is_where_the_cross_entropy_is_least():
    labels, logits = sampled(60, 1.5)
    best = fit_temperature(labels, logits, 16.0)

    def cross_entropy(temperature):
        return -np.mean(np.log(softmax(logits, 16.0 / temperature)[np.arange(60), labels]))

    grid = np.geomspace(0.1, 10, 2001)
    assert best == pytest.approx(grid[np.argmin([cross_entropy(one) for one in grid])], rel=0.005)


def test_no_temperature_where_there_is_none():
    labels = np.array([0, 1, 2, 2])
    assert fit_temperature(labels, np.eye(3)[labels], 16.0) is None  # all right: endlessly certain
    assert fit_temperature(labels, np.eye(3)[(labels + 1) % 3], 16.0) is None  # all wrong
    assert fit_temperature(labels, np.zeros((4, 3)), 16.0) is None  # nothing to scale


def test_the_threshold_is_the_highest_that_reaches_the_sensitivity():
    rng = np.random.default_rng(0)
    for _ in range(50):
        score, yes = rng.integers(0, 12, 40) / 12, rng.random(40) < 0.5
        for wanted in (0.3, 0.5, 0.9, 1.0):
            threshold = choose_threshold(score, yes, wanted)
            assert np.mean(score[yes] >= threshold) >= wanted
            higher = [one for one in np.unique(score) if one > threshold and np.mean(score[yes] > one) >= wanted]
            assert not higher, "a higher threshold would have done"
            assert threshold == 0 or not np.any(score == threshold), "half-way between two scores"
    assert choose_threshold(np.array([0.2, 0.4, 0.6]), np.array([True, False, True]), 1e-12) == 0.5
    assert choose_threshold(np.array([0.2, 0.4]), np.array([False, False]), 0.9) is None


def test_the_operating_point_is_applied_as_it_was_chosen():
    labels, logits = sampled(120, 2.0)
    found = fit(labels, logits, 16.0, [str(row // 2) for row in range(120)], 0.8, "abc")
    probabilities = found.probabilities(logits, 16.0)
    referred, yes = found.referred(probabilities), labels > 0
    assert found.subjects == 60
    assert found.sensitivity == np.mean(referred[yes]) >= 0.8
    assert found.specificity == np.mean(~referred[~yes])
    np.testing.assert_array_equal(probabilities.argmax(1), logits.argmax(1))
    healthy = fit(np.zeros(4, int), logits[:4], 16.0, list("abcd"), 0.8, "abc")
    assert healthy.threshold is None
    assert healthy.referred(probabilities) is None
    assert any("no operating point" in note for note in healthy.notes)
    ill = fit(np.ones(4, int), logits[:4], 16.0, list("abcd"), 0.8, "abc")
    assert ill.specificity is None
    assert any("specificity undefined" in note for note in ill.notes)


def test_what_is_stored_is_read_again_for_the_same_network_only(tmp_path):
    labels, logits = sampled(60, 2.0)
    found = fit(labels, logits, 16.0, [str(row) for row in range(60)], 0.9, "abc")
    path = calibration.calibration_file(tmp_path, 7)
    assert calibration.read(path, "abc") is None
    calibration.write(path, found)
    assert calibration.read(path, "abc") == found
    assert calibration.read(path, "another") is None
    assert [one.name for one in path.parent.iterdir()] == ["step-000007.json"]
    content = json.loads(path.read_text(encoding="utf-8"))
    for damage in ("{", "[]", json.dumps(content | {"threshold": -1.0}), json.dumps(content | {"temperature": math.nan}),
                   json.dumps({"network": "abc"}), json.dumps(content | {"temperature": "warm"})):  # fmt: skip
        path.write_text(damage, encoding="utf-8")
        with pytest.raises(RunError, match=r"step-000007.json cannot be read .* delete it"):
            calibration.read(path, "abc")
