"""Where TRL's trainers are let in. They write and report nothing, and leave a network as it was, but trained."""

from __future__ import annotations

import contextlib
import copy
import inspect
import math
import random
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy
import torch
from transformers import PrinterCallback, TrainerCallback

from rewardtrain.algorithms import LearningSettings
from rewardtrain.errors import TrainingDiverged
from rewardtrain.hyperparameters import learning_rate_share
from rewardtrain.lora import trainable_parameters, without_wrapper
from rewardtrain.optimizer import adamw
from rewardtrain.policy import Policy
from rewardtrain.training_state import check_finite

OnStep = Callable[[int, int, Mapping[str, float]], object]
"""Told (steps done, steps in all, figures)."""


class Quiet:
    """What every trainer leaves out."""

    def _send_telemetry(self) -> None:
        """Nothing is sent."""


class Told(TrainerCallback):
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


def trainer_arguments(policy: Policy, folder: str, seed: int, max_grad_norm: float) -> dict[str, Any]:
    """What all are told alike: nothing is written, nothing is sent, every step is heard of."""
    return {
        "output_dir": folder,
        "seed": seed % 2**31,
        "max_grad_norm": max_grad_norm,
        "use_cpu": policy.device.type == "cpu",
        "bf16": False,
        "gradient_checkpointing": False,
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


def optimizer_and_schedule(policy: Policy, settings: LearningSettings, steps: int, warmup: int) -> tuple[Any, Any]:
    """The optimiser and schedule that PPO has."""
    parameters = trainable_parameters(policy)
    optimizer = adamw(parameters, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay)

    def share(step: int) -> float:
        return learning_rate_share(
            min(step, steps - 1), steps, warmup=warmup, schedule=settings.schedule,
            final=settings.final_learning_rate_share,
        )  # fmt: skip

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def run_trainer(trainer: Any, policy: Policy) -> None:
    parameters = trainable_parameters(policy)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    check_finite(parameters)


@contextlib.contextmanager
def lent(policy: Policy, seed: int) -> Iterator[tuple[str, Any]]:
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
        with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # what TRL will have to change is nobody's concern here
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
