"""Demonstrations: people write the reply they would want from the model to a dialogue so far.

A demonstration is evidence: it is added and never changed. What its writer sends next supersedes it, and so does what a
reviewer makes of it. It counts for something once somebody else has accepted it (`demonstration_reviews`).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Count, Q

from feedback import likeness, slots, work_items
from feedback.dialogues import LONGEST_MESSAGE, OVERLAP_PRIORITY
from feedback.errors import (
    AlikeAlready,
    AlreadyAnswered,
    AlreadyReviewed,
    AnswerTakenBack,
    CandidatesNotReady,
    EmptyMessage,
    ForeignCandidate,
    MessageTooLong,
    SlotNotYours,
    SubmitKeyReused,
)
from feedback.models import (
    Candidate,
    Demonstration,
    DemonstrationReview,
    Dialogue,
    Project,
    Slot,
    Turn,
    WorkItem,
)

Messages = list[dict[str, str]]
COMPARED = 500  # of a project's newest demonstrations, with which a new text is compared
AGAIN_PRIORITY = 10  # what was sent back is nearly done
REVIEW_PRIORITY = OVERLAP_PRIORITY
MOST_OFFERED = 4  # of the model's replies, to start from
TAKEN_BACK = "the demonstration was taken back"


# What a person meets


def dialogue_of(slot: Slot) -> Dialogue:
    """The dialogue so far that a slot asks to be answered, or in which an answer is reviewed.

    Raises  SlotNotYours when it asks for something else
    """
    item = slot.work_item
    if item.kind not in {WorkItem.Kind.DEMONSTRATE, WorkItem.Kind.REVIEW}:
        raise SlotNotYours("This piece of work asks for something else. Take the next one from your home page.")
    pk = item.demonstration.dialogue_id if item.demonstration is not None else item.dialogue_id
    assert pk is not None  # a constraint of the work item
    return Dialogue.objects.select_related("project", "prompt").get(pk=pk)


def turns_of(slot: Slot) -> list[Turn]:
    """The turns that lead to the reply that is written or reviewed."""
    turns = list(dialogue_of(slot).turns.all())
    judged = slot.work_item.demonstration
    return [turn for turn in turns if judged is None or turn.position <= judged.position]


def newest_of(slot: Slot) -> Demonstration | None:
    """This person's newest text in a slot's dialogue, also one that was taken back."""
    mine = Demonstration.objects.filter(dialogue=dialogue_of(slot), annotator_key=f"u{slot.annotator_id}")
    return mine.select_related("edited_from").order_by("-revision").first()


def in_force_of(slot: Slot) -> Demonstration | None:
    """This person's text in a slot's dialogue, as it stands; None also where a reviewer's has taken its place."""
    newest = newest_of(slot)
    stands = newest is not None and not newest.withdrawn and not hasattr(newest, "superseded_by")
    return newest if stands else None


def candidates_for(slot: Slot) -> list[Candidate]:
    """The model's replies to the same dialogue so far, to start from, in an order that is the slot's own.

    Those of dialogues that measure policies are left out, and of equal texts all but one.
    """
    dialogue, turns = dialogue_of(slot), turns_of(slot)
    if not turns or turns[-1].role != Turn.Role.USER or dialogue.prompt_id is None:
        return []
    so_far = [(turn.role, turn.content) for turn in turns]
    made = Candidate.objects.filter(
        dialogue__prompt=dialogue.prompt_id, after_position=turns[-1].position, is_empty=False
    ).exclude(dialogue__kind=Dialogue.Kind.EVALUATION)
    found: dict[str, Candidate] = {}
    for candidate in made.select_related("dialogue").prefetch_related("dialogue__turns").order_by("pk")[:50]:
        told = [(turn.role, turn.content) for turn in candidate.dialogue.turns.all()][: len(turns)]
        if told == so_far and len(candidate.turns) == 1:
            found.setdefault(candidate.text, candidate)
    return slots.shuffled(list(found.values()), seed=slot.shuffle_seed, salt=turns[-1].position)[:MOST_OFFERED]


