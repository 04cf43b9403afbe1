"""A corpus taken in: files of text and Markdown, each a document, and lines of JSON, each line one. All or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from django.db import IntegrityError, transaction

from feedback import audit
from feedback.corpus import Taken, WholeText, add_documents
from feedback.errors import ImportRefused
from feedback.imports.known import mark_known
from feedback.imports.reading import (
    Advance,
    Lines,
    Malformed,
    Problems,
    refuse_unstorable,
    shown,
    text_field,
)
from feedback.imports.taking_in import no_advance, no_objection
from feedback.models import Import, Project, User
from feedback.models.corpus import LONGEST_SOURCE, LONGEST_TITLE
from feedback.passages import title_of

FORMAT = "corpus"
LINES, TEXTS = (".jsonl", ".ndjson"), (".md", ".markdown", ".txt")
KINDS = f"text or Markdown ({', '.join(TEXTS)}) and lines of JSON ({', '.join(LINES)}), plain or .gz"


@dataclass(frozen=True)
class File:
    """A file of a corpus.

    name  what its documents are called by when they do not say: the file's name, or its way from the folder given
    """

    path: Path
    name: str

    @property
    def kind(self) -> str:
        """Its ending, a .gz behind it aside."""
        path = self.path.with_suffix("") if self.path.suffix.lower() == ".gz" else self.path
        return path.suffix.lower()


@dataclass
class CorpusReport:
    """What a file holds, and what came of it."""

    file: File
    sha256: str = ""
    documents: int = 0
    passages: int = 0
    characters: int = 0
    known: str = ""  # why it is not taken in again; empty when it is new
    taken: Taken = Taken()

    @property
    def name(self) -> str:
        """What its documents are called by."""
        return self.file.name

    @property
    def rows(self) -> int:
        """How many rows it becomes."""
        return self.documents + self.passages

    def as_json(self) -> dict[str, Any]:
        counts = {"documents": self.documents, "passages": self.passages, "characters": self.characters}
        return {"file": self.file.name, "sha256": self.sha256, **counts, "known": self.known}


def files_of(paths: Sequence[Path]) -> list[File]:
    """The files meant: each one named, and those of a folder that are of a kind that can be read, in order.

    Raises  ImportRefused when one cannot be read, or there is none
    """
    found: list[File] = []
    for path in paths:
        if path.is_dir():
            inside = [File(one, one.relative_to(path).as_posix()) for one in sorted(path.rglob("*")) if one.is_file()]
            readable = [file for file in inside if file.kind in (*LINES, *TEXTS)]
            if not readable:
                raise ImportRefused(f"{path} holds nothing that can be read: {KINDS}. Nothing was imported.")
            found += readable
        else:
            found.append(File(path, path.name))
    for file in found:
        if file.kind not in (*LINES, *TEXTS):
            raise ImportRefused(f"{file.path} is of no kind that can be read: {KINDS}. Nothing was imported.")
    return found


def import_corpus(
    files: Sequence[File],
    *,
    project: Project,
    base: str = "",
    created_by: User | None = None,
    dry_run: bool = False,
    advance: Advance = no_advance,
    before_writing: Callable[[Sequence[CorpusReport]], None] = no_objection,
) -> list[CorpusReport]:
    """Take files into a project's corpus: every document of every file, or nothing.

    A file that was taken in before is left out, and its report says when that was.
    base            what stands before a file's name in the source of its documents, such as an address
    advance         told of bytes read; each new file is read twice, each known one and each in a dry run once
    before_writing  shown the reports of new files, when all of them can be taken; may raise ImportRefused
    Raises          ImportRefused, naming file, line, field and remedy; then nothing was changed
    """
    reports = [_inspect(file, base, advance) for file in files]
    mark_known(reports, FORMAT, project.slug)
    new = [report for report in reports if not report.known]
    if new and not dry_run:
        before_writing(new)
        try:
            _write(new, project, base, created_by, advance)
        except IntegrityError:  # somebody took the same files in at this moment
            mark_known(reports, FORMAT, project.slug)
            if not all(report.known for report in reports):
                raise
    return reports


def _inspect(file: File, base: str, advance: Advance) -> CorpusReport:
    report = CorpusReport(file)
    for text in _texts(report, base, advance):
        report.documents += 1
        report.passages += len(text.passages())
        report.characters += len(text.text)
    if not report.documents:
        raise ImportRefused(f"{file.path} holds no text. Nothing was imported.")
    return report


@transaction.atomic
def _write(
    reports: Sequence[CorpusReport], project: Project, base: str, created_by: User | None, advance: Advance
) -> None:
    for report in reports:
        seen = report.sha256
        source = Import.objects.create(
            project=project, format=FORMAT, file_name=report.file.name[-255:], sha256=seen,
            report=report.as_json(), created_by=created_by,
        )  # fmt: skip
        report.taken = add_documents(source_import=source, texts=_texts(report, base, advance))
        if report.sha256 != seen:
            raise ImportRefused(f"{report.file.path} changed while it was read. Nothing was imported. Import it again.")
        audit.record("corpus.taken_in", project=project, actor=created_by, target=source, **asdict(report.taken))


def _texts(report: CorpusReport, base: str, advance: Advance) -> Iterator[WholeText]:
    """A file's documents, one in memory at a time; in the end the report knows its sha256.

    Raises  ImportRefused with all that is wrong with it
    """
    file = report.file
    if not file.path.is_file():
        raise ImportRefused(f"{file.path} is no file that can be read. Check the path. Nothing was imported.")
    problems = Problems(str(file.path))
    try:
        lines = Lines(file.path, problems, advance) if file.kind in LINES else _Whole(file.path, problems, advance)
        for number, record in lines:
            try:
                yield _document(record, base + file.name, number if file.kind in LINES else None)
            except Malformed as err:
                problems.add(number, err)
    except OSError as err:
        raise ImportRefused(f"{file.path} cannot be read: {err.strerror}. Nothing was imported.") from err
    problems.raise_if_any()
    report.sha256 = lines.sha256


class _Whole(Lines):
    """A file of text as one record, {"text": …}."""

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        raw = b"".join(self._limited())
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as err:
            line = raw.count(b"\n", 0, err.start) + 1
            self.problems.add(line, Malformed(f"byte {err.start + 1} is not UTF-8. Save the file as UTF-8."))
            return
        if text.strip():
            self.filled += 1
            yield 1, {"text": text}

    def _limited(self) -> Iterator[bytes]:
        for raw in self._pieces(lambda stream: stream.read(1 << 20)):
            self.length += len(raw)
            self._refuse_oversized(self.length)
            yield raw


def _document(record: dict[str, Any], name: str, line: int | None) -> WholeText:
    """A document of a record. Of what a line says besides, nothing is kept: it is not searched and not shown."""
    text = text_field(record, "text").strip()
    if not text:
        raise Malformed("field text is empty. Leave the document out, or write what it says.")
    source = _short(record, "source" if "source" in record else "url", LONGEST_SOURCE) or name[-LONGEST_SOURCE:]
    standing_alone = Path(name).name.partition(".")[0]
    title = _short(record, "title", LONGEST_TITLE) or title_of(text)
    return WholeText((title or standing_alone + (f", line {line}" if line else ""))[:LONGEST_TITLE], source, text)


def _short(record: dict[str, Any], name: str, longest: int) -> str:
    """A short text of a record, its blanks made single; empty when it says nothing."""
    value = record.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"field {name} should be text, not {shown(value)}.")
    refuse_unstorable(value, f"field {name}")
    value = " ".join(value.split())
    if len(value) > longest:
        raise Malformed(f"field {name} has {len(value)} characters; at most {longest} can be kept.")
    return value
