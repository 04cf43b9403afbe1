"""Queued work: one worker at a time, fenced by its lease; failures end with a reason; what is due is rung again."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain
from typing import Any
from uuid import uuid4

import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from feedback import queue
from feedback.models import GenerationRequest, QueuedWork
from tests import make
from tests.threads import at_once

pytestmark = pytest.mark.django_db


class Bell:
    """Stands in for the broker: notes what was rung, or is out of order."""

    def __init__(self) -> None:
        self.rung: list[tuple[str, list[int]]] = []
        self.broken = False

    def send_task(self, name: str, args: list[int], *, retry: bool) -> None:
        assert not retry
        if self.broken:
            raise ConnectionRefusedError("nobody listens")
        self.rung.append((name, args))


@pytest.fixture
def bell(monkeypatch: pytest.MonkeyPatch) -> Bell:
    bell = Bell()
    monkeypatch.setattr(queue, "current_app", bell)
    return bell


def claimed(**fields: Any) -> GenerationRequest:
    row = queue.claim(GenerationRequest, make.make_request(**fields).pk)
    assert row is not None
    return row


def update(row: GenerationRequest, **fields: Any) -> None:
    GenerationRequest.objects.filter(pk=row.pk).update(**fields)


def ago(**span: float) -> Any:
    return timezone.now() - timedelta(**span)


def requests(count: int) -> list[GenerationRequest]:
    return [make.make_request(make.make_dialogue(text=f"Question {number}")) for number in range(count)]


# Claiming


def test_claiming_gives_a_lease_and_counts_the_attempt() -> None:
    before = timezone.now()
    row = claimed()
    assert (row.state, row.attempts) == ("running", 1)
    assert row.lease_token is not None
    assert row.lease_until >= before + timedelta(seconds=GenerationRequest.lease_seconds)
    assert row.started_at >= before


def test_a_row_that_somebody_holds_cannot_be_claimed() -> None:
    row = claimed()
    assert queue.claim(GenerationRequest, row.pk) is None
    assert GenerationRequest.objects.get().attempts == 1


def test_a_row_before_its_time_cannot_be_claimed() -> None:
    row = make.make_request(due_at=timezone.now() + timedelta(seconds=5))
    assert queue.claim(GenerationRequest, row.pk) is None


@pytest.mark.parametrize("state", ["done", "failed", "cancelled"])
def test_a_finished_row_cannot_be_claimed(state: str) -> None:
    row = make.make_request(state=state, error="why")
    assert queue.claim(GenerationRequest, row.pk) is None


def test_a_row_that_is_not_there_cannot_be_claimed() -> None:
    assert queue.claim(GenerationRequest, 404) is None


def test_a_lapsed_row_goes_to_the_next_worker() -> None:
    first = claimed()
    update(first, lease_until=ago(seconds=1))
    second = queue.claim(GenerationRequest, first.pk)
    assert second is not None
    assert (second.attempts, second.lease_token != first.lease_token) == (2, True)


def test_a_row_that_lapsed_with_its_last_claim_goes_to_nobody() -> None:
    row = claimed()
    update(row, lease_until=ago(seconds=1), attempts=GenerationRequest.max_claims)
    assert queue.claim(GenerationRequest, row.pk) is None


def test_many_are_claimed_oldest_first_and_no_more_than_wanted() -> None:
    rows = requests(4)
    for age, row in enumerate(rows):
        update(row, due_at=ago(seconds=age))
    assert [row.pk for row in queue.claim_many(GenerationRequest, 3)] == [row.pk for row in reversed(rows[1:])]
    assert [row.pk for row in queue.claim_many(GenerationRequest, 3)] == [rows[0].pk]
    assert queue.claim_many(GenerationRequest, 3) == []


def test_what_was_tried_too_often_is_left_out_of_many() -> None:
    tried, fresh = requests(2)
    update(tried, attempts=2)
    assert [row.pk for row in queue.claim_many(GenerationRequest, 5, tried_at_most=1)] == [fresh.pk]


def test_many_leave_out_what_another_worker_takes_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = requests(2)
    claim = queue.claim

    def claim_second_after_somebody_else(model: Any, pk: int) -> Any:
        if pk == one.pk:
            assert claim(model, other.pk)
        return claim(model, pk)

    monkeypatch.setattr(queue, "claim", claim_second_after_somebody_else)
    assert [row.pk for row in queue.claim_many(GenerationRequest, 5)] == [one.pk]


@pytest.mark.django_db(transaction=True)
def test_of_workers_that_claim_at_once_one_gets_each_row() -> None:
    rows = requests(6)

    def work() -> list[int]:
        return [row.pk for pk in [row.pk for row in rows] if (row := queue.claim(GenerationRequest, pk))]

    assert sorted(chain.from_iterable(at_once(work, work, work, work))) == sorted(row.pk for row in rows)
    assert set(GenerationRequest.objects.values_list("attempts", flat=True)) == {1}


# Writing under a lease


def test_its_holder_may_write() -> None:
    row = claimed()
    assert queue.write(row, progress=0.5)
    assert GenerationRequest.objects.get().progress == 0.5


def overtaken() -> GenerationRequest:
    """A row as the worker sees it that lost it to another one."""
    row = claimed()
    update(row, lease_until=ago(seconds=1))
    assert queue.claim(GenerationRequest, row.pk)
    return row


@pytest.mark.parametrize(
    "act",
    [
        lambda row: queue.write(row, progress=0.5),
        lambda row: queue.renew(row),
        lambda row: queue.finish(row),
        lambda row: queue.fail(row, "too late"),
        lambda row: queue.fail(row, "too late", permanent=True),
    ],
    ids=["write", "renew", "finish", "fail for now", "fail for good"],
)
def test_whoever_lost_the_lease_changes_nothing(act: Any) -> None:
    row = overtaken()
    before = GenerationRequest.objects.values().get()
    assert act(row) is False
    assert GenerationRequest.objects.values().get() == before


def test_a_row_that_nobody_claimed_cannot_be_written() -> None:
    """Its token is empty, and so is that of every row nobody holds: empty must not equal empty."""
    row = make.make_request()
    assert not queue.finish(row)
    taken = queue.claim(GenerationRequest, row.pk)
    assert taken and queue.finish(taken)
    row.refresh_from_db()
    assert not queue.fail(row, "after it was done", permanent=True)
    assert GenerationRequest.objects.get().state == "done"


def test_renewing_gives_the_full_time_again() -> None:
    row = claimed()
    update(row, lease_until=timezone.now() + timedelta(seconds=1))
    assert queue.renew(row)
    assert GenerationRequest.objects.get().lease_until > timezone.now() + timedelta(seconds=20)


def test_a_holder_whose_lease_ran_out_unnoticed_may_go_on() -> None:
    row = claimed()
    update(row, lease_until=ago(seconds=1))
    assert queue.renew(row)
    assert queue.claim(GenerationRequest, row.pk) is None


def test_finishing_ends_the_lease_and_clears_the_error() -> None:
    row = claimed(error="the attempt before")
    assert queue.finish(row, fewer_because="equal texts")
    row = GenerationRequest.objects.get()
    assert (row.state, row.progress, row.error, row.fewer_because) == ("done", 1.0, "", "equal texts")
    assert row.lease_token is None and row.lease_until is None and row.finished_at is not None
    assert row.is_finished


# Failing


@pytest.mark.parametrize(("attempts", "seconds"), [(1, 2), (2, 4), (4, 16)])
def test_a_failure_waits_longer_from_attempt_to_attempt(attempts: int, seconds: int) -> None:
    row = claimed(attempts=attempts - 1)
    assert queue.fail(row, "The model server was busy.")
    row.refresh_from_db()
    assert (row.state, row.error, row.lease_token) == ("queued", "The model server was busy.", None)
    assert row.due_at.timestamp() == pytest.approx(time.time() + seconds, abs=1.5)
    assert not row.is_finished


def test_a_failure_waits_as_long_as_it_was_told() -> None:
    row = claimed()
    queue.fail(row, "busy", retry_after=0)
    assert queue.claim(GenerationRequest, row.pk)


def test_the_last_attempt_fails_for_good() -> None:
    row = claimed(attempts=GenerationRequest.max_attempts - 1)
    queue.fail(row, "out of memory")
    row.refresh_from_db()
    assert (row.state, row.error, row.lease_token) == ("failed", "out of memory", None)
    assert row.finished_at is not None and row.is_finished


def test_a_permanent_failure_is_not_tried_again() -> None:
    row = claimed()
    queue.fail(row, "no such model", permanent=True)
    assert GenerationRequest.objects.get().state == "failed"


def test_a_failure_without_words_gets_some() -> None:
    row = claimed()
    queue.fail(row, "", permanent=True)
    assert "log" in GenerationRequest.objects.get().error


def test_a_row_whose_workers_died_again_and_again_fails_with_that_reason() -> None:
    row = claimed()
    update(row, lease_until=ago(seconds=1), attempts=GenerationRequest.max_claims - 1)
    assert queue.give_up_on_hopeless(GenerationRequest) == 0
    update(row, attempts=GenerationRequest.max_claims)
    assert queue.give_up_on_hopeless(GenerationRequest) == 1
    row.refresh_from_db()
    assert row.state == "failed" and f"stopped {GenerationRequest.max_claims} times" in row.error
    assert row.lease_token is None and row.finished_at is not None


def test_a_row_under_its_last_lease_is_not_given_up() -> None:
    row = claimed(attempts=GenerationRequest.max_claims - 1)
    assert queue.give_up_on_hopeless(GenerationRequest) == 0
    assert queue.finish(row)


def test_a_failed_row_starts_anew_when_somebody_wants_it_to(
    bell: Bell, django_capture_on_commit_callbacks: Any
) -> None:
    row = make.make_request(state="failed", error="why", attempts=5, progress=0.5, finished_at=timezone.now())
    with django_capture_on_commit_callbacks(execute=True):
        assert queue.requeue(row)
    row.refresh_from_db()
    assert (row.state, row.attempts, row.error, row.progress) == ("queued", 0, "", 0.0)
    assert row.finished_at is None
    assert bell.rung == [("rewardtrain.generate_candidates", [row.pk])]


@pytest.mark.parametrize("state", ["queued", "done", "cancelled"])
def test_only_what_failed_starts_anew(state: str, bell: Bell, django_capture_on_commit_callbacks: Any) -> None:
    row = make.make_request(state=state)
    with django_capture_on_commit_callbacks(execute=True):
        assert not queue.requeue(row)
    assert bell.rung == []


def test_the_age_of_a_row_ends_with_its_work() -> None:
    row = make.make_request(created_at=ago(seconds=60))
    assert row.age_seconds == pytest.approx(60, abs=2)
    update(row, state="done", finished_at=ago(seconds=50))
    row.refresh_from_db()
    assert row.age_seconds == pytest.approx(10, abs=2)


# Ringing


@pytest.mark.django_db(transaction=True)
def test_the_bell_rings_after_the_commit_with_the_id_alone(bell: Bell) -> None:
    dialogue = make.make_dialogue()
    with transaction.atomic():
        row = make.make_request(dialogue)
        assert bell.rung == []
    assert bell.rung == [("rewardtrain.generate_candidates", [row.pk])]


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_is_never_rung(bell: Bell) -> None:
    dialogue = make.make_dialogue()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        make.make_request(dialogue)
        raise ZeroDivisionError
    assert bell.rung == []


@pytest.mark.django_db(transaction=True)
def test_a_dead_broker_costs_the_page_nothing(bell: Bell) -> None:
    bell.broken = True
    row = make.make_request()
    bell.broken = False
    assert queue.ring_due() == 1
    assert bell.rung == [("rewardtrain.generate_candidates", [row.pk])]


def test_the_sweep_rings_for_what_was_never_rung_once_in_a_while(bell: Bell) -> None:
    row = make.make_request()
    assert queue.ring_due() == 1
    assert queue.ring_due() == 0
    update(row, rung_at=ago(seconds=11))
    assert queue.ring_due() == 1
    assert len(bell.rung) == 2


def test_what_waits_for_long_is_rung_less_often(bell: Bell) -> None:
    row = make.make_request(due_at=ago(minutes=11), rung_at=ago(seconds=50))
    assert queue.ring_due() == 0
    update(row, rung_at=ago(seconds=61))
    assert queue.ring_due() == 1


def test_the_sweep_rings_for_what_lapsed_and_not_for_what_is_held_or_not_due(bell: Bell) -> None:
    lapsed, held, later = requests(3)
    for row in (lapsed, held):
        assert queue.claim(GenerationRequest, row.pk)
    update(lapsed, lease_until=ago(seconds=1))
    update(later, due_at=timezone.now() + timedelta(seconds=5))
    assert queue.ring_due() == 1
    assert bell.rung == [("rewardtrain.generate_candidates", [lapsed.pk])]


def test_the_sweep_gives_up_on_what_is_hopeless(bell: Bell) -> None:
    row = claimed()
    update(row, lease_until=ago(seconds=1), attempts=GenerationRequest.max_claims)
    assert queue.ring_due() == 0
    assert GenerationRequest.objects.get().state == "failed"


@pytest.mark.django_db(transaction=True)
def test_of_two_sweeps_at_once_one_rings(bell: Bell) -> None:
    requests(5)
    bell.rung.clear()
    assert sum(at_once(queue.ring_due, queue.ring_due)) == 5
    assert len(bell.rung) == 5


def test_every_kind_of_queued_work_is_known() -> None:
    assert {model.__name__ for model in queue.queued_models()} >= {"GenerationRequest", "Snapshot", "TrainingRun"}
    assert QueuedWork not in queue.queued_models()


# Heartbeats


@contextmanager
def fast_heartbeat(rows: list[GenerationRequest], monkeypatch: pytest.MonkeyPatch) -> Iterator[queue.Heartbeat]:
    """Beats every 25 ms, as for leases of a tenth of a second."""
    monkeypatch.setattr(GenerationRequest, "lease_seconds", 0.1)
    with queue.Heartbeat(rows) as heart:
        yield heart


def wait_until(holds: Any) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.django_db(transaction=True)
def test_leases_are_kept_alive_while_the_work_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    row = claimed()
    soon = timezone.now() + timedelta(seconds=20)
    update(row, lease_until=soon)
    with fast_heartbeat([row], monkeypatch) as heart:
        wait_until(lambda: GenerationRequest.objects.get().lease_until != soon)
        assert heart.lost == set()
    after = GenerationRequest.objects.get().lease_until
    time.sleep(0.1)
    assert GenerationRequest.objects.get().lease_until == after  # it stops with the work


@pytest.mark.django_db(transaction=True)
def test_the_heart_knows_which_rows_were_lost_and_keeps_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, taken = (queue.claim(GenerationRequest, row.pk) for row in requests(2))
    assert mine is not None and taken is not None
    update(taken, lease_token=uuid4())
    with fast_heartbeat([mine, taken], monkeypatch) as heart:
        wait_until(lambda: heart.lost)
        before = GenerationRequest.objects.get(pk=mine.pk).lease_until
        wait_until(lambda: GenerationRequest.objects.get(pk=mine.pk).lease_until > before)
        assert heart.lost == {taken.pk}


@pytest.mark.django_db(transaction=True)
def test_a_missed_beat_is_logged_and_the_next_one_comes_on_a_new_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    row = claimed()
    renew, beats = queue.renew, []

    def interrupted(row: Any) -> bool:
        beats.append(connection.connection)
        if len(beats) == 1:
            connection.ensure_connection()
            connection.connection.close()  # as a database does that restarts
            raise OperationalError("server closed the connection unexpectedly")
        return renew(row)

    monkeypatch.setattr(queue, "renew", interrupted)
    soon = timezone.now() + timedelta(seconds=20)
    update(row, lease_until=soon)
    with caplog.at_level(logging.ERROR), fast_heartbeat([row], monkeypatch) as heart:
        wait_until(lambda: GenerationRequest.objects.get().lease_until != soon)
        assert heart.lost == set()
    assert "heartbeat missed" in caplog.text


def test_a_heart_without_rows_does_no_harm() -> None:
    with queue.Heartbeat([]) as heart:
        assert heart.lost == set()
