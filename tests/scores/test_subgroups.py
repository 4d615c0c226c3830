"""Scores by subgroup: who belongs to which, and where too few stand behind a score."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from scoliojax.files import read_json
from scoliojax.report import page
from scoliojax.report.evidence import Evidence
from scoliojax.scores import bootstrap
from scoliojax.scores.evaluation import Evaluation, Metrics, score
from scoliojax.scores.model_card import model_card
from scoliojax.scores.results import results_table, write_results
from scoliojax.scores.strips import StripContribution
from scoliojax.scores.subgroups import TOO_SMALL, divide
from tests.scores.test_results import CONFIG, PROVENANCE, calibration, evaluated

AGES = [str(age) for age in range(10, 19)]
DIVIDED = {
    "texts by value": (["b", "a", "b"], {"a": [1], "b": [0, 2]}, None),
    "in the more frequent spelling": (["f", "F", "F", "m"], {"F": [0, 1, 2], "m": [3]}, None),
    "the unknown last": (["x", "", "N/A", "unknown", "a"], {"a": [4], "x": [0], "not given": [1, 2, 3]}, None),
    "as of subjects": (["x", "#REF!", "?", "Unbekannt", "none"], {"none": [4], "x": [0], "not given": [1, 2, 3]}, None),
    "a few numbers are codes": (["1", "0", "1"], {"0": [1], "1": [0, 2]}, None),
    "numbers in thirds": (AGES, {"up to 12": [0, 1, 2], "above 12, up to 15": [3, 4, 5], "above 15": [6, 7, 8]}, None),
    "numbers with some unknown": (
        [*AGES, ""],
        {"up to 12": [0, 1, 2], "above 12, up to 15": [3, 4, 5], "above 15": [6, 7, 8], "not given": [9]},
        None,
    ),
    "decimal commas": (
        ["9,5", "10,5", "11", "12,25", "13", "14"],
        {"up to 10.5": [0, 1], "above 10.5, up to 12.25": [2, 3], "above 12.25": [4, 5]},
        None,
    ),
    "most of one number": (
        [*["12"] * 9, "8", "9", "10", "11", "13"],
        {"up to 12": [*range(13)], "above 12": [13]},
        None,
    ),
    "thousands or decimals": ([f"1,{number}" for number in range(100, 113)], None, "13 different texts, more than 12"),
    "remarks": ([f"said {number}" for number in range(13)], None, "no subgroups by column: 13 different texts, more than 12"),
    "all alike": (["a", "A"], None, "no subgroups by column: every sequence has 'A'"),
    "none known": (["", "NA"], None, "every sequence has 'not given'"),
}


@pytest.mark.parametrize("kind", DIVIDED)
def test_columns_are_divided_as_documented(kind):
    values, groups, remark = DIVIDED[kind]
    divided, remarks = divide({"column": values}, [str(row) for row in range(len(values))])
    if groups is None:
        assert divided == {}
        assert remark in remarks[0]
        return
    assert remarks == []
    found = {name: rows.tolist() for name, rows in divided["column"].items()}
    assert found == groups
    assert list(found) == list(groups), "the order"


def test_for_the_cuts_a_person_counts_once():
    ages = ["10", "11", "12", "13", "14", "15", *["15"] * 20]
    subjects = [*"abcdef", *["f"] * 20]
    divided, _ = divide({"age": ages}, subjects)
    assert list(divided["age"]) == ["up to 11", "above 11, up to 13", "above 13"]


@pytest.fixture(scope="module")
def many():
    """90 people, 60 girls and 30 boys, of whom 25 have no signs; three ages and a calibration."""
    rng = np.random.default_rng(0)
    labels = np.array([0, 1, 2] * 20 + [0] * 25 + [1] * 5)
    logits = np.eye(3)[labels] * 0.5 + rng.normal(0.0, 0.3, (90, 3))
    return evaluated(
        logits=logits, labels=labels, rows=np.arange(90), sequences=[f"{row:05d}" for row in range(90)],
        subjects=[f"s{row}" for row in range(90)], calibration=calibration(threshold=0.5),
        traits={"sex": ["F"] * 60 + ["M"] * 30, "age": [str(10 + row % 9) for row in range(90)], "site": ["one"] * 90},
    )  # fmt: skip


def test_every_score_of_a_subgroup_is_that_of_its_sequences_alone(many):
    metrics = score(many, prevalence=0.03)
    girls = metrics.subgroups["sex"]["F"]
    assert (girls.n, girls.subjects, girls.classes) == (60, 60, {"negative": 20, "neutral": 20, "positive": 20})
    rows = np.arange(60)
    alone = score(
        evaluated(
            logits=many.logits[rows], labels=many.labels[rows], rows=rows, sequences=many.sequences[:60],
            subjects=many.subjects[:60], calibration=many.calibration,
        ),
        prevalence=0.03,
    )  # fmt: skip
    assert girls.scores.keys() == metrics.scores.keys()
    assert {name: one[:3] for name, one in girls.scores.items()} == {name: one[:3] for name, one in alone.scores.items()}
    assert "operating_point/ppv_at_prevalence" in girls.scores
    assert [group.n for group in metrics.subgroups["age"].values()] == [30, 30, 30]
    assert "no subgroups by site: every sequence has 'one'" in metrics.notes
    for groups in metrics.subgroups.values():
        assert sum(group.n for group in groups.values()) == 90


def test_where_too_few_stand_behind_a_score_it_says_so(many):
    metrics = score(many)
    boys = metrics.subgroups["sex"]["M"].scores
    small = f"{TOO_SMALL}: 5 subjects, fewer than {bootstrap.FEW_SUBJECTS}"
    for name in ("screening/sensitivity", "operating_point/sensitivity", "neutral/sensitivity", "screening/f1",
                 "screening/auroc", "screening/lr_plus"):  # fmt: skip
        assert boys[name].note.startswith(small), name
        assert boys[name].value is not None or name.endswith("lr_plus")
    for name in ("screening/specificity", "accuracy", "macro_f1", "screening/brier"):
        assert TOO_SMALL not in boys[name].note, name
    assert boys["positive/sensitivity"].note.startswith(f"{TOO_SMALL}: 0 subjects")
    girls = metrics.subgroups["sex"]["F"].scores
    assert not [name for name, one in girls.items() if name.split("/")[-1] not in ("ppv", "npv") and TOO_SMALL in one.note]


def test_subgroups_stand_in_the_files_and_tables_and_are_synthetic_there(many, tmp_path):
    metrics = write_results(tmp_path / "a", many)
    stored = json.loads((tmp_path / "a" / "metrics.json").read_text(encoding="utf-8"))
    assert read_json(tmp_path / "a" / "metrics.json", Metrics, "") == metrics
    assert stored["subgroups"]["sex"]["M"]["scores"]["accuracy"]["low"] is not None
    lines = results_table(metrics).splitlines()
    assert "operating point, by subgroup; fewer than 20 subjects are too small" in results_table(metrics)
    boys = next(line for line in lines if "sex: M" in line)
    assert "   30  too small" in boys
    assert boys.count("(0.") == 1, "specificity has an interval"
    assert all("synthetic" in line for line in lines if "." in line)
    card = model_card("walk.pt", CONFIG, {}, metrics)
    assert "| subgroup (synthetic) | sequences | subjects | accuracy | macro f1 | operating point sensitivity |" in card
    assert "| sex: M | 30 | 30 | " in card
    assert f"{TOO_SMALL}: 5 subjects" in card
    text = report_of(many, metrics, tmp_path / "report")
    assert "<h2>Subgroups (synthetic)</h2>" in text
    row = re.search(r"<tr><th>sex: M</th>(.*?)</tr>", text, re.DOTALL)[1]
    assert re.findall(r"<td>(\d+)</td>", row) == ["30", "30", "25", "5", "0"]
    assert "<td>too small<small>too small to say anything: 5 subjects, fewer than 20" in row


def report_of(evaluation: Evaluation, metrics: Metrics, folder: Path) -> str:
    folder.mkdir()
    config = CONFIG | {"data": {"root": "", "partition": "1:1:1"}, "model": CONFIG["model"] | {"strips": [1]}}
    environment = {"git_commit": "f00d", "devices": ["cpu"], "processes": 1, "python": "3", "packages": {}, "command": []}
    strips = StripContribution(*np.zeros((3, 1, 3)))
    page.write_page(
        folder, Evidence(folder, config, environment, metrics, evaluation, evaluation.scorer(), strips, {}, [], "abc"), []
    )
    return (folder / "report.html").read_text(encoding="utf-8")


def test_without_further_columns_metrics_are_as_they_always_were(tmp_path):
    metrics = write_results(tmp_path / "a", evaluated(provenance=PROVENANCE))
    assert "subgroups" not in json.loads((tmp_path / "a" / "metrics.json").read_text(encoding="utf-8"))
    assert "subgroup" not in results_table(metrics) + model_card("walk.pt", CONFIG, {}, metrics)
    assert "ubgroup" not in report_of(evaluated(), metrics, tmp_path / "report")
