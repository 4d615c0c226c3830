"""What an evaluation says of distances and prediction sets: in its files, on the terminal and in the model card."""

import dataclasses
import json

import numpy as np
import pytest

from scoliojax.scores import calibration, reference
from scoliojax.scores.evaluation import evaluation_folder, find_metrics
from scoliojax.scores.model_card import model_card
from scoliojax.scores.results import results_table, write_results
from tests.scores.test_results import CONFIG, PROVENANCE, evaluated, rows_of

COUNT = 90


def assured(**changes):
    """An evaluation of 45 people with two walks each; the last two walks lie far from training, one of them very far."""
    rng = np.random.default_rng(0)
    labels = np.arange(COUNT) // 2 % 3
    logits = rng.normal(0.0, 0.1, (COUNT, 3)) + 0.15 * np.eye(3)[labels]
    subjects = [str(row // 2) for row in range(COUNT)]
    embeddings = rng.normal(size=(3 * COUNT, 2, 4))
    kept = reference.fit(embeddings[:COUNT], {30: embeddings[COUNT : 2 * COUNT]}, "abc")
    new = embeddings[2 * COUNT :] * 0.8
    new[-2:] *= [[[4.0]], [[40.0]]]
    fields = dict(
        logits=logits,
        labels=labels,
        rows=np.arange(COUNT),
        sequences=[f"{row:05d}" for row in range(COUNT)],
        subjects=subjects,
        provenance=dataclasses.replace(PROVENANCE, subjects_known=True),
        calibration=calibration.fit(labels, logits, 16.0, subjects, 0.9, "abc", True),
        embeddings=new,
        reference=kept,
        frames=np.full(COUNT, 30),
        coverage=0.8,
    )
    return evaluated(**fields | changes)


def test_the_shares_and_the_coverage_stand_in_every_file_and_table(tmp_path):
    folder = evaluation_folder(tmp_path, "test", 7)
    evaluation = assured()
    metrics = write_results(folder, evaluation)
    assert metrics.distances.unlike.value == pytest.approx(2 / COUNT)
    assert metrics.distances.beyond.value in (pytest.approx(1 / COUNT), pytest.approx(2 / COUNT))
    assert metrics.distances.unlike.high > metrics.distances.unlike.value
    (bounds,) = metrics.distances.bounds
    assert (bounds.frames, bounds.walks) == (30, COUNT)
    assert bounds.bound == pytest.approx(reference.BEYOND * bounds.usual)

    sets, _ = evaluation.calibration.prediction_set(evaluation.scored.probabilities, 0.8)
    found = metrics.prediction_sets
    right = sets[np.arange(COUNT), evaluation.labels]
    assert found.covered["all"].value == pytest.approx(right.mean())
    for index, name in enumerate(metrics.classes):
        assert found.covered[name].value == pytest.approx(right[evaluation.labels == index].mean())
        assert found.covered[name].low < found.covered[name].value
    assert found.size.value == pytest.approx(sets.sum(1).mean())
    assert sum(found.sizes.values()) == COUNT
    assert found.subjects == {"negative": 15, "neutral": 15, "positive": 15}

    assert find_metrics(tmp_path, 7) == metrics
    rows = rows_of(folder)
    assert [row["unlike"] for row in rows] == ["no"] * (COUNT - 2) + ["yes"] * 2
    assert [row["set"].split() for row in rows] == [
        [n for n, kept in zip(metrics.classes, one, strict=True) if kept] for one in sets
    ]
    content = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert "margins" not in content["calibration"], "one number for each validation subject belongs to the calibration's file"
    table = results_table(metrics)
    assert "not excluded at a coverage of 0.8" in table
    assert "unlike training          0.0222 (" in table
    card = model_card("A run", CONFIG, {}, metrics)
    for words in ("## Unlike training (synthetic)", "0.0222 (", f"{reference.BEYOND:g} times the first", "exchangeable",
                  "for a coverage of 0.8", "| positive | "):  # fmt: skip
        assert words in card
    assert "log-normal" in card, "ninety walks are few for a share of 99 %"


def test_an_evaluation_without_them_and_of_an_older_version_says_so(tmp_path):
    folder = evaluation_folder(tmp_path, "test", 7)
    plain = write_results(folder, assured(reference=None, calibration=None))
    assert plain.distances is None
    assert plain.prediction_sets is None
    content = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert not {"distances", "prediction_sets"} & content.keys()
    assert find_metrics(tmp_path, 7) == plain
    assert not {"distance", "unlike", "set"} & rows_of(folder)[0].keys()
    assert "unlike" not in results_table(plain)
    assert "Nothing says which walks are unlike" in model_card("A run", CONFIG, {}, plain)


def test_a_class_with_too_few_people_is_named(tmp_path):
    metrics = write_results(tmp_path / "a", assured(coverage=0.95))
    assert metrics.prediction_sets.covered["all"].value == 1.0
    assert metrics.prediction_sets.sizes["3"] == COUNT
    note = "a coverage of 0.95 needs 19 validation subjects of a class to exclude it"
    assert note in metrics.prediction_sets.note
    assert note in results_table(metrics)
    assert note[1:] in model_card("A run", CONFIG, {}, metrics)
