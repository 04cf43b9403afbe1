"""Small trainings of each kind, with all they tell on the way: for tests that stop them and let them go on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rewardtrain import ppo
from rewardtrain.hyperparameters import PpoSettings, RewardModelSettings, RuleModelSettings, SamplingSettings
from rewardtrain.policy import PolicyWithValue, reference_policy
from rewardtrain.reward_training import train_reward_model
from rewardtrain.rollouts import WeightedReward
from rewardtrain.rule_training import train_rule_model
from rewardtrain.training_state import StateKeeper, weights_hash
from tests.rewardtrain.tiny import make_gpt2, make_llama, make_tokenizer, planted, planted_verdicts, save_base, user

TRAIN, HELD_OUT = planted(40, seed=1), planted(10, seed=2)
JUDGED, JUDGED_HELD_OUT = planted_verdicts(40, seed=1), planted_verdicts(10, seed=2)
REWARD = RewardModelSettings(
    learning_rate=3e-3, epochs=1, seed=5, checkpoint_seconds=0, early_stopping=True, evaluations_per_epoch=4, patience=9
)
RULES = RuleModelSettings(
    learning_rate=3e-3, epochs=1, seed=5, checkpoint_seconds=0, early_stopping=True, evaluations_per_epoch=4,
    patience=9, unjudged_rules=1,
)  # fmt: skip
PPO = PpoSettings(
    updates=6, samples_per_update=8, samples_per_prompt=2, minibatch_size=4, kl_coef=0.1, kl_controller="adaptive",
    checkpoint_seconds=0, seed=3, sampling=SamplingSettings(max_new_tokens=8),
)  # fmt: skip
PROMPTS = [[user("x" * length)] for length in range(1, 12)]


def count_e(prompts, replies):
    return [[float(text.count("e")) for text in own] for own in replies]


def save_bases(root: Path) -> dict[str, Path]:
    """A base for each; the reward model's has dropout, so that it is drawn alike as well."""
    gpt2 = save_base(root / "gpt2", make_gpt2(dropout=0.1), make_tokenizer())
    llama = save_base(root / "llama", make_llama(), make_tokenizer())
    return {"reward model": gpt2, "rule model": gpt2, "policy": llama}


@dataclasses.dataclass
class Trained:
    """What a run ended with, and what it told on the way."""

    weights: str
    history: list[dict[str, Any]]
    begun: tuple[int, int]
    told: list[int]


def learn_rewards(base: Path, keeper: StateKeeper | None, settings: RewardModelSettings = REWARD) -> Trained:
    begun, told = [], []
    result = train_reward_model(
        TRAIN, base=base, settings=settings, validation=HELD_OUT, keeper=keeper,
        on_begin=lambda *counts: begun.append(counts), on_step=lambda step: told.append(step.step),
    )  # fmt: skip
    history = [step.to_dict() for step in result.history]
    return Trained(weights_hash(result.reward_model), history, begun[0], told)


def learn_rules(base: Path, keeper: StateKeeper | None, settings: RuleModelSettings = RULES) -> Trained:
    begun, told = [], []
    result = train_rule_model(
        JUDGED, base=base, settings=settings, validation=JUDGED_HELD_OUT, keeper=keeper,
        on_begin=lambda *counts: begun.append(counts), on_step=lambda step: told.append(step.step),
    )  # fmt: skip
    history = [step.to_dict() for step in result.history]
    return Trained(weights_hash(result.rule_model), history, begun[0], told)


def learn_policy(
    base: Path, keeper: StateKeeper | None, settings: PpoSettings = PPO, network: Any = None, **more: Any
) -> Trained:
    begun, told, ledger = [], [], []
    policy = PolicyWithValue(network or make_llama(), make_tokenizer())
    result = ppo.train_policy(
        PROMPTS, policy=policy, ref_policy=reference_policy(policy), settings=settings, keeper=keeper,
        rewards=[WeightedReward("letter e", 1.0, count_e, mean=0.1, std=0.5)],
        on_begin=lambda *counts: begun.append(counts), on_step=lambda step: told.append(step.step),
        ledger=lambda entries: ledger.append([dataclasses.asdict(entry) for entry in entries]), **more,
    )  # fmt: skip
    assert len(ledger) == len(told)
    return Trained(weights_hash(policy), [step.to_dict() for step in result.steps], begun[0], told)


TRAINERS: dict[str, Callable[..., Trained]] = {
    "reward model": learn_rewards,
    "rule model": learn_rules,
    "policy": learn_policy,
}
SETTINGS: dict[str, Any] = {"reward model": REWARD, "rule model": RULES, "policy": PPO}
