"""Take files in: read all of every file first, then write all or nothing, and never the same file twice.

Each file is read twice: to see whether all of it can be taken, and into rows on disk. Only then does the transaction
begin that writes them all, so that it is short: on SQLite nobody else can write meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import validate_slug
from django.db import IntegrityError, transaction

from feedback import audit
from feedback.errors import ImportRefused
from feedback.imports import FORMATS, rules
from feedback.imports.file_reports import FileReport, remember
from feedback.imports.known import mark_known
from feedback.imports.preparing import Spool, prepare
from feedback.imports.reading import Advance, Lines, Problems
from feedback.imports.records import NO_CHOICES, Choices, ImportedDialogue, WantedRule
from feedback.imports.writing import write
from feedback.models import Import, Project, PromptGroup, User
from feedback.prompts import content_hash

LONGEST_SLUG = 60


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
    choices: Choices = NO_CHOICES,
    created_by: User | None = None,
    dry_run: bool = False,
    advance: Advance = no_advance,
    before_writing: Callable[[Sequence[FileReport]], None] = no_objection,
) -> list[FileReport]:
    """Take files into a project, made when it is missing: every line of every file, or nothing.

    A file that was taken in before is left out, and its report says when that was.
    chosen          {what a file calls a rule: key of the project's rule that is meant}
    choices         what else is said of the files
    advance         told of bytes read; each new file is read twice, each known one and each in a dry run once
    before_writing  shown the reports of new files, when all of them can be taken; may raise ImportRefused
    Raises          ImportRefused, naming file, line, field and remedy; then nothing was changed
    """
    _refuse_slug(slug)
    _refuse_side(choices.split)
    _refuse_options(choices, file_format)
    reports = [inspect(path, file_format, advance, beside=_others(path, paths), choices=choices) for path in paths]
    mark_known(reports, file_format, slug)
    _refuse_half(reports)
    new = [report for report in reports if not report.known]
    if new and choices.accepted and not any(report.counts["demonstrations"] for report in new):
        raise ImportRefused("These files have no written replies that could be accepted. Leave --accepted out.")
    if new:
        rules.refuse_unknown(Project.objects.filter(slug=slug).first(), _wanted(new), chosen or {})
    if new and not dry_run:
        before_writing(new)
        try:
            _take_in(new, paths, file_format, slug, chosen or {}, choices, created_by, advance)
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
            remember(found, rule)
    return found


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


def _refuse_side(split: str) -> None:
    if split and split not in PromptGroup.Split.values:
        raise ImportRefused(f"{split!r} is no side of the split: use one of {', '.join(PromptGroup.Split.values)}.")


def _refuse_options(choices: Choices, file_format: str) -> None:
    if strange := sorted(set(choices.options) - FORMATS[file_format].asks):
        asked = [name for name, one in FORMATS.items() if strange[0] in one.asks]
        raise ImportRefused(
            f"The format {file_format} does not ask for {strange[0].replace('_', ' ')}; that is for "
            f"{' and '.join(asked)}. Leave it out. Nothing was imported."
        )


def _refuse_half(reports: Sequence[FileReport]) -> None:
    """Files that give one answer together come in together: what people are asked is never changed afterwards."""
    joined = [report for report in reports if report.is_joined]
    known = next((report for report in joined if report.known), None)
    if known is not None and not all(report.known for report in joined):
        raise ImportRefused(
            f"{known.path} is {known.known}, and its replies stand beside those of the others, which cannot be changed "
            "any more. Import all of them together, each once, into a project that has none. Nothing was imported."
        )


def inspect(
    path: Path,
    file_format: str,
    advance: Advance = no_advance,
    *,
    beside: Sequence[Path] = (),
    choices: Choices = NO_CHOICES,
) -> FileReport:
    """Read a whole file and count what is in it; writes nothing.

    Raises  ImportRefused
    """
    report = FileReport(path)
    problems = Problems(str(path))
    openings: set[bytes] = set()
    lines = _open(path, file_format, problems, advance, beside, choices)
    for record in _records(lines, problems, file_format, choices):
        report.count(record)
        opening = record.opening()
        if opening:
            openings.add(bytes.fromhex(content_hash(opening)))
    problems.raise_if_any()
    if not report.counts["dialogues"] and not lines.is_joined:
        raise ImportRefused(f"{path} holds no {lines.unit}s. Nothing was imported.")
    report.unit, report.is_joined = lines.unit, lines.is_joined
    report.notes.update(lines.notes)
    report.counts.update(lines=lines.filled, openings=len(openings))
    report.sha256 = lines.sha256
    return report


def _open(
    path: Path, file_format: str, problems: Problems, advance: Advance, beside: Sequence[Path], choices: Choices
) -> Lines:
    if not path.is_file() or not os.access(path, os.R_OK):
        raise ImportRefused(f"{path} is no file that can be read. Check the path. Nothing was imported.")
    lines = FORMATS[file_format].lines(path, problems, advance)
    lines.beside, lines.options = beside, choices.options
    return lines


def _records(lines: Lines, problems: Problems, file_format: str, choices: Choices) -> Iterator[ImportedDialogue]:
    for record in FORMATS[file_format].read(lines, problems):
        yield choices.of(record, file_format)


def _take_in(
    reports: Sequence[FileReport],
    paths: Sequence[Path],
    file_format: str,
    slug: str,
    chosen: rules.Chosen,
    choices: Choices,
    created_by: User | None,
    advance: Advance,
) -> None:
    """Prepare all files, then write them at once: other writers wait for the second part alone."""
    with ExitStack() as spools:
        prepared = [(report, spools.enter_context(closing(Spool()))) for report in reports]
        for report, spool in prepared:
            _prepare(report, spool, file_format, advance, _others(report.path, paths), choices)
        _write(prepared, file_format, slug, chosen, choices, created_by)


def _prepare(
    report: FileReport,
    spool: Spool,
    file_format: str,
    advance: Advance,
    beside: Sequence[Path],
    choices: Choices,
) -> None:
    """Read a file again, into rows that only wait to be written.

    Raises  ImportRefused when it is not the file that was inspected
    """
    problems = Problems(str(report.path))
    lines = _open(report.path, file_format, problems, advance, beside, choices)
    records = _records(lines, problems, file_format, choices)
    prepare(_checked(records, problems), file_format=file_format, spool=spool)
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
    choices: Choices,
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
            report=report.as_json() | choices.as_json(),
            created_by=created_by,
        )
        write(source, spool, ids)
        audit.record("import.taken_in", project=project, actor=created_by, target=source, **report.counts)
