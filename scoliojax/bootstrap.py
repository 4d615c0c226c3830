"""How sure a score is: resampling of subjects, and comparison of two networks on the same sequences.

Sequences of one subject are not independent, so the bootstrap draws subjects, each with all its sequences (cluster bootstrap,
Field & Welsh 2007), and takes the 2.5th and 97.5th percentile of the scores. Where every draw gives the same score it knows
nothing of rarer errors: a proportion of 0 or 1 then has the exact interval over its subjects (Clopper & Pearson 1934), and
other scores have none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from scoliojax.metrics import Scorer, Scores

LEVEL = 0.95
DRAWS = 2000
SEED = 0
BAND_DRAWS = 500  # for the bands of curves
AT_ONCE = 2**20  # weights in memory
MOST_UNDEFINED = 0.05  # of the draws; with more of them the percentiles would be those of a special case
FEW_SUBJECTS = 20  # below, percentiles are known to be too narrow
# What each proportion is out of: the sequences whose truth, or whose call, is yes or no.
OUT_OF = {
    "sensitivity": lambda yes, called: yes,
    "specificity": lambda yes, called: ~yes,
    "ppv": lambda yes, called: called,
    "npv": lambda yes, called: ~called,
}


class Estimate(NamedTuple):
    """A score and its 95 % interval. None is "undefined"; `note` then says why, and how the interval was found otherwise."""

    value: float | None
    low: float | None
    high: float | None
    note: str = ""


def subject_draws(subjects: Sequence[str], draws: int, seed: int) -> Iterator[np.ndarray]:
    """How often each sequence counts in each draw: float `[d, n]`, a few draws at a time, `draws` in all.

    Each draw takes as many subjects as there are, with replacement.
    """
    _, number = np.unique(subjects, return_inverse=True)  # n
    count = int(number.max()) + 1
    rng = np.random.default_rng(seed)
    together = max(1, AT_ONCE // len(number))
    for first in range(0, draws, together):
        drawn = rng.integers(count, size=(min(together, draws - first), count))  # d subjects
        often = np.zeros(drawn.shape)  # d subjects
        np.add.at(often, (np.arange(len(drawn))[:, None], drawn), 1.0)
        yield often[:, number]  # d n


def resample(score: Callable[[np.ndarray], Scores], subjects: Sequence[str], draws: int, seed: int) -> Scores:
    """The scores of all draws, each `[draws]`."""
    found = [score(weights) for weights in subject_draws(subjects, draws, seed)]
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def percentiles(values: np.ndarray) -> tuple[float, float] | None:
    """The interval of a score's draws; None where too many of them are undefined."""
    defined = values[~np.isnan(values)]
    if len(defined) < (1.0 - MOST_UNDEFINED) * len(values):
        return None
    tail = 0.5 - 0.5 * LEVEL
    low, high = np.quantile(defined, [tail, 1.0 - tail], method="closest_observation")  # also of infinite ones
    return float(low), float(high)


def exact_interval(value: float, trials: int) -> tuple[float, float]:
    """Clopper and Pearson's interval of a proportion that is 0 or 1 among so many independent trials."""
    found = stats.binomtest(trials if value else 0, trials).proportion_ci(LEVEL, method="exact")
    return float(found.low), float(found.high)


def estimate(value: float, draws: np.ndarray, trials: int | None) -> Estimate:
    """A score with its interval.

    Args:
      value: of the sequences themselves.
      draws: of each resampling, `[draws]`.
      trials: for a proportion, how many subjects it is out of.
    """
    if math.isnan(value):
        return Estimate(None, None, None, "undefined: nothing to divide by")
    if math.isinf(value):
        return Estimate(None, None, None, "undefined: infinite, no false call")
    found = percentiles(draws)
    if trials and value in (0.0, 1.0) and (found is None or found[0] == found[1]):
        return Estimate(value, *exact_interval(value, trials), f"exact interval over {trials} subject{'s' * (trials > 1)}")
    if found is None:
        return Estimate(value, None, None, "interval undefined: so is the score in many resamplings")
    low, high = found
    if low == high:
        return Estimate(value, None, None, "interval undefined: every resampling gives the same")
    if math.isinf(high):
        return Estimate(value, low, None, "no upper bound")
    return Estimate(value, low, high)


def estimates(scorer: Scorer, subjects: Sequence[str], draws: int = DRAWS, seed: int = SEED) -> dict[str, Estimate]:
    """Every score of a `Scorer` with its interval; a function of the arguments.

    Args:
      scorer: of n sequences.
      subjects: who walked, n names.
      draws: resamplings.
      seed: of them.
    """
    values = scorer(np.ones((1, len(subjects))))
    drawn = resample(scorer, subjects, draws, seed)
    trials = _trials(scorer, np.asarray(subjects))
    return {name: estimate(float(values[name][0]), drawn[name], trials.get(name)) for name in values}


def _trials(scorer: Scorer, subjects: np.ndarray) -> dict[str, int]:
    """How many subjects each proportion is out of."""
    found = {"accuracy": len(np.unique(subjects))}
    for question, (yes, called) in scorer.decisions().items():
        for name, of in OUT_OF.items():
            found[f"{question}/{name}"] = len(np.unique(subjects[of(yes, called)]))
    return found


class Comparison(NamedTuple):
    """Two networks on the same sequences: paired differences, second minus first, and McNemar's tests."""

    differences: dict[str, Estimate]
    mcnemar: dict[str, McNemar]


class McNemar(NamedTuple):
    """Of the sequences on which one of two is right: how many each is right on, and the exact two-sided p-value.

    None where the two are never unequal. The test takes sequences for independent; where subjects have several, the bootstrap's
    difference is the one to read.
    """

    first_only: int
    second_only: int
    p_value: float | None


def mcnemar(first_right: np.ndarray, second_right: np.ndarray) -> McNemar:
    """McNemar's exact test (McNemar 1947; binomial) of bool `[n]` rights and wrongs."""
    first, second = int(np.sum(first_right & ~second_right)), int(np.sum(second_right & ~first_right))
    p_value = float(stats.binomtest(first, first + second, 0.5).pvalue) if first + second else None
    return McNemar(first, second, p_value)


def compare(first: Scorer, second: Scorer, subjects: Sequence[str], draws: int = DRAWS, seed: int = SEED) -> Comparison:
    """Compare two scorers of the same sequences; every draw takes the same subjects for both (paired bootstrap)."""

    def difference(weights: np.ndarray) -> Scores:
        one, other = first(weights), second(weights)
        with np.errstate(invalid="ignore"):  # infinite minus infinite is undefined
            return {name: other[name] - one[name] for name in one if name in other}

    values = difference(np.ones((1, len(subjects))))
    drawn = resample(difference, subjects, draws, seed)
    differences = {name: estimate(float(values[name][0]), drawn[name], None) for name in values}
    rights = [
        {"class": one.scored.predictions == one.scored.labels}
        | {name: yes == called for name, (yes, called) in one.decisions().items() if name not in one.classes}
        for one in (first, second)
    ]
    tests = {name: mcnemar(rights[0][name], rights[1][name]) for name in rights[0] if name in rights[1]}
    return Comparison(differences, tests)
