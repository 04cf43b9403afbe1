"""The samples behind a gate's lines: which to read first, and what is new in them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from feedback.word_diff import Stretch, marked_words
from rewardtrain.gate_rules import EACH, KEYS, PROBED


@dataclass(frozen=True)
class GateSample:
    """One prompt with the reply of the policy before and the one after, the new words marked."""

    number: int  # from 1
    total: int
    by: str
    asked: str  # the last message of the person
    earlier: list[dict[str, str]]  # the dialogue up to it
    before: dict[str, Any]
    after: dict[str, Any]
    marked: list[Stretch]
    score_before: float | None
    score_after: float | None
    rule: str = ""  # name of the rule that the prompt probes
    broken_before: float | None = None  # chance that a rule was broken
    broken_after: float | None = None

    @property
    def next_number(self) -> int | None:
        return self.number + 1 if self.number < self.total else None

    @property
    def previous_number(self) -> int | None:
        return self.number - 1 if self.number > 1 else None


def sample_of(report: dict[str, Any], *, number: int = 1, by: str = "") -> GateSample | None:
    """One sample of a gate report; None when it has none.

    number  from 1; beyond the ends it is the first or the last
    by      the key of the line the samples are read for; empty: the first line that failed
    """
    by = by or first_failed(report)
    probes = by in (PROBED, EACH)
    found = [sample for sample in report.get("samples", []) if ("rule" in sample) == probes]
    samples = sorted(found, key=_order(report, by))
    if not samples:
        return None
    number = min(max(1, number), len(samples))
    sample = samples[number - 1]
    prompt = sample.get("prompt", [])
    return GateSample(
        number=number,
        total=len(samples),
        by=by,
        asked=prompt[-1]["content"] if prompt else "",
        earlier=prompt[:-1],
        before=sample["before"],
        after=sample["after"],
        marked=marked_words(sample["before"]["text"], sample["after"]["text"]),
        score_before=sample.get("score_before"),
        score_after=sample.get("score_after"),
        rule=sample.get("rule", ""),
        broken_before=sample.get("broken_before") if by in KEYS else None,
        broken_after=sample.get("broken_after") if by in KEYS else None,
    )


def first_failed(report: dict[str, Any]) -> str:
    """The key of the first line that failed; empty when all passed."""
    return next((line["key"] for line in report.get("lines", []) if not line.get("passed")), "")


def sorted_lines(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of a gate, those that failed first, otherwise as they were."""
    return sorted(lines, key=lambda line: bool(line.get("passed")))


def _order(report: dict[str, Any], by: str) -> Callable[[dict[str, Any]], float]:
    """What shows a line best comes first: the most added words for its length, the greatest loss for its reward.

    For rules it is the greatest rise of the chance that one was broken.
    """
    if by == "length":
        shrank = any(
            line["key"] == "length" and str(line.get("found", "")).startswith(("-", "−"))
            for line in report.get("lines", [])
        )
        return lambda sample: _grown(sample) if shrank else -_grown(sample)
    if by in KEYS:
        return lambda sample: (sample.get("broken_before") or 0.0) - (sample.get("broken_after") or 0.0)
    return lambda sample: (sample.get("score_after") or 0.0) - (sample.get("score_before") or 0.0)


def _grown(sample: dict[str, Any]) -> float:
    return sample["after"]["tokens"] - sample["before"]["tokens"]
