"""Real processes on a test's own database: supervised workers and clock, a bell that reaches them, a way to kill."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from celery import Celery
from django.db import connection

from config import celery as queue_settings
from config import file_transport
from config.processes import Process, nestbox_processes
from config.supervisor import Supervisor
from feedback import queue
from feedback.invariants import violations
from feedback.models import ModelVersion, Project
from rewardtrain import model_files
from tests import make

logger = logging.getLogger("promises")
FULL = os.environ.get("NESTBOX_FULL_PROMISES") == "1"


@dataclass
class Nestbox:
    """The background processes of an installation."""

    environment: dict[str, str]

    @property
    def data_dir(self) -> Path:
        return Path(self.environment["DATA_DIR"])

    @contextlib.contextmanager
    def running(self, *names: str, workers: int = 1, port: int = 0) -> Iterator[Supervisor]:
        """The named processes under the real supervisor, with so many generation workers; web listens on `port`."""
        processes = nestbox_processes(host="127.0.0.1", port=port, only=names)
        more = [again(process, number) for process in processes for number in range(2, workers + 1)]
        processes += [process for process in more if process.name.startswith("generate")]
        with Supervisor(processes, data_dir=self.data_dir, environment=self.environment) as supervisor:
            try:
                yield supervisor
            except AssertionError:
                self.show_logs()
                raise

    def show_logs(self) -> None:
        """The end of every process's log, for whoever reads a failed test."""
        for log in sorted((self.data_dir / "logs").glob("*.log")):
            logger.error("%s\n%s", log.name, "\n".join(log.read_text(errors="replace").splitlines()[-25:]))

    def bell(self) -> Celery:
        """The queue these processes listen to."""
        broker = self.environment["CELERY_BROKER_URL"]
        app = Celery("bell", broker=broker or f"{file_transport.SCHEME}://")
        options = {"global_keyprefix": self.environment["CELERY_KEY_PREFIX"]}
        app.conf.update(
            broker_transport_options=options if broker else file_transport.options(self.data_dir / "queue"),
            task_queues=queue_settings.app.conf.task_queues,
            task_routes=queue_settings.TASK_ROUTES,
            task_ignore_result=True,
        )
        return app

    def lose_messages(self) -> int:
        """Empty the queue, as a flushed Redis or a deleted folder would. Returns how many messages were lost."""
        if self.environment["CELERY_BROKER_URL"]:
            return flush(self.environment["CELERY_BROKER_URL"], self.environment["CELERY_KEY_PREFIX"])
        messages = list((self.data_dir / "queue" / "messages").glob("*.msg"))
        for message in messages:
            message.unlink(missing_ok=True)
        return len(messages)


def again(process: Process, number: int) -> Process:
    """The same process under another name."""
    arguments = tuple(part.replace("@%h", f"-{number}@%h") for part in process.arguments)
    return replace(process, name=f"{process.name}-{number}", arguments=arguments)


def flush(broker: str, prefix: str) -> int:
    import redis

    with redis.Redis.from_url(broker) as server:
        keys = list(server.scan_iter(f"{prefix}*"))
        lost = sum(server.llen(key) for key in keys if server.type(key) == b"list")
        for key in keys:
            server.delete(key)
    return lost


@pytest.fixture
def nestbox(process_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Nestbox:
    """An installation on this test's database; what the test's own process asks for rings there."""
    nestbox = Nestbox(process_environment)
    bell = nestbox.bell()
    monkeypatch.setattr(queue, "_send", lambda name, pk: bell.send_task(name, [pk], retry=False))
    return nestbox


@pytest.fixture
def speaking_project(process_environment: dict[str, str]) -> Project:
    """A project whose policy is the starter, or a random network of its kind where there is none."""
    project = make.make_project()
    location = model_files.STARTER_LOCATION
    if not (model_files.folder_at(location) / "config.json").exists():
        location = str(random_policy(Path(process_environment["DATA_DIR"]) / "models" / "random"))
    ModelVersion.objects.filter(pk=project.policy_id).update(
        location=location, content_hash=model_files.model_hash(location)
    )
    return project


def random_policy(folder: Path) -> Path:
    from tests.rewardtrain import tiny

    return tiny.save_base(folder, tiny.make_llama(hidden=128, layers=4), tiny.make_tokenizer())


def eventually(condition: Callable[[], object], *, seconds: float, what: str, every: float = 0.05) -> float:
    """Wait until `condition` holds and give the seconds it took; fails when it never does."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not within {seconds} s: {what}"
        time.sleep(every)
    return time.monotonic() - started


def kill(supervisor: Supervisor, name: str) -> None:
    """Signal 9, and wait until the process is gone."""
    process_id = supervisor.process_id(name)
    assert process_id is not None
    os.kill(process_id, signal.SIGKILL)
    eventually(lambda: supervisor.process_id(name) != process_id, seconds=10, what=f"{name} is gone")


def assert_nothing_is_wrong() -> None:
    """The checker finds nothing, and SQLite's own neither."""
    assert [str(violation) for violation in violations()] == []
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA integrity_check")
            assert cursor.fetchone() == ("ok",)


def figures(what: str, **numbers: object) -> None:
    """Say what was measured, for whoever runs the full numbers."""
    logger.info("figures %s %s %s", what, connection.vendor, " ".join(f"{k}={v}" for k, v in numbers.items()))
