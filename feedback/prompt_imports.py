"""Prompts taken in from files and datasets: read first, sorted out, then written all or nothing, and never twice.

Left out, and counted by reason, is what adds nothing: a prompt that is here already in other spelling, that begins with
the same long run of characters as another, or that comes after so many by the same author (InstructGPT, appendix A).
What looks like a person's data is told by line and kind, never by its words.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from feedback import audit, personal_data
from feedback.dialogues import LONGEST_MESSAGE
from feedback.errors import ImportRefused
from feedback.imports.fields import LONGEST_KEY, message_of
from feedback.imports.known import mark_known
from feedback.imports.preparing import GROUPS, PROMPTS, Spool
from feedback.imports.reading import Advance, Lines, Malformed, Problems, kept_fields, refuse_unstorable, shown
from feedback.imports.writing import add_openings
from feedback.models import Import, Project, Prompt, PromptGroup, User
from feedback.models.projects import MOST_WEIGHT
from feedback.prompts import can_open, content_hash, fingerprint, normalise, split_of

Messages = list[dict[str, str]]
FORMAT = "prompts"  # of the import's row
MOST_BY_ONE_AUTHOR = 200  # InstructGPT
SHARED_PREFIX = 200  # characters of the normal form; the paper does not say how long its common prefixes were
LONGEST_SOURCE = 80
MOST_NAMED = 1000  # lines, of each reason and of hints, in the report
CHUNK = 500
SAME = "the same as another one"
ALIKE = "beginning as another one"
KNOWN = "here already"
CROWDED = "by an author of whom there are enough"
UNOPENED = "that do not end with what a user says"
LONG = f"longer than {LONGEST_MESSAGE:,} characters"
PERSONAL = "that may hold a person's data"


@dataclass(frozen=True)
class PromptSettings:
    """How prompts are read, and which are left out.

    column, author, group  the columns with prompt, author, and what must stay on one side of the split
    source                 what the prompts are from; empty: the name of the file
    weight                 how often they are drawn beside others
    split                  side of the split; empty: by hash of the group
    is_active              offered to annotators
    most_by_author         0: no matter how many
    shared_prefix          characters of the normal form; 0: no matter how they begin
    leave_out_personal     leave out what may hold a person's data, rather than hint at it
    """

    column: str = "prompt"
    author: str = ""
    group: str = ""
    source: str = ""
    weight: float = 1.0
    split: str = ""
    is_active: bool = True
    most_by_author: int = MOST_BY_ONE_AUTHOR
    shared_prefix: int = SHARED_PREFIX
    leave_out_personal: bool = False

    def refuse_bad(self) -> None:
        """Raises ImportRefused"""
        if not 0 <= self.weight <= MOST_WEIGHT:
            raise ImportRefused(f"A weight is a number from 0 to {MOST_WEIGHT}, not {self.weight}.")
        if self.split and self.split not in PromptGroup.Split.values:
            raise ImportRefused(f"{self.split!r} is no side of the split: use {', '.join(PromptGroup.Split.values)}.")
        if min(self.most_by_author, self.shared_prefix) < 0:
            raise ImportRefused("How many by one author, and how long a common beginning, are numbers from 0.")
        if len(self.source) > LONGEST_SOURCE:
            raise ImportRefused(f"The name of a source has at most {LONGEST_SOURCE} characters.")


@dataclass(frozen=True)
class PromptSource:
    """A file or dataset: its name, and how it is opened to be read once more."""

    name: str
    open: Callable[[Problems, Advance], Lines]


@dataclass
class PromptReport:
    """What a file holds, what is left out of it and why, and where to look again."""

    name: str
    unit: str = "line"
    sha256: str = ""
    read: int = 0
    kept: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[int]] = field(default_factory=dict)  # {reason: lines}, the first of them
    hints: list[tuple[int, list[str]]] = field(default_factory=list)  # line, kinds of personal data
    splits: Counter[str] = field(default_factory=Counter)
    characters: int = 0
    known: str = ""

    @property
    def rows(self) -> int:
        """About how many rows it becomes: a prompt is often in a group of its own."""
        return 2 * self.kept

    def leave_out(self, number: int, reason: str) -> None:
        """Count a line that is not taken in."""
        self.left_out[reason] += 1
        if self.left_out[reason] <= MOST_NAMED:
            self.places.setdefault(reason, []).append(number)

    def as_json(self) -> dict[str, Any]:
        """For the import's row, and for a program: numbers of lines and no text."""
        return {
            "name": self.name,
            "unit": self.unit,
            "sha256": self.sha256,
            "counts": {
                "lines": self.read,
                "prompts": self.kept,
                **{f"left out, {k}": v for k, v in self.left_out.items()},
            },
            "left_out": self.places,
            "hints": [{self.unit: number, "kinds": kinds} for number, kinds in self.hints[:MOST_NAMED]],
            "splits": dict(self.splits),
            "known": self.known,
        }