def is_to_be_continued(slot: Slot) -> bool:
    """Whether the dialogue ends with a reply, so that somebody must say first what the person says next."""
    turns = turns_of(slot)
    return bool(turns) and turns[-1].role != Turn.Role.USER


# What a person sends


@transaction.atomic
def record_demonstration(
    *,
    slot: Slot,
    content: str,
    submit_key: UUID,
    edited_from: Candidate | None = None,
    pasted_share: float | None = None,
    seconds: float | None = None,
    revises: int = 0,
    keep_alike: bool = False,
) -> Demonstration:
    """Store the reply a person wrote, and ask others what they say of it; the same key again returns the same row.

    edited_from   the model's reply it was made from
    pasted_share  0 to 1, of its characters; None where nobody measured it
    seconds       time the page was in view
    revises       the revision this corrects, or writes again; 0 for a first one
    keep_alike    stored although it says nearly what is here already
    Raises        EmptyMessage, MessageTooLong, SlotNotYours, CandidatesNotReady (nobody has asked anything yet),
                  ForeignCandidate, AlreadyAnswered (another window was first), AlreadyReviewed, AlikeAlready,
                  SubmitKeyReused (same key, another text), AnswerTakenBack (the same one, taken back since)
    """
    content = checked(content)
    body_hash = _body_hash(slot, content, edited_from)
    slot = slots.in_hand(slot)
    before = Demonstration.objects.filter(submit_key=submit_key).first()
    if before is not None:
        return _same_answer(before, slot, body_hash)
    newest = newest_of(slot)
    _refuse_if_not_askable(slot)
    _refuse_if_answered(newest, revises)
    _refuse_if_reviewed(slot, newest)
    if edited_from is not None and edited_from not in [*candidates_for(slot), newest and newest.edited_from]:
        raise ForeignCandidate("The reply you started from does not belong here. Reload the page.")
    if not keep_alike:
        warn_of_likeness(slot, content)
    counts = _counts(slot, newest)
    demonstration = add_demonstration(
        dialogue=dialogue_of(slot),
        position=turns_of(slot)[-1].position,
        slot=slot,
        content=content,
        newest=newest,
        supersedes=newest,
        edited_from=edited_from,
        pasted_share=pasted_share,
        seconds=seconds,
        late=slot.state == Slot.State.LAPSED,
        counts=counts,
        submit_key=submit_key,
        body_hash=body_hash,
    )
    slots.fill(slot)
    if newest is not None:
        close_review(newest, because="its writer sent another text")
    if counts:
        ask_for_review(demonstration)
    return demonstration


def checked(content: str) -> str:
    """A reply that can be stored. Raises  EmptyMessage, MessageTooLong"""
    content = content.replace("\r\n", "\n").strip()
    if not content:
        raise EmptyMessage("Write the reply first.")
    if len(content) > LONGEST_MESSAGE:
        raise MessageTooLong(f"A reply has at most {LONGEST_MESSAGE} characters; this one has {len(content)}.")
    return content


def _refuse_if_not_askable(slot: Slot) -> None:
    if slot.work_item.kind != WorkItem.Kind.DEMONSTRATE or slot.annotator_id is None:
        raise SlotNotYours("This piece was not given to you. Take the next one from your home page.")
    if slot.state == Slot.State.SKIPPED:
        raise SlotNotYours("You skipped this piece, so it was given up. Take the next one from your home page.")
    if is_to_be_continued(slot):
        raise CandidatesNotReady("Write first what the person says next; then answer it.")


def _refuse_if_answered(newest: Demonstration | None, revises: int) -> None:
    if newest is not None and not newest.withdrawn and newest.revision != revises:
        raise AlreadyAnswered(
            "Another window already sent a reply to this. That one counts; here it is.", answer=newest
        )


