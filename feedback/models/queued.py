"""Work that is a row: the state every piece of queued work shares. The verbs are in `feedback.queue`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import models
from django.db.models import Q
from django.utils import timezone


class QueuedWorkQuerySet(models.QuerySet):
    model: type[Any]

    def due(self, now: datetime | None = None) -> QueuedWorkQuerySet:
        """What a worker may claim now: waiting and not before its time, or running under a lapsed lease.

        Not what lapsed with its last claim: that is hopeless, and only waits for the sweep to say so.
        """
        now = now or timezone.now()
        return self.filter(
            Q(state=QueuedWork.State.QUEUED, due_at__lte=now)
            | Q(state=QueuedWork.State.RUNNING, lease_until__lt=now, attempts__lt=self.model.max_claims)
        )

    def unfinished(self) -> QueuedWorkQuerySet:
        return self.filter(state__in=[QueuedWork.State.QUEUED, QueuedWork.State.RUNNING])


class QueuedWork(models.Model):
    """A row that somebody must work on. Celery only rings; this row is the truth.

    `task_name` is rung with the row's id. A worker holds the row by `lease_token` until `lease_until` and renews it by
    heartbeat; everything it writes is written where the token is still its own.
    """

    class State(models.TextChoices):
        QUEUED = "queued", "waiting"
        RUNNING = "running", "running"
        DONE = "done", "done"
        FAILED = "failed", "failed"
        CANCELLED = "cancelled", "cancelled"

    task_name = ""
    lease_seconds = 30
    max_attempts = 5  # after so many a failure is final
    max_claims = 5  # after so many a worker that dies holding the row is not followed by another

    state = models.CharField(max_length=9, choices=State.choices, default=State.QUEUED)
    attempts = models.PositiveIntegerField(default=0)
    lease_token = models.UUIDField(null=True, blank=True, editable=False)
    lease_until = models.DateTimeField(null=True, blank=True, editable=False)
    due_at = models.DateTimeField(default=timezone.now)
    rung_at = models.DateTimeField(null=True, blank=True, editable=False)
    error = models.TextField(blank=True)
    progress = models.FloatField(default=0.0, help_text="0 to 1")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = QueuedWorkQuerySet.as_manager()

    class Meta:
        abstract = True
        constraints = [
            models.CheckConstraint(
                condition=Q(state="running", lease_token__isnull=False, lease_until__isnull=False)
                | (~Q(state="running") & Q(lease_token__isnull=True, lease_until__isnull=True)),
                name="%(class)s_is_leased_exactly_while_running",
            ),
            models.CheckConstraint(
                condition=~Q(state="failed") | ~Q(error=""), name="%(class)s_fails_only_with_a_reason"
            ),
            models.CheckConstraint(
                condition=Q(progress__gte=0, progress__lte=1), name="%(class)s_progress_is_a_fraction"
            ),
            models.CheckConstraint(
                condition=Q(state__in=["queued", "running", "done", "failed", "cancelled"]),
                name="%(class)s_state_is_known",
            ),
        ]
        # serves the sweep: rows that are due, oldest first
        indexes = [models.Index(fields=["state", "due_at"], name="%(class)s_due")]

    @property
    def age_seconds(self) -> float:
        return ((self.finished_at or timezone.now()) - self.created_at).total_seconds()

    @property
    def is_finished(self) -> bool:
        return self.state in {self.State.DONE, self.State.FAILED, self.State.CANCELLED}
