"""One command keeps every process running, starts again what dies, and leaves nothing behind, however it ends."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import IO
from urllib.request import ProxyHandler, build_opener

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from config import guardian, supervisor
from config.management.commands import demo as demo_command
from config.management.commands import serve as serve_command
from config.processes import NAMES, Process, nestbox_processes
from config.supervisor import AlreadyRunning, Supervisor, is_kept_running

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc, which this system lacks")

SLEEPER = "import time\nwhile True: time.sleep(1)"
DEAF = f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\n{SLEEPER}"
PARENT = f"""import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {SLEEPER!r}])
print(child.pid, flush=True)
{SLEEPER}"""


def python(name: str, code: str, **fields: object) -> Process:
    return Process(name, (sys.executable, "-c", code), **fields)  # type: ignore[arg-type]


def eventually(condition: Callable[[], object], *, seconds: float = 20) -> None:
    """Wait until `condition` holds; fails when it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def is_alive(process_id: int | None) -> bool:
    """Whether a process runs; a dead one that nobody has buried yet does not."""
    if process_id is None:
        return False
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def logged_number(log: Path) -> int:
    eventually(lambda: log.exists() and log.read_text().strip())
    return int(log.read_text().split()[0])


def test_every_process_runs_until_the_block_ends(tmp_path: Path) -> None:
    with Supervisor([python("one", SLEEPER), python("two", SLEEPER)], data_dir=tmp_path) as running:
        ids = [running.process_id("one"), running.process_id("two")]
        assert all(map(is_alive, ids))
    assert not any(map(is_alive, ids))


def test_a_killed_process_is_started_again(tmp_path: Path) -> None:
    told: list[str] = []
    with Supervisor([python("one", SLEEPER)], data_dir=tmp_path, tell=told.append) as running:
        first = running.process_id("one")
        assert first is not None
        os.kill(first, signal.SIGKILL)
        eventually(lambda: running.starts("one") == 2)
        eventually(lambda: is_alive(running.process_id("one")))
        assert running.process_id("one") != first
    assert "one was killed by signal 9" in told[0]


def test_a_process_that_keeps_dying_is_started_ever_more_slowly(tmp_path: Path) -> None:
    told: list[str] = []
    with Supervisor([python("one", "raise SystemExit(3)")], data_dir=tmp_path, tell=told.append):
        eventually(lambda: len(told) >= 3)
    assert ["ended with exit code 3" in line for line in told] == [True] * len(told)
    assert [line.partition("again in ")[2][:3] for line in told[:3]] == ["1.0", "2.0", "4.0"]


def test_what_a_dead_process_left_behind_is_killed(tmp_path: Path) -> None:
    with Supervisor([python("one", PARENT)], data_dir=tmp_path) as running:
        child = logged_number(tmp_path / "logs" / "one.log")
        assert is_alive(child)
        os.kill(running.process_id("one") or 0, signal.SIGKILL)
        eventually(lambda: not is_alive(child))


def test_stopping_reaches_the_children_of_children(tmp_path: Path) -> None:
    with Supervisor([python("one", PARENT)], data_dir=tmp_path):
        child = logged_number(tmp_path / "logs" / "one.log")
    eventually(lambda: not is_alive(child))  # it was told to end; nobody waits for a child's child


def test_a_process_deaf_to_the_request_to_end_is_killed_in_time(tmp_path: Path) -> None:
    with Supervisor([python("one", DEAF, stop_seconds=0.5)], data_dir=tmp_path) as running:
        eventually(lambda: "deaf" in running.last_lines("one"))
        process_id, asked = running.process_id("one"), time.monotonic()
    assert not is_alive(process_id)
    assert 0.4 < time.monotonic() - asked < 5


OUTER = """
import sys, time
from pathlib import Path
from config.processes import Process
from config.supervisor import Supervisor
with Supervisor([Process("one", (sys.executable, "-c", sys.argv[2]))], data_dir=Path(sys.argv[1])) as running:
    print(running.process_id("one"), flush=True)
    time.sleep(600)
"""


