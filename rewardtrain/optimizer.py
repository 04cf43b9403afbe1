"""The optimiser every trainer uses."""

from __future__ import annotations

from collections.abc import Sequence

import torch

FUSED_ON = ("cpu", "cuda", "xpu", "mps")
WHOLE_RATE = "initial_lr"  # as torch's own schedulers call it


def adamw(
    parameters: Sequence[torch.nn.Parameter],
    *,
    learning_rate: float,
    weight_decay: float,
    own_rates: Sequence[tuple[torch.nn.Parameter, float]] = (),
) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101) in one pass over the weights where their device has that.

    A pass for each of its dozen operations took an eighth of a reward model's step on a CPU.

    own_rates  those of the parameters that learn at another rate, with it
    """
    fused = all(parameter.device.type in FUSED_ON and parameter.is_floating_point() for parameter in parameters)
    other = {id(parameter): rate for parameter, rate in own_rates}
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(other.get(id(parameter), learning_rate), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": own, "lr": rate, WHOLE_RATE: rate} for rate, own in groups.items()],
        weight_decay=weight_decay,
        fused=fused or None,
    )


def set_share(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Let every parameter learn at this share of its whole rate."""
    for group in optimizer.param_groups:
        group["lr"] = group[WHOLE_RATE] * share
