"""Scores by subgroup: by every further column of the subjects file, such as sex, age or site.

A column of texts gives a subgroup for each value; upper and lower case count as one. A column of numbers with more than
`FEW_VALUES` different ones gives three, cut so that a third of the people of the evaluated part lies in each. Where fewer than
`bootstrap.FEW_SUBJECTS` subjects stand behind a score, its note says that it is too small to say anything.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_pipelines.schema import is_unknown
from scoliojax.scores import bootstrap
from scoliojax.scores.bootstrap import Estimate
from scoliojax.scores.metrics import Scored, Scorer

FEW_VALUES = 5  # different numbers; up to so many are codes, such as 0 and 1, and taken by value
MOST_VALUES = 12  # different texts; a column with more holds remarks or dates, and gives no subgroups
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+|,[0-9]{1,2}|,[0-9]{4,})?")  # a comma before three digits could separate thousands
NOT_GIVEN = "not given"
TOO_SMALL = "too small to say anything"  # how the note of such a score begins


@dataclass(frozen=True)
class Subgroup:
    """The sequences of one subgroup and their scores, by the names of `Scorer`."""

    n: int  # sequences
    subjects: int  # number of subjects
    classes: dict[str, int]  # number of sequences by class name
    scores: dict[str, Estimate]


def divide(traits: Mapping[str, Sequence[str]], subjects: Sequence[str]) -> tuple[dict[str, dict[str, np.ndarray]], list[str]]:
    """Rows of each subgroup, int, by column and name, and a remark about each column that gives none.

    `traits`: n texts of each column, empty where unknown; `subjects`: n subject names.
    """
    divided: dict[str, dict[str, np.ndarray]] = {}
    remarks: list[str] = []
    for column, values in traits.items():
        given = [NOT_GIVEN if is_unknown(value) else value.strip() for value in values]
        known = {value for value in given if value != NOT_GIVEN}
        numeric = len(known) > FEW_VALUES and all(map(NUMBER.fullmatch, known))
        names, order = _thirds(given, subjects) if numeric else _by_value(given)
        if len(order) > MOST_VALUES:
            remarks.append(f"no subgroups by {column}: {len(order)} different texts, more than {MOST_VALUES}")
        elif len(set(names)) < 2:
            remarks.append(f"no subgroups by {column}: every sequence has {names[0][:60]!r}")
        else:
            places = np.asarray(names)
            divided[column] = {name: rows for name in [*order, NOT_GIVEN] if len(rows := np.flatnonzero(places == name))}
    return divided, remarks


def _by_value(given: list[str]) -> tuple[list[str], list[str]]:
    """The subgroup of each row, its value in the spelling that is most frequent, and the subgroups in order."""
    spelling: dict[str, str] = {}
    for value, _ in Counter(sorted(given)).most_common():
        spelling.setdefault(value.casefold(), value)
    return [spelling[value.casefold()] for value in given], sorted(set(spelling.values()) - {NOT_GIVEN})


def _thirds(given: list[str], subjects: Sequence[str]) -> tuple[list[str], list[str]]:
    """The subgroup of each row and the subgroups in order; for the cuts a person counts once for each value."""
    numbers = np.array([np.nan if value == NOT_GIVEN else float(value.replace(",", ".")) for value in given])  # n
    people = [number for _, number in {*zip(subjects, numbers.tolist(), strict=True)} if not np.isnan(number)]
    low, high = np.quantile(people, [1 / 3, 2 / 3], method="closest_observation")
    order = [f"up to {low:.12g}", f"above {low:.12g}, up to {high:.12g}", f"above {high:.12g}"]
    names = np.select([np.isnan(numbers), numbers <= low, numbers <= high], [NOT_GIVEN, *order[:2]], order[2])  # n
    return names.tolist(), order


def score_subgroups(
    traits: Mapping[str, Sequence[str]], subjects: Sequence[str], scorer: Scorer, prevalence: float | None = None
) -> tuple[dict[str, dict[str, Subgroup]], list[str]]:
    """Scores of each subgroup, by column and name, and remarks as in `divide`; `scorer` and `prevalence` are those of all."""
    divided, remarks = divide(traits, subjects)
    names = np.asarray(subjects)
    scored = {
        column: {name: _score(scorer, rows, names[rows].tolist(), prevalence) for name, rows in groups.items()}
        for column, groups in divided.items()
    }
    return scored, remarks


def _score(whole: Scorer, rows: np.ndarray, subjects: list[str], prevalence: float | None) -> Subgroup:
    labels, probabilities, predictions, referred = whole.scored
    part = Scored(labels[rows], probabilities[rows], predictions[rows], None if referred is None else referred[rows])
    scorer = Scorer(part, whole.classes, prevalence)
    behind = _subjects_behind(scorer, subjects)
    return Subgroup(
        n=len(rows),
        subjects=len(set(subjects)),
        classes={name: int(np.sum(part.labels == index)) for index, name in enumerate(whole.classes)},
        scores={name: _judged(one, behind(name)) for name, one in bootstrap.estimates(scorer, subjects).items()},
    )


def _subjects_behind(scorer: Scorer, subjects: list[str]):
    """A function from the name of a score to the number of subjects that it rests on."""
    total, denominators = len(set(subjects)), bootstrap.denominators(scorer, subjects)

    def behind(name: str) -> int:
        question, _, key = name.rpartition("/")
        yes, no = (denominators.get(f"{question}/{kind}", total) for kind in ("sensitivity", "specificity"))
        if key in ("f1", "average_precision"):
            return yes
        if key in ("auroc", "lr_plus", "lr_minus", "ppv_at_prevalence", "npv_at_prevalence"):
            return min(yes, no)
        return denominators.get(name, total)

    return behind


def _judged(one: Estimate, subjects: int) -> Estimate:
    """The estimate; its note begins with `TOO_SMALL` where so few `subjects` stand behind it."""
    if subjects >= bootstrap.FEW_SUBJECTS:
        return one
    small = f"{TOO_SMALL}: {subjects} subject{'s' * (subjects != 1)}, fewer than {bootstrap.FEW_SUBJECTS}"
    return one._replace(note="; ".join(filter(None, [small, one.note])))