def _refuse_if_reviewed(slot: Slot, newest: Demonstration | None) -> None:
    """A text that somebody reads, or has said something of, is its writer's again only where it was sent back."""
    if newest is None or newest.withdrawn:
        return
    is_asked_again = slot.work_item.demonstration_id == newest.pk
    if hasattr(newest, "superseded_by"):
        raise AlreadyReviewed("A reviewer has edited this reply since, and theirs stands. Nothing of yours is lost.")
    if not is_asked_again and (_is_read(newest) or newest.reviews.exists()):
        raise AlreadyReviewed("Somebody reviews this reply, or has done so, and it can not be changed any more.")


def _is_read(demonstration: Demonstration) -> bool:
    """Whether somebody has it in hand now."""
    return Slot.objects.filter(
        work_item__demonstration=demonstration, work_item__kind=WorkItem.Kind.REVIEW, state=Slot.State.HELD
    ).exists()


def warn_of_likeness(slot: Slot, content: str) -> None:
    """Raises  AlikeAlready for a text that is, or nearly is, in force in the project; one's own here does not count."""
    dialogue = dialogue_of(slot)
    found = alike(dialogue.project, content, but_of=(dialogue, f"u{slot.annotator_id}"))
    if found is None:
        return
    how = "the same as" if found[1] == 1 else f"{found[1]:.0%} the same as"
    raise AlikeAlready(
        f"This is {how} a reply that was written in this project before. Change it, or send it again to keep it so.",
        likeness=found[1],
    )


def alike(
    project: Project, content: str, *, but_of: tuple[Dialogue, str], texts: int = COMPARED
) -> tuple[int, float] | None:
    """(id, how alike) of the demonstration in force in a project that says nearly the same; None without one.

    but_of  a dialogue and a person's key: what they wrote there is not looked at
    texts   how many of the newest are compared word by word; the same text is found among all
    """
    others = Demonstration.objects.in_force().filter(dialogue__project=project)
    others = others.exclude(dialogue=but_of[0], annotator_key=but_of[1])
    same = others.filter(fingerprint=likeness.fingerprint(content)).order_by("pk").first()
    if same is not None:
        return same.pk, 1.0
    return likeness.nearest(content, others.order_by("-pk").values_list("pk", "content")[:texts])


def _counts(slot: Slot, newest: Demonstration | None) -> bool:
    """Whether a text counts: always in time; late if the one it corrects did, or if its place is still free."""
    is_correction = newest is not None and not newest.withdrawn and newest.counts
    if slot.state != Slot.State.LAPSED or (is_correction and slot.work_item.demonstration_id is None):
        return True
    return slots.close_fresh_one(slot)


def _same_answer(before: Demonstration, slot: Slot, body_hash: str) -> Demonstration:
    """The text a form gave when it was sent before."""
    if before.annotator_id != slot.annotator_id or before.body_hash != body_hash:
        raise SubmitKeyReused("This form was already sent with another text. Reload the page to see it.")
    newest = newest_of(slot)
    if newest is not None and newest.withdrawn:
        raise AnswerTakenBack("This reply was taken back. Send it again from this page.")
    return before


def add_demonstration(*, slot: Slot, newest: Demonstration | None, content: str, **fields: Any) -> Demonstration:
    """One more text by the holder of a slot.

    newest  their own before it, whose revision it follows
    Raises  AlreadyAnswered when another window was first
    """
    try:
        with transaction.atomic():
            return Demonstration.objects.create(
                slot=slot,
                content=content,
                fingerprint=likeness.fingerprint(content),
                annotator_id=slot.annotator_id,
                annotator_key=f"u{slot.annotator_id}",
                revision=newest.revision + 1 if newest else 1,
                **fields,
            )
    except IntegrityError as err:  # from two windows at the same instant
        raise AlreadyAnswered("Another window already sent a reply to this. Reload the page to see it.") from err


def ask_for_review(demonstration: Demonstration) -> WorkItem:
    """Have somebody else say whether a text is a reply the model should give."""
    return work_items.open_work(
        project=demonstration.dialogue.project,
        kind=WorkItem.Kind.REVIEW,
        demonstration=demonstration,
        priority=REVIEW_PRIORITY,
    )


