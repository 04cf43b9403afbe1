"""Rounds as rows of stages: how far each is, with its figures and times, in words a manager reads. Reads rows only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from django.db.models import Prefetch
from django.db.models.fields.json import KeyTransform
from django.utils import dateformat, timezone
from django.utils.text import capfirst

from feedback.models import Project, QueuedWork, Snapshot
from feedback.templatetags.shares import percent
from rewardtrain.algorithms import PPO, title_of, why_not_resumable
from rewardtrain.models import Promotion, Round, TrainingRun
from rewardtrain.rounds import REWARD_KINDS

SHOWN = 12


@dataclass(frozen=True)
class Stage:
    """One stage of a round as an egg and two lines: `state` is done, now, todo, waits or failed."""

    name: str
    state: str = "todo"
    figure: str = "–"
    when: str = ""


@dataclass
class RoundRow:
    """A round, its runs by kind, and its stages."""

    turn: Round
    runs: dict[str, TrainingRun]
    stages: list[Stage] = field(default_factory=list)
    is_serving: bool = False

    @property
    def is_active(self) -> bool:
        return self.turn.state in Round.ACTIVE

    @property
    def waits(self) -> bool:
        return self.turn.state == Round.State.DECISION

    @property
    def chip(self) -> tuple[str, str]:
        """(class of the chip, its words)."""
        if self.is_active:
            return "on", "Running"
        if self.waits:
            return "waits", "Waits for you"
        if self.turn.state == Round.State.FAILED:
            return "harm", "Stopped" if self.turn.decided_by_id else "Failed"
        if self.turn.state == Round.State.REFUSED:
            return "", "Refused"
        return "", "Serving" if self.is_serving else "Retired"

    @property
    def algorithm(self) -> str:
        """What improves the policy in this round; read beside the round's settings, which are long."""
        return title_of(getattr(self.turn, "algorithm_named", None))

    @property
    def begins_anew(self) -> bool:
        """True where what improves the policy saves no state to go on from."""
        return bool(why_not_resumable({"algorithm": getattr(self.turn, "algorithm_named", None) or PPO}))

    @property
    def knows_rules(self) -> bool:
        """Whether there were rules to learn, learned or not."""
        return TrainingRun.Kind.RULE_MODEL in self.runs or bool(self.turn.without_rules)

    @property
    def gate_lines(self) -> list[dict[str, Any]]:
        return getattr(self.turn, "gate_lines", None) or []

    @property
    def current_run(self) -> TrainingRun | None:
        """The run that works now, or worked last."""
        found = [self.runs[kind] for kind in TrainingRun.Kind.values if kind in self.runs]
        moving = [run for run in found if not run.is_finished]
        return moving[0] if moving else next(reversed(found), None)


def rows_of(project: Project, most: int = SHOWN) -> list[RoundRow]:
    """The newest rounds of a project with their stages, newest first."""
    return _rows(project, Round.objects.filter(project=project)[:most])


def row_of(turn: Round) -> RoundRow:
    """One round with its stages."""
    return _rows(turn.project, Round.objects.filter(pk=turn.pk))[0]


def _rows(project: Project, rounds: Any) -> list[RoundRow]:
    """`rounds` is a queryset; the samples of its gate reports, which are long, stay where they are."""
    snapshots = Snapshot.objects.defer(*Snapshot.IDS, "manifest", "excluded")
    found = (
        rounds.defer("gate_report", "hyperparameters")
        .annotate(gate_lines=KeyTransform("lines", "gate_report"))
        .annotate(algorithm_named=KeyTransform("algorithm", KeyTransform("policy", "hyperparameters")))
        .select_related("policy_before", "policy_after", "decided_by")
        .prefetch_related(Prefetch("snapshot", snapshots), Prefetch("runs", _runs()))
    )
    serving = Serving.of(project)
    rows = []
    for turn in found:
        row = RoundRow(turn, {run.kind: run for run in turn.runs.all()})
        row.is_serving = turn.state == Round.State.PROMOTED and turn.policy_after_id == project.policy_id
        rows.append(row)
    with_rules = any(row.knows_rules for row in rows)
    for row in rows:
        row.stages = [
            snapshot_stage(row.turn),
            reward_stage(row),
            *([rule_stage(row)] if with_rules else []),
            policy_stage(row),
            gate_stage(row),
            serving_stage(row, serving),
        ]
    return rows


def _runs() -> Any:
    return TrainingRun.objects.select_related("produced").defer("result", "hyperparameters")


@dataclass(frozen=True)
class Serving:
    """How long each policy has served, and since when the one that serves now does."""

    seconds: dict[int, float]
    since: datetime | None

    @classmethod
    def of(cls, project: Project) -> Serving:
        steps = list(Promotion.objects.filter(project=project).order_by("pk").values_list("to_version", "created_at"))
        return cls(served_seconds(steps, timezone.now()), steps[-1][1] if steps else None)


