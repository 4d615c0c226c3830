"""How the answers of a network hold where a camera makes the same walk look a little different."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from scoliojax.scores.metrics import Scored, published_scores

AS_GIVEN = "as given"  # name of the reading that is not perturbed
HEADER = ("accuracy", "macro F1", "class changed", "decision changed")


class PerturbedLogits(NamedTuple):
    """The logits of some walks of a part, read under each perturbation."""

    places: np.ndarray  # m; int, index of each walk among those evaluated
    logits: Mapping[str, np.ndarray]  # by perturbation; each m k


@dataclass(frozen=True)
class Reading:
    """The scores of one reading; `ValueError` for what is no share."""

    __pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False}  # noqa: RUF012, read by pydantic

    accuracy: float
    macro_f1: float
    class_changed: float  # share of the walks that are called another class than as given
    decision_changed: float | None  # share with another decision at the operating point; None where there is none

    def __post_init__(self):
        for name, share in vars(self).items():
            if share is not None and not 0 <= share <= 1:
                raise ValueError(f"{name}={share} is no share")


@dataclass(frozen=True)
class Robustness:
    """The table of perturbations; `ValueError` where the reading as given is missing."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012, read by pydantic

    walks: int  # number of walks that were read again, evenly spread over the part and its classes
    readings: dict[str, Reading]  # by perturbation; the first is the walk as given

    def __post_init__(self):
        if AS_GIVEN not in self.readings or len(self.readings) < 2:
            raise ValueError(f"readings needs {AS_GIVEN!r} and at least one perturbation")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def rows(self) -> list[tuple[str, list[str]]]:
        """The table as text: name and the columns of `HEADER`; the last is left out where there is no operating point."""
        shares = {name: [share for share in vars(one).values() if share is not None] for name, one in self.readings.items()}
        return [(name, [f"{share:.3f}" for share in row]) for name, row in shares.items()]

    def worst(self) -> str:
        """In one line: the lowest accuracy, and the largest share of changed answers."""
        others = {name: one for name, one in self.readings.items() if name != AS_GIVEN}
        low = min(others, key=lambda name: others[name].accuracy)
        moved = max(others, key=lambda name: others[name].class_changed)
        given = self.readings[AS_GIVEN].accuracy
        return (
            f"perturbed: accuracy {given:.3f}, at least {others[low].accuracy:.3f} ({low}), up to "
            f"{others[moved].class_changed:.1%} are called another class ({moved}); {self.walks} walks"
        )


def spread(labels: np.ndarray, most: int) -> np.ndarray:
    """Indices `[m]`, rising, of at most `most` of the walks with these labels `[n]`: evenly over each class and the part.

    A class that is too small for that still has a walk among them, in place of one of the largest class.
    """
    order = np.argsort(labels, kind="stable")  # n; so that every class gets its share, whatever the order of the data
    chosen = order[np.linspace(0, len(labels) - 1, min(most, len(labels))).round().astype(int)]  # m
    for label in np.setdiff1d(labels, labels[chosen]):
        (largest,) = np.flatnonzero(labels[chosen] == np.argmax(np.bincount(labels[chosen])))[-1:]
        chosen[largest] = order[labels[order] == label][0]
    return np.sort(chosen)


def score_perturbed(perturbed: PerturbedLogits, readings: Mapping[str, Scored]) -> Robustness:
    """The table; `readings`: labels, probabilities and decisions of the same walks by perturbation, and as given."""
    given = readings[AS_GIVEN]

    def score(scored: Scored) -> Reading:
        scores = published_scores(scored.labels, scored.predictions, scored.probabilities.shape[1])
        both = None if scored.referred is None or given.referred is None else (scored.referred, given.referred)
        return Reading(
            accuracy=scores["accuracy"],
            macro_f1=scores["macro_f1"],
            class_changed=float(np.mean(scored.predictions != given.predictions)),
            decision_changed=None if both is None else float(np.mean(both[0] != both[1])),
        )

    return Robustness(len(perturbed.places), {name: score(scored) for name, scored in readings.items()})
