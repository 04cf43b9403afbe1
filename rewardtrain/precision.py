"""What trainers do to fit a network and be fast: which device, which precision, and layers computed twice."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from rewardtrain.errors import UnsupportedArchitecture
from rewardtrain.hyperparameters import InvalidSettings, PpoSettings, RewardModelSettings, RuleModelSettings


def check_device(name: str) -> str:
    """`name`, if torch can compute there. Raises InvalidSettings."""
    kind, _, number = name.partition(":")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InvalidSettings([f"Set device to cpu: torch finds no CUDA device here (it was {name})."])
    if kind == "cuda" and number and int(number) >= torch.cuda.device_count():
        raise InvalidSettings([f"Set device to cuda:0 … cuda:{torch.cuda.device_count() - 1} (it was {name})."])
    return name


def mixed_precision(settings: PpoSettings | RewardModelSettings | RuleModelSettings) -> torch.autocast:
    """Within it matrices are multiplied as the settings say; weights, scores and values stay what they are."""
    kind = torch.device(settings.device).type
    return torch.autocast(kind, torch.bfloat16, enabled=settings.mixed_precision == "bfloat16")


def whole_precision(device: torch.device) -> torch.autocast:
    """Within it matrices are multiplied as they are: for heads, whose one number should keep its digits."""
    return torch.autocast(device.type, enabled=False)


@contextmanager
def recomputed_layers(network: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Gradient checkpointing: within it a layer keeps its input alone, and is computed again for its gradient.

    transformers' own way works in training mode alone, which would switch dropout on under PPO. A layer that is given
    a cache is computed as usual, so prompts are encoded once per reply (`shared_prefix.why_not_shared` says so).

    Raises  UnsupportedArchitecture when the network has no such layers
    """
    layers = (
        [module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)] if wanted else []
    )
    if wanted and not layers:
        raise UnsupportedArchitecture(
            f"{type(network).__name__} has no layers that can be computed again. Set gradient_checkpointing to false."
        )
    for layer in layers:
        layer.forward, layer.is_recomputed = _recomputing(layer.forward), True
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward, layer.is_recomputed


def _recomputing(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def forward_twice(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled() or any(
            kwargs.get(name) is not None for name in ("past_key_values", "layer_past")
        ):
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return forward_twice
