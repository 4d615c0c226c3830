"""Every score against scikit-learn, or by hand; weights against rows written out as often."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from scoliojax.errors import RunError
from scoliojax.scores.metrics import (
    CALIBRATION_BINS,
    Scored,
    Scorer,
    published_scores,
    refuse_not_finite,
    softmax,
)

CLASSES = ("negative", "neutral", "positive")
YES = {"screening": (1, 2), "operating_point": (1, 2), "negative": (0,), "neutral": (1,), "positive": (2,)}


def random_rows(seed: int, n: int = 80, ties: bool = False) -> Scored:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet([1.0, 1.0, 1.0], n)
    if ties:  # the same few rows again and again
        probabilities = probabilities[rng.integers(0, 5, n)]
    labels = rng.integers(0, 3, n)
    return Scored(labels, probabilities, probabilities.argmax(1), probabilities[:, 1:].sum(1) >= 0.7)


def scores(scored: Scored, weights=None, prevalence=None) -> dict[str, float]:
    weights = np.ones(len(scored.labels)) if weights is None else weights
    return {name: float(value[0]) for name, value in Scorer(scored, CLASSES, prevalence)(weights[None]).items()}


def test_scores_by_hand():
    labels, predictions = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 2, 2])
    found = scores(Scored(labels, np.eye(3)[predictions], predictions))
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["macro_recall"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert found["macro_precision"] == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    assert found["macro_f1"] == pytest.approx((0.8 + 0.5 + 2 / 3) / 3)
    assert found["positive/specificity"] == pytest.approx(4 / 5)
    assert found["screening/sensitivity"] == 1.0
    assert found["screening/specificity"] == pytest.approx(2 / 3)
    assert found["screening/lr_plus"] == pytest.approx(3.0)
    assert found["screening/lr_minus"] == 0.0
    assert found["brier"] == pytest.approx(2 * 2 / 6)  # two wrong rows, each 1 away in two classes
    assert found["ece"] == pytest.approx(2 / 6)


@pytest.mark.parametrize("ties", [False, True])
def test_every_score_equals_an_independent_one_on_random_rows(ties):
    for seed in range(8):
        scored = random_rows(seed, ties=ties)
        labels, probabilities, predictions, referred = scored
        found, checked = scores(scored, prevalence=0.04), set()

        def same(name, expected, found=found, checked=checked):
            assert found[name] == pytest.approx(float(expected), abs=1e-12, nan_ok=True), name
            checked.add(name)

        same("accuracy", sk.accuracy_score(labels, predictions))
        same("quadratic_kappa", sk.cohen_kappa_score(labels, predictions, weights="quadratic"))
        same("brier", sk.brier_score_loss(labels, probabilities, labels=[0, 1, 2], scale_by_half=False))
        for name, function in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
            same(f"macro_{name}", function(labels, predictions, average="macro", zero_division=0))
        same("ece", expected_calibration_error(labels, probabilities))
        for question, classes in YES.items():
            yes, called = np.isin(labels, classes), np.isin(predictions, classes)
            if question == "operating_point":
                called = referred
            else:
                chance = probabilities[:, classes].sum(1)
                same(f"{question}/auroc", sk.roc_auc_score(yes, chance))
                same(f"{question}/average_precision", sk.average_precision_score(yes, chance))
                same(f"{question}/brier", sk.brier_score_loss(yes, chance))
            sensitivity, specificity = sk.recall_score(yes, called), sk.recall_score(yes, called, pos_label=False)
            same(f"{question}/sensitivity", sensitivity)
            same(f"{question}/specificity", specificity)
            same(f"{question}/ppv", sk.precision_score(yes, called, zero_division=np.nan))
            same(f"{question}/npv", sk.precision_score(yes, called, pos_label=False, zero_division=np.nan))
            same(f"{question}/f1", sk.f1_score(yes, called))
            plus, minus = sk.class_likelihood_ratios(yes, called, replace_undefined_by=np.nan)
            if called[yes].any() and not called[~yes].any():
                plus = math.inf  # scikit-learn calls it undefined
            same(f"{question}/lr_plus", plus)
            same(f"{question}/lr_minus", minus)
            if question not in ("negative", "neutral"):  # of a thousand people, 40 with a yes
                same(f"{question}/ppv_at_prevalence", 40 * sensitivity / (40 * sensitivity + 960 * (1 - specificity) or np.nan))
                same(
                    f"{question}/npv_at_prevalence", 960 * specificity / (960 * specificity + 40 * (1 - sensitivity) or np.nan)
                )
        assert checked == set(found)


def expected_calibration_error(labels, probabilities) -> float:
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    total = 0.0
    for index in range(CALIBRATION_BINS):
        low, high = index / CALIBRATION_BINS, (index + 1) / CALIBRATION_BINS
        here = (confidence > low) & (confidence <= high)
        if here.any():
            total += here.mean() * abs(right[here].mean() - confidence[here].mean())
    return total


def test_a_weight_counts_a_row_as_often_as_writing_it_down():
    for seed in range(5):
        scored, often = random_rows(seed, ties=seed % 2 == 0), np.random.default_rng(seed).integers(0, 4, 80)
        written = Scored(*(np.repeat(column, often, axis=0) for column in scored))
        assert scores(scored, often.astype(float), 0.1) == pytest.approx(
            scores(written, prevalence=0.1), abs=1e-12, nan_ok=True
        )


def test_what_has_nothing_to_divide_by_is_nan_and_published_class_scores_then_count_zero():
    found = scores(Scored(np.array([0, 0]), np.eye(3)[[0, 0]], np.array([0, 0])))
    undefined = {name for name, value in found.items() if math.isnan(value)}
    for name in ("positive/sensitivity", "negative/specificity", "screening/auroc", "screening/ppv", "quadratic_kappa"):
        assert name in undefined
    assert found["accuracy"] == found["macro_f1"] == 1.0
    missed = published_scores(np.array([0, 0, 1]), np.array([0, 0, 2]), 3)
    assert missed["macro_precision"] == pytest.approx(1 / 3)
    assert missed["macro_recall"] == pytest.approx(1 / 3)


rows = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 2), min_size=n, max_size=n),
        st.lists(
            st.sampled_from([(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.2, 0.3, 0.5), (1 / 3, 1 / 3, 1 / 3)]), min_size=n, max_size=n
        ),
        st.lists(st.integers(0, 3), min_size=n, max_size=n),
    )
)


@settings(max_examples=150, deadline=None)
@given(rows)
def test_any_rows_and_weights_give_scores_in_their_range_or_none(case):
    labels, probabilities, weights = (np.array(column) for column in case)
    scored = Scored(labels, probabilities, probabilities.argmax(1), probabilities[:, 0] < 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = scores(scored, weights.astype(float), 0.5)
    for name, value in found.items():
        low, high = (-1.0, 1.0) if name == "quadratic_kappa" else (0.0, 2.0 if name == "brier" else 1.0)
        if "lr_" in name:
            high = math.inf
        assert math.isnan(value) or low - 1e-12 <= value <= high + 1e-12, (name, value)
    if not weights.any():
        assert all(math.isnan(value) for value in found.values())


def test_probabilities():
    p = softmax(np.array([[1.0, 0.0, -1.0], [0.3, 0.3, 0.3]]), 16.0)
    np.testing.assert_allclose(p.sum(1), 1.0)
    np.testing.assert_allclose(p[1], 1 / 3)
    assert p[0, 1] / p[0, 0] == pytest.approx(math.exp(-16))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_refused_by_name(bad):
    logits = np.zeros((3, 3))
    refuse_not_finite(logits, ["00000", "00001", "00002"])
    logits[1, 2] = bad
    with pytest.raises(RunError, match=r"logits of 1 sequences, first 00001, are not finite"):
        refuse_not_finite(logits, ["00000", "00001", "00002"])
