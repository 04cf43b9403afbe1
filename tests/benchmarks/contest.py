"""Measure the same work done in several ways: each in a process of its own, in turn, several times, on one thread.

A way is a function `module:name` that takes options and gives a function which does the work once and returns the CPU
seconds of each unit of it. The first time warms up and is thrown away. Peak memory is that of the whole process.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rewardtrain.child_environment import trainer_environment

ROOT = Path(__file__).resolve().parents[2]
Work = Callable[[], list[float]]


@dataclass(frozen=True)
class Way:
    """One way to do the work. `python` is the interpreter it needs, where that is not this one."""

    name: str
    function: str  # "tests.benchmarks.bench_reward_model:ours"
    options: dict[str, Any] = field(default_factory=dict)
    python: str = sys.executable
    environment: dict[str, str] = field(default_factory=dict)  # beside a trainer's own


@dataclass(frozen=True)
class Contest:
    """Ways to do the same work. The first is ours; the others are told how many times as much they take."""

    title: str
    unit: str  # what one figure is of: "step", "update"
    ways: Sequence[Way]
    repeats: int = 5
    note: str = ""


@dataclass
class Measured:
    """CPU seconds of every unit of work, and what the process needed at most."""

    seconds: list[float] = field(default_factory=list)
    peak_mb: float = 0.0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class Contestant:
    """A process that does the work each time it is asked to."""

    def __init__(self, way: Way):
        self.way = way
        command = [way.python, "-m", "tests.benchmarks.contest", way.function, json.dumps(way.options)]
        environment = trainer_environment(1) | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"} | way.environment
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - what libraries say, for when something goes wrong
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
        )  # fmt: skip

    def ask(self, what: str) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith(ANSWER):  # whatever else the libraries print
                return json.loads(line.removeprefix(ANSWER))
        self.log.seek(0)
        said = "".join(self.log.readlines()[-15:])
        raise RuntimeError(f"{self.way.name} ({self.way.function}) ended before it answered:\n{said}")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()


def hold(contest: Contest, on_progress: Callable[[], object] = lambda: None) -> dict[str, Measured]:
    """What each way took, by its name; ways take turns, so that what else the machine does hits all of them."""
    contestants = [Contestant(way) for way in contest.ways]
    measured = {way.name: Measured() for way in contest.ways}
    try:
        for number in range(contest.repeats + 1):
            for contestant in contestants:
                seconds = contestant.ask("work")
                if number:
                    measured[contestant.way.name].seconds += seconds
                on_progress()
        for contestant in contestants:
            measured[contestant.way.name].peak_mb = contestant.ask("peak")
    finally:
        for contestant in contestants:
            contestant.close()
    return measured


# In the contestant's process

ANSWER = "answer: "


def answer(function: str, options: dict[str, Any]) -> None:
    """Do the work for every line "work" that comes in."""
    module, _, name = function.partition(":")
    work: Work = getattr(importlib.import_module(module), name)(options)
    for line in sys.stdin:
        found: Any = work() if line.strip() == "work" else peak_mb()
        print(ANSWER + json.dumps(found), flush=True)  # noqa: T201


def peak_mb() -> float:
    """The most memory this process has had, in MB.

    On Linux from /proc: getrusage would count what the process that started this one had at that moment.
    """
    status = Path("/proc/self/status")
    for line in status.read_text(encoding="utf-8").splitlines() if status.exists() else []:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6


if __name__ == "__main__":
    os.nice(5)
    answer(sys.argv[1], json.loads(sys.argv[2]))
