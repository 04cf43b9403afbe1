"""How a run tells how far it is: progress, figures and ledger, written while the run is its own process's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from django.db import transaction

from feedback import queue
from rewardtrain.models import LedgerEntry, MetricPoint, TrainingRun


class LeaseLost(RuntimeError):
    """The run was stopped, or another process has it now: this one must end without writing anything more."""


class Silent:
    """For the processes of a team that do not report: the first one does."""

    def begin(self, steps_total: int, done: int = 0) -> None: ...

    def keep(self, **found: Any) -> None: ...

    def saved(self, step: int) -> None: ...

    def step(self, done: int, total: int, figures: Mapping[str, float]) -> None: ...

    def ledger(self, entries: list[LedgerEntry]) -> None: ...


class Reporter(Silent):
    """Writes a run's progress, figures and reward ledger, each only while the run is still this process's.

    on_progress  also told (steps done, steps total, figures): the bar in the terminal
    """

    def __init__(self, run: TrainingRun, on_progress: Callable[[int, int, Mapping[str, float]], None] | None = None):
        self.run = run
        self.on_progress = on_progress

    def begin(self, steps_total: int, done: int = 0) -> None:
        """Say how many steps there will be, and after how many this attempt goes on.

        What an attempt that died had written of later steps is replaced by what this one writes.
        """
        with transaction.atomic():
            share = min(1.0, done / max(1, steps_total))
            self._write(steps_total=steps_total, steps_done=done, resumed_step=done, progress=share)
            MetricPoint.objects.filter(run=self.run, step__gt=done).delete()
            LedgerEntry.objects.filter(run=self.run, step__gt=done).delete()

    def keep(self, **found: Any) -> None:
        """Note on the row what a resumed attempt must not measure again."""
        self.run.result = {**self.run.result, **found}
        self._write(result=self.run.result)

    def saved(self, step: int) -> None:
        """The state after `step` is on the disk. A run that gets on is no hopeless one, however often it was killed."""
        self._write(checkpoint_step=step, attempts=1)
        self.run.checkpoint_step, self.run.attempts = step, 1

    def step(self, done: int, total: int, figures: Mapping[str, float]) -> None:
        """One step is done. Figures that are no number (not measured) are left out."""
        with transaction.atomic():
            self._write(steps_done=done, steps_total=total, progress=min(1.0, done / max(1, total)))
            MetricPoint.objects.bulk_create(
                [
                    MetricPoint(run=self.run, step=done, name=name, value=float(value))
                    for name, value in figures.items()
                    if math.isfinite(value)
                ],
                ignore_conflicts=True,
            )
        if self.on_progress is not None:
            self.on_progress(done, total, figures)

    def ledger(self, entries: list[LedgerEntry]) -> None:
        """Keep every sample of one step with its reward terms."""
        with transaction.atomic():
            self._write()
            LedgerEntry.objects.bulk_create(entries, ignore_conflicts=True)

    def _write(self, **changes: Any) -> None:
        if not (queue.write(self.run, **changes) if changes else queue.renew(self.run)):
            raise LeaseLost(f"Run {self.run.pk} was stopped, or another process works on it now.")
