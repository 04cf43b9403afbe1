"""The life of a training run: queued, claimed by one process, its figures written down, finished or failed.

The work itself happens in a child process of low priority (`run_in_child`), or in the process of the command that asked
for it (`work_on_run`); both call the same functions. No torch here.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from feedback import queue
from feedback.errors import FeedbackError
from feedback.models import ModelVersion
from rewardtrain.algorithms import why_not_resumable
from rewardtrain.child_environment import NICENESS, trainer_environment
from rewardtrain.errors import CheckpointNotWritten, LearningError
from rewardtrain.hyperparameters import MOST_PROCESSES
from rewardtrain.models import TrainingRun
from rewardtrain.reporting import LeaseLost, Reporter, Silent
from rewardtrain.run_files import Outcome, forget_states
from rewardtrain.team import Team, join, rank

logger = logging.getLogger(__name__)


PAUSE_SECONDS = 60  # between looks whether a disk that was full has room again
TOKEN_VARIABLE = "NESTBOX_LEASE_TOKEN"
SECONDS_TO_WRITE_DOWN = 15  # what the first process of a team has to say why a run failed before all are ended


class RunRefused(FeedbackError):
    """A run that cannot go on; the message says why."""

    code = "run_refused"
    status = 409


def work_on_run(run_id: int, on_progress: Callable[[int, int, Mapping[str, float]], None] | None = None) -> bool:
    """Claim a run and do its work in this process. False when it was not due: somebody else has it, or it is over.

    A run that was killed, or waited for its disk, goes on from its last saved state. It never starts anew where a
    state was saved and is gone: it fails then, with the reason.
    """
    if rank() > 0:
        return _work_beside(run_id)
    run = queue.claim(TrainingRun, run_id, _token_given())
    if run is None:
        return False

    try:
        with queue.Heartbeat([run]):
            team = join(_device_of(run))
            team.from_first(lambda: run)
            outcome = _work_of(run)(run, Reporter(run, on_progress), team)
        _finish(run, outcome)
        forget_states(run)
        return True
    except LeaseLost:
        logger.info("run ended without its lease run=%s", run_id)
        return False
    except CheckpointNotWritten as err:
        logger.exception("run waits for its disk run=%s", run_id)
        queue.pause(run, _said(err), retry_after=PAUSE_SECONDS)
        raise
    except Exception as err:
        logger.exception("run failed run=%s", run_id)
        queue.fail(run, _said(err), permanent=is_permanent(err))
        raise


def _work_of(run: TrainingRun) -> Callable[[TrainingRun, Silent, Team], Outcome]:
    from rewardtrain import (
        evaluation_run,
        gate_run,
        policy_run,
        reward_model_run,
        rule_model_run,
    )  # what they call loads torch

    return {
        TrainingRun.Kind.REWARD_MODEL: reward_model_run.learn_preferences,
        TrainingRun.Kind.SECOND_REWARD_MODEL: reward_model_run.learn_preferences,
        TrainingRun.Kind.RULE_MODEL: rule_model_run.learn_rules,
        TrainingRun.Kind.POLICY: policy_run.improve_policy,
        TrainingRun.Kind.GATE: gate_run.measure_gate,
        TrainingRun.Kind.EVALUATION: evaluation_run.measure_policies,
    }[TrainingRun.Kind(run.kind)]


def _device_of(run: TrainingRun) -> str:
    begun = run.result.get("begun", {}).get("settings", {})
    return str(begun.get("device", run.hyperparameters.get("device", "cpu")))


def _token_given() -> uuid.UUID | None:
    """The lease's token, where the command that started this process wants to know it again."""
    given = os.environ.get(TOKEN_VARIABLE)
    return uuid.UUID(given) if given else None


def _work_beside(run_id: int) -> bool:
    """This process's part of a run that the first process of its team claims.

    What goes wrong everywhere the first process writes down. What goes wrong here alone would leave it waiting: so
    this process ends with an error after a while, upon which the launcher ends them all, and the run is tried again.
    """
    try:
        team = join(_device_of(TrainingRun.objects.get(pk=run_id)))
        run = team.from_first(lambda: TrainingRun())
        _work_of(run)(run, Silent(), team)
    except Exception:
        logger.exception("a process of a run failed run=%s rank=%s", run_id, rank())
        time.sleep(SECONDS_TO_WRITE_DOWN)
        raise
    return True


def _said(err: BaseException) -> str:
    message = getattr(err, "message", "") or f"{type(err).__name__}: {err}"
    return message[:2000]


