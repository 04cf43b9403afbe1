"""Take in other people's feedback, in the formats that docs/formats.md lists."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from feedback.errors import ImportRefused
from feedback.imports import FORMATS
from feedback.imports.file_reports import FileReport
from feedback.imports.records import Choices
from feedback.imports.taking_in import import_files, no_objection
from feedback.imports.tool_fields import BAD, TIE
from feedback.management.commands._reading import reading_bar, refuse_to_keep_others_waiting


def chosen_rules(given: Sequence[str]) -> dict[str, str]:
    """{what the file calls a rule: key} of words such as safe=our-rule. Raises ImportRefused."""
    return dict(_pairs(given, "--rule NAME=KEY: the file's name for a rule, and the key of yours"))


def tool_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """What was said of exports of labelling tools, by name, besides what was not. Raises ImportRefused."""
    found = {name: given[name] for name in ("labelling_config", "prompt_field", "reply_fields", "question")}
    found["choices"] = {word: _place(word, place) for word, place in _pairs(given["choices"], "--choice WORD=PLACE")}
    found["rated"] = dict(_pairs(given["rated"], "--rated FIELD=QUESTION"))
    return {name: value for name, value in found.items() if value}


def _pairs(given: Sequence[str] | None, form: str) -> list[tuple[str, str]]:
    """The two parts of words such as safe=our-rule. Raises ImportRefused."""
    pairs = [word.rpartition("=") for word in given or ()]
    if bad := next((f"{name}{mark}{value}" for name, mark, value in pairs if not name or not value), None):
        option, _, rest = form.partition(" ")
        raise ImportRefused(f"{option} {bad} should read {rest}.")
    return [(name, value) for name, _, value in pairs]


def _place(word: str, place: str) -> int | str:
    if place in (TIE, BAD):
        return place
    if not place.isdecimal() or int(place) < 1:
        raise ImportRefused(f"--choice {word}={place} should end with the reply's place from 1, or {TIE}, or {BAD}.")
    return int(place)


def _answers(report: FileReport) -> str:
    """What people said, in words: replies and comparisons, or verdicts, or both."""
    counts = report.counts
    ranked = f"{counts['candidates']:,} replies, {counts['comparisons']:,} comparisons"
    if counts["rankings"] != counts["comparisons"]:
        ranked += f" with {counts['rankings']:,} rankings"
    written = f"{counts['demonstrations']:,} written replies, {counts['accepted']:,} of them accepted"
    judged = f"{counts['judgements']:,} verdicts on {len(report.rules):,} rules"
    said = [ranked] * bool(counts["candidates"]) + [written] * bool(counts["demonstrations"])
    return ", ".join(said + [judged] * bool(report.rules)) or ranked


def sum_of(reports: Sequence[FileReport]) -> Counter[str]:
    """The counts of all files that came in."""
    counts: Counter[str] = Counter()
    for report in reports:
        counts.update({} if report.known else report.counts)
    return counts


class Command(BaseCommand):
    help = (
        "Take files of ranked or written replies, or of judged dialogues, into a project (made when it is missing). "
        "Every line of every file is read first; then all is written, or nothing. What came in before is left out."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="as the format has it, plain or .gz")
        parser.add_argument("--format", required=True, choices=sorted(FORMATS), dest="file_format")
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument(
            "--rule", action="append", default=[], metavar="NAME=KEY", dest="rules",
            help="which of the project's rules is meant by what the file calls NAME; may be given again",
        )  # fmt: skip
        parser.add_argument(
            "--accepted", action="store_true",
            help="written replies that nobody has reviewed are ones the model should give; else they wait for a review",
        )  # fmt: skip
        parser.add_argument(
            "--split", default="", choices=["train", "validation", "test"],
            help="where all of it goes whose side the file does not say; else by hash",
        )  # fmt: skip
        self._add_tool_arguments(parser)
        parser.add_argument("--dry-run", action="store_true", help="read and report, change nothing")
        parser.add_argument("--anyway", action="store_true", help="also when others have to wait long for it")
        parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report as JSON")

    def _add_tool_arguments(self, parser: CommandParser) -> None:
        group = parser.add_argument_group("exports of label-studio and argilla", "what these do not say themselves")
        group.add_argument("--labelling-config", type=Path, metavar="FILE", help="label-studio: the project's XML")
        group.add_argument("--prompt-field", metavar="FIELD", help="the field that is answered")
        group.add_argument(
            "--reply-field", action="append", metavar="FIELD", dest="reply_fields",
            help="a field with a reply; give it again for each, the left one first",
        )  # fmt: skip
        group.add_argument("--question", metavar="NAME", help="the question, or control, that decides")
        group.add_argument(
            "--choice", action="append", metavar="WORD=PLACE", dest="choices",
            help="which reply a word prefers, the first is 1; or =tie, or =bad",
        )  # fmt: skip
        group.add_argument(
            "--rated", action="append", metavar="FIELD=QUESTION", help="argilla: the question that rates a reply"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        dry_run = options["dry_run"]
        try:
            reports = self._import(
                options["files"],
                file_format=options["file_format"],
                slug=options["project"],
                chosen=chosen_rules(options["rules"]),
                choices=Choices(options["accepted"], options["split"], tool_options(options)),
                dry_run=dry_run,
                before_writing=no_objection if options["anyway"] else refuse_to_keep_others_waiting,
            )
        except ImportRefused as err:
            raise CommandError(err.message) from err
        if options["json"]:
            report = {"project": options["project"], "dry_run": dry_run, "files": [one.as_json() for one in reports]}
            options["json"].write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        for one in reports:
            self._print(one)
        self._print_next(reports, options["project"], dry_run)

    def _import(self, files: list[Path], *, dry_run: bool, **options: Any) -> list[FileReport]:
        """Import behind a progress bar, which only a terminal shows."""
        with reading_bar(files, times=1 if dry_run else 2) as advance:
            return import_files(files, dry_run=dry_run, advance=advance, **options)

    def _print(self, report: FileReport) -> None:
        if report.known:
            self.stdout.write(f"{report.path}: {report.known}; left out.")
            return
        counts = report.counts
        held = f"{counts['dialogues']:,} dialogues with {counts['openings']:,} openings, {_answers(report)}"
        held = held if counts["dialogues"] else "which stand beside those of another file"
        self.stdout.write(f"{report.path}: {counts['lines']:,} {report.unit}s, {held}.")
        for note, count in sorted(report.notes.items()):
            self.stdout.write(f"  {note}: {count:,}")

    def _print_next(self, reports: list[FileReport], slug: str, dry_run: bool) -> None:
        if dry_run:
            self.stdout.write("A dry run: nothing was changed. Leave out --dry-run to import.")
        elif all(report.known for report in reports):
            self.stdout.write("Nothing new, so nothing was changed.")
        else:
            self.stdout.write(f"Next: {self._next(sum_of(reports), slug)}")

    def _next(self, counts: Counter[str], slug: str) -> str:
        if counts["judgements"] and not counts["judgements_of_replies"]:
            return "the rules page shows these verdicts. No export has them, as no reply was judged."
        if counts["demonstrations"] and not counts["accepted"] and not counts["rankings"]:
            return (
                "open demonstrations on the overview, and people review these replies. A file that is known to be good "
                "comes in with --accepted."
            )
        if counts["comparisons"] and not counts["rankings"]:
            return "in the admin site's list of dialogues, ask people to rank these replies."
        if not any(counts[name] for name in ("judgements", "rankings", "demonstrations")):
            return "make the prompts active that people shall answer, in the admin site."
        kind = "rules" if counts["judgements"] else "preference" if counts["rankings"] else "demonstrations"
        return f"manage.py export --project {slug} --kind {kind} --out DIR"
