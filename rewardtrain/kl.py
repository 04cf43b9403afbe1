"""How far the policy has moved from its reference, in nats, and how dear that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

ESTIMATORS = ("difference", "squared", "unbiased")


def token_kl(logprobs: Tensor, ref_logprobs: Tensor, *, estimator: str = "difference") -> Tensor:
    """An estimate of KL(policy || reference) at each token, from the one token the policy drew.

    difference  log p - log q: unbiased, its values spread, may be below 0. What the reward is charged.
    squared     (log p - log q)² / 2: biased, spreads little
    unbiased    (q/p - 1) - log(q/p): unbiased and never below 0
    Source      Schulman, "Approximating KL divergence" (2020): k1, k2, k3
    """
    difference = logprobs - ref_logprobs
    if estimator == "difference":
        return difference
    if estimator == "squared":
        return difference**2 / 2
    if estimator == "unbiased":
        return torch.expm1(-difference) + difference
    raise ValueError(f"There is no KL estimator {estimator!r}; choose one of {', '.join(ESTIMATORS)}.")


def reply_kl(logprobs: Tensor, ref_logprobs: Tensor, response_mask: Tensor) -> Tensor:
    """Per reply, the summed per-token difference in nats. (B, T) each; gives (B,)."""
    return torch.where(response_mask, logprobs - ref_logprobs, 0.0).sum(dim=1)


class KlController(Protocol):
    """What holds the KL coefficient."""

    kl_coef: float

    def update(self, kl_nats: float, samples: int) -> None:
        """Take note of the mean KL per reply that the last `samples` replies had."""


@dataclass
class FixedKl:
    """A coefficient that stays."""

    kl_coef: float

    def update(self, kl_nats: float, samples: int) -> None:
        """Nothing changes."""


@dataclass
class AdaptiveKl:
    """A coefficient that rises while the KL is above its target and falls while it is below.

    Source  Ziegler et al. 2019, arXiv:1909.08593, section 2.2: the error is cut to ±0.2
    """

    kl_coef: float
    target_nats: float
    horizon_samples: int

    def update(self, kl_nats: float, samples: int) -> None:
        """Multiply the coefficient by 1 + error · samples / horizon."""
        error = min(max(kl_nats / self.target_nats - 1, -0.2), 0.2)
        self.kl_coef *= 1 + error * samples / self.horizon_samples


def kl_controller(kind: str, *, kl_coef: float, target_nats: float, horizon_samples: int) -> KlController:
    """The controller of that kind: fixed or adaptive."""
    if kind == "adaptive":
        return AdaptiveKl(kl_coef, target_nats, horizon_samples)
    if kind == "fixed":
        return FixedKl(kl_coef)
    raise ValueError(f"There is no KL controller {kind!r}; choose fixed or adaptive.")
