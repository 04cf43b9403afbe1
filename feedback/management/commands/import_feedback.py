"""Take in other people's feedback: hh-rlhf's pairs, Open-Assistant's trees."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from config import heartbeats
from feedback.errors import ImportRefused
from feedback.imports import FORMATS
from feedback.imports.taking_in import FileReport, import_files, no_objection

ROWS_A_SECOND = 40_000  # that SQLite writes on a small machine, and as many…
CHARACTERS_A_SECOND = 20_000_000  # …where texts are long
LONGEST_WAIT = 5  # seconds that somebody who saves an answer may have to wait


def refuse_to_keep_others_waiting(reports: Sequence[FileReport]) -> None:
    """Raises ImportRefused when Nestbox runs on SQLite and could save nothing for longer than LONGEST_WAIT."""
    seconds = sum(one.rows / ROWS_A_SECOND + one.characters / CHARACTERS_A_SECOND for one in reports)
    if connection.vendor == "sqlite" and seconds > LONGEST_WAIT and heartbeats.alive():
        raise ImportRefused(
            "Nestbox is running, and on SQLite nobody can save anything while this is written, which takes about "
            f"{seconds:,.0f} s. Stop Nestbox first and wait {heartbeats.SECONDS_UNTIL_MISSED:.0f} s, or use "
            "PostgreSQL; --anyway imports at once and lets everybody wait. Nothing was imported."
        )


class Command(BaseCommand):
    help = (
        "Take files of ranked replies into a project (made when it is missing). Every line of every file is read "
        "first; then all is written, or nothing. A file that was taken in before is left out."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="lines of JSON, plain or .gz")
        parser.add_argument("--format", required=True, choices=sorted(FORMATS), dest="file_format")
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument("--dry-run", action="store_true", help="read and report, change nothing")
        parser.add_argument("--anyway", action="store_true", help="also when others have to wait long for it")
        parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        dry_run = options["dry_run"]
        try:
            reports = self._import(
                options["files"], options["file_format"], options["project"], dry_run, options["anyway"]
            )
        except ImportRefused as err:
            raise CommandError(err.message) from err
        if options["json"]:
            report = {"project": options["project"], "dry_run": dry_run, "files": [one.as_json() for one in reports]}
            options["json"].write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        for one in reports:
            self._print(one)
        self._print_next(reports, options["project"], dry_run)

    def _import(self, files: list[Path], file_format: str, slug: str, dry_run: bool, anyway: bool) -> list[FileReport]:
        """Import behind a progress bar, which only a terminal shows."""
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            size = sum(path.stat().st_size for path in files if path.is_file())
            task = bar.add_task("Reading" if dry_run else "Importing", total=size if dry_run else 2 * size)
            return import_files(
                files,
                file_format=file_format,
                slug=slug,
                dry_run=dry_run,
                advance=lambda count: bar.advance(task, count),
                before_writing=no_objection if anyway else refuse_to_keep_others_waiting,
            )

    def _print(self, report: FileReport) -> None:
        if report.known:
            self.stdout.write(f"{report.path}: {report.known}; left out.")
            return
        counts = report.counts
        self.stdout.write(
            f"{report.path}: {counts['lines']:,} lines, {counts['dialogues']:,} dialogues with "
            f"{counts['openings']:,} openings, {counts['candidates']:,} replies, {counts['comparisons']:,} comparisons."
        )
        for note, count in sorted(report.notes.items()):
            self.stdout.write(f"  {note}: {count:,}")

    def _print_next(self, reports: list[FileReport], slug: str, dry_run: bool) -> None:
        if dry_run:
            self.stdout.write("A dry run: nothing was changed. Leave out --dry-run to import.")
        elif all(report.known for report in reports):
            self.stdout.write("Nothing new, so nothing was changed.")
        else:
            self.stdout.write(f"Next: manage.py export --project {slug} --kind preference --out DIR")
