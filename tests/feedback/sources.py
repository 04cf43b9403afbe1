"""Where the tests' source files lie, and how a source's lines are written again from the rows made of them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from feedback.models import Candidate, Comparison, Dialogue, Import

OURS = Path(settings.BASE_DIR) / "tests" / "data"
ORIGINALS = Path(settings.BASE_DIR).parent / "shared" / "data"
SPEAKERS = {"user": "Human", "assistant": "Assistant"}

needs_originals = pytest.mark.skipif(
    not ORIGINALS.is_dir(), reason="the original files do not lie beside this checkout (../shared/data)"
)


def read_lines(path: Path) -> list[dict[str, Any]]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()
    return [json.loads(line) for line in text.split("\n") if line]


def file_of(folder: Path, *records: Any, name: str = "some.jsonl", as_list: bool = False) -> Path:
    """A file of records: one a line, or all in a list."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(records) if as_list else "".join(json.dumps(one) + "\n" for one in records))
    return path


def hh_rlhf_lines(source: Import) -> list[dict[str, Any]]:
    """The lines of an hh-rlhf file, from the rows alone."""
    comparisons = Comparison.objects.filter(dialogue__source_import=source).select_related("dialogue")
    whole = comparisons.prefetch_related("candidates", "dialogue__turns").order_by("pk")
    return [_pair(comparison) for comparison in whole]


def _pair(comparison: Comparison) -> dict[str, Any]:
    dialogue = comparison.dialogue
    before = _written(dialogue.messages(), dialogue.source)
    sides = {one.source["field"]: before + _written(one.turns, one.source) for one in comparison.candidates.all()}
    return sides | dialogue.source.get("fields", {})


def _written(messages: list[dict[str, str]], source: dict[str, Any]) -> str:
    unspaced = source.get("no_space_before", [])
    return "".join(
        f"\n\n{SPEAKERS[message['role']]}:{'' if place in unspaced else ' '}{message['content']}"
        for place, message in enumerate(messages)
    )


def open_assistant_trees(source: Import) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(what is said of the tree, its first message with nested replies) from the rows alone."""
    dialogues = Dialogue.objects.filter(source_import=source)
    by_key = {dialogue.source_key: dialogue for dialogue in dialogues}
    for dialogue in dialogues.order_by("pk"):
        if dialogue.source:
            yield dialogue.source["tree"], _message(dialogue.source["message"], dialogue.turns.get().content, by_key)


def _message(fields: dict[str, Any], text: str, by_key: dict[str, Dialogue]) -> dict[str, Any]:
    message = fields | {"text": text}
    below = by_key.get(fields["message_id"])
    replies = list(Candidate.objects.filter(dialogue=below).order_by("index")) if below else []
    if replies:
        message["replies"] = [_message(reply.source, reply.text, by_key) for reply in replies]
    return message


def flat(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A nested message and everything below it as single messages."""
    replies = message.get("replies", [])
    yield {name: value for name, value in message.items() if name != "replies"}
    for reply in replies:
        yield from flat(reply)
