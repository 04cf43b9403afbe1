"""What a round is turned with: settings in four parts, each checked before anything runs. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from feedback import settings_checks
from rewardtrain import algorithms
from rewardtrain.gate import GateSettings
from rewardtrain.hyperparameters import InvalidSettings, RewardModelSettings, RuleModelSettings, wrong_kind

PARTS: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "reward_model": RewardModelSettings.from_dict, "rule_model": RuleModelSettings.from_dict,
    "policy": algorithms.read_settings, "gate": GateSettings.from_dict,
}  # fmt: skip
BESIDE: dict[str, dict[str, type]] = {  # no training's
    "reward_model": {"base": str},
    "rule_model": {"base": str, "use_rules": bool},
    "policy": {"reward_model": int, "rule_model": int, "made": int},
}


def merged(base: Any, over: Any) -> dict[str, dict[str, Any]]:
    """Settings in parts with what differs this time. Another algorithm leaves out what was set for the one before.

    Raises  InvalidSettings when one of the two is no settings in parts
    """
    base, over = _in_parts(base), _in_parts(over)
    found = {part: {**base.get(part, {}), **over.get(part, {})} for part in {**base, **over}}
    if "policy" in found:
        found["policy"] = algorithms.changed(base.get("policy", {}), over.get("policy", {}))
    return found


def check(chosen: Any, sampling: Mapping[str, Any] | None = None) -> None:
    """Let settings pass that every part of a round can work with.

    sampling  how the project draws its replies: what PPO does where its settings do not say
    Raises    InvalidSettings with every problem, its part in front
    """
    given = _in_parts(chosen)
    found = [
        f"In {part}: {problem}"
        for part in PARTS
        for problem in _problems(part, dict(given.get(part, {})), sampling or {})
    ]
    if found:
        raise InvalidSettings(found)


def gate_of(chosen: Any) -> GateSettings:
    """The gate that such settings ask for; the usual one where they cannot be read."""
    try:
        parts = _in_parts(chosen)
        gate = GateSettings.from_dict(parts.get("gate", {}))
    except InvalidSettings:
        return GateSettings()
    return gate.where_taught() if parts.get("policy", {}).get("algorithm") == algorithms.SFT else gate


@settings_checks.register
def problems(chosen: Any) -> list[str]:
    """What a manager is told who writes such settings for a project."""
    try:
        check(chosen)
    except InvalidSettings as err:
        return err.problems
    return []


def _in_parts(values: Any) -> Mapping[str, Mapping[str, Any]]:
    if not isinstance(values, Mapping):
        raise InvalidSettings([f"Write the settings of rounds in parts: {', '.join(PARTS)}."])
    found = [f"There is no part {name}; known are {', '.join(PARTS)}." for name in sorted(set(values) - set(PARTS))]
    found += [
        f"Write {part} as names with values."
        for part in PARTS
        if part in values and not isinstance(values[part], Mapping)
    ]
    if found:
        raise InvalidSettings(found)
    return values


def _problems(part: str, values: dict[str, Any], sampling: Mapping[str, Any]) -> list[str]:
    beside = BESIDE.get(part, {})
    found = [
        problem
        for name in beside.keys() & values.keys()
        for problem in wrong_kind(name, values.pop(name), beside[name])
    ]
    own = values.get("sampling", {})
    if part == "policy" and isinstance(own, Mapping):
        values["sampling"] = {**sampling, **own}
    try:
        PARTS[part](values)
    except InvalidSettings as err:
        found += err.problems
    return found
