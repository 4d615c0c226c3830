"""The files of an evaluation: `predictions.csv`, `metrics.json` and `confusion.png`, and a table for the terminal."""

from pathlib import Path

from scoliojax.files import whole_folder, write_csv, write_json
from scoliojax.scores import figures
from scoliojax.scores.bootstrap import FEW_SUBJECTS, Estimate
from scoliojax.scores.evaluation import Evaluation, Metrics, score
from scoliojax.scores.subgroups import TOO_SMALL

QUESTIONS = {  # in the order of a reader's interest
    "screening": "positive or neutral, by the class called",
    "operating_point": "positive or neutral, at the operating point",
    "positive": "positive against the rest",
    "neutral": "neutral against the rest",
    "negative": "negative against the rest",
}
HEADLINES = ("accuracy", "macro_precision", "macro_recall", "macro_f1")


def write_results(folder: Path, evaluation: Evaluation, prevalence: float | None = None) -> Metrics:
    """Write the folder of one evaluation, all files or none, in place of an earlier one; `prevalence` as in `score`."""
    metrics = score(evaluation, prevalence)
    with whole_folder(folder) as fresh:
        _write_predictions(fresh / "predictions.csv", evaluation)
        write_json(fresh / "metrics.json", metrics.to_json())
        figures.confusion(metrics).savefig(fresh / "confusion.png", dpi=120)
    return metrics


def _write_predictions(path: Path, evaluation: Evaluation) -> None:
    scored, classes = evaluation.scored, evaluation.classes
    columns = {"sequence": evaluation.sequences, "subject": evaluation.subjects, "label": [classes[i] for i in scored.labels]}
    columns |= {f"p_{name}": [f"{p:.6f}" for p in scored.probabilities[:, i]] for i, name in enumerate(classes)}
    columns["prediction"] = [classes[i] for i in scored.predictions]
    if scored.referred is not None:
        columns["referred"] = ["yes" if refer else "no" for refer in scored.referred]
    columns |= _assurance_columns(evaluation)
    write_csv(path, columns, zip(*columns.values(), strict=True))


def _assurance_columns(evaluation: Evaluation) -> dict[str, list[str]]:
    """Distance and prediction set of each sequence, where there are such."""
    columns, calibration, distance = {}, evaluation.calibration, evaluation.distance
    if evaluation.coverage is not None and calibration is not None:
        sets, _ = calibration.prediction_set(evaluation.scored.probabilities, evaluation.coverage)
        if sets is not None:
            columns["set"] = [" ".join(evaluation.classes[i] for i in row.nonzero()[0]) for row in sets]
    if evaluation.reference is not None and distance is not None:
        judged = zip(distance, evaluation.reference.usual_at(evaluation.frames), strict=True)
        columns |= {"distance": [f"{one:.4f}" for one in distance]}
        columns["unlike"] = ["no" if one <= usual else "yes" for one, usual in judged]
    return columns


def results_table(metrics: Metrics) -> str:
    """The most important scores with their intervals, as text; every score of synthetic data is marked."""
    mark = f" {metrics.mark}" if metrics.mark else ""
    scores, classes = metrics.scores, list(metrics.classes)
    lines = [f"{metrics.part} part of {metrics.data}, {metrics.n} sequences of {metrics.subjects} subjects"]
    lines += [f"  {name.replace('_', ' '):<16} {cell(scores[name])}{mark}" for name in HEADLINES]
    lines.append(f"  {'class':<15} {'n':>5}  {'sensitivity':<25} specificity")

    def line(title: str, question: str, count: int) -> str:
        sensitivity, specificity = (cell(scores[f"{question}/{name}"]) for name in ("sensitivity", "specificity"))
        return f"  {title:<15} {count:>5}  {sensitivity:<25} {specificity:<24}{mark}"

    lines += [line(name, name, metrics.classes[name]) for name in classes]
    lines.append(f"  screening: {' or '.join(classes[1:])} against {classes[0]}")
    decisions = {"screening": "class called", "operating_point": "operating point"}
    yes = metrics.n - metrics.classes[classes[0]]
    lines += [line(decisions[name], name, yes) for name in decisions if f"{name}/sensitivity" in scores]
    lines += [line + mark for line in assurance_lines(metrics)]
    if metrics.subgroups:
        names = [name for name in subgroup_headlines(metrics) if name.endswith(("/sensitivity", "/specificity"))]
        lines.append(f"  {decisions[names[0].split('/')[0]]}, by subgroup; fewer than {FEW_SUBJECTS} subjects are too small")
    for column, groups in metrics.subgroups.items():
        for name, group in groups.items():
            sensitivity, specificity = (cell(group.scores[score]) for score in names)
            title = f"{column}: {name}"
            lines.append(f"  {title:<24} {group.subjects:>5}  {sensitivity:<25} {specificity:<24}{mark}")
    if metrics.perturbations:
        lines.append(f"  {metrics.perturbations.worst()}{mark}")
    return "\n".join(lines)


def assurance_lines(metrics: Metrics) -> list[str]:
    """Prediction sets and distances for the terminal."""
    lines = []
    if sets := metrics.prediction_sets:
        lines.append(f"  classes not excluded at a coverage of {sets.wanted:g}: {cell(sets.size)} of a walk")
        lines += [f"    covered, {name:<20} {cell(estimate)}" for name, estimate in sets.covered.items()]
        lines += [f"    note: {sets.note}"] * bool(sets.note)
    if unlike := metrics.distances:
        lines.append(f"  unlike training          {cell(unlike.unlike)}; beyond the second bound {cell(unlike.beyond)}")
    return lines


def subgroup_headlines(metrics: Metrics) -> tuple[str, ...]:
    """Names of the scores that are shown of each subgroup; `metrics.json` has all."""
    best = "operating_point" if "operating_point/sensitivity" in metrics.scores else "screening"
    return "accuracy", "macro_f1", f"{best}/sensitivity", f"{best}/specificity", "screening/auroc"


def cell(estimate: Estimate, reason: bool = False) -> str:
    """A score and its interval as text, or that too few stand behind it; with `reason`, also the note of the estimate."""
    if estimate.note.startswith(TOO_SMALL):
        return estimate.note if reason else "too small"
    if estimate.value is None:
        return estimate.note if reason else "undefined"
    upper = "unbounded" if estimate.high is None else f"{estimate.high:.3f}"
    bounds = "" if estimate.low is None else f" ({estimate.low:.3f} to {upper})"
    return f"{estimate.value:.4f}{bounds}" + (f"; {estimate.note}" if reason and estimate.note else "")
