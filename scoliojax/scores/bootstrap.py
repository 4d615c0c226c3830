"""Intervals of scores by resampling of subjects, and comparison of two networks on the same sequences.

Sequences of one subject are not independent, so the bootstrap draws subjects, each with all its sequences (cluster bootstrap,
Field & Welsh 2007). The interval lies between two percentiles of the scores, further apart the fewer subjects there are
(expanded percentiles, Hesterberg 2015, section 5.3). Resampling understates the uncertainty of rare errors: a proportion with
fewer than five subjects' worth of errors, or of hits, has at least the exact interval over its subjects (Clopper & Pearson
1934). Other scores that are equal in every draw have no interval.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from scipy import special  # not scipy.stats: every evaluation would wait a second for it

from scoliojax.scores.metrics import Scorer, Scores

Name = TypeVar("Name", bound=Hashable)
LEVEL = 0.95
DRAWS = 2000
SEED = 0
BAND_DRAWS = 500  # for the bands of curves
AT_ONCE = 2**20  # weights in memory
MOST_UNDEFINED = 0.05  # share of the draws; with more, the percentiles would be those of a special case
FEW_SUBJECTS = 20  # with fewer, even expanded percentiles are too narrow
FEW_ERRORS = 5  # errors or hits, in subjects


class Estimate(NamedTuple):
    """A score and its 95 % interval. None is "undefined"; `note` then gives the reason, or else the method of the interval."""

    value: float | None
    low: float | None
    high: float | None
    note: str = ""


def subject_draws(subjects: Sequence[str], draws: int, seed: int) -> Iterator[np.ndarray]:
    """The weight of each sequence in each draw: float `[d, n]`, several draws at a time, `draws` in total.

    Each draw takes as many subjects as there are, with replacement; the weight of a sequence is the count of its subject.
    """
    _, number = np.unique(subjects, return_inverse=True)  # n
    count = int(number.max()) + 1
    rng = np.random.default_rng(seed)
    chunk = max(1, AT_ONCE // len(number))
    for first in range(0, draws, chunk):
        drawn = rng.integers(count, size=(min(chunk, draws - first), count))  # d subjects
        counts = np.zeros(drawn.shape)  # d subjects
        np.add.at(counts, (np.arange(len(drawn))[:, None], drawn), 1.0)
        yield counts[:, number]  # d n


def percentiles(values: np.ndarray, subjects: int) -> tuple[float, float] | None:
    """The interval from the draws of a score; None where there is one subject, or too many draws are undefined."""
    defined = values[~np.isnan(values)]
    if len(defined) < (1.0 - MOST_UNDEFINED) * len(values) or subjects < 2:
        return None
    reach = math.sqrt(subjects / (subjects - 1)) * special.stdtrit(subjects - 1, 0.5 + 0.5 * LEVEL)  # standard deviations
    tail = special.ndtr(-reach)
    low, high = np.quantile(defined, [tail, 1.0 - tail], method="closest_observation")  # also of infinite ones
    return float(low), float(high)


def exact_interval(value: float, trials: int) -> tuple[float, float]:
    """Clopper and Pearson's interval of a proportion over independent trials; the number of hits may be fractional."""
    hits, tail = value * trials, 0.5 - 0.5 * LEVEL
    low = special.betaincinv(hits, trials - hits + 1.0, tail) if hits > 0 else 0.0
    high = special.betaincinv(hits + 1.0, trials - hits, 1.0 - tail) if hits < trials else 1.0
    return float(low), float(high)


def estimate(value: float, draws: np.ndarray, subjects: int, trials: int | None = None) -> Estimate:
    """A score with its interval from its `draws`, `[draws]`; `trials`: subjects in the denominator of a proportion."""
    if math.isnan(value):
        return Estimate(None, None, None, "undefined: nothing to divide by")
    if math.isinf(value):
        return Estimate(None, None, None, "undefined: infinite")
    bounds = percentiles(draws, subjects)
    if trials and min(value, 1.0 - value) * trials < FEW_ERRORS:
        exact = exact_interval(value, trials)
        low, high = exact if bounds is None else (min(bounds[0], exact[0]), max(bounds[1], exact[1]))
        return Estimate(value, low, high, f"rare errors: exact over {trials} subject{'s' * (trials > 1)}")
    if bounds is None:
        reason = "there is one subject" if subjects < 2 else "so is the score in many resamplings"
        return Estimate(value, None, None, f"interval undefined: {reason}")
    low, high = bounds
    if low == high:
        return Estimate(value, None, None, "interval undefined: every resampling gives the same")
    if math.isinf(high):
        return Estimate(value, low, None, "no upper bound")
    return Estimate(value, low, high)


def estimates(scorer: Scorer, subjects: Sequence[str], draws: int = DRAWS, seed: int = SEED) -> dict[str, Estimate]:
    """Every score of n sequences with its interval; `subjects`: their n subject names."""
    return _resample(scorer, subjects, draws, seed, denominators(scorer, subjects))


