"""Fields of our own lines: each may be left out unless it says otherwise, and a fault names field and remedy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from feedback.imports.reading import (
    Lines,
    Malformed,
    Problems,
    kept_fields,
    parse_object,
    refuse_unstorable,
    shown,
    text_field,
)
from feedback.imports.records import ImportedDialogue, Messages
from feedback.models import Turn
from feedback.prompts import fingerprint

EVALUATION = "evaluation"  # a kind of dialogue that measures policies
ACCOUNT = re.compile(r"u\d+")  # what an account's own answers are kept under
LONGEST_NAME = 120  # characters of an annotator's name
LONGEST_KEY = 200  # characters of the source's own name for a dialogue, and of a group
LONGEST_TIME = 1e9  # seconds, some thirty years


def read_lines(
    lines: Lines, problems: Problems, read_line: Callable[[dict[str, Any]], ImportedDialogue]
) -> Iterator[ImportedDialogue]:
    """One dialogue per line, as `read_line` makes it; what belongs together lies on one side of the split."""
    sides: dict[str, str] = {}
    for number, record in lines:
        try:
            dialogue = read_line(record)
            _refuse_torn(dialogue, sides)
            yield dialogue
        except Malformed as err:
            problems.add(number, err)


def _refuse_torn(dialogue: ImportedDialogue, sides: dict[str, str]) -> None:
    """Raises Malformed where an opening, or a group, lies on two sides of the split."""
    if not dialogue.split:
        return
    for mark, name in ((dialogue.group, "group"), (fingerprint(dialogue.turns), "the same opening")):
        before = sides.setdefault(f"{name} {mark}", dialogue.split) if mark else dialogue.split
        if before != dialogue.split:
            which = f"{name} {shown(mark)}" if name == "group" else name
            raise Malformed(
                f"field split is {dialogue.split}, and {which} lies in {before} before. What belongs together lies on "
                "one side: give both lines the same split."
            )


def refuse_strangers(record: dict[str, Any], known: set[str], path: str) -> None:
    if strange := sorted(set(record) - known):
        raise Malformed(
            f"field {path}{shown(strange[0])} is not known here; known are {', '.join(sorted(known))}. What else a "
            "source says belongs in meta."
        )


def list_of(record: dict[str, Any], name: str, path: str) -> list[Any]:
    value = record.get(name)
    if not isinstance(value, list):
        raise Malformed(f"field {path}{name} should be a list, not {shown(value)}. Is this the format you named?")
    return value


def is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < LONGEST_TIME


def is_revision(value: Any) -> bool:
    return type(value) is int and 1 <= value < 2**31


def is_truth(value: Any) -> bool:
    return isinstance(value, bool)


def value_of(said: dict[str, Any], name: str, path: str, default: Any, fits: Callable[[Any], bool], what: str) -> Any:
    value = said.get(name)
    if value is None:
        return default
    if not fits(value):
        raise Malformed(f"field {path}{name} should be {what}, not {shown(value)}.")
    return value


def text_or_empty(record: dict[str, Any], name: str, longest: int | None, path: str = "") -> str:
    """A text that may be missing; empty then."""
    value = record.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"field {path}{name} should be text, not {shown(value)}.")
    if longest is not None and len(value) > longest:
        raise Malformed(f"field {path}{name} should have at most {longest} characters; it has {len(value)}.")
    refuse_unstorable(value, f"field {path}{name}")
    return value


def one_of(record: dict[str, Any], name: str, known: Sequence[str]) -> str:
    value = text_or_empty(record, name, LONGEST_NAME)
    if value and value not in known:
        hint = " What is kept for evaluation is not taken in." if value == EVALUATION else ""
        raise Malformed(f"field {name} should be one of {', '.join(known)}, not {shown(value)}.{hint}")
    return value


def meta_of(record: dict[str, Any], path: str) -> dict[str, Any]:
    """What else a source says: an object, or the text of one."""
    value = record.get("meta")
    if isinstance(value, str) and value:
        try:
            value = parse_object(value.encode("utf-8", "surrogatepass"))
        except Malformed as err:
            raise Malformed(f"field {path}meta: {err}") from err
    if value and not isinstance(value, dict):
        raise Malformed(f"field {path}meta should be an object, or the text of one, not {shown(value)}.")
    return kept_fields(value, without=set(), path=f"{path}meta.") if value else {}


def annotator_of(said: dict[str, Any], path: str) -> str:
    """Who answered, as the source calls them; never a name that accounts here have."""
    annotator = text_or_empty(said, "annotator_id", LONGEST_NAME, path)
    if not annotator.strip():
        raise Malformed(
            f"field {path}annotator_id is missing. Name who judged, if only as one of several: first, second."
        )
    if ACCOUNT.fullmatch(annotator):
        raise Malformed(
            f"field {path}annotator_id is {shown(annotator)}, which is what accounts of this Nestbox are called. "
            f"Write another name, such as {shown('their-' + annotator)}, so that nobody is taken for somebody else."
        )
    return annotator


def message_of(message: Any, path: str) -> dict[str, str]:
    """What one speaker said: a role and a content, both text, and nothing besides."""
    if not isinstance(message, dict) or not {"role", "content"} <= set(message):
        raise Malformed(f"field {path} should be a message with role and content, not {shown(message)}.")
    if strange := sorted(set(message) - {"role", "content"}):
        raise Malformed(f"field {path}.{shown(strange[0])} cannot be kept: a message has a role and a content here.")
    role = text_field(message, "role", f"{path}.")
    if role not in Turn.Role.values:
        raise Malformed(f"field {path}.role should be one of {', '.join(Turn.Role.values)}, not {shown(role)}.")
    return {"role": role, "content": text_field(message, "content", f"{path}.")}


def messages_of(record: dict[str, Any], name: str, path: str = "") -> Messages:
    """A field that is a list of messages."""
    return [message_of(one, f"{path}{name}[{at}]") for at, one in enumerate(list_of(record, name, path))]
