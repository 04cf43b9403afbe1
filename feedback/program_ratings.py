"""Verdicts that a program gives on replies, such as unit tests on code: handed in as lines, all or nothing.

No code is run here. Whoever has the replies run does so elsewhere, and hands in one JSON object a line:
{"candidate": 12, "scale": "passes", "value": "fails", "program": "pytest", "version": "8.3"}, perhaps with "details".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from feedback import audit
from feedback.errors import ProgramRatingsRefused
from feedback.models import Candidate, Project, Rating, Scale, ScaleSet, User
from feedback.models.ratings import BETWEEN_FLAGS, NONE

FIELDS = ("candidate", "scale", "value", "program", "version", "details")
LARGEST_LINE = 20_000  # characters
LONGEST_NAME = 60
LARGEST_ID = 2**63 - 1
Key = tuple[int, int, str]  # reply, scale, program


@dataclass(frozen=True)
class Stored:
    """What came of a file: new verdicts, those that correct an earlier one, and those that were there already."""

    added: int = 0
    corrected: int = 0
    same: int = 0


@dataclass(frozen=True)
class Line:
    """One verdict as a line has it."""

    number: int
    candidate: int
    scale: Scale
    value: str
    program: str
    version: str
    details: dict[str, Any]

    @property
    def rater(self) -> str:
        return f"{self.program}/{self.version}"

    @property
    def key(self) -> Key:
        return self.candidate, self.scale.pk, self.rater


@transaction.atomic
def record_program_ratings(*, project: Project, lines: Iterable[str], by: User | None = None) -> Stored:
    """Store the verdicts of a file; the same file again adds nothing, another value is a correction.

    Raises  ProgramRatingsRefused, naming the line, what is wrong with it and what to do; then nothing is stored
    """
    scales = {
        scale.key: scale
        for scale in Scale.objects.asked().filter(scale_set__project=project, scale_set__by_program=True)
    }
    if not scales:
        raise ProgramRatingsRefused(
            f"{project.name} has no questions that a program answers. Add the set unit-tests under Ratings first."
        )
    list(ScaleSet.objects.select_for_update(no_key=True).filter(project=project, by_program=True))  # one file at a time
    found = list(_read(lines, scales))
    _refuse_foreign(project, found)
    stored = _store(found)
    if found:
        counts = {"added": stored.added, "corrected": stored.corrected, "same": stored.same}
        audit.record("ratings.of_program", project=project, actor=by, target=project, **counts)
    return stored


def _read(lines: Iterable[str], scales: dict[str, Scale]) -> Iterator[Line]:
    seen: dict[Key, int] = {}
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        line = _line(number, text, scales)
        if line.key in seen:
            raise _refused(number, f"line {seen[line.key]} is about the same reply and question. Take one out.")
        seen[line.key] = number
        yield line


def _refused(number: int, what: str) -> ProgramRatingsRefused:
    return ProgramRatingsRefused(f"Line {number}: {what} Nothing was stored.")


def _line(number: int, text: str, scales: dict[str, Scale]) -> Line:
    if len(text) > LARGEST_LINE:
        raise _refused(number, f"it has {len(text)} characters; {LARGEST_LINE} is the most.")
    try:
        row = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as err:
        raise _refused(number, "this is no JSON that can be read. Write one object a line.") from err
    if not isinstance(row, dict):
        raise _refused(number, "it is no JSON object. Write {…} with the fields of a verdict.")
    if unknown := [name for name in row if name not in FIELDS]:
        raise _refused(number, f"nobody knows the field “{unknown[0][:40]}”. Known: {', '.join(FIELDS)}.")
    candidate, details = row.get("candidate"), row.get("details", {})
    if type(candidate) is not int or not 1 <= candidate <= LARGEST_ID:
        raise _refused(number, "candidate is to be the number of a reply, as --replies writes it.")
    scale = scales.get(row["scale"]) if isinstance(row.get("scale"), str) else None
    if scale is None:
        raise _refused(number, f"scale is to be one of {', '.join(scales)}.")
    if not isinstance(details, dict):
        raise _refused(number, "details are to be an object, or left out.")
    program, version = (_name(number, name, row.get(name)) for name in ("program", "version"))
    return Line(number, candidate, scale, _value(number, scale, row.get("value")), program, version, details)


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _name(number: int, name: str, given: Any) -> str:
    if not isinstance(given, str) or not given.strip() or len(given) > LONGEST_NAME or set(given) & {"/", "\x00"}:
        raise _refused(number, f"{name} is to be a text of 1 to {LONGEST_NAME} characters, without “/”.")
    return given.strip()


def _value(number: int, scale: Scale, given: Any) -> str:
    """A value as it is kept; flags may come as a list."""
    if isinstance(given, list) and scale.kind == Scale.Kind.FLAGS and all(isinstance(one, str) for one in given):
        order = [value for value, _ in scale.choices]
        given = BETWEEN_FLAGS.join(sorted(set(given), key=lambda one: order.index(one) if one in order else -1)) or NONE
    value = str(given) if type(given) is int else given
    if not isinstance(value, str) or not scale.takes(value):
        known = ", ".join(one for one, _ in scale.choices)
        raise _refused(number, f"value is to be one of {known}.")
    return value


def _refuse_foreign(project: Project, found: list[Line]) -> None:
    wanted = sorted({line.candidate for line in found})
    here: set[int] = set()
    for start in range(0, len(wanted), 400):
        some = Candidate.objects.filter(pk__in=wanted[start : start + 400], dialogue__project=project)
        here.update(some.values_list("pk", flat=True))
    for line in found:
        if line.candidate not in here:
            raise _refused(line.number, f"{project.name} has no reply {line.candidate}.")


def _store(found: list[Line]) -> Stored:
    raters = sorted({line.rater for line in found})
    rows = Rating.objects.newest().filter(annotator_key__in=raters).exclude(program="")
    newest = {(row.candidate_id, row.scale_id, row.annotator_key): row for row in rows.iterator(chunk_size=2000)}
    added, corrected, fresh = 0, 0, []
    for line in found:
        before = newest.get(line.key)
        if before is not None and (before.value, before.source) == (line.value, line.details):
            continue
        added += before is None
        corrected += before is not None
        fresh.append(_rating(line, before))
    Rating.objects.bulk_create(fresh, batch_size=500)
    return Stored(added, corrected, len(found) - added - corrected)


def _rating(line: Line, before: Rating | None) -> Rating:
    return Rating(
        candidate_id=line.candidate,
        scale=line.scale,
        value=line.value,
        program=line.program,
        program_version=line.version,
        annotator_key=line.rater,
        source=line.details,
        revision=before.revision + 1 if before else 1,
    )


def replies_to_rate(project: Project) -> Iterator[dict[str, Any]]:
    """The replies of a project that a program could rate, each with its number and what it answers."""
    made = Candidate.objects.filter(dialogue__project=project, is_empty=False).select_related("model_version")
    for candidate in made.prefetch_related("dialogue__turns").order_by("pk").iterator(chunk_size=500):
        messages = candidate.dialogue.messages()[: candidate.after_position + 1]
        yield {"candidate": candidate.pk, "prompt": messages, "reply": candidate.text}
