"""What the torch-free worker does: the sweep, which may run twice at once, and writing snapshots."""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from feedback import dialogues, queue, snapshots, tasks
from feedback.invariants import violations
from feedback.models import GenerationRequest, Project, Slot, Snapshot
from tests import make
from tests.threads import at_once, raised

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def rung(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What was rung; no broker is needed."""
    rung: list[tuple[str, int]] = []
    monkeypatch.setattr(queue, "_send", lambda name, pk: rung.append((name, pk)))
    return rung


def busy_project(slug: str = "plant-desk") -> Project:
    """One lapsed slot, one request nobody was told of, and two dialogues missing."""
    project = make.make_project(slug, ready_dialogues=2)
    for number in range(4):
        make.make_prompt(project, f"Question {number} of {slug}?")
    slot = make.make_chat(project, answered=False)
    Slot.objects.filter(pk=slot.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    return project


def test_the_sweep_brings_back_rings_and_opens(rung: list[tuple[str, int]], caplog: pytest.LogCaptureFixture) -> None:
    project = busy_project()
    with caplog.at_level(logging.INFO):
        tasks.sweep()
    assert Slot.objects.filter(state="lapsed").count() == 1
    assert dialogues.unclaimed_dialogues(project).count() == 2
    first = GenerationRequest.objects.earliest("pk")
    assert ("rewardtrain.generate_candidates", first.pk) in rung
    assert "swept lapsed=1 abandoned=0 rung=1 opened=2 again=0 handed=0 asked=0" in caplog.text


def test_the_sweep_asks_for_demonstrations_where_they_are_open(caplog: pytest.LogCaptureFixture) -> None:
    project = make.make_project(demonstrations_open=True, ready_demonstrations=2)
    for number in range(4):
        make.make_prompt(project, f"Question {number}?")
    for _ in range(2):
        with caplog.at_level(logging.INFO):
            tasks.sweep()
    assert Slot.objects.filter(work_item__kind="demonstrate", state="free").count() == 2
    assert caplog.text.count("asked=2") == 1


def test_sweeping_again_changes_nothing_and_says_nothing(
    rung: list[tuple[str, int]], caplog: pytest.LogCaptureFixture
) -> None:
    busy_project()
    tasks.sweep()
    tasks.sweep()  # rings for the requests of the dialogues that the first one opened
    rung.clear()
    caplog.clear()
    with caplog.at_level(logging.INFO):
        tasks.sweep()
    assert (rung, caplog.text) == ([], "")
    assert list(violations()) == []


def test_what_goes_wrong_in_one_project_leaves_the_others_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken, sound = busy_project(), busy_project("second-desk")
    keep = dialogues.keep_dialogues_ready

    def keep_some(project: Project) -> int:
        if project == broken:
            raise RuntimeError("this one is broken")
        return keep(project)

    monkeypatch.setattr(dialogues, "keep_dialogues_ready", keep_some)
    with caplog.at_level(logging.ERROR):
        tasks.sweep()
    assert dialogues.unclaimed_dialogues(sound).count() == 2
    assert f"sweep could not open dialogues project={broken.pk}" in caplog.text


def test_archived_projects_are_left_alone() -> None:
    project = busy_project()
    Project.objects.update(archived_at=timezone.now())
    tasks.sweep()
    assert dialogues.unclaimed_dialogues(project).count() == 0


def test_the_sweep_asks_again_for_replies_that_failed_where_nobody_waits_for_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    project = busy_project()
    tasks.sweep()
    ready = GenerationRequest.objects.filter(dialogue__work_items__in=dialogues.unclaimed_dialogues(project))
    ready.update(state="failed", error="The model server is gone.", finished_at=timezone.now() - timedelta(seconds=61))
    caplog.clear()
    with caplog.at_level(logging.INFO):
        tasks.sweep()
        tasks.sweep()
    assert [request.state for request in ready] == ["queued", "queued"]
    assert caplog.text.count("again=2") == 1
    assert list(violations()) == []


def test_a_dead_broker_does_not_stop_the_rest_of_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, pk: int) -> None:
        raise ConnectionRefusedError("nobody listens")

    project = busy_project()
    monkeypatch.setattr(queue, "_send", refuse)
    tasks.sweep()
    assert dialogues.unclaimed_dialogues(project).count() == 2
    assert Slot.objects.filter(state="lapsed").count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_sweeps_at_once_do_the_work_of_one() -> None:
    projects = [busy_project(), busy_project("second-desk")]
    raised(at_once(tasks.sweep, tasks.sweep, tasks.sweep))
    tasks.sweep()
    assert [dialogues.unclaimed_dialogues(project).count() for project in projects] == [2, 2]
    assert Slot.objects.filter(state="lapsed").count() == 2
    assert list(violations()) == []


def test_a_snapshot_is_written_once(settings: Any, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path
    snapshot = snapshots.freeze(project=make.make_ranking().comparison.dialogue.project)
    tasks.write_snapshot(snapshot.pk)
    written = Snapshot.objects.get()
    assert (written.state, written.attempts) == ("done", 1)
    tasks.write_snapshot(snapshot.pk)
    assert Snapshot.objects.get().attempts == 1


def test_while_one_snapshot_is_written_another_waits_for_its_next_ring(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DATA_DIR = tmp_path
    project = make.make_ranking().comparison.dialogue.project
    first, second = snapshots.freeze(project=project), snapshots.freeze(project=project)
    writes = snapshots.write_snapshot

    def write(pk: int) -> None:
        if pk == first.pk:
            tasks.write_snapshot(second.pk)  # what the worker's other thread is asked meanwhile
            assert Snapshot.objects.get(pk=second.pk).state == "queued"
        writes(pk)

    monkeypatch.setattr(snapshots, "write_snapshot", write)
    tasks.write_snapshot(first.pk)
    tasks.write_snapshot(second.pk)
    assert set(Snapshot.objects.values_list("state", flat=True)) == {"done"}


def test_a_write_that_breaks_lets_the_next_one_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(pk: int) -> None:
        raise RuntimeError("The disk is gone.")

    monkeypatch.setattr(snapshots, "write_snapshot", breaks)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            tasks.write_snapshot(1)