def test_nothing_outlives_a_supervisor_killed_with_kill_9(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", OUTER, str(tmp_path), PARENT]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=settings.BASE_DIR) as outer:
        assert outer.stdout is not None
        process_id = int(outer.stdout.readline())
        child = logged_number(tmp_path / "logs" / "one.log")
        assert is_alive(process_id) and is_alive(child)
        outer.kill()
    eventually(lambda: not is_alive(process_id) and not is_alive(child))


def test_a_killed_guardian_is_replaced_and_knows_what_to_watch(tmp_path: Path) -> None:
    with Supervisor([python("one", SLEEPER)], data_dir=tmp_path) as running:
        first = running._guardian
        assert first is not None
        first.kill()
        eventually(lambda: running._guardian is not first)
        second, process_id = running._guardian, running.process_id("one")
        assert second is not None and second.stdin is not None
        second.stdin.close()  # as if the supervisor had died
        eventually(lambda: not is_alive(process_id))


def test_the_guardian_kills_only_what_was_not_forgotten() -> None:
    assert guardian.groups_left(["watch 1\n", "watch 2\n", "forget 1\n", "noise\n", "watch 3\n"]) == {2, 3}


def test_a_second_supervisor_on_the_same_data_is_refused(tmp_path: Path) -> None:
    assert not is_kept_running(tmp_path, "one")
    with Supervisor([python("one", SLEEPER)], data_dir=tmp_path):
        assert is_kept_running(tmp_path, "one")
        with pytest.raises(AlreadyRunning, match="one is already running"):
            Supervisor([python("one", SLEEPER)], data_dir=tmp_path).start()
        with Supervisor([python("two", SLEEPER)], data_dir=tmp_path):
            assert is_kept_running(tmp_path, "two")
    assert not is_kept_running(tmp_path, "one")


def test_a_command_that_does_not_exist_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    running = Supervisor([python("one", SLEEPER), Process("two", ("/nowhere/at/all",))], data_dir=tmp_path)
    with pytest.raises(FileNotFoundError):
        running.start()
    assert not is_alive(running.process_id("one"))
    assert not is_kept_running(tmp_path, "one")


def test_a_long_log_is_put_aside_while_its_process_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LARGEST_LOG_BYTES", 1000)
    chatter = "import time\nwhile True: print('x' * 99, flush=True); time.sleep(0.01)"
    with Supervisor([python("one", chatter)], data_dir=tmp_path) as running:
        eventually(lambda: (tmp_path / "logs" / "one.log.1").exists())
        eventually(lambda: 0 < (tmp_path / "logs" / "one.log").stat().st_size < 1000)
        assert running.starts("one") == 1


def test_a_full_disk_stops_no_process_and_a_long_log_is_put_aside_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "TRY_AGAIN_SECONDS", 0.3)
    told: list[str] = []
    logs = tmp_path / "logs"
    with Supervisor([python("one", SLEEPER), python("two", SLEEPER)], data_dir=tmp_path, tell=told.append) as running:
        ids = [running.process_id("one"), running.process_id("two")]
        (logs / "one.log.1").symlink_to("/dev/full")
        monkeypatch.setattr(supervisor, "LARGEST_LOG_BYTES", 1000)
        (logs / "one.log").write_text("x" * 2000)
        eventually(lambda: told)
        assert "No space left on device" in told[0] and str(logs / "one.log") in told[0]
        eventually(lambda: (logs / "one.log").stat().st_size == 0)
        assert (logs / "one.log.1").read_text() == "x" * 2000
        assert [running.process_id("one"), running.process_id("two")] == ids
        assert all(map(is_alive, ids)) and running.failure is None
    assert len(told) == 1


def test_a_log_that_cannot_be_put_aside_stays_whole_and_leaves_no_part_of_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy_a_part(source: Path, target: Path) -> None:
        target.write_text("xx")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(supervisor, "LARGEST_LOG_BYTES", 1000)
    monkeypatch.setattr(supervisor.shutil, "copyfile", copy_a_part)
    log = tmp_path / "one.log"
    log.write_text("x" * 2000)
    with pytest.raises(OSError, match="No space left"):
        supervisor.shorten_log(log)
    assert list(tmp_path.iterdir()) == [log] and log.stat().st_size == 2000


