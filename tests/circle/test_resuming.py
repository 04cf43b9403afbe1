"""Runs that were killed, waited for their disk or were stopped end as if nothing had happened, and say what did."""

from __future__ import annotations

import shutil
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from feedback import invariants
from feedback.models import ModelVersion, Project
from rewardtrain import run_files, runs, training_state
from rewardtrain.errors import CheckpointNotWritten
from rewardtrain.models import LedgerEntry, MetricPoint, TrainingRun
from tests import make
from tests.circle.turning import PPO, REWARD, rank_everything

pytestmark = [pytest.mark.django_db, pytest.mark.slow, pytest.mark.once]


class Killed(BaseException):
    """The process is gone: nothing it would still have done happens."""


@pytest.fixture
def learned(project: Project) -> Project:
    """The project with a reward model to run PPO against."""
    rank_everything(project)
    call_command("train_reward_model", "--project", project.slug, stdout=StringIO())
    return project


def new_run(project: Project, kind: str, **changes: Any) -> TrainingRun:
    return runs.queue_run(
        project=project,
        kind=kind,
        parent=project.policy,
        snapshot=project.snapshots.order_by("-pk").first(),
        hyperparameters={**(PPO if kind == "policy" else REWARD), **changes},
        seed=11,
        ring=False,
    )


