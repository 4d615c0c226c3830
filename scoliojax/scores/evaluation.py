"""One part of a data set, evaluated by one network, and its metrics with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.schema import CLASSES
from scoliojax.files import read_json
from scoliojax.scores import bootstrap
from scoliojax.scores.assurance import PredictionSets, Unlike, score_distances, score_sets
from scoliojax.scores.bootstrap import Estimate
from scoliojax.scores.calibration import Calibration
from scoliojax.scores.metrics import Scored, Scorer, confusion_counts, refuse_not_finite, softmax
from scoliojax.scores.reference import Reference
from scoliojax.scores.robustness import AS_GIVEN, PerturbedLogits, Robustness, score_perturbed
from scoliojax.scores.subgroups import Subgroup, score_subgroups

# Keys of `metrics.json` that are left out where there are none
OPTIONAL = ("subgroups", "distances", "prediction_sets", "perturbations")
ALWAYS = {"accuracy", "macro_f1", "screening/sensitivity", "screening/specificity", "screening/auroc"}  # scores of every part


@dataclass(frozen=True)
class Provenance:
    """Facts that a reader needs beside the scores."""

    step: int  # finished training steps of the network
    partition: str  # ratio or file
    subjects_known: bool  # False: the data do not name the subjects, so every sequence counts as one
    parts: dict[str, dict[str, int]]  # by part: number of sequences, of subjects, and of sequences of each class
    near_duplicates: list[dict[str, Any]]  # held-out sequences close to a training sequence, with that one and the distance


@dataclass(frozen=True)
class Evaluation:
    """The sequences of one part with the outputs of one network, one entry per sequence, in the order of the data.

    Raises `RunError`, naming the sequences, where logits are not finite.
    """

    data: str  # name of the data set
    synthetic: bool  # the data are synthetic walkers: every score then carries the word "synthetic"
    part: str  # "train", "validation" or "test"
    classes: tuple[str, ...]  # class names by class id
    rows: np.ndarray  # n; int, index of each sequence in the data set
    sequences: Sequence[str]  # n sequence ids
    subjects: Sequence[str]  # n subject names
    labels: np.ndarray  # n; int, class ids
    strip_logits: np.ndarray  # n p k; cosines
    scale: float  # inverse temperature of the cosine logits in the loss
    provenance: Provenance
    calibration: Calibration | None = None  # None: no validation subjects
    embeddings: np.ndarray | None = None  # n p c; None: not requested
    traits: dict[str, list[str]] = field(default_factory=dict)  # n texts by column of the subjects file, such as sex or age
    reference: Reference | None = None  # None: there are too few validation subjects
    frames: np.ndarray | int = 0  # n; number of frames of each sequence that the network saw
    coverage: float | None = None  # wanted of prediction sets; None: no sets
    perturbed: PerturbedLogits | None = None  # None: not requested

    def __post_init__(self):
        refuse_not_finite(self.logits, self.sequences)

    @cached_property
    def logits(self) -> np.ndarray:
        """The logits that determine the predicted class: the mean over strips, `[n, k]`."""
        return self.strip_logits.mean(axis=1)  # n k

    @property
    def uncalibrated(self) -> np.ndarray:
        """Class probabilities `[n, k]` at the temperature that the network was trained with."""
        return softmax(self.logits, self.scale)

    @cached_property
    def scored(self) -> Scored:
        """Labels, calibrated probabilities and decisions."""
        return self._decide(self.labels, self.logits)

    def _decide(self, labels: np.ndarray, logits: np.ndarray) -> Scored:
        calibration, scale = self.calibration, self.scale
        probabilities = calibration.probabilities(logits, scale) if calibration else softmax(logits, scale)
        referred = calibration.referred(probabilities) if calibration else None
        return Scored(labels, probabilities, np.argmax(logits, axis=1), referred)

    def robustness(self) -> Robustness | None:
        """The scores under each perturbation; None where none was read."""
        if self.perturbed is None:
            return None
        places, labels = self.perturbed.places, self.labels[self.perturbed.places]  # m, m
        readings = {AS_GIVEN: self.logits[places], **self.perturbed.logits}  # each m k
        return score_perturbed(self.perturbed, {name: self._decide(labels, logits) for name, logits in readings.items()})

    @cached_property
    def distance(self) -> np.ndarray | None:
        """How unlike training each sequence is, `[n]`; None without a reference."""
        if self.reference is None or self.embeddings is None:
            return None
        return self.reference.distance(self.embeddings)  # n

    def scorer(self, prevalence: float | None = None) -> Scorer:
        """All scores of these sequences; `prevalence` as in `metrics.decision_scores`."""
        return Scorer(self.scored, self.classes, prevalence)


@dataclass(frozen=True)
class Metrics:
    """The content of `metrics.json`: every score with its interval, and the facts that a reader needs beside them.

    The fields `data` to `near_duplicates` are those of `Evaluation` and `Provenance`. Raises `ValueError` where a score that
    every evaluation has, or a count of a part, is missing.
    """

    __pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False}  # noqa: RUF012, read by pydantic

    data: str
    synthetic: bool
    part: str
    step: int
    partition: str
    subjects_known: bool
    parts: dict[str, dict[str, int]]
    near_duplicates: list[dict[str, Any]]
    n: int  # sequences
    subjects: int  # number of subjects
    classes: dict[str, int]  # number of sequences by class name, in the order of the class ids
    confusion: list[list[int]]  # k k; number of sequences by true class and predicted class
    calibration: Calibration | None
    prevalence: float | None  # share of people with the answer yes in another population, as the user gave it
    intervals: str  # method of the intervals
    notes: list[str]  # limits of the scores, in sentences
    scores: dict[str, Estimate]  # by name, or by `question/name`
    subgroups: dict[str, dict[str, Subgroup]] = field(default_factory=dict)  # by column of the subjects file, then by name
    distances: Unlike | None = None  # None: no reference, or of an older version
    prediction_sets: PredictionSets | None = None  # None: no validation subjects, or of an older version
    perturbations: Robustness | None = None  # scores of walks that a camera made look a little different; None: not read

    def __post_init__(self):
        for part, counts in self.parts.items():
            if missing := {"sequences", "subjects", *CLASSES} - counts.keys():
                raise ValueError(f"parts.{part} has no {min(missing)}")
        decided = {f"{name.rpartition('/')[0]}/specificity" for name in self.scores if name.endswith("/sensitivity")}
        if missing := (decided | ALWAYS) - self.scores.keys():
            raise ValueError(f"scores has no {min(missing)}")

    @property
    def mark(self) -> str:
        """The mark beside a score of synthetic data."""
        return " (synthetic)" if self.synthetic else ""

    def to_json(self) -> dict[str, Any]:
        content = vars(self) | {
            "calibration": self.calibration and {key: one for key, one in asdict(self.calibration).items() if key != "margins"},
            "scores": _written(self.scores),
            "subgroups": {
                column: {name: vars(group) | {"scores": _written(group.scores)} for name, group in groups.items()}
                for column, groups in self.subgroups.items()
            },
        }
        content |= {name: one.to_json() for name in OPTIONAL[1:] if (one := getattr(self, name))}
        return {name: value for name, value in content.items() if value or name not in OPTIONAL}


def _written(scores: dict[str, Estimate]) -> dict[str, dict[str, Any]]:
    return {name: estimate._asdict() for name, estimate in scores.items()}


def evaluation_folder(directory: Path, part: str, step: int) -> Path:
    return directory / "evaluation" / f"{part}-step-{step:06d}"


def find_metrics(directory: Path, step: int) -> Metrics | None:
    """The metrics of the test part at a step of a run, None if never computed; `RunError` where the file cannot be read."""
    path = evaluation_folder(directory, "test", step) / "metrics.json"
    try:
        return read_json(path, Metrics, "evaluate that step again: --mode eval")
    except FileNotFoundError:
        return None


def score(evaluation: Evaluation, prevalence: float | None = None) -> Metrics:
    """All scores with their intervals; `prevalence`: share of people with the answer yes in another population."""
    scored, classes = evaluation.scored, evaluation.classes
    ones = np.ones((1, len(scored.labels)))  # 1 n
    subjects = len(set(evaluation.subjects))
    scorer = evaluation.scorer(prevalence)
    subgroups, remarks = score_subgroups(evaluation.traits, evaluation.subjects, scorer, prevalence)
    return Metrics(
        data=evaluation.data,
        synthetic=evaluation.synthetic,
        part=evaluation.part,
        **vars(evaluation.provenance),
        n=len(scored.labels),
        subjects=subjects,
        classes={name: int(np.sum(scored.labels == index)) for index, name in enumerate(classes)},
        confusion=confusion_counts(scored.labels, scored.predictions, len(classes), ones)[0].astype(int).tolist(),
        calibration=evaluation.calibration and replace(evaluation.calibration, margins=None),  # its own file has them
        prevalence=prevalence,
        intervals=f"{bootstrap.LEVEL:.0%}, {bootstrap.DRAWS} draws of subjects, seed {bootstrap.SEED}",
        notes=_notes(evaluation, subjects) + remarks,
        scores=bootstrap.estimates(scorer, evaluation.subjects),
        subgroups=subgroups,
        distances=score_distances(evaluation),
        prediction_sets=score_sets(evaluation),
        perturbations=evaluation.robustness(),
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
