"""Steps of a small turn of the circle, for tests: who ranks, and what workers and the sweep would do."""

from __future__ import annotations

from uuid import uuid4

from feedback import dialogues, snapshots
from feedback.models import GenerationRequest, Project, QueuedWork
from feedback.rankings import record_ranking
from rewardtrain import generation, rounds, runs
from rewardtrain.models import Round, TrainingRun
from tests import make

QUICK = {
    "reward_model": {"comparisons_per_step": 4, "epochs": 1},
    "policy": {
        "updates": 2, "samples_per_update": 8, "minibatch_size": 4, "passes": 1, "warmup_updates": 0,
        "malformed_penalty": 0.0, "learning_rate": 1e-5,
    },
    "gate": {"prompts": 6, "shown_samples": 4},
}  # fmt: skip

# Runs that save their state after each step
EVERY_STEP = {"checkpoint_seconds": 0}
PPO = {
    "updates": 4, "samples_per_update": 8, "minibatch_size": 4, "passes": 1, "warmup_updates": 0,
    "malformed_penalty": 0.0, "learning_rate": 1e-5, "kl_controller": "adaptive", **EVERY_STEP,
}  # fmt: skip
REWARD = {"comparisons_per_step": 2, "epochs": 1, **EVERY_STEP}


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
        for snapshot in rounds.snapshots_of(turn):
            snapshots.write_snapshot(snapshot.pk)
        for run in TrainingRun.objects.filter(round=turn, state=QueuedWork.State.QUEUED):
            runs.work_on_run(run.pk)
        rounds.advance(turn)
        turn.refresh_from_db()
        if turn.state not in Round.ACTIVE:
            return turn
    raise AssertionError(f"round {turn.pk} is still {turn.state}: {turn.error}")
