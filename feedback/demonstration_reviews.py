"""Reviews of demonstrations: somebody else accepts one, sends it back with a reason, or edits it.

A review is evidence as well. An edit is a demonstration of the reviewer's own, which supersedes the one they were given
and is reviewed by another person; the first writer may be that person, for their own text stands no more.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction

from feedback import demonstrations, slots, work_items
from feedback.errors import (
    AlreadyAnswered,
    AlreadyReviewed,
    BadVerdict,
    ReasonNeeded,
    ReasonTooLong,
    SlotNotYours,
    SubmitKeyReused,
)
from feedback.judgements import LONGEST_REASON
from feedback.models import Demonstration, DemonstrationReview, Slot, WorkItem

Verdict = DemonstrationReview.Verdict


@transaction.atomic
def record_review(
    *,
    slot: Slot,
    verdict: str,
    submit_key: UUID,
    reason: str = "",
    content: str = "",
    seconds: float | None = None,
    revises: int = 0,
) -> DemonstrationReview:
    """Store what somebody says of another person's demonstration; the same key again returns the same row.

    verdict  accepted, sent_back (with a reason) or edited (with the text they made of it)
    seconds  time the page was in view
    revises  the revision this review corrects; 0 for a first one
    Raises   BadVerdict, ReasonNeeded, ReasonTooLong, EmptyMessage, MessageTooLong, SlotNotYours, AlreadyAnswered
             (another window was first), AlreadyReviewed (another text stands by now), SubmitKeyReused
    """
    reason, content = reason.strip(), content.replace("\r\n", "\n").strip()
    body_hash = _body_hash(slot, verdict, reason, content)
    slot = slots.in_hand(slot)
    before = DemonstrationReview.objects.filter(submit_key=submit_key).first()
    if before is not None:
        return _same_answer(before, slot, body_hash)
    demonstration = _asked(slot)
    newest = _newest(slot)
    if newest is not None and newest.revision != revises:
        raise AlreadyAnswered(
            "Another window already sent a review of this. That one counts; here it is.", answer=newest
        )
    _refuse_bad(verdict, reason, content, demonstration)
    _refuse_if_gone_on(demonstration, newest)
    counts = _counts(slot, newest)
    edit = _edit(slot, demonstration, content, counts) if verdict == Verdict.EDITED else None
    review = _add(
        newest,
        demonstration=demonstration,
        slot=slot,
        verdict=verdict,
        reason=reason if verdict == Verdict.SENT_BACK else "",
        edit=edit,
        seconds=seconds,
        late=slot.state == Slot.State.LAPSED,
        counts=counts,
        submit_key=submit_key,
        body_hash=body_hash,
    )
    slots.fill(slot)
    if counts:
        _act_on(review, newest)
    return review


def _asked(slot: Slot) -> Demonstration:
    """The demonstration a slot asks about."""
    item = slot.work_item
    if item.kind != WorkItem.Kind.REVIEW or item.demonstration is None or slot.annotator_id is None:
        raise SlotNotYours("This piece was not given to you. Take the next one from your home page.")
    if slot.state == Slot.State.SKIPPED:
        raise SlotNotYours("You skipped this piece, so it was given to somebody else.")
    return item.demonstration


def _refuse_bad(verdict: str, reason: str, content: str, demonstration: Demonstration) -> None:
    if verdict not in Verdict.values:
        raise BadVerdict("Say whether you accept this reply, send it back, or edit it.")
    if verdict == Verdict.SENT_BACK and not reason:
        raise ReasonNeeded("Say what is to change, so that its writer can mend it.")
    if len(reason) > LONGEST_REASON:
        raise ReasonTooLong(f"A reason has at most {LONGEST_REASON} characters; this one has {len(reason)}.")
    if verdict == Verdict.EDITED and demonstrations.checked(content) == demonstration.content:
        raise BadVerdict("You have changed nothing. Accept it as it is, or change it first.")


def _refuse_if_gone_on(demonstration: Demonstration, newest: DemonstrationReview | None) -> None:
    """What another text has taken the place of needs no review; what its writer mends now is theirs."""
    if hasattr(demonstration, "superseded_by"):
        raise AlreadyReviewed("Another text stands in the place of this one by now. Take the next piece.")
    again = WorkItem.objects.filter(demonstration=demonstration, kind=WorkItem.Kind.DEMONSTRATE, closed_at=None)
    held = Slot.objects.filter(work_item__in=again, state=Slot.State.HELD)
    if newest is not None and newest.verdict == Verdict.SENT_BACK and held.exists():
        raise AlreadyReviewed("Its writer is at it already, so what you said stays.")


def _counts(slot: Slot, newest: DemonstrationReview | None) -> bool:
    """Whether a review counts: always in time; late if the one it corrects did, or if its place is still free."""
    if slot.state != Slot.State.LAPSED or (newest is not None and newest.counts):
        return True
    return slots.close_fresh_one(slot)


def _edit(slot: Slot, demonstration: Demonstration, content: str, counts: bool) -> Demonstration:
    """The reviewer's text. One that came too late to count is kept, and takes no other's place."""
    return demonstrations.add_demonstration(
        slot=slot,
        newest=demonstrations.newest_of(slot),
        supersedes=demonstration if counts else None,
        dialogue=demonstration.dialogue,
        position=demonstration.position,
        content=demonstrations.checked(content),
        edited_from=demonstration.edited_from,
        late=slot.state == Slot.State.LAPSED,
        counts=counts,
    )


def _act_on(review: DemonstrationReview, before: DemonstrationReview | None) -> None:
    """What was sent back is given to its writer again, unless that is nobody here; an edit to another reviewer."""
    given = review.demonstration
    again = WorkItem.objects.filter(demonstration=given, kind=WorkItem.Kind.DEMONSTRATE).first()
    if review.verdict != Verdict.SENT_BACK:
        if again is not None:
            work_items.close_work(again, because="the review was corrected")
        if review.edit is not None:
            demonstrations.ask_for_review(review.edit)
    elif again is not None:
        work_items.want_at_least(again, 1)
    elif given.annotator_id is not None:
        work_items.open_work(
            project=given.dialogue.project,
            kind=WorkItem.Kind.DEMONSTRATE,
            demonstration=given,
            priority=demonstrations.AGAIN_PRIORITY,
        )


def _newest(slot: Slot) -> DemonstrationReview | None:
    mine = DemonstrationReview.objects.filter(
        demonstration=slot.work_item.demonstration_id, annotator_key=f"u{slot.annotator_id}"
    )
    return mine.order_by("-revision").first()


def review_in_force(slot: Slot) -> DemonstrationReview | None:
    """What this person said of the demonstration a slot asks about, as it stands."""
    return _newest(slot)


def _same_answer(before: DemonstrationReview, slot: Slot, body_hash: str) -> DemonstrationReview:
    if before.annotator_id != slot.annotator_id or before.body_hash != body_hash:
        raise SubmitKeyReused("This form was already sent with another review. Reload the page to see it.")
    return before


def _add(newest: DemonstrationReview | None, *, slot: Slot, **fields: Any) -> DemonstrationReview:
    assert slot.annotator_id is not None  # what `_asked` refuses
    try:
        with transaction.atomic():
            return DemonstrationReview.objects.create(
                slot=slot,
                annotator_id=slot.annotator_id,
                annotator_key=f"u{slot.annotator_id}",
                revision=newest.revision + 1 if newest else 1,
                **fields,
            )
    except IntegrityError as err:  # from two windows at the same instant
        raise AlreadyAnswered("Another window already sent a review of this. Reload the page to see it.") from err


def _body_hash(slot: Slot, verdict: str, reason: str, content: str) -> str:
    body = [slot.work_item_id, verdict, reason, content]
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()
