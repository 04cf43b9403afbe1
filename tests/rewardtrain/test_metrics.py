"""Reported figures against hand-worked numbers."""

from __future__ import annotations

import math

import pytest

from feedback.agreement import Share
from rewardtrain.metrics import (
    Calibration,
    CalibrationBin,
    ScoredPair,
    accuracy_by_strength,
    calibration,
    explained_variance,
    length_baseline,
    most_alike_in_length,
    pair_accuracy,
    pair_calibration,
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
