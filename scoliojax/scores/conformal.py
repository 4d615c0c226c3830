"""Prediction sets: the classes that cannot be excluded, so that the true one is among them as often as was asked for.

Split conformal prediction by class (Vovk 2012: Mondrian). A class is excluded where the best other class beats it by more than
it does for all but a share of the validation people of that class. Of people who are exchangeable with the validation people
(same clinics, cameras, ages: nobody can check this from one walk) at least the wanted share of each class then has its class in
the set, whatever the network.

One sequence of each validation subject counts, because the walks of a person are not exchangeable with those of others. The
margin is a difference of log probabilities, so the temperature, fitted on the same people, scales all margins alike and changes
no set. The class called is always in the set; this can only raise the coverage.
"""

import math
from collections.abc import Sequence

import numpy as np

from data_pipelines.schema import CLASSES
from scoliojax.errors import RunError
from scoliojax.scores.people import one_of_each

COVERAGE = 0.9  # where the user wants no other


def check_coverage(coverage: float) -> None:
    """Raise `RunError` for a coverage that is no share between 0 and 1."""
    if not 0.0 < coverage < 1.0:
        raise RunError(f"--coverage={coverage:g} must lie between 0 and 1, e.g. {COVERAGE}")


def margins(probabilities: np.ndarray) -> np.ndarray:
    """By how much the best other class beats each class, in log probability: `[n, k]` to `[n, k]`; negative for the called."""
    logs = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))  # n k
    first, second = np.sort(logs, axis=1)[:, :-3:-1].T[..., None]  # each n 1
    return np.where(logs == first, second, first) - logs  # n k


def class_margins(labels: np.ndarray, probabilities: np.ndarray, subjects: Sequence[str]) -> tuple[tuple[float, ...], ...]:
    """The margins of the true classes, ascending, by class id: one sequence for each subject of the class.

    `labels`: int `[n]`; `probabilities`: `[n, k]`; `subjects`: n names.
    """
    found, names = margins(probabilities), np.asarray(subjects)
    by_class = []
    for index in range(probabilities.shape[1]):
        rows = np.flatnonzero(labels == index)
        rows = rows[one_of_each(names[rows])]
        by_class.append(tuple(np.sort(found[rows, index]).tolist()))
    return tuple(by_class)


def needed(coverage: float) -> int:
    """The least number of validation subjects of a class with which it can be excluded at all: n with (n+1)(1-a) <= n."""
    return math.ceil(coverage / (1.0 - coverage) - 1e-9)


def largest_margin(sorted_margins: Sequence[float], coverage: float) -> float:
    """The margin up to which a class stays in the set; infinite where it has too few subjects."""
    rank = math.ceil(coverage * (len(sorted_margins) + 1) - 1e-9)
    return max(sorted_margins[rank - 1], 0.0) if rank <= len(sorted_margins) else math.inf


def prediction_set(by_class: Sequence[Sequence[float]], probabilities: np.ndarray, coverage: float) -> tuple[np.ndarray, str]:
    """The classes that cannot be excluded, bool `[n, k]`, and a note on classes with too few validation subjects, or "".

    `by_class`: from `class_margins`; `probabilities`: `[n, k]`; raises `RunError` for a coverage that is no share.
    """
    check_coverage(coverage)
    limits = np.array([largest_margin(one, coverage) for one in by_class])  # k
    few = [f"{name} ({len(one)})" for name, one in zip(CLASSES, by_class, strict=True) if len(one) < needed(coverage)]
    note = ""
    if few:
        note = (
            f"a coverage of {coverage:g} needs {needed(coverage)} validation subjects of a class to exclude it; too few, and "
            f"so never excluded: {', '.join(few)}"
        )
    return margins(probabilities) <= limits, note
