"""One turn of the circle: snapshot → reward models → policy → gate → promotion.

A round is a row that `advance` moves one step when what it waits for is done. The sweep calls it every few seconds;
calling it twice, or from two places at once, changes nothing. No task lives as long as a round. No torch here.
"""

from __future__ import annotations

import logging
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Max
from django.utils import timezone

from feedback import audit, queue, snapshots
from feedback.errors import FeedbackError, NoPolicy
from feedback.models import ModelVersion, Project, QueuedWork, Ranking, User
from rewardtrain import promotions
from rewardtrain.models import Round, TrainingRun
from rewardtrain.seeds import stable_seed

logger = logging.getLogger(__name__)
FEWEST_RANKINGS = 8


class RoundRefused(FeedbackError):
    """A round that cannot be started; the message says what is missing."""

    code = "round_refused"
    status = 409


@transaction.atomic
def start_round(
    *,
    project: Project,
    by: User | None = None,
    trigger: str = Round.Trigger.PERSON,
    seed: int | None = None,
    hyperparameters: dict[str, Any] | None = None,
) -> Round:
    """Begin a turn of the circle with a snapshot of what is there now.

    hyperparameters  {"reward_model": {…}, "policy": {…}, "gate": {…}}: what differs from the project's own
    Raises           RoundRefused while another round runs, NoPolicy, or when too little was ranked
    """
    if project.policy_id is None:
        raise NoPolicy("No model serves in this project yet. A manager sets one in the project's admin page.")
    if Round.objects.filter(project=project, state__in=Round.ACTIVE).exists():
        raise RoundRefused("A round is running already. Wait until it has ended, or stop it first.")
    ranked = new_rankings(project, since=None)
    if ranked < FEWEST_RANKINGS:
        raise RoundRefused(
            f"There are {ranked} rankings; a round needs at least {FEWEST_RANKINGS}. Collect more first."
        )
    number = (Round.objects.filter(project=project).aggregate(last=Max("number"))["last"] or 0) + 1
    seed = stable_seed(project.slug, number) % 2**31 if seed is None else seed
    try:
        with transaction.atomic():
            turn = Round.objects.create(
                project=project,
                number=number,
                trigger=trigger,
                seed=seed,
                hyperparameters=_merged(project.hyperparameters, hyperparameters or {}),
                started_by=by,
                policy_before_id=project.policy_id,
                snapshot=snapshots.freeze(project=project, kind="preference", created_by=by),
            )
    except IntegrityError as err:  # somebody started one at the same moment
        raise RoundRefused("Another round was started at the same moment. That one runs.") from err
    audit.record("round.started", project=project, actor=by, target=turn, trigger=trigger)
    return turn


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    return {part: {**base.get(part, {}), **over.get(part, {})} for part in {*base, *over}}


def new_rankings(project: Project, since: Round | None) -> int:
    """Rankings in force that count, all of them or those given after a round began."""
    ranked = Ranking.objects.counted().filter(comparison__dialogue__project=project)
    return ranked.filter(created_at__gt=since.created_at).count() if since else ranked.count()


def start_due_rounds() -> list[Round]:
    """Start a round in every project that asks for one after so many new comparisons and has them."""
    started = []
    for project in Project.objects.open().filter(round_every__gt=0, policy__isnull=False):
        last = Round.objects.filter(project=project).order_by("-number").first()
        if last is not None and last.state in {*Round.ACTIVE, Round.State.DECISION}:
            continue  # one at a time, and none behind a manager's back
        if new_rankings(project, since=last) >= max(project.round_every, FEWEST_RANKINGS):
            try:
                started.append(start_round(project=project, trigger=Round.Trigger.BEAT))
            except FeedbackError as err:
                logger.info("round not started project=%s reason=%s", project.pk, err.message)
    return started


def advance_rounds() -> int:
    """Move every active round as far as it can go. Returns how many steps were taken."""
    return sum(advance(turn) for turn in Round.objects.filter(state__in=Round.ACTIVE).order_by("pk"))


@transaction.atomic
def advance(turn: Round) -> int:
    """Take the next step of a round if what it waits for is done: 1 if a step was taken, else 0. Idempotent."""
    step = {
        Round.State.SNAPSHOT: _after_snapshot,
        Round.State.REWARD_MODELS: _after_reward_models,
        Round.State.POLICY: _after_policy,
        Round.State.GATE: _after_gate,
    }.get(Round.State(turn.state))
    return int(step(turn)) if step else 0


