"""Run the benchmarks and write docs/benchmarks.md; some of them, as in `make bench BENCH=ppo`, are only shown.

Each contest's ways take turns in processes of their own, on one thread; what is compared is CPU time.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.benchmarks import gpu
from tests.benchmarks.contest import ROOT, Contest, Measured, hold

NAMES = ("reward_model", "generation", "ppo", "lora")
GPU = "gpu"  # on a CUDA device alone; shown, never written
DOCUMENT = ROOT / "docs" / "benchmarks.md"

HEAD = """# Benchmarks

`make bench` measured this and wrote this page. Each way of doing the same work runs in a process of its own, on one
thread; the ways take turns, so that what else the machine does meets all of them. Figures are medians of CPU seconds,
after one turn that warms up; "times" is how many times as much a way takes as the first one; memory is the most its
process had.

{machine}
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)} (default: all, written), or {GPU}"
    )
    options = parser.parse_args()
    if options.names == [GPU]:
        return gpu.report()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; known are {', '.join(NAMES)}")
    text = HEAD.format(machine=machine()) + "\n" + "\n".join(measure(options.names or NAMES))
    Console(width=140).print(text, markup=False, highlight=False)
    if not options.names:
        DOCUMENT.write_text(text, encoding="utf-8")
        Console().print(f"Written to {DOCUMENT.relative_to(ROOT)}.")


def measure(names: Iterable[str]) -> Iterable[str]:
    """A section of the page for each contest of the named benchmarks."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for name in names:
            module = importlib.import_module(f"tests.benchmarks.bench_{name}")
            for contest in module.contests():
                task = progress.add_task(contest.title, total=len(contest.ways) * (contest.repeats + 1))
                measured = hold(contest, lambda task=task: progress.advance(task))
                yield section(contest, measured)
            if hasattr(module, "equality"):
                yield module.equality() + "\n"
            if hasattr(module, "table"):
                task = progress.add_task(f"memory: {name}", total=len(module.ways()))
                yield module.table(lambda task=task: progress.advance(task))


def section(contest: Contest, measured: dict[str, Measured]) -> str:
    """The contest's table in Markdown."""
    first = next(iter(measured.values()))
    lines = [f"## {contest.title}", "", f"| | CPU s a {contest.unit} | lowest to highest | times | memory |"]
    lines.append("|---|---:|---:|---:|---:|")
    for name, own in measured.items():
        spread = f"{min(own.seconds):.3g} to {max(own.seconds):.3g}"
        times = f"{own.median / first.median:.2f}"
        lines.append(f"| {name} | {own.median:.3g} | {spread} | {times} | {own.peak_mb:.0f} MB |")
    return "\n".join([*lines, "", *([contest.note, ""] if contest.note else [])])


def machine() -> str:
    """What was measured on, and with which versions."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl"))
    today = datetime.now(UTC).date()
    return f"{processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, {packages}; {today}."


def processor() -> str:
    """The processor's name, where the system tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


if __name__ == "__main__":
    sys.exit(main())
