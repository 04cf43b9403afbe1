"""Losses as plain tensor functions: ranked preferences, PPO's clipped policy and value losses, masked statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

STRENGTH_MARGINS = {1: 0.0, 2: 1 / 3, 3: 2 / 3, 4: 1.0}
"""Margin by how clear the best is, 1 a hair … 4 by far. Llama 2 (arXiv:2307.09288), the small margins of table 27."""

THRESHOLD = -1
"""Stands for the fixed score 0 in a pair: what a reply must beat to be good at all."""


@dataclass(frozen=True)
class Pair:
    """Two candidates by place; `chosen` should score higher by `margin`. target 0.5 makes it a tie."""

    chosen: int
    rejected: int
    target: float = 1.0
    margin: float = 0.0


def comparison_pairs(
    ranks: Sequence[int | None],
    *,
    strength: int | None = None,
    is_all_bad: bool = False,
    ties: str = "none",
    margin: str = "none",
    all_bad: str = "off",
) -> list[Pair]:
    """All pairs that one ranking says something about.

    ranks     one per candidate, 1 best, equal ranks tie, None unranked (in no pair)
    strength  how clear the best is, 1 … 4; with margin="strength" it widens the pairs the best wins, no others:
              the annotator was asked about the best alone
    ties      "none": ties are left out (InstructGPT); "half": they pull both scores together (WebGPT)
    all_bad   "on": a score of 0 takes part as one more candidate; every reply of a comparison in which none was
              good loses to it, and the best of any other comparison beats it (the idea is Sparrow's)

    >>> [(pair.chosen, pair.rejected) for pair in comparison_pairs([2, 1, 2])]
    [(1, 0), (1, 2)]
    """
    ranked = [(place, rank) for place, rank in enumerate(ranks) if rank is not None]
    best = min((rank for _, rank in ranked), default=None)
    best_margin = STRENGTH_MARGINS[strength] if margin == "strength" and strength else 0.0
    pairs = []
    for number, (one, one_rank) in enumerate(ranked):
        for other, other_rank in ranked[number + 1 :]:
            if one_rank == other_rank:
                if ties == "half":
                    pairs.append(Pair(one, other, target=0.5))
                continue
            chosen, rejected = (one, other) if one_rank < other_rank else (other, one)
            wins = min(one_rank, other_rank) == best
            pairs.append(Pair(chosen, rejected, margin=best_margin if wins else 0.0))
    if all_bad == "on":
        pairs += _threshold_pairs(ranks, best, is_all_bad)
    return sorted(pairs, key=lambda pair: (pair.chosen, pair.rejected))


def _threshold_pairs(ranks: Sequence[int | None], best: int | None, is_all_bad: bool) -> list[Pair]:
    if is_all_bad:
        return [Pair(THRESHOLD, place) for place in range(len(ranks))]
    return [Pair(place, THRESHOLD) for place, rank in enumerate(ranks) if rank is not None and rank == best]


def pairwise_loss(difference: Tensor, *, margin: Tensor | float = 0.0, target: Tensor | float = 1.0) -> Tensor:
    """Cross entropy of "the first is better" for score differences, elementwise.

    difference  scores of the chosen less scores of the rejected
    margin      how far apart they should be: -log sigmoid(difference - margin). Llama 2, eq. 2
    target      probability that the chosen is better: 1, or 0.5 for a tie
    """
    logits = difference - margin
    target = torch.as_tensor(target, dtype=logits.dtype, device=logits.device)
    return -(target * functional.logsigmoid(logits) + (1 - target) * functional.logsigmoid(-logits))


def comparison_loss(scores: Tensor, pairs: Sequence[Pair]) -> Tensor:
    """Mean loss over the pairs of one comparison.

    scores   (K,) one per candidate
    Returns  scalar; 0 (with a gradient of 0) when the ranking says nothing
    """
    if not pairs:
        return scores.sum() * 0.0
    with_threshold = torch.cat([scores, scores.new_zeros(1)])  # place -1 is the threshold
    chosen = with_threshold[[pair.chosen for pair in pairs]]
    rejected = with_threshold[[pair.rejected for pair in pairs]]
    margin = scores.new_tensor([pair.margin for pair in pairs])
    target = scores.new_tensor([pair.target for pair in pairs])
    return pairwise_loss(chosen - rejected, margin=margin, target=target).mean()


def listwise_preference_loss(scores: Sequence[Tensor], pairs: Sequence[Sequence[Pair]]) -> Tensor:
    """Mean over comparisons of the mean over their pairs, so that a comparison weighs the same whatever its K.

    scores   one (K,) tensor per comparison; K may differ
    pairs    of each comparison, from `comparison_pairs`; comparisons without any do not count
    Source   Ouyang et al. 2022, arXiv:2203.02155, eq. 1: -1 / C(K, 2) · E[log sigmoid(r_w - r_l)]
    """
    if len(scores) != len(pairs):
        raise ValueError(f"{len(scores)} comparisons were scored, but pairs given for {len(pairs)}.")
    losses = [comparison_loss(one, own_pairs) for one, own_pairs in zip(scores, pairs, strict=True) if own_pairs]
    if not losses:
        return torch.cat([one.reshape(-1) for one in scores]).sum() * 0.0
    return torch.stack(losses).mean()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the places where `mask` is True; 0 when there are none."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def masked_variance(values: Tensor, mask: Tensor) -> Tensor:
    """Population variance over the places where `mask` is True."""
    return masked_mean((values - masked_mean(values, mask)) ** 2, mask)


def masked_whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """`values` with variance 1 (and mean 0, unless shift_mean is False) over the mask; 0 elsewhere."""
    mean = masked_mean(values, mask)
    whitened = (values - mean) * torch.rsqrt(masked_variance(values, mask) + 1e-8)
    return torch.where(mask, whitened if shift_mean else whitened + mean, 0.0)


@dataclass(frozen=True)
class PolicyLoss:
    """`loss` is the sum over tokens (divide by their number); clip_fraction and approximate_kl are sums as well."""

    loss: Tensor
    clip_fraction: Tensor
    approximate_kl: Tensor


def clipped_policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, response_mask: Tensor, *, clip_range: float
) -> PolicyLoss:
    """PPO's clipped surrogate, summed over real tokens so that parts of a minibatch add up.

    logprobs, old_logprobs, advantages  (...) float, any equal shapes
    response_mask                       (...) bool, True on real response tokens
    approximate_kl                      sum of (ratio - 1) - log ratio, an unbiased estimate of KL(old || new)
    Source                              Schulman et al. 2017, arXiv:1707.06347, eq. 7
    """
    _same_shape(logprobs, old_logprobs, advantages, response_mask)
    log_ratio = torch.where(response_mask, logprobs - old_logprobs, 0.0)
    ratio = log_ratio.exp()
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
    with torch.no_grad():
        was_clipped = torch.where(response_mask, (clipped > unclipped).float(), 0.0)
        approximate_kl = (ratio - 1) - log_ratio
    return PolicyLoss(
        loss=torch.where(response_mask, torch.maximum(unclipped, clipped), 0.0).sum(),
        clip_fraction=was_clipped.sum(),
        approximate_kl=approximate_kl.sum(),
    )


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, response_mask: Tensor, *, clip_range: float
) -> Tensor:
    """Half the squared error to the returns, summed over real tokens; a step beyond the clip range gains nothing.

    Source  the PPO2 baseline's value clipping, as in Stiennon et al. 2020's code
    """
    _same_shape(values, old_values, returns, response_mask)
    near = old_values + (values - old_values).clamp(-clip_range, clip_range)
    worse = torch.maximum((values - returns) ** 2, (near - returns) ** 2)
    return 0.5 * torch.where(response_mask, worse, 0.0).sum()


def token_logprobs(logits: Tensor, token_ids: Tensor) -> Tensor:
    """log p of the tokens taken. logits (..., V), token_ids (...)."""
    flat = functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), token_ids.reshape(-1), reduction="none")
    return -flat.reshape(token_ids.shape)


def token_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of each token's distribution. logits (..., V)."""
    logprobs = logits.log_softmax(dim=-1)
    return -(logprobs.exp() * logprobs).sum(dim=-1)


def _same_shape(*tensors: Tensor) -> None:
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) != 1:
        raise ValueError(f"These must have one shape, but have {sorted(shapes)}.")
