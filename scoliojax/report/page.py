"""Evidence to files: one self-contained HTML page, figures, the cases as a table, and the model card."""

import datetime
from functools import partial
from pathlib import Path
from typing import Any

from data_pipelines.schema import SKELETONS
from scoliojax.files import write_csv
from scoliojax.html import embedded, render
from scoliojax.report.evidence import Case, Evidence, Rival, cases_to_review
from scoliojax.report.gates import gate_rows, vector_rows
from scoliojax.report.saliency import SALIENCY_FRAMES
from scoliojax.runs.directory import flatten
from scoliojax.runs.environment import git_commit
from scoliojax.scores.assurance import coverage_rows, distance_lines, set_lines
from scoliojax.scores.bootstrap import FEW_SUBJECTS
from scoliojax.scores.evaluation import Evaluation, Metrics
from scoliojax.scores.figures import save
from scoliojax.scores.model_card import FRAMES, modality_of, model_card, network, operating_point
from scoliojax.scores.results import QUESTIONS, cell, subgroup_headlines
from scoliojax.scores.robustness import HEADER
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
    "sensitivity": "sensitivity (recall)", "specificity": "specificity", "ppv": "PPV (precision)", "npv": "NPV", "f1": "F1",
    "lr_plus": "LR+", "lr_minus": "LR-", "auroc": "AUROC", "average_precision": "average precision", "brier": "Brier",
    "ppv_at_prevalence": "PPV at the prevalence given", "npv_at_prevalence": "NPV at the prevalence given",
}  # fmt: skip
CAPTIONS = {  # title and text of each figure
    "training": ("Training", "The losses of training, and the scores of the validation subjects where there are some."),
    "confusion": ("Confusion matrix", "Sequences of each true class by the class called, and their share."),
    "curves": ("All thresholds",
        "Sensitivity against false calls, and against predictive value, with 95 % bands over subjects. Average precision "
        "and predictive values depend on how common each class is among these sequences."),
    "reliability": ("Reliability",
        "On the dotted line a class called with probability 0.8 is right in 8 of 10 sequences."),
    "strips": ("Which part of the body drives each class",
        "How much higher each strip's logit of a class is for sequences of that class than for the others, over the mean "
        "frame: red is for the class, blue against it. The mean over strips is what the whole network separates the "
        "class by. Every strip sees some rows above and below it. The names stand at an adult's usual heights."),
    "asymmetry": ("Postural asymmetry by class",
        "The vector that the network reads beside the frames: of each pair of joints the mean of the class with its 95 % "
        "interval over subjects. Grey: the range of the training part, which becomes 0 to 1; what lies outside is clipped. The "
        "offset of the hips is rounding alone, because they define the midline."),
    "gates": ("What the posture lets through",
        "The vector weighs every strip and every channel of the embeddings by a number from 0 to 1: its mean for each class, "
        "with 95 % intervals over subjects. Where the lines lie upon each other, the gate does not tell the classes apart."),
    "embeddings": ("Embedding map",
        "Each sequence by the first two principal components of its embeddings; crosses were called another class."),
    "saliency": ("Frames behind the most certain answers",
        "The most certain right answer for each class, then the most certain wrong ones. Bars: share of each frame in the "
        f"gradient of the answer's margin (of walks beyond {SALIENCY_FRAMES} frames, as many evenly spaced ones); "
        "pictures: the frames with the largest shares, with the pixels that matter."),
}  # fmt: skip
LEFT_AND_RIGHT = " Each frame has its limbs left and its joints right."
COMPARED = (
    "accuracy", "macro_f1", "quadratic_kappa", "brier", "ece", "screening/sensitivity", "screening/specificity",
    "screening/auroc", "operating_point/sensitivity", "operating_point/specificity",
)  # fmt: skip


