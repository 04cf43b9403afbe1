"""What engineers see while a command works: bars, and the last figures beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

OnProgress = Callable[[int, int, Mapping[str, float]], None]
SHOWN = {  # figures worth a place in one line, and how they are written
    "reward/loss": "loss {:.3f}",
    "reward/pair_accuracy": "right {:.0%}",
    "dpo/loss": "loss {:.3f}",
    "best-of-n/loss": "loss {:.3f}",
    "ppo/preference": "reward {:+.2f}",
    "ppo/kl_nats": "KL {:.2f}",
    "ppo/length": "{:.0f} tokens",
}


@contextmanager
def bar(description: str, stream: TextIO) -> Iterator[OnProgress]:
    """A bar that is told (steps done, steps in all, figures)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=Console(file=stream)) as progress:
        task = progress.add_task(description, total=None, figures="")

        def on_progress(done: int, total: int, figures: Mapping[str, float]) -> None:
            line = "  ".join(text.format(figures[name]) for name, text in SHOWN.items() if name in figures)
            progress.update(task, completed=done, total=total, figures=line)

        yield on_progress
