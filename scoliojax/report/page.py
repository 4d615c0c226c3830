"""Evidence to files: one self-contained HTML page, figures, the cases as a table, and the model card."""

from __future__ import annotations

import csv
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scoliojax.html import embedded, render
from scoliojax.report.evidence import Evidence, Rival
from scoliojax.runs.directory import flatten
from scoliojax.runs.environment import git_commit
from scoliojax.scores.evaluation import Metrics
from scoliojax.scores.figures import save
from scoliojax.scores.model_card import model_card, network, operating_point
from scoliojax.scores.results import QUESTIONS, cell
from scoliojax.scores.strips import strip_bounds

CASES_SHOWN = 40  # on the page; `cases.csv` has all
OVERALL = {
    "accuracy": "accuracy",
    "macro_precision": "macro precision (as published)",
    "macro_recall": "macro recall (as published)",
    "macro_f1": "macro F1 (as published)",
    "quadratic_kappa": "quadratic-weighted kappa",
    "brier": "Brier score, three classes (0 to 2, lower is better)",
    "ece": "expected calibration error (15 bins; its interval leans upwards)",
}
COLUMNS = {
    "sensitivity": "sensitivity (recall)",
    "specificity": "specificity",
    "ppv": "PPV (precision)",
    "npv": "NPV",
    "f1": "F1",
    "lr_plus": "LR+",
    "lr_minus": "LR-",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "brier": "Brier",
    "ppv_at_prevalence": "PPV at the prevalence given",
    "npv_at_prevalence": "NPV at the prevalence given",
}
COMPARED = (
    "accuracy", "macro_f1", "quadratic_kappa", "brier", "ece", "screening/sensitivity", "screening/specificity",
    "screening/auroc", "operating_point/sensitivity", "operating_point/specificity",
)  # fmt: skip


def write_page(folder: Path, evidence: Evidence, rivals: list[Rival]) -> None:
    """Write every file of a report into an existing folder."""
    pictures = folder / "figures"
    pictures.mkdir()
    figures = []
    for name, drawing in evidence.drawings.items():
        save(drawing.figure, pictures, name)
        source = embedded((pictures / f"{name}.svg").read_bytes(), "image/svg+xml")
        figures.append({"name": name, "title": drawing.title, "shows": drawing.shows, "source": source})
    cases = list(_cases(evidence))
    with (folder / "cases.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(cases[0]) if cases else ["sequence", "subject", "reason"])
        writer.writeheader()
        writer.writerows(cases)
    _write_strips(folder / "strips.csv", evidence)
    metrics = evidence.metrics
    title = run_title(evidence.workdir, evidence.config, metrics)
    card = model_card(title, evidence.config, evidence.environment, metrics)
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    (folder / "report.html").write_text(
        render(
            "report.html.j2",
            title=title,
            metrics=metrics,
            classes=list(metrics.classes),
            mark=metrics.mark,
            headlines=list(_headlines(metrics)),
            overall=[(name, cell(metrics.scores[key]), metrics.scores[key].note) for key, name in OVERALL.items()],
            questions=_questions(metrics),
            operating_point=operating_point(metrics),
            warnings=evidence.warnings,
            figures=figures,
            rivals=[_rival(rival, metrics) for rival in rivals],
            cases=cases[:CASES_SHOWN],
            case_count=len(cases),
            environment=evidence.environment,
            config=sorted(flatten(evidence.config).items()),
            now=datetime.date.today().isoformat(),
            script_commit=git_commit(),
        ),
        encoding="utf-8",
    )


def run_title(workdir: Path, config: dict[str, Any], metrics: Metrics) -> str:
    """What to call a run."""
    partition = Path(config["data"]["partition"]).stem
    return f"{network(config)}, partition {partition}, seed {config['seed']} ({workdir.name}, step {metrics.step})"


def _write_strips(path: Path, evidence: Evidence) -> None:
    """The numbers behind the figure of strips."""
    classes = evidence.evaluation.classes
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["level", "first_row", "last_row", "class", "contribution", "low", "high", "synthetic"])
        for place, (level, top, bottom) in enumerate(strip_bounds(evidence.config["model"]["strips"])):
            for index, name in enumerate(classes):
                numbers = [f"{array[place, index]:.6f}" for array in evidence.contribution]
                writer.writerow([level, top, bottom - 1, name, *numbers, evidence.metrics.synthetic])


def _headlines(metrics: Metrics) -> Iterator[tuple[str, str]]:
    """What a clinician asks first."""
    scores = metrics.scores
    best = "operating_point" if "operating_point/sensitivity" in scores else "screening"
    yield f"sensitivity ({QUESTIONS[best]})", cell(scores[f"{best}/sensitivity"], reason=True)
    yield f"specificity ({QUESTIONS[best]})", cell(scores[f"{best}/specificity"], reason=True)
    yield "AUROC (positive or neutral)", cell(scores["screening/auroc"], reason=True)
    yield "accuracy (three classes)", cell(scores["accuracy"], reason=True)


def _questions(metrics: Metrics) -> list[tuple[str, list[tuple[str, str]]]]:
    """Scores down, questions across: header, then rows."""
    scores = metrics.scores
    asked = [name for name in QUESTIONS if f"{name}/sensitivity" in scores]
    rows = [("", [(QUESTIONS[name], "") for name in asked])]
    for key, title in COLUMNS.items():
        found = [scores.get(f"{name}/{key}") for name in asked]
        if any(found):
            rows.append((title, [(cell(one), one.note) if one else ("", "") for one in found]))
    return rows


def _rival(rival: Rival, ours: Metrics) -> dict[str, Any]:
    rows = []
    for name in COMPARED:
        if name in rival.comparison.differences:
            difference = rival.comparison.differences[name]
            here, there = cell(ours.scores[name]), cell(rival.metrics.scores[name])
            rows.append((name.replace("_", " ").replace("/", ": "), here, there, cell(difference), difference.note))
    tests = []
    for name, test in rival.comparison.mcnemar.items():
        p_value = "undefined: never unequal" if test.p_value is None else f"{test.p_value:.3g}"
        tests.append((name.replace("_", " "), test.first_only, test.second_only, p_value))
    return {
        "name": run_title(rival.workdir, rival.config, rival.metrics),
        "folder": rival.workdir,
        "rows": rows,
        "tests": tests,
        "differing": rival.differing,
    }


def _cases(evidence: Evidence) -> Iterator[dict[str, str]]:
    evaluation = evidence.evaluation
    scored, classes = evaluation.scored, evaluation.classes
    for case in evidence.cases:
        found = {
            "sequence": evaluation.sequences[case.row],
            "subject": evaluation.subjects[case.row],
            "reason": case.reason,
            "true": classes[scored.labels[case.row]],
            "called": classes[scored.predictions[case.row]],
        }
        found |= {f"p_{name}": f"{p:.3f}" for name, p in zip(classes, scored.probabilities[case.row], strict=True)}
        if scored.referred is not None:
            found["referred"] = "yes" if scored.referred[case.row] else "no"
        yield found
