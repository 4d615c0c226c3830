"""The files of an evaluation: `predictions.csv`, `metrics.json` and `confusion.png`, and a table for the terminal."""

from __future__ import annotations

import csv
from pathlib import Path

from scoliojax.files import whole_folder, write_json
from scoliojax.scores import figures
from scoliojax.scores.bootstrap import Estimate
from scoliojax.scores.evaluation import Evaluation, Metrics, score

QUESTIONS = {  # in the order of a reader's interest
    "screening": "positive or neutral, by the class called",
    "operating_point": "positive or neutral, at the operating point",
    "positive": "positive against the rest",
    "neutral": "neutral against the rest",
    "negative": "negative against the rest",
}
HEADLINES = ("accuracy", "macro_precision", "macro_recall", "macro_f1")


def write_results(folder: Path, evaluation: Evaluation, prevalence: float | None = None) -> Metrics:
    """Write the files of one evaluation, all or none, replacing earlier ones; returns the metrics.

    Args:
      folder: made new.
      evaluation: the evaluated sequences.
      prevalence: as of `score`.
    """
    metrics = score(evaluation, prevalence)
    with whole_folder(folder) as fresh:
        _write_predictions(fresh / "predictions.csv", evaluation)
        write_json(fresh / "metrics.json", metrics.to_json())
        figures.confusion(metrics).savefig(fresh / "confusion.png", dpi=120)
    return metrics


def _write_predictions(path: Path, evaluation: Evaluation) -> None:
    scored, classes = evaluation.scored, evaluation.classes
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = [f"p_{name}" for name in classes]
        decision = [] if scored.referred is None else ["referred"]
        writer.writerow(["sequence", "subject", "label", *names, "prediction", *decision])
        for row, (sequence, subject) in enumerate(zip(evaluation.sequences, evaluation.subjects, strict=True)):
            shares = [f"{p:.6f}" for p in scored.probabilities[row]]
            refer = [] if scored.referred is None else ["yes" if scored.referred[row] else "no"]
            called = classes[scored.predictions[row]]
            writer.writerow([sequence, subject, classes[scored.labels[row]], *shares, called, *refer])


def results_table(metrics: Metrics) -> str:
    """The most important scores with their intervals, as text; "synthetic" stands beside every synthetic score."""
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
    asked = {"screening": "class called", "operating_point": "operating point"}
    yes = metrics.n - metrics.classes[classes[0]]
    return "\n".join(lines + [line(asked[name], name, yes) for name in asked if f"{name}/sensitivity" in scores])


def cell(estimate: Estimate, reason: bool = False) -> str:
    """A score and its interval as text; with `reason`, also why the score is undefined or its interval exact."""
    if estimate.value is None:
        return estimate.note if reason else "undefined"
    upper = "unbounded" if estimate.high is None else f"{estimate.high:.3f}"
    bounds = "" if estimate.low is None else f" ({estimate.low:.3f} to {upper})"
    return f"{estimate.value:.4f}{bounds}" + (f"; {estimate.note}" if reason and estimate.note else "")
