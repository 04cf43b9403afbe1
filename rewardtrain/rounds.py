"""One turn of the circle: snapshot → reward models → policy → gate → promotion.

Beside the reward models a rule model is learned where there are rules and verdicts enough (`rules_to_learn`).

A round is a row that `advance` moves one step when what it waits for is done. The sweep calls it every few seconds;
calling it twice, or from two places at once, changes nothing. No task lives as long as a round. No torch here.
"""

from __future__ import annotations

import logging
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Max, QuerySet
from django.utils import timezone

from feedback import audit, queue, snapshots
from feedback.errors import FeedbackError, NoPolicy
from feedback.models import ModelVersion, Project, QueuedWork, Ranking, Snapshot, User
from rewardtrain import corpora, demonstrations_to_learn, promotions, round_settings, rules_to_learn, runs
from rewardtrain.algorithms import algorithm_of
from rewardtrain.errors import CorpusRefused
from rewardtrain.gate import GateSettings
from rewardtrain.hyperparameters import InvalidSettings
from rewardtrain.models import Round, TrainingRun
from rewardtrain.seeds import stable_seed
from rewardtrain.training_data import gate_prompts

logger = logging.getLogger(__name__)
FEWEST_RANKINGS = 8
REWARD_KINDS = (TrainingRun.Kind.REWARD_MODEL, TrainingRun.Kind.SECOND_REWARD_MODEL)


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

    hyperparameters  {"reward_model": {…}, "rule_model": {…}, "policy": {…}, "gate": {…}}: what differs this time;
                     {"policy": {"made": 7}} trains none and gates that one
    Raises           RoundRefused while another round runs, when too little was ranked, with settings that cannot
                     work, or with too few prompts for the gate; TooFewDemonstrations where its policy learns from them;
                     NoPolicy
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
    chosen = _settings(project, hyperparameters or {})
    if problem := GateSettings.from_dict(chosen.get("gate", {})).problem_with(validation_prompts(project)):
        raise RoundRefused(problem)
    policy = chosen.get("policy", {})
    _refuse_missing_corpus(policy.get("corpus", ""))
    if "made" in policy:
        policy["algorithm"] = _algorithm_of_made(project, policy["made"])
        written = None
    else:
        written = demonstrations_to_learn.freeze(project=project, policy_settings=policy, by=by)
    number = next_number(project)
    seed = stable_seed(project.slug, number) % 2**31 if seed is None else seed
    try:
        with transaction.atomic():
            turn = Round.objects.create(
                project=project,
                number=number,
                trigger=trigger,
                seed=seed,
                hyperparameters=chosen,
                started_by=by,
                policy_before_id=project.policy_id,
                snapshot=snapshots.freeze(project=project, kind="preference", created_by=by),
                demonstrations=written,
            )
    except IntegrityError as err:  # somebody started one at the same moment
        raise RoundRefused("Another round was started at the same moment. That one runs.") from err
    audit.record("round.started", project=project, actor=by, target=turn, trigger=trigger)
    return turn


def _refuse_missing_corpus(name: str) -> None:
    try:
        if name:
            corpora.corpus_file(name, by_command=False)
    except CorpusRefused as err:
        raise RoundRefused(err.message) from err


def _algorithm_of_made(project: Project, pk: int) -> str:
    """What made a policy that a round is to gate. Raises RoundRefused where it is none that could be promoted."""
    made = ModelVersion.objects.filter(pk=pk, project=project, kind=ModelVersion.Kind.POLICY).first()
    if made is None or made.pk == project.policy_id:
        raise RoundRefused(
            f"Model {pk} is {'what serves here' if made else f'no policy of {project}'}. Name a policy trained since."
        )
    run = made.made_by_runs.first()
    return algorithm_of(run.hyperparameters if run else {})


def next_number(project: Project) -> int:
    """What the next round of a project is called."""
    return (Round.objects.filter(project=project).aggregate(last=Max("number"))["last"] or 0) + 1


