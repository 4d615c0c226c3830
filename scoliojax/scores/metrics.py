"""Scores of predicted sequences, computed once over all rows, in numpy, for many resamplings of the rows at a time.

Every score here is a function of the weights of the sequences. With ones it is the score itself, checked against scikit-learn
in the tests; with the draws of a bootstrap it is the distribution of the score, for all draws in one call (scikit-learn, called
for each of 2,000 draws, would take minutes). A score that divides 0 by 0 is `nan`; a likelihood ratio over 0 is `inf`.

Axis letters as in `data_pipelines.schema`; d: draws, each a row of weights `[n]`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special  # not scipy.stats: every evaluation would wait a second for it

from scoliojax.errors import RunError

Scores = dict[str, np.ndarray]  # each [d]
CALIBRATION_BINS = 15  # of equal width over [0, 1], Guo et al. 2017


class Scored(NamedTuple):
    """Truth and predictions, one entry per sequence."""

    labels: np.ndarray  # n; class ids
    probabilities: np.ndarray  # n k
    predictions: np.ndarray  # n; class ids, the most probable class of the network's logits
    referred: np.ndarray | None = None  # n; bool, the screening decision at the operating point; None where there is none

    def ordered(self, rows: np.ndarray) -> "Scored":
        """The sequences of these indices, in their order."""
        referred = None if self.referred is None else self.referred[rows]  # n
        return Scored(self.labels[rows], self.probabilities[rows], self.predictions[rows], referred)


def softmax(logits: np.ndarray, scale: float) -> np.ndarray:
    """Class probabilities `[n, k]` of cosine logits `[n, k]`; `scale`: their inverse temperature."""
    return special.softmax(scale * logits.astype(np.float64), axis=1)  # n k


def refuse_not_finite(logits: np.ndarray, sequences: Sequence[str]) -> None:
    """Raise `RunError` naming the sequences whose logits `[n, k]` are not finite."""
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        raise RunError(
            f"the logits of {len(bad)} sequences, first {sequences[bad[0]]}, are not finite ({logits[bad[0]].tolist()}); "
            "they cannot be scored: pick an earlier checkpoint with --step"
        )


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The quotient; nan for 0 / 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(above) / np.asarray(below)


def confusion_counts(labels: np.ndarray, predictions: np.ndarray, classes: int, weights: np.ndarray) -> np.ndarray:
    """Weighted number of sequences by true class (second axis) and predicted class: `[d, k, k]`."""
    cells = np.zeros((len(labels), classes * classes))  # n kk
    cells[np.arange(len(labels)), labels * classes + predictions] = 1.0
    return (weights @ cells).reshape(-1, classes, classes)


def class_scores(confusion: np.ndarray) -> Scores:
    """Scores over all classes, from `confusion_counts`.

    `accuracy`; `macro_precision`, `macro_recall`, `macro_f1` as published: the mean over the classes that occur in labels or
    predictions, where a class score that divides by 0 counts as 0; `quadratic_kappa`: Cohen's kappa with squared distances
    between the ordered classes (Cohen 1968).
    """
    k = confusion.shape[1]
    total = confusion.sum((1, 2))  # d
    hits = np.diagonal(confusion, axis1=1, axis2=2)  # d k
    actual, called = confusion.sum(2), confusion.sum(1)  # d k
    occurs = (actual + called) > 0  # d k

    def macro(above: np.ndarray, below: np.ndarray) -> np.ndarray:
        return _ratio(np.sum(np.where(below > 0, _ratio(above, below), 0.0), axis=1, where=occurs), occurs.sum(1))

    distance = np.square(np.subtract.outer(np.arange(k), np.arange(k)))  # k k
    observed = (distance * confusion).sum((1, 2))  # d
    expected = _ratio((distance * (actual[:, :, None] * called[:, None, :])).sum((1, 2)), total)  # d
    return {
        "accuracy": _ratio(hits.sum(1), total),
        "macro_precision": macro(hits, called),
        "macro_recall": macro(hits, actual),
        "macro_f1": macro(2.0 * hits, actual + called),
        "quadratic_kappa": 1.0 - _ratio(observed, expected),
    }


def published_scores(labels: np.ndarray, predictions: np.ndarray, classes: int) -> dict[str, float]:
    """`class_scores` of the sequences themselves; int `[n]`, class ids."""
    confusion = confusion_counts(labels, predictions, classes, np.ones((1, len(labels))))  # 1 k k
    return {name: float(value[0]) for name, value in class_scores(confusion).items()}


def decision_scores(yes: np.ndarray, called: np.ndarray, weights: np.ndarray, prevalence: float | None = None) -> Scores:
    """Scores of yes-or-no decisions: bool `[n]`, the truth `yes` and the decision `called`.

    The predictive values hold at the share of yes among these sequences; with `prevalence`, `ppv_at_prevalence` and
    `npv_at_prevalence` hold at that share (Bayes). `lr_plus` and `lr_minus`: likelihood ratios of the decisions yes and no.
    """
    counts = confusion_counts(yes.astype(int), called.astype(int), 2, weights)  # d 2 2
    (true_no, false_yes), (false_no, true_yes) = counts.transpose(1, 2, 0)  # each d
    sensitivity, specificity = _ratio(true_yes, true_yes + false_no), _ratio(true_no, true_no + false_yes)  # d
    scores = {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": _ratio(true_yes, true_yes + false_yes),
        "npv": _ratio(true_no, true_no + false_no),
        "f1": _ratio(2.0 * true_yes, 2.0 * true_yes + false_yes + false_no),
        "lr_plus": _ratio(sensitivity, 1.0 - specificity),
        "lr_minus": _ratio(1.0 - sensitivity, specificity),
    }
    if prevalence is not None:
        values = predictive_values(sensitivity, specificity, prevalence)
        scores |= dict(zip(("ppv_at_prevalence", "npv_at_prevalence"), values, strict=True))
    return scores


def check_prevalence(prevalence: float | None) -> None:
    """Raise `RunError` for a prevalence that is no share between 0 and 1; None is none."""
    if prevalence is not None and not 0.0 < prevalence < 1.0:
        raise RunError(f"--prevalence={prevalence:g} must lie between 0 and 1, e.g. 0.03 for three of a hundred")


def predictive_values(sensitivity: np.ndarray, specificity: np.ndarray, prevalence: float) -> tuple[np.ndarray, np.ndarray]:
    """Positive and negative predictive value where this share of people has the answer yes (Bayes); NaN where undefined."""
    ill, well = prevalence, 1.0 - prevalence
    positive = _ratio(sensitivity * ill, sensitivity * ill + (1.0 - specificity) * well)
    return positive, _ratio(specificity * well, specificity * well + (1.0 - sensitivity) * ill)


class Ranking:
    """Sequences in descending order of a score, for curves over t thresholds; equal scores are one threshold."""

    def __init__(self, yes: np.ndarray, score: np.ndarray):
        self._order = np.argsort(-score, kind="stable")  # n
        ordered = score[self._order]  # n
        self._ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # t
        self._yes = yes[self._order]  # n

    def counts(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weighted number of true and of false positives at every threshold, each `[d, t]`."""
        ordered = weights[:, self._order]  # d n
        calls = np.cumsum(ordered, axis=1)[:, self._ends]  # d t
        true = np.cumsum(ordered * self._yes, axis=1)[:, self._ends]  # d t
        return true, calls - true

    def scores(self, weights: np.ndarray) -> Scores:
        """`auroc`: area under the ROC curve, where ties count half; `average_precision`, without interpolation."""
        true, false = self.counts(weights)  # d t
        gained, wrong = np.diff(true, prepend=0.0), np.diff(false, prepend=0.0)  # d t
        precision = np.where(gained > 0, _ratio(true, true + false), 0.0)  # d t
        return {
            "auroc": _ratio(np.sum(wrong * (true - 0.5 * gained), axis=1), true[:, -1] * false[:, -1]),
            "average_precision": _ratio(np.sum(gained * precision, axis=1), true[:, -1]),
        }


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _ratio(weights @ values, weights.sum(1))


