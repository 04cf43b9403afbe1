"""A command that is told to use two processes trains with two, and the record looks as it does after one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from feedback.models import Project
from rewardtrain.models import LedgerEntry, TrainingRun
from tests.circle.turning import rank_everything

Manage = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def manage(process_environment: dict[str, str], project: Project, tmp_path: Path) -> Manage:
    """A command in a process of its own, for a project whose people have ranked."""
    rank_everything(project)
    environment = process_environment | {"DATA_DIR": str(tmp_path)}

    def manage(command: str, *more: str, **chosen: Any) -> subprocess.Popen[str]:
        pairs = {"processes": 2, "checkpoint_seconds": 0, **chosen} if not more else {}
        given = [part for name, value in pairs.items() for part in ("--set", f"{name}={value}")]
        return subprocess.Popen(
            [sys.executable, "manage.py", command, "--project", project.slug, *given, *more,
             "--json", str(tmp_path / "made")],
            cwd=settings.BASE_DIR, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    return manage


def ended(command: subprocess.Popen[str], code: int) -> str:
    """What a command said that ended with this code."""
    said, _ = command.communicate(timeout=300)
    assert command.returncode == code, said
    return said


def saved_run(at_least: int) -> TrainingRun:
    """The newest policy run, once it has saved so many steps."""
    for _ in range(600):
        run = TrainingRun.objects.filter(kind="policy").order_by("-pk").first()
        if run is not None and run.checkpoint_step >= at_least:
            return run
        time.sleep(0.1)
    raise AssertionError("no state was saved within a minute")


def at_work_on(run: TrainingRun) -> dict[str, int]:
    """Process IDs of a run's processes by their rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_text().split("\0")
            if "work_on_run" in words and str(run.pk) in words:
                environment = dict(one.partition("=")[::2] for one in (folder / "environ").read_text().split("\0"))
                if "RANK" in environment:
                    found[environment["RANK"]] = int(folder.name)
    return found


PPO = {"samples_per_update": 8, "minibatch_size": 4, "passes": 1, "warmup_updates": 0, "malformed_penalty": 0}


@pytest.mark.django_db(transaction=True)
@pytest.mark.once
def test_two_processes_train_a_reward_model_and_a_policy(manage: Manage, tmp_path: Path) -> None:
    ended(manage("train_reward_model", comparisons_per_step=4, epochs=1), 0)
    ended(manage("train_policy", updates=2, learning_rate=1e-5, **PPO), 0)
    assert json.loads((tmp_path / "made").read_text())["samples"] == 16
    for run in TrainingRun.objects.all():
        assert (run.state, run.attempts, run.checkpoint_step) == ("done", 1, run.steps_total)
        assert run.produced is not None
    ledger = LedgerEntry.objects.values_list("step", "index")
    assert sorted(ledger) == [(step, index) for step in (1, 2) for index in range(8)]  # written by one process alone
    refused = ended(manage("train_policy", updates=6, learning_rate=1.0, divergence_kl_nats=0.01, **PPO), 1)
    failed = TrainingRun.objects.latest("pk")
    assert failed.state == "failed"
    assert "ower learning_rate" in failed.error
    assert failed.error in refused


@pytest.mark.django_db(transaction=True)
@pytest.mark.once
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to find a run's processes")
def test_when_a_process_is_killed_or_the_run_is_stopped_all_end_and_the_run_can_go_on(manage: Manage) -> None:
    ended(manage("train_reward_model", comparisons_per_step=4, epochs=1), 0)
    command = manage("train_policy", updates=400, learning_rate=1e-6, **PPO)
    run = saved_run(at_least=2)
    os.kill(at_work_on(run)["1"], signal.SIGKILL)
    said = ended(command, 1)
    run.refresh_from_db()
    assert "ended" in said
    assert f"with --resume {run.pk}." in said
    assert run.state in ("cancelled", "queued")  # queued where the first process noticed before it was ended
    assert at_work_on(run) == {}
    killed_at = run.checkpoint_step
    command = manage("train_policy", "--resume", str(run.pk))
    run = saved_run(at_least=killed_at + 2)
    assert run.resumed_step == killed_at
    TrainingRun.objects.filter(pk=run.pk).update(state="cancelled", lease_token=None, lease_until=None)
    assert f"Run {run.pk} was stopped." in ended(command, 1)
    assert at_work_on(run) == {}
