"""How long every score with its interval takes."""

from __future__ import annotations

import numpy as np

from scoliojax.benchmark.timing import Row, interleave
from scoliojax.scores.bootstrap import DRAWS, estimates
from scoliojax.scores.metrics import Scored, Scorer

SEQUENCES = 10_000
CLASSES = ("negative", "neutral", "positive")


def measure(rounds: int) -> list[Row]:
    """All scores of random predictions, one subject for two sequences, with an operating point and a prevalence."""
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet((1.0, 1.0, 1.0), SEQUENCES)  # n k
    labels = rng.integers(0, 3, SEQUENCES)  # n
    scored = Scored(labels, probabilities, probabilities.argmax(1), probabilities[:, 0] < 0.5)
    subjects = [str(number // 2) for number in range(SEQUENCES)]
    seconds = interleave({"ours": lambda: estimates(Scorer(scored, CLASSES, 0.05), subjects)}, rounds)["ours"]
    return [Row(f"scores with intervals, {SEQUENCES} sequences, {DRAWS} draws", "s", seconds, [])]