def write_page(folder: Path, evidence: Evidence, rivals: list[Rival]) -> None:
    """Write every file of a report into an existing folder."""
    pictures = folder / "figures"
    pictures.mkdir()
    modality, classes = modality_of(evidence.config), list(evidence.metrics.classes)
    figures = []
    for name, figure in evidence.figures.items():
        title, shows = CAPTIONS[name]
        shows += LEFT_AND_RIGHT * (name in ("strips", "saliency") and modality == SKELETONS)
        source = embedded(save(figure, pictures, name), "image/svg+xml")
        figures.append({"name": name, "title": title, "shows": shows, "source": source})
    cases = [_case(evidence.evaluation, case) for case in cases_to_review(evidence.evaluation)]
    header = list(cases[0]) if cases else ["sequence", "subject", "reason"]
    write_csv(folder / "cases.csv", header, (case.values() for case in cases))
    _write_strips(folder / "strips.csv", evidence)
    metrics = evidence.metrics
    vector = vector_rows(evidence.gates, classes) if evidence.gates else []
    if evidence.gates:
        weights = gate_rows(evidence.gates, evidence.config["model"]["strips"], classes)
        for name, rows in (("asymmetry.csv", vector), ("gates.csv", weights)):
            write_csv(folder / name, [*rows[0], "synthetic"], ([*map(_plain, row.values()), metrics.synthetic] for row in rows))
    title = run_title(evidence.workdir, evidence.config, metrics)
    card = model_card(title, evidence.config, evidence.environment, metrics)
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8", errors="backslashreplace")
    (folder / "report.html").write_text(
        render(
            "report.html.j2",
            title=title,
            metrics=metrics,
            classes=classes,
            frames=FRAMES[modality],
            entries=[vector[place : place + len(classes)] for place in range(0, len(vector), len(classes))],
            mark=metrics.mark,
            headlines=_headlines(metrics),
            overall=[(name, cell(metrics.scores[key]), metrics.scores[key].note) for key, name in OVERALL.items()],
            questions=_questions(metrics),
            operating_point=operating_point(metrics),
            subgroups=_subgroups(metrics),
            **_assurance(metrics),
            few_subjects=FEW_SUBJECTS,
            perturbation_header=HEADER,
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


def _plain(value: str | float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def run_title(workdir: Path, config: dict[str, Any], metrics: Metrics) -> str:
    """The title of a run."""
    partition = Path(config["data"]["partition"]).stem
    return f"{network(config)}, partition {partition}, seed {config['seed']} ({workdir.name}, step {metrics.step})"


def _write_strips(path: Path, evidence: Evidence) -> None:
    """The numbers behind the figure of strips."""
    header = ["level", "first_row", "last_row", "class", "contribution", "low", "high", "synthetic"]
    rows = [
        (level, top, bottom - 1, name, *(f"{x[place, index]:.6f}" for x in evidence.contribution), evidence.metrics.synthetic)
        for place, (level, top, bottom) in enumerate(strip_bounds(evidence.config["model"]["strips"]))
        for index, name in enumerate(evidence.evaluation.classes)
    ]
    write_csv(path, header, rows)


def _headlines(metrics: Metrics) -> list[tuple[str, str]]:
    """The scores at the top of the page, by name."""
    best = "operating_point" if "operating_point/sensitivity" in metrics.scores else "screening"
    names = {f"{best}/{name}": f"{name} ({QUESTIONS[best]})" for name in ("sensitivity", "specificity")}
    names |= {"screening/auroc": "AUROC (positive or neutral)", "accuracy": "accuracy (three classes)"}
    return [(title, cell(metrics.scores[name], reason=True)) for name, title in names.items()]


def _questions(metrics: Metrics) -> list[tuple[str, list[tuple[str, str]]]]:
    """A table with a row for each score and a column for each question; the first row is the header."""
    scores = metrics.scores
    questions = [name for name in QUESTIONS if f"{name}/sensitivity" in scores]
    rows = [("", [(QUESTIONS[name], "") for name in questions])]
    for key, title in COLUMNS.items():
        estimates = [scores.get(f"{name}/{key}") for name in questions]
        if any(estimates):
            rows.append((title, [(cell(estimate), estimate.note) if estimate else ("", "") for estimate in estimates]))
    return rows


def _subgroups(metrics: Metrics) -> list[tuple[str, list[tuple[str, str]]]]:
    """A table with a row for each subgroup and a column for each score; the first row is the header."""
    names = subgroup_headlines(metrics)
    head = ["sequences", "subjects", *metrics.classes, *(name.replace("_", " ").replace("/", ": ") for name in names)]
    rows = [("", [(title, "") for title in head])]
    for column, groups in metrics.subgroups.items():
        for name, group in groups.items():
            counts = [(str(count), "") for count in (group.n, group.subjects, *group.classes.values())]
            scores = [(cell(group.scores[score]), group.scores[score].note) for score in names]
            rows.append((f"{column}: {name}", counts + scores))
    return rows if metrics.subgroups else []


def _assurance(metrics: Metrics) -> dict[str, list[Any]]:
    """Sentences and rows on prediction sets and distances, empty where there are none."""
    sets, unlike = metrics.prediction_sets, metrics.distances
    show = partial(cell, reason=True)
    return {
        "set_lines": set_lines(sets, show) if sets else [],
        "coverage": list(coverage_rows(sets, cell)) if sets else [],
        "distance_lines": distance_lines(unlike, show) if unlike else [],
    }


def _rival(rival: Rival, ours: Metrics) -> dict[str, Any]:
    differences, theirs = rival.comparison.differences, rival.metrics
    rows = [
        (name.replace("_", " ").replace("/", ": "), *map(cell, (ours.scores[name], theirs.scores[name], change)), change.note)
        for name in COMPARED
        if (change := differences.get(name))
    ]
    tests = [
        (name.replace("_", " "), first, second, "undefined: never unequal" if p_value is None else f"{p_value:.3g}")
        for name, (first, second, p_value) in rival.comparison.mcnemar.items()
    ]
    title = run_title(rival.workdir, rival.config, theirs)
    return {"name": title, "folder": rival.workdir, "rows": rows, "tests": tests, "differing": rival.differing}


def _case(evaluation: Evaluation, case: Case) -> dict[str, str]:
    """A row of `cases.csv`."""
    row, scored, classes = case.row, evaluation.scored, evaluation.classes
    shares = {f"p_{name}": f"{p:.3f}" for name, p in zip(classes, scored.probabilities[row], strict=True)}
    names = {"sequence": evaluation.sequences[row], "subject": evaluation.subjects[row], "reason": case.reason}
    called = {"true": classes[scored.labels[row]], "called": classes[scored.predictions[row]]} | shares
    return names | called | ({} if scored.referred is None else {"referred": "yes" if scored.referred[row] else "no"})