def _move(turn: Round, to: str, **changes: Any) -> bool:
    """Change the state where it is still what was read: whoever is second does nothing."""
    moved = Round.objects.filter(pk=turn.pk, state=turn.state).update(state=to, **changes)
    if moved:
        logger.info("round advanced round=%s from=%s to=%s", turn.pk, turn.state, to)
        turn.refresh_from_db()
    return moved == 1


def _fail(turn: Round, what: str, row: QueuedWork) -> bool:
    reason = row.error or "it was stopped"
    return _move(turn, Round.State.FAILED, error=f"{what}: {reason}", decided_at=timezone.now())


def _after_snapshot(turn: Round) -> bool:
    snapshot = turn.snapshot
    if snapshot is None or not snapshot.is_finished:
        return False
    if snapshot.state != QueuedWork.State.DONE:
        return _fail(turn, "The snapshot could not be written", snapshot)
    if not _move(turn, Round.State.REWARD_MODELS):
        return False
    for kind in (TrainingRun.Kind.REWARD_MODEL, TrainingRun.Kind.SECOND_REWARD_MODEL):
        _start_run(turn, kind, "reward_model", parent=turn.policy_before)
    return True


def _after_reward_models(turn: Round) -> bool:
    both = [run_of(turn, kind) for kind in (TrainingRun.Kind.REWARD_MODEL, TrainingRun.Kind.SECOND_REWARD_MODEL)]
    if not _all_done(turn, both, "A reward model could not be trained"):
        return False
    if not _move(turn, Round.State.POLICY):
        return False
    _start_run(turn, TrainingRun.Kind.POLICY, "policy", parent=turn.policy_before)
    return True


def _after_policy(turn: Round) -> bool:
    run = run_of(turn, TrainingRun.Kind.POLICY)
    if not _all_done(turn, [run], "PPO did not finish"):
        return False
    if not _move(turn, Round.State.GATE, policy_after=run.produced if run else None):
        return False
    _start_run(turn, TrainingRun.Kind.GATE, "gate", parent=turn.policy_after)
    return True


def _after_gate(turn: Round) -> bool:
    run = run_of(turn, TrainingRun.Kind.GATE)
    if run is None or not _all_done(turn, [run], "The gate could not be measured"):
        return False
    report = run.result
    if not _move(turn, Round.State.DECISION, gate_report=report):
        return False
    passed = bool(report.get("passed"))
    made = turn.policy_after
    assert made is not None
    made.state = ModelVersion.State.PASSED if passed else ModelVersion.State.FAILED
    made.save(update_fields=["state"])
    if passed and turn.project.promote_at_once:
        try:
            promotions.promote(project=turn.project, to_version=made, round=turn, gate_report=report)
        except FeedbackError as err:  # another policy serves by now: a person decides
            logger.info("round left to a person round=%s reason=%s", turn.pk, err.message)
    return True


def _all_done(turn: Round, runs: list[TrainingRun | None], what: str) -> bool:
    for run in runs:
        if run is not None and run.state in {QueuedWork.State.FAILED, QueuedWork.State.CANCELLED}:
            _fail(turn, what, run)
            return False
    return all(run is not None and run.state == QueuedWork.State.DONE for run in runs)


def run_of(turn: Round, kind: str) -> TrainingRun | None:
    """The run of one kind in a round."""
    return TrainingRun.objects.filter(round=turn, kind=kind).first()


def _start_run(turn: Round, kind: str, part: str, parent: ModelVersion | None) -> TrainingRun:
    run, made = TrainingRun.objects.get_or_create(
        round=turn,
        kind=kind,
        defaults={
            "project": turn.project,
            "snapshot": turn.snapshot,
            "parent": parent,
            "hyperparameters": turn.hyperparameters.get(part, {}),
            "seed": stable_seed(turn.seed, kind) % 2**31,
        },
    )
    if made:
        queue.ring(run)
    return run


@transaction.atomic
def stop_round(*, turn: Round, by: User | None, reason: str) -> None:
    """End an active round: what runs is cancelled, what serves stays.

    Raises  RoundRefused when it is not active any more
    """
    runs = TrainingRun.objects.filter(round=turn).unfinished()  # type: ignore[attr-defined]
    if turn.state not in Round.ACTIVE or not _move(
        turn,
        Round.State.FAILED,
        error=f"Stopped by hand: {reason.strip() or 'no reason given'}",
        decided_at=timezone.now(),
        decided_by=by,
    ):
        raise RoundRefused("This round has moved on already. Reload the page.")
    runs.update(state=QueuedWork.State.CANCELLED, lease_token=None, lease_until=None, finished_at=timezone.now())
    audit.record("round.stopped", project=turn.project, actor=by, target=turn, reason=reason)
