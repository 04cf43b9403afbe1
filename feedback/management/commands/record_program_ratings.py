"""Take in what a program says of replies, such as unit tests of code; or write out the replies for it."""

import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from feedback.errors import FeedbackError
from feedback.management.commands.import_rules import find_project
from feedback.models import Project
from feedback.program_ratings import record_program_ratings, replies_to_rate


class Command(BaseCommand):
    help = (
        "Take in a program's verdicts on replies, one JSON object a line with candidate, scale, value, program and "
        "version: all of them or none. Nothing is run here. With --replies, write the replies that it can be run on."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, nargs="?", metavar="FILE", help="JSON lines of verdicts")
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument("--replies", type=Path, metavar="OUT", help="write the project's replies here, and stop")

    def handle(self, *args: Any, **options: Any) -> None:
        project = find_project(options["project"])
        if (options["file"] is None) == (options["replies"] is None):
            raise CommandError("Name either a FILE of verdicts, or with --replies a file to write the replies to.")
        try:
            if options["replies"]:
                self._write(project, options["replies"])
            else:
                self._take_in(project, options["file"])
        except FeedbackError as err:
            raise CommandError(err.message) from err
        except UnicodeDecodeError as err:
            raise CommandError(f"{options['file']} is not written in UTF-8. Save it as UTF-8.") from err
        except OSError as err:
            raise CommandError(f"{err.filename}: {err.strerror}. Name another file.") from err

    def _write(self, project: Project, out: Path) -> None:
        count = 0
        with out.open("w", encoding="utf-8") as file:
            for row in replies_to_rate(project):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
        self.stdout.write(f"{count:,} replies written to {out}. Run your program on them, then hand in its verdicts.")

    def _take_in(self, project: Project, path: Path) -> None:
        with path.open(encoding="utf-8") as lines:
            stored = record_program_ratings(project=project, lines=lines)
        self.stdout.write(
            f"{path}: {stored.added:,} verdicts stored, {stored.corrected:,} corrected, "
            f"{stored.same:,} were there already."
        )
