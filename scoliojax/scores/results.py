"""What an evaluation leaves behind: `predictions.csv`, `metrics.json`, `confusion.png`, and a table on the terminal."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from scoliojax.runs.directory import whole_folder
from scoliojax.scores import bootstrap, figures
from scoliojax.scores.calibration import Calibration
from scoliojax.scores.metrics import Scored, Scorer, confusion_counts, refuse_not_finite, softmax

QUESTIONS = {  # in the order of a reader's interest
    "screening": "positive or neutral, by the class called",
    "operating_point": "positive or neutral, at the operating point",
    "positive": "positive against the rest",
    "neutral": "neutral against the rest",
    "negative": "negative against the rest",
}
HEADLINES = ("accuracy", "macro_precision", "macro_recall", "macro_f1")


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
      calibration: temperature and operating point; None where there are none.

    Raises:
      RunError: naming the sequences whose logits are not finite.
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
    calibration: Calibration | None = None

    def __post_init__(self):
        refuse_not_finite(self.logits, self.sequences)

    @cached_property
    def scored(self) -> Scored:
        """Labels, calibrated probabilities and decisions."""
        calibration = self.calibration
        probabilities = calibration.probabilities(self.logits, self.scale) if calibration else self.uncalibrated
        referred = calibration.referred(probabilities) if calibration else None
        return Scored(self.labels, probabilities, np.argmax(self.logits, axis=1), referred)

    @property
    def uncalibrated(self) -> np.ndarray:
        """Class probabilities `[n, k]` at the temperature that the network was trained with."""
        return softmax(self.logits, self.scale)


def score(evaluated: EvaluatedSequences, about: dict[str, Any], prevalence: float | None = None) -> dict[str, Any]:
    """All scores with their intervals, and what a reader has to know beside them, as `metrics.json` holds it.

    Args:
      evaluated: the sequences.
      about: further facts (step, partition, ...).
      prevalence: share of people for whom the answer is yes, for predictive values elsewhere.
    """
    scored, classes = evaluated.scored, evaluated.classes
    ones = np.ones((1, len(scored.labels)))
    confusion = confusion_counts(scored.labels, scored.predictions, len(classes), ones)[0].astype(int)
    estimates = bootstrap.estimates(Scorer(scored, classes, prevalence), evaluated.subjects)
    subjects = len(set(evaluated.subjects))
    notes = list(evaluated.calibration.notes if evaluated.calibration else ["no calibration: there are no validation subjects"])
    if not about["subjects_known"]:
        notes.append(
            "who walked what is not known, so every sequence counts as a subject: where a person has several, the "
            "intervals are too narrow, and the person may stand in two parts"
        )
    if evaluated.part != "test":
        chose = "trained on" if evaluated.part == "train" else "used to choose temperature, threshold or checkpoint"
        notes.append(f"these sequences were {chose}, so scores on them are too good")
    if subjects < bootstrap.FEW_SUBJECTS:
        notes.append(f"only {subjects} subjects: the intervals are too narrow")
    return {
        "data": evaluated.data,
        "synthetic": evaluated.synthetic,
        "part": evaluated.part,
        **about,
        "n": len(scored.labels),
        "subjects": subjects,
        "classes": {name: int(np.sum(scored.labels == index)) for index, name in enumerate(classes)},
        "confusion": confusion.tolist(),
        "calibration": asdict(evaluated.calibration) if evaluated.calibration else None,
        "prevalence": prevalence,
        "intervals": f"{bootstrap.LEVEL:.0%}, {bootstrap.DRAWS} draws of subjects, seed {bootstrap.SEED}",
        "notes": notes,
        "scores": {name: estimate._asdict() for name, estimate in estimates.items()},
    }


def write_results(
    folder: Path, evaluated: EvaluatedSequences, about: dict[str, Any], prevalence: float | None = None
) -> dict[str, Any]:
    """Write the files of one evaluation, all or none, replacing an earlier one; returns the metrics.

    Args:
      folder: made new.
      evaluated: the sequences.
      about: as of `score`.
      prevalence: as of `score`.
    """
    metrics = score(evaluated, about, prevalence)
    with whole_folder(folder) as fresh:
        _write_predictions(fresh / "predictions.csv", evaluated)
        (fresh / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        figures.confusion(metrics).savefig(fresh / "confusion.png", dpi=120)
    return metrics


def _write_predictions(path: Path, evaluated: EvaluatedSequences) -> None:
    scored, classes = evaluated.scored, evaluated.classes
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = [f"p_{name}" for name in classes]
        decision = [] if scored.referred is None else ["referred"]
        writer.writerow(["sequence", "subject", "label", *names, "prediction", *decision])
        for row, (sequence, subject) in enumerate(zip(evaluated.sequences, evaluated.subjects, strict=True)):
            shares = [f"{p:.6f}" for p in scored.probabilities[row]]
            refer = [] if scored.referred is None else ["yes" if scored.referred[row] else "no"]
            called = classes[scored.predictions[row]]
            writer.writerow([sequence, subject, classes[scored.labels[row]], *shares, called, *refer])


def results_table(metrics: dict[str, Any]) -> str:
    """The scores that matter most as text, with their intervals; says "synthetic" beside every score that is."""
    mark = "  (synthetic)" if metrics["synthetic"] else ""
    scores, classes = metrics["scores"], list(metrics["classes"])
    lines = [f"{metrics['part']} part of {metrics['data']}, {metrics['n']} sequences of {metrics['subjects']} subjects"]
    lines += [f"  {name.replace('_', ' '):<16} {cell(scores[name])}{mark}" for name in HEADLINES]
    lines.append(f"  {'class':<15} {'n':>5}  {'sensitivity':<25} specificity")
    for name in classes:
        cells = f"{cell(scores[f'{name}/sensitivity']):<25} {cell(scores[f'{name}/specificity']):<24}"
        lines.append(f"  {name:<15} {metrics['classes'][name]:>5}  {cells}{mark}")
    lines.append(f"  screening: {' or '.join(classes[1:])} against {classes[0]}")
    for question, title in (("screening", "class called"), ("operating_point", "operating point")):
        if f"{question}/sensitivity" in scores:
            yes = metrics["n"] - metrics["classes"][classes[0]]
            cells = f"{cell(scores[f'{question}/sensitivity']):<25} {cell(scores[f'{question}/specificity']):<24}"
            lines.append(f"  {title:<15} {yes:>5}  {cells}{mark}")
    return "\n".join(lines)


def cell(estimate: dict[str, Any], reason: bool = False) -> str:
    """A score and its interval, as text; with `reason`, also why one is undefined or exact."""
    note = f"; {estimate['note']}" if reason and estimate["note"] else ""
    if estimate["value"] is None:
        return estimate["note"] if reason else "undefined"
    bounds = "" if estimate["low"] is None else f" ({estimate['low']:.3f} to {_upper(estimate)})"
    return f"{estimate['value']:.4f}{bounds}{note}"


def _upper(estimate: dict[str, Any]) -> str:
    return "unbounded" if estimate["high"] is None else f"{estimate['high']:.3f}"