@dataclass
class ReadPrompt:
    """One prompt of a file, before it is a row."""

    messages: Messages
    author: str
    group: str
    details: dict[str, Any]

    @property
    def text(self) -> str:
        """Its normal form, with who speaks: what is compared."""
        return "\n".join(f"{message['role']}: {normalise(message['content'])}" for message in self.messages)


def import_prompts(
    sources: Sequence[PromptSource],
    *,
    slug: str,
    settings: PromptSettings,
    created_by: User | None = None,
    dry_run: bool = False,
    advance: Advance = lambda count: None,
    before_writing: Callable[[Sequence[PromptReport]], None] = lambda reports: None,
) -> list[PromptReport]:
    """Take prompts into a project that is there: every file, or nothing. What was taken in before is left out.

    advance         told of bytes read; what is new is read twice
    before_writing  shown the reports of what is new; may raise ImportRefused
    Raises          ImportRefused, naming file, line, field and remedy; then nothing was changed
    """
    settings.refuse_bad()
    project = Project.objects.filter(slug=slug).first()
    if project is None:
        raise ImportRefused(
            f"There is no project {slug}. Make it first: prompts alone do not say what a project is for."
        )
    if project.is_rehearsal:
        raise ImportRefused(f"{slug} is a rehearsal, which is never mixed with real data. Import into another project.")
    reports = [_hashed(source, settings, advance) for source in sources]
    mark_known(reports, FORMAT, project.slug)
    sieve = Sieve(project, settings)
    with ExitStack() as spools:
        prepared = []
        for source, report in zip(sources, reports, strict=True):
            if not report.known:
                spool = spools.enter_context(closing(Spool()))
                _prepare(source, report, sieve, settings, spool, advance)
                prepared.append((report, spool))
        if prepared and not dry_run:
            before_writing([report for report, _ in prepared])
            _write_once(prepared, project, settings, created_by)
    return reports


# Reading


def _hashed(source: PromptSource, settings: PromptSettings, advance: Advance) -> PromptReport:
    """Read a whole file for its faults and its hash."""
    problems = Problems(source.name)
    lines = source.open(problems, advance)
    for _ in _read(lines, problems, settings):
        pass
    problems.raise_if_any()
    if not lines.filled:
        raise ImportRefused(f"{source.name} holds no {lines.unit}s. Nothing was imported.")
    return PromptReport(source.name, lines.unit, lines.sha256)


def _read(lines: Lines, problems: Problems, settings: PromptSettings) -> Iterator[tuple[int, ReadPrompt]]:
    for number, record in lines:
        try:
            yield number, read_prompt(record, settings)
        except Malformed as err:
            problems.add(number, err)


def read_prompt(record: dict[str, Any], settings: PromptSettings) -> ReadPrompt:
    """A prompt with what else its row says. Raises Malformed"""
    author, group = (_named(record, column) for column in (settings.author, settings.group))
    columns = {settings.column, settings.author, settings.group}
    others = kept_fields(record, without=columns)
    details = {"author": author, "fields": others}
    messages = _messages(record, settings.column)
    return ReadPrompt(messages, author, group, {name: value for name, value in details.items() if value})


def _messages(record: dict[str, Any], column: str) -> Messages:
    if column not in record:
        known = ", ".join(map(shown, record)) or "none"
        raise Malformed(f"column {shown(column)} is missing; there are {known}. Name the prompts' with --column.")
    value = record[column]
    if isinstance(value, list):
        return [message_of(one, f"{shown(column)}[{at}]") for at, one in enumerate(value)]
    if not isinstance(value, str):
        raise Malformed(f"column {shown(column)} should be text, or a list of messages, not {shown(value)}.")
    refuse_unstorable(value, f"column {shown(column)}")
    return [{"role": "user", "content": value.strip()}]


def _named(record: dict[str, Any], column: str) -> str:
    """What a column says by which prompts belong together; empty where it says nothing."""
    if not column:
        return ""
    if column not in record:
        raise Malformed(f"column {shown(column)} is missing. Leave the option out, or name another column.")
    value = record[column]
    if value is None:
        return ""
    if not isinstance(value, str | int) or isinstance(value, bool) or len(str(value)) > LONGEST_KEY - 20:
        raise Malformed(f"column {shown(column)} should be a name or a number, not {shown(value)}.")
    refuse_unstorable(str(value), f"column {shown(column)}")
    return str(value)


# Sorting out


