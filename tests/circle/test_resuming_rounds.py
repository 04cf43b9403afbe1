"""A round that failed or was stopped goes on where it was, to the same policy."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from feedback import invariants
from feedback.models import AuditEntry, Project
from rewardtrain import promotions, rounds, runs
from rewardtrain.models import LedgerEntry, Round, TrainingRun
from tests import make
from tests.circle.turning import PPO, rank_everything, turn_here

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


def stopped_round(project: Project, monkeypatch: pytest.MonkeyPatch, by: Any = None) -> Round:
    """A round that was stopped by hand in the middle of PPO."""
    rank_everything(project)
    turn = rounds.start_round(project=project, hyperparameters={"policy": PPO}, seed=5)
    plainly = runs.Reporter.ledger

    def stops(self: runs.Reporter, entries: list[LedgerEntry]) -> None:
        if entries[0].step == 3:
            rounds.stop_round(turn=Round.objects.get(pk=turn.pk), by=by, reason="The machine is needed.")
        plainly(self, entries)

    with monkeypatch.context() as patch:
        patch.setattr(runs.Reporter, "ledger", stops)
        return turn_here(turn)


def test_a_round_that_was_stopped_goes_on_to_the_same_policy(project, monkeypatch):
    maria = make.make_member(project, "maria", "manager")
    turn = stopped_round(project, monkeypatch, by=maria)
    assert (turn.state, turn.decided_by) == ("failed", maria)
    rounds.resume_round(turn=turn, by=maria)
    assert (turn.state, turn.error, turn.decided_by) == ("policy", "", None)
    assert turn_here(turn).state == "decision"
    run = turn.runs.get(kind="policy")
    assert run.resumed_step == 2
    entry = AuditEntry.objects.get(action="round.resumed")
    assert entry.actor == maria

    again = rounds.start_round(project=project, hyperparameters={"policy": PPO}, seed=5)
    assert turn_here(again).policy_after.content_hash == turn.policy_after.content_hash
    assert list(invariants.violations()) == []


def test_a_command_goes_on_with_the_last_round(project, monkeypatch):
    turn = stopped_round(project, monkeypatch)
    out = StringIO()
    call_command("run_round", "--project", project.slug, "--resume", stdout=out, stderr=out)
    turn.refresh_from_db()
    assert turn.state == "decision"
    assert "goes on" in out.getvalue()
    with pytest.raises(CommandError, match="Only a round that failed or was stopped"):
        call_command("run_round", "--project", project.slug, "--resume", stdout=out, stderr=out)


def test_a_project_without_a_round_has_none_to_go_on_with(project):
    with pytest.raises(CommandError, match="no round yet"):
        call_command("run_round", "--project", project.slug, "--resume")


def test_a_round_does_not_go_on_once_something_else_serves_or_runs(project, monkeypatch):
    turn = stopped_round(project, monkeypatch)
    later = rounds.start_round(project=project)
    with pytest.raises(rounds.RoundRefused, match="A later round has begun"):
        rounds.resume_round(turn=turn, by=None)
    rounds.stop_round(turn=later, by=None, reason="Not now.")
    other = make.make_model(project, location="tiny", state="passed")
    promotions.promote(project=project, to_version=other, reason="Better.")
    later.refresh_from_db()
    with pytest.raises(rounds.RoundRefused, match="Another policy serves"):
        rounds.resume_round(turn=Round.objects.get(pk=later.pk), by=None)


@pytest.mark.parametrize("kinds", [[], ["reward_model"], ["reward_model", "second_reward_model", "policy"]])
def test_a_round_goes_on_at_the_stage_it_had_reached(kinds, project):
    rank_everything(project)
    turn = rounds.start_round(project=project)
    for kind in kinds:
        make_run = {"project": project, "round": turn, "kind": kind, "state": "failed", "error": "It broke."}
        TrainingRun.objects.create(**make_run)
    rounds.stop_round(turn=turn, by=None, reason="")
    rounds.resume_round(turn=turn, by=None)
    stages = {0: "snapshot", 1: "reward_models", 3: "policy"}
    assert turn.state == stages[len(kinds)]
    assert not TrainingRun.objects.filter(round=turn, state="failed").exists()