def calibration_bins(scored: Scored) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probability of the predicted class, whether it is right, and the bin of the probability, each `[n]`."""
    confidence = scored.probabilities[np.arange(len(scored.labels)), scored.predictions]  # n
    place = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)  # n
    return confidence, scored.predictions == scored.labels, place


def probability_scores(scored: Scored, weights: np.ndarray) -> Scores:
    """`brier`: mean squared distance of the probabilities from the truth, 0 to 2 (Brier 1950).

    `ece`: expected calibration error of the predicted class, in 15 bins of equal width (Guo et al. 2017).
    """
    truth = np.eye(scored.probabilities.shape[1])[scored.labels]  # n k
    confidence, right, place = calibration_bins(scored)
    gap = np.zeros((len(place), CALIBRATION_BINS))  # n bins
    gap[np.arange(len(place)), place] = right - confidence
    return {
        "brier": _mean(np.square(scored.probabilities - truth).sum(1), weights),
        "ece": _ratio(np.abs(weights @ gap).sum(1), weights.sum(1)),
    }


class Scorer:
    """Computes every score of the same sequences for any weights.

    A yes-or-no question asks whether the class is one of several: "screening", any class but the first, healthy one; then each
    class against the rest. `prevalence` (see `decision_scores`) applies to screening and to the last, most severe class.
    """

    def __init__(self, scored: Scored, classes: tuple[str, ...], prevalence: float | None = None):
        self.scored, self.classes, self._prevalence = scored, classes, prevalence
        self._questions = {"screening": [*range(1, len(classes))]} | {name: [index] for index, name in enumerate(classes)}
        self.truths = {name: np.isin(scored.labels, ids) for name, ids in self._questions.items()}  # each n
        self.chances = {name: scored.probabilities[:, ids].sum(1) for name, ids in self._questions.items()}  # each n
        self._rankings = {name: Ranking(self.truths[name], self.chances[name]) for name in self.truths}

    def decisions(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Truth and decision, bool `[n]`, of every question by name, and of screening at the operating point."""
        predictions, referred = self.scored.predictions, self.scored.referred
        decisions = {name: (self.truths[name], np.isin(predictions, ids)) for name, ids in self._questions.items()}
        return decisions if referred is None else decisions | {"operating_point": (self.truths["screening"], referred)}

    def __call__(self, weights: np.ndarray) -> Scores:
        """All scores for float `[d, n]` weights, as `name` or `question/name`."""
        confusion = confusion_counts(self.scored.labels, self.scored.predictions, len(self.classes), weights)  # d k k
        all_scores = class_scores(confusion) | probability_scores(self.scored, weights)
        for name, (yes, called) in self.decisions().items():
            scores = decision_scores(yes, called, weights, None if name in self.classes[:-1] else self._prevalence)
            if name in self._rankings:
                scores |= self._rankings[name].scores(weights)
                scores["brier"] = _mean(np.square(self.chances[name] - yes), weights)
            all_scores |= {f"{name}/{key}": value for key, value in scores.items()}
        return all_scores
