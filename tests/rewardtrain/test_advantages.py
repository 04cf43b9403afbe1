"""Generalised advantage estimates against hand-worked numbers and the definition."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from rewardtrain.advantages import gae

t = torch.tensor


def slow_gae(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """Schulman et al., eq. 16: the sum of discounted surprises, each written out."""
    last = len(rewards)
    surprise = [rewards[i] + gamma * (values[i + 1] if i + 1 < last else 0.0) - values[i] for i in range(last)]
    return [sum((gamma * lam) ** (k - i) * surprise[k] for k in range(i, last)) for i in range(last)]


def test_gae_without_discount_is_reward_to_go_minus_value():
    advantages = gae(t([[0.0, 0.0, 1.0]]), t([[0.5, 0.5, 0.5]]), t([[True] * 3]), gamma=1.0, lam=1.0)
    assert_close(advantages, t([[0.5, 0.5, 0.5]]))


def test_lambda_0_is_the_one_step_surprise():
    advantages = gae(t([[0.0, 0.0, 1.0]]), t([[0.5, 0.5, 0.5]]), t([[True] * 3]), gamma=1.0, lam=0.0)
    assert_close(advantages, t([[0.0, 0.0, 0.5]]))


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.8), (0.0, 0.5)])
def test_gae_equals_its_definition_on_ragged_replies(gamma, lam):
    lengths = [5, 1, 3]
    rewards, values = torch.randn(3, 5), torch.randn(3, 5)
    mask = t([[place < length for place in range(5)] for length in lengths])
    advantages = gae(rewards, values, mask, gamma=gamma, lam=lam)
    for row, length in enumerate(lengths):
        slow = slow_gae(rewards[row, :length].tolist(), values[row, :length].tolist(), gamma, lam)
        assert_close(advantages[row, :length], t(slow), atol=1e-5, rtol=1e-5)
        assert (advantages[row, length:] == 0).all()


def test_what_stands_in_the_padding_changes_nothing():
    rewards, values, mask = t([[1.0, 2.0, 9e9]]), t([[0.1, 0.2, -9e9]]), t([[True, True, False]])
    short = gae(rewards[:, :2], values[:, :2], mask[:, :2], gamma=1.0, lam=0.95)
    assert_close(gae(rewards, values, mask, gamma=1.0, lam=0.95)[:, :2], short)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one shape"):
        gae(torch.zeros(2, 3), torch.zeros(2, 4), torch.ones(2, 3).bool(), gamma=1.0, lam=1.0)


def test_a_reply_with_a_hole_is_refused():
    with pytest.raises(ValueError, match="hole"):
        gae(torch.zeros(1, 3), torch.zeros(1, 3), t([[True, False, True]]), gamma=1.0, lam=1.0)
