"""Alternating timing of several implementations, so that other load on the machine affects all of them."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

Work = Callable[[], object]


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
    """Seconds per round of each function; each round calls all of them in turn, after one untimed round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return {name: times[1:] for name, times in seconds.items()}
