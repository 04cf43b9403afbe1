"""RLOO and DPO by TRL's trainers, on our token ids, drawing, rewards and reports.

TRL never tokenises anything here: what people wrote reaches it as the ids of `rewardtrain.chat`, in which no special
token can be spelled. It writes nothing, reports to nobody, and leaves network and tokenizer as they were, but trained.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import math
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer, RLOOConfig, RLOOTrainer

from rewardtrain.algorithms import DpoSettings, RlooSettings
from rewardtrain.chat import encode_prompt, encode_reply
from rewardtrain.drawing import Drawer, figures
from rewardtrain.errors import NothingToLearn, TrainingDiverged
from rewardtrain.hyperparameters import learning_rate_share
from rewardtrain.lora import has_lora, trainable_parameters, without_wrapper
from rewardtrain.losses import comparison_pairs
from rewardtrain.optimizer import adamw
from rewardtrain.policy import Policy, ReferencePolicy
from rewardtrain.reward_training import RankedComparison
from rewardtrain.rollouts import Advice, LedgerEntry, Prompt, Reward, Rollout, ledger_entries
from rewardtrain.training_state import check_finite

OnStep = Callable[[int, int, Mapping[str, float]], object]
"""Told (steps done, steps in all, figures)."""


@dataclass(frozen=True)
class TrlResult:
    """The policy was changed in place; this is what happened to it."""

    samples: int
    optimizer_tokens: int  # reply tokens that gradients came from
    pairs: int = 0
    pairs_left_out: int = 0


class _Quiet:
    """What both trainers leave out."""

    def _send_telemetry(self) -> None:
        """Nothing is sent."""


# RLOO


class _Rloo(_Quiet, RLOOTrainer):
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
    with _lent(policy, settings.seed) as (folder, tokenizer):
        accumulated = settings.minibatch_size // settings.samples_per_forward
        args = RLOOConfig(
            **_arguments(policy, folder, settings.seed, settings.max_grad_norm),
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
            callbacks=[_Told(told)],
            optimizers=_optimizer(
                policy, settings, args.max_steps, settings.warmup_updates * settings.steps_per_update
            ),
        )
        trainer.drawer, trainer.on_drawn = drawer, drawn
        _train(trainer, policy)
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


class _Dpo(_Quiet, DPOTrainer):
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
    with _lent(policy, settings.seed) as (folder, tokenizer):
        args = DPOConfig(
            **_arguments(policy, folder, settings.seed, settings.max_grad_norm),
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
            callbacks=[_Told(told)],
            optimizers=_optimizer(policy, settings, steps, round(settings.warmup_share * steps)),
        )
        _train(trainer, policy)
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


# Both


class _Told(TrainerCallback):
    """Passes every optimiser step on. What `told` raises ends the training: a lease that was lost, a divergence."""

    def __init__(self, told: Callable[[int, Mapping[str, float]], object]):
        self.told = told

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float], **_: Any) -> None:
        if "loss" not in logs:
            return  # the summary at the end
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs[name]):
                raise TrainingDiverged(f"At step {state.global_step} {name} was {logs[name]}. Lower learning_rate.")
        self.told(state.global_step, logs)


def _arguments(policy: Policy, folder: str, seed: int, max_grad_norm: float) -> dict[str, Any]:
    """What both are told alike: nothing is written, nothing is sent, every step is heard of."""
    return {
        "output_dir": folder,
        "seed": seed % 2**31,
        "max_grad_norm": max_grad_norm,
        "use_cpu": policy.device.type == "cpu",
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_dropout": True,
        "remove_unused_columns": False,
        "save_strategy": "no",
        "eval_strategy": "no",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # a loss that is no number must be seen
        "report_to": [],
        "push_to_hub": False,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def _optimizer(policy: Policy, settings: RlooSettings | DpoSettings, steps: int, warmup: int) -> tuple[Any, Any]:
    """The optimiser and schedule that PPO has."""
    parameters = trainable_parameters(policy)
    optimizer = adamw(parameters, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay)

    def share(step: int) -> float:
        return learning_rate_share(
            min(step, steps - 1), steps, warmup=warmup, schedule=settings.schedule,
            final=settings.final_learning_rate_share,
        )  # fmt: skip

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def _train(trainer: Any, policy: Policy) -> None:
    parameters = trainable_parameters(policy)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    check_finite(parameters)


@contextlib.contextmanager
def _lent(policy: Policy, seed: int) -> Iterator[tuple[str, Any]]:
    """A folder that goes away and a copy of the tokenizer, while TRL has the network.

    TRL replaces the network's forward and writes into its configurations (a padding token, no cache); both are put
    back, and so are the random generators that it seeds.
    """
    network = policy.network
    inner = without_wrapper(network)
    configs = [inner.config, inner.config.get_text_config(), inner.generation_config]
    values = [dict(vars(config)) for config in configs]
    kept = random.getstate(), numpy.random.get_state()
    positions = network.register_forward_pre_hook(_count_positions(inner), with_kwargs=True)
    policy.eval()
    try:
        with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
            yield folder, copy.deepcopy(policy.tokenizer)
    finally:
        positions.remove()
        inner.__dict__.pop("forward", None)
        for config, own in zip(configs, values, strict=True):
            vars(config).clear()
            vars(config).update(own)
        random.setstate(kept[0])
        numpy.random.set_state(kept[1])
        policy.eval()


def _count_positions(network: Any) -> Callable[..., Any]:
    """Positions for rows that are padded at the left, which TRL leaves to the network to guess."""
    takes = "position_ids" in inspect.signature(network.forward).parameters

    def before(module: Any, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        mask = given.get("attention_mask")
        if takes and mask is not None and given.get("position_ids") is None:
            given["position_ids"] = (mask.long().cumsum(dim=-1) - 1).clamp(min=0)
        return args, given

    return before
