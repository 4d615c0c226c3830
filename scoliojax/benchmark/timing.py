"""Timing two ways of doing the same, in turn, so that what else the machine does falls on both."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

Work = Callable[[], object]


class Row(NamedTuple):
    """One line of the table; `theirs` is empty where there is nothing to compare with."""

    what: str
    unit: str
    ours: list[float]
    theirs: list[float]
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Of the medians, ours over theirs."""
        return float(np.median(self.ours) / np.median(self.theirs)) if self.theirs else None

    def cells(self) -> list[str]:
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return [self.what, self.unit, _spread(self.ours), _spread(self.theirs), ratio, self.note]


def _spread(values: list[float]) -> str:
    """Median, and the lower and upper quartile."""
    if not values:
        return ""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return f"{middle:.4g}" if len(values) == 1 else f"{middle:.4g} ({low:.4g} to {high:.4g})"


def interleave(ways: Mapping[str, Work], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way, one after the other in every round, after one round that does not count."""
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return seconds
