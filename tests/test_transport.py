"""The queue that needs no server: every message arrives once, whole, in the order of sending, and soon."""

from __future__ import annotations

import multiprocessing
import threading
import time
from pathlib import Path
from queue import Empty

import pytest
from kombu import Connection
from kombu.exceptions import ChannelError

from config import file_transport

MESSAGES = 3000


def connect(folder: Path) -> Connection:
    file_transport.register()
    return Connection(f"{file_transport.SCHEME}://", transport_options=file_transport.options(folder))


def send(folder: Path, numbers: range) -> None:
    with connect(folder) as connection, connection.channel() as channel:
        for number in numbers:
            channel._put("default", {"number": number})


def read_busily(folder: Path, done: multiprocessing.synchronize.Event, results: multiprocessing.Queue) -> None:
    """Read without pause until the writers are done and nothing is left."""
    found: list[int] = []
    with connect(folder) as connection, connection.channel() as channel:
        while True:
            finished = done.is_set()
            try:
                found.append(channel._get("default")["number"])
            except Empty:
                if finished:
                    break
    results.put(found)


@pytest.mark.slow
def test_no_message_is_lost_doubled_or_read_empty_by_two_busy_readers(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    done, results = context.Event(), context.Queue()
    readers = [context.Process(target=read_busily, args=(tmp_path, done, results)) for _ in range(2)]
    half = MESSAGES // 2
    writers = [
        context.Process(target=send, args=(tmp_path, numbers)) for numbers in (range(half), range(half, MESSAGES))
    ]
    for process in readers + writers:
        process.start()
    for writer in writers:
        writer.join()
    done.set()
    found = results.get(timeout=60) + results.get(timeout=60)
    for reader in readers:
        reader.join()
    assert [process.exitcode for process in readers + writers] == [0, 0, 0, 0]
    assert sorted(found) == list(range(MESSAGES))
    assert list((tmp_path / "messages").iterdir()) == []


def test_messages_keep_the_order_they_were_sent_in(tmp_path: Path) -> None:
    send(tmp_path, range(20))
    with connect(tmp_path) as connection, connection.channel() as channel:
        assert [channel._get("default")["number"] for _ in range(20)] == list(range(20))


def test_a_message_half_written_is_not_read(tmp_path: Path) -> None:
    with connect(tmp_path) as connection, connection.channel() as channel:
        (tmp_path / "messages" / "00000000000000000001_x.draft").write_bytes(b'{"number"')
        with pytest.raises(Empty):
            channel._get("default")
        assert channel._size("default") == 0


def test_a_write_that_stops_before_the_rename_shows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*names: object) -> None:
        raise OSError("stopped")

    with connect(tmp_path) as connection, connection.channel() as channel:
        monkeypatch.setattr(file_transport.os, "replace", stop)
        with pytest.raises(ChannelError):
            channel._put("default", {"number": 1})
        monkeypatch.undo()
        with pytest.raises(Empty):
            channel._get("default")


def test_a_queue_does_not_hear_another_ones_messages(tmp_path: Path) -> None:
    with connect(tmp_path) as connection, connection.channel() as channel:
        channel._put("generate", {"number": 1})
        with pytest.raises(Empty):
            channel._get("default")
        assert (channel._size("generate"), channel._size("default")) == (1, 0)
        assert channel._get("generate") == {"number": 1}


def test_a_waiting_reader_hears_the_bell_within_half_a_second(tmp_path: Path) -> None:
    """Idle polling is every 0.15 s; kombu's own default of 1 s would be felt on every page."""
    heard: list[float] = []
    with connect(tmp_path) as connection, connection.SimpleQueue("default") as queue:

        def listen() -> None:
            for _ in range(3):
                queue.get(timeout=10).ack()
                heard.append(time.monotonic())

        listener = threading.Thread(target=listen)
        listener.start()
        delays = []
        for _ in range(3):
            time.sleep(0.3)
            sent = time.monotonic()
            with connect(tmp_path) as sender, sender.SimpleQueue("default") as bell:
                bell.put({"number": 1})
            while len(heard) <= len(delays):
                time.sleep(0.01)
            delays.append(heard[-1] - sent)
        listener.join()
    assert max(delays) < 0.5
