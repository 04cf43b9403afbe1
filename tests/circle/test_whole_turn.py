"""One small turn of the circle with a network of a few thousand weights: ranked replies in, another policy serving."""

from __future__ import annotations

import pytest

from feedback import dialogues, invariants, snapshots
from feedback.models import GenerationRequest, ModelVersion, Project, QueuedWork
from rewardtrain import generation, promotions, rounds, runs
from rewardtrain.models import LedgerEntry, MetricPoint, Promotion, Round, TrainingRun
from tests.circle.turning import rank_everything, turn_here

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


def test_a_round_learns_from_rankings_and_its_policy_answers_next(project: Project) -> None:
    rank_everything(project)
    turn = turn_here(rounds.start_round(project=project))
    assert turn.state == Round.State.DECISION, turn.error
    assert {run.kind for run in turn.runs.all()} == set(TrainingRun.Kind.values) - {
        TrainingRun.Kind.RULE_MODEL,
        TrainingRun.Kind.EVALUATION,
    }
    assert turn.without_rules == ""  # there are none to learn
    assert turn.policy_after.parent == turn.policy_before
    assert turn.gate_report["lines"][0].keys() >= {"key", "name", "found", "wanted", "passed"}
    assert turn.gate_report["counts"] == {"prompts": 6}

    promotions.promote(project=project, to_version=turn.policy_after, round=turn, reason="To see it serve.")
    item = dialogues.open_dialogue(project=project, prompt=project.prompts.first())
    generation.generate_candidates(GenerationRequest.objects.get(dialogue=item.dialogue).pk)
    request = GenerationRequest.objects.get(dialogue=item.dialogue)
    assert request.state == "done"
    assert {candidate.model_version_id for candidate in request.candidates.all()} == {turn.policy_after_id}
    assert list(invariants.violations()) == []


def test_every_sample_of_ppo_is_in_the_ledger_with_its_terms(project: Project) -> None:
    rank_everything(project)
    turn = turn_here(rounds.start_round(project=project))
    run = turn.runs.get(kind=TrainingRun.Kind.POLICY)
    entries = LedgerEntry.objects.filter(run=run)
    assert entries.count() == 2 * 8
    assert all(abs(sum(entry.terms.values()) - entry.reward) < 1e-4 for entry in entries)
    points = MetricPoint.objects.filter(run=run, name="ppo/preference").order_by("step")
    assert [point.step for point in points] == [1, 2]


def test_the_two_reward_models_share_no_training_comparison(project: Project) -> None:
    rank_everything(project)
    turn = turn_here(rounds.start_round(project=project))
    first, second = (
        turn.runs.get(kind=kind).result["comparisons"]
        for kind in (TrainingRun.Kind.REWARD_MODEL, TrainingRun.Kind.SECOND_REWARD_MODEL)
    )
    assert first + second == 12
    assert second >= 1


def test_a_round_that_passed_promotes_itself_only_where_the_project_says_so(project: Project) -> None:
    rank_everything(project)
    turn = turn_here(rounds.start_round(project=project))
    Round.objects.filter(pk=turn.pk).update(state=Round.State.GATE)
    run = turn.runs.get(kind=TrainingRun.Kind.GATE)
    TrainingRun.objects.filter(pk=run.pk).update(result={**run.result, "passed": True})
    turn.refresh_from_db()
    rounds.advance(turn)
    assert turn.state == Round.State.DECISION

    Project.objects.filter(pk=project.pk).update(promote_at_once=True)
    Round.objects.filter(pk=turn.pk).update(state=Round.State.GATE)
    turn = Round.objects.get(pk=turn.pk)
    rounds.advance(turn)
    project.refresh_from_db()
    assert project.policy_id == turn.policy_after_id
    assert Promotion.objects.filter(round=turn, by=None).exists()


def test_a_run_that_fails_ends_its_round_with_the_reason_and_leaves_the_policy(project: Project) -> None:
    rank_everything(project)
    before = project.policy_id
    turn = turn_here_until_policy_fails(project)
    assert turn.state == Round.State.FAILED
    assert "PPO did not finish" in turn.error
    project.refresh_from_db()
    assert project.policy_id == before
    assert not ModelVersion.objects.filter(project=project, kind="policy").exclude(pk=before).exists()


def turn_here_until_policy_fails(project: Project) -> Round:
    turn = rounds.start_round(project=project)
    turn.hyperparameters["policy"]["updates"] = 0
    turn.save()
    for _ in range(20):
        snapshots.write_snapshot(turn.snapshot_id)
        for run in TrainingRun.objects.filter(round=turn, state=QueuedWork.State.QUEUED):
            if run.kind == TrainingRun.Kind.POLICY:
                with pytest.raises(ValueError, match="updates"):
                    runs.work_on_run(run.pk)
            else:
                runs.work_on_run(run.pk)
        rounds.advance(turn)
        turn.refresh_from_db()
        if turn.state not in Round.ACTIVE:
            break
    return turn
