"""The gate: is the new policy better on prompts it has not seen, and has nothing else become worse? Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rewardtrain.hyperparameters import Settings
from rewardtrain.student_t import t_quantile


@dataclass(frozen=True)
class GateSettings(Settings):
    """What a policy must keep to.

    prompts              validation prompts measured, one reply each of the old and the new policy
    fewest_prompts       below so many a round is not begun; more than `prompts` are never asked for
    most_length_change   share by which the mean reply may grow or shrink
    most_kl_nats         mean over replies of the summed per-token difference to the old policy
    most_kl_nats_taught  the same for a policy that learned what people wrote, which may be far from all it said before
    most_unfinished_rise points (0 to 1) by which the share of replies cut off before their end may rise
    most_copies          share of the old policy's distinct replies that may be lost
    second_share         share of training comparisons kept for the second reward model alone
    shown_samples        samples kept in the report, the worst for the new policy first; of probes as many again
    probe_openings       openings of held-out probes measured at most, where the round had a rule model
    replies_per_probe    replies of either policy to each of them
    fewest_per_rule      below so many probes a rule is shown and refuses nothing
    least_rise           points (0 to 1) by which the chance of a breach may rise and still count as unchanged
    """

    prompts: int = 160
    fewest_prompts: int = 20
    most_length_change: float = 0.30
    most_kl_nats: float = 12.0
    most_kl_nats_taught: float = 200.0
    most_unfinished_rise: float = 0.02
    most_copies: float = 0.30
    second_share: float = 0.2
    shown_samples: int = 40
    probe_openings: int = 160
    replies_per_probe: int = 4
    fewest_per_rule: int = 5
    least_rise: float = 0.01

    def problems(self) -> list[str]:
        found = []
        for name in ("prompts", "fewest_prompts"):
            if getattr(self, name) < 2:
                found.append(f"Set {name} of the gate to at least 2 (it is {getattr(self, name)}).")
        if self.replies_per_probe < 1:
            found.append(f"Set replies_per_probe of the gate to at least 1 (it is {self.replies_per_probe}).")
        if self.fewest_per_rule < 2:
            found.append(f"Set fewest_per_rule of the gate to at least 2 (it is {self.fewest_per_rule}).")
        for name in (
            "most_length_change", "most_kl_nats", "most_kl_nats_taught", "most_unfinished_rise", "shown_samples",
            "probe_openings", "least_rise",
        ):  # fmt: skip
            if getattr(self, name) < 0:
                found.append(f"Set {name} of the gate to 0 or more (it is {getattr(self, name)}).")
        for name in ("second_share", "most_copies"):
            if not 0 <= getattr(self, name) < 1:
                found.append(f"Set {name} of the gate to 0 or more and below 1 (it is {getattr(self, name)}).")
        return found

    def where_taught(self) -> GateSettings:
        """The bounds of a policy that learned what people wrote."""
        return replace(self, most_kl_nats=self.most_kl_nats_taught)

    @property
    def needed_prompts(self) -> int:
        """How many validation prompts it takes to tell learning from luck."""
        return min(self.prompts, self.fewest_prompts)

    def problem_with(self, prompts: int) -> str:
        """What to do where there are too few validation prompts; empty where there are enough."""
        if prompts >= self.needed_prompts:
            return ""
        return (
            f"The gate needs at least {self.needed_prompts} validation prompts; there are {prompts}. "
            "Add some to the validation split, or set fewest_prompts of the gate lower."
        )


@dataclass(frozen=True)
class Reply:
    """One measured reply: its text, length, the reward models' scores, and its KL to the old policy.

    broken  mean chance over the rules that it broke one; None where none was asked about
    """

    text: str
    tokens: int
    finished: bool
    score: float
    second_score: float | None
    kl_nats: float = 0.0
    broken: float | None = None


@dataclass(frozen=True)
class Sample:
    """One validation prompt with the old and the new policy's reply."""

    prompt: list[dict[str, str]]
    before: Reply
    after: Reply


