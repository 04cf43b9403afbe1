"""RLOO and DPO by TRL's trainers, on our token ids, drawing, rewards and reports.

TRL never tokenises anything here: what people wrote reaches it as the ids of `rewardtrain.chat`, in which no special
token can be spelled. It writes nothing, reports to nobody, and leaves network and tokenizer as they were, but trained.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer, RLOOConfig, RLOOTrainer

from rewardtrain.algorithms import DpoSettings, RlooSettings
from rewardtrain.chat import encode_prompt, encode_reply
from rewardtrain.drawing import Drawer, figures
from rewardtrain.errors import NothingToLearn
from rewardtrain.lora import has_lora
from rewardtrain.losses import comparison_pairs
from rewardtrain.policy import Policy, ReferencePolicy
from rewardtrain.reward_training import RankedComparison
from rewardtrain.rollouts import Advice, LedgerEntry, Prompt, Reward, Rollout, ledger_entries
from rewardtrain.trl_border import OnStep, Quiet, Told, lent, optimizer_and_schedule, run_trainer, trainer_arguments


@dataclass(frozen=True)
class TrlResult:
    """The policy was changed in place; this is what happened to it."""

    samples: int
    optimizer_tokens: int  # reply tokens that gradients came from
    pairs: int = 0
    pairs_left_out: int = 0


# RLOO


class _Rloo(Quiet, RLOOTrainer):
    """TRL's trainer with our drawing: its prompts are places in ours, written as numbers."""

    drawer: Drawer
    on_drawn: Callable[[int, Rollout], object]
    rollout: Rollout
    drawn = 0

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        places = [int(one) for one in prompts]
        self._places = places[:: self.num_generations]  # TRL repeats each prompt for its replies, side by side
        return [self.drawer.encoded[place].ids for place in places], None, {}

    def _generate_single_turn(self, prompt_ids: Any, images: Any, multimodal_fields: Any) -> list[list[int]]:
        self.rollout = self.drawer.draw(self.drawn, self._places)
        self.on_drawn(self.drawn, self.rollout)
        self.drawn += 1
        return [reply.token_ids for reply in self.rollout.replies]


