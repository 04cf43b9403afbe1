"""What the learning commands share: find the project, read settings, work on a run here, write the JSON."""

from __future__ import annotations

import json
import uuid
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser, OutputWrapper
from django.utils import timezone

from feedback import snapshots
from feedback.errors import FeedbackError
from feedback.models import Project, QueuedWork, Snapshot
from rewardtrain import demonstrations_to_learn, run_figures, runs
from rewardtrain.algorithms import ALGORITHMS, why_not_resumable
from rewardtrain.errors import CheckpointNotWritten, LearningError
from rewardtrain.models import MetricPoint, TrainingRun
from rewardtrain.terminal import OnProgress, bar

REFUSALS = (FeedbackError, LearningError, ValueError)


def project_named(slug: str) -> Project:
    """The project, or an error that names the ones there are."""
    project = Project.objects.filter(slug=slug).first()
    if project is None:
        known = ", ".join(Project.objects.values_list("slug", flat=True)) or "none yet"
        raise CommandError(f"There is no project {slug!r}. Known: {known}.")
    return project


def add_settings_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting that differs from its default, e.g. --set epochs=3; may be repeated",
    )


def read_settings(pairs: list[str]) -> dict[str, Any]:
    """NAME=VALUE pairs as a dictionary; values are read as JSON where they can be, a dot goes one level down."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise CommandError(f"--set takes NAME=VALUE, not {pair!r}.")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        *outer, last = name.split(".")
        place = found
        for part in outer:
            place = place.setdefault(part, {})
        place[last] = value
    return found


def add_algorithm_argument(parser: CommandParser, *more: str, default: str = "PPO") -> None:
    parser.add_argument(
        "--algorithm",
        choices=(*ALGORITHMS, *more),
        help=f"how the policy is improved; default: {default}. All but PPO run on the CPU alone, in float32 and one "
        "process, and refuse other settings of device, dtype, mixed_precision and processes",
    )


def take_snapshot(project: Project) -> Snapshot:
    """A snapshot of the project as it is now, written in this process."""
    try:
        return snapshots.write_now(snapshots.freeze(project=project, kind="preference", ring=False))
    except FeedbackError as err:
        raise CommandError(err.message) from err


def take_demonstrations(project: Project, chosen: dict[str, Any]) -> Snapshot | None:
    """A snapshot of what people wrote, written in this process, where a policy's settings ask for it."""
    try:
        frozen = demonstrations_to_learn.freeze(project=project, policy_settings=chosen, ring=False)
        return None if frozen is None else snapshots.write_now(frozen)
    except FeedbackError as err:
        raise CommandError(err.message) from err


def add_resume_argument(parser: CommandParser) -> None:
    parser.add_argument(
        "--resume", type=int, metavar="RUN", help="go on with a run that was killed, stopped or failed, as it was begun"
    )


def run_to_resume(pk: int, project: Project, kind: str) -> TrainingRun:
    """A run of that project and kind, put back so that this process can claim it. Raises CommandError with why not."""
    run = TrainingRun.objects.filter(pk=pk, project=project, kind=kind).first()
    if run is None:
        raise CommandError(f"{project} has no run {pk} of that kind.")
    if run.state == QueuedWork.State.RUNNING and run.lease_until and run.lease_until > timezone.now():
        until = timezone.localtime(run.lease_until).strftime("%H:%M:%S")
        raise CommandError(f"Run {pk} is held by another process. If that one is gone, it is free at {until}.")
    if run.kind == TrainingRun.Kind.POLICY and (reason := why_not_resumable(run.hyperparameters)):
        raise CommandError(f"Run {pk} cannot be resumed. {reason}")
    if not run.checkpoint_step:
        raise CommandError(f"Run {pk} saved no state to go on from. Start a new one.")
    if run.state in runs.RESUMABLE:
        runs.resume(run, ring=False)
    elif run.state == QueuedWork.State.DONE:
        raise CommandError(f"Run {pk} is done: it made {run.produced}.")
    TrainingRun.objects.filter(pk=pk, state=QueuedWork.State.QUEUED).update(
        due_at=timezone.now(), rung_at=timezone.now()
    )
    return run


def work_or_cancel(run: TrainingRun, out: OutputWrapper) -> TrainingRun:
    """`work_here`; stopped by Ctrl-C the run is cancelled, and how to go on is said."""
    try:
        return work_here(run, out)
    except KeyboardInterrupt:
        cancel(run)
        run.refresh_from_db()
        if run.checkpoint_step:
            out.write(f"Run {run.pk} was saved at step {run.checkpoint_step}. Go on with --resume {run.pk}.")
        raise


def work_here(run: TrainingRun, out: OutputWrapper) -> TrainingRun:
    """Work on a run in this process, a bar and figures in the terminal. Raises CommandError with the run's reason."""
    lines = run_figures.terminal_lines(run.kind, run_figures.earlier_run(run))
    token = uuid.uuid4()
    with bar(str(run.get_kind_display()), out, lines) as on_progress:  # type: ignore[arg-type]
        try:
            if runs.processes_of(run) > 1:
                runs.run_in_child(run.pk, lambda: _show(run, on_progress), token)
            else:
                runs.work_on_run(run.pk, on_progress)
        except CheckpointNotWritten as err:
            raise CommandError(f"{err.message} Go on with --resume {run.pk}.") from err
        except REFUSALS as err:
            raise CommandError(getattr(err, "message", str(err))) from err
    run.refresh_from_db()
    if run.state != QueuedWork.State.DONE:
        raise CommandError(_why_not_done(run, token))
    return run


def _why_not_done(run: TrainingRun, token: uuid.UUID) -> str:
    """What to tell of a run that this command worked on and that is not done.

    token  of the lease that processes of this command took; they are gone
    """
    goes_on = (
        f" It was saved at step {run.checkpoint_step}. Go on with --resume {run.pk}." if run.checkpoint_step else ""
    )
    if run.state == QueuedWork.State.RUNNING and run.lease_token == token:
        cancel(run)
        return f"One of the processes that worked on run {run.pk} was ended.{goes_on or ' Start a new run.'}"
    if run.state == QueuedWork.State.QUEUED and run.error:
        again = (
            f" It is tried again where a training worker runs{', or with --resume ' + str(run.pk) if goes_on else ''}."
        )
        return f"{run.error}{again}"
    if run.state == QueuedWork.State.CANCELLED:
        return f"Run {run.pk} was stopped.{goes_on}"
    if run.state == QueuedWork.State.FAILED:
        return run.error
    return f"Run {run.pk} was taken over by a worker. Follow it on the rounds page."


def _show(run: TrainingRun, on_progress: OnProgress) -> None:
    """Tell the bar what other processes have written of a run; keep it from the sweep until they have claimed it."""
    TrainingRun.objects.filter(pk=run.pk, state=QueuedWork.State.QUEUED, attempts=0).update(rung_at=timezone.now())
    run.refresh_from_db(fields=["steps_done", "steps_total"])
    if run.steps_done:
        points = MetricPoint.objects.filter(run=run, step=run.steps_done).values_list("name", "value")
        on_progress(run.steps_done, run.steps_total, dict(points))


def cancel(run: TrainingRun) -> None:
    """Leave no row behind that a worker would take up after the command was stopped."""
    claimed = TrainingRun.objects.filter(pk=run.pk, state__in=["queued", "running"])
    claimed.update(state=QueuedWork.State.CANCELLED, lease_token=None, lease_until=None, finished_at=timezone.now())


def write_json(path: str | None, content: dict[str, Any]) -> None:
    if path:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
