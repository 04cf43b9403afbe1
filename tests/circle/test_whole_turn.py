"""One small turn of the circle with a network of a few thousand weights: ranked replies in, another policy serving."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from feedback import dialogues, invariants, snapshots
from feedback.models import GenerationRequest, ModelVersion, Project, QueuedWork
from feedback.rankings import record_ranking
from rewardtrain import generation, promotions, rounds, runs
from rewardtrain.checkpoints import folder_hash
from rewardtrain.models import LedgerEntry, MetricPoint, Promotion, Round, TrainingRun
from tests import make

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

QUICK = {
    "reward_model": {"comparisons_per_step": 4, "epochs": 1},
    "policy": {
        "updates": 2, "samples_per_update": 8, "minibatch_size": 4, "passes": 1, "warmup_updates": 0,
        "malformed_penalty": 0.0, "learning_rate": 1e-5,
    },
    "gate": {"prompts": 6, "shown_samples": 4},
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, settings: Any) -> Project:
    """A project whose policy is a tiny random network, with prompts on each side of the split."""
    from tests.rewardtrain import tiny

    settings.DATA_DIR = tmp_path
    project = make.make_project(with_policy=False, max_new_tokens=8, candidates_per_turn=2, hyperparameters=QUICK)
    folder = tiny.save_base(tmp_path / "models" / "tiny", tiny.make_llama(), tiny.make_tokenizer())
    version = make.make_model(project, location="tiny", content_hash=folder_hash(folder), state="passed")
    promotions.promote(project=project, to_version=version, reason="The first policy.")
    for number in range(12):
        make.make_prompt(project, f"train {number}", "train")
    for number in range(6):
        make.make_prompt(project, f"validation {number}", "validation")
    return project


def rank_everything(project: Project) -> None:
    """Alice opens a dialogue from every prompt, the serving policy answers, and she prefers the longer reply."""
    alice = make.make_member(project)
    items = [dialogues.open_dialogue(project=project, prompt=prompt) for prompt in project.prompts.all()]
    for request in GenerationRequest.objects.filter(dialogue__project=project):
        generation.generate_candidates(request.pk)  # the first takes the others along
    for item in items:
        slot = make.slots.claim_slot(item.slots.get().pk, user=alice)
        chat = dialogues.look_at_chat(slot)
        longest_first = sorted(chat.candidates, key=lambda candidate: -len(candidate.text))
        record_ranking(
            slot=slot,
            comparison=chat.comparison,
            submit_key=uuid4(),
            ranks={candidate.pk: place for place, candidate in enumerate(longest_first, start=1)},
        )
        dialogues.end_dialogue(slot=slot)


def turn_here(turn: Round) -> Round:
    """What the training worker and the sweep do, in this process."""
    for _ in range(20):
        snapshots.write_snapshot(turn.snapshot_id)
        for run in TrainingRun.objects.filter(round=turn, state=QueuedWork.State.QUEUED):
            runs.work_on_run(run.pk)
        rounds.advance(turn)
        turn.refresh_from_db()
        if turn.state not in Round.ACTIVE:
            return turn
    raise AssertionError(f"round {turn.pk} is still {turn.state}: {turn.error}")


def test_a_round_learns_from_rankings_and_its_policy_answers_next(project: Project) -> None:
    rank_everything(project)
    turn = turn_here(rounds.start_round(project=project))
    assert turn.state == Round.State.DECISION, turn.error
    assert {run.kind for run in turn.runs.all()} == set(TrainingRun.Kind.values)
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
    chosen = {"policy": {"updates": 0}}
    turn = rounds.start_round(project=project, hyperparameters=chosen)
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
