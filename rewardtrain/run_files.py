"""The files of runs: models they start from, states they go on from, and what they end with, complete or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from feedback.models import ModelVersion
from rewardtrain import model_files
from rewardtrain.checkpoints import model_folder_hash, save_checkpoint
from rewardtrain.errors import CheckpointNotWritten
from rewardtrain.models import TrainingRun
from rewardtrain.team import ALONE, Team

if TYPE_CHECKING:
    from rewardtrain.reporting import Silent
    from rewardtrain.training_state import StateKeeper

STATES_KEPT_FOR = timedelta(days=14)  # of runs that failed or were stopped; somebody may want to go on


@dataclass(frozen=True)
class Outcome:
    """What a run gives back: its result, and the model it made, if it makes one.

    on_made  what else is kept with the model, in the transaction that registers it
    """

    result: dict[str, Any]
    kind: str = ""
    location: str = ""
    content_hash: str = ""
    name: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
    on_made: Callable[[ModelVersion], None] | None = None


def folder_of(version: ModelVersion) -> Path:
    """The folder of a model whose files are still those it was made with, or first found with."""
    folder, found = model_files.verified_folder(version)
    model_files.hold_to(version, found)
    return folder


def keeper_of(
    run: TrainingRun, reporter: Silent, every_seconds: float, team: Team = ALONE, **belongs_to: Any
) -> StateKeeper:
    """Where this run's states are; a run that saved one goes on from it or not at all."""
    from rewardtrain.training_state import StateKeeper, StateReader

    return (StateKeeper if team.is_first else StateReader)(
        states_folder(run),
        belongs_to={"run": run.pk, **belongs_to},
        every_seconds=every_seconds,
        must_resume=run.checkpoint_step > 0,
        on_saved=reporter.saved,
    )


def states_folder(run: TrainingRun) -> Path:
    """Where the states of a run are kept until it has ended."""
    return model_files.models_folder() / run.project.slug / f"run-{run.pk}.states"


def forget_states(run: TrainingRun) -> None:
    """A run that is done needs its states no more. Nor do runs of its project that ended otherwise long ago."""
    from rewardtrain.training_state import forget_states as forget

    forget(states_folder(run))
    long_ago = timezone.now() - STATES_KEPT_FOR
    ended = TrainingRun.objects.filter(project=run.project, finished_at__lt=long_ago).exclude(pk=run.pk)
    for old in ended.select_related("project"):
        if states_folder(old).is_dir():
            forget(states_folder(old))


def save_outcome(
    run: TrainingRun,
    kind: str,
    writer: Callable[[Path], Any],
    *,
    result: dict[str, Any],
    figures: dict[str, Any],
    name: str = "",
    beside: Callable[[Path], Any] | None = None,
    on_made: Callable[[ModelVersion], None] | None = None,
) -> Outcome:
    """Write what was trained, complete or not at all; what is only for training goes into a folder beside it."""
    location = f"{run.project.slug}/{kind}-run-{run.pk}"
    folder = model_files.models_folder() / location
    try:
        save_checkpoint(folder, writer, replace=True)
        if beside is not None:
            save_checkpoint(folder.with_name(f"{folder.name}.training"), beside, replace=True)
    except OSError as err:
        raise CheckpointNotWritten(
            f"What was learned could not be written to {folder}: {err.strerror or err}. Make room; the run goes on."
        ) from err
    return Outcome(
        result=result, kind=kind, location=location, content_hash=model_folder_hash(folder), figures=figures, name=name,
        on_made=on_made,
    )  # fmt: skip
