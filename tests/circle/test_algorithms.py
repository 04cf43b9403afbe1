"""Rounds improved by something else than PPO: same rows, same gate, same pages; comparable beside it."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from feedback import invariants
from feedback.models import Project
from rewardtrain import checkpoints, command_line, model_files, repeats, rounds, run_files, runs
from rewardtrain.errors import NothingToLearn
from rewardtrain.models import LedgerEntry, MetricPoint, Round, TrainingRun
from tests import make
from tests.circle import test_resuming as resuming
from tests.circle.turning import rank_everything, turn_here

pytestmark = [pytest.mark.django_db, pytest.mark.slow, pytest.mark.once]

ALTERNATIVES: dict[str, dict[str, Any]] = {
    "rloo": {
        "updates": 2, "samples_per_update": 8, "samples_per_prompt": 2, "minibatch_size": 4, "samples_per_forward": 4,
        "malformed_penalty": 0.0, "learning_rate": 1e-3, "warmup_updates": 0,
    },
    "dpo": {"steps": 4, "pairs_per_step": 2, "pairs_per_forward": 2, "learning_rate": 1e-3, "probes": 2,
            "samples_per_probe": 4, "warmup_share": 0.0},
    "best-of-n": {
        "updates": 2, "samples_per_update": 8, "samples_per_prompt": 2, "minibatch_size": 4, "malformed_penalty": 0.0,
        "learning_rate": 1e-3, "warmup_updates": 0, "checkpoint_seconds": 0,
    },
}  # fmt: skip
TITLES = {"rloo": "RLOO", "dpo": "DPO", "best-of-n": "Best of n"}


def settings_for(algorithm: str) -> dict[str, Any]:
    return {"policy": {"algorithm": algorithm, **ALTERNATIVES[algorithm]}}


def new_run(project: Project, algorithm: str, **more: Any) -> TrainingRun:
    return runs.queue_run(
        project=project, kind="policy", parent=project.policy, snapshot=project.snapshots.order_by("-pk").first(),
        hyperparameters={"algorithm": algorithm, **ALTERNATIVES[algorithm], **more}, seed=11, ring=False,
    )  # fmt: skip


@pytest.mark.parametrize("algorithm", ALTERNATIVES)
def test_a_round_of_another_algorithm_goes_the_same_way(algorithm: str, project: Project, client: Client) -> None:
    rank_everything(project)
    project.hyperparameters = {**project.hyperparameters, **settings_for(algorithm)}  # what a manager writes
    project.save()
    client.force_login(make.make_member(project, "maria", "manager"))
    client.post(reverse("rewardtrain:start", args=[project.slug]))
    turn = turn_here(Round.objects.get())

    assert turn.state == Round.State.DECISION, turn.error
    assert {one["key"] for one in turn.gate_report["lines"]} >= {"kl", "reward"}
    run = turn.runs.get(kind="policy")
    assert run.result["algorithm"] == algorithm and run.steps_done == run.steps_total
    assert run.result["cpu_seconds"] > 0 and run.result["optimizer_tokens"] > 0
    assert run.produced == turn.policy_after and turn.policy_after.parent == turn.policy_before
    points = MetricPoint.objects.filter(run=run, name="ppo/kl_nats").values_list("step", flat=True)
    assert sorted(points) == ([2, 4] if algorithm == "dpo" else [1, 2])
    assert LedgerEntry.objects.filter(run=run).count() == run.result["samples"] == (0 if algorithm == "dpo" else 16)
    assert list(invariants.violations()) == []

    before, after = map(run_files.folder_of, (turn.policy_before, turn.policy_after))
    own = {path.name for path in before.iterdir()} | {checkpoints.MANIFEST}
    assert {path.name for path in after.iterdir()} == own  # data only, nothing of a trainer's
    assert checkpoints.folder_hash(after) != checkpoints.folder_hash(before)

    page = client.get(reverse("rewardtrain:round", args=[project.slug, turn.number])).content.decode()
    assert TITLES[algorithm] in page and "PPO" not in page
    assert client.get(reverse("rewardtrain:ledger", args=[project.slug, turn.number])).status_code == 200


def test_dpo_learns_from_what_taught_the_first_reward_model_alone(project: Project) -> None:
    rank_everything(project)
    turn = turn_here(rounds.start_round(project=project, hyperparameters=settings_for("dpo")))
    first = turn.runs.get(kind="reward_model").result
    found = turn.runs.get(kind="policy").result
    assert found["pairs"] + found["pairs_left_out"] == first["comparisons"]  # two replies each, no ties
    assert 0 < first["comparisons"] < 12


def test_dpo_needs_no_reward_model(project: Project) -> None:
    rank_everything(project)
    command_line.take_snapshot(project)
    run = new_run(project, "dpo")
    assert runs.work_on_run(run.pk)
    run.refresh_from_db()
    assert run.result["reward_model"] is None and run.result["kl_nats"] != 0  # an estimate, of either sign
    with pytest.raises(NothingToLearn, match="no reward model yet"):
        runs.work_on_run(new_run(project, "rloo").pk)


def test_a_command_takes_an_algorithm(project: Project, tmp_path: Path) -> None:
    rank_everything(project)
    call_command("train_reward_model", "--project", project.slug, stdout=StringIO())
    out = StringIO()
    chosen = [f"--set={name}={value}" for name, value in ALTERNATIVES["best-of-n"].items()]
    call_command(
        "train_policy", "--project", project.slug, "--algorithm", "best-of-n", *chosen, "--json", tmp_path / "found",
        stdout=out,
    )  # fmt: skip
    run = TrainingRun.objects.get(kind="policy")
    assert (run.state, run.hyperparameters["algorithm"], run.algorithm) == ("done", "best-of-n", "Best of n")
    assert json.loads((tmp_path / "found").read_text())["algorithm"] == "best-of-n"

    chosen = [f"--set=policy.{name}={value}" for name, value in ALTERNATIVES["dpo"].items()]
    call_command("run_round", "--project", project.slug, "--algorithm", "dpo", *chosen, stdout=out)
    assert Round.objects.get().hyperparameters["policy"] == settings_for("dpo")["policy"]
    with pytest.raises(CommandError, match="invalid choice"):
        call_command("run_round", "--project", project.slug, "--algorithm", "grpo", stdout=out)


@pytest.mark.parametrize("algorithm", ["rloo", "dpo"])
def test_what_saves_no_state_says_so_and_begins_anew_by_itself(algorithm: str, project: Project, monkeypatch) -> None:
    rank_everything(project)
    call_command("train_reward_model", "--project", project.slug, stdout=StringIO())
    whole, run = new_run(project, algorithm), new_run(project, algorithm)
    assert runs.work_on_run(whole.pk)
    resuming.killed_at(run, 1, monkeypatch)
    with pytest.raises(CommandError, match="cannot be resumed. .* saves no state on the way"):
        call_command("train_policy", "--project", project.slug, "--resume", str(stopped(run).pk), stdout=StringIO())
    with pytest.raises(runs.RunRefused, match="Start a new run"):
        runs.resume(run)
    TrainingRun.objects.filter(pk=run.pk).update(state="queued", finished_at=None)  # what a sweep does after a kill
    assert runs.work_on_run(run.pk)
    run.refresh_from_db(), whole.refresh_from_db()
    assert run.produced.content_hash == whole.produced.content_hash
    assert resuming.figures(run) == resuming.figures(whole) and resuming.ledger(run) == resuming.ledger(whole)


def stopped(run: TrainingRun) -> TrainingRun:
    TrainingRun.objects.filter(pk=run.pk).update(
        state="failed", error="It was killed.", lease_token=None, lease_until=None
    )
    return run


def test_a_killed_best_of_n_ends_with_the_same_model(project: Project, monkeypatch) -> None:
    rank_everything(project)
    call_command("train_reward_model", "--project", project.slug, stdout=StringIO())
    whole, run = new_run(project, "best-of-n"), new_run(project, "best-of-n")
    assert runs.work_on_run(whole.pk)
    plainly = runs.Reporter.saved

    def dies(self: runs.Reporter, step: int) -> None:
        plainly(self, step)
        raise resuming.Killed

    with monkeypatch.context() as patch, pytest.raises(resuming.Killed):
        patch.setattr(runs.Reporter, "saved", dies)
        runs.work_on_run(run.pk)
    stopped(run)
    call_command("train_policy", "--project", project.slug, "--resume", str(run.pk), stdout=StringIO())
    run.refresh_from_db(), whole.refresh_from_db()
    assert run.resumed_step == 1 and run.produced.content_hash == whole.produced.content_hash
    assert resuming.figures(run) == resuming.figures(whole) and resuming.ledger(run) == resuming.ledger(whole)


@pytest.mark.parametrize("algorithm", ALTERNATIVES)
def test_a_run_that_was_stopped_ends_and_makes_nothing(algorithm: str, project: Project, monkeypatch) -> None:
    rank_everything(project)
    call_command("train_reward_model", "--project", project.slug, stdout=StringIO())
    run = new_run(project, algorithm)
    plainly = runs.Reporter.step

    def taken(self: runs.Reporter, *given: Any) -> None:
        plainly(self, *given)
        stopped(run)

    monkeypatch.setattr(runs.Reporter, "step", taken)
    assert runs.work_on_run(run.pk) is False
    run.refresh_from_db()
    assert (run.state, run.steps_done, run.produced) == ("failed", 1, None)
    assert not list((model_files.models_folder() / project.slug).glob("policy-*"))


def test_an_adapter_is_trained_by_every_algorithm(project: Project) -> None:
    rank_everything(project)
    call_command("train_reward_model", "--project", project.slug, stdout=StringIO())
    for algorithm in ALTERNATIVES:
        run = new_run(project, algorithm, lora={"rank": 2})
        assert runs.work_on_run(run.pk)
        run.refresh_from_db()
        folder = run_files.folder_of(run.produced)
        assert {path.name for path in folder.iterdir()} >= {"adapter_model.safetensors", "adapter_config.json"}
        assert not any(path.is_dir() for path in folder.iterdir())  # no adapter but the trained one
        assert run.result["kl_nats"] != 0


def test_algorithms_are_compared_on_the_same_reward_models(project: Project) -> None:
    rank_everything(project)
    first = turn_here(rounds.start_round(project=project))
    again = repeats.repeat_round(turn=first, hyperparameters=settings_for("best-of-n"))
    assert again.hyperparameters["policy"] == settings_for("best-of-n")["policy"]  # nothing of PPO's
    with pytest.raises(rounds.RoundRefused, match="running already"):
        repeats.repeat_round(turn=first, hyperparameters=settings_for("dpo"))
    again = turn_here(again)

    assert again.state == Round.State.DECISION, again.error
    assert (again.snapshot, again.seed, again.policy_before) == (first.snapshot, first.seed, first.policy_before)
    for kind in ("reward_model", "second_reward_model"):
        assert again.runs.get(kind=kind).produced == first.runs.get(kind=kind).produced
    one, other = (turn.runs.get(kind="policy") for turn in (first, again))
    assert one.seed == other.seed and one.produced != other.produced
    assert one.result["scale"] == other.result["scale"]  # the same replies of the same start
    assert list(invariants.violations()) == []
    unfinished = Round.objects.create(
        project=project, number=9, state="failed", error="Stopped.", policy_before=first.policy_before
    )
    with pytest.raises(rounds.RoundRefused, match="no reward models"):
        repeats.repeat_round(turn=unfinished, hyperparameters={})