def served_seconds(steps: Iterable[tuple[int, datetime]], now: datetime) -> dict[int, float]:
    """Seconds each policy has served, from (policy, when it began) in order."""
    served: dict[int, float] = defaultdict(float)
    for (policy, began), (_, end) in pairwise([*steps, (0, now)]):
        served[policy] += (end - began).total_seconds()
    return dict(served)


def snapshot_stage(turn: Round) -> Stage:
    name, snapshot = "Snapshot", turn.snapshot
    if snapshot is None:
        return Stage(name)
    if snapshot.state == QueuedWork.State.DONE:
        rankings = snapshot.counts.get("total", {}).get("rankings", 0)
        return Stage(name, "done", f"{rankings:,} ranking{'' if rankings == 1 else 's'}", moment(snapshot.created_at))
    if snapshot.is_finished:
        return Stage(name, "failed", "not written", moment(snapshot.created_at))
    return _stopped_or(turn, Stage(name, "now", "being written", moment(snapshot.created_at)))


def reward_stage(row: RoundRow) -> Stage:
    """Both reward models as one stage; its figure is the first one's, which the policy is to follow."""
    name = "Preference model"
    runs = [row.runs[kind] for kind in REWARD_KINDS if kind in row.runs]
    if not runs:
        return Stage(name)
    if all(run.state == QueuedWork.State.DONE for run in runs):
        return Stage(name, "done", accuracy(runs[0]), duration(sum(map(run_seconds, runs))))
    stuck = next((run for run in runs if run.state in ("failed", "cancelled")), None)
    if stuck:
        return _broken(name, stuck)
    moving = next(run for run in runs if not run.is_finished)
    which = "first of two" if moving.kind == TrainingRun.Kind.REWARD_MODEL else "second of two"
    return _stopped_or(row.turn, Stage(name, "now", steps_of(moving), which))


def rule_stage(row: RoundRow) -> Stage:
    """The round's rule model; its figure is how well it tells a reply that breaks a rule from one that does not."""
    name, run = "Rule model", row.runs.get(TrainingRun.Kind.RULE_MODEL)
    if run is None:
        return Stage(name, figure="none") if row.turn.without_rules else Stage(name)
    if run.state == QueuedWork.State.DONE:
        auc = run.produced.figures.get("mean_auc_all") if run.produced else None
        return Stage(name, "done", "not measured" if auc is None else f"AUC {auc:.2f}", duration(run_seconds(run)))
    if run.is_finished:
        return _broken(name, run)
    return _stopped_or(row.turn, Stage(name, "now", steps_of(run), f"{duration(run_seconds(run))} so far"))


def policy_stage(row: RoundRow) -> Stage:
    name, run = row.algorithm, row.runs.get(TrainingRun.Kind.POLICY)
    if run is None and row.turn.policy_after is not None:
        return Stage(name, "done", "trained before")
    if run is None:
        return Stage(name)
    if run.state == QueuedWork.State.DONE:
        return Stage(name, "done", f"{run.steps_total:,} steps", duration(run_seconds(run)))
    if run.is_finished:
        return _broken(name, run)
    return _stopped_or(row.turn, Stage(name, "now", steps_of(run), f"{duration(run_seconds(run))} so far"))


def gate_stage(row: RoundRow) -> Stage:
    name, run, lines = "Gate", row.runs.get(TrainingRun.Kind.GATE), row.gate_lines
    if lines:
        passed = sum(bool(line.get("passed")) for line in lines)
        when = moment(run.finished_at) if run and run.finished_at else ""
        return Stage(name, "done" if passed == len(lines) else "failed", f"{passed} of {len(lines)} passed", when)
    if run is None:
        return Stage(name)
    if run.is_finished and run.state != QueuedWork.State.DONE:
        return _broken(name, run)
    return _stopped_or(row.turn, Stage(name, "now", "measuring", f"{duration(run_seconds(run))} so far"))


def serving_stage(row: RoundRow, serving: Serving) -> Stage:
    name, turn = "Serving", row.turn
    if row.waits:
        gate = row.runs.get(TrainingRun.Kind.GATE)
        since = gate.finished_at if gate and gate.finished_at else turn.created_at
        return Stage(name, "waits", "to decide", duration((timezone.now() - since).total_seconds()))
    if turn.state != Round.State.PROMOTED or turn.policy_after is None:
        return Stage(name)
    policy = str(turn.policy_after)
    if row.is_serving and serving.since:
        return Stage(name, "done", policy, f"since {day(serving.since)}")
    return Stage(name, "done", policy, duration(serving.seconds.get(turn.policy_after_id or 0, 0)))


def _broken(name: str, run: TrainingRun) -> Stage:
    words = "stopped" if run.state == QueuedWork.State.CANCELLED else "failed"
    return Stage(name, "failed", words, moment(run.finished_at or run.created_at))


