"""Answers about one reply as pages hold them, and what the page shows on which a reply is rated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from annotate.verdicts import consent_context
from feedback import ratings
from feedback.models import Rating, Scale, Slot, Turn
from feedback.models.ratings import BETWEEN_FLAGS, NONE

FIELD = "q-"  # how the fields about questions begin
Answers = dict[str, str]  # {key of a question: value}


@dataclass(frozen=True)
class Choice:
    """One value that can be chosen, and the number key for it."""

    value: str
    words: str
    key: str
    is_chosen: bool


@dataclass(frozen=True)
class Question:
    """One question as its page shows it, with what is chosen so far."""

    scale: Scale
    choices: list[Choice]

    @property
    def name(self) -> str:
        return f"{FIELD}{self.scale.key}"

    @property
    def is_flags(self) -> bool:
        return self.scale.kind == Scale.Kind.FLAGS

    @property
    def is_numbers(self) -> bool:
        return self.scale.kind == Scale.Kind.NUMBERS

    @property
    def asked_values(self) -> str:
        return " ".join(self.scale.asked_values)

    @property
    def implied_words(self) -> str:
        return self.scale.in_words(self.scale.implied) if self.scale.implied else ""


def answers_sent(sent: Any) -> Answers:
    """The answers in a form that was sent; of flags those that hold, as they came."""
    return {key.removeprefix(FIELD): BETWEEN_FLAGS.join(sent.getlist(key)) for key in sent if key.startswith(FIELD)}


def answers_in_draft(body: Mapping[str, Any]) -> Answers:
    """The answers in a draft, which comes from a browser and so is not to be trusted."""
    found = {}
    for key, value in body.items():
        parts = value if isinstance(value, list) else [value]
        if key.startswith(FIELD) and all(isinstance(part, str) for part in parts):
            found[key.removeprefix(FIELD)] = BETWEEN_FLAGS.join(parts)
    return found


def rate_context(slot: Slot, given: Answers | None, body: Mapping[str, Any], shown: str) -> dict[str, Any]:
    """The reply, its questions, and what stands on them: just sent, stored, or chosen so far."""
    candidate, stored = ratings.candidate_of(slot), ratings.in_force_of(slot)
    consent = consent_context(slot)
    shown = shown or str(body.get("shown", ""))
    answers = given if given is not None else _stored(stored) or answers_in_draft(body)
    questions = [question_of(scale, answers.get(scale.key, "")) for scale in ratings.questions_of(slot)]
    return consent | {
        "phase": "rate",
        "turns": ratings.turns_of(candidate),
        "candidate": candidate,
        "reply": [turn["content"] for turn in candidate.turns if turn["role"] not in Turn.SEARCH],
        "scale_set": slot.work_item.scale_set,
        "questions": questions,
        "first": next((one.scale.key for one in questions if not answers.get(one.scale.key)), ""),
        "stored": stored,
        "revises": stored[0].revision if stored else 0,
        "rated_at": stored[0].created_at if stored else None,
        "sent_words": sent_words(given, stored),
        "shown": shown,
        "veiled": bool(consent["warning"]) and not shown and not stored,
        "draft_key": f"slot-{slot.pk}-rating",
    }


def question_of(scale: Scale, value: str) -> Question:
    """A question with the answer it has so far; nothing is chosen where that is none of its own."""
    chosen = value.split(BETWEEN_FLAGS)
    choices = [
        Choice(one, words, str(number), one in chosen) for number, (one, words) in enumerate(scale.choices, start=1)
    ]
    if scale.kind == Scale.Kind.FLAGS:
        choices.append(Choice(NONE, "None of these", "0", chosen == [NONE]))
    return Question(scale, choices)


def _stored(rows: list[Rating]) -> Answers:
    return {rating.scale.key: rating.value for rating in rows if not rating.implied}


def sent_words(given: Answers | None, stored: list[Rating]) -> str:
    """The answers that were sent while others stand: the loser sees both."""
    if given is None or not stored:
        return ""
    differing = [
        f"{rating.scale.name}: {rating.scale.in_words(value).lower()}"
        for rating in stored
        if (value := given.get(rating.scale.key)) and value != rating.value and rating.scale.takes(value)
    ]
    return "; ".join(differing)
