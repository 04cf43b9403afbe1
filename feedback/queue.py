"""Queued work: claim a row, keep its lease alive, write the outcome. The database is the truth, Celery the bell.

A worker that lost its lease (killed, frozen, too slow) cannot write: every write asks for the token it was given, and
zero rows updated means that somebody else has the work now, which is no error.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from celery import current_app
from django.apps import apps
from django.db import connection, transaction
from django.db.models import F, Q
from django.utils import timezone

from feedback.models import QueuedWork
from feedback.models.queued import QueuedWorkQuerySet

logger = logging.getLogger(__name__)
Row = TypeVar("Row", bound=QueuedWork)
RING_AGAIN_AFTER = timedelta(seconds=10)
RING_AGAIN_LATER = timedelta(seconds=60)  # what waits for long is rung less often, so that no heap of bells grows
LONG_WAIT = timedelta(minutes=10)
MOST_RUNG = 200  # rows rung in one sweep, of each kind


def ring(row: QueuedWork) -> None:
    """Tell the workers of a row, by task name and id, once the transaction is committed.

    A broker that does not answer costs a delay, never the page: the sweep rings again.
    """
    name, pk = row.task_name, row.pk
    transaction.on_commit(lambda: _send(name, pk), robust=True)


def _send(task_name: str, pk: int) -> None:
    current_app.send_task(task_name, [pk], retry=False)


def claim(model: type[Row], pk: int, token: uuid.UUID | None = None) -> Row | None:
    """Take a due row for this worker: one conditional update. None when it is not due or somebody else has it.

    token  of the lease, where whoever started this worker wants to know it again
    """
    now = timezone.now()
    token = token or uuid.uuid4()
    claimed = (
        _due(model, now)
        .filter(pk=pk)
        .update(
            state=QueuedWork.State.RUNNING,
            lease_token=token,
            lease_until=now + timedelta(seconds=model.lease_seconds),
            attempts=F("attempts") + 1,
            started_at=now,
        )
    )
    if not claimed:
        return None
    return model._base_manager.filter(pk=pk, lease_token=token).first()


def claim_many(model: type[Row], limit: int, *, tried_at_most: int | None = None) -> list[Row]:
    """Take up to `limit` due rows, oldest first.

    tried_at_most  leave out rows claimed more often before: what kills its worker must not take others along for ever
    """
    due = _due(model)
    if tried_at_most is not None:
        due = due.filter(attempts__lte=tried_at_most)
    ids = due.order_by("due_at", "pk").values_list("pk", flat=True)[:limit]
    return [row for pk in list(ids) if (row := claim(model, pk))]


def _due(model: type[Row], now: datetime | None = None) -> QueuedWorkQuerySet:
    rows: Any = model._default_manager
    return rows.due(now)


def write(row: QueuedWork, **changes: Any) -> bool:
    """Write where the lease is still this worker's. False when somebody else has the row now, or nobody claimed it."""
    if row.lease_token is None:
        return False
    updated = type(row)._default_manager.filter(pk=row.pk, lease_token=row.lease_token).update(**changes)
    return updated == 1


def renew(row: QueuedWork) -> bool:
    return write(row, lease_until=timezone.now() + timedelta(seconds=row.lease_seconds))


def finish(row: QueuedWork, **changes: Any) -> bool:
    """Mark done, with whatever else the work produced."""
    return write(
        row,
        state=QueuedWork.State.DONE,
        lease_token=None,
        lease_until=None,
        error="",
        progress=1.0,
        finished_at=timezone.now(),
        **changes,
    )


def fail(row: QueuedWork, reason: str, *, permanent: bool = False, retry_after: float | None = None) -> bool:
    """Mark failed for good, or put it back for a later attempt while attempts are left. The reason is kept either way.

    retry_after  seconds until the next attempt; doubles from attempt to attempt when left out
    """
    reason = reason or "It failed without saying why; see the worker's log."
    if permanent or row.attempts >= row.max_attempts:
        return write(
            row,
            state=QueuedWork.State.FAILED,
            error=reason,
            lease_token=None,
            lease_until=None,
            finished_at=timezone.now(),
        )
    return write(
        row,
        state=QueuedWork.State.QUEUED,
        error=reason,
        lease_token=None,
        lease_until=None,
        due_at=timezone.now() + timedelta(seconds=2**row.attempts if retry_after is None else retry_after),
    )


