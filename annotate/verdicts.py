"""A verdict as pages hold it, and what a page that asks for one shows beside the dialogue."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feedback import consents, probing
from feedback.judgements import LONGEST_REASON, TACTICS, judgement_in_force
from feedback.models import Consent, RuleJudgement, Slot, Turn

STEPS = tuple((verdict.value, verdict.label) for verdict in RuleJudgement.Verdict)


@dataclass(frozen=True)
class Verdict:
    """What was chosen, marked and written so far."""

    verdict: int | None = None
    turn_position: int | None = None
    tactics: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Said:
    """A turn as a verdict's page shows it: what the model said can be marked."""

    position: int
    role: str
    text: str
    chip: str = ""
    veiled: bool = False

    @property
    def can_be_marked(self) -> bool:
        return self.role == Turn.Role.ASSISTANT

    @property
    def is_searched(self) -> bool:
        """Whether it is no message, but what was looked for or found before one."""
        return self.role in Turn.SEARCH


def verdict_of(judgement: RuleJudgement | None) -> Verdict:
    """A stored verdict as its page shows it."""
    if judgement is None:
        return Verdict()
    return Verdict(judgement.verdict, judgement.turn_position, tuple(judgement.tactics), judgement.reason)


def verdict_in_draft(body: Mapping[str, Any]) -> Verdict:
    """The verdict in a draft, which comes from a browser and so is not to be trusted."""
    verdict, position = str(body.get("verdict", "")), str(body.get("turn_position", ""))
    given = body.get("tactics", [])
    tactics = given if isinstance(given, list) else [given]
    return Verdict(
        int(verdict) if re.fullmatch(r"[1-5]", verdict) else None,
        int(position) if re.fullmatch(r"\d{1,6}", position) else None,
        tuple(name for name in tactics if isinstance(name, str) and name in TACTICS),
        str(body.get("reason", ""))[:LONGEST_REASON],
    )


def as_draft(verdict: Verdict, *, message: str, shown: str) -> dict[str, Any]:
    """The same as a page's script would keep it, with what was typed in the chat and what was uncovered of it."""
    body = {"message": message, "shown": shown, "reason": verdict.reason, "tactics": list(verdict.tactics)}
    numbers = {"verdict": verdict.verdict, "turn_position": verdict.turn_position}
    return body | {name: str(value) for name, value in numbers.items() if value is not None}


def verdict_context(slot: Slot, given: Verdict | None, body: Mapping[str, Any]) -> dict[str, Any]:
    """The rule, the five steps, and what stands on them: just sent, stored, or typed so far."""
    stored = judgement_in_force(slot)
    rule = slot.work_item.rule
    return {
        "rule": rule,
        "steps": STEPS,
        "ways": TACTICS.items(),
        "given": given or (verdict_of(stored) if stored else verdict_in_draft(body)),
        "judgement": stored,
        "sent_words": _sent_words(given, stored),
        "longest_reason": LONGEST_REASON,
        **consent_context(slot),
    }


def _sent_words(given: Verdict | None, stored: RuleJudgement | None) -> str:
    """The verdict that was sent while another stands: the loser sees both."""
    if given is None or stored is None or given.verdict in {None, stored.verdict}:
        return ""
    return f"{dict(STEPS)[given.verdict or 3].lower()}, and {stored.get_verdict_display().lower()} counts"


def consent_context(slot: Slot) -> dict[str, Any]:
    """What may appear, since when it was agreed to, and how much of it there was today; nothing where all is tame."""
    rule = consents.sensitive_rule(slot)
    if rule is None:
        return {"warning": ""}
    project, user = slot.work_item.project, slot.annotator
    assert user is not None
    agreed = Consent.objects.filter(user=user, project=project, theme=rule.theme, given=True).order_by("-pk").first()
    return {
        "warning": rule.warning,
        "theme": rule.theme,
        "agreed_at": agreed.created_at if agreed else None,
        "sensitive_today": probing.sensitive_given_today(user, project),
    }


def turns_said(turns: Sequence[Turn], *, veiled: bool, chips: Mapping[int, str] | None = None) -> list[Said]:
    """The turns of a dialogue that somebody else had."""
    chips = chips or {}
    return [Said(turn.position, turn.role, turn.content, chips.get(turn.position, ""), veiled) for turn in turns]
