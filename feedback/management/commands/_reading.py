"""What commands that take files in have in common: a bar while they read, nobody kept waiting while they write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from django.db import connection
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from config import heartbeats
from feedback.errors import ImportRefused

ROWS_A_SECOND = 40_000  # that SQLite writes on a small machine, and as many…
CHARACTERS_A_SECOND = 20_000_000  # …where texts are long
LONGEST_WAIT = 5  # seconds that somebody who saves an answer may have to wait


class Sized(Protocol):
    """What is to be written: about how many rows, and how many characters of text."""

    @property
    def rows(self) -> int: ...

    @property
    def characters(self) -> int: ...


def refuse_to_keep_others_waiting(reports: Sequence[Sized]) -> None:
    """Raises ImportRefused when Nestbox runs on SQLite and could save nothing for longer than LONGEST_WAIT."""
    seconds = sum(one.rows / ROWS_A_SECOND + one.characters / CHARACTERS_A_SECOND for one in reports)
    if connection.vendor == "sqlite" and seconds > LONGEST_WAIT and heartbeats.alive():
        raise ImportRefused(
            "Nestbox is running, and on SQLite nobody can save anything while this is written, which takes about "
            f"{seconds:,.0f} s. Stop Nestbox first and wait {heartbeats.SECONDS_UNTIL_MISSED:.0f} s, or use "
            "PostgreSQL; --anyway imports at once and lets everybody wait. Nothing was imported."
        )


@contextmanager
def reading_bar(files: Sequence[Path], *, times: int) -> Iterator[Callable[[int], None]]:
    """A bar that only a terminal shows; gives what is to be told of the bytes read. Each file is read `times` times."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        size = sum(path.stat().st_size for path in files if path.is_file())
        task = bar.add_task("Reading" if times == 1 else "Importing", total=times * size)
        yield lambda count: bar.advance(task, count)
