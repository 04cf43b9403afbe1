"""Trainings as a team, started by torch.distributed.run or once alone; writes what each process ends with."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch

from rewardtrain import ppo
from rewardtrain.examples import Example, Mixture
from rewardtrain.policy import PolicyWithValue, reference_policy
from rewardtrain.reward_training import train_reward_model
from rewardtrain.rollouts import WeightedReward
from rewardtrain.team import Team, join, leave
from rewardtrain.training_state import StateKeeper, StateReader
from tests.rewardtrain.tiny import make_llama, make_tokenizer
from tests.rewardtrain.trainings import HELD_OUT, PPO, PROMPTS, REWARD, TRAIN, count_e


def keeper_of(folder: Path, team: Team) -> StateKeeper:
    kind = StateKeeper if team.is_first else StateReader
    return kind(folder, every_seconds=0)


def learn_rewards(base: Path, states: Path, team: Team) -> tuple[Any, list[dict[str, Any]]]:
    settings = dataclasses.replace(REWARD, comparisons_per_step=3, dropout=False)
    result = train_reward_model(
        TRAIN, base=base, settings=settings, validation=HELD_OUT, keeper=keeper_of(states, team), team=team
    )
    return result.reward_model, [step.to_dict() for step in result.history]


def learn_policy(base: Path, states: Path, team: Team) -> tuple[Any, list[dict[str, Any]]]:
    policy = PolicyWithValue(make_llama(), make_tokenizer())
    result = ppo.train_policy(
        PROMPTS, policy=policy, ref_policy=reference_policy(policy), keeper=keeper_of(states, team), team=team,
        settings=dataclasses.replace(PPO, updates=3, samples_per_update=12, minibatch_size=6, ptx_coef=0.5, ptx_rows=3),
        mixed_in=Mixture([Example([5, 6, 7 + number, 2], start=2) for number in range(4)], seed=1),
        rewards=[WeightedReward("letter e", 1.0, count_e, mean=0.1, std=0.5)],
    )  # fmt: skip
    return policy, [step.to_dict() for step in result.steps]


def main(kind: str, base: Path, states: Path, out: Path) -> None:
    torch.set_num_threads(1)
    team = join("cpu")
    module, history = {"reward model": learn_rewards, "policy": learn_policy}[kind](base, states, team)
    weights = {name: own.tolist() for name, own in module.named_parameters()}
    (out / f"{team.rank}-of-{team.size}.json").write_text(json.dumps({"weights": weights, "history": history}))
    leave(team)


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:5]))
