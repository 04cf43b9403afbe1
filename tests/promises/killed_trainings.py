"""Kill trainings at random moments and let each go on; a program of its own, because it forks before torch has threads.

    python -m tests.promises.killed_trainings "reward model" 20 SEED FOLDER

prints a line of JSON: the sha256 of the weights of a training that was left alone, and of each that was killed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rewardtrain.training_state import StateKeeper
from tests.rewardtrain.trainings import SETTINGS, TRAINERS, save_bases

LONGER: dict[str, dict[str, Any]] = {"reward model": {"epochs": 5}, "policy": {"updates": 16}}


def forked(work: Callable[[], object]) -> int:
    """The process ID of a copy of this process that does the work and ends."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def finish(child: int) -> None:
    """Wait for a child that must end well."""
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit(f"A training ended with status {status}.")


@dataclasses.dataclass
class Trial:
    """A training in a folder of its own."""

    kind: str
    base: Path
    folder: Path

    def train(self) -> None:
        """Train, from the last state where there is one; what came out is written beside."""
        settings = dataclasses.replace(SETTINGS[self.kind], **LONGER[self.kind])
        trained = TRAINERS[self.kind](self.base, StateKeeper(self.folder / "states", every_seconds=0), settings)
        content = {"weights": trained.weights, "began": trained.begun[1], "steps": len(trained.history)}
        (self.folder / "partial.json").write_text(json.dumps(content))
        os.replace(self.folder / "partial.json", self.folder / "trained.json")

    @property
    def trained(self) -> dict[str, Any] | None:
        path = self.folder / "trained.json"
        return json.loads(path.read_text()) if path.exists() else None

    @property
    def was_saving(self) -> bool:
        """True if a state lies there half written."""
        return any((self.folder / "states").glob(".partial-*"))


def kill_within(trial: Trial, seconds: float, *, in_a_save: bool) -> bool:
    """Start a training, kill it after so long, or in the next save after that; False when it was over before."""
    child = forked(trial.train)
    time.sleep(seconds)
    while in_a_save and not trial.was_saving and trial.trained is None:
        time.sleep(0)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return trial.trained is None


def main(kind: str, kills: int, seed: int, root: Path) -> dict[str, Any]:
    dice = random.Random(seed)
    finish(forked(lambda: save_bases(root / "bases")))
    base = root / "bases" / ("gpt2" if kind == "reward model" else "llama")

    def trial(number: int) -> Trial:
        folder = root / f"trial-{number:03}"
        (folder / "states").mkdir(parents=True)
        return Trial(kind, base, folder)

    alone = trial(0)
    started = time.monotonic()
    finish(forked(alone.train))
    seconds = time.monotonic() - started
    results: list[dict[str, Any]] = []
    number = 0
    while len(results) < kills:
        number += 1
        own = trial(number)
        if not kill_within(own, dice.uniform(0, seconds), in_a_save=number % 2 == 0):
            continue  # it was quicker this time
        was_saving = own.was_saving
        finish(forked(own.train))
        assert own.trained is not None
        results.append({**own.trained, "was_saving": was_saving, "partial_left": own.was_saving})
    return {"kind": kind, "seconds": seconds, "alone": alone.trained, "killed": results}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))))  # noqa: T201
