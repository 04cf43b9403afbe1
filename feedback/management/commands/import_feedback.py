"""Take in other people's feedback: hh-rlhf's pairs, Open-Assistant's trees."""

import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from feedback.errors import ImportRefused
from feedback.imports import FORMATS
from feedback.imports.taking_in import FileReport, import_files


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
        parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        dry_run = options["dry_run"]
        try:
            reports = self._import(options["files"], options["file_format"], options["project"], dry_run)
        except ImportRefused as err:
            raise CommandError(err.message) from err
        if options["json"]:
            report = {"project": options["project"], "dry_run": dry_run, "files": [one.as_json() for one in reports]}
            options["json"].write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        for one in reports:
            self._print(one)
        self._print_next(reports, options["project"], dry_run)

    def _import(self, files: list[Path], file_format: str, slug: str, dry_run: bool) -> list[FileReport]:
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
