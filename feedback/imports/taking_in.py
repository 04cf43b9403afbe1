"""Take files in: read all of every file first, then write all or nothing, and never the same file twice.

Each file is read twice: to see whether all of it can be taken, and into rows on disk. Only then does the transaction
begin that writes them all, so that it is short: on SQLite nobody else can write meanwhile.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import validate_slug
from django.db import IntegrityError, transaction

from feedback import audit
from feedback.errors import ImportRefused
from feedback.imports import FORMATS, rules
from feedback.imports.preparing import Spool, prepare
from feedback.imports.reading import Advance, Lines, Problems
from feedback.imports.records import ImportedDialogue, WantedRule
from feedback.imports.writing import write
from feedback.models import Import, Project, User
from feedback.prompts import content_hash

LONGEST_SLUG = 60


@dataclass
class FileReport:
    """What a file holds, and whether it was taken in before."""

    path: Path
    unit: str = "line"  # what is numbered in it
    sha256: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    characters: int = 0  # of all text as it is stored
    known: str = ""  # why it is not taken in again; empty when it is new
    rules: dict[str, WantedRule] = field(default_factory=dict)  # that it judges by, by their marks

    @property
    def rows(self) -> int:
        """About how many rows it becomes; an opening is a prompt and a group."""
        once = ("dialogues", "turns", "candidates", "comparisons", "rankings", "places", "probes", "judgements")
        return sum(self.counts[name] for name in (*once, *2 * ("openings",)))

    def as_json(self) -> dict[str, Any]:
        return {
            "file": str(self.path),
            "sha256": self.sha256,
            "counts": dict(sorted(self.counts.items())),
            "notes": dict(sorted(self.notes.items())),
            "known": self.known,
        }


def no_advance(count: int) -> None:
    """Nobody watches how far the reading is."""


def no_objection(reports: Sequence[Any]) -> None:
    """Nobody minds how much is written."""


def import_files(
    paths: Sequence[Path],
    *,
    file_format: str,
    slug: str,
    chosen: rules.Chosen | None = None,
    created_by: User | None = None,
    dry_run: bool = False,
    advance: Advance = no_advance,
    before_writing: Callable[[Sequence[FileReport]], None] = no_objection,
) -> list[FileReport]:
    """Take files into a project, made when it is missing: every line of every file, or nothing.

    A file that was taken in before is left out, and its report says when that was.
    chosen          {what a file calls a rule: key of the project's rule that is meant}
    advance         told of bytes read; each new file is read twice, each known one and each in a dry run once
    before_writing  shown the reports of new files, when all of them can be taken; may raise ImportRefused
    Raises          ImportRefused, naming file, line, field and remedy; then nothing was changed
    """
    _refuse_slug(slug)
    reports = [inspect(path, file_format, advance, beside=_others(path, paths)) for path in paths]
    mark_known(reports, file_format, slug)
    new = [report for report in reports if not report.known]
    if new:
        rules.refuse_unknown(Project.objects.filter(slug=slug).first(), _wanted(new), chosen or {})
    if new and not dry_run:
        before_writing(new)
        try:
            _take_in(new, paths, file_format, slug, chosen or {}, created_by, advance)
        except IntegrityError:
            mark_known(reports, file_format, slug)
            if not all(report.known for report in reports):
                raise
    return reports


def _wanted(reports: Sequence[FileReport]) -> dict[str, WantedRule]:
    """The rules that some files judge by, each once, in the order they are met."""
    found: dict[str, WantedRule] = {}
    for report in reports:
        for rule in report.rules.values():
            _remember(found, rule)
    return found


def _remember(found: dict[str, WantedRule], rule: WantedRule) -> None:
    """Keep a rule under its mark; of several that speak of the same one, the first that says all of it."""
    if rule.mark not in found or found[rule.mark].values is None:
        found[rule.mark] = rule


def _refuse_slug(slug: str) -> None:
    try:
        validate_slug(slug)
    except ValidationError as err:
        raise ImportRefused(f"{slug!r} is no project name: use letters, digits, - and _ only.") from err
    if len(slug) > LONGEST_SLUG:
        raise ImportRefused(f"A project name has at most {LONGEST_SLUG} characters; this one has {len(slug)}.")
    if Project.objects.filter(slug=slug, is_rehearsal=True).exists():
        raise ImportRefused(f"{slug} is a rehearsal, which is never mixed with real data. Import into another project.")


def _others(path: Path, paths: Sequence[Path]) -> list[Path]:
    return [other for other in paths if other != path]


def inspect(path: Path, file_format: str, advance: Advance = no_advance, *, beside: Sequence[Path] = ()) -> FileReport:
    """Read a whole file and count what is in it; writes nothing.

    Raises  ImportRefused
    """
    report = FileReport(path)
    problems = Problems(str(path))
    openings: set[bytes] = set()
    lines = _open(path, file_format, problems, advance, beside)
    for record in FORMATS[file_format].read(lines, problems):
        _count(report, record)
        opening = record.opening()
        if opening:
            openings.add(bytes.fromhex(content_hash(opening)))
    problems.raise_if_any()
    if not report.counts["dialogues"]:
        raise ImportRefused(f"{path} holds no {lines.unit}s. Nothing was imported.")
    report.unit = lines.unit
    report.counts.update(lines=lines.filled, openings=len(openings))
    report.sha256 = lines.sha256
    return report


def _open(path: Path, file_format: str, problems: Problems, advance: Advance, beside: Sequence[Path]) -> Lines:
    if not path.is_file() or not os.access(path, os.R_OK):
        raise ImportRefused(f"{path} is no file that can be read. Check the path. Nothing was imported.")
    lines = FORMATS[file_format].lines(path, problems, advance)
    lines.beside = beside
    return lines


def _count(report: FileReport, record: ImportedDialogue) -> None:
    answers = record.answers("")
    report.notes.update(record.notes)
    report.characters += record.characters
    for rule in record.rules():
        _remember(report.rules, rule)
    report.counts.update(
        dialogues=1,
        turns=len(record.turns),
        candidates=len(record.candidates),
        compared_candidates=sum(candidate.is_compared for candidate in record.candidates),
        empty_candidates=sum(candidate.is_empty for candidate in record.candidates),
        comparisons=record.has_comparison,
        rankings=len(answers),
        places=sum(rank is not None for answer in answers for rank in answer.ranks),
        probes=record.probed is not None,
        judgements=len(record.judgements),
        judgements_of_replies=len(record.judgements) * record.has_reply,
    )


def mark_known(reports: Sequence[FileReport], file_format: str, slug: str) -> None:
    """Say of each file whether it was taken in before, or stands in the list twice."""
    earlier: dict[str, Path] = {}
    for report in reports:
        before = Import.objects.filter(project__slug=slug, format=file_format, sha256=report.sha256).first()
        if before is not None:
            when = before.created_at.strftime("%Y-%m-%d %H:%M UTC")
            report.known = f"imported already on {when} as {before.file_name}"
        elif report.sha256 in earlier:
            report.known = f"the same as {earlier[report.sha256]} in this list"
        earlier.setdefault(report.sha256, report.path)


def _take_in(
    reports: Sequence[FileReport],
    paths: Sequence[Path],
    file_format: str,
    slug: str,
    chosen: rules.Chosen,
    created_by: User | None,
    advance: Advance,
) -> None:
    """Prepare all files, then write them at once: other writers wait for the second part alone."""
    with ExitStack() as spools:
        prepared = [(report, spools.enter_context(closing(Spool()))) for report in reports]
        for report, spool in prepared:
            _prepare(report, spool, file_format, advance, _others(report.path, paths))
        _write(prepared, file_format, slug, chosen, created_by)


def _prepare(report: FileReport, spool: Spool, file_format: str, advance: Advance, beside: Sequence[Path]) -> None:
    """Read a file again, into rows that only wait to be written.

    Raises  ImportRefused when it is not the file that was inspected
    """
    problems = Problems(str(report.path))
    lines = _open(report.path, file_format, problems, advance, beside)
    prepare(_checked(FORMATS[file_format].read(lines, problems), problems), file_format=file_format, spool=spool)
    if lines.sha256 != report.sha256:
        raise ImportRefused(f"{report.path} changed while it was read. Nothing was imported. Import it again.")


def _checked(records: Iterator[ImportedDialogue], problems: Problems) -> Iterator[ImportedDialogue]:
    """The records of the second reading; a fault now means that the file changed."""
    for record in records:
        problems.raise_if_any()
        yield record
    problems.raise_if_any()


@transaction.atomic
def _write(
    prepared: Sequence[tuple[FileReport, Spool]],
    file_format: str,
    slug: str,
    chosen: rules.Chosen,
    created_by: User | None,
) -> None:
    name = slug.replace("-", " ").replace("_", " ").strip().capitalize() or slug
    project, made = Project.objects.get_or_create(slug=slug, defaults={"name": name})
    if made:
        audit.record("project.created", project=project, actor=created_by, target=project)
    wanted = _wanted([report for report, _ in prepared])
    ids = rules.settle(project, wanted, chosen, created_by, file_format)
    for report, spool in prepared:
        source = Import.objects.create(
            project=project,
            format=file_format,
            file_name=report.path.name[-255:],
            sha256=report.sha256,
            report=report.as_json(),
            created_by=created_by,
        )
        write(source, spool, ids)
        audit.record("import.taken_in", project=project, actor=created_by, target=source, **report.counts)
