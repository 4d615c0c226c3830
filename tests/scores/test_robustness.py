"""The table of what a camera does to a walk."""

import json

import numpy as np
import pytest

from scoliojax.scores.evaluation import find_metrics
from scoliojax.scores.model_card import model_card
from scoliojax.scores.results import results_table, write_results
from scoliojax.scores.robustness import AS_GIVEN, PerturbedLogits, Reading, Robustness, spread
from tests.scores.test_results import CONFIG, LOGITS, calibration, evaluated


def perturbed(*rows: list[float]) -> PerturbedLogits:
    return PerturbedLogits(np.arange(3), {"mirrored": np.asarray(LOGITS), "tilted left": np.asarray(rows)})


MOVED = perturbed([0.1, 0.2, 0.0], [0.9, 0.1, 0.0], [0.0, 0.6, 0.5])  # 00000 and 00001 change places, 00002 is neutral


def test_the_table_by_hand():
    table = evaluated(perturbed=MOVED).robustness()
    assert table.walks == 3
    given, mirrored, tilted = table.readings.values()
    assert list(table.readings) == [AS_GIVEN, "mirrored", "tilted left"]
    assert given == mirrored
    assert vars(given) == pytest.approx(vars(Reading(2 / 3, (2 / 3 + 0 + 1) / 3, 0.0, None)))
    assert vars(tilted) == pytest.approx(vars(Reading(1 / 3, (2 / 3 + 0 + 0) / 3, 1.0, None)))
    decided = evaluated(perturbed=MOVED, calibration=calibration(threshold=0.5)).robustness().readings
    assert decided["mirrored"].decision_changed == 0.0
    assert decided["tilted left"].decision_changed == pytest.approx(2 / 3)  # 00002 is referred both times
    assert "tilted left" in table.worst()


def test_some_of_the_walks_are_compared_with_themselves():
    some = PerturbedLogits(np.array([1, 2]), {"mirrored": np.asarray(LOGITS)[1:]})
    table = evaluated(perturbed=some).robustness()
    assert table.walks == 2
    assert table.readings[AS_GIVEN] == table.readings["mirrored"]
    assert table.readings[AS_GIVEN].accuracy == 0.5


def test_the_table_is_in_the_files_and_marked(tmp_path):
    folder = tmp_path / "evaluation" / "test-step-000007"
    for fit, cells in ((None, 4), (calibration(), 5)):
        metrics = write_results(folder, evaluated(perturbed=MOVED, calibration=fit))
        stored = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["perturbations"]
        assert stored["walks"] == 3
        assert stored["readings"]["tilted left"]["class_changed"] == 1.0
        assert find_metrics(tmp_path, 7) == metrics
        line = next(line for line in results_table(metrics).splitlines() if "perturbed" in line)
        assert "tilted left" in line
        assert line.endswith("(synthetic)")
        card = model_card("title", CONFIG, {}, metrics)
        row = next(line for line in card.splitlines() if line.startswith("| tilted left"))
        assert row.count("|") == cells + 1
        assert "| 3 walks, read as (synthetic) |" in card
    metrics = write_results(folder, evaluated())
    assert "perturbations" not in json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert find_metrics(tmp_path, 7) == metrics  # as a file of an older version
    assert "perturbed" not in results_table(metrics)


def test_a_table_without_the_walk_as_given_is_refused():
    with pytest.raises(ValueError, match="as given"):
        Robustness(3, {"mirrored": Reading(1.0, 1.0, 0.0, None)})
    with pytest.raises(ValueError, match=r"accuracy=1\.5"):
        Reading(1.5, 1.0, 0.0, None)


@pytest.mark.parametrize("most", [3, 4, 40, 256])
def test_a_small_class_has_a_walk_among_them(most):
    labels = np.repeat([0, 1, 2], [419, 3, 204])
    places = spread(labels, most)
    assert len(set(places.tolist())) == most
    assert set(labels[places]) == {0, 1, 2}
    assert (np.diff(places) > 0).all()


@pytest.mark.parametrize("count", [1, 2, 63, 256, 257, 768, 1493])
@pytest.mark.parametrize("most", [1, 64, 256])
def test_the_walks_are_spread_over_the_part_and_its_classes(count, most):
    labels = np.arange(count) % 3  # in turn: every third walk would be of one class
    places = spread(labels, most)
    assert len(places) == min(count, most) == len(set(places.tolist()))
    np.testing.assert_array_equal(places, spread(labels, most))
    assert (np.diff(places) > 0).all()
    shares = np.bincount(labels[places], minlength=3)
    assert np.ptp(shares) <= 2
    if most >= count:
        assert places.tolist() == list(range(count))