def test_a_process_that_cannot_be_started_again_is_tried_later_and_the_others_run_on(tmp_path: Path) -> None:
    told: list[str] = []
    log = tmp_path / "logs" / "one.log"
    with Supervisor([python("one", SLEEPER), python("two", SLEEPER)], data_dir=tmp_path, tell=told.append) as running:
        other = running.process_id("two")
        log.unlink()
        log.mkdir()  # so that it cannot be opened
        os.kill(running.process_id("one") or 0, signal.SIGKILL)
        eventually(lambda: len(told) >= 2)
        assert "one cannot be started" in told[1] and "Is a directory" in told[1]
        log.rmdir()
        eventually(lambda: is_alive(running.process_id("one")))
        assert running.process_id("two") == other and is_alive(other)


def test_a_guardian_that_cannot_be_started_again_is_tried_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    with Supervisor([python("one", SLEEPER)], data_dir=tmp_path, tell=told.append) as running:
        first, process_id = running._guardian, running.process_id("one")
        assert first is not None
        with monkeypatch.context() as patched:
            patched.setattr(supervisor, "LONGEST_DELAY_SECONDS", 0.3)
            patched.setattr(supervisor.sys, "executable", "/nowhere/at/all")
            first.kill()
            eventually(lambda: told)
        assert "The guardian cannot be started" in told[0]
        eventually(lambda: running._guardian is not first)
        assert running.process_id("one") == process_id and is_alive(process_id)


