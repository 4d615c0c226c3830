"""Alternating timing of several implementations, so that other load on the machine affects all of them."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

Work = Callable[[], object]
TURN = 0.5  # seconds; short work is done several times in a turn, as a run does it, because a change of turns slows its start


class Row(NamedTuple):
    what: str
    unit: str
    ours: list[float]  # one value per round
    theirs: list[float]  # likewise for PyTorch; empty without a comparison
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ratio of the medians, ours / theirs."""
        return float(np.median(self.ours) / np.median(self.theirs)) if self.theirs else None

    def cells(self) -> list[str]:
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return [self.what, self.unit, _spread(self.ours), _spread(self.theirs), ratio, self.note]


def _spread(values: list[float]) -> str:
    """Median with the lower and upper quartile, as text."""
    if not values:
        return ""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return f"{middle:.4g}" if len(values) == 1 else f"{middle:.4g} ({low:.4g} to {high:.4g})"


def interleave(ways: Mapping[str, Work], rounds: int) -> dict[str, list[float]]:
    """Seconds of a call of each function, a mean for each round; after one untimed round.

    All have their turn in each round, of one call at least and as many as begin within `TURN`.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            start, calls, spent = time.perf_counter(), 0, 0.0
            while not calls or spent < TURN:
                way()
                calls, spent = calls + 1, time.perf_counter() - start
            seconds[name].append(spent / calls)
    return {name: times[1:] for name, times in seconds.items()}
