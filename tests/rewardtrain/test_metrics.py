"""Reported figures against hand-worked numbers."""

from __future__ import annotations

import math
import random
from statistics import NormalDist, pstdev

import pytest

from feedback.agreement import Share
from rewardtrain.metrics import (
    Calibration,
    CalibrationBin,
    ScoredPair,
    accuracy_by_strength,
    auc_error,
    calibration,
    cross_entropy,
    explained_variance,
    fit_temperature,
    length_baseline,
    most_alike_in_length,
    pair_accuracy,
    pair_calibration,
    roc_auc,
)


def test_accuracy_counts_an_equal_score_half():
    pairs = [ScoredPair(1, 0), ScoredPair(0, 1), ScoredPair(2, 2), ScoredPair(5, 3)]
    assert pair_accuracy(pairs) == Share(2.5, 4)
    assert pair_accuracy(pairs).value == 0.625
    assert pair_accuracy([]).value is None


def test_accuracy_is_told_apart_by_strength_weakest_first():
    pairs = [ScoredPair(1, 0, strength=4), ScoredPair(0, 1, strength=1), ScoredPair(1, 0), ScoredPair(1, 0, strength=1)]
    by_strength = accuracy_by_strength(pairs)
    assert list(by_strength) == [1, 4, None]
    assert [share.value for share in by_strength.values()] == [0.5, 1.0, 1.0]


def test_the_length_baseline_prefers_the_longer_reply():
    pairs = [ScoredPair(0, 0, 9, 3), ScoredPair(0, 0, 3, 9), ScoredPair(0, 0, 4, 4), ScoredPair(0, 0, 5, 4)]
    assert length_baseline(pairs) == Share(2.5, 4)


def test_the_half_most_alike_in_length():
    pairs = [ScoredPair(0, 0, 10, 0), ScoredPair(0, 0, 5, 5), ScoredPair(0, 0, 2, 1)]
    assert most_alike_in_length(pairs) == [pairs[1], pairs[2]]


def test_calibration_on_a_hand_worked_case():
    # range 0.6-0.8: predicted 0.7 twice, one right: |0.7 - 0.5| = 0.2; range 0.2-0.4: 0.3, wrong: 0.3
    found = calibration([0.7, 0.7, 0.3], [1, 0, 0], bins=5)
    assert found.error == pytest.approx((2 * 0.2 + 1 * 0.3) / 3)
    assert found.brier == pytest.approx((0.09 + 0.49 + 0.09) / 3)
    assert found.bins[0] == CalibrationBin(predicted=0.3, observed=0.0, count=1)


def test_a_sure_and_right_prediction_is_perfectly_calibrated():
    found = calibration([1.0, 0.0], [1, 0])
    assert (found.error, found.brier) == (0.0, 0.0)
    assert found.to_dict()["brier"] == 0.0


def test_nothing_predicted_is_no_error_and_unequal_counts_are_one():
    assert calibration([], []) == Calibration(0.0, 0.0, ())
    with pytest.raises(ValueError, match="2 probabilities, but 1 outcomes"):
        calibration([0.5, 0.5], [1])


def test_pair_calibration_takes_the_likelier_reply_first():
    found = pair_calibration([ScoredPair(1, 0), ScoredPair(0, 1), ScoredPair(0, 0), ScoredPair(-800, 800)], bins=10)
    likely = 1 / (1 + math.exp(-1))
    assert found.brier == pytest.approx(((1 - likely) ** 2 + likely**2 + 0 + 1) / 4)


def test_explained_variance_of_perfect_constant_and_wrong_guesses():
    targets = [1.0, 2.0, 3.0]
    assert explained_variance(targets, targets) == 1.0
    assert explained_variance([5.0] * 3, targets) == pytest.approx(0.0)
    assert explained_variance([3.0, 2.0, 1.0], targets) == pytest.approx(-3.0)
    assert explained_variance([1.0], [2.0]) == explained_variance([], []) == 0.0
    with pytest.raises(ValueError, match="1 predictions, but 2 targets"):
        explained_variance([1.0], [1.0, 2.0])


def test_the_pairs_of_one_ranking_are_no_independent_evidence():
    right, wrong = {"chosen_score": 1.0, "rejected_score": 0.0}, {"chosen_score": 0.0, "rejected_score": 1.0}
    apart = [ScoredPair(**right)] * 7 + [ScoredPair(**wrong)] * 3
    together = [
        ScoredPair(**(right if number < 7 else wrong), comparison=number) for number in range(10) for _ in range(6)
    ]
    assert pair_accuracy(together).value == pair_accuracy(apart).value == 0.7
    assert pair_accuracy(together).interval == pair_accuracy(apart).interval


# AUC


