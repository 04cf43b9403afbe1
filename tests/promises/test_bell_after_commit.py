"""Nobody is rung before the row is there to be seen, nor for what was rolled back; and nobody but the queue rings."""

from __future__ import annotations

import ast
import threading
import time
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection, transaction

from feedback import dialogues, queue
from feedback.generation import request_candidates
from feedback.models import GenerationRequest, Project
from tests import make
from tests.promises.conftest import FULL, Nestbox, assert_nothing_is_wrong, eventually

pytestmark = pytest.mark.services
RINGING = {"delay", "apply_async", "send_task"}


class Onlooker:
    """Stands in for a worker that is quicker than any commit: looks for the row the moment it is rung."""

    def __init__(self) -> None:
        self.saw: list[bool] = []

    def ring(self, task_name: str, pk: int) -> None:
        looking = threading.Thread(target=self._look, args=(pk,))
        looking.start()
        looking.join()

    def _look(self, pk: int) -> None:
        try:
            self.saw.append(GenerationRequest.objects.filter(pk=pk, state="queued").exists())
        finally:
            connection.close()


@pytest.fixture
def onlooker(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Onlooker:
    onlooker = Onlooker()
    monkeypatch.setattr(queue, "_send", onlooker.ring)
    return onlooker


def test_whoever_is_rung_finds_the_row(onlooker: Onlooker) -> None:
    project = make.make_project()
    for number in range(20):
        dialogues.open_dialogue(project=project, prompt=make.make_prompt(project, f"Question {number}?"))
    assert onlooker.saw == [True] * 20


def test_the_bell_waits_for_the_outermost_commit(onlooker: Onlooker) -> None:
    dialogue = make.make_dialogue()
    with transaction.atomic():
        with transaction.atomic():
            request_candidates(dialogue=dialogue)
        time.sleep(0.2)
        assert onlooker.saw == []
    assert onlooker.saw == [True]


def test_what_was_rolled_back_is_not_rung(onlooker: Onlooker) -> None:
    dialogue = make.make_dialogue()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        request_candidates(dialogue=dialogue)
        raise ZeroDivisionError
    assert onlooker.saw == []
    assert GenerationRequest.objects.count() == 0


def test_a_dead_broker_does_not_fail_the_page(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(task_name: str, pk: int) -> None:
        raise ConnectionError("no broker")

    monkeypatch.setattr(queue, "_send", unreachable)
    request = request_candidates(dialogue=make.make_dialogue())
    request.refresh_from_db()
    assert request.state == "queued"


def test_only_the_queue_rings() -> None:
    """The one place that sends a task is feedback/queue.py, and there only after commit."""
    found = []
    for app in ("annotate", "config", "feedback", "rewardtrain"):
        for path in (Path(settings.BASE_DIR) / app).rglob("*.py"):
            calls = (
                node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
            )
            names = [call.func.attr for call in calls if isinstance(call.func, ast.Attribute)]
            found += [f"{path.relative_to(settings.BASE_DIR)} {name}" for name in names if name in RINGING]
    assert found == ["feedback/queue.py send_task"]


@pytest.mark.slow
def test_real_workers_quicker_than_the_commit_lose_nothing(nestbox: Nestbox, speaking_project: Project) -> None:
    """Each request is made in a transaction that stays open for a while, as on a slow disk, while workers listen."""
    wait, count = (2.0, 20) if FULL else (0.5, 4)
    requests = []
    with nestbox.running("generate", "default", "beat"):
        for number in range(count):
            dialogue = make.make_dialogue(speaking_project, text=f"Question {number}?")
            with transaction.atomic():
                requests.append(request_candidates(dialogue=dialogue))
                time.sleep(wait)
        finished = GenerationRequest.objects.unfinished  # type: ignore[attr-defined]
        eventually(lambda: not finished().exists(), seconds=120, what="every request is finished")
    assert set(GenerationRequest.objects.values_list("state", "attempts")) == {("done", 1)}
    assert_nothing_is_wrong()