@transaction.atomic
def _finish(run: TrainingRun, outcome: Outcome) -> None:
    """Register what a run made and mark it done, both or neither."""
    made = {}
    if outcome.kind:
        made["produced"] = register_model(
            run,
            kind=outcome.kind,
            location=outcome.location,
            content_hash=outcome.content_hash,
            figures=outcome.figures,
            name=outcome.name,
        )
        if outcome.on_made is not None:
            outcome.on_made(made["produced"])
    if not queue.finish(run, result=outcome.result, **made):
        raise LeaseLost(f"Run {run.pk} was stopped, or another process works on it now.")


def is_permanent(err: BaseException) -> bool:
    """Whether trying again could help: not where settings, data or the numbers themselves are at fault."""
    return isinstance(err, LearningError | FeedbackError | ValueError) or bool(getattr(err, "permanent", False))


def run_in_child(run_id: int, while_waiting: Callable[[], object] | None = None, token: uuid.UUID | None = None) -> int:
    """Work on a run in a child process, or several: low priority, passive OpenMP waiting, gone when this process goes.

    while_waiting  called twice a second until they end
    token          of the lease they take, to know it again
    """
    processes = processes_of(TrainingRun.objects.get(pk=run_id))
    threads = max(1, ((os.cpu_count() or 2) - 1) // processes)
    environment = trainer_environment(threads) | ({TOKEN_VARIABLE: str(token)} if token else {})
    child = subprocess.Popen(
        command_for(run_id, processes), env=environment, cwd=settings.BASE_DIR, preexec_fn=_become_a_quiet_child
    )
    try:
        while True:
            try:
                return child.wait(timeout=None if while_waiting is None else 0.5)
            except subprocess.TimeoutExpired:
                assert while_waiting is not None
                while_waiting()
    finally:
        if child.poll() is None:
            child.kill()


def processes_of(run: TrainingRun) -> int:
    """How many processes share the work on a run; what its settings say badly is refused when the work begins."""
    begun = run.result.get("begun", {}).get("settings", {})
    chosen = begun.get("processes", run.hyperparameters.get("processes", 1))
    return chosen if isinstance(chosen, int) and 1 <= chosen <= MOST_PROCESSES else 1


def command_for(run_id: int, processes: int) -> list[str]:
    """What works on a run; several processes are started, watched and ended together by torch's launcher."""
    work = [str(settings.BASE_DIR / "manage.py"), "work_on_run", str(run_id)]
    if processes == 1:
        return [sys.executable, *work]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *launcher, *work]


def _become_a_quiet_child() -> None:
    os.nice(NICENESS)
    go_with_parent()


def go_with_parent() -> None:
    """Let the kernel end this process when the one that started it ends; where there is no such thing, do nothing."""
    if sys.platform == "linux":
        import ctypes
        import signal

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no trainer outlives its worker


@transaction.atomic
def register_model(run: TrainingRun, *, kind: str, location: str, content_hash: str, **fields: Any) -> ModelVersion:
    """The row of what a run made, with the next number of its project and kind."""
    last = (
        ModelVersion.objects.filter(project=run.project, kind=kind)
        .order_by("-number")
        .values_list("number", flat=True)
        .first()
    )
    return ModelVersion.objects.create(
        project=run.project,
        kind=kind,
        number=(last or 0) + 1,
        location=location,
        content_hash=content_hash,
        parent=run.parent,
        **fields,
    )


def queue_run(*, ring: bool = True, **fields: Any) -> TrainingRun:
    """Write the row of a run; the training worker is rung unless the caller works on it itself."""
    run = TrainingRun.objects.create(code_version=code_version(), **fields)
    if ring:
        queue.ring(run)
    else:  # kept from the sweep until the caller has claimed it
        TrainingRun.objects.filter(pk=run.pk).update(rung_at=timezone.now())
    return run


RESUMABLE = (TrainingRun.State.FAILED, TrainingRun.State.CANCELLED)


def resume(run: TrainingRun, *, ring: bool = True) -> None:
    """Let a run that failed or was stopped go on from its last saved state.

    Raises  RunRefused when it has not ended that way, or when nothing was saved
    """
    if run.kind == TrainingRun.Kind.POLICY and (reason := why_not_resumable(run.hyperparameters)):
        raise RunRefused(f"Run {run.pk} cannot be resumed. {reason}")
    if not run.checkpoint_step:
        raise RunRefused(f"Run {run.pk} saved no state to go on from. Start a new one.")
    if not queue.requeue(run, states=RESUMABLE, ring_now=ring):
        run.refresh_from_db(fields=["state"])
        raise RunRefused(f"Run {run.pk} is {run.get_state_display()}; only one that failed or was stopped can go on.")


def code_version() -> str:
    """The commit this code is at, where that can be told."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            cwd=settings.BASE_DIR,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()