def slow_auc(scores: list[float], positives: list[bool]) -> float:
    """Every positive beside every negative."""
    credits = [
        0.5 if one == other else float(one > other)
        for one, is_positive in zip(scores, positives, strict=True) if is_positive
        for other, other_positive in zip(scores, positives, strict=True) if not other_positive
    ]  # fmt: skip
    return sum(credits) / len(credits)


def test_auc_on_hand_worked_cases():
    # positives 0.8 and 0.4 against 0.6 and 0.2: three of four pairs in order
    assert roc_auc([0.8, 0.6, 0.4, 0.2], [True, False, True, False]) == 0.75
    # 0.5 ties with one negative and beats the other
    assert roc_auc([0.5, 0.5, 0.1], [True, False, False]) == 0.75
    assert roc_auc([1.0, 1.0], [True, False]) == 0.5
    assert roc_auc([-3.0, 2.0], [True, False]) == 0.0


def test_auc_is_that_of_all_pairs_ties_too():
    rng = random.Random(3)
    for _ in range(50):
        scores = [rng.choice((0.0, 0.1, 0.25, 0.25, 0.7, rng.random())) for _ in range(rng.randint(2, 30))]
        positives = [True, False, *(rng.random() < 0.3 for _ in scores[2:])]
        assert roc_auc(scores, positives) == pytest.approx(slow_auc(scores, positives), abs=1e-12)


def test_the_error_of_an_auc_is_that_of_drawing_the_dialogues_again():
    """Beside 4,000 draws of scores whose AUC is known: normal scores a distance of d apart have Phi(d / sqrt 2)."""
    rng = random.Random(0)
    found = []
    for _ in range(4000):
        scores = [rng.gauss(1.2, 1) for _ in range(12)] + [rng.gauss(0, 1) for _ in range(30)]
        found.append(roc_auc(scores, [True] * 12 + [False] * 30))
    assert auc_error(NormalDist().cdf(1.2 / 2**0.5), 12, 30) == pytest.approx(pstdev(found), rel=0.1)


def test_an_auc_of_one_kind_alone_has_no_error():
    with pytest.raises(ValueError, match="at least one of either kind"):
        auc_error(0.5, 0, 3)


def test_auc_says_nothing_where_one_side_is_missing_and_refuses_what_is_no_number():
    assert roc_auc([], []) is None
    assert roc_auc([1.0, 2.0], [True, True]) is None
    assert roc_auc([1.0, 2.0], [False, False]) is None
    with pytest.raises(ValueError, match="no number"):
        roc_auc([math.nan, 1.0], [True, False])
    with pytest.raises(ValueError, match="2 scores, but 1 labels"):
        roc_auc([1.0, 2.0], [True])


# Temperature


def test_cross_entropy_of_a_soft_target_by_hand():
    # p = 0.8, target 0.75: -(0.75 log 0.8 + 0.25 log 0.2)
    logit = math.log(4)
    assert cross_entropy(logit, 0.75) == pytest.approx(-(0.75 * math.log(0.8) + 0.25 * math.log(0.2)))
    assert cross_entropy(800.0, 0.0) == 800.0
    assert cross_entropy(-800.0, 0.0) == 0.0


def test_temperature_makes_a_share_right_as_often_as_it_says():
    # log 9 says 90 %, three of four are right: log 9 / T = log 3, so T = 2
    logits = [math.log(9)] * 4 + [-math.log(9)] * 4
    targets = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    assert fit_temperature(logits, targets, [1.0] * 8) == pytest.approx(2.0, rel=1e-4)
    # the same by weights, and by soft targets
    weights = [3.0, 1.0]
    assert fit_temperature([math.log(9)] * 2, [1.0, 0.0], weights) == pytest.approx(2.0, rel=1e-4)
    assert fit_temperature([math.log(9), -math.log(9)], [0.75, 0.25], [1.0, 1.0]) == pytest.approx(2.0, rel=1e-4)


@pytest.mark.parametrize(
    ("logits", "targets"),
    [
        ([], []),
        ([1.0, -1.0], [1.0, 1.0]),  # all alike
        ([1.0, -1.0], [1.0, 0.0]),  # certainty fits best
        ([1.0, -1.0], [0.0, 1.0]),  # the wrong order: nothing fits better than knowing nothing
        ([0.0, 0.0], [1.0, 0.0]),
    ],
)
def test_no_temperature_is_better_than_a_silly_one(logits, targets):
    assert fit_temperature(logits, targets, [1.0] * len(logits)) is None


def test_verdicts_that_weigh_nothing_do_not_count_for_the_temperature():
    assert fit_temperature([1.0, -1.0], [1.0, 0.0], [1.0, 0.0]) is None
