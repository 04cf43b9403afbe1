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
from rewardtrain import demonstrations_to_learn, round_settings, rounds, rules_to_learn
from rewardtrain.models import Round, TrainingRun


@transaction.atomic
def repeat_round(
    *, turn: Round, hyperparameters: dict[str, Any], by: User | None = None, trigger: str = Round.Trigger.COMMAND
) -> Round:
    """Begin a round that takes everything up to its reward models from `turn`; the sweep moves it on.

    The rule model of `turn` is taken as well, unless the settings leave rules out. Where `turn` made none, because it
    left rules out itself or its rule model failed, the repeat learns one if a round that begins now would.

    hyperparameters  what differs from `turn`'s: {"policy": {"algorithm": "dpo"}}, {"rule_model": {"use_rules": False}}
    Raises           RoundRefused while another round runs, or when `turn` has no reward models; InvalidSettings
    """
    kinds = (*rounds.REWARD_KINDS, TrainingRun.Kind.RULE_MODEL)
    made = {run.kind: run for run in turn.runs.filter(kind__in=kinds, state=QueuedWork.State.DONE)}
    if not made.keys() >= set(rounds.REWARD_KINDS):
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
                demonstrations=turn.demonstrations
                or demonstrations_to_learn.freeze(project=project, policy_settings=chosen.get("policy", {}), by=by),
            )
    except IntegrityError as err:
        raise rounds.RoundRefused("A round is running already. Wait until it has ended, or stop it first.") from err
    if not again.uses_rules:
        made.pop(TrainingRun.Kind.RULE_MODEL, None)
    if TrainingRun.Kind.RULE_MODEL not in made:
        _without_the_others_rule_model(again)
    for run in made.values():
        _taken_over(run, again)
    audit.record("round.started", project=project, actor=by, target=again, trigger=trigger, reward_models=turn.number)
    return again


def _without_the_others_rule_model(again: Round) -> None:
    """Learn a rule model in the repeat itself, or note why it goes without."""
    lesson = rules_to_learn.lesson_of(again)
    again.without_rules = lesson.why_not
    again.save(update_fields=["without_rules"])
    if lesson.is_learned:
        rounds.start_run(again, TrainingRun.Kind.RULE_MODEL, "rule_model", parent=again.policy_before)


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
