"""What the queue holds: work items are opened and closed, and want more answers or fewer.

A work item has as many live slots as it wants answers. Who takes them is told in `slots.py`.
"""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.utils import timezone

from feedback.models import Project, Slot, WorkItem


@transaction.atomic
def open_work(*, project: Project, kind: str, wanted: int = 1, priority: int = 0, **about: Any) -> WorkItem:
    """Put one unit of work in the queue with its slots; the same thing twice is one work item.

    about  exactly one of dialogue, comparison, candidate, prompt; with a dialogue perhaps the rule
    """
    item, made = WorkItem.objects.get_or_create(
        project=project, kind=kind, **about, defaults={"wanted": wanted, "priority": priority}
    )
    if made:
        Slot.objects.bulk_create([Slot(work_item=item, number=number + 1) for number in range(wanted)])
    return item


@transaction.atomic
def open_more(*, project: Project, kind: str, wanted: int, added: int, priority: int = 0, **about: Any) -> WorkItem:
    """As `open_work`, but where there is such an item already, so many answers are wanted on top of what it waits for.

    One that was closed is opened again; what it had waited for until then is not asked for on top.

    added  how many of them a manager asked for
    """
    item, made = WorkItem.objects.get_or_create(
        project=project, kind=kind, **about, defaults={"wanted": wanted, "added": added, "priority": priority}
    )
    if made:
        Slot.objects.bulk_create([Slot(work_item=item, number=number + 1) for number in range(wanted)])
        return item
    item = WorkItem.objects.select_for_update(no_key=True).get(pk=item.pk)
    left = item.slots.filter(state=Slot.State.FREE).count() if item.closed_at is not None else 0
    more = max(0, wanted - left)
    Slot.objects.bulk_create([Slot(work_item=item, number=item.wanted + number + 1) for number in range(more)])
    item.added = min(max(0, item.added - left) + added, item.wanted + more)
    item.wanted, item.closed_at, item.closed_because = item.wanted + more, None, ""
    item.save(update_fields=["wanted", "added", "closed_at", "closed_because"])
    return item


@transaction.atomic
def close_work(item: WorkItem, *, because: str) -> None:
    """Take an item out of the queue. Slots that are held stay held; what they answer is kept."""
    WorkItem.objects.filter(pk=item.pk, closed_at=None).update(closed_at=timezone.now(), closed_because=because[:200])


def want_one_more(item: WorkItem) -> None:
    """One more answer than before, on top of what was wanted, for an item that the transaction holds.

    One that was closed is opened again; where it never got what it wanted, that is what is asked for.
    """
    changed: dict[str, Any] = {"closed_at": None, "closed_because": ""}
    if item.slots.filter(state=Slot.State.FREE).exists():
        changed["added"] = max(1, item.added)
    else:
        Slot.objects.create(work_item=item, number=item.wanted + 1)
        changed |= {"wanted": item.wanted + 1, "added": item.added + 1}
    WorkItem.objects.filter(pk=item.pk).update(**changed)


def want_at_least(item: WorkItem, wanted: int) -> None:
    """So many answers or more, for an item that the transaction holds; one that was closed short of them is opened."""
    changed: dict[str, Any] = {}
    if item.closed_at is not None and item.slots.filter(state__in=["held", "filled"]).count() < wanted:
        changed = {"closed_at": None, "closed_because": ""}
    if wanted > item.wanted:
        Slot.objects.bulk_create(Slot(work_item=item, number=number) for number in range(item.wanted + 1, wanted + 1))
        changed["wanted"] = wanted
    if changed:
        WorkItem.objects.filter(pk=item.pk).update(**changed)


def may_want_one_less(item: WorkItem) -> bool:
    """Whether the last answer wanted was asked for on top, and nobody has ever claimed it."""
    last = [slot.state for slot in item.slots.all() if slot.number == item.wanted]
    return bool(item.added) and item.closed_at is None and last == [Slot.State.FREE]


def want_one_less(item: WorkItem, *, because: str) -> bool:
    """Take back the last answer that was asked for on top, for an item that the transaction holds.

    An item that wants nothing else is closed. False when somebody has claimed it, or nothing was asked for.
    """
    if not may_want_one_less(item):
        return False
    if item.wanted == 1:
        close_work(item, because=because)
        return True
    item.slots.filter(number=item.wanted, state=Slot.State.FREE).delete()
    WorkItem.objects.filter(pk=item.pk).update(wanted=item.wanted - 1, added=item.added - 1)
    return True


def give_up_free(item: WorkItem, *, because: str) -> tuple[int, int]:
    """Want no more what nobody has claimed of an item that the transaction holds: (how many, of them asked on top).

    Where that is all it wanted, it is closed. Else it stays with what is held or answered: what comes back of that is
    waited for again.
    """
    waiting = item.slots.select_for_update().filter(state=Slot.State.FREE)
    free = list(waiting.values_list("pk", flat=True))  # locked, so that no late answer takes one meanwhile
    on_top = min(item.added, len(free))
    if len(free) == item.wanted:
        close_work(item, because=because)
    elif free:
        Slot.objects.filter(pk__in=free).delete()
        WorkItem.objects.filter(pk=item.pk).update(wanted=item.wanted - len(free), added=item.added - on_top)
    return len(free), on_top
