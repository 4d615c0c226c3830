"""Intervals: do they cover, and what do they say where resampling knows nothing?"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from scoliojax.scores.bootstrap import compare, estimate, estimates, exact_interval, mcnemar, percentiles, subject_draws
from scoliojax.scores.metrics import Scored, Scorer

CLASSES = ("negative", "neutral", "positive")


def scorer(labels, predictions, **settings) -> Scorer:
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    return Scorer(Scored(labels, 0.6 * np.eye(3)[predictions] + 0.4 / 3, predictions), CLASSES, **settings)


def test_a_draw_takes_whole_subjects_and_as_many_as_there_are():
    subjects = ["a", "b", "a", "c", "b", "d"]
    draws = np.concatenate(list(subject_draws(subjects, 200, seed=3)))
    assert draws.shape == (200, 6)
    np.testing.assert_array_equal(draws[:, 0], draws[:, 2])
    np.testing.assert_array_equal(draws[:, 1], draws[:, 4])
    np.testing.assert_array_equal(draws[:, [0, 1, 3, 5]].sum(1), 4)
    assert 0.85 < draws[:, 3].mean() < 1.15
    assert draws[:, 3].max() > 1
    np.testing.assert_array_equal(draws, np.concatenate(list(subject_draws(subjects, 200, seed=3))))


def test_the_interval_of_accuracy_covers_the_truth_as_often_as_it_says():
    """1,000 trials of 100 subjects with 1 to 4 sequences; a subject's sequences are right together more often than not."""
    rng = np.random.default_rng(0)
    covered, too_narrow, trials = 0, 0, 1000
    for trial in range(trials):
        counts = rng.integers(1, 5, 100)
        subjects = np.repeat(np.arange(100), counts)
        skill = rng.beta(4.0, 1.0, 100)  # of each subject; the mean, 0.8, is the truth
        right = rng.random(len(subjects)) < skill[subjects]
        draws = np.concatenate(list(subject_draws(subjects, 400, seed=trial)))
        low, high = percentiles(draws @ right / draws.sum(1), 100)
        covered += low <= 0.8 <= high
        naive = stats.binomtest(int(right.sum()), len(right)).proportion_ci(0.95, method="wilson")
        too_narrow += not naive.low <= 0.8 <= naive.high
    assert 0.93 <= covered / trials <= 0.97
    assert too_narrow / trials > 0.07  # taking sequences for independent would have missed more often