def _stopped_or(turn: Round, stage: Stage) -> Stage:
    """Work of a round that has ended is not going on, whatever its own row says yet."""
    return stage if turn.state in Round.ACTIVE else Stage(stage.name, "failed", "stopped", stage.when)


def steps_of(run: TrainingRun) -> str:
    """How far a run is: step 212 of 400."""
    if run.state == QueuedWork.State.QUEUED:
        return "waiting for a worker" if not run.attempts else "waiting to try again"
    return f"step {run.steps_done:,} of {run.steps_total:,}" if run.steps_total else "starting"


def goes_on(row: RoundRow) -> str:
    """Where a round that ended early would go on, in words; empty for one that did not."""
    if row.turn.state != Round.State.FAILED:
        return ""
    broken = [run for run in row.runs.values() if run.state in ("failed", "cancelled")]
    saved = next((run for run in broken if run.checkpoint_step), None)
    if saved is not None:
        what = row.algorithm if saved.kind == TrainingRun.Kind.POLICY else f"the {saved.get_kind_display()}"
        return f"What was learned before is kept; {what} goes on after step {saved.checkpoint_step:,}."
    if broken:
        return "What was learned before is kept; the step that did not end begins anew."
    return "It goes on where it was."


def accuracy(run: TrainingRun) -> str:
    """What a reward model reports of itself."""
    figures = run.produced.figures if run.produced else {}
    if not figures.get("pairs"):
        return "not measured"
    return f"{percent(figures.get('pair_accuracy'), figures['pairs'])} right"


def run_seconds(run: TrainingRun) -> float:
    """How long a run has worked, or worked: from its last start."""
    return ((run.finished_at or timezone.now()) - (run.started_at or run.created_at)).total_seconds()


def seconds_left(run: TrainingRun) -> float | None:
    """About how long a run still takes, as fast as it went so far; None before its first step."""
    done = run.steps_done - run.resumed_step  # since it was started last
    if run.state != QueuedWork.State.RUNNING or done <= 0 or run.started_at is None:
        return None
    return run_seconds(run) / done * max(0, run.steps_total - run.steps_done)


def heard_from(run: TrainingRun) -> datetime | None:
    """When its worker last gave a sign of life."""
    return run.lease_until - timedelta(seconds=run.lease_seconds) if run.lease_until else None


def sentence(project: Project, rows: list[RoundRow], new_rankings: int) -> str:
    """What needs the manager, in one or two sentences; when nothing does, what goes on."""
    said = [*_waiting(rows), *_running(rows), *_failed(rows)]
    if any(row.waits or row.is_active for row in rows):
        return " ".join(said)
    serving = f"{capfirst(str(project.policy))} serves." if project.policy else "No model serves here yet."
    fresh = f"{new_rankings:,} ranking{' is' if new_rankings == 1 else 's are'} new since the last round."
    if not rows:
        fresh = f"{new_rankings:,} ranking{'' if new_rankings == 1 else 's'} so far."
    by_itself = f" The next round starts by itself at {project.round_every:,}." if project.round_every else ""
    return " ".join([*said, f"{serving} {fresh}{by_itself}"])


def _waiting(rows: list[RoundRow]) -> list[str]:
    waiting = [row for row in rows if row.waits]
    return [f"Round {row.turn.number} waits for your decision: {gate_words(row.gate_lines)}." for row in waiting]


def _running(rows: list[RoundRow]) -> list[str]:
    running = [row for row in rows if row.is_active]
    return [f"Round {row.turn.number} is {row.turn.get_state_display()}." for row in running]


def _failed(rows: list[RoundRow]) -> list[str]:
    newest = rows[0] if rows else None
    if newest is None or newest.turn.state != Round.State.FAILED:
        return []
    words = "was stopped" if newest.turn.decided_by_id else "failed"
    return [f"Round {newest.turn.number} {words}."]


def gate_words(lines: list[dict[str, Any]]) -> str:
    """How a gate ended, in words."""
    failed = sum(not line.get("passed") for line in lines)
    if not failed:
        return f"it passed all {len(lines)} lines of its gate"
    return f"{'one line' if failed == 1 else f'{failed} lines'} of its gate failed"


def moment(at: datetime) -> str:
    """A day and a time: 21 Nov 06:00."""
    return dateformat.format(timezone.localtime(at), "j M H:i")


def day(at: datetime) -> str:
    """A day: 12 Nov."""
    return dateformat.format(timezone.localtime(at), "j M")


def duration(seconds: float) -> str:
    """A length of time in the one or two units that matter.

    >>> [duration(42), duration(840), duration(4320), duration(90_000), duration(700_000)]
    ['42 s', '14 min', '1 h 12 min', '1 day', '8 days']
    """
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    days = whole // 86_400
    return f"{days} day{'' if days == 1 else 's'}"
