"""What asking about rules costs in a PPO update at the starter's size: CPU seconds with and without the rule term.

    python -m tests.benchmarks.rule_term_cost

Half of the 256 prompts are openings that probe a rule, half everyday ones; the models have learned nothing, which costs
the same. Updates of both arms take turns.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from typing import Any

import torch
from rich.console import Console

from rewardtrain.hyperparameters import PpoSettings, RewardModelSettings, RuleModelSettings
from rewardtrain.seeds import stable_seed
from tests.benchmarks.oracle_reward import STARTER


def prompts(count: int) -> list[Any]:
    """As many everyday openings of the training split as such that probe a rule."""
    from rewardtrain.rule_term import ProbeOpening
    from rewardtrain.starter.openings import openings

    mixed = sorted((one for one in openings() if one.split == "train"), key=lambda one: stable_seed("cost", one.text))
    turns = [([{"role": "user", "content": one.text}], one.rule) for one in mixed]
    everyday = [opening for opening, rule in turns if rule is None][:count]
    return [*everyday, *[ProbeOpening(opening, rule) for opening, rule in turns if rule is not None][:count]]


def asker(counted: list[float]) -> Any:
    """A rule scorer on the starter that notes the CPU seconds it takes."""
    from rewardtrain.rule_model import RuleModel
    from tests.benchmarks.rule_model_study import wordings

    rule_model = RuleModel.from_base(STARTER, RuleModelSettings()).eval()
    rules = [rule_model.encode_rule(wording) for wording in wordings().values()]

    def ask(asked: Any, replies: Any, places: Any) -> list[torch.Tensor]:
        began = time.process_time()
        dialogues = [
            rule_model.with_rules(
                rule_model.encode_dialogue([*prompt, {"role": "assistant", "content": reply}]),
                [rules[place] for place in own],
            )
            for prompt, texts, own in zip(asked, replies, places, strict=True)
            for reply in texts
        ]
        broken = iter(rule_model.probabilities_encoded(dialogues))
        found = [torch.stack([1 - next(broken) for _ in texts]) for texts in replies]
        counted.append(time.process_time() - began)
        return found

    return ask


def seconds_of_updates(with_rules: bool, updates: int, asking: list[float]) -> list[float]:
    """CPU seconds of each update after the first."""
    from rewardtrain import ppo
    from rewardtrain.policy import load_policy_with_value, reference_policy
    from rewardtrain.reward_model import RewardModel
    from rewardtrain.rollouts import WeightedReward
    from rewardtrain.rule_term import RuleReward, RuleScale
    from tests.benchmarks.rule_model_study import wordings

    policy = load_policy_with_value(STARTER)
    scorer = RewardModel.from_base(STARTER, RewardModelSettings()).eval()
    rewards: list[Any] = [WeightedReward("preference", 1.0, scorer.scores, by_token=scorer.token_scores)]
    if with_rules:
        keys = list(wordings())
        rewards.append(RuleReward(1.0, keys, [1.0] * len(keys), asker(asking), RuleScale(1.5, 0.7, 0.3)))
    clock: list[float] = []
    ppo.train_policy(
        prompts(1000), policy=policy, ref_policy=reference_policy(policy), rewards=rewards,
        settings=dataclasses.replace(PpoSettings(), updates=updates + 1),
        on_step=lambda step: clock.append(time.process_time()),
    )  # fmt: skip
    return [after - before for before, after in zip(clock, clock[1:], strict=False)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=3, help="of either arm in a turn")
    parser.add_argument("--turns", type=int, default=2)
    options = parser.parse_args()
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.test")
    django.setup()
    torch.set_num_threads(1)
    asking: list[float] = []
    found: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(options.turns):
        for with_rules in (False, True):
            found[with_rules] += seconds_of_updates(with_rules, options.updates, asking)
    console = Console(width=120)
    for with_rules, seconds in found.items():
        mean, low, high = sum(seconds) / len(seconds), min(seconds), max(seconds)
        words = "with rules" if with_rules else "without"
        console.print(f"{words:11} {mean:.2f} CPU s an update ({low:.2f} to {high:.2f}, {len(seconds)} updates)")
    console.print(f"asking about rules {sum(asking) / len(asking):.2f} CPU s an update")


if __name__ == "__main__":
    main()
