"""Take documents into a project's corpus, which its policy may search for evidence."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from feedback.errors import ImportRefused
from feedback.imports.corpus import KINDS, CorpusReport, File, files_of, import_corpus
from feedback.imports.taking_in import no_objection
from feedback.management.commands._reading import reading_bar, refuse_to_keep_others_waiting
from feedback.management.commands.import_rules import find_project

NAMED = 20  # files that get a line of their own


class Command(BaseCommand):
    help = (
        f"Take documents into a project's corpus: {KINDS}, or folders of them. A line of JSON has text, and may have "
        "title and source (or url). Every file is read first; then all is written, or nothing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a file, or a folder with all in it")
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument(
            "--source-base", default="", metavar="TEXT",
            help="what stands before a file's name in the source people are shown, such as https://docs.example.org/",
        )  # fmt: skip
        parser.add_argument("--dry-run", action="store_true", help="read and report, change nothing")
        parser.add_argument("--anyway", action="store_true", help="also when others have to wait long for it")
        parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        project, dry_run = find_project(options["project"]), options["dry_run"]
        try:
            reports = self._import(
                files_of(options["files"]),
                project=project,
                base=options["source_base"],
                dry_run=dry_run,
                before_writing=no_objection if options["anyway"] else refuse_to_keep_others_waiting,
            )
        except ImportRefused as err:
            raise CommandError(err.message) from err
        if options["json"]:
            found = {"project": project.slug, "dry_run": dry_run, "files": [one.as_json() for one in reports]}
            options["json"].write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        self._print(reports, project.slug, dry_run)

    def _import(self, files: list[File], *, dry_run: bool, **options: Any) -> list[CorpusReport]:
        """Import behind a progress bar, which only a terminal shows."""
        with reading_bar([file.path for file in files], times=1 if dry_run else 2) as advance:
            return import_corpus(files, dry_run=dry_run, advance=advance, **options)

    def _print(self, reports: Sequence[CorpusReport], slug: str, dry_run: bool) -> None:
        for one in reports[:NAMED]:
            said = f"{one.known}; left out" if one.known else _said(one)
            self.stdout.write(f"{one.file.name}: {said}.")
        if len(reports) > NAMED:
            self.stdout.write(f"…and {len(reports) - NAMED:,} more files.")
        new = [one for one in reports if not one.known]
        if not new:
            self.stdout.write("Nothing new, so nothing was changed.")
            return
        documents, passages = sum(one.documents for one in new), sum(one.passages for one in new)
        self.stdout.write(f"In all {documents:,} documents, {passages:,} passages of at most 500 characters.")
        if dry_run:
            self.stdout.write("A dry run: nothing was changed. Leave out --dry-run to import.")
        else:
            self.stdout.write(f"Next: try a search under Corpus in the browser, /projects/{slug}/corpus/.")


def _said(report: CorpusReport) -> str:
    taken = report.taken
    said = f"{report.documents:,} document{'s' * (report.documents != 1)}, {report.passages:,} passages"
    if taken.known:
        said += f"; {taken.known:,} stood there already"
    if taken.brought_back:
        said += f", {taken.brought_back:,} of these taken out and now found again"
    return said
