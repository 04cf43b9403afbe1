"""Keeps a set of processes running: starts them, starts again what dies, stops all of them with all their children."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import IO

from config.processes import Process

TICK_SECONDS = 0.1
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 15.0
STEADY_AFTER_SECONDS = 5.0
LOCK_ATTEMPTS = 3
LARGEST_LOG_BYTES = 10 * 1024 * 1024
TRY_AGAIN_SECONDS = 60.0
PROJECT_ROOT = Path(__file__).resolve().parent.parent


class AlreadyRunning(Exception):
    """Another supervisor keeps one of these processes running on the same data folder."""


class Keeper:
    """One process: its life, its log, and when it may be started again."""

    def __init__(self, process: Process, *, log: Path, environment: dict[str, str]) -> None:
        self.process = process
        self.log = log
        self.environment = environment | process.environment
        self.running: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.delay = FIRST_DELAY_SECONDS
        self.started_at = 0.0
        self.start_at = 0.0
        self.shorten_at = 0.0

    def start(self) -> int:
        """Start the process in a session and group of its own; gives its process id. Raises OSError."""
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(
                self.process.arguments,
                cwd=PROJECT_ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.starts += 1
        self.started_at = time.monotonic()
        return self.running.pid

    def bury(self) -> str:
        """Note that the process ended: kill what it left behind, plan the next start, and say how it ended."""
        assert self.running is not None
        code = self.running.wait()
        self.signal_group(signal.SIGKILL)
        self.running = None
        steady = time.monotonic() - self.started_at >= STEADY_AFTER_SECONDS
        self.put_off(FIRST_DELAY_SECONDS if steady else self.delay * 2)
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def put_off(self, seconds: float) -> None:
        """Plan the next start for `seconds` from now, or for the longest delay if that is sooner."""
        self.delay = min(seconds, LONGEST_DELAY_SECONDS)
        self.start_at = time.monotonic() + self.delay

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the process and all its children."""
        if self.running is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.running.pid, number)

    def stop(self, deadline: float) -> None:
        """Wait for the end that was asked for, until `deadline` (monotonic seconds); then end it."""
        if self.running is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.running.wait(max(0.0, deadline - time.monotonic()))
        self.signal_group(signal.SIGKILL)
        self.running.wait()