def gate_report(
    samples: Sequence[Sample], settings: GateSettings, *, more_lines: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """The report a round keeps: a line per question, failed ones first, and the samples behind them.

    more_lines  about rules (`gate_rules.rule_lines`)
    Raises      ValueError when there is too little to measure
    """
    if problem := settings.problem_with(len(samples)):
        raise ValueError(problem)
    lines = [
        _reward_line("reward", "Reward on held-out prompts", [s.after.score - s.before.score for s in samples]),
        *_second_line(samples),
        _length_line(samples, settings),
        _kl_line(samples, settings),
        _unfinished_line(samples, settings),
        _copies_line(samples, settings),
        *more_lines,
    ]
    lines.sort(key=lambda line: line["passed"])
    worst = sorted(samples, key=lambda sample: sample.after.score - sample.before.score)
    return {
        "passed": all(line["passed"] for line in lines),
        "lines": lines,
        "samples": [_shown(sample) for sample in worst[: settings.shown_samples]],
        "counts": {"prompts": len(samples)},
    }


def signed(change: float) -> str:
    """A change of a share in per cent, with its sign; none where it rounds to nothing.

    >>> signed(0.19), signed(-0.14), signed(-0.002)
    ('+19%', '−14%', '0%')
    """
    words = f"{change:+.0%}"
    return "0%" if words in {"+0%", "-0%"} else words.replace("-", "−")


def line(key: str, name: str, found: str, wanted: str, passed: bool, value: float) -> dict[str, Any]:
    """One question of a gate and its answer, as the report keeps it."""
    return {"key": key, "name": name, "found": found, "wanted": wanted, "passed": bool(passed), "value": value}


def _reward_line(key: str, name: str, gains: Sequence[float]) -> dict[str, Any]:
    """Passed when the mean gain is above 0 by more than its own uncertainty (95 %, one-sided, Student's t)."""
    gain, error = mean_and_error(gains)
    spread = t_quantile(0.95, len(gains) - 1) * error
    found = f"{gain:+.2f} ± {spread:.2f}"
    return line(key, name, found, "above 0", math.isfinite(gain) and gain - spread > 0, gain)


def _second_line(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    gains = [
        sample.after.second_score - sample.before.second_score
        for sample in samples
        if sample.after.second_score is not None and sample.before.second_score is not None
    ]
    return [_reward_line("second_reward", "Second reward model agrees", gains)] if gains else []


def _length_line(samples: Sequence[Sample], settings: GateSettings) -> dict[str, Any]:
    before = mean([sample.before.tokens for sample in samples])
    after = mean([sample.after.tokens for sample in samples])
    change = after / before - 1 if before else 0.0
    wanted = f"within {settings.most_length_change:.0%}"
    return line("length", "Reply length", signed(change), wanted, abs(change) <= settings.most_length_change, change)


def _kl_line(samples: Sequence[Sample], settings: GateSettings) -> dict[str, Any]:
    kl = mean([sample.after.kl_nats for sample in samples])
    passed = math.isfinite(kl) and kl <= settings.most_kl_nats
    return line("kl", "KL from the policy before", f"{kl:.1f} nats", f"at most {settings.most_kl_nats:g}", passed, kl)


def _unfinished_line(samples: Sequence[Sample], settings: GateSettings) -> dict[str, Any]:
    before = mean([not sample.before.finished for sample in samples])
    after = mean([not sample.after.finished for sample in samples])
    return line(
        "unfinished",
        "Replies cut off before their end",
        f"{before:.0%} → {after:.0%}",
        f"not up by more than {settings.most_unfinished_rise:.0%}",
        after - before <= settings.most_unfinished_rise,
        after - before,
    )


def _copies_line(samples: Sequence[Sample], settings: GateSettings) -> dict[str, Any]:
    """A policy that says the same thing to everybody has collapsed, whatever its reward."""
    before = len({sample.before.text for sample in samples})
    after = len({sample.after.text for sample in samples})
    least = (1 - settings.most_copies) * before
    wanted = f"at least {math.ceil(least)}"
    return line("distinct", "Distinct replies", f"{before} → {after}", wanted, after >= least, after / before)


def _shown(sample: Sample) -> dict[str, Any]:
    return {
        "prompt": sample.prompt,
        "before": {"text": sample.before.text, "tokens": sample.before.tokens},
        "after": {"text": sample.after.text, "tokens": sample.after.tokens},
        "score_before": round(sample.before.score, 4),
        "score_after": round(sample.after.score, 4),
        **_shown_broken(sample),
    }


def _shown_broken(sample: Sample) -> dict[str, float]:
    before, after = sample.before.broken, sample.after.broken
    return (
        {} if before is None or after is None else {"broken_before": round(before, 4), "broken_after": round(after, 4)}
    )


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error (infinite for a single value)."""
    middle = mean(values)
    if len(values) < 2:
        return middle, math.inf
    variance = sum((value - middle) ** 2 for value in values) / (len(values) - 1)
    return middle, math.sqrt(variance / len(values))


def mean(values: Sequence[float]) -> float:
    """The mean of one value or more."""
    return sum(values) / len(values)
