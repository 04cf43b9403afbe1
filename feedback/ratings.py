"""Ratings: what people say of one reply, question by question, sent all at once.

A rating is evidence, like a ranking: it is added and never changed; a correction is a new revision of every answer, an
undo a revision marked withdrawn. Questions that were not asked get the value that follows from an earlier one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils import timezone

from feedback import slots
from feedback.errors import AlreadyAnswered, AnswerTakenBack, BadRating, SlotNotYours, SubmitKeyReused, WordingChanged
from feedback.models import Candidate, Rating, Scale, Slot, Turn, WorkItem

TAKEN_BACK = "the rating was taken back"


@dataclass(frozen=True)
class Given:
    """The value of one question, and whether it was not asked because an earlier answer settles it."""

    scale: Scale
    value: str
    implied: bool = False


# What a person meets


def candidate_of(slot: Slot) -> Candidate:
    """The reply that a slot asks to be rated. Raises SlotNotYours when it asks for something else."""
    item = slot.work_item
    if item.kind != WorkItem.Kind.RATE or item.candidate_id is None:
        raise SlotNotYours("This piece of work asks for something else. Take the next one from your home page.")
    return Candidate.objects.select_related("dialogue__project", "dialogue__prompt").get(pk=item.candidate_id)


def turns_of(candidate: Candidate) -> list[Turn]:
    """The turns that a reply answers."""
    return list(candidate.dialogue.turns.filter(position__lte=candidate.after_position))


def questions_of(slot: Slot) -> list[Scale]:
    """The questions of a slot, in the words they had when it was claimed: they stay the same while it is held.

    Raises  SlotNotYours where it asks for something else
    """
    if slot.work_item.scale_set_id is None or slot.claimed_at is None:
        raise SlotNotYours("This piece of work asks for something else. Take the next one from your home page.")
    return list(Scale.objects.asked_at(slot.claimed_at).filter(scale_set=slot.work_item.scale_set_id))


def is_asked(scale: Scale, values: Mapping[str, str], questions: Sequence[Scale]) -> bool:
    """Whether a question is to be asked, as far as is known: it is unless an earlier answer settles it.

    values  {key: value} of the questions before it, those not asked among them
    """
    if scale.asked_after not in {one.key for one in questions}:
        return True  # that question is turned off: nothing settles this one
    return values.get(scale.asked_after) in scale.asked_values


def completed(questions: Sequence[Scale], answers: Mapping[str, str]) -> list[Given]:
    """A value for every question. What was answered although it is not asked counts for nothing.

    answers  {key of a question: value}; of flags those that hold, with commas between, or none
    Raises   BadRating, naming the first question that lacks an answer it could have
    """
    values: dict[str, str] = {}
    found = []
    for scale in questions:
        if not is_asked(scale, values, questions):
            found.append(Given(scale, scale.implied, implied=True))
        elif not answers.get(scale.key):
            raise BadRating(f"“{scale.name}” is not answered yet. Answer it, then send.")
        elif not scale.takes(answers[scale.key]):
            raise BadRating(f"The answer to “{scale.name}” is none of those it has. Choose one of them.")
        else:
            found.append(Given(scale, answers[scale.key]))
        values[scale.key] = found[-1].value
    return found


def newest_of(slot: Slot) -> list[Rating]:
    """What this person said last of the reply of a slot, also where they took it back; in the questions' order."""
    mine = Rating.objects.filter(
        candidate=slot.work_item.candidate_id, scale__in=questions_of(slot), annotator_key=f"u{slot.annotator_id}"
    )
    return list(mine.newest().select_related("scale").order_by("scale__position", "scale_id"))


def in_force_of(slot: Slot) -> list[Rating]:
    """The same as it stands; nothing where it was taken back."""
    return [rating for rating in newest_of(slot) if not rating.withdrawn]


# What a person sends