def train_by_rloo(
    prompts: Sequence[Prompt],
    *,
    policy: Policy,
    ref_policy: ReferencePolicy,
    rewards: Sequence[Reward],
    settings: RlooSettings,
    on_begin: Callable[[int], object] = lambda steps: None,
    on_step: OnStep = lambda done, total, figures: None,
    ledger: Callable[[list[LedgerEntry]], object] = lambda entries: None,
) -> TrlResult:
    """Optimise `policy` in place. A step is an update: one drawing and the optimiser steps it is used for.

    The KL to the start is taken off a reply's reward, as measured for PPO.
    Raises  as `ppo.train_policy`
    """
    settings.validate()
    if not prompts or not rewards:
        raise NothingToLearn("RLOO needs at least one prompt and one reward.")
    drawer = Drawer(policy, ref_policy, prompts, rewards, settings.as_drawn())
    places = [place for step in range(settings.updates) for place in drawer.places(step)]
    tokens = 0

    def drawn(step: int, rollout: Rollout) -> None:
        nonlocal tokens
        tokens += settings.passes * int(rollout.response_mask.sum())
        ledger(ledger_entries(rollout, settings.kl_coef, step))

    def paid(completions: list[str], **_: Any) -> list[float]:
        rollout = trainer.rollout
        return (rollout.scores - settings.kl_coef * rollout.kl).tolist()

    def told(step: int, logs: Mapping[str, float]) -> None:
        if step % settings.steps_per_update == 0:
            on_step(step // settings.steps_per_update, settings.updates, _rloo_figures(trainer.rollout, logs, settings))

    on_begin(settings.updates)
    with lent(policy, settings.seed) as (folder, tokenizer):
        accumulated = settings.minibatch_size // settings.samples_per_forward
        args = RLOOConfig(
            **trainer_arguments(policy, folder, settings.seed, settings.max_grad_norm),
            disable_dropout=True,
            max_steps=settings.updates * settings.steps_per_update,
            per_device_train_batch_size=settings.samples_per_forward,
            gradient_accumulation_steps=accumulated,
            steps_per_generation=settings.samples_per_update // settings.samples_per_forward,
            num_generations=settings.samples_per_prompt,
            num_iterations=settings.passes,
            max_completion_length=settings.sampling.max_new_tokens,
            temperature=settings.sampling.temperature,
            beta=0.0,  # the KL is in the reward
            epsilon=settings.clip_range,
            normalize_advantages=False,
            shuffle_dataset=False,  # the places stand in PPO's order
        )
        trainer = _Rloo(
            model=policy.network,
            reward_funcs=paid,
            args=args,
            train_dataset=Dataset.from_dict({"prompt": [str(place) for place in places]}),
            processing_class=tokenizer,
            callbacks=[Told(told)],
            optimizers=optimizer_and_schedule(
                policy, settings, args.max_steps, settings.warmup_updates * settings.steps_per_update
            ),
        )
        trainer.drawer, trainer.on_drawn = drawer, drawn
        run_trainer(trainer, policy)
    return TrlResult(samples=settings.updates * settings.samples_per_update, optimizer_tokens=tokens)


def _rloo_figures(rollout: Rollout, logs: Mapping[str, float], settings: RlooSettings) -> dict[str, float]:
    return {
        **figures(rollout),
        "ppo/kl_coef": settings.kl_coef,
        "ppo/policy_loss": logs["loss"],
        "rloo/clip_fraction": logs["clip_ratio/region_mean"],
        "ppo/gradient_norm": logs["grad_norm"],
        "ppo/learning_rate": logs["learning_rate"],
    }


# DPO

DPO_ADVICE = Advice(unit="step", far=("beta",), alike=("beta",))


class _Dpo(Quiet, DPOTrainer):
    """TRL's trainer on rows that are token ids already."""

    tokens = 0  # of replies, that gradients came from

    def training_step(self, model: Any, inputs: Mapping[str, Any], *rest: Any) -> Any:
        self.tokens += int(inputs["completion_mask"].sum())
        return super().training_step(model, inputs, *rest)

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        return dataset


@dataclass(frozen=True)
class IdPair:
    """One preference as token ids."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]


def preference_pairs(
    policy: Policy, comparisons: Sequence[RankedComparison], settings: DpoSettings
) -> tuple[list[IdPair], int]:
    """(every pair that the rankings order, how many of them were left out).

    Ties say nothing here. Left out is a pair with a candidate of several turns, for the policy would learn to say the
    other speaker's, and one whose two replies are the same tokens once they are cut to `max_reply_tokens`.
    """
    pairs, left_out = [], 0
    longest = min(settings.max_reply_tokens, policy.max_positions // 2)  # a small network keeps room for the prompt
    room = min(settings.sampling.max_prompt_tokens, policy.max_positions - longest)
    for comparison in comparisons:
        ordered = comparison_pairs(comparison.ranks, ties="none")
        if not ordered:
            continue
        prompt = encode_prompt(policy.tokenizer, comparison.prompt, room).ids
        replies = [_reply_ids(policy, candidate, longest) for candidate in comparison.candidates]
        for pair in ordered:
            chosen, rejected = replies[pair.chosen], replies[pair.rejected]
            if chosen and rejected and chosen != rejected:
                pairs.append(IdPair(prompt, chosen, rejected))
            else:
                left_out += 1
    return pairs, left_out


def _reply_ids(policy: Policy, candidate: Any, longest: int) -> list[int]:
    """A reply's first tokens; none for a candidate that is not one turn of the assistant's."""
    if not isinstance(candidate, str) and [turn["role"] for turn in candidate] != ["assistant"]:
        return []
    return encode_reply(policy.tokenizer, candidate)[:longest]


def train_by_dpo(
    comparisons: Sequence[RankedComparison],
    prompts: Sequence[Prompt],
    *,
    policy: Policy,
    ref_policy: ReferencePolicy,
    rewards: Sequence[Reward],
    settings: DpoSettings,
    on_begin: Callable[[int], object] = lambda steps: None,
    on_step: OnStep = lambda done, total, figures: None,
) -> TrlResult:
    """Optimise `policy` in place on the pairs of `comparisons`.

    prompts  what replies are drawn to on the way, to see how far the policy has moved; nothing is learned from them
    rewards  what those replies are scored by; may be empty
    Raises   as `ppo.train_policy`
    """
    settings.validate()
    pairs, left_out = preference_pairs(policy, comparisons, settings)
    if not pairs or not prompts:
        raise NothingToLearn("DPO needs rankings that prefer one reply of a turn to another, and a training prompt.")
    steps = settings.steps or max(1, math.ceil(settings.epochs * len(pairs) / settings.pairs_per_step))
    drawer = Drawer(policy, ref_policy, prompts, rewards, settings.as_drawn(), DPO_ADVICE)
    probed = {max(1, round(steps * number / settings.probes)) for number in range(1, settings.probes + 1)}

    def told(step: int, logs: Mapping[str, float]) -> None:
        seen = figures(drawer.draw(step - 1)) if step in probed else {}
        on_step(step, steps, {**_dpo_figures(logs), **seen})

    on_begin(steps)
    with lent(policy, settings.seed) as (folder, tokenizer):
        args = DPOConfig(
            **trainer_arguments(policy, folder, settings.seed, settings.max_grad_norm),
            disable_dropout=True,
            max_steps=steps,
            per_device_train_batch_size=settings.pairs_per_forward,
            gradient_accumulation_steps=settings.pairs_per_step // settings.pairs_per_forward,
            beta=settings.beta,
            max_length=None,  # what does not fit was cut as our encoding cuts
        )
        trainer = _Dpo(
            model=policy.network,
            ref_model=None if has_lora(policy.network) else _frozen(policy.network),
            args=args,
            train_dataset=Dataset.from_list([vars(pair) for pair in pairs]),
            processing_class=tokenizer,
            callbacks=[Told(told)],
            optimizers=optimizer_and_schedule(policy, settings, steps, round(settings.warmup_share * steps)),
        )
        run_trainer(trainer, policy)
    return TrlResult(samples=0, optimizer_tokens=trainer.tokens, pairs=len(pairs), pairs_left_out=left_out)


def _frozen(network: Any) -> Any:
    return copy.deepcopy(network).requires_grad_(False).eval()


def _dpo_figures(logs: Mapping[str, float]) -> dict[str, float]:
    return {
        "dpo/loss": logs["loss"],
        "dpo/accuracy": logs["rewards/accuracies"],
        "dpo/margin": logs["rewards/margins"],
        "ppo/gradient_norm": logs["grad_norm"],
        "ppo/learning_rate": logs["learning_rate"],
    }
