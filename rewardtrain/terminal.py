"""What engineers see while a command works: a bar, and below it each figure over the steps beside the run before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

OnProgress = Callable[[int, int, Mapping[str, float]], None]
LEVELS = "▁▂▃▄▅▆▇█"
WIDTH = 28  # steps drawn side by side; more are thinned
REFRESHES_A_SECOND = 4


@dataclass(frozen=True)
class Line:
    """A figure as the terminal shows it: what it is called, how its values are written, and where the run before ended.

    is_optional  it has no place while it was never anything but 0
    """

    title: str
    write: Callable[[float], str]
    before: float | None = None
    is_optional: bool = False


@dataclass
class Course:
    """The figures of every step so far, and how they are to be shown.

    lines  by the name of the figure, in the order of the lines; figures without one are not shown
    """

    lines: Mapping[str, Line]
    values: dict[str, dict[int, float]] = field(default_factory=dict)
    last: int = 0

    def note(self, step: int, figures: Mapping[str, float]) -> None:
        """Take in the figures of a step. Of another run, which begins anew: an earlier step, or other figures."""
        if not figures:
            return
        if step < self.last or not figures.keys() & self.values.keys():
            self.values = {}
        self.last = step
        for name in figures.keys() & self.lines.keys():
            self.values.setdefault(name, {})[step] = figures[name]

    def table(self) -> RenderableType:
        """One line per figure: now, at the start, its course, and where the run before ended."""
        shown = [name for name in self.lines if self._is_shown(name)]
        has_before = any(self.lines[name].before is not None for name in shown)
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=bool(shown))
        table.add_column("", no_wrap=True)
        for head in ("now", "at first"):
            table.add_column(head, justify="right")
        table.add_column("over steps", no_wrap=True)
        if has_before:
            table.add_column("run before", justify="right")
        for name in shown:
            table.add_row(*self._cells(name, has_before))
        return table

    def _is_shown(self, name: str) -> bool:
        values = self.values.get(name, {}).values()
        return any(values) if self.lines[name].is_optional else bool(values)

    def _cells(self, name: str, has_before: bool) -> list[str]:
        line = self.lines[name]
        values = [value for _, value in sorted(self.values[name].items())]
        before = [] if not has_before else ["" if line.before is None else line.write(line.before)]
        return [line.title, line.write(values[-1]), line.write(values[0]), sparkline(values), *before]


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """Values as blocks, the lowest as the lowest block and the highest as the highest.

    >>> sparkline([0.0, 1.0, 3.5, 7.0]), sparkline([2.0, 2.0]), sparkline(range(100), 4)
    ('▁▂▅█', '▁▁', '▁▃▆█')
    """
    if len(values) > width:
        values = [values[round(place * (len(values) - 1) / (width - 1))] for place in range(width)]
    low, high = min(values), max(values)
    steps = (len(LEVELS) - 1) / (high - low) if high > low else 0.0
    return "".join(LEVELS[int((value - low) * steps + 0.5)] for value in values)


@contextmanager
def bar(description: str, stream: TextIO, lines: Mapping[str, Line] | None = None) -> Iterator[OnProgress]:
    """A bar that is told (steps done, steps in all, figures), and below it the course of the figures named in `lines`.

    Where nobody watches, in a file, both are written once, as they were in the end.
    """
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    progress = Progress(*columns)
    task = progress.add_task(description, total=None)
    course = Course(lines or {})
    with Live(progress, console=Console(file=stream), refresh_per_second=REFRESHES_A_SECOND) as live:

        def on_progress(done: int, total: int, figures: Mapping[str, float]) -> None:
            course.note(done, figures)
            progress.update(task, completed=done, total=total)
            if course.values:  # drawn here and not by the thread that refreshes, which would read what is written
                live.update(Group(progress, course.table()))

        yield on_progress
