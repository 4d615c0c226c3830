"""The files and the table of an evaluation, and the model card."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from configs import drf, sconet, sconet_mt, sconet_mt_ske
from scoliojax.errors import RunError
from scoliojax.scores.bootstrap import Estimate
from scoliojax.scores.calibration import Calibration
from scoliojax.scores.evaluation import Evaluation, Provenance, find_metrics
from scoliojax.scores.model_card import model_card, network
from scoliojax.scores.results import cell, results_table, write_results

CLASSES = ("negative", "neutral", "positive")
COUNTS = {"sequences": 3, "subjects": 2, "positive": 1, "neutral": 0, "negative": 2}
PROVENANCE = Provenance(step=7, partition="1:1:1", subjects_known=True, parts={"test": COUNTS}, near_duplicates=[])
CONFIG = {
    "model": {"channels": [2, 3, 4, 5], "embedding_dim": 4, "strips": [16]},
    "loss": {"triplet_weight": 0.0},
    "train": {"steps": 6},
    "data": {"root": ""},
    "precision": "float32",
    "seed": 0,
}


LOGITS = [[0.9, 0.1, 0.0], [0.1, 0.2, 0.0], [0.0, 0.0, 0.5]]


def evaluated(synthetic=True, logits=LOGITS, **changes) -> Evaluation:
    fields = dict(
        data="walkers",
        synthetic=synthetic,
        part="test",
        classes=CLASSES,
        sequences=["00000", "00001", "00002"],
        subjects=["a", "a", "b"],
        labels=np.array([0, 0, 2]),
        rows=np.arange(3),
        strip_logits=np.asarray(logits)[:, None],
        provenance=PROVENANCE,
        scale=16.0,
    )
    return Evaluation(**fields | changes)


def calibration(**changes) -> Calibration:
    fields = dict(
        network="abc", synthetic=True, temperature=2.0, threshold=0.9, wanted_sensitivity=0.9, sensitivity=1.0, specificity=0.5,
        sequences=4, subjects=3,
    )  # fmt: skip
    return Calibration(**fields | changes)


def rows_of(folder) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_files_of_an_evaluation(tmp_path):
    folder = tmp_path / "evaluation" / "test-step-000007"
    for _ in range(2):  # the second replaces the first
        metrics = write_results(folder, evaluated())
    assert {path.name for path in folder.iterdir()} == {"predictions.csv", "metrics.json", "confusion.png"}
    assert [path.name for path in folder.parent.iterdir()] == ["test-step-000007"]
    rows = rows_of(folder)
    assert [row["prediction"] for row in rows] == ["negative", "neutral", "positive"]
    assert [row["label"] for row in rows] == ["negative", "negative", "positive"]
    assert rows[1]["subject"] == "a"
    assert sum(float(rows[0][f"p_{name}"]) for name in CLASSES) == pytest.approx(1.0, abs=2e-6)
    assert "referred" not in rows[0]
    stored = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(metrics.to_json()))
    assert find_metrics(tmp_path, 7) == metrics
    assert stored["confusion"] == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert (stored["synthetic"], stored["step"], stored["subjects"]) == (True, 7, 2)
    assert stored["scores"]["accuracy"]["value"] == pytest.approx(2 / 3)
    neutral = stored["scores"]["neutral/sensitivity"]
    assert neutral == {"value": None, "low": None, "high": None, "note": "undefined: nothing to divide by"}
    assert any("no validation subjects" in note for note in stored["notes"])
    assert any("only 2 subjects" in note for note in stored["notes"])
    assert (folder / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_temperature_and_threshold_are_applied(tmp_path):
    plain, with_both = evaluated(), evaluated(calibration=calibration())
    write_results(tmp_path / "a", plain)
    metrics = write_results(tmp_path / "b", with_both, prevalence=0.05)
    before, after = (float(rows_of(tmp_path / name)[1]["p_neutral"]) for name in "ab")
    assert before == pytest.approx(1 / (1 + np.exp(-1.6) + np.exp(-3.2)), abs=1e-6)
    assert after == pytest.approx(1 / (1 + np.exp(-0.8) + np.exp(-1.6)), abs=1e-6)
    assert [row["referred"] for row in rows_of(tmp_path / "b")] == ["no", "no", "yes"]
    assert metrics.scores["operating_point/specificity"].value == 1.0  # at the class called it is 0.5
    assert metrics.scores["operating_point/ppv_at_prevalence"].value == 1.0
    assert "operating point" in results_table(metrics)
    assert "operating point" not in results_table(write_results(tmp_path / "a", plain))


def test_what_is_undefined_is_said_to_be(tmp_path):
    table = results_table(write_results(tmp_path / "a", evaluated()))
    assert "undefined" in table
    assert cell(Estimate(2.5, 1.25, None)) == "2.5000 (1.250 to unbounded)"
    assert cell(Estimate(1.0, None, None)) == "1.0000"
    assert cell(Estimate(None, None, None, "undefined: why"), reason=True) == "undefined: why"


def test_synthetic_stands_beside_every_synthetic_score(tmp_path):
    table = results_table(write_results(tmp_path / "a", evaluated()))
    assert all("synthetic" in line for line in table.splitlines() if "." in line)
    assert "synthetic" not in results_table(write_results(tmp_path / "b", evaluated(synthetic=False)))


def test_logits_that_are_not_finite_are_refused_before_anything_is_written():
    with pytest.raises(RunError, match="first 00002"):
        evaluated(logits=np.array([[0.9, 0.1, 0.0], [0.1, 0.2, 0.0], [0.0, np.nan, 0.5]]))


def test_the_model_card_says_what_was_measured_and_what_it_is_not_for(tmp_path):
    environment = {"git_commit": "f00d", "packages": {"scoliojax": "9.9"}}
    metrics = write_results(tmp_path / "a", evaluated(calibration=calibration()))
    card = model_card("walk.pt", CONFIG, environment, metrics)
    for words in ("# walk.pt", "not a diagnosis", "ScoNet (", "f00d", "Cobb", "Synthetic walkers, not people", "of 2 subjects",
                  "| accuracy | 0.6667", "Refer from a probability of 0.9", "Temperature 2"):  # fmt: skip
        assert words in card
    scores = [line for line in card.splitlines() if line.startswith("| ") and "synthetic" in line]
    assert len(scores) == 2  # the head of each table of scores
    assert "specificity 0.500, synthetic" in card
    unknown = write_results(
        tmp_path / "b", evaluated(synthetic=False, provenance=dataclasses.replace(PROVENANCE, subjects_known=False))
    )
    real = model_card("walk.pt", CONFIG, environment | {"imported_from": "theirs.pt, step 5"}, unknown)
    assert "ynthetic" not in real
    assert "No temperature and no threshold" in real
    assert "Came from theirs.pt, step 5" in real
    assert "Who walked what is not known" in real
    never = model_card("walk.pt", CONFIG, environment, None)
    assert "never evaluated" in never
    assert "Synthetic walkers" in never
    assert find_metrics(tmp_path, 8) is None
    (tmp_path / "evaluation" / "test-step-000008").mkdir(parents=True)
    for content in ("{", '{"accuracy": 1.0}', "3"):  # the second as written before there were intervals
        (tmp_path / "evaluation" / "test-step-000008" / "metrics.json").write_text(content, encoding="utf-8")
        with pytest.raises(RunError, match=r"metrics.json cannot be read .* evaluate that step again"):
            find_metrics(tmp_path, 8)


def test_scores_on_what_was_trained_on_or_chosen_by_say_so(tmp_path):
    for part, words in (("train", "trained on"), ("validation", "used to choose"), ("test", None)):
        notes = " ".join(write_results(tmp_path / part, evaluated(part=part)).notes)
        assert (words or "too good") in notes or not words
        assert ("too good" in notes) == bool(words)


NAMES = {  # a recipe: the name of its network, and words of its card
    sconet_mt: ("ScoNet-MT", "silhouettes of a walk to negative", "binary silhouettes of one person"),
    sconet: ("ScoNet", "arXiv 2407.05726", "64 x 64 as `data_pipelines.prepare`"),
    sconet_mt_ske: ("ScoNet-MT-ske", "arXiv 2407.05726): skeleton maps of a walk", "align='each', sigma=8, all joints"),
    drf: ("DRF", "Weights of the classes in the classification loss: negative 0.174, neutral 1.413, positive 1.413.",
          "Every training batch has as many sequences of each class", "In the triplet loss two clips of one class"),
}  # fmt: skip


@pytest.mark.parametrize("recipe", NAMES)
def test_a_card_names_the_network_what_it_reads_and_how_it_was_trained(recipe):
    name, *words = NAMES[recipe]
    config = recipe.get_config().to_dict()
    assert network(config) == name
    card = model_card("walk.pt", config, {}, None)
    assert f"- {name} (" in card
    for text in words:
        assert text in card
    reads_poses = recipe in (sconet_mt_ske, drf)
    assert ("Poses of another detector" in card) == reads_poses
    assert ("Weights of the classes" in card) == (recipe is drf)
    body = recipe.get_config()
    body.data.maps.body_only = True
    assert ("the joints below the head" in model_card("walk.pt", body.to_dict(), {}, None)) == reads_poses
