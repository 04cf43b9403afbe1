"""PPO and its alternatives on the same rankings and reward models, with the same budget, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rewardtrain import round_settings
from rewardtrain.algorithms import ALGORITHMS, BEST_OF_N, DPO, PPO, RLOO, DpoSettings, title_of
from rewardtrain.hyperparameters import InvalidSettings, PpoSettings

HEADS = (
    "algorithm", "breaks a rule", "preferred", "ties", "fluent", "distinct", "tokens", "KL", "gate", "sampled",
    "learned from", "CPU",
)  # fmt: skip
MEAN = "mean"


def equal_budget(chosen: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The policy settings of each algorithm, so that PPO's budget is everybody's.

    RLOO and best of n draw as many replies as PPO. DPO draws none: it takes as many replies through the optimiser as
    PPO does in all its passes.

    chosen  settings by algorithm that differ from their defaults; they win over the budget, so DPO's `epochs` too
    """
    ppo = PpoSettings.from_dict(chosen.get(PPO, {}))
    dpo = DpoSettings.from_dict(chosen.get(DPO, {}))
    drawn = {"updates": ppo.updates, "samples_per_update": ppo.samples_per_update}
    replies = ppo.updates * ppo.samples_per_update * ppo.passes
    steps = {} if "epochs" in chosen.get(DPO, {}) else {"steps": max(1, round(replies / (2 * dpo.pairs_per_step)))}
    budgets = {PPO: {}, RLOO: drawn, BEST_OF_N: drawn, DPO: steps}
    return {name: {**budgets[name], **chosen.get(name, {}), "algorithm": name} for name in ALGORITHMS}


def policies_of(
    shared: Mapping[str, Any], budgets: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """What the round of each algorithm is started or repeated with.

    shared  settings of the policy that were asked for whatever the algorithm
    """
    return {name: {"policy": {**shared, **budget}} for name, budget in budgets.items()}


def check(chosen: Mapping[str, Any], policies: Mapping[str, Mapping[str, Any]]) -> None:
    """Let settings pass that every algorithm's round can work with: the others than PPO's repeat that one.

    chosen    what all rounds have alike
    policies  as `policies_of` gives them
    Raises    InvalidSettings with every problem, its algorithm in front
    """
    first = {**chosen, **policies[PPO]}
    found = []
    for name, over in policies.items():
        try:
            round_settings.check(round_settings.merged(first, over))
        except InvalidSettings as err:
            found += [f"{title_of(name)}: {problem}" for problem in err.problems]
    if found:
        raise InvalidSettings(found)


def table(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown: each seed's rows, the start first, then the mean of each algorithm over the seeds."""
    lines = ["| seed | " + " | ".join(HEADS) + " |", "|" + "---|" * (len(HEADS) + 1)]
    for result in results:
        lines.append(_line(str(result["seed"]), "start", _start(result["start"])))
        lines += [_line(str(result["seed"]), title_of(name), cells(one)) for name, one in result["algorithms"].items()]
    if len(results) > 1:
        for name in results[0]["algorithms"]:
            mean = mean_of([result["algorithms"][name] for result in results])
            lines.append(_line(MEAN, title_of(name), cells(mean)))
    return lines


def _line(seed: str, name: str, found: Iterable[str]) -> str:
    return "| " + " | ".join([seed, name, *found]) + " |"


def _start(figures: Mapping[str, float]) -> list[str]:
    rates = [f"{figures[key]:.1%}" for key in ("violation_rate", "fluent_rate", "distinct_rate")]
    return [rates[0], "", "", rates[1], rates[2], f"{figures['mean_tokens']:.1f}", *[""] * 5]


def cells(one: Mapping[str, Any]) -> list[str]:
    """An algorithm's figures as words, in the order of HEADS."""
    after, won = one["after"], one["preference_win_rate"]
    return [
        f"{after['violation_rate']:.1%}",
        "–" if won is None else f"{won:.1%}",
        f"{one['tie_rate']:.1%}",
        f"{after['fluent_rate']:.1%}",
        f"{after['distinct_rate']:.1%}",
        f"{after['mean_tokens']:.1f}",
        f"{one['kl_nats']:.2f}",
        one["gate"],
        f"{one['samples']:,.0f}",
        f"{one['optimizer_tokens'] / 1000:,.0f} k",
        f"{one['cpu_seconds']:.0f} s",
    ]


def mean_of(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of every figure; of the gates, how many were passed."""
    passed = sum(one["gate"] == "passed" for one in found)
    mean: dict[str, Any] = {"gate": f"{passed} of {len(found)}"}
    for key, value in found[0].items():
        if isinstance(value, Mapping):
            mean[key] = {name: _mean([one[key][name] for one in found]) for name in value}
        elif key != "gate":
            mean[key] = _mean([one[key] for one in found])
    return mean


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