def denominators(scorer: Scorer, subjects: Sequence[str]) -> dict[str, int]:
    """Number of subjects in the denominator of each proportion, by the name of the score."""
    names = np.asarray(subjects)
    trials = {"accuracy": len(set(subjects))}
    for question, (yes, called) in scorer.decisions().items():
        for name, rows in {"sensitivity": yes, "specificity": ~yes, "ppv": called, "npv": ~called}.items():
            trials[f"{question}/{name}"] = len(np.unique(names[rows]))
    return trials


def _resample(
    score: Callable[[np.ndarray], Mapping[Name, np.ndarray]],
    subjects: Sequence[str],
    draws: int,
    seed: int,
    trials: Mapping[Name, int],
) -> dict[Name, Estimate]:
    values, count = score(np.ones((1, len(subjects)))), len(set(subjects))
    parts = [score(weights) for weights in subject_draws(subjects, draws, seed)]
    drawn = {name: np.concatenate([part[name] for part in parts]) for name in values}  # each [draws]
    return {name: estimate(float(values[name][0]), drawn[name], count, trials.get(name)) for name in values}


def share_estimates(shares: dict[str, np.ndarray], subjects: Sequence[str]) -> dict[str, Estimate]:
    """Shares of n sequences with their intervals: each `[n]`, 1 where the sequence counts, 0 where not, nan where left out."""
    names, counted = np.asarray(subjects), {name: ~np.isnan(np.asarray(values, float)) for name, values in shares.items()}
    hits = {name: np.nan_to_num(np.asarray(values, float)) for name, values in shares.items()}

    def score(weights: np.ndarray) -> Scores:
        with np.errstate(invalid="ignore"):  # of a class that a draw, or all, lacks
            return {name: (weights @ hits[name]) / (weights @ counted[name]) for name in shares}

    trials = {name: len(np.unique(names[rows])) for name, rows in counted.items()}
    return _resample(score, subjects, DRAWS, SEED, trials)


def mean_estimate(values: np.ndarray, subjects: Sequence[str]) -> Estimate:
    """The mean of n values, one for each sequence, with its interval."""
    return _resample(lambda weights: {"mean": (weights @ values) / weights.sum(1)}, subjects, DRAWS, SEED, {})["mean"]


class Comparison(NamedTuple):
    """Two networks on the same sequences: paired differences, second minus first, and McNemar's tests."""

    differences: dict[str, Estimate]
    mcnemar: dict[str, McNemar]


class McNemar(NamedTuple):
    """McNemar's test treats sequences as independent; where subjects have several, read the bootstrap's difference."""

    first_only: int  # number of sequences on which only the first network is right
    second_only: int
    p_value: float | None  # exact, two-sided; None: both networks are right on the same sequences


def mcnemar(first_right: np.ndarray, second_right: np.ndarray) -> McNemar:
    """McNemar's exact test (McNemar 1947; binomial) of bool `[n]`: True where a network is right."""
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

    rights = [
        {"class": one.scored.predictions == one.scored.labels}
        | {name: yes == called for name, (yes, called) in one.decisions().items() if name not in one.classes}
        for one in (first, second)
    ]
    tests = {name: mcnemar(rights[0][name], rights[1][name]) for name in rights[0] if name in rights[1]}
    return Comparison(_resample(difference, subjects, draws, seed, {}), tests)


class SeedScores(NamedTuple):
    """Scores of several networks, each trained with several seeds, on the same sequences."""

    means: dict[str, dict[str, Estimate]]  # by network and score: the mean over its seeds
    differences: dict[tuple[str, str], dict[str, Estimate]]  # by two networks and score: the second mean minus the first


def compare_seeds(
    networks: Mapping[str, Sequence[Scorer]],
    subjects: Sequence[str],
    names: Sequence[str],
    draws: int = DRAWS,
    seed: int = SEED,
) -> SeedScores:
    """The scores `names` of each network, the mean over its seeds, and the differences of every pair of networks.

    Every draw takes the same subjects for all networks and seeds (paired bootstrap), so the intervals are of people: they say
    nothing of how much the seeds differ.
    """
    pairs = list(itertools.combinations(networks, 2))

    def score(weights: np.ndarray) -> dict[tuple[str, ...], np.ndarray]:
        values: dict[tuple[str, ...], np.ndarray] = {}
        for network, scorers in networks.items():
            each = [scorer(weights) for scorer in scorers]
            values |= {(network, name): np.mean([one[name] for one in each], axis=0) for name in names}
        with np.errstate(invalid="ignore"):  # infinite minus infinite is undefined
            return values | {(*pair, name): values[pair[1], name] - values[pair[0], name] for pair in pairs for name in names}

    trials: dict[tuple[str, ...], int] = {
        (network, name): count
        for network, scorers in networks.items()
        for name, count in denominators(scorers[0], subjects).items()
    }
    found = _resample(score, subjects, draws, seed, trials)
    return SeedScores(
        {network: {name: found[network, name] for name in names} for network in networks},
        {pair: {name: found[*pair, name] for name in names} for pair in pairs},
    )
