"""What the settings of a project must keep to. Neighbours who read them register what they cannot work with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Check = Callable[[Any], list[str]]
CHECKS: list[Check] = []


def register(check: Check) -> Check:
    """Add a check of `Project.hyperparameters`: a sentence for each thing that cannot work."""
    if check not in CHECKS:
        CHECKS.append(check)
    return check


def problems(hyperparameters: Any) -> list[str]:
    """Everything that cannot work, in words for a manager."""
    return [problem for check in CHECKS for problem in check(hyperparameters)]
