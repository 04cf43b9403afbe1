"""A trainer's state on disk: what lets a run that was killed end with the same weights as one that was not.

No random generator lives longer than a step: data order, dropout and every sample follow from the seed and the step. So
between two steps the state is the trained weights, the optimiser's moments, the numbers a trainer adapts (β), and its
history. A rollout that was being drawn when the process died is drawn again from its seeds, token for token.

On one processor, with as many threads as before (the state says how many, and resuming sets it), this is exact.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rewardtrain.checkpoints import clean_partial, load_checkpoint, save_checkpoint, verify
from rewardtrain.errors import (
    CheckpointDamaged,
    CheckpointError,
    CheckpointMissing,
    CheckpointNotWritten,
    TrainingDiverged,
    WrongCheckpoint,
)

logger = logging.getLogger(__name__)
TENSORS, VALUES = "state.safetensors", "state.json"
KEPT = 2  # the newest, and the one before in case the disk damages the newest
WEIGHT, MOMENT = "weight.", "optimizer."


@dataclass
class TrainingState:
    """Everything a trainer needs to go on after `step` steps."""

    step: int
    tensors: dict[str, Tensor]
    values: dict[str, Any] = field(default_factory=dict)


class StateKeeper:
    """Where one run's states are kept: written every so often, the newest complete one found again.

    folder         its own, one per run
    belongs_to     what must be the same to go on, beside the trainer's own identity: the run, a reward model's hash
    every_seconds  at least so long between two states; 0 keeps one after each step
    must_resume    going on was asked for: with no state to go on from, stop instead of starting anew
    on_saved       told the step once its state is complete on the disk
    """

    def __init__(
        self,
        folder: Path,
        *,
        belongs_to: Mapping[str, Any] | None = None,
        every_seconds: float = 120.0,
        must_resume: bool = False,
        on_saved: Callable[[int], object] = lambda step: None,
    ):
        self.folder = Path(folder)
        self.belongs_to = dict(belongs_to or {})
        self.every_seconds = every_seconds
        self.must_resume = must_resume
        self.on_saved = on_saved
        self._identity: dict[str, Any] = {}
        self._saved_at = time.monotonic()
        self._saved_step = 0

    def resume(self, identity: Mapping[str, Any]) -> TrainingState | None:
        """The newest complete state, or None when there is none and none was asked for. Sets the number of threads.

        identity  what makes the weights come out as they do: settings, data, the network at the start
        Raises    CheckpointMissing, CheckpointDamaged; WrongCheckpoint when it is another run's or its settings differ
        """
        self._identity = json.loads(json.dumps({**identity, **self.belongs_to}))
        self._saved_at = time.monotonic()
        found = self._newest()
        if found is None:
            return None
        state = self._read(found)
        self._saved_step = state.step
        logger.info("training goes on state=%s step=%s", found, state.step)
        return state

    def _newest(self) -> Path | None:
        damaged: CheckpointError | None = None
        for folder in reversed(self._states()):
            try:
                return load_checkpoint(folder)
            except CheckpointError as error:
                logger.warning("state passed over folder=%s reason=%s", folder, error)
                damaged = damaged or error
        if damaged is not None:
            raise CheckpointDamaged(f"Nothing to go on from: {damaged.message} Start a new run.") from damaged
        if self.must_resume:
            raise CheckpointMissing(f"There is no saved state in {self.folder} to go on from. Start a new run.")
        return None

    def _states(self) -> list[Path]:
        """Folders of states, oldest first; what a dead process left half written is removed."""
        if not self.folder.is_dir():
            return []
        clean_partial(self.folder)
        return sorted(path for path in self.folder.glob("step-*") if path.is_dir())

    def _read(self, folder: Path) -> TrainingState:
        from safetensors.torch import load_file

        try:
            written = json.loads((folder / VALUES).read_text(encoding="utf-8"))
            identity, machine = dict(written["identity"]), dict(written["machine"])
            state = TrainingState(int(written["step"]), load_file(folder / TENSORS), dict(written["values"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointDamaged(f"{folder} cannot be read as a training state: {error!r}.") from error
        self._compare(folder, identity)
        _take_machine(folder, machine)
        return state

    def _compare(self, folder: Path, identity: Mapping[str, Any]) -> None:
        differences = list(_differences(identity, self._identity))
        if differences:
            raise WrongCheckpoint(
                f"{folder} was saved by something else: {'; '.join(differences[:5])}. "
                "Go on with what it was saved with, or start a new run."
            )

    def after_step(self, step: int, steps: int, capture: Callable[[], TrainingState]) -> None:
        """Save what `capture` gives, if it is time to, or if this was the last step.

        Raises  CheckpointNotWritten when the disk is full or fails; the state before is still there
        """
        if step < steps and time.monotonic() - self._saved_at < self.every_seconds:
            return
        state = capture()
        folder = self.folder / f"step-{state.step:08d}"
        try:
            save_checkpoint(folder, lambda partial: self._write(partial, state), replace=True)
            verify(folder)
            self._prune(folder)
        except OSError as error:
            before = f"goes on from step {self._saved_step}" if self._saved_step else "starts again"
            raise CheckpointNotWritten(
                f"The state after step {state.step} could not be written to {self.folder}: {error.strerror or error}. "
                f"Make room there; the run {before}."
            ) from error
        self._saved_at, self._saved_step = time.monotonic(), state.step
        self.on_saved(state.step)

    def _write(self, folder: Path, state: TrainingState) -> None:
        from safetensors.torch import save_file

        save_file({name: one.detach().cpu().contiguous() for name, one in state.tensors.items()}, folder / TENSORS)
        written = {"step": state.step, "identity": self._identity, "machine": machine(), "values": state.values}
        (folder / VALUES).write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")

    def _prune(self, newest: Path) -> None:
        older = [path for path in self._states() if path.name < newest.name]
        for path in older[: len(older) - (KEPT - 1)]:
            shutil.rmtree(path, ignore_errors=True)


class StateReader(StateKeeper):
    """For the processes of a team that only go on from what the first one saves."""

    def after_step(self, step: int, steps: int, capture: Callable[[], TrainingState]) -> None:
        """Nothing: the first process has it."""


def forget_states(folder: Path) -> None:
    """Remove a run's states: it has ended, and what it made is kept elsewhere."""
    shutil.rmtree(folder, ignore_errors=True)


