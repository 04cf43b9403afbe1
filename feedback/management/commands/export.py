"""Freeze a snapshot of what people answered and write it where it is wanted."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from feedback import snapshots
from feedback.errors import FeedbackError
from feedback.exports.delivery import deliver, refuse_foreign
from feedback.models import Project, PromptGroup, Snapshot

TOLD = {
    "preference": ("comparisons", "rankings", "pairs", "tied_pairs"),
    "rules": ("dialogues", "verdicts", "broken", "kept", "undecided"),
    "demonstrations": ("demonstrations", "edits", "later_turns", "rewritten"),
    "ratings": ("replies", "ratings", "implied", "by_programs"),
}


class Command(BaseCommand):
    help = (
        "Freeze a snapshot and write it to a folder: rows for TRL as Parquet and JSONL, the answers as "
        "they were given, a manifest with hashes, and a dataset card. A folder with anything else in it is not "
        "touched."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument("--kind", choices=Snapshot.Kind.values, default=Snapshot.Kind.PREFERENCE)
        parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="made when it is missing")
        parser.add_argument("--origin", choices=snapshots.ORIGINS, help="only people's answers here, or only imports")
        parser.add_argument("--split", action="append", choices=PromptGroup.Split.values, help="may be given again")

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(slug=options["project"]).first()
        if project is None:
            known = ", ".join(Project.objects.values_list("slug", flat=True)) or "none yet"
            raise CommandError(f"There is no project {options['project']!r}. Projects: {known}.")
        filters = {"origin": options["origin"], "splits": options["split"]}
        try:
            refuse_foreign(options["out"])
            snapshot = self._write(project, options["kind"], {name: value for name, value in filters.items() if value})
            deliver(snapshots.require_usable(snapshot), options["out"])
        except FeedbackError as err:
            raise CommandError(err.message) from err
        except OSError as err:
            raise CommandError(f"{options['out']} cannot be written: {err}. Name another folder.") from err
        self._print(snapshot, options["out"])

    def _write(self, project: Project, kind: str, filters: dict[str, Any]) -> Snapshot:
        """Freeze and write behind a progress bar, which only a terminal shows."""
        snapshot = snapshots.freeze(project=project, kind=kind, filters=filters, ring=False)
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("Writing", total=1.0)
            return snapshots.write_now(snapshot, progress=lambda share: bar.update(task, completed=share))

    def _print(self, snapshot: Snapshot, out: Path) -> None:
        counts = snapshot.counts
        for split, found in [*counts["splits"].items(), ("all", counts["total"])]:
            numbers = {name: found.get(name, 0) for name in TOLD[snapshot.kind]}
            words = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in numbers.items())
            self.stdout.write(f"{split:>10}: {words}")
        for reason, count in snapshot.excluded.items():
            self.stdout.write(f"  left out: {count:,} {reason}")
        self.stdout.write(f"Snapshot {snapshot.pk}, identity {snapshot.sha256}, written to {out}")
        self.stdout.write(f'Next: python -c "from datasets import load_dataset; print(load_dataset({str(out)!r}))"')