class Supervisor:
    """Keeps `processes` running until it is stopped or leaves its `with` block.

    processes    what to run, see config.processes
    data_dir     holds the logs (logs/NAME.log) and the locks that keep a second supervisor away
    environment  the environment of every process; ours when left out
    tell         called with one line whenever a process dies, or something fails and is tried again
    failed       called when supervising ends by itself, after `failure` was set; every process is then stopped
    """

    def __init__(
        self,
        processes: Iterable[Process],
        *,
        data_dir: Path,
        environment: dict[str, str] | None = None,
        tell: Callable[[str], None] = lambda line: None,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self.data_dir = data_dir
        self.tell = tell
        self.failed = failed
        self.failure: Exception | None = None
        self.logs = data_dir / "logs"
        ours = dict(os.environ if environment is None else environment) | {"DATA_DIR": str(data_dir)}
        self.keepers = {
            process.name: Keeper(process, log=self.logs / f"{process.name}.log", environment=ours)
            for process in processes
        }
        self._locks: list[IO[str]] = []
        self._guardian: subprocess.Popen[str] | None = None
        self._guardian_at = 0.0
        self._stopping = threading.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Start every process. Raises AlreadyRunning, or OSError when one cannot be started at all."""
        self.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._locks = [take_lock(self.data_dir, name) for name in self.keepers]
        self._thread.start()
        self._started.wait()
        if self.failure is not None:
            self.stop()
            raise self.failure

    def stop(self) -> None:
        """Stop every process and its children; those that do not end in time are killed."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        while self._locks:
            self._locks.pop().close()

    def __enter__(self) -> Supervisor:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def process_id(self, name: str) -> int | None:
        """The process id of `name` now, or None between its death and its next start."""
        running = self.keepers[name].running
        return running.pid if running is not None else None

    def starts(self, name: str) -> int:
        """How often `name` has been started."""
        return self.keepers[name].starts

    def last_lines(self, name: str, count: int = 15) -> str:
        """The end of a process's log."""
        log = self.keepers[name].log
        return "\n".join(log.read_text(errors="replace").splitlines()[-count:]) if log.exists() else ""

    def _run(self) -> None:
        # The guardian and every process are started from this one thread, which ends only when all are stopped.
        try:
            self._start_guardian()
            for keeper in self.keepers.values():
                self._start(keeper)
            self._started.set()
            while not self._stopping.wait(TICK_SECONDS):
                self._tend()
        except Exception as error:  # noqa: BLE001 - the outermost edge of a thread: whoever waits is told the reason
            self.failure = error
            self.failed()
        finally:
            self._started.set()
            self._stop_all()

    def _tend(self) -> None:
        """Notice what died and start what is due. What the system refuses is told, and tried again later."""
        if (self._guardian is None or self._guardian.poll() is not None) and time.monotonic() >= self._guardian_at:
            self._replace_guardian()
        for keeper in self.keepers.values():
            if time.monotonic() >= keeper.shorten_at:
                self._shorten_log(keeper)
            if keeper.running is None:
                if time.monotonic() >= keeper.start_at:
                    self._start_again(keeper)
            elif keeper.running.poll() is not None:
                self._bury(keeper)

    def _shorten_log(self, keeper: Keeper) -> None:
        try:
            shorten_log(keeper.log)
        except OSError as error:
            keeper.shorten_at = time.monotonic() + TRY_AGAIN_SECONDS
            self._tell(f"A log cannot be shortened: {error}; trying again in {TRY_AGAIN_SECONDS:g} s: {keeper.log}")

    def _start(self, keeper: Keeper) -> None:
        self._tell_guardian("watch", keeper.start())

    def _start_again(self, keeper: Keeper) -> None:
        try:
            self._start(keeper)
        except OSError as error:
            keeper.put_off(keeper.delay * 2)
            self._tell(f"{keeper.process.name} cannot be started: {error}; trying again in {keeper.delay:.1f} s.")

    def _bury(self, keeper: Keeper) -> None:
        assert keeper.running is not None
        group = keeper.running.pid
        ending = keeper.bury()
        self._tell_guardian("forget", group)
        self._tell(f"{keeper.process.name} {ending}; starting it again in {keeper.delay:.1f} s. Its log: {keeper.log}")

    def _tell(self, line: str) -> None:
        with contextlib.suppress(OSError):  # the listener may write to the very disk that is full
            self.tell(line)

    def _replace_guardian(self) -> None:
        try:
            self._start_guardian()
        except OSError as error:
            self._guardian_at = time.monotonic() + LONGEST_DELAY_SECONDS
            self._tell(f"The guardian cannot be started: {error}; trying again in {LONGEST_DELAY_SECONDS:g} s.")

    def _start_guardian(self) -> None:
        arguments = [sys.executable, "-S", "-E", str(PROJECT_ROOT / "config" / "guardian.py")]
        self._guardian = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, bufsize=1, start_new_session=True
        )
        for keeper in self.keepers.values():
            if keeper.running is not None:
                self._tell_guardian("watch", keeper.running.pid)

    def _tell_guardian(self, verb: str, group: int) -> None:
        assert self._guardian is not None and self._guardian.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a dead guardian is replaced at the next tick
            self._guardian.stdin.write(f"{verb} {group}\n")

    def _stop_all(self) -> None:
        """Ask all to end at once, in time; then kill. The guardian goes last and finds nothing to do."""
        asked = time.monotonic()
        for keeper in self.keepers.values():
            keeper.signal_group(signal.SIGTERM)
        for keeper in self.keepers.values():
            keeper.stop(asked + keeper.process.stop_seconds)
        if self._guardian is not None and self._guardian.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._guardian.stdin.close()
            self._guardian.wait()


def lock_path(data_dir: Path, name: str) -> Path:
    """The file that is locked while some supervisor keeps `name` running on this data folder."""
    return data_dir / "locks" / f"{name}.lock"


def take_lock(data_dir: Path, name: str) -> IO[str]:
    """Hold the lock of `name` for as long as the file given stays open. Raises AlreadyRunning."""
    path = lock_path(data_dir, name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = path.open("a")
    for _ in range(LOCK_ATTEMPTS):  # somebody may be asking is_kept_running at this very moment
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        time.sleep(TICK_SECONDS / 5)
    file.close()
    raise AlreadyRunning(f"{name} is already running on the data folder {data_dir}.")


def is_kept_running(data_dir: Path, name: str) -> bool:
    """Whether some supervisor keeps `name` running on this data folder now."""
    if not lock_path(data_dir, name).exists():
        return False
    try:
        take_lock(data_dir, name).close()
    except AlreadyRunning:
        return True
    return False


def shorten_log(log: Path) -> None:
    """Copy a long log aside and begin it anew; a process that appends to it goes on at its new beginning.

    Raises OSError when it cannot be copied, as on a full disk. The log is then whole, and no part of a copy is kept.
    """
    if not log.exists() or log.stat().st_size <= LARGEST_LOG_BYTES:
        return
    aside = log.with_suffix(".log.1")
    try:
        shutil.copyfile(log, aside)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise
    os.truncate(log, 0)


def port_is_taken(host: str, port: int) -> bool:
    """Whether something listens on the port already."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((host, port))
        except OSError:
            return True
    return False