def test_an_interval_is_that_of_the_same_draws_by_hand():
    rng = np.random.default_rng(1)
    labels, predictions = rng.integers(0, 3, (2, 60))
    subjects = [str(number // 2) for number in range(60)]
    found = estimates(scorer(labels, predictions), subjects, draws=400, seed=5)
    draws = np.concatenate(list(subject_draws(subjects, 400, 5)))
    by_hand = []
    for often in draws.astype(int):
        rows = np.repeat(np.arange(60), often)
        by_hand.append(np.mean(labels[rows] == predictions[rows]))
    expected = np.sort(by_hand)
    assert found["accuracy"].value == np.mean(labels == predictions)
    tail = stats.norm.cdf(-math.sqrt(30 / 29) * stats.t.ppf(0.975, 29))
    assert found["accuracy"].low == pytest.approx(expected[round(tail * 400) - 1], abs=1e-12)
    assert found["accuracy"].high == pytest.approx(expected[round((1 - tail) * 400) - 1], abs=1e-12)
    assert found == estimates(scorer(labels, predictions), subjects, draws=400, seed=5)


def test_all_right_and_all_wrong_have_exact_intervals_over_subjects():
    labels, subjects = [0, 0, 1, 1, 2, 2], ["a", "a", "b", "b", "c", "d"]
    right = estimates(scorer(labels, labels), subjects, draws=200)
    assert right["accuracy"][:3] == (1.0, pytest.approx(0.025 ** (1 / 4)), 1.0)
    assert "4 subjects" in right["accuracy"].note
    assert right["positive/sensitivity"][:3] == (1.0, pytest.approx(math.sqrt(0.025)), 1.0)
    assert right["screening/lr_plus"].value is None
    assert right["screening/lr_plus"].note == "undefined: infinite"
    assert right["screening/auroc"][:3] == (1.0, None, None)
    wrong = estimates(scorer(labels, [1, 1, 2, 2, 0, 0]), subjects, draws=200)
    assert wrong["accuracy"][:3] == (0.0, 0.0, pytest.approx(1 - 0.025 ** (1 / 4)))
    assert exact_interval(1.0, 50)[0] == pytest.approx(0.9289, abs=1e-4)  # the textbook's


def test_one_subject_has_no_interval_but_the_exact_one():
    found = estimates(scorer([0, 1, 2], [0, 1, 1]), ["a", "a", "a"], draws=50)
    assert found["quadratic_kappa"][1:] == (None, None, "interval undefined: there is one subject")
    assert found["accuracy"][1] < 0.2
    assert found["accuracy"][2] > 0.9
    assert found["screening/sensitivity"][:3] == (1.0, pytest.approx(0.025), 1.0)


def test_a_class_that_most_draws_miss_has_no_interval():
    labels = [0] * 20 + [1] * 20 + [2]
    found = estimates(scorer(labels, labels[:-1] + [1]), [str(row) for row in range(41)], draws=300)
    assert found["positive/auroc"].low is None
    assert found["positive/auroc"].note == "interval undefined: so is the score in many resamplings"
    assert found["positive/sensitivity"][:3] == (0.0, 0.0, pytest.approx(0.975))  # one subject, wrong


cases = st.integers(1, 8).flatmap(lambda n: st.tuples(*(st.lists(st.integers(0, 2), min_size=n, max_size=n) for _ in range(3))))


@settings(max_examples=60, deadline=None)
@given(cases)
def test_degenerate_inputs_give_a_number_within_its_bounds_or_a_reason(case):
    labels, predictions, subjects = case
    found = estimates(scorer(labels, predictions, prevalence=0.1), [str(one) for one in subjects], draws=40)
    for name, one in found.items():
        for number in one[:3]:
            assert number is None or math.isfinite(number), name
        if one.value is None:
            assert one.low is None
            assert one.high is None
        if None in one[:3]:
            assert one.note, name
        elif name not in ("ece", "macro_precision", "macro_recall", "macro_f1"):  # not what a resampling is centred on
            assert one.low <= one.high


def test_the_interval_of_a_rare_error_covers_too_and_one_error_is_not_surer_than_none():
    rng = np.random.default_rng(0)
    draws = np.concatenate(list(subject_draws([str(row) for row in range(75)], 400, 0)))
    found = {}
    for errors in range(16):
        right = np.arange(75) >= errors
        found[errors] = estimate(right.mean(), draws @ right / 75, 75, 75)
    assert all(found[more].low <= found[less].low for less, more in ((0, 1), (1, 2), (2, 3)))
    for truth in (0.93, 0.955, 0.98):
        errors = rng.binomial(75, 1 - truth, 4000)
        assert np.mean([found[min(count, 15)].low <= truth <= found[min(count, 15)].high for count in errors]) >= 0.93


def test_the_exact_interval_is_the_one_of_the_binomial_test():
    for hits, trials in ((0, 7), (3, 7), (7, 7), (71, 75)):
        expected = stats.binomtest(hits, trials).proportion_ci(0.95, method="exact")
        assert exact_interval(hits / trials, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_mcnemar_is_the_binomial_test_of_the_sequences_that_differ():
    first = np.array([True] * 12 + [False] * 5 + [True] * 80)
    second = np.array([False] * 12 + [True] * 5 + [True] * 80)
    found = mcnemar(first, second)
    by_hand = 2 * sum(math.comb(17, count) for count in range(6)) / 2**17
    assert (found.first_only, found.second_only) == (12, 5)
    assert found.p_value == pytest.approx(by_hand, abs=1e-12)
    assert mcnemar(first, first).p_value is None
    for one, other in ((0, 1), (1, 1), (7, 7), (3, 40), (250, 190)):
        rights = np.array([True] * one + [False] * other)
        expected = stats.binomtest(one, one + other, 0.5).pvalue
        assert mcnemar(rights, ~rights).p_value == pytest.approx(expected, abs=1e-12)


def test_a_paired_comparison_takes_the_same_subjects_for_both():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 90)
    first = np.where(rng.random(90) < 0.7, labels, (labels + 1) % 3)
    second = np.where(np.arange(90) < 6, labels, first)  # mostly the same decisions
    subjects = [str(row) for row in range(90)]
    found = compare(scorer(labels, first), scorer(labels, second), subjects, draws=400)
    difference = found.differences["accuracy"]
    assert difference.value == pytest.approx(np.mean(second == labels) - np.mean(first == labels))
    alone = estimates(scorer(labels, first), subjects, draws=400)["accuracy"]
    assert difference.high - difference.low < 0.6 * (alone.high - alone.low)  # unpaired it would be wider than either
    same = compare(scorer(labels, first), scorer(labels, first), subjects, draws=50)
    assert same.differences["accuracy"][:3] == (0.0, None, None)
    assert same.mcnemar["class"].p_value is None