@transaction.atomic
def record_ratings(
    *, slot: Slot, answers: Mapping[str, str], submit_key: UUID, seconds: float | None = None, revises: int = 0
) -> list[Rating]:
    """Store all that one person says of a reply, or nothing; the same key again returns the same rows.

    answers  {key of a question: value}
    seconds  time the page was in view
    revises  the revision these correct; 0 for a first answer
    Raises   BadRating, WordingChanged, SlotNotYours, AlreadyAnswered (another window was first), SubmitKeyReused (same
             key, other answers), AnswerTakenBack (the same ones, taken back since)
    """
    shown = questions_of(slot)
    slot = slots.in_hand(slot)
    questions = questions_of(slot)
    body_hash = _body_hash(slot, answers)
    before = list(Rating.objects.filter(submit_key=submit_key).select_related("scale").order_by("scale__position"))
    if before:
        return _same_answer(before, slot, body_hash)
    _refuse_if_not_askable(slot)
    newest = newest_of(slot)
    _refuse_if_answered(newest, revises)
    if questions != shown:  # its time was over, and the manager changed them before it was taken up again
        raise WordingChanged("The questions were changed since this page was drawn. Reload it and look at them again.")
    given = completed(questions, answers)
    stored = _add_revision(
        newest,
        slot=slot,
        given=given,
        seconds=seconds,
        late=slot.state == Slot.State.LAPSED,
        counts=_counts(slot, newest),
        submit_key=submit_key,
        body_hash=body_hash,
    )
    slots.fill(slot)
    return stored


def _refuse_if_not_askable(slot: Slot) -> None:
    if slot.work_item.kind != WorkItem.Kind.RATE or slot.annotator_id is None:
        raise SlotNotYours("This piece was not given to you. Take the next one from your home page.")
    if slot.state == Slot.State.SKIPPED:
        raise SlotNotYours("You skipped this piece, so it was given up. Take the next one from your home page.")


def _refuse_if_answered(newest: list[Rating], revises: int) -> None:
    if newest and not newest[0].withdrawn and newest[0].revision != revises:
        raise AlreadyAnswered("Another window already rated this reply. That counts; here it is.", answer=newest[0])


def _counts(slot: Slot, newest: list[Rating]) -> bool:
    """Whether answers count: always in time; late if those they correct did, or if their place is still free."""
    is_correction = bool(newest) and not newest[0].withdrawn and newest[0].counts
    return slot.state != Slot.State.LAPSED or is_correction or slots.close_fresh_one(slot)


def _same_answer(before: list[Rating], slot: Slot, body_hash: str) -> list[Rating]:
    """The answers a form gave when it was sent before."""
    if before[0].annotator_id != slot.annotator_id or before[0].body_hash != body_hash:
        raise SubmitKeyReused("This form was already sent with other answers. Reload the page to see them.")
    newest = newest_of(slot)
    if newest and newest[0].withdrawn:
        raise AnswerTakenBack("This rating was taken back. Send it again from this page.")
    return before


def _add_revision(newest: list[Rating], *, slot: Slot, given: Sequence[Given], **fields: Any) -> list[Rating]:
    """One row for each question, all of the same instant. Raises AlreadyAnswered when another window was first."""
    candidate = candidate_of(slot)
    revision, now = max((rating.revision for rating in newest), default=0) + 1, timezone.now()
    rows = [
        Rating(
            candidate=candidate,
            scale=one.scale,
            value=one.value,
            implied=one.implied,
            slot=slot,
            annotator_id=slot.annotator_id,
            annotator_key=f"u{slot.annotator_id}",
            revision=revision,
            created_at=now,
            **fields,
        )
        for one in given
    ]
    try:
        with transaction.atomic():
            return Rating.objects.bulk_create(rows)
    except IntegrityError as err:  # from two windows at the same instant
        raise AlreadyAnswered("Another window already rated this reply. Reload the page to see it.") from err


@transaction.atomic
def withdraw_ratings(*, slot: Slot) -> list[Rating]:
    """Take back what was said of a reply: adds a withdrawn revision, and somebody else is asked. Empty without any."""
    slot = slots.in_hand(slot)
    current = in_force_of(slot)
    if not current:
        return []
    slots.give_back(slot, because=TAKEN_BACK)
    given = [Given(rating.scale, rating.value, rating.implied) for rating in current]
    return _add_revision(
        current, slot=slot, given=given, withdrawn=True, late=current[0].late, counts=current[0].counts
    )


def _body_hash(slot: Slot, answers: Mapping[str, str]) -> str:
    body = [slot.work_item_id, sorted((key, value) for key, value in answers.items() if value)]
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()
