"""What an evaluation says beside its scores: how many walks are unlike training, and if prediction sets hold the class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scoliojax.scores import bootstrap
from scoliojax.scores.bootstrap import Estimate
from scoliojax.scores.reference import BEYOND, SHARE, Reference

if TYPE_CHECKING:
    from scoliojax.scores.evaluation import Evaluation


class Bounds(NamedTuple):
    """The bounds of the distance at one length."""

    frames: int
    usual: float
    bound: float
    walks: int  # validation walks of that length, one of each subject


@dataclass(frozen=True)
class Unlike:
    """How far the walks of a part lie from those that the network learnt from."""

    __pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False}  # noqa: RUF012, read by pydantic

    unlike: Estimate  # share of the walks beyond the usual distance
    beyond: Estimate  # share of the walks beyond the second bound
    median: float  # distance
    bounds: list[Bounds]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {
            "unlike": self.unlike._asdict(),
            "beyond": self.beyond._asdict(),
            "bounds": [bounds._asdict() for bounds in self.bounds],
        }


@dataclass(frozen=True)
class PredictionSets:
    """How the prediction sets of a part turned out; see `conformal`."""

    __pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False}  # noqa: RUF012, read by pydantic

    wanted: float  # coverage, of every class
    covered: dict[str, Estimate]  # share of the walks whose set has their class: "all", then by class
    size: Estimate  # mean number of classes in a set
    sizes: dict[str, int]  # number of walks by the number of classes in their set
    subjects: dict[str, int]  # by class, validation subjects that the sets rest on
    note: str  # classes with too few of these, or ""

    def to_json(self) -> dict[str, Any]:
        covered = {name: estimate._asdict() for name, estimate in self.covered.items()}
        return asdict(self) | {"covered": covered, "size": self.size._asdict()}


def bounds_of(reference: Reference) -> list[Bounds]:
    """The bounds of a reference, for people and files."""
    columns = (reference.lengths, reference.usual, BEYOND * reference.usual, reference.walks)
    return [Bounds(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def score_distances(evaluation: Evaluation) -> Unlike | None:
    """Shares of unlike walks, with intervals; None where the network has no reference."""
    reference, distance = evaluation.reference, evaluation.distance
    if reference is None or distance is None:
        return None
    usual = reference.usual_at(evaluation.frames)  # n
    shares = {"unlike": ~(distance <= usual), "beyond": ~(distance <= BEYOND * usual)}
    found = bootstrap.share_estimates(shares, evaluation.subjects)
    return Unlike(found["unlike"], found["beyond"], float(np.median(distance)), bounds_of(reference), reference.notes)


def score_sets(evaluation: Evaluation) -> PredictionSets | None:
    """Coverage and size of the prediction sets, with intervals; None without a coverage or without validation subjects."""
    calibration, wanted = evaluation.calibration, evaluation.coverage
    if wanted is None or calibration is None:
        return None
    sets, note = calibration.prediction_set(evaluation.scored.probabilities, wanted)
    if sets is None or calibration.margins is None:
        return None
    labels, names = evaluation.labels, evaluation.classes
    covered = sets[np.arange(len(labels)), labels].astype(float)  # n
    shares = {"all": covered} | {name: np.where(labels == index, covered, np.nan) for index, name in enumerate(names)}
    size = sets.sum(axis=1)  # n
    return PredictionSets(
        wanted=wanted,
        covered=bootstrap.share_estimates(shares, evaluation.subjects),
        size=bootstrap.mean_estimate(size, evaluation.subjects),
        sizes={str(count): int(np.sum(size == count)) for count in range(1, len(names) + 1)},
        subjects={name: len(one) for name, one in zip(names, calibration.margins, strict=True)},
        note=note,
    )


def distance_lines(unlike: Unlike, show: Any) -> list[str]:
    """What the report and the model card say of distances, in sentences; `show` gives an `Estimate` as text."""
    times = unlike.bounds[0].bound / unlike.bounds[0].usual
    at = ", ".join(f"{one.usual:.3g} / {one.bound:.3g} at {one.frames} frames" for one in unlike.bounds)
    return [
        f"Share of walks unlike anything that the network has learnt from: {show(unlike.unlike)}. Their distance is beyond "
        f"what {SHARE:.0%} of walks like the validation walks keep.",
        f"Share of walks beyond the second bound, {times:.3g} times the first, where screening gives no answer: "
        f"{show(unlike.beyond)}.",
        f"Distance of a walk: median {unlike.median:.3g} here; first / second bound {at}. The squared distance "
        "of Mahalanobis from the embeddings of the training part, mean over strips and channels.",
        *(f"{note[0].upper()}{note[1:]}." for note in unlike.notes),
    ]


def set_lines(sets: PredictionSets, show: Any) -> list[str]:
    """What the report and the model card say of prediction sets, in sentences; `show` as in `distance_lines`."""
    people = ", ".join(f"{count} {name}" for name, count in sets.subjects.items())
    sizes = ", ".join(f"{count} of {size}" for size, count in sets.sizes.items())
    return [
        f"The classes that cannot be excluded, for a coverage of {sets.wanted:g} of each class. It is guaranteed for people "
        f"who are exchangeable with the validation subjects ({people}), an assumption that no test of one walk can check.",
        f"Mean number of classes in a set: {show(sets.size)} (walks by number of classes: {sizes}).",
        *([f"{sets.note[0].upper()}{sets.note[1:]}."] if sets.note else []),
    ]


def coverage_rows(sets: PredictionSets, show: Any) -> Sequence[tuple[str, str, str]]:
    """Name, achieved coverage and its note, of all classes and of each."""
    return [(name, show(estimate), estimate.note) for name, estimate in sets.covered.items()]
