"""One walk of each person, where people are what is exchangeable."""

from collections.abc import Sequence

import numpy as np


def one_of_each(names: Sequence[str] | np.ndarray) -> np.ndarray:
    """The index of one entry of every name, ascending; which one is random but always the same.

    Not the first of each: first walks may differ from later ones.
    """
    values = np.asarray(names)
    order = np.random.default_rng(0).permutation(len(values))  # n
    return np.sort(order[np.unique(values[order], return_index=True)[1]])
