"""Walks and the people who walk: one walk of each person, and walks that two sets do not share."""

from collections.abc import Sequence

import numpy as np


def one_of_each(names: Sequence[str] | np.ndarray) -> np.ndarray:
    """The index of one entry of every name, ascending; which one is random but always the same.

    Not the first of each: first walks may differ from later ones.
    """
    values = np.asarray(names)
    order = np.random.default_rng(0).permutation(len(values))  # n
    return np.sort(order[np.unique(values[order], return_index=True)[1]])


def differing_walks(*sets: tuple[Sequence[str], Sequence[str], np.ndarray]) -> list[str]:
    """Sorted ids of the walks that one of two sets lacks, or that have another subject or class there.

    Of each set: ids, subjects and class ids of its walks.
    """
    first, second = ({walk: (subject, int(label)) for walk, subject, label in zip(*columns, strict=True)} for columns in sets)
    return sorted(walk for walk in first.keys() | second.keys() if first.get(walk) != second.get(walk))
