"""Which token of a reply earned its reward.

A reward model that reads a reply from left to right also says what the reply would score if it ended after each of its
tokens. Paying a token by how much it moved that score, and the last one by what is left, leaves each reply's sum as it
is, so that what is optimal stays optimal (potential-based shaping: Ng, Harada and Russell 1999), while each token
learns from what it did itself instead of from what became of the whole reply.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rewardtrain.chat import Turn

TOKEN, REPLY = "token", "reply"


@dataclass(frozen=True)
class TokenScores:
    """A reply as a reward model reads it.

    ids    its tokens, as the reward model cuts the text
    after  (T,) what it would score if it ended after each of them
    whole  its score
    """

    ids: Sequence[int]
    after: Tensor
    whole: float


TokenScorer = Callable[[Sequence[Sequence[Turn]], Sequence[Sequence[str]]], Sequence[Sequence[TokenScores]]]
"""Prompts and the replies to each, to as many token scores: what `RewardModel.token_scores` is."""


def after_tokens(scores: TokenScores, token_ids: Sequence[int]) -> tuple[Tensor, int]:
    """((T,) the score after each token of a reply as its policy wrote it, how many of these are known).

    As far as policy and reward model cut the text alike; the last score that is known holds from there on.
    """
    known = 0
    for mine, theirs in zip(token_ids, scores.ids, strict=False):
        if mine != theirs:
            break
        known += 1
    after = torch.zeros(len(token_ids))
    if known:
        after[:known] = scores.after[:known]
        after[known:] = scores.after[known - 1]
    return after, known


def paid_by_token(progress: Tensor, mask: Tensor) -> Tensor:
    """(B, T) by how much each token moved the reward; the sum of a row is the row's last progress.

    progress  (B, T) the reward if the reply ended after each token; at a reply's last token its whole reward
    """
    before = torch.cat([progress.new_zeros(len(progress), 1), progress[:, :-1]], dim=1)
    return torch.where(mask, progress - before, 0.0)