def pause(row: QueuedWork, reason: str, *, retry_after: float) -> bool:
    """Put it back because of something that is not the work's fault, such as a full disk: no attempt is used up."""
    return write(
        row,
        state=QueuedWork.State.QUEUED,
        attempts=F("attempts") - 1,
        error=reason,
        lease_token=None,
        lease_until=None,
        due_at=timezone.now() + timedelta(seconds=retry_after),
    )


def requeue(row: QueuedWork, *, states: Sequence[str] = (QueuedWork.State.FAILED,), ring_now: bool = True) -> bool:
    """Try a row again that ended in one of these states: by a person's wish.

    ring_now  False where the caller works on it itself; the sweep leaves it alone for a while
    """
    now = timezone.now()
    changes = {"state": QueuedWork.State.QUEUED, "attempts": 0, "error": "", "due_at": now, "finished_at": None}
    if not ring_now:
        changes["rung_at"] = now
    updated = type(row)._default_manager.filter(pk=row.pk, state__in=states).update(progress=0.0, **changes)
    if updated and ring_now:
        ring(row)
    return updated == 1


def give_up_on_hopeless(model: type[QueuedWork]) -> int:
    """Fail rows whose worker died again and again: a lapsed lease with no claims left ends with its reason."""
    lapsed = model._default_manager.filter(state=QueuedWork.State.RUNNING, lease_until__lt=timezone.now())
    hopeless = lapsed.filter(attempts__gte=model.max_claims)
    return hopeless.update(
        state=QueuedWork.State.FAILED,
        error=f"Its worker stopped {model.max_claims} times without finishing; see the worker's log, then try again.",
        lease_token=None,
        lease_until=None,
        finished_at=timezone.now(),
    )


def ring_due() -> int:
    """Ring again for every row that is due and has not been rung for a while. Returns how many."""
    now = timezone.now()
    return sum(_ring_due_of(model, now) for model in queued_models())


def _ring_due_of(model: type[QueuedWork], now: datetime) -> int:
    give_up_on_hopeless(model)
    quiet = _due(model, now).exclude(
        Q(rung_at__gte=now - RING_AGAIN_AFTER) | Q(due_at__lt=now - LONG_WAIT, rung_at__gte=now - RING_AGAIN_LATER)
    )
    rung = 0
    for row in quiet.order_by("due_at")[:MOST_RUNG]:
        if quiet.filter(pk=row.pk).update(rung_at=now):  # not where another sweep was quicker
            _send(row.task_name, row.pk)
            rung += 1
    return rung


def queued_models() -> list[type[QueuedWork]]:
    """Every kind of queued work in the installed apps."""
    return [model for model in apps.get_models() if issubclass(model, QueuedWork)]


class Heartbeat:
    """Renews the leases of rows while a block works, from a thread and a connection of its own.

    `lost` holds the ids whose lease was taken by somebody else, so that the work can stop early.
    """

    def __init__(self, rows: list[Any]) -> None:
        self.rows = list(rows)
        self.lost: set[int] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def _beat(self) -> None:
        every = min((row.lease_seconds for row in self.rows), default=30) / 4
        try:
            while not self._stop.wait(every):
                self._renew_all()
        finally:
            connection.close()

    def _renew_all(self) -> None:
        for row in self.rows:
            if row.pk in self.lost:
                continue
            try:
                if not renew(row):
                    self.lost.add(row.pk)
            except Exception:  # noqa: BLE001 - the outermost edge of a thread: a missed beat is logged, the next one tries
                logger.exception("heartbeat missed row=%s", row.pk)
                connection.close()  # a connection that broke with the database would never come back by itself
