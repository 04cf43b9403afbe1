"""HumanEval: the beginning of a function as a prompt, and the rest of it as a demonstration.

The tests and the name they call are kept beside the dialogue as they are. They are code of strangers: nothing here, or
anywhere else in Nestbox, runs them.

Source  Chen et al. 2021, arXiv:2107.03374; the file of openai/human-eval
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from feedback.imports.fields import LONGEST_KEY
from feedback.imports.reading import Lines, Malformed, Problems, kept_fields, text_field
from feedback.imports.records import ImportedDemonstration, ImportedDialogue, ImportedText

ANNOTATOR = "human-eval"
TOLD = ("entry_point", "test")


def read(lines: Lines, problems: Problems) -> Iterator[ImportedDialogue]:
    """A dialogue with a demonstration per line."""
    for number, record in lines:
        try:
            yield read_record(record)
        except Malformed as err:
            problems.add(number, err)


def read_record(record: dict[str, Any]) -> ImportedDialogue:
    """The prompt, the solution to imitate, and what would test it."""
    key = text_field(record, "task_id")
    if not key or len(key) > LONGEST_KEY:
        raise Malformed(f"field task_id should have 1 to {LONGEST_KEY} characters.")
    told = {name: text_field(record, name) for name in TOLD}
    others = kept_fields(record, without={"task_id", "prompt", "canonical_solution", *TOLD})
    return ImportedDialogue(
        key=key,
        turns=[{"role": "user", "content": _filled(record, "prompt")}],
        demonstrations=[ImportedDemonstration(0, [ImportedText(ANNOTATOR, _filled(record, "canonical_solution"))])],
        source=told | ({"fields": others} if others else {}),
    )


def _filled(record: dict[str, Any], name: str) -> str:
    text = text_field(record, name)
    if not text.strip():
        raise Malformed(f"field {name} is empty. Leave the line out, or fill it.")
    return text
