"""Who does what next: slots are claimed, renewed, filled, skipped, and come back when their lease lapses.

A slot is one wanted answer. Because a work item has exactly as many live slots as it wants answers, and claiming one is
a single conditional update, too many people on one item is impossible, on SQLite as on PostgreSQL.

Rows are locked in one order: person, work item, slot. SQLite has no row locks and needs none: there a transaction that
writes is alone from its start.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from django.db import IntegrityError, transaction
from django.db.models import Case, Exists, OuterRef, Q, QuerySet, When
from django.utils import timezone

from feedback.errors import ReasonNeeded, SlotClosed
from feedback.models import Draft, GenerationRequest, Membership, Project, Slot, User, WorkItem

Thing = TypeVar("Thing")
LOOKED_AT = 20  # free slots looked at in one go; when others were quicker at all of them, the next ones are


def held_slots(user: User, project: Project | None = None) -> QuerySet[Slot]:
    """What a person has in hand, oldest first."""
    held = Slot.objects.held_by(user).select_related("work_item__project").order_by("claimed_at")
    return held.filter(work_item__project=project) if project else held


@transaction.atomic
def next_slot(*, user: User, project: Project, kind: str = "") -> Slot | None:
    """The next best piece of work for a person, theirs for a while: what they hold already, else a fresh claim.

    Asked twice at once (a double click) it is the same piece. None only when nothing is left that they may take.
    """
    User.objects.select_for_update(no_key=True).get(pk=user.pk)
    held = held_slots(user, project)
    if kind:
        held = held.filter(work_item__kind=kind)
    return held.first() or _claim_any(waiting_slots(user=user, project=project, kind=kind), user)


def waiting_slots(*, user: User, project: Project, kind: str = "") -> QuerySet[Slot]:
    """Free slots this person may claim in a project, best first.

    The other rules of a dialogue that they are judging come in a row. Of equal priority comes first what can be worked
    on now, then what waits for replies, then what failed to get them.
    """
    free = Slot.objects.claimable_by(user, kind).filter(work_item__project=project)
    in_a_row = Case(When(work_item__in=_judged_beside(user), then=0), default=1)
    return free.order_by(in_a_row, "-work_item__priority", _lack_of_replies(), "work_item_id", "number")


def _judged_beside(user: User) -> QuerySet[WorkItem]:
    """The questions about the dialogue that a person was given last to judge."""
    judge = WorkItem.Kind.JUDGE
    last = Slot.objects.given_to(user).filter(work_item__kind=judge).order_by("-claimed_at", "-pk")[:1]
    return WorkItem.objects.filter(kind=judge, dialogue__in=last.values("work_item__dialogue"))


def _lack_of_replies() -> Case:
    """0 where replies are there or none were asked for, 1 where they are on their way, 2 where they failed."""
    asked = GenerationRequest.objects.filter(
        dialogue=OuterRef("work_item__dialogue"), dialogue__ended_at=None, comparison=None
    )
    return Case(
        When(Exists(asked.filter(state=GenerationRequest.State.FAILED)), then=2),
        When(Exists(asked.unfinished()), then=1),
        default=0,
    )


def _claim_any(free: QuerySet[Slot], user: User) -> Slot | None:
    """The first slot that can still be claimed. Whatever somebody else took meanwhile is gone from the next look.

    Items that others are claiming from at this instant are passed over first, and waited for only when all are: people
    who arrive together would else queue at the same item, one after the other.
    """
    while pks := list(free.values_list("pk", flat=True)[:LOOKED_AT]):
        for patient in (False, True):
            for pk in pks:
                slot = claim_slot(pk, user=user, patient=patient)
                if slot is not None:
                    return slot
    return None


class _Missed(Exception):
    """A slot that cannot be taken after all. Raised, so that the locks of the attempt are given back at once."""


def claim_slot(pk: int, *, user: User, patient: bool = True) -> Slot | None:
    """Take one free slot of open work: a single conditional update. None when somebody else was quicker.

    patient  wait for whoever is claiming from the same item at this instant
    """
    try:
        with transaction.atomic():
            return _claim(pk, user, patient)
    except _Missed:
        return None


def _claim(pk: int, user: User, patient: bool) -> Slot:
    item = _locked_item(pk, patient)
    if item is None or item.closed_at is not None:
        raise _Missed
    now = timezone.now()
    try:
        with transaction.atomic():
            claimed = Slot.objects.filter(pk=pk, state=Slot.State.FREE).update(
                state=Slot.State.HELD,
                annotator=user,
                lease_token=uuid.uuid4(),
                lease_until=now + timedelta(minutes=item.project.lease_minutes),
                claimed_at=now,
            )
    except IntegrityError as err:  # they hold or filled another slot of the same item
        raise _Missed from err
    if not claimed:
        raise _Missed
    _bring_along(pk, item, user)
    return _with_project().get(pk=pk)


def _with_project() -> QuerySet[Slot]:
    return Slot.objects.select_related("work_item__project", "annotator")


def _locked_item(slot_pk: int, patient: bool) -> WorkItem | None:
    """The work item of a slot, locked, so that it is not closed while somebody takes the slot."""
    items = WorkItem.objects.select_for_update(no_key=True, of=("self",), skip_locked=not patient)
    items = items.select_related("project")
    return items.filter(slots=slot_pk).first()


def _bring_along(pk: int, item: WorkItem, user: User) -> None:
    """Who takes up again what lapsed under them finds the same order of replies, and what they had typed."""
    mine = Slot.objects.filter(work_item=item, annotator=user).exclude(pk=pk)
    before = mine.order_by("-pk").first()
    if before is None:
        return
    Slot.objects.filter(pk=pk).update(shuffle_seed=before.shuffle_seed)
    old = Draft.objects.filter(slot__in=mine).order_by("-saved_at").first()
    if old is not None:
        Draft.objects.create(slot_id=pk, body=old.body, saved_at=old.saved_at)


def locked(slot: Slot) -> Slot:
    """The slot as it is now; it stays so until the transaction ends."""
    return _with_project().select_for_update(no_key=True, of=("self",)).get(pk=slot.pk)


@transaction.atomic
def in_hand(slot: Slot) -> Slot:
    """The slot in which its holder acts, locked: this one, or after it lapsed the one in which they went on.

    A dialogue that lapsed and that nobody else has taken is taken up again.
    """
    now = locked(slot)
    if now.state != Slot.State.LAPSED:
        return now
    again = Slot.objects.filter(work_item=now.work_item_id, annotator=now.annotator_id, state=Slot.State.HELD).first()
    if again is None and now.work_item.is_chat:
        again = _claim_again(now)
    return locked(again) if again is not None else now


def regain(slot: Slot) -> Slot | None:
    """Take up again a dialogue whose slot lapsed, while nobody else has. None when somebody has."""
    again = in_hand(slot)
    return again if again.state == Slot.State.HELD else None


def _claim_again(slot: Slot) -> Slot | None:
    fresh = Slot.objects.filter(work_item=slot.work_item_id, number=slot.number, state=Slot.State.FREE).first()
    if fresh is None or slot.annotator is None:
        return None
    if not Slot.objects.filter(pk=fresh.pk).agreed_by(slot.annotator).exists():
        return None
    return claim_slot(fresh.pk, user=slot.annotator)


def renew_lease(slot: Slot) -> bool:
    """Each action in a slot gives it its full time again. False when the slot is no longer held."""
    until = timezone.now() + timedelta(minutes=slot.work_item.project.lease_minutes)
    renewed = Slot.objects.filter(pk=slot.pk, state=Slot.State.HELD, lease_token=slot.lease_token).update(
        lease_until=until
    )
    return renewed == 1


def fill(slot: Slot, *, because: str = "") -> bool:
    """Close a held slot as answered. False when it was no longer held."""
    return _close(slot, Slot.State.FILLED, because)


def _close(slot: Slot, state: str, because: str) -> bool:
    closed = Slot.objects.filter(pk=slot.pk, state=Slot.State.HELD).update(
        state=state, closed_at=timezone.now(), closed_because=because[:200]
    )
    return closed == 1


@transaction.atomic
def skip(slot: Slot, *, reason: str) -> None:
    """Give a slot up for good, with a reason; somebody else gets a fresh one.

    Raises  ReasonNeeded, SlotClosed
    """
    if not reason.strip():
        raise ReasonNeeded("Say in a word why you skip it; it helps to mend the prompts.")
    slot = in_hand(slot)
    if not _close(slot, Slot.State.SKIPPED, reason.strip()):
        raise SlotClosed("This piece is no longer yours, so there is nothing to skip. Take the next one.")
    _open_fresh(slot)


@transaction.atomic
def give_back(slot: Slot, *, because: str) -> None:
    """A slot whose answer was taken back: nobody's answer any more, and asked of somebody else.

    A late answer filled the fresh slot beside the lapsed one; where somebody else took that, nothing is asked.
    """
    theirs = Slot.objects.filter(work_item=slot.work_item_id, annotator=slot.annotator_id, state=Slot.State.FILLED)
    given = theirs.select_for_update(no_key=True).first()
    if given is not None:
        theirs.update(state=Slot.State.SKIPPED, closed_at=timezone.now(), closed_because=because[:200])
        _open_fresh(given)


def _open_fresh(slot: Slot) -> None:
    Slot.objects.create(work_item_id=slot.work_item_id, number=slot.number)


def lapse_slots(now: datetime | None = None) -> int:
    """Close held slots whose time is over, or whose holder may work here no more, and open fresh ones.

    Returns how many.
    """
    now = now or timezone.now()
    member = Membership.objects.filter(
        project=OuterRef("work_item__project"), user=OuterRef("annotator"), is_active=True, user__is_active=True
    )
    held = Slot.objects.filter(state=Slot.State.HELD)
    over = held.filter(Q(lease_until__lt=now) | ~Exists(member))
    return sum(_lapse(slot, now) for slot in over.order_by("pk")[:500])


@transaction.atomic
def _lapse(slot: Slot, now: datetime) -> int:
    lapsed = Slot.objects.filter(pk=slot.pk, state=Slot.State.HELD, lease_until=slot.lease_until).update(
        state=Slot.State.LAPSED, closed_at=now, closed_because="its time was over"
    )
    if lapsed:
        _open_fresh(slot)
    return lapsed


def close_fresh_one(slot: Slot) -> bool:
    """For a late answer: fill the fresh slot that replaced a lapsed one, if nobody has claimed it.

    True: it was free, so the answer counts. Not that of somebody who has read in a later question what others chose.
    """
    if Slot.objects.filter(pk=slot.pk).known_to(slot.annotator).exists():
        return False
    fresh = Slot.objects.filter(work_item=slot.work_item_id, number=slot.number, state=Slot.State.FREE)
    now = timezone.now()
    try:
        with transaction.atomic():
            filled = fresh.update(
                state=Slot.State.FILLED,
                annotator=slot.annotator_id,
                claimed_at=now,
                closed_at=now,
                closed_because="answered late",
            )
    except IntegrityError:  # the same person filled another slot of this item
        return False
    return filled == 1


def shuffled(things: Sequence[Thing], *, seed: int, salt: int) -> list[Thing]:
    """The order a slot shows things in: the same at every look, another from slot to slot and question to question."""
    order = list(things)
    random.Random(f"{seed}|{salt}").shuffle(order)
    return order


def shown_places(slot: Slot, *, after_position: int, redo: int, wanted: int) -> list[int]:
    """The candidate indexes in the order this slot shows them; fixed before the first candidate exists."""
    return shuffled(range(wanted), seed=slot.shuffle_seed, salt=after_position * 100 + redo)
