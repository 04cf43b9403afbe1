"""Policy, value head, reference and reward model on one frozen base: each is an adapter or a head of its own.

A reward model that was trained as an adapter on the policy's base needs no network of its own in PPO: its adapter lies
beside the policy's, and scoring switches to it and back.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewardtrain.chat import Reply, Turn
from rewardtrain.checkpoints import ADAPTER_CONFIG, base_of_adapter, model_folder_hash
from rewardtrain.credit import TokenScores
from rewardtrain.lora import REWARD, add_frozen_adapter, has_lora, through_adapter
from rewardtrain.policy import Policy
from rewardtrain.reward_model import RewardModel, head_config_in

logger = logging.getLogger(__name__)


class RewardOnSharedBase:
    """A reward model whose network is a policy's, through an adapter of its own."""

    def __init__(self, reward_model: RewardModel, adapter: str = REWARD):
        self.reward_model = reward_model
        self.adapter = adapter

    @property
    def scores_tokens(self) -> bool:
        """As of the reward model."""
        return self.reward_model.scores_tokens

    @torch.no_grad()
    def scores(self, prompts: Sequence[Sequence[Turn]], replies: Sequence[Sequence[Reply]]) -> list[Tensor]:
        """`RewardModel.scores`, without gradients; the policy's adapter speaks again when this is left."""
        with self._speaking():
            return self.reward_model.scores(prompts, replies)

    def token_scores(
        self, prompts: Sequence[Sequence[Turn]], replies: Sequence[Sequence[Reply]]
    ) -> list[list[TokenScores]]:
        """`RewardModel.token_scores`; the policy's adapter speaks again when this is left."""
        with self._speaking():
            return self.reward_model.token_scores(prompts, replies)

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        network = self.reward_model.network
        was_training = network.training
        network.eval()
        try:
            with through_adapter(network, self.adapter):
                yield
        finally:
            network.train(was_training)


def reward_beside(
    policy: Policy, policy_folder: Path, folder: Path, *, dtype: str = "float32"
) -> RewardOnSharedBase | RewardModel:
    """The reward model saved in `folder`: on the policy's network where that is its base as well, else on its own.

    policy  loaded from `policy_folder`; is given one more adapter where the base is shared
    Raises  ModelRefused
    """
    if reason := why_apart(policy, policy_folder, folder):
        logger.info("the reward model is loaded as a network of its own: %s", reason)
        return RewardModel.load(folder, dtype=dtype, device=str(policy.device))
    add_frozen_adapter(policy.network, folder, REWARD)
    logger.info("the reward model shares the policy's base folder=%s", folder)
    return RewardOnSharedBase(RewardModel.around(policy.network, folder, head_config_in(folder)))


def why_apart(policy: Policy, policy_folder: Path, folder: Path) -> str | None:
    """Why the reward model in `folder` cannot be one more adapter on the policy's network; None if it can."""
    if not has_lora(policy.network):
        return "the policy trains every weight of its base (set lora.rank for it)"
    if not (folder / ADAPTER_CONFIG).is_file():
        return "it was trained with every weight of its base (set lora.rank for it)"
    if not head_config_in(folder).is_language_model:
        return "it was trained without its base's output layer (set likelihood to auto)"
    if odd := _beyond_lora(folder):
        return f"its adapter has more than low-rank factors ({odd})"
    if not _same_files(_base_of(policy_folder), base_of_adapter(folder)):
        return "its base holds other files than the policy's"
    return None


def _beyond_lora(folder: Path) -> str:
    """What an adapter made elsewhere may change beside adding low-rank factors, which another must not meet."""
    config: dict[str, Any] = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    odd = [] if config.get("peft_type") == "LORA" else [f"peft_type {config.get('peft_type')}"]
    odd += [f"bias {config['bias']}"] if config.get("bias", "none") != "none" else []
    odd += [name for name in ("modules_to_save", "trainable_token_indices", "layer_replication") if config.get(name)]
    return ", ".join(odd)


def _base_of(folder: Path) -> Path:
    return base_of_adapter(folder) if (folder / ADAPTER_CONFIG).is_file() else folder


def _same_files(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve() or model_folder_hash(one) == model_folder_hash(other)
