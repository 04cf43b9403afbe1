"""Whoever dies, and whatever the queue loses: each request ends with its replies, or the reason why they are fewer.

The workers are the real ones, with torch, under the real supervisor. NESTBOX_FULL_PROMISES=1 runs the full numbers.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from config.processes import worker_process
from config.supervisor import Supervisor
from feedback.generation import request_candidates
from feedback.models import Candidate, GenerationRequest, Project
from tests import make
from tests.promises.conftest import FULL, Nestbox, again, assert_nothing_is_wrong, eventually, figures, kill

pytestmark = [pytest.mark.slow, pytest.mark.services]

KILLS, REQUESTS, AT_ONCE = (10, 60, 16) if FULL else (2, 12, 6)
BACKGROUND = ("generate", "default", "beat")
LEASE = GenerationRequest.lease_seconds


def ask(project: Project, count: int) -> list[GenerationRequest]:
    """So many dialogues that wait for their first replies."""
    openings = (f"Why are the leaves of my plant number {number} yellow?" for number in range(count))
    return [request_candidates(dialogue=make.make_dialogue(project, text=text)) for text in openings]


def finished(requests: Sequence[GenerationRequest]) -> Callable[[], bool]:
    keys = [request.pk for request in requests]
    return lambda: not GenerationRequest.objects.unfinished().filter(pk__in=keys).exists()  # type: ignore[attr-defined]


def assert_all_answered(requests: Sequence[GenerationRequest]) -> Counter[str]:
    """Each is done with as many different replies as it wanted; with fewer only where it says that they were equal."""
    outcomes: Counter[str] = Counter()
    for request in requests:
        request.refresh_from_db()
        texts = [candidate.text for candidate in request.candidates.all()]
        assert request.state == "done", (request.state, request.error)
        assert len(set(texts)) == len(texts)
        assert len(texts) == request.wanted or (texts and "copies" in request.fewer_because)
        outcomes[f"with {len(texts)}"] += 1
    assert_nothing_is_wrong()
    return outcomes


def held_by(started_at: object) -> int:
    """Requests that the worker of this moment holds and has not finished."""
    return GenerationRequest.objects.filter(state="running", started_at__gte=started_at).count()


def kill_while_it_holds_requests(supervisor: Supervisor, dice: random.Random, done: Callable[[], bool]) -> int:
    """Kill the generation worker with requests in its hands: it loads, computes or stores. Gives how many it held."""
    since, stored = timezone.now(), Candidate.objects.count()
    eventually(lambda: held_by(since) or done(), seconds=LEASE + 60, what="it takes up requests", every=0.01)
    if dice.random() < 0.5:
        eventually(
            lambda: Candidate.objects.count() > stored or done(), seconds=120, what="it stores a reply", every=0.01
        )
    else:
        time.sleep(dice.uniform(0, 3))
    kill(supervisor, "generate")
    return held_by(since)


def test_every_request_is_answered_though_its_worker_is_killed_again_and_again(
    nestbox: Nestbox, speaking_project: Project
) -> None:
    """Killed at any moment, each time with requests in its hands, and started again by its supervisor."""
    nestbox.environment |= {"NESTBOX_REQUESTS_AT_ONCE": str(AT_ONCE), "NESTBOX_ROWS_AT_ONCE": "4"}
    dice = random.Random(7)
    requests = ask(speaking_project, REQUESTS)
    done = finished(requests)
    held: list[int] = []
    with nestbox.running(*BACKGROUND) as supervisor:
        while len(held) < KILLS:
            assert not done(), f"all was answered after {len(held)} kills: ask for more"
            found = kill_while_it_holds_requests(supervisor, dice, done)
            held += [found] * bool(found)
        stored = Candidate.objects.count()
        seconds = eventually(done, seconds=LEASE + 60, what="every request is finished after the last kill")
    outcomes = assert_all_answered(requests)
    attempts = GenerationRequest.objects.order_by("-attempts").values_list("attempts", flat=True)[0]
    assert sum(held) > 0
    assert GenerationRequest.objects.filter(attempts__gt=1).exists()
    figures(
        "kill",
        kills=len(held),
        held=held,
        stored_before_the_last=stored,
        recovery_seconds=round(seconds, 1),
        most_attempts=attempts,
        outcomes=dict(outcomes),
    )


def test_lost_messages_cost_a_delay_and_no_work(nestbox: Nestbox, speaking_project: Project) -> None:
    requests = ask(speaking_project, 20 if FULL else 4)
    lost = nestbox.lose_messages()
    assert lost == len(requests)
    with nestbox.running(*BACKGROUND):
        seconds = eventually(finished(requests), seconds=120, what="what was not rung is found")
    assert_all_answered(requests)
    figures("lost messages", lost=lost, seconds=round(seconds, 1))


def test_a_queue_emptied_while_workers_listen_is_rung_again(nestbox: Nestbox, speaking_project: Project) -> None:
    """Also what the broker keeps for itself is gone: bindings, unacknowledged messages."""
    with nestbox.running(*BACKGROUND):
        warm = ask(speaking_project, 1)
        eventually(finished(warm), seconds=120, what="the workers are up")
        requests = []
        for _ in range(10 if FULL else 2):
            requests += ask(speaking_project, 3)
            nestbox.lose_messages()
        eventually(finished(requests), seconds=120, what="every request is found by the sweep")
    assert_all_answered(warm + requests)


def test_a_second_worker_doubles_nothing(nestbox: Nestbox, speaking_project: Project) -> None:
    """Two workers, every message sent three times, small batches: each request is taken up once."""
    nestbox.environment |= {"NESTBOX_REQUESTS_AT_ONCE": "2"}
    bell = nestbox.bell()
    with nestbox.running("generate", "default", "beat", workers=2) as supervisor:
        requests = ask(speaking_project, 40 if FULL else 12)
        for request in requests * 2:
            bell.send_task(request.task_name, [request.pk])
        eventually(finished(requests), seconds=90, what="both workers answer")
        logs = [supervisor.last_lines(name, 4000).count("requests worked on") for name in ("generate", "generate-2")]
    assert_all_answered(requests)
    assert set(GenerationRequest.objects.values_list("attempts", flat=True)) == {1}
    assert Candidate.objects.count() <= 4 * len(requests)
    assert all(logs), "both took part"
    figures("two workers", batches=logs)


def test_a_worker_frozen_beyond_its_lease_writes_nothing_afterwards(
    nestbox: Nestbox, speaking_project: Project
) -> None:
    """As when a machine is paused: another worker finishes; the first, woken, finds that the work is not its own."""
    nestbox.environment |= {"NESTBOX_ROWS_AT_ONCE": "4"}
    second = again(worker_process("generate"), 2)
    with nestbox.running(*BACKGROUND) as supervisor:
        requests = ask(speaking_project, 8)
        eventually(lambda: held_by(requests[0].created_at), seconds=120, what="it takes up requests", every=0.01)
        frozen = supervisor.process_id("generate")
        assert frozen is not None
        held = freeze_and_let_lapse(frozen)
        with Supervisor([second], data_dir=nestbox.data_dir, environment=nestbox.environment):
            eventually(finished(requests), seconds=120, what="another worker finishes")
            before = list(Candidate.objects.order_by("pk").values_list("pk", "turns"))
            os.kill(frozen, signal.SIGCONT)
            time.sleep(5)
        assert list(Candidate.objects.order_by("pk").values_list("pk", "turns")) == before
    assert held
    assert_all_answered(requests)
    figures("frozen worker", held=held)


def freeze_and_let_lapse(process_id: int) -> int:
    """Stop a process, though not in the middle of a write to SQLite, and end its leases. Gives how many it held."""
    while True:
        os.kill(process_id, signal.SIGSTOP)
        eventually(lambda: is_frozen(process_id), seconds=30, what="it stands still", every=0.01)
        try:
            with impatient_database():
                return GenerationRequest.objects.filter(state="running").update(lease_until=timezone.now())
        except OperationalError:
            os.kill(process_id, signal.SIGCONT)
            time.sleep(0.05)


def is_frozen(process_id: int) -> bool:
    """True once every thread stands still: a signal is sent before it is heard, and a lock may be taken between."""
    tasks = Path(f"/proc/{process_id}/task")
    if not tasks.exists():  # not Linux: nothing tells, so wait
        time.sleep(0.5)
        return True
    states = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in tasks.iterdir()]
    return set(states) == {"T"}


@contextlib.contextmanager
def impatient_database() -> Iterator[None]:
    """Do not wait long for SQLite's lock."""
    on_sqlite = connection.vendor == "sqlite"
    with connection.cursor() as cursor:
        if on_sqlite:
            cursor.execute("PRAGMA busy_timeout = 300")
        try:
            yield
        finally:
            if on_sqlite:
                cursor.execute("PRAGMA busy_timeout = 30000")
