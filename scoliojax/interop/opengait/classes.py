"""The order of the classes in a checkpoint, which no checkpoint states.

OpenGait had negative, positive, neutral from 2024-06-28 to 2025-08-27, and has negative, neutral, positive since. Under the
wrong order neutral and positive change places, while the probability of negative stays right.
"""

import itertools
from argparse import ArgumentTypeError
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_pipelines.schema import CLASSES, SequenceSet

OLD_CLASSES = ("negative", "positive", "neutral")
OLD_FILES = "files of OpenGait from 2024-06-28 to 2025-08-27"
SEQUENCES_PER_CLASS = 40  # at most, one of each subject
FEWEST_PER_CLASS = 6  # fewer say nothing
DRAWS, CLEAR = 1000, 0.99  # of networks that cannot tell neutral from positive, 1 to 5 in 100 then seem to have an order


def parse_order(text: str) -> tuple[str, ...]:
    """The order that an option `--classes` states, the three names in any case; an error of argparse for anything else."""
    order = tuple(part.strip().lower() for part in text.split(","))
    if sorted(order) != sorted(CLASSES):
        raise ArgumentTypeError(
            f"{text[:60]!r} is no order of the three classes; give e.g. {','.join(CLASSES)} or {','.join(OLD_CLASSES)}"
        )
    return order


def to_ours(order: Sequence[str]) -> list[int]:
    """Where a file of this order has each of our classes: an index that brings the file's classes into our order."""
    return [order.index(name) for name in CLASSES]


def from_ours(order: Sequence[str]) -> list[int]:
    """The inverse of `to_ours`."""
    return [CLASSES.index(name) for name in order]


class Fit(NamedTuple):
    """How well an order of the classes explains what a network says of labelled sequences."""

    order: tuple[str, ...]
    ranked: float  # share of pairs of sequences of two classes that the difference of their logits ranks right
    accuracy: float
    best: float  # share of draws of the sequences in which this order alone ranks most pairs right


def fits(logits: np.ndarray, labels: np.ndarray) -> list[Fit]:
    """All orders, the best first.

    Args:
      logits: `[n, k]`, classes in the unknown order of the file.
      labels: class ids `[n]`; every class occurs.
    """
    rng = np.random.default_rng(0)
    rows = [np.flatnonzero(labels == label) for label in range(len(CLASSES))]
    draws = [rng.multinomial(len(one), np.full(len(one), 1 / len(one)), DRAWS) / len(one) for one in rows]  # d n
    orders = list(itertools.permutations(CLASSES))
    ranked, drawn = np.zeros(len(orders)), np.zeros((len(orders), DRAWS))
    for number, order in enumerate(orders):
        ours = logits[:, to_ours(order)]  # n k
        for low, high in itertools.combinations(range(len(CLASSES)), 2):
            score = ours[:, high] - ours[:, low]  # n
            difference = score[rows[high]][:, None] - score[rows[low]]  # n n
            right = (difference > 0) + 0.5 * (difference == 0)  # n n
            ranked[number] += right.mean() / len(CLASSES)  # as many pairs of classes as classes
            drawn[number] += np.einsum("dn,nm,dm->d", draws[high], right, draws[low])
    first, second = np.sort(drawn, axis=0)[:-3:-1]  # d
    winners = np.bincount(np.argmax(drawn, axis=0)[first > second + 1e-9], minlength=len(orders)) / DRAWS
    accuracy = [float(np.mean(np.argmax(logits[:, to_ours(order)], axis=1) == labels)) for order in orders]
    found = [Fit(*values) for values in zip(orders, ranked.tolist(), accuracy, winners.tolist(), strict=True)]
    return sorted(found, key=lambda fit: -fit.ranked)


def chosen_rows(data: SequenceSet) -> np.ndarray:
    """Sequences to judge the order by: as many of each class, one of each subject, evenly from all of the data."""
    rows = []
    for label in range(len(CLASSES)):
        firsts = {data.subjects[row]: row for row in np.flatnonzero(data.labels == label)[::-1]}
        one_each = sorted(firsts.values())
        rows.append(
            [one_each[i] for i in np.linspace(0, len(one_each) - 1, min(SEQUENCES_PER_CLASS, len(one_each))).astype(int)]
        )
    return np.array([row for some in rows for row in some], int)
