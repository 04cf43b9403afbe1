"""What the torch-free worker does: the sweep, and writing snapshots."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

from celery import shared_task

logger = logging.getLogger(__name__)
_writing = threading.Lock()
"""One snapshot at a time in a worker: its other thread stays free for the sweep, without which nothing goes on."""


@shared_task(name="feedback.sweep")
def sweep() -> None:
    """Bring back what lapsed, ring for what is due, keep dialogues and demonstrations ready and replies to rate, ask
    by the rules in force.

    Running it twice changes nothing.
    """
    from feedback import (
        demonstrations_wanted,
        dialogues,
        judging_handed_over,
        probing,
        queue,
        ratings_wanted,
        slots,
    )
    from feedback.models import Project

    lapsed = _part("lapse slots", slots.lapse_slots)
    abandoned = _part("close abandoned probes", probing.close_abandoned_probes)
    rung = _part("ring for what is due", queue.ring_due)
    opened = again = handed = asked = rated = 0
    for project in Project.objects.open():
        opened += _part(f"open dialogues project={project.pk}", partial(dialogues.keep_dialogues_ready, project))
        again += _part(f"ask again project={project.pk}", partial(dialogues.ask_again_where_it_failed, project))
        asked += _part(
            f"ask for demonstrations project={project.pk}",
            partial(demonstrations_wanted.keep_demonstrations_ready, project),
        )
        asked += _part(
            f"ask for reviews project={project.pk}", partial(demonstrations_wanted.keep_reviews_ready, project)
        )
        rated += _part(f"ask for ratings project={project.pk}", partial(ratings_wanted.keep_ratings_ready, project))
        handed += _part(
            f"hand over project={project.pk}", partial(judging_handed_over.hand_over_what_returned, project)
        )
    counts = (lapsed, abandoned, rung, opened, again, handed, asked, rated)
    if any(counts):
        logger.info("swept lapsed=%s abandoned=%s rung=%s opened=%s again=%s handed=%s asked=%s rated=%s", *counts)


def _part(name: str, work: Callable[[], int]) -> int:
    """How much a part of the sweep did; what goes wrong in one leaves the others alone."""
    try:
        return work()
    except Exception:  # noqa: BLE001 - the worker's outermost edge; the next sweep tries again
        logger.exception("sweep could not %s", name)
        return 0


@shared_task(name="feedback.write_snapshot", acks_late=True)
def write_snapshot(snapshot_id: int) -> None:
    """Write a snapshot's files; a second claim does nothing. While another one is written, the sweep rings again."""
    from feedback import snapshots

    if not _writing.acquire(blocking=False):
        return
    try:
        snapshots.write_snapshot(snapshot_id)
    finally:
        _writing.release()