class Sieve:
    """Tells which prompts add something to a project, and to those that were kept before them."""

    def __init__(self, project: Project, settings: PromptSettings) -> None:
        self.settings = settings
        self.here: set[bytes] = set()
        self.kept: set[bytes] = set()
        self.beginnings: set[bytes] = set()
        self.by_author: Counter[str] = Counter()
        stored = Prompt.objects.filter(project=project).values_list("messages", "details")
        for messages, details in stored.iterator(chunk_size=CHUNK):
            text = ReadPrompt(messages, "", "", {}).text
            self.here.add(_digest(text))
            self._remember_beginning(text)
            author = details.get("author") if isinstance(details, dict) else None
            self.by_author.update([author] if isinstance(author, str) else [])

    def reason(self, prompt: ReadPrompt) -> str:
        """Why a prompt is left out; empty where it is kept, which is remembered."""
        text = prompt.text
        if reason := self._fault(prompt, text):
            return reason
        self.kept.add(_digest(text))
        self._remember_beginning(text)
        self.by_author.update([prompt.author] if prompt.author else [])
        return ""

    def _fault(self, prompt: ReadPrompt, text: str) -> str:
        most, digest = self.settings.most_by_author, _digest(text)
        if not can_open(prompt.messages):
            return UNOPENED
        if max(len(message["content"]) for message in prompt.messages) > LONGEST_MESSAGE:
            return LONG
        if digest in self.here:
            return KNOWN
        if digest in self.kept:
            return SAME
        if self._beginning(text) in self.beginnings:
            return ALIKE
        return CROWDED if most and prompt.author and self.by_author[prompt.author] >= most else ""

    def _beginning(self, text: str) -> bytes | None:
        length = self.settings.shared_prefix
        return _digest(text[:length]) if length and len(text) >= length else None

    def _remember_beginning(self, text: str) -> None:
        beginning = self._beginning(text)
        if beginning is not None:
            self.beginnings.add(beginning)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()[:16]


def _prepare(
    source: PromptSource,
    report: PromptReport,
    sieve: Sieve,
    settings: PromptSettings,
    spool: Spool,
    advance: Advance,
) -> None:
    """Read a file again, into rows of what is kept. Raises ImportRefused when it is another one by now."""
    problems = Problems(source.name)
    lines = source.open(problems, advance)
    openings: dict[str, Any] = {}
    for number, prompt in _read(lines, problems, settings):
        report.read += 1
        kinds = personal_data.kinds_in("\n".join(message["content"] for message in prompt.messages))
        reason = PERSONAL if kinds and settings.leave_out_personal else sieve.reason(prompt)
        if reason:
            report.leave_out(number, reason)
            continue
        report.kept += 1
        report.characters += sum(len(message["content"]) for message in prompt.messages)
        report.hints += [(number, kinds)] if kinds else []
        exact, row = _row(prompt, settings, source.name)
        openings[exact] = row
        if len(openings) >= CHUNK:
            spool.add(openings)
            openings = {}
    spool.add(openings)
    problems.raise_if_any()
    if lines.sha256 != report.sha256:
        raise ImportRefused(f"{source.name} changed while it was read. Nothing was imported. Import it again.")


def _row(prompt: ReadPrompt, settings: PromptSettings, name: str) -> tuple[str, list[Any]]:
    """(content hash, rows as `writing.add_openings` takes them)."""
    mark, exact = fingerprint(prompt.messages), content_hash(prompt.messages)
    key = prompt.group or mark
    group = GROUPS.early_values(key=key, split=settings.split or split_of(key))
    row = PROMPTS.early_values(
        messages=prompt.messages,
        fingerprint=mark,
        content_hash=exact,
        source=settings.source or name[:LONGEST_SOURCE],
        details=prompt.details,
        is_active=settings.is_active,
        weight=settings.weight,
    )
    return exact, [mark, key, group, row]


# Writing


def _write_once(
    prepared: Sequence[tuple[PromptReport, Spool]], project: Project, settings: PromptSettings, created_by: User | None
) -> None:
    """Write, unless somebody took the same files in at this moment."""
    try:
        _write(prepared, project, settings, created_by)
    except IntegrityError:
        mark_known([report for report, _ in prepared], FORMAT, project.slug)
        if not all(report.known for report, _ in prepared):
            raise


@transaction.atomic
def _write(
    prepared: Sequence[tuple[PromptReport, Spool]], project: Project, settings: PromptSettings, created_by: User | None
) -> None:
    for report, spool in prepared:
        now = connection.ops.adapt_datetimefield_value(timezone.now())
        for openings in spool:
            ids = add_openings(project, openings, now)
            sides = Prompt.objects.filter(pk__in=ids.values()).values_list("group__split", flat=True)
            report.splits.update(sides)
            _refuse_torn(report, settings.split)
        source = Import.objects.create(
            project=project,
            format=FORMAT,
            file_name=report.name[-255:],
            sha256=report.sha256,
            report=report.as_json(),
            created_by=created_by,
        )
        audit.record("prompts.taken_in", project=project, actor=created_by, target=source, prompts=report.kept)


def _refuse_torn(report: PromptReport, split: str) -> None:
    others = [side for side in report.splits if split and side != split]
    if others:
        raise ImportRefused(
            f"{report.name}: some of these openings, or their groups, lie in {', '.join(others)} already and cannot go "
            f"to {split}. Leave --split out, or import into another project. Nothing was imported."
        )
