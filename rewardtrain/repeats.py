"""A round beside another: the same snapshot, start, seed and reward models, its policy trained by another algorithm.

So algorithms are compared on what they do, not on which rankings and which reward model each happened to get.
"""

from __future__ import annotations

from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Max
from django.utils import timezone

from feedback import audit
from feedback.models import QueuedWork, User
from rewardtrain import round_settings, rounds
from rewardtrain.models import Round, TrainingRun

REWARD_KINDS = (TrainingRun.Kind.REWARD_MODEL, TrainingRun.Kind.SECOND_REWARD_MODEL)


@transaction.atomic
def repeat_round(
    *, turn: Round, hyperparameters: dict[str, Any], by: User | None = None, trigger: str = Round.Trigger.COMMAND
) -> Round:
    """Begin a round that takes everything up to its reward models from `turn`; the sweep moves it on.

    hyperparameters  what differs from `turn`'s: {"policy": {"algorithm": "dpo"}}
    Raises           RoundRefused while another round runs, or when `turn` has no reward models; InvalidSettings
    """
    made = {run.kind: run for run in turn.runs.filter(kind__in=REWARD_KINDS, state=QueuedWork.State.DONE)}
    if len(made) < len(REWARD_KINDS):
        raise rounds.RoundRefused(f"Round {turn.number} has no reward models to use again. Start a round of its own.")
    project = turn.project
    chosen = round_settings.merged(turn.hyperparameters, hyperparameters)
    round_settings.check(chosen, {"temperature": project.temperature, "max_new_tokens": project.max_new_tokens})
    number = Round.objects.filter(project=project).aggregate(last=Max("number"))["last"] + 1
    try:
        with transaction.atomic():
            again = Round.objects.create(
                project=project,
                number=number,
                state=Round.State.REWARD_MODELS,
                trigger=trigger,
                seed=turn.seed,
                hyperparameters=chosen,
                started_by=by,
                policy_before=turn.policy_before,
                snapshot=turn.snapshot,
            )
    except IntegrityError as err:
        raise rounds.RoundRefused("A round is running already. Wait until it has ended, or stop it first.") from err
    for run in made.values():
        _taken_over(run, again)
    audit.record("round.started", project=project, actor=by, target=again, trigger=trigger, reward_models=turn.number)
    return again


def _taken_over(run: TrainingRun, again: Round) -> TrainingRun:
    """The run that made a reward model, as a run of the round that uses it again."""
    same = ("project", "kind", "snapshot", "parent", "produced", "hyperparameters", "seed", "code_version", "result")
    return TrainingRun.objects.create(
        round=again,
        state=QueuedWork.State.DONE,
        progress=1.0,
        steps_done=run.steps_done,
        steps_total=run.steps_total,
        started_at=timezone.now(),
        finished_at=timezone.now(),
        **{name: getattr(run, name) for name in same},
    )
