"""Preference losses, PPO's losses and masked statistics, against hand-worked numbers and slow versions."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.testing import assert_close

from rewardtrain.losses import (
    THRESHOLD,
    Pair,
    clipped_policy_loss,
    clipped_value_loss,
    comparison_loss,
    comparison_pairs,
    listwise_preference_loss,
    masked_mean,
    masked_variance,
    masked_whiten,
    pairwise_loss,
    token_entropy,
    token_logprobs,
)

t = torch.tensor


def log_sigmoid(x: float) -> float:
    return -math.log(1 + math.exp(-x))


# Which pairs a ranking gives


def test_a_full_ranking_gives_every_pair_once_better_first():
    ranks = [3, 1, 4, 2]
    pairs = {(pair.chosen, pair.rejected) for pair in comparison_pairs(ranks)}
    assert pairs == {(a, b) for a, b in itertools.permutations(range(4), 2) if ranks[a] < ranks[b]}


def test_ties_are_left_out_or_pull_together():
    assert comparison_pairs([1, 1]) == []
    assert comparison_pairs([1, 1], ties="half") == [Pair(0, 1, target=0.5)]


def test_unranked_candidates_are_in_no_pair():
    assert comparison_pairs([None, 1, None, 2]) == [Pair(1, 3)]
    assert comparison_pairs([None, None]) == []


@pytest.mark.parametrize(("strength", "margin"), [(4, 1.0), (3, 2 / 3), (2, 1 / 3), (1, 0.0), (None, 0.0)])
def test_strength_widens_the_pairs_the_best_wins_and_no_others(strength, margin):
    pairs = comparison_pairs([1, 2, 3], strength=strength, margin="strength")
    assert {(pair.chosen, pair.rejected): pair.margin for pair in pairs} == {
        (0, 1): margin,
        (0, 2): margin,
        (1, 2): 0.0,
    }


def test_strength_means_nothing_unless_margins_are_asked_for():
    assert all(pair.margin == 0 for pair in comparison_pairs([1, 2], strength=4))


def test_when_none_is_good_every_reply_loses_to_the_threshold():
    pairs = comparison_pairs([1, 2, None], is_all_bad=True, all_bad="on")
    assert {(pair.chosen, pair.rejected) for pair in pairs} == {(THRESHOLD, 0), (THRESHOLD, 1), (THRESHOLD, 2), (0, 1)}


def test_the_best_of_an_ordinary_comparison_beats_the_threshold():
    pairs = comparison_pairs([2, 1, 1], all_bad="on")
    assert {(pair.chosen, pair.rejected) for pair in pairs} == {(1, 0), (2, 0), (1, THRESHOLD), (2, THRESHOLD)}


def test_all_bad_means_nothing_unless_it_is_switched_on():
    assert comparison_pairs([1, 1], is_all_bad=True) == []


# The loss of a pair


def test_pairwise_loss_is_minus_log_sigmoid_of_the_difference():
    assert_close(pairwise_loss(t([0.0, 2.0])), t([math.log(2), -log_sigmoid(2.0)]))


def test_a_tie_costs_least_when_the_scores_are_equal():
    even, apart = pairwise_loss(t([0.0, 3.0]), target=0.5)
    assert even == pytest.approx(math.log(2))
    assert apart == pytest.approx(-0.5 * (log_sigmoid(3.0) + log_sigmoid(-3.0)))


@pytest.mark.parametrize("m", [-2.0, 0.25, 3.0])
def test_the_loss_at_m_less_the_loss_at_minus_m_is_minus_m(m):
    assert_close(pairwise_loss(t([m])) - pairwise_loss(t([-m])), t([-m]))


def test_a_margin_moves_the_difference():
    assert_close(pairwise_loss(t([1.5]), margin=1.0), pairwise_loss(t([0.5])))


def test_a_very_wrong_pair_has_a_finite_loss():
    assert_close(pairwise_loss(t([-500.0])), t([500.0]))


# The loss of comparisons


def slow_listwise(scores: list[list[float]], ranks: list[list[int | None]]) -> float:
    """Ouyang et al., eq. 1, pair by pair in plain Python."""
    per_comparison = []
    for own, own_ranks in zip(scores, ranks, strict=True):
        losses = []
        for a, b in itertools.permutations(range(len(own)), 2):
            if own_ranks[a] is not None and own_ranks[b] is not None and own_ranks[a] < own_ranks[b]:
                losses.append(-log_sigmoid(own[a] - own[b]))
        if losses:
            per_comparison.append(sum(losses) / len(losses))
    return sum(per_comparison) / len(per_comparison)


def test_listwise_loss_equals_the_pair_by_pair_sum():
    scores = [[0.3, -1.2, 2.0, 0.1], [1.0, 0.0], [0.5, 0.4, -0.4]]
    ranks = [[2, 4, 1, 2], [2, 1], [1, None, 2]]
    loss = listwise_preference_loss([t(own) for own in scores], [comparison_pairs(own) for own in ranks])
    assert float(loss) == pytest.approx(slow_listwise(scores, ranks), abs=1e-6)


def test_a_comparison_weighs_the_same_whatever_its_k():
    equal_scores = [torch.zeros(2, requires_grad=True), torch.zeros(9, requires_grad=True)]
    loss = listwise_preference_loss(equal_scores, [comparison_pairs([1, 2]), comparison_pairs(list(range(1, 10)))])
    assert loss.item() == pytest.approx(math.log(2))  # every pair costs log 2, whatever the weights
    alone = [listwise_preference_loss([t([1.0, 0.0])], [comparison_pairs([1, 2])])]
    nine = t([float(9 - place) for place in range(9)])
    alone.append(listwise_preference_loss([nine], [comparison_pairs(list(range(1, 10)))]))
    both = listwise_preference_loss(
        [t([1.0, 0.0]), nine], [comparison_pairs([1, 2]), comparison_pairs(list(range(1, 10)))]
    )
    assert_close(both, (alone[0] + alone[1]) / 2)


def test_comparisons_that_say_nothing_do_not_count():
    one = t([2.0, 1.0])
    with_empty = listwise_preference_loss([one, t([5.0, 5.0])], [comparison_pairs([1, 2]), []])
    assert_close(with_empty, listwise_preference_loss([one], [comparison_pairs([1, 2])]))


def test_nothing_to_say_at_all_costs_nothing_and_still_has_a_gradient():
    scores = torch.ones(3, requires_grad=True)
    for loss in (listwise_preference_loss([scores], [[]]), comparison_loss(scores, [])):
        assert float(loss) == 0
        assert_close(torch.autograd.grad(loss, scores)[0], torch.zeros(3))


def test_counts_of_scores_and_rankings_must_agree():
    with pytest.raises(ValueError, match="2 comparisons were scored"):
        listwise_preference_loss([t([1.0]), t([2.0])], [[]])


def test_the_threshold_is_a_score_of_zero():
    loss = comparison_loss(t([1.5]), [Pair(THRESHOLD, 0)])
    assert float(loss) == pytest.approx(-log_sigmoid(-1.5))
    assert float(comparison_loss(t([1.5]), [Pair(0, THRESHOLD)])) == pytest.approx(-log_sigmoid(1.5))


def test_margin_and_target_of_each_pair_are_its_own():
    loss = comparison_loss(t([1.0, 0.0]), [Pair(0, 1, margin=0.5), Pair(0, 1, target=0.5)])
    tie = -0.5 * (log_sigmoid(1.0) + log_sigmoid(-1.0))
    assert float(loss) == pytest.approx((-log_sigmoid(0.5) + tie) / 2)


# Masked statistics


def test_masked_mean_and_variance_see_only_the_mask():
    values, mask = t([[1.0, 3.0, 99.0], [5.0, -99.0, -99.0]]), t([[True, True, False], [True, False, False]])
    assert float(masked_mean(values, mask)) == pytest.approx(3.0)
    assert float(masked_variance(values, mask)) == pytest.approx(8 / 3)
    assert float(masked_mean(values, torch.zeros_like(mask))) == 0


def test_whitened_values_have_mean_0_and_variance_1_within_the_mask():
    values, mask = torch.randn(4, 7), torch.rand(4, 7) > 0.4
    whitened = masked_whiten(values, mask)
    assert float(whitened[mask].mean()) == pytest.approx(0, abs=1e-6)
    assert float(whitened[mask].var(unbiased=False)) == pytest.approx(1, abs=1e-4)
    assert (whitened[~mask] == 0).all()
    kept = masked_whiten(values, mask, shift_mean=False)
    assert float(kept[mask].mean()) == pytest.approx(float(values[mask].mean()), abs=1e-6)


def test_whitening_ignores_what_stands_in_the_padding():
    values, mask = t([[1.0, 2.0, float("inf")]]), t([[True, True, False]])
    assert_close(masked_whiten(values, mask), t([[-1.0, 1.0, 0.0]]))


# PPO


def slow_policy_loss(new, old, advantage, clip):
    ratio = math.exp(new - old)
    return max(-advantage * ratio, -advantage * min(max(ratio, 1 - clip), 1 + clip))


def test_policy_loss_equals_the_formula_token_by_token():
    new, old = t([[-0.1, -2.0, -0.5], [-1.0, -0.2, -3.0]]), t([[-0.5, -1.0, -0.5], [-1.4, -0.3, -1.0]])
    advantages = t([[1.0, -1.0, 0.5], [-2.0, 3.0, 1.0]])
    mask = t([[True, True, True], [True, True, False]])
    result = clipped_policy_loss(new, old, advantages, mask, clip_range=0.2)
    places = [(i, j) for i in range(2) for j in range(3) if mask[i, j]]
    slow = [slow_policy_loss(float(new[p]), float(old[p]), float(advantages[p]), 0.2) for p in places]
    assert float(result.loss) == pytest.approx(sum(slow), abs=1e-5)
    # clipped: ratios 1.49 with advantage 1 and 0.37 with advantage -1; 1.49 with -2 is not, the larger loss stands
    assert float(result.clip_fraction) == 2
    k3 = [math.exp(float(new[p] - old[p])) - 1 - float(new[p] - old[p]) for p in places]
    assert float(result.approximate_kl) == pytest.approx(sum(k3), abs=1e-5)


def test_a_clipped_token_has_no_gradient_and_an_unclipped_one_has():
    new = t([[0.5, 0.1]], requires_grad=True)
    loss = clipped_policy_loss(new, t([[0.0, 0.0]]), t([[1.0, 1.0]]), t([[True, True]]), clip_range=0.2).loss
    gradient = torch.autograd.grad(loss, new)[0]
    assert gradient[0, 0] == 0
    assert float(gradient[0, 1]) == pytest.approx(-math.exp(0.1))


def test_an_unmoved_policy_pays_minus_its_advantage_and_nothing_is_clipped():
    logprobs, advantages = torch.randn(3, 4), torch.randn(3, 4)
    result = clipped_policy_loss(
        logprobs, logprobs.clone(), advantages, torch.ones(3, 4, dtype=torch.bool), clip_range=0.2
    )
    assert_close(result.loss, -advantages.sum())
    assert float(result.clip_fraction) == float(result.approximate_kl) == 0


def test_padding_changes_no_loss():
    new, old, advantages = (torch.randn(2, 3) for _ in range(3))
    mask = torch.ones(2, 3, dtype=torch.bool)
    plain = clipped_policy_loss(new, old, advantages, mask, clip_range=0.2)
    junk = torch.full((2, 2), 1e4)
    padded = [torch.cat([one, junk], dim=1) for one in (new, old, advantages)]
    longer = clipped_policy_loss(*padded, torch.cat([mask, torch.zeros(2, 2, dtype=torch.bool)], dim=1), clip_range=0.2)
    assert_close(plain.loss, longer.loss)
    assert_close(plain.approximate_kl, longer.approximate_kl)


def test_value_loss_takes_the_worse_of_clipped_and_unclipped():
    # value 2, before 0, clip 0.5, return 3: unclipped error 1, clipped value 0.5 has error 2.5
    args = t([[2.0]]), t([[0.0]]), t([[3.0]]), t([[True]])
    assert float(clipped_value_loss(*args, clip_range=0.5)) == pytest.approx(0.5 * 2.5**2)
    # within the range both are the same
    args = t([[0.3]]), t([[0.0]]), t([[1.0]]), t([[True]])
    assert float(clipped_value_loss(*args, clip_range=0.5)) == pytest.approx(0.5 * 0.7**2)
    # a step past the return: the unclipped error is the worse one
    args = t([[3.0]]), t([[0.0]]), t([[0.2]]), t([[True]])
    assert float(clipped_value_loss(*args, clip_range=0.5)) == pytest.approx(0.5 * 2.8**2)


def test_masked_values_cost_nothing():
    args = t([[1.0, 9e9]]), t([[1.0, 0.0]]), t([[2.0, 0.0]]), t([[True, False]])
    assert float(clipped_value_loss(*args, clip_range=9.0)) == pytest.approx(0.5)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="must have one shape"):
        clipped_value_loss(
            torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 2), torch.ones(2, 3).bool(), clip_range=1
        )


# Tokens


def test_token_logprobs_and_entropy_equal_their_definitions():
    logits = torch.randn(2, 3, 5)
    ids = torch.randint(5, (2, 3))
    logprobs = token_logprobs(logits, ids)
    entropy = token_entropy(logits)
    for i, j in itertools.product(range(2), range(3)):
        weights = [math.exp(x) for x in logits[i, j].tolist()]
        chances = [weight / sum(weights) for weight in weights]
        assert float(logprobs[i, j]) == pytest.approx(math.log(chances[int(ids[i, j])]), abs=1e-5)
        assert float(entropy[i, j]) == pytest.approx(-sum(p * math.log(p) for p in chances), abs=1e-5)


def test_an_even_distribution_has_the_highest_entropy():
    assert float(token_entropy(torch.zeros(8))) == pytest.approx(math.log(8))
