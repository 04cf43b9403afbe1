"""A command that is told to use two processes trains with two, and the record looks as it does after one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from feedback.models import Project
from rewardtrain.models import LedgerEntry, TrainingRun
from tests.circle.turning import rank_everything

Manage = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def manage(process_environment: dict[str, str], project: Project, tmp_path: Path) -> Manage:
    """A command in a process of its own, for a project whose people have ranked."""
    rank_everything(project)
    environment = process_environment | {"DATA_DIR": str(tmp_path)}

    def manage(command: str, **chosen: Any) -> subprocess.CompletedProcess[str]:
        pairs = {"processes": 2, "checkpoint_seconds": 0, **chosen}
        given = [part for name, value in pairs.items() for part in ("--set", f"{name}={value}")]
        return subprocess.run(
            [sys.executable, "manage.py", command, "--project", project.slug, *given, "--json", str(tmp_path / "made")],
            cwd=settings.BASE_DIR, env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    return manage


PPO = {"samples_per_update": 8, "minibatch_size": 4, "passes": 1, "warmup_updates": 0, "malformed_penalty": 0}


@pytest.mark.django_db(transaction=True)
@pytest.mark.services
def test_two_processes_train_a_reward_model_and_a_policy(manage: Manage, tmp_path: Path) -> None:
    for command, chosen in (
        ("train_reward_model", {"comparisons_per_step": 4, "epochs": 1}),
        ("train_policy", {"updates": 2, "learning_rate": 1e-5, **PPO}),
    ):
        ran = manage(command, **chosen)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    assert json.loads((tmp_path / "made").read_text())["samples"] == 16
    for run in TrainingRun.objects.all():
        assert (run.state, run.attempts, run.checkpoint_step) == ("done", 1, run.steps_total)
        assert run.produced is not None
    ledger = LedgerEntry.objects.values_list("step", "index")
    assert sorted(ledger) == [(step, index) for step in (1, 2) for index in range(8)]  # written by one process alone
    refused = manage("train_policy", updates=6, learning_rate=1000, **PPO)
    assert refused.returncode == 1
    failed = TrainingRun.objects.latest("pk")
    assert failed.state == "failed"
    assert "ower learning_rate" in failed.error
    assert failed.error in refused.stdout + refused.stderr