def test_a_listener_that_cannot_write_stops_nothing(tmp_path: Path) -> None:
    def tell(line: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Supervisor([python("one", SLEEPER)], data_dir=tmp_path, tell=tell) as running:
        os.kill(running.process_id("one") or 0, signal.SIGKILL)
        eventually(lambda: running.starts("one") == 2)
        assert running.failure is None


def test_processes_can_be_chosen_and_unknown_ones_are_named() -> None:
    assert tuple(process.name for process in nestbox_processes(host="127.0.0.1", port=8000)) == NAMES
    chosen = nestbox_processes(host="127.0.0.1", port=8000, only=["default", "web"])
    assert [process.name for process in chosen] == ["web", "default"]
    with pytest.raises(ValueError, match="Unknown process webb; there are web, generate"):
        nestbox_processes(host="127.0.0.1", port=8000, only=["webb"])


def test_torch_workers_never_fork() -> None:
    pools = {
        process.name: argument
        for process in nestbox_processes(host="127.0.0.1", port=8000)
        for argument in process.arguments
        if argument.startswith("--pool=")
    }
    assert pools == {"generate": "--pool=threads", "train": "--pool=solo", "default": "--pool=threads"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_serve_says_when_the_port_is_taken_and_what_to_do() -> None:
    with socket.socket() as neighbour:
        neighbour.bind(("127.0.0.1", 0))
        neighbour.listen()
        port = neighbour.getsockname()[1]
        with pytest.raises(CommandError, match=rf"Port {port} of 127.0.0.1 is taken.*PORT={port + 1} make demo"):
            call_command("serve", port=port, stdout=StringIO())


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Process], str]:
    """Runs `serve` or `demo` in this process with one process of ours; gives what was said, after 15 s at most."""

    def run(command: str, process: Process) -> str:
        stop, said = threading.Event(), StringIO()
        monkeypatch.setattr(settings, "DATA_DIR", tmp_path)
        monkeypatch.setattr(serve_command, "asked_to_stop", lambda: stop)
        monkeypatch.setattr(serve_command.processes, "nestbox_processes", lambda **_: [process])
        monkeypatch.setattr(serve_command.Command, "prepare", lambda self: None)
        monkeypatch.setattr(demo_command.Command, "prepare", lambda self: None)
        patience = threading.Timer(15, stop.set)
        patience.start()
        try:
            call_command(command, stdout=said, stderr=said)
        finally:
            patience.cancel()
        return said.getvalue()

    return run


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_serving_ends_and_says_why_when_nothing_is_supervised_any_more(
    served: Callable[[str, Process], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    welcomed = threading.Event()

    def tend(self: Supervisor) -> None:
        if welcomed.is_set():
            raise RuntimeError("the moon is down")

    monkeypatch.setattr(Supervisor, "_tend", tend)
    monkeypatch.setattr(serve_command.Command, "welcome", lambda *_, **__: welcomed.set())
    with pytest.raises(CommandError, match=r"cannot go on: RuntimeError\('the moon is down'\)"):
        served(command, python("one", SLEEPER))
    assert processes_of(str(tmp_path)) == []
    assert not is_kept_running(tmp_path, "one")


def test_serve_says_why_a_process_cannot_be_started(served: Callable[[str, Process], str]) -> None:
    with pytest.raises(CommandError, match=r"Nestbox cannot run: .*No such file or directory: '/nowhere/at/all'"):
        served("serve", Process("one", ("/nowhere/at/all",)))


@contextlib.contextmanager
def serve(environment: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A real `manage.py serve`, or whatever command the arguments name, gone when the block ends."""
    arguments = (sys.executable, "manage.py", *(arguments or ("serve",)))
    pipes: dict[str, int] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(arguments, cwd=settings.BASE_DIR, env=environment, text=True, **pipes) as running:  # type: ignore[call-overload]
        try:
            yield running
        finally:
            running.kill()


def fetch(url: str) -> str:
    with build_opener(ProxyHandler({})).open(url, timeout=10) as answer:
        return str(answer.read().decode())


def read_until(lines: IO[str], wanted: str) -> str:
    """Everything up to the line that holds `wanted`."""
    read = ""
    for line in lines:
        read += line
        if wanted in line:
            return read
    raise AssertionError(f"{wanted!r} was never said; said was:\n{read}")


def processes_of(data_dir: str) -> list[int]:
    """Every live process that was started for this data folder."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"DATA_DIR={data_dir}".encode() in environ.read_bytes().split(b"\0"):
                found.append(int(environ.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.services
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_running_nestbox_serves_sweeps_and_stops_whole(
    process_environment: dict[str, str], number: signal.Signals
) -> None:
    port = free_port()
    with serve(process_environment, "serve", "--port", str(port)) as running:
        assert running.stdout is not None
        said = read_until(running.stdout, "Ctrl-C stops every process")
        assert f"Nestbox is up: http://127.0.0.1:{port}/" in said
        assert fetch(f"http://127.0.0.1:{port}/healthz") == "ok"
        # the sweep's heartbeat appears only when beat, the queue and the default worker all do their part
        heartbeats = Path(process_environment["DATA_DIR"]) / "heartbeats"
        eventually(lambda: (heartbeats / "sweep").exists(), seconds=60)
        eventually(lambda: {"beat", "worker-generate", "worker-train"} <= {p.name for p in heartbeats.iterdir()})
        assert len(processes_of(process_environment["DATA_DIR"])) >= 7
        running.send_signal(number)
        rest, _ = running.communicate(timeout=60)
    assert ("Everything is kept" in rest) == (number != signal.SIGKILL)
    eventually(lambda: processes_of(process_environment["DATA_DIR"]) == [], seconds=30)
    assert running.returncode == (-9 if number == signal.SIGKILL else 0)


def newcomer_environment(data_dir: Path, port: int) -> dict[str, str]:
    """What a newcomer has set: nothing but a port and a data folder."""
    ours = ("DATABASE_URL", "CELERY_BROKER_URL", "DJANGO_", "NESTBOX_", "CELERY_")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return plain | {"DATA_DIR": str(data_dir), "PORT": str(port), "PYTHONUNBUFFERED": "1"}


@pytest.mark.slow
def test_the_demo_prints_its_sign_ins_and_a_second_start_keeps_the_data(tmp_path: Path) -> None:
    data = tmp_path / "not" / "there" / "yet"
    said = []
    for _ in range(2):
        port = free_port()
        with serve(newcomer_environment(data, port), "demo") as running:
            assert running.stdout is not None
            said.append(read_until(running.stdout, "Ctrl-C stops every process"))
            assert f"Nestbox is up: http://127.0.0.1:{port}/" in said[-1]
            assert "Sign in" in fetch(f"http://127.0.0.1:{port}/")
            running.send_signal(signal.SIGINT)
            running.communicate(timeout=60)
        assert running.returncode == 0
    kept = data / "sign-ins.txt"
    assert kept.stat().st_mode & 0o777 == 0o600
    people = [line.split("\t") for line in kept.read_text().splitlines()]
    assert len(people) == 3
    for name, password, _ in people:
        assert all(name in lines and password in lines for lines in said)
    eventually(lambda: processes_of(str(data)) == [], seconds=30)
