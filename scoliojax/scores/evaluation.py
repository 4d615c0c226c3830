"""One part of a data set, evaluated by one network, and its metrics with their intervals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from scoliojax.errors import RunError
from scoliojax.scores import bootstrap
from scoliojax.scores.bootstrap import Estimate
from scoliojax.scores.calibration import Calibration
from scoliojax.scores.metrics import Scored, Scorer, confusion_counts, refuse_not_finite, softmax


@dataclass(frozen=True)
class Provenance:
    """Facts that a reader needs beside the scores.

    Attributes:
      step: finished training steps of the network.
      partition: partition of the run, a ratio or a file.
      subjects_known: False where every sequence counts as a subject because nobody said who walked it.
      parts: by part, the numbers of its sequences and subjects, and of its sequences by class.
      near_duplicates: held-out sequences that nearly equal one trained on, each with its twin and their distance.
    """

    step: int
    partition: str
    subjects_known: bool
    parts: dict[str, dict[str, int]]
    near_duplicates: list[dict[str, Any]]


@dataclass(frozen=True)
class Evaluation:
    """The sequences of one part with the outputs of one network, one entry per sequence, in the order of the data.

    Attributes:
      data: name of the data set.
      synthetic: True where nobody walked; every score then carries the word "synthetic".
      part: "train", "validation" or "test".
      classes: class names by class id.
      rows: int `[n]`, index of each sequence in the data set.
      sequences: n sequence ids.
      subjects: n subject names.
      labels: int `[n]`, class ids.
      strip_logits: cosines `[n, p, k]`.
      scale: inverse temperature of the cosines in the loss.
      provenance: facts beside the scores.
      calibration: temperature and operating point; None where there are none.
      embeddings: `[n, p, c]`; None where nobody asked for them.

    Raises:
      RunError: naming the sequences whose logits are not finite.
    """

    data: str
    synthetic: bool
    part: str
    classes: tuple[str, ...]
    rows: np.ndarray
    sequences: Sequence[str]
    subjects: Sequence[str]
    labels: np.ndarray
    strip_logits: np.ndarray
    scale: float
    provenance: Provenance
    calibration: Calibration | None = None
    embeddings: np.ndarray | None = None

    def __post_init__(self):
        refuse_not_finite(self.logits, self.sequences)

    @cached_property
    def logits(self) -> np.ndarray:
        """The logits that decide: the mean over strips, `[n, k]`."""
        return self.strip_logits.mean(axis=1)  # n k

    @property
    def uncalibrated(self) -> np.ndarray:
        """Class probabilities `[n, k]` at the temperature that the network was trained with."""
        return softmax(self.logits, self.scale)

    @cached_property
    def scored(self) -> Scored:
        """Labels, calibrated probabilities and decisions."""
        calibration = self.calibration
        probabilities = calibration.probabilities(self.logits, self.scale) if calibration else self.uncalibrated
        referred = calibration.referred(probabilities) if calibration else None
        return Scored(self.labels, probabilities, np.argmax(self.logits, axis=1), referred)

    def scorer(self, prevalence: float | None = None) -> Scorer:
        """All scores of these sequences; `prevalence` as of `metrics.decision_scores`."""
        return Scorer(self.scored, self.classes, prevalence)


@dataclass(frozen=True)
class Metrics:
    """The content of `metrics.json`: every score with its interval, and the facts that a reader needs beside them.

    Attributes:
      data: name of the data set.
      synthetic: True where nobody walked.
      part: part that was evaluated.
      step: finished training steps of the network.
      partition: as of `Provenance`, and so are `subjects_known`, `parts` and `near_duplicates`.
      n: number of sequences.
      subjects: number of subjects.
      classes: number of sequences by class name, in the order of the class ids.
      confusion: `[k, k]`, number of sequences by true class and class called.
      calibration: temperature and operating point; None where there are none.
      prevalence: share of people with a yes that the user gave, for predictive values elsewhere; None without one.
      intervals: how the intervals were computed.
      notes: sentences that limit what the scores say.
      scores: estimates by name, or by `question/name`.
    """

    data: str
    synthetic: bool
    part: str
    step: int
    partition: str
    subjects_known: bool
    parts: dict[str, dict[str, int]]
    near_duplicates: list[dict[str, Any]]
    n: int
    subjects: int
    classes: dict[str, int]
    confusion: list[list[int]]
    calibration: Calibration | None
    prevalence: float | None
    intervals: str
    notes: list[str]
    scores: dict[str, Estimate]

    @property
    def mark(self) -> str:
        """The mark beside a score of synthetic data."""
        return " (synthetic)" if self.synthetic else ""

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {
            "calibration": self.calibration and asdict(self.calibration),
            "scores": {name: estimate._asdict() for name, estimate in self.scores.items()},
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Metrics:
        """The inverse of `to_json`; raises `KeyError` or `TypeError` for another schema."""
        kept = content["calibration"]
        return cls(**content | {
            "calibration": kept and Calibration(**kept | {"notes": tuple(kept["notes"])}),
            "scores": {name: Estimate(**estimate) for name, estimate in content["scores"].items()},
        })  # fmt: skip


def evaluation_folder(directory: Path, part: str, step: int) -> Path:
    return directory / "evaluation" / f"{part}-step-{step:06d}"


def find_metrics(directory: Path, step: int) -> Metrics | None:
    """The metrics of the test part at a step of a run; None where they were never computed.

    Raises:
      RunError: when the file cannot be read.
    """
    path = evaluation_folder(directory, "test", step) / "metrics.json"
    try:
        return Metrics.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(f"{path} cannot be read ({error}); evaluate that step again: --mode eval") from None


def score(evaluation: Evaluation, prevalence: float | None = None) -> Metrics:
    """All scores with their intervals.

    Args:
      evaluation: the evaluated sequences.
      prevalence: share of people with a yes, for predictive values elsewhere.
    """
    scored, classes = evaluation.scored, evaluation.classes
    ones = np.ones((1, len(scored.labels)))
    subjects = len(set(evaluation.subjects))
    return Metrics(
        data=evaluation.data,
        synthetic=evaluation.synthetic,
        part=evaluation.part,
        **vars(evaluation.provenance),
        n=len(scored.labels),
        subjects=subjects,
        classes={name: int(np.sum(scored.labels == index)) for index, name in enumerate(classes)},
        confusion=confusion_counts(scored.labels, scored.predictions, len(classes), ones)[0].astype(int).tolist(),
        calibration=evaluation.calibration,
        prevalence=prevalence,
        intervals=f"{bootstrap.LEVEL:.0%}, {bootstrap.DRAWS} draws of subjects, seed {bootstrap.SEED}",
        notes=_notes(evaluation, subjects),
        scores=bootstrap.estimates(evaluation.scorer(prevalence), evaluation.subjects),
    )


def _notes(evaluation: Evaluation, subjects: int) -> list[str]:
    calibration = evaluation.calibration
    notes = list(calibration.notes if calibration else ["no calibration: there are no validation subjects"])
    if not evaluation.provenance.subjects_known:
        notes.append(
            "who walked what is not known, so every sequence counts as a subject: where a person has several, the "
            "intervals are too narrow, and the person may stand in two parts"
        )
    if evaluation.part != "test":
        chose = "trained on" if evaluation.part == "train" else "used to choose temperature, threshold or checkpoint"
        notes.append(f"these sequences were {chose}, so scores on them are too good")
    if subjects < bootstrap.FEW_SUBJECTS:
        notes.append(f"only {subjects} subjects: the intervals are too narrow")
    return notes
