"""What an evaluation leaves behind: `predictions.csv`, `metrics.json`, `confusion.png`, and a table on the terminal."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from scoliojax.metrics import classification_metrics, softmax


@dataclass(frozen=True)
class EvaluatedSequences:
    """Everything a report needs to know of the sequences that were evaluated, one entry each, in order.

    Attributes:
      data: name of the data set.
      synthetic: True where nobody walked; stamped on every score.
      part: which part of the partition this is.
      classes: names by class id.
      sequences: ids.
      subjects: who walked.
      labels: int `[n]` class ids.
      logits: float `[n, k]` cosines, mean over strips.
      scale: of the cosines in the loss.
    """

    data: str
    synthetic: bool
    part: str
    classes: tuple[str, ...]
    sequences: Sequence[str]
    subjects: Sequence[str]
    labels: np.ndarray
    logits: np.ndarray
    scale: float

    @property
    def stamp(self) -> str:
        return "synthetic data, not people" if self.synthetic else self.data


def write_results(folder: Path, evaluated: EvaluatedSequences, about: dict) -> dict:
    """Write the files of one evaluation, all or none, replacing an earlier one; returns the metrics.

    Args:
      folder: made new.
      evaluated: the sequences.
      about: further facts for `metrics.json` (step, partition, ...).
    """
    predictions = np.argmax(evaluated.logits, axis=1)  # n
    metrics = classification_metrics(evaluated.labels, predictions, evaluated.classes)
    metrics = {"data": evaluated.data, "synthetic": evaluated.synthetic, "part": evaluated.part, **about, **metrics}
    fresh = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    _write_predictions(fresh / "predictions.csv", evaluated, predictions)
    (fresh / "metrics.json").write_text(json.dumps(_without_nan(metrics), indent=2) + "\n")
    _draw_confusion(fresh / "confusion.png", np.array(metrics["confusion"]), evaluated, metrics["accuracy"])
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return metrics


def _write_predictions(path: Path, evaluated: EvaluatedSequences, predictions: np.ndarray) -> None:
    probabilities = softmax(evaluated.logits, evaluated.scale)  # n k
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        names = [f"p_{name}" for name in evaluated.classes]
        writer.writerow(["sequence", "subject", "label", *names, "prediction"])
        rows = zip(evaluated.sequences, evaluated.subjects, evaluated.labels, probabilities, predictions, strict=True)
        for sequence, subject, label, row, prediction in rows:
            shares = [f"{p:.6f}" for p in row]
            writer.writerow([sequence, subject, evaluated.classes[label], *shares, evaluated.classes[prediction]])


def _without_nan(value):
    """JSON has no NaN: an undefined score becomes null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _draw_confusion(path: Path, confusion: np.ndarray, evaluated: EvaluatedSequences, accuracy: float) -> None:
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    rates = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)  # k k
    axes.imshow(rates, cmap="Blues", vmin=0.0, vmax=1.0)
    for (row, column), count in np.ndenumerate(confusion):
        rate = rates[row, column]
        axes.text(column, row, f"{count}\n{rate:.0%}", ha="center", va="center", color="white" if rate > 0.5 else "black")
    ticks = range(len(evaluated.classes))
    axes.set(xticks=ticks, yticks=ticks, xlabel="predicted", ylabel="true")
    axes.set_xticklabels(evaluated.classes)
    axes.set_yticklabels(evaluated.classes)
    axes.set_title(f"{evaluated.part}: accuracy {accuracy:.3f}, n = {confusion.sum()}\n{evaluated.stamp}", fontsize=10)
    figure.savefig(path, dpi=120)


def results_table(metrics: dict) -> str:
    """The scores as text; says "synthetic" beside every score that is."""
    mark = "  (synthetic)" if metrics["synthetic"] else ""
    lines = [f"{metrics['part']} part of {metrics['data']}, {metrics['n']} sequences"]
    for name in ("accuracy", "macro_precision", "macro_recall", "macro_f1"):
        lines.append(f"  {name.replace('_', ' '):<16} {metrics[name]:.4f}{mark}")
    lines.append(f"  {'class':<10} {'n':>5}  sensitivity  specificity")
    for name, scores in metrics["per_class"].items():
        cells = "  ".join(_cell(scores[key]) for key in ("sensitivity", "specificity"))
        lines.append(f"  {name:<10} {scores['n']:>5}  {cells}{mark}")
    return "\n".join(lines)


def _cell(value: float) -> str:
    return f"{'undefined':>11}" if math.isnan(value) else f"{value:>11.4f}"
