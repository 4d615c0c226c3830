"""How sure a score is: resampling of subjects, and comparison of two networks on the same sequences.

Sequences of one subject are not independent, so the bootstrap draws subjects, each with all its sequences (cluster bootstrap,
Field & Welsh 2007), and takes percentiles of the scores, a little further out the fewer subjects there are (expanded
percentiles, Hesterberg 2015, section 5.3). Of rare errors resampling knows too little: a proportion with fewer than five
subjects' worth of errors, or of hits, has at least the exact interval over its subjects (Clopper & Pearson 1934). Other scores
that are the same in every draw have no interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special  # not scipy.stats: every evaluation would wait a second for it

from scoliojax.scores.metrics import Scorer, Scores

LEVEL = 0.95
DRAWS = 2000
SEED = 0
BAND_DRAWS = 500  # for the bands of curves
AT_ONCE = 2**20  # weights in memory
MOST_UNDEFINED = 0.05  # of the draws; with more of them the percentiles would be those of a special case
FEW_SUBJECTS = 20  # below, even expanded percentiles are too narrow
FEW_ERRORS = 5  # or hits, in subjects
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


def percentiles(values: np.ndarray, subjects: int) -> tuple[float, float] | None:
    """The interval of a score's draws of so many subjects; None where there is one subject, or too many draws are undefined."""
    defined = values[~np.isnan(values)]
    if len(defined) < (1.0 - MOST_UNDEFINED) * len(values) or subjects < 2:
        return None
    reach = math.sqrt(subjects / (subjects - 1)) * special.stdtrit(subjects - 1, 0.5 + 0.5 * LEVEL)  # standard deviations
    tail = special.ndtr(-reach)
    low, high = np.quantile(defined, [tail, 1.0 - tail], method="closest_observation")  # also of infinite ones
    return float(low), float(high)


def exact_interval(value: float, trials: int) -> tuple[float, float]:
    """Clopper and Pearson's interval of a proportion of so many independent trials, whole numbers of hits or not."""
    hits, tail = value * trials, 0.5 - 0.5 * LEVEL
    low = special.betaincinv(hits, trials - hits + 1.0, tail) if hits > 0 else 0.0
    high = special.betaincinv(hits + 1.0, trials - hits, 1.0 - tail) if hits < trials else 1.0
    return float(low), float(high)


def estimate(value: float, draws: np.ndarray, subjects: int, trials: int | None = None) -> Estimate:
    """A score with its interval.

    Args:
      value: of the sequences themselves.
      draws: of each resampling, `[draws]`.
      subjects: how many there are.
      trials: for a proportion, how many subjects it is out of.
    """
    if math.isnan(value):
        return Estimate(None, None, None, "undefined: nothing to divide by")
    if math.isinf(value):
        return Estimate(None, None, None, "undefined: infinite")
    found = percentiles(draws, subjects)
    if trials and min(value, 1.0 - value) * trials < FEW_ERRORS:
        exact = exact_interval(value, trials)
        low, high = exact if found is None else (min(found[0], exact[0]), max(found[1], exact[1]))
        return Estimate(value, low, high, f"rare errors: exact over {trials} subject{'s' * (trials > 1)}")
    if found is None:
        reason = "there is one subject" if subjects < 2 else "so is the score in many resamplings"
        return Estimate(value, None, None, f"interval undefined: {reason}")
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
    trials, count = _trials(scorer, np.asarray(subjects)), len(set(subjects))
    return {name: estimate(float(values[name][0]), drawn[name], count, trials.get(name)) for name in values}


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
    if not first + second:
        return McNemar(0, 0, None)
    return McNemar(first, second, min(1.0, 2.0 * float(special.bdtr(min(first, second), first + second, 0.5))))


def compare(first: Scorer, second: Scorer, subjects: Sequence[str], draws: int = DRAWS, seed: int = SEED) -> Comparison:
    """Compare two scorers of the same sequences; every draw takes the same subjects for both (paired bootstrap)."""

    def difference(weights: np.ndarray) -> Scores:
        one, other = first(weights), second(weights)
        with np.errstate(invalid="ignore"):  # infinite minus infinite is undefined
            return {name: other[name] - one[name] for name in one if name in other}

    values = difference(np.ones((1, len(subjects))))
    drawn = resample(difference, subjects, draws, seed)
    differences = {name: estimate(float(values[name][0]), drawn[name], len(set(subjects))) for name in values}
    rights = [
        {"class": one.scored.predictions == one.scored.labels}
        | {name: yes == called for name, (yes, called) in one.decisions().items() if name not in one.classes}
        for one in (first, second)
    ]
    tests = {name: mcnemar(rights[0][name], rights[1][name]) for name in rights[0] if name in rights[1]}
    return Comparison(differences, tests)
