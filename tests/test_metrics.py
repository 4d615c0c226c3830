import csv
import json
import math

import numpy as np
import pytest
from sklearn import metrics as sk

from scoliojax.metrics import classification_metrics, softmax
from scoliojax.results import EvaluatedSequences, results_table, write_results

CLASSES = ("negative", "neutral", "positive")


def test_scores_by_hand():
    labels, predictions = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 2, 2])
    found = classification_metrics(labels, predictions, CLASSES)
    assert found["confusion"] == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["macro_recall"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert found["macro_precision"] == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    assert found["macro_f1"] == pytest.approx((0.8 + 0.5 + 2 / 3) / 3)
    assert found["per_class"]["negative"] == {"n": 3, "sensitivity": pytest.approx(2 / 3), "specificity": 1.0}
    assert found["per_class"]["positive"] == {"n": 1, "sensitivity": 1.0, "specificity": pytest.approx(4 / 5)}


def test_scores_equal_scikit_learn_s_on_random_rows():
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels, predictions = rng.integers(0, 3, (2, 50))
        found = classification_metrics(labels, predictions, CLASSES)
        for name, function in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
            assert found[f"macro_{name}"] == pytest.approx(
                function(labels, predictions, average="macro", zero_division=0), abs=1e-12
            )
        assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, predictions), abs=1e-12)


def test_what_is_undefined_is_said_to_be():
    found = classification_metrics(np.array([0, 0]), np.array([0, 0]), CLASSES)
    assert math.isnan(found["per_class"]["positive"]["sensitivity"])
    assert math.isnan(found["per_class"]["negative"]["specificity"])
    assert "undefined" in results_table(found | {"part": "test", "data": "x", "synthetic": False})


def test_probabilities():
    p = softmax(np.array([[1.0, 0.0, -1.0], [0.3, 0.3, 0.3]]), 16.0)
    np.testing.assert_allclose(p.sum(1), 1.0)
    np.testing.assert_allclose(p[1], 1 / 3)
    assert p[0, 1] / p[0, 0] == pytest.approx(math.exp(-16))


def evaluated(synthetic=True) -> EvaluatedSequences:
    return EvaluatedSequences(
        data="walkers",
        synthetic=synthetic,
        part="test",
        classes=CLASSES,
        sequences=["00000", "00001", "00002"],
        subjects=["a", "a", "b"],
        labels=np.array([0, 0, 2]),
        logits=np.array([[0.9, 0.1, 0.0], [0.1, 0.2, 0.0], [0.0, 0.0, 0.5]]),
        scale=16.0,
    )


def test_the_files_of_an_evaluation(tmp_path):
    folder = tmp_path / "evaluation" / "test"
    for _ in range(2):  # the second replaces the first
        metrics = write_results(folder, evaluated(), {"step": 7})
    assert {path.name for path in folder.iterdir()} == {"predictions.csv", "metrics.json", "confusion.png"}
    assert [path.name for path in folder.parent.iterdir()] == ["test"]
    with (folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["prediction"] for row in rows] == ["negative", "neutral", "positive"]
    assert [row["label"] for row in rows] == ["negative", "negative", "positive"]
    assert rows[1]["subject"] == "a"
    assert sum(float(rows[0][f"p_{name}"]) for name in CLASSES) == pytest.approx(1.0, abs=2e-6)
    stored = json.loads((folder / "metrics.json").read_text())
    assert stored["step"] == 7
    assert stored["synthetic"] is True
    assert stored["accuracy"] == metrics["accuracy"] == pytest.approx(2 / 3)
    assert stored["per_class"]["neutral"]["sensitivity"] is None  # JSON has no NaN
    assert (folder / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_synthetic_stands_beside_every_synthetic_score(tmp_path):
    table = results_table(write_results(tmp_path / "a", evaluated(), {}))
    assert all("synthetic" in line for line in table.splitlines() if "." in line)
    assert "synthetic" in evaluated().stamp
    assert "synthetic" not in results_table(write_results(tmp_path / "b", evaluated(synthetic=False), {}))
