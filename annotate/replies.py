"""Written replies as pages hold them, and what a page shows on which one is written or reviewed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from annotate.answers import NAME, name_of
from feedback import demonstration_reviews, demonstrations
from feedback.dialogues import LONGEST_MESSAGE
from feedback.judgements import LONGEST_REASON
from feedback.models import Candidate, Demonstration, DemonstrationReview, Rule, RuleSet, Slot, Turn

SAY, WRITE, WRITTEN, REVIEW, CLOSED = "say", "write", "written", "review", "closed"
LARGEST_PASTE = 10_000_000  # characters; a browser counts them
STATES = {
    DemonstrationReview.Verdict.ACCEPTED: "Somebody read it and accepted it.",
    DemonstrationReview.Verdict.SENT_BACK: "Somebody sent it back; it waits for you on your home page.",
    DemonstrationReview.Verdict.EDITED: "Somebody edited it, and theirs stands in its place.",
}
CHOICES = (  # what a reviewer says, the key for it, and how it is put
    (DemonstrationReview.Verdict.ACCEPTED, "a", "Accept"),
    (DemonstrationReview.Verdict.SENT_BACK, "b", "Send back"),
    (DemonstrationReview.Verdict.EDITED, "e", "Edit"),
)
WAITS = "It waits for somebody to review it; until then you can correct it or take it back."


@dataclass(frozen=True)
class Reply:
    """A text as far as it was written: from what it was started, and how much of it was pasted."""

    content: str = ""
    pasted: int = 0
    started_from: str = ""  # what the page called the model's reply; empty: nothing
    is_alike: bool = False  # it says what another one says: sent again, it is meant so


@dataclass(frozen=True)
class Review:
    """What was chosen and written so far on a page that reviews."""

    verdict: str = ""
    reason: str = ""
    content: str = ""


def reply_in_draft(body: Mapping[str, Any]) -> Reply | None:
    """The text in a draft, which comes from a browser and so is not to be trusted; None where it holds none."""
    content = body.get("content", "")
    if not isinstance(content, str) or not content:
        return None
    pasted, start = str(body.get("pasted", "")), str(body.get("started_from", ""))
    return Reply(
        content,
        int(pasted) if re.fullmatch(r"\d{1,7}", pasted) else 0,
        start if re.fullmatch(NAME, start) else "",
    )


def review_in_draft(body: Mapping[str, Any]) -> Review | None:
    """As `reply_in_draft`, of a review."""
    verdict = str(body.get("verdict", ""))
    texts = {name: str(body.get(name, "")) for name in ("reason", "content")}
    known = verdict if verdict in DemonstrationReview.Verdict.values else ""
    return Review(known, **texts) if known or any(texts.values()) else None


def starts_of(slot: Slot) -> dict[str, Candidate]:
    """{name on this slot's page: the model's reply one may start from}."""
    return {name_of(slot, candidate.pk): candidate for candidate in demonstrations.candidates_for(slot)}


def write_context(slot: Slot, given: Reply | None, body: Mapping[str, Any]) -> dict[str, Any]:
    """The dialogue so far and the rules; and a text that is begun, sent, or sent back with a reason."""
    phase, stored = _phase(slot), demonstrations.newest_of(slot)
    in_force = demonstrations.in_force_of(slot)
    starts = starts_of(slot) if phase == WRITE else {}
    shown = given or reply_in_draft(body) or _stored_reply(slot, stored if phase != WRITE else in_force)
    return {
        **_surroundings(slot),
        "phase": phase,
        "may_write": phase in {SAY, WRITE} or (phase == WRITTEN and _may_correct(in_force)),
        "reply": shown,
        "typed": given.content if given is not None else str(body.get("content", "")),
        "demonstration": stored if phase in {WRITTEN, CLOSED} else None,
        "revises": in_force.revision if in_force is not None else 0,
        "starts": list(starts.items()),
        "started_from": starts.get(shown.started_from),
        "sent_back": _why_sent_back(slot),
        "may_take_back": phase == WRITTEN and _may_take_back(in_force),
        "state_words": _state_words(stored),
        "turns_left": _turns_left(slot),
        "draft_key": f"slot-{slot.pk}-{phase}",
        "longest": LONGEST_MESSAGE,
    }


def _phase(slot: Slot) -> str:
    if demonstrations.is_to_be_continued(slot):
        return SAY
    if slot.state in {Slot.State.HELD, Slot.State.LAPSED} and not _is_sent(slot):
        return WRITE
    return WRITTEN if demonstrations.in_force_of(slot) is not None else CLOSED


def _is_sent(slot: Slot) -> bool:
    """Whether the text that stands was sent from this very piece, and not before it was sent back."""
    text = demonstrations.in_force_of(slot)
    return text is not None and text.pk != slot.work_item.demonstration_id


def _may_take_back(text: Demonstration | None) -> bool:
    return text is not None and _may_correct(text) and not demonstrations.was_sent_back(text)


def _may_correct(text: Demonstration | None) -> bool:
    """Whether nobody has read it or holds it."""
    asked = text.work_items.filter(kind="review") if text is not None else None
    free = asked is not None and not asked.filter(slots__state__in=["held", "filled"]).exists()
    return text is not None and free and not text.reviews.exists()


def _stored_reply(slot: Slot, text: Demonstration | None) -> Reply:
    if text is None:
        return Reply()
    start = name_of(slot, text.edited_from_id) if text.edited_from_id else ""
    return Reply(text.content, round((text.pasted_share or 0) * len(text.content)), start)


def _why_sent_back(slot: Slot) -> str:
    """What the reviewer of a text wants changed, where it is to be written again."""
    judged = slot.work_item.demonstration
    review = demonstrations.review_of(judged) if judged is not None else None
    return review.reason if review is not None else ""


def _state_words(text: Demonstration | None) -> str:
    review = demonstrations.review_of(text) if text is not None else None
    return STATES[DemonstrationReview.Verdict(review.verdict)] if review is not None else WAITS


def _turns_left(slot: Slot) -> int:
    said = sum(turn.role == Turn.Role.USER for turn in demonstrations.turns_of(slot))
    return max(0, slot.work_item.project.max_turns - said)


def review_context(slot: Slot, given: Review | None, body: Mapping[str, Any]) -> dict[str, Any]:
    """A reply that somebody else wrote, and nothing of what anybody said of it."""
    text, stored = slot.work_item.demonstration, demonstration_reviews.review_in_force(slot)
    assert text is not None  # a constraint of the work item
    shown = given or (_stored_review(stored) if stored else review_in_draft(body) or Review())
    found = demonstrations.alike(slot.work_item.project, text.content, but_of=(text.dialogue, text.annotator_key))
    return {
        **_surroundings(slot),
        "phase": REVIEW,
        "demonstration": text,
        "review": stored,
        "given": shown,
        "choices": CHOICES,
        "edited": shown.content or text.content,
        "may_change": stored is None or (stored.edit is None and not hasattr(text, "superseded_by")),
        "alike": round(100 * found[1]) if found is not None else 0,
        "revises": stored.revision if stored is not None else 0,
        "draft_key": f"slot-{slot.pk}-review",
        "longest": LONGEST_MESSAGE,
        "longest_reason": LONGEST_REASON,
    }


def _stored_review(review: DemonstrationReview) -> Review:
    return Review(review.verdict, review.reason, review.edit.content if review.edit is not None else "")


def _surroundings(slot: Slot) -> dict[str, Any]:
    published = Rule.objects.filter(rule_set__project=slot.work_item.project, rule_set__state=RuleSet.State.PUBLISHED)
    turns = demonstrations.turns_of(slot)
    return {
        "turns": turns,
        "last_position": turns[-1].position if turns else -1,
        "rules": published.order_by("position"),
    }
