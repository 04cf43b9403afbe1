"""`manage.py serve`: everything a running Nestbox needs, under one command, until Ctrl-C."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from config import file_transport, processes
from config.processes import Process
from config.supervisor import AlreadyRunning, Supervisor, port_is_taken

UP_WITHIN_SECONDS = 90
NEXT_STEP = "Next: open the link, sign in as {}, start the work that waits there, and write to the model.\n"


class Command(BaseCommand):
    help = "Start the web server, the workers and the clock, and keep them running until Ctrl-C."
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
        parser.add_argument(
            "--port", type=int, default=settings.PORT, help="port to listen on (default: PORT, or 8000)"
        )
        parser.add_argument(
            "--only",
            default=",".join(processes.NAMES),
            metavar="NAMES",
            help=f"start only some, separated by commas: {','.join(processes.NAMES)}",
        )

    def handle(self, *args: Any, host: str, port: int, only: str, **options: Any) -> None:
        try:
            chosen = processes.nestbox_processes(host=host, port=port, only=only.split(","))
        except ValueError as error:
            raise CommandError(str(error)) from error
        serves_pages = any(process.name == "web" for process in chosen)
        if serves_pages and port_is_taken(host, port):
            raise CommandError(
                f"Port {port} of {host} is taken, perhaps by another Nestbox. Stop that one, or choose another port: "
                f"PORT={port + 1} make demo"
            )
        self.prepare()
        self.keep_running(chosen, host=host, port=port if serves_pages else None)
        self.say("Stopped. Everything is kept; start again to go on.")

    def keep_running(self, chosen: Sequence[Process], *, host: str, port: int | None) -> None:
        """Run the chosen processes until asked to stop. Raises CommandError when they cannot run or cannot go on."""
        stop = asked_to_stop()
        supervisor = Supervisor(chosen, data_dir=Path(settings.DATA_DIR), tell=self.warn, failed=stop.set)
        try:
            with supervisor:
                self.welcome(supervisor, stop, host=host, port=port)
                stop.wait()
                self.say("\nStopping every process ...")
        except AlreadyRunning as error:
            raise CommandError(f"{error} Stop that Nestbox first, or choose another folder with DATA_DIR.") from error
        except OSError as error:
            raise CommandError(f"Nestbox cannot run: {error}. Every process was stopped.") from error
        if (failure := supervisor.failure) is not None:
            raise CommandError(f"Nestbox cannot go on: {failure!r}. Every process was stopped.") from failure

    def prepare(self) -> None:
        """Bring the database up to date, and leave no connection open that a child could inherit."""
        call_command("migrate", interactive=False, verbosity=0, stdout=self.stdout)
        connections.close_all()
        if settings.CELERY_BROKER_URL == settings.EMBEDDED_BROKER:
            file_transport.discard_leftovers(settings.QUEUE_DIR)

    def welcome(self, supervisor: Supervisor, stop: threading.Event, *, host: str, port: int | None) -> None:
        """Say where to go, once pages are served. Raises CommandError when they never are."""
        if port is None:
            self.say(f"Running: {', '.join(supervisor.keepers)}. Ctrl-C stops them.")
            return
        address = f"http://{'localhost' if host in ('0.0.0.0', '::') else host}:{port}/"
        if not wait_until_healthy(address, stop):
            if stop.is_set():
                return
            raise CommandError(
                f"The web server did not answer within {UP_WITHIN_SECONDS} s. The end of its log, "
                f"{supervisor.keepers['web'].log}:\n{supervisor.last_lines('web')}"
            )
        self.say(f"\nNestbox is up: {address}\n")
        self.say(self.sign_ins())
        self.say(f"Everything is kept in {settings.DATA_DIR}, logs in {supervisor.logs}.")
        self.say("Ctrl-C stops every process.\n")

    def sign_ins(self) -> str:
        """The sign-ins made at the first start, and what to do next."""
        kept = Path(settings.DATA_DIR) / "sign-ins.txt"
        if not kept.exists():
            return "Make yourself a manager with: .venv/bin/python manage.py createsuperuser\n"
        people = [line.split("\t") for line in kept.read_text().splitlines() if line]
        rows = [f"  {name:<10} {password:<16} {does}" for name, password, does in people]
        return "\n".join(
            [
                f"  {'sign in as':<10} {'password':<16} who",
                *rows,
                f"  (kept in {kept})",
                "",
                NEXT_STEP.format(people[0][0]),
            ]
        )

    def say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()

    def warn(self, line: str) -> None:
        self.stderr.write(line)
        self.stderr.flush()


def asked_to_stop() -> threading.Event:
    """An event that is set by Ctrl-C, by SIGTERM, and when the terminal goes away."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    return stop


def wait_until_healthy(address: str, stop: threading.Event) -> bool:
    """Whether /healthz answered 200 before the time was over or `stop` was set."""
    opener = build_opener(ProxyHandler({}))  # a proxy of the environment does not know this machine's own ports
    deadline = time.monotonic() + UP_WITHIN_SECONDS
    while time.monotonic() < deadline and not stop.wait(0.2):
        try:
            with opener.open(f"{address}healthz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            continue
    return False