def close_review(demonstration: Demonstration, *, because: str) -> None:
    """Nobody is asked about a text any more that another one has taken the place of."""
    for item in WorkItem.objects.filter(demonstration=demonstration, kind=WorkItem.Kind.REVIEW):
        work_items.close_work(item, because=because)


@transaction.atomic
def withdraw_demonstration(*, slot: Slot) -> Demonstration | None:
    """Take a reply back that nobody has read yet: adds a withdrawn revision. Somebody else is asked. None without one.

    Raises  AlreadyReviewed
    """
    slot = slots.in_hand(slot)
    current = in_force_of(slot)
    if current is None:
        return None
    _refuse_if_reviewed(slot, current)
    if was_sent_back(current):
        raise AlreadyReviewed("This reply was reviewed before, so it can be written again, but not taken back.")
    close_review(current, because=TAKEN_BACK)
    _ask_somebody_else(current, because=TAKEN_BACK)
    return add_demonstration(
        slot=slot,
        newest=current,
        supersedes=current,
        dialogue=current.dialogue,
        position=current.position,
        content=current.content,
        edited_from=current.edited_from,
        withdrawn=True,
        late=current.late,
        counts=current.counts,
    )


def was_sent_back(demonstration: Demonstration) -> bool:
    """Whether it is a text that was written again, after somebody had read the one before it."""
    return demonstration.slot is not None and demonstration.slot.work_item.demonstration_id is not None


def _ask_somebody_else(demonstration: Demonstration, *, because: str) -> None:
    """The dialogue is answered by another person; one that its writer went on with by themselves is closed."""
    item = WorkItem.objects.filter(dialogue=demonstration.dialogue_id, kind=WorkItem.Kind.DEMONSTRATE).first()
    if item is None:
        return
    if demonstration.dialogue.author_id is not None:
        work_items.close_work(item, because=because)
        return
    given = item.slots.filter(annotator=demonstration.annotator_id, state=Slot.State.FILLED).first()
    if given is not None:
        slots.give_back(given, because=because)


@transaction.atomic
def leave(*, slot: Slot, reason: str) -> None:
    """Skip a piece with a reason. What was sent back, or begun by this person, is asked of nobody else as it stands.

    Raises  ReasonNeeded, SlotClosed
    """
    slots.skip(slot, reason=reason)
    item, said = slot.work_item, f"skipped: {reason.strip()}"
    if item.demonstration is not None and item.kind == WorkItem.Kind.DEMONSTRATE:
        work_items.close_work(item, because=said)
        _ask_somebody_else(item.demonstration, because=said)
    elif item.dialogue is not None and item.dialogue.author_id is not None:
        work_items.close_work(item, because=said)


# Where they stand


def counts_of(project: Project) -> dict[str, int]:
    """How many of a project's demonstrations are accepted, wait for a review or were sent back, and are asked for."""
    found = Demonstration.objects.filter(dialogue__project=project)
    counts = found.aggregate(
        accepted=Count("pk", filter=Q(pk__in=found.accepted().values("pk"))),
        waiting=Count("pk", filter=Q(pk__in=found.waiting().values("pk"))),
        sent_back=Count("pk", filter=Q(pk__in=found.sent_back().values("pk"))),
    )
    asked = Slot.objects.filter(
        work_item__project=project,
        work_item__kind=WorkItem.Kind.DEMONSTRATE,
        work_item__closed_at=None,
        work_item__demonstration=None,
        state__in=[Slot.State.FREE, Slot.State.HELD],
    )
    return counts | {"asked": asked.count()}


def review_of(demonstration: Demonstration) -> DemonstrationReview | None:
    """The review that stands and counts."""
    return DemonstrationReview.objects.counted().filter(demonstration=demonstration).first()


def _body_hash(slot: Slot, content: str, edited_from: Candidate | None) -> str:
    body = [slot.work_item_id, content, edited_from.pk if edited_from else None]
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()