def _settings(project: Project, over: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The project's settings with what differs this time, or RoundRefused with everything that cannot work."""
    sampling = {"temperature": project.temperature, "max_new_tokens": project.max_new_tokens}
    try:
        chosen = round_settings.merged(project.hyperparameters, over)
        round_settings.check(chosen, sampling)
    except InvalidSettings as err:
        raise RoundRefused(f"A round cannot work with these settings. {err.message}") from err
    return chosen


def new_rankings(project: Project, since: Round | None) -> int:
    """Rankings in force that count and teach, all of them or those given after a round began."""
    ranked = Ranking.objects.counted().besides_evaluations().filter(comparison__dialogue__project=project)
    return ranked.filter(created_at__gt=since.created_at).count() if since else ranked.count()


def validation_prompts(project: Project) -> int:
    """How many prompts there are for a gate to be measured on."""
    return gate_prompts(project).count()


def self_starting() -> QuerySet[Project]:
    """The projects that ask for a round after so many new comparisons."""
    return Project.objects.open().filter(round_every__gt=0, policy__isnull=False)


def start_if_due(project: Project) -> Round | None:
    """Start a round where there are as many new comparisons as the project asks for."""
    last = Round.objects.filter(project=project).order_by("-number").first()
    if last is not None and last.state in {*Round.ACTIVE, Round.State.DECISION}:
        return None  # one at a time, and none behind a manager's back
    if new_rankings(project, since=last) < max(project.round_every, FEWEST_RANKINGS):
        return None
    try:
        return start_round(project=project, trigger=Round.Trigger.BEAT)
    except FeedbackError as err:
        logger.info("round not started project=%s reason=%s", project.pk, err.message)
        return None


def active_rounds() -> QuerySet[Round]:
    """The rounds that may have a step to take."""
    return Round.objects.filter(state__in=Round.ACTIVE).order_by("pk")


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
    awaited = snapshots_of(turn)
    if not awaited or not all(snapshot.is_finished for snapshot in awaited):
        return False
    for snapshot in awaited:
        if snapshot.state != QueuedWork.State.DONE:
            return _fail(turn, "The snapshot could not be written", snapshot)
    lesson = rules_to_learn.lesson_of(turn)
    if not _move(turn, Round.State.REWARD_MODELS, without_rules=lesson.why_not):
        return False
    for kind in REWARD_KINDS:
        start_run(turn, kind, "reward_model", parent=turn.policy_before)
    if lesson.is_learned:
        start_run(turn, TrainingRun.Kind.RULE_MODEL, "rule_model", parent=turn.policy_before)
    return True


def snapshots_of(turn: Round) -> list[Snapshot]:
    """What a round learns from: what was ranked, and what people wrote where its policy learns from that."""
    return [snapshot for snapshot in (turn.snapshot, turn.demonstrations) if snapshot is not None]


def _after_reward_models(turn: Round) -> bool:
    rules = run_of(turn, TrainingRun.Kind.RULE_MODEL)  # not every round learns one
    awaited = [*[run_of(turn, kind) for kind in REWARD_KINDS], *([rules] if rules else [])]
    if not _all_done(turn, awaited):
        return False
    if made := turn.hyperparameters.get("policy", {}).get("made"):
        return _to_gate(turn, ModelVersion.objects.get(pk=made, project=turn.project))
    if not _move(turn, Round.State.POLICY):
        return False
    start_run(turn, TrainingRun.Kind.POLICY, "policy", parent=turn.policy_before)
    return True


def _after_policy(turn: Round) -> bool:
    run = run_of(turn, TrainingRun.Kind.POLICY)
    if not _all_done(turn, [run]):
        return False
    return _to_gate(turn, run.produced if run else None)


def _to_gate(turn: Round, made: ModelVersion | None) -> bool:
    if not _move(turn, Round.State.GATE, policy_after=made):
        return False
    start_run(turn, TrainingRun.Kind.GATE, "gate", parent=turn.policy_after)
    return True


def _after_gate(turn: Round) -> bool:
    run = run_of(turn, TrainingRun.Kind.GATE)
    if run is None or not _all_done(turn, [run]):
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


def _all_done(turn: Round, awaited: list[TrainingRun | None]) -> bool:
    for run in awaited:
        if run is not None and run.state in {QueuedWork.State.FAILED, QueuedWork.State.CANCELLED}:
            _fail(turn, _what_failed(run, turn), run)
            return False
    return all(run is not None and run.state == QueuedWork.State.DONE for run in awaited)


def _what_failed(run: TrainingRun, turn: Round) -> str:
    return {
        TrainingRun.Kind.RULE_MODEL: "The rule model could not be trained",
        TrainingRun.Kind.POLICY: f"{turn.algorithm} did not finish",
        TrainingRun.Kind.GATE: "The gate could not be measured",
    }.get(TrainingRun.Kind(run.kind), "A reward model could not be trained")


def run_of(turn: Round, kind: str) -> TrainingRun | None:
    """The run of one kind in a round."""
    return TrainingRun.objects.filter(round=turn, kind=kind).first()


def start_run(turn: Round, kind: str, part: str, parent: ModelVersion | None) -> TrainingRun:
    """Queue the run of one kind in a round, with that part of its settings; where it has one already, that one."""
    fields: dict[str, Any] = {
        "project": turn.project,
        "snapshot": turn.snapshot,
        "demonstrations": turn.demonstrations if kind == TrainingRun.Kind.POLICY else None,
        "parent": parent,
        "hyperparameters": turn.hyperparameters.get(part, {}),
        "seed": stable_seed(turn.seed, kind) % 2**31,
        "code_version": runs.code_version,  # asked only where the row is new
    }
    run, made = TrainingRun.objects.get_or_create(round=turn, kind=kind, defaults=fields)
    if made:
        queue.ring(run)
    return run


@transaction.atomic
def stop_round(*, turn: Round, by: User | None, reason: str) -> None:
    """End an active round: what runs is cancelled, what serves stays.

    Raises  RoundRefused when it is not active any more
    """
    unfinished = TrainingRun.objects.filter(round=turn).unfinished()  # type: ignore[attr-defined]
    if turn.state not in Round.ACTIVE or not _move(
        turn,
        Round.State.FAILED,
        error=f"Stopped by hand: {reason.strip() or 'no reason given'}",
        decided_at=timezone.now(),
        decided_by=by,
    ):
        raise RoundRefused("This round has moved on already. Reload the page.")
    unfinished.update(state=QueuedWork.State.CANCELLED, lease_token=None, lease_until=None, finished_at=timezone.now())
    audit.record("round.stopped", project=turn.project, actor=by, target=turn, reason=reason)


def why_not_resumed(turn: Round) -> str:
    """Why a round that ended without a policy cannot go on, in words for a manager; empty when it can."""
    if turn.state != Round.State.FAILED:
        return "Only a round that failed or was stopped can go on."
    if turn.policy_before_id != turn.project.policy_id:
        return "Another policy serves by now. Start a new round from that one."
    if Round.objects.filter(project=turn.project, number__gt=turn.number).exists():
        return "A later round has begun. Start a new one when that has ended."
    return ""


@transaction.atomic
def resume_round(*, turn: Round, by: User | None) -> None:
    """Let a round that failed or was stopped go on at the stage it had reached; a run goes on from its saved state.

    Raises  RoundRefused when it cannot, saying why
    """
    if reason := why_not_resumed(turn):
        raise RoundRefused(reason)
    error, stage = turn.error, _stage_reached(turn)
    try:
        with transaction.atomic():
            moved = _move(turn, stage, error="", decided_at=None, decided_by=None)
    except IntegrityError as err:
        raise RoundRefused("Another round was started at the same moment. That one runs.") from err
    if not moved:
        raise RoundRefused("This round has moved on already. Reload the page.")
    if stage == Round.State.SNAPSHOT:
        for snapshot in snapshots_of(turn):
            queue.requeue(snapshot)
    for run in TrainingRun.objects.filter(round=turn):
        queue.requeue(run, states=(QueuedWork.State.FAILED, QueuedWork.State.CANCELLED))
    audit.record("round.resumed", project=turn.project, actor=by, target=turn, after=error)


def _stage_reached(turn: Round) -> str:
    """The stage a round was in when it ended: its furthest run says so."""
    kinds = set(TrainingRun.objects.filter(round=turn).values_list("kind", flat=True))
    if TrainingRun.Kind.GATE in kinds:
        return Round.State.GATE
    if TrainingRun.Kind.POLICY in kinds:
        return Round.State.POLICY
    return Round.State.REWARD_MODELS if kinds else Round.State.SNAPSHOT
