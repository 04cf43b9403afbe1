"""What learning refuses or gives up on. `code` is for programs, `message` tells people what to do."""

from __future__ import annotations


class LearningError(Exception):
    """The base of them all."""

    code = "learning"

    def __init__(self, message: str):
        self.message = message
        super().__init__(message)


class ModelRefused(LearningError):
    """A model folder that holds, or asks for, something other than data. The message names the file."""

    code = "model_refused"


class UnsupportedArchitecture(LearningError):
    """A network whose parts cannot be used apart as learning needs them."""

    code = "unsupported_architecture"


class TrainingDiverged(LearningError):
    """Numbers that are none, or a policy that ran away: the run stops before anything is saved."""

    code = "training_diverged"


class NothingToLearn(LearningError):
    """Data from which nothing follows: no comparison with two replies that differ in rank, no prompt."""

    code = "nothing_to_learn"


class CorpusRefused(LearningError):
    """A file of plain text that is not there, or cannot be read as one. The message names the line."""

    code = "corpus_refused"


class CheckpointError(LearningError):
    """A checkpoint that cannot be written or used."""

    code = "checkpoint"


class CheckpointMissing(CheckpointError):
    code = "checkpoint_missing"


class CheckpointDamaged(CheckpointError):
    code = "checkpoint_damaged"


class CheckpointExists(CheckpointError):
    code = "checkpoint_exists"


class CheckpointNotWritten(CheckpointError):
    """The disk is full or fails. What was saved before is untouched, and the work can go on from there."""

    code = "checkpoint_not_written"


class WrongCheckpoint(CheckpointError):
    """A state that another run saved, or this one with other settings or data."""

    code = "wrong_checkpoint"


class CannotChoose(Exception):
    """No choice among draws can be made; the message says why."""
