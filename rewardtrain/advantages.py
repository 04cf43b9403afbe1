"""How much better each token was than expected."""

from __future__ import annotations

import torch
from torch import Tensor


def gae(rewards: Tensor, values: Tensor, response_mask: Tensor, *, gamma: float, lam: float) -> Tensor:
    """Generalised advantage estimates for a batch of rollouts.

    rewards        (B, T) float  per token, KL penalty included
    values         (B, T) float  value before each response token
    response_mask  (B, T) bool   True on real response tokens, which stand at the left
    Returns        (B, T) float  not whitened, 0 where masked
    Raises         ValueError if the shapes differ, or a response has a hole
    Source         Schulman et al. 2016, arXiv:1506.02438, eq. 16
    """
    if not rewards.shape == values.shape == response_mask.shape:
        shapes = [tuple(one.shape) for one in (rewards, values, response_mask)]
        raise ValueError(f"rewards, values and response_mask must have one shape, but have {shapes}.")
    if (response_mask[:, 1:] & ~response_mask[:, :-1]).any():
        raise ValueError("A response has a hole: its real tokens must stand together at the left.")
    rewards, values = torch.where(response_mask, rewards, 0.0), torch.where(response_mask, values, 0.0)
    next_values = torch.cat([values[:, 1:], values.new_zeros(len(values), 1)], dim=1)  # nothing follows the last token
    surprises = rewards + gamma * next_values - values
    advantages = torch.zeros_like(rewards)
    running = rewards.new_zeros(len(rewards))
    for step in reversed(range(rewards.shape[1])):
        running = surprises[:, step] + gamma * lam * running
        advantages[:, step] = running
    return torch.where(response_mask, advantages, 0.0)