# The machine


def machine() -> dict[str, Any]:
    """What the last digits depend on beside the run itself."""
    return {"torch": torch.__version__, "threads": torch.get_num_threads()}


def _take_machine(folder: Path, saved: Mapping[str, Any]) -> None:
    threads = saved.get("threads")
    if isinstance(threads, int) and threads > 0 and threads != torch.get_num_threads():
        logger.info("threads set as the state says threads=%s", threads)
        torch.set_num_threads(threads)
    if saved.get("torch") != torch.__version__:
        logger.warning(
            "state saved with another torch folder=%s saved=%s here=%s: the last digits may differ",
            folder, saved.get("torch"), torch.__version__,
        )  # fmt: skip


def _differences(saved: Any, here: Any, where: str = "") -> Iterable[str]:
    """In words, each place where two nested dictionaries differ."""
    if isinstance(saved, dict) and isinstance(here, dict):
        for key in sorted(saved.keys() | here.keys()):
            yield from _differences(saved.get(key), here.get(key), f"{where}.{key}" if where else key)
    elif saved != here:
        yield f"{where} was {_short(saved)}, here it is {_short(here)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:12]}…{text[-4:]}"


# What a trainer hands over


def capture(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Trained weights and the optimiser's moments, under names of their own. Not copied: write them before going on."""
    tensors = {f"{WEIGHT}{name}": own.data for name, own in module.named_parameters() if own.requires_grad}
    for place, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"{MOMENT}{place}.{name}": own for name, own in moments.items()}
    return tensors


@torch.no_grad()
def restore(module: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `capture` took. Raises CheckpointDamaged when names or shapes differ."""
    own = {f"{WEIGHT}{name}": one for name, one in module.named_parameters() if one.requires_grad}
    weights = {name: tensor for name, tensor in tensors.items() if name.startswith(WEIGHT)}
    if {name: one.shape for name, one in own.items()} != {name: one.shape for name, one in weights.items()}:
        raise CheckpointDamaged("The saved weights are not those of this network. Start a new run.")
    for name, parameter in own.items():
        parameter.copy_(weights[name])
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(MOMENT):
            place, _, moment = name.removeprefix(MOMENT).partition(".")
            moments.setdefault(int(place), {})[moment] = tensor
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


def weights_hash(module: nn.Module, *, leave_out: str = "") -> str:
    """sha256 over a network's weights, frozen ones too, with their names.

    leave_out  a part of names; weights with it are another role's that happens to share the network
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if leave_out and leave_out in name:
            continue
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return digest.hexdigest()


def data_hash(rows: Iterable[Any]) -> str:
    """sha256 over what a trainer learns from, as it reaches the network; anything JSON can say."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def check_finite(parameters: Iterable[nn.Parameter]) -> None:
    """Raise TrainingDiverged if a weight is no number: nothing may come of such a network."""
    if not all(bool(torch.isfinite(parameter).all()) for parameter in parameters):
        raise TrainingDiverged("A weight became no number. Lower learning_rate.")
