"""The processes that make up a running Nestbox, and how each is started. deploy/compose.yaml starts the same ones."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

WORKER_POOLS = {
    # Torch never runs under a prefork pool: a process forked after torch computed once hangs.
    "generate": ("--pool=threads", "--concurrency=1"),
    "train": ("--pool=solo",),
    "default": ("--pool=threads", "--concurrency=2"),
}
NAMES = ("web", *WORKER_POOLS, "beat")


@dataclass(frozen=True)
class Process:
    """One process to keep running: its name, its command, and what its environment holds besides ours."""

    name: str
    arguments: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    stop_seconds: float = 8.0


def nestbox_processes(*, host: str, port: int, only: Iterable[str] = NAMES) -> list[Process]:
    """The processes named in `only`, in the order they are started.

    Raises ValueError when a name is unknown
    """
    wanted = list(only)
    unknown = sorted(set(wanted) - set(NAMES))
    if unknown:
        raise ValueError(f"Unknown process {', '.join(unknown)}; there are {', '.join(NAMES)}.")
    every = [web_process(host=host, port=port), *(worker_process(name) for name in WORKER_POOLS), beat_process()]
    return [process for process in every if process.name in wanted]


def web_process(*, host: str, port: int) -> Process:
    """gunicorn with threads; WEB_CONCURRENCY asks for more than one of its worker processes."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    arguments = ["-m", "gunicorn", "config.wsgi", "--bind", address, "--worker-class", "gthread", "--threads", "8"]
    arguments += ["--timeout", "60", "--graceful-timeout", "3", "--keep-alive", "5", "--no-control-socket"]
    if Path("/dev/shm").is_dir():
        arguments += ["--worker-tmp-dir", "/dev/shm"]  # its heartbeat must not wait for a busy disk
    return Process("web", (sys.executable, *arguments), {"PORT": str(port)})


def worker_process(name: str) -> Process:
    """A Celery worker that listens to the queue of the same name."""
    arguments = ["-m", "celery", "-A", "config", "worker", "--queues", name, "--hostname", f"{name}@%h"]
    arguments += [*WORKER_POOLS[name], "--without-gossip", "--without-mingle", "--without-heartbeat"]
    return Process(name, (sys.executable, *arguments), torch_environment() if name == "generate" else {})


def beat_process() -> Process:
    """Celery's clock. Its schedule is in config/celery.py and nothing of it is kept on disk."""
    return Process("beat", (sys.executable, "-m", "celery", "-A", "config", "beat", "--pidfile="))


def torch_environment() -> dict[str, str]:
    """What a process that computes with torch is given, so that several share a machine; an operator's choice wins.

    The training worker needs none: it never loads torch, and sets up its child processes itself.
    """
    from rewardtrain.child_environment import TRAINER_ENVIRONMENT

    return {name: value for name, value in TRAINER_ENVIRONMENT.items() if name not in os.environ}
