"""Take a set of questions about replies from a file into a project."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from feedback import scale_files, scale_sets
from feedback.errors import FeedbackError
from feedback.management.commands.import_rules import find_project


class Command(BaseCommand):
    help = (
        "Take a set of questions about replies (YAML) into a project: all of it or nothing. FILE may be the name of a "
        f"set that comes along: {', '.join(scale_files.DEFAULT_SETS)}. Nobody is asked before it is opened."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE")
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument("--open", action="store_true", help="have annotators asked at once")
        parser.add_argument("--dry-run", action="store_true", help="read and report, change nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        project = find_project(options["project"])
        try:
            found = scale_files.read_file(options["file"])
            with transaction.atomic():
                scale_set = scale_sets.add_set(project=project, key=_key(options["file"]), found=found, by=None)
                if options["open"]:
                    scale_sets.open_or_close(scale_set=scale_set, is_open=True, by=None)
                transaction.set_rollback(options["dry_run"])
        except FeedbackError as err:
            raise CommandError(err.message) from err
        self.stdout.write(f"{found.name}: {', '.join(key for key, _ in found.scales)}.")
        if options["dry_run"]:
            self.stdout.write("A dry run: nothing was changed. Leave out --dry-run to import.")
        elif found.by_program:
            self.stdout.write("Hand in verdicts with manage.py record_program_ratings.")
        elif not options["open"]:
            self.stdout.write("Read and open it under Ratings in the browser.")


def _key(path: Path) -> str:
    """What the set is called in addresses: the file's bare name. Raises CommandError."""
    key = path.stem.lower()
    if not key.isascii() or not key.replace("-", "").replace("_", "").isalnum() or len(key) > 40 or key == "add":
        raise CommandError("Name the file with letters, digits and hyphens, at most 40: it becomes the set's name.")
    return key