def killed_at(run: TrainingRun, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work on a run until its process dies right after writing the figures of `step`; then its lease lapses."""
    plainly = runs.Reporter.step

    def dies(self: runs.Reporter, done: int, total: int, figures: Any) -> None:
        plainly(self, done, total, figures)
        if done == step:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(runs.Reporter, "step", dies)
        with pytest.raises(Killed):
            runs.work_on_run(run.pk)
    TrainingRun.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    run.refresh_from_db()


def figures(run: TrainingRun) -> list[tuple[str, int, float]]:
    return sorted(MetricPoint.objects.filter(run=run).values_list("name", "step", "value"))


def ledger(run: TrainingRun) -> list[tuple[Any, ...]]:
    entries = LedgerEntry.objects.filter(run=run).order_by("step", "index")
    return list(entries.values_list("step", "index", "prompt", "response", "terms", "reward", "kl_nats"))


def finished(run: TrainingRun) -> TrainingRun:
    run.refresh_from_db()
    assert run.state == "done", run.error
    assert not run_files.states_folder(run).exists()  # it needs its states no more
    return run


@pytest.mark.parametrize("kind", ["policy", "reward_model"])
def test_a_killed_run_ends_with_the_same_model_figures_and_ledger(kind, learned, monkeypatch):
    whole, killed = new_run(learned, kind), new_run(learned, kind)
    assert runs.work_on_run(whole.pk)
    for step in (1, 2, 4):  # before anything was saved, between two states, and again
        killed_at(killed, step, monkeypatch)
        assert killed.checkpoint_step == step - 1
    make.make_prompt(learned, "a prompt that nobody had written when the run began", "train")
    Project.objects.filter(pk=learned.pk).update(max_new_tokens=3, temperature=0.5)
    assert runs.work_on_run(killed.pk)
    whole, killed = finished(whole), finished(killed)
    assert killed.produced.content_hash == whole.produced.content_hash
    assert figures(killed) == figures(whole)
    assert ledger(killed) == ledger(whole)
    assert (killed.resumed_step, whole.resumed_step) == (3, 0)
    assert list(invariants.violations()) == []


def test_a_run_that_gets_on_is_not_given_up_however_often_it_is_killed(learned, monkeypatch):
    run = new_run(learned, "reward_model")
    for step in range(2, 6):  # more often than a run that gets nowhere may be claimed
        killed_at(run, step, monkeypatch)
        assert run.attempts == 1 < TrainingRun.max_claims
    assert runs.work_on_run(run.pk)


def test_a_run_whose_states_are_gone_fails_and_does_not_start_anew(learned, monkeypatch):
    run = new_run(learned, "policy")
    killed_at(run, 3, monkeypatch)
    shutil.rmtree(run_files.states_folder(run))
    with pytest.raises(training_state.CheckpointMissing):
        runs.work_on_run(run.pk)
    run.refresh_from_db()
    assert run.state == "failed"
    assert "no saved state" in run.error
    assert run.produced is None


def test_a_full_disk_makes_a_run_wait_and_uses_up_no_attempt(learned, monkeypatch):
    whole, run = new_run(learned, "policy"), new_run(learned, "policy")
    runs.work_on_run(whole.pk)
    saves = training_state.save_checkpoint

    def fills_up(folder: Any, *args: Any, **kwargs: Any) -> Any:
        if folder.name == "step-00000003":
            raise OSError(28, "No space left on device")
        return saves(folder, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(training_state, "save_checkpoint", fills_up)
        for _ in range(TrainingRun.max_attempts + 1):
            with pytest.raises(CheckpointNotWritten):
                runs.work_on_run(run.pk)
            run.refresh_from_db()
            assert (run.state, run.attempts, run.checkpoint_step) == ("queued", 0, 2)
            assert "No space left on device" in run.error
            assert run.due_at > timezone.now() + timedelta(seconds=runs.PAUSE_SECONDS - 5)
            TrainingRun.objects.filter(pk=run.pk).update(due_at=timezone.now())
    assert runs.work_on_run(run.pk)
    assert finished(run).produced.content_hash == finished(whole).produced.content_hash
    assert run.error == ""


def test_what_was_learned_waits_for_room_as_well(learned, monkeypatch):
    run = new_run(learned, "policy")

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(run_files, "save_checkpoint", full)
        with pytest.raises(CheckpointNotWritten, match="What was learned"):
            runs.work_on_run(run.pk)
    run.refresh_from_db()
    assert (run.state, run.checkpoint_step) == ("queued", 4)
    assert not ModelVersion.objects.filter(project=learned, kind="policy").exclude(pk=learned.policy_id).exists()


def test_states_of_runs_that_ended_badly_long_ago_are_removed(learned, monkeypatch):
    old, recent, run = (new_run(learned, "policy") for _ in range(3))
    for one, days in ((old, 15), (recent, 13)):
        killed_at(one, 2, monkeypatch)
        ended = timezone.now() - timedelta(days=days)
        TrainingRun.objects.filter(pk=one.pk).update(
            state="failed", error="It broke.", finished_at=ended, lease_token=None, lease_until=None
        )
    runs.work_on_run(run.pk)
    assert not run_files.states_folder(old).exists()
    assert run_files.states_folder(recent).exists()


# Commands


@pytest.mark.parametrize(("kind", "command"), [("policy", "train_policy"), ("reward_model", "train_reward_model")])
def test_a_command_goes_on_with_a_killed_run(kind, command, learned, monkeypatch):
    whole, killed = new_run(learned, kind), new_run(learned, kind)
    runs.work_on_run(whole.pk)
    killed_at(killed, 3, monkeypatch)
    out = StringIO()
    call_command(command, "--project", learned.slug, "--resume", str(killed.pk), stdout=out)
    assert finished(killed).produced.content_hash == finished(whole).produced.content_hash
    assert str(killed.produced) in out.getvalue()


def test_ctrl_c_says_how_to_go_on(learned, monkeypatch):
    def interrupted(self: runs.Reporter, step: int) -> None:
        raise KeyboardInterrupt

    plainly = runs.Reporter.saved
    monkeypatch.setattr(runs.Reporter, "saved", lambda self, step: (plainly(self, step), interrupted(self, step)))
    out = StringIO()
    chosen = [f"--set={name}={value}" for name, value in PPO.items()]
    with pytest.raises(KeyboardInterrupt):
        call_command("train_policy", "--project", learned.slug, *chosen, stdout=out)
    run = TrainingRun.objects.get(kind="policy")
    assert (run.state, run.checkpoint_step) == ("cancelled", 1)
    assert f"Go on with --resume {run.pk}." in out.getvalue()
    monkeypatch.setattr(runs.Reporter, "saved", plainly)
    call_command("train_policy", "--project", learned.slug, "--resume", str(run.pk), stdout=out)
    assert finished(run).resumed_step == 1


def test_what_cannot_be_resumed_is_refused_with_the_reason(learned, monkeypatch):
    def resume(pk: int, command: str = "train_policy") -> None:
        call_command(command, "--project", learned.slug, "--resume", str(pk), stdout=StringIO())

    fresh, done, held = (new_run(learned, "policy") for _ in range(3))
    with pytest.raises(CommandError, match="no run 999"):
        resume(999)
    with pytest.raises(CommandError, match=f"no run {fresh.pk} of that kind"):
        resume(fresh.pk, "train_reward_model")
    with pytest.raises(CommandError, match="saved no state"):
        resume(fresh.pk)
    runs.work_on_run(done.pk)
    with pytest.raises(CommandError, match="is done: it made policy"):
        resume(done.pk)
    killed_at(held, 2, monkeypatch)
    TrainingRun.objects.filter(pk=held.pk).update(lease_until=timezone.now() + timedelta(seconds=30))
    with pytest.raises(CommandError, match="held by another process"):
        resume(held.pk)
    with pytest.raises(runs.RunRefused, match="saved no state"):
        runs.resume(fresh)
    held.refresh_from_db()
    with pytest.raises(runs.RunRefused, match="is running"):
        runs.resume(held)
