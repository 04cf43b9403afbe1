"""Take in prompts from text, CSV, JSON and Hugging Face datasets. It lies here as only this app may load datasets."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from feedback.errors import ImportRefused
from feedback.imports.csv_rows import CsvRows
from feedback.imports.json_records import records_or_lines
from feedback.imports.reading import Advance, Lines, Problems
from feedback.imports.text_lines import TextLines, TextParagraphs
from feedback.management.commands._reading import reading_bar, refuse_to_keep_others_waiting
from feedback.prompt_imports import (
    MOST_BY_ONE_AUTHOR,
    SHARED_PREFIX,
    PromptReport,
    PromptSettings,
    PromptSource,
    import_prompts,
)

READERS = {"text": TextLines, "paragraphs": TextParagraphs, "csv": CsvRows, "json": records_or_lines}
BY_SUFFIX = {".txt": "text", ".md": "paragraphs", ".csv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json"}
MOST_SHOWN = 20  # hints


def kind_of(path: Path) -> str:
    """How a file is read, by the end of its name. Raises ImportRefused"""
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix.lower() not in BY_SUFFIX:
        raise ImportRefused(f"{path} does not end in {', '.join(BY_SUFFIX)}. Say what it is with --as.")
    return BY_SUFFIX[suffix.lower()]


def open_file(path: Path, kind: str, problems: Problems, advance: Advance) -> Lines:
    if not path.is_file():
        raise ImportRefused(f"{path} is no file that can be read. Check the path. Nothing was imported.")
    lines: Lines = READERS[kind](path, problems, advance)
    return lines


def open_rows(rows: Any, problems: Problems, advance: Advance) -> Lines:
    from rewardtrain.dataset_rows import DatasetRows

    return DatasetRows(rows, problems, advance)


class Command(BaseCommand):
    help = (
        "Take prompts into a project: read, sorted out, and written all or nothing. What is here already, in other "
        "spelling, or begins as another is left out, and so is what comes after enough by one author."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="plain or .gz")
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument("--as", choices=sorted(READERS), dest="kind", help="what the files are; else by their ends")
        parser.add_argument("--dataset", action="append", default=[], metavar="DIR|NAME", help="of Hugging Face")
        parser.add_argument("--dataset-split", default="train", metavar="NAME", help="which part of it (train)")
        parser.add_argument("--column", default="prompt", help="with the prompt: text, or messages (prompt)")
        parser.add_argument("--author-column", default="", metavar="NAME", help="with who wrote it")
        parser.add_argument("--group-column", default="", metavar="NAME", help="with what must stay on one side")
        parser.add_argument("--source", default="", help="what they are called here; else the file's name")
        parser.add_argument("--weight", type=float, default=1.0, help="how often drawn: 2 twice as often, 0 never (1)")
        parser.add_argument("--split", default="", metavar="SIDE", help="train, validation or test; else by hash")
        parser.add_argument("--per-author", type=int, default=MOST_BY_ONE_AUTHOR, metavar="N", help="at most; 0: all")
        parser.add_argument(
            "--prefix", type=int, default=SHARED_PREFIX, metavar="N", help="characters that no two share; 0: any"
        )
        parser.add_argument("--inactive", action="store_true", help="not offered to annotators yet")
        parser.add_argument(
            "--without-personal-data", action="store_true", help="leave out what only draws a hint else"
        )
        parser.add_argument("--anyway", action="store_true", help="also when others have to wait long for it")
        parser.add_argument("--dry-run", action="store_true", help="read and report, change nothing")
        parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            reports = self._import(options)
        except ImportRefused as err:
            raise CommandError(err.message) from err
        if options["json"]:
            report = {"project": options["project"], "dry_run": options["dry_run"]}
            report |= {"files": [one.as_json() for one in reports]}
            options["json"].write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        for one in reports:
            self._print(one)
        self._print_next(reports, options)

    def _import(self, options: dict[str, Any]) -> list[PromptReport]:
        """Import behind a progress bar, which only a terminal shows."""
        files: list[Path] = options["files"]
        if not files and not options["dataset"]:
            raise ImportRefused("Name a file, or a dataset with --dataset.")
        with reading_bar(files, times=2) as advance:
            return import_prompts(
                self._sources(options),
                slug=options["project"],
                settings=self._settings(options),
                dry_run=options["dry_run"],
                advance=advance,
                before_writing=(lambda reports: None) if options["anyway"] else refuse_to_keep_others_waiting,
            )

    def _sources(self, options: dict[str, Any]) -> list[PromptSource]:
        found = []
        for path in options["files"]:
            kind = options["kind"] or kind_of(path)
            found.append(PromptSource(str(path), partial(open_file, path, kind)))
        for name in options["dataset"]:
            from rewardtrain.dataset_rows import open_dataset

            rows = open_dataset(name, options["dataset_split"])
            found.append(PromptSource(name, partial(open_rows, rows)))
        return found

    def _settings(self, options: dict[str, Any]) -> PromptSettings:
        return PromptSettings(
            column=options["column"],
            author=options["author_column"],
            group=options["group_column"],
            source=options["source"],
            weight=options["weight"],
            split=options["split"],
            is_active=not options["inactive"],
            most_by_author=options["per_author"],
            shared_prefix=options["prefix"],
            leave_out_personal=options["without_personal_data"],
        )

    def _print(self, report: PromptReport) -> None:
        if report.known:
            self.stdout.write(f"{report.name}: {report.known}; left out.")
            return
        self.stdout.write(f"{report.name}: {report.read:,} {report.unit}s, {report.kept:,} prompts.")
        if report.splits:
            self.stdout.write("  " + ", ".join(f"{side} {count:,}" for side, count in sorted(report.splits.items())))
        for reason, count in sorted(report.left_out.items()):
            first = ", ".join(map(str, report.places[reason][:5])) + ("…" if count > 5 else "")
            self.stdout.write(f"  left out, {reason}: {count:,} ({report.unit} {first})")
        for number, kinds in report.hints[:MOST_SHOWN]:
            self.stdout.write(f"  look again at {report.unit} {number}: {', '.join(kinds)}?")
        if len(report.hints) > MOST_SHOWN:
            self.stdout.write(f"  …and {len(report.hints) - MOST_SHOWN:,} more; --json FILE has them.")

    def _print_next(self, reports: list[PromptReport], options: dict[str, Any]) -> None:
        if options["dry_run"]:
            self.stdout.write("A dry run: nothing was changed. Leave out --dry-run to import.")
        elif not any(report.kept for report in reports):
            self.stdout.write("Nothing new, so nothing was added.")
        elif options["inactive"]:
            self.stdout.write("Next: make the prompts active that people shall answer, in the admin site.")
        else:
            self.stdout.write("Next: people are given these prompts as they take up work; nothing else is to be done.")
