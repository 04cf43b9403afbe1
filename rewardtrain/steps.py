"""What trainers that learn from a fixed set of examples do at every step: which come next, how fast, and the update."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from rewardtrain.errors import TrainingDiverged
from rewardtrain.hyperparameters import RewardModelSettings, RuleModelSettings, learning_rate_share
from rewardtrain.optimizer import set_share
from rewardtrain.seeds import stable_seed

if TYPE_CHECKING:
    Paced = RewardModelSettings | RuleModelSettings


def data_order(count: int, size: int, *, epochs: float, seed: int) -> list[list[int]]:
    """Which of `count` examples each step takes, `size` at a time: every epoch all of them in an order of its own.

    It is known from the seed alone. A part of an epoch takes a part of the examples.
    """
    wanted = max(1, round(epochs * count))
    places: list[int] = []
    for epoch in range(math.ceil(wanted / count)):
        own = list(range(count))
        random.Random(stable_seed(seed, "order", epoch)).shuffle(own)
        places += own
    return [places[start : min(start + size, wanted)] for start in range(0, wanted, size)]


def pace(optimizer: torch.optim.Optimizer, step: int, steps: int, settings: Paced) -> float:
    """Set the learning rate of step `step` (from 0); gives its share of the whole one."""
    share = learning_rate_share(
        step, steps, warmup=round(settings.warmup_share * steps), schedule=settings.schedule,
        final=settings.final_learning_rate_share,
    )  # fmt: skip
    set_share(optimizer, share)
    return share


def update(
    optimizer: torch.optim.Optimizer, parameters: Iterable[torch.nn.Parameter], *, max_grad_norm: float, loss: float,
    step: int,
) -> float:  # fmt: skip
    """One step against the gradients that are there, which are cut and forgotten; gives their norm before the cut.

    Raises  TrainingDiverged if the loss or the norm is no number; nothing is updated then
    """
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm))
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise TrainingDiverged(
            f"At step {step + 1} the loss was {loss} and the gradient's norm {norm}. Lower learning_rate."
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm
