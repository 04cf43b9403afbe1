"""PandaLM: pairs of replies to an instruction, each pair ranked by three people on their own.

A record becomes a dialogue of one user turn, two candidates and three rankings. The turn is the instruction and, below
a blank line, the input it is about; where the input begins is kept, so that both can be told apart again.

Source  Wang et al. 2023, arXiv:2306.05087; the test set of WeOpenML/PandaLM
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from feedback.imports.instructions import Instruction
from feedback.imports.reading import Lines, Malformed, Problems, kept_fields, shown, text_field
from feedback.imports.records import ImportedCandidate, ImportedDialogue, ImportedRanking

RESPONSES = ("response1", "response2")
ANNOTATORS = ("annotator1", "annotator2", "annotator3")
RANKS: dict[int, list[int | None]] = {
    0: [1, 1],
    1: [1, 2],
    2: [2, 1],
}  # by the label: which reply is better; 0: neither


def read(lines: Lines, problems: Problems) -> Iterator[ImportedDialogue]:
    """One comparison with three rankings per record."""
    for number, record in lines:
        try:
            yield read_record(record)
        except Malformed as err:
            problems.add(number, err)


def read_record(record: dict[str, Any]) -> ImportedDialogue:
    """The instruction, both replies to it, and what each of the three says of them."""
    asked = Instruction(text_field(record, "instruction"), text_field(record, "input"))
    asked.refuse_empty()
    others = kept_fields(record, without={"instruction", "input", *RESPONSES, *ANNOTATORS})
    rankings = [ImportedRanking(name, RANKS[_label(record, name)]) for name in ANNOTATORS]
    models = _models(others.get("cmp_key"))
    replies = [_candidate(record, name, model) for name, model in zip(RESPONSES, models, strict=True)]
    return ImportedDialogue(
        key=str(_idx(record)),
        turns=asked.turns,
        candidates=replies,
        rankings=rankings,
        source={"input_begins": asked.input_begins, "fields": others},
        group=asked.group,
        notes=tuple(_notes(rankings, replies)),
    )


def _idx(record: dict[str, Any]) -> int:
    idx = record.get("idx")
    if type(idx) is not int or idx < 0:
        raise Malformed(f"field idx should be a whole number from 0, not {shown(idx)}. Is this PandaLM?")
    return idx


def _label(record: dict[str, Any], name: str) -> int:
    label = record.get(name)
    if type(label) is not int or label not in RANKS:
        raise Malformed(f"field {name} should be 1 or 2, the better reply, or 0 for neither, not {shown(label)}.")
    return label


def _models(cmp_key: Any) -> tuple[str, str]:
    """What wrote the two replies, in their order; empty where the key does not say.

    >>> _models("bloom-7b_llama-7b")
    ('bloom-7b', 'llama-7b')
    """
    if not isinstance(cmp_key, str):
        return "", ""
    first, _, second = cmp_key.partition("_")
    return (first, second) if first and second and "_" not in second else ("", "")


def _candidate(record: dict[str, Any], name: str, model: str) -> ImportedCandidate:
    """A reply. Some that were the words true and false became truth values in the file; these are words again."""
    value = record.get(name)
    source: dict[str, Any] = {"field": name} | ({"model_name": model} if model else {})
    if isinstance(value, bool):
        source["value"] = value
        text = str(value).lower()
    else:
        text = text_field(record, name)
    return ImportedCandidate(turns=[{"role": "assistant", "content": text}], source=source)


def _notes(rankings: list[ImportedRanking], replies: list[ImportedCandidate]) -> Iterator[str]:
    if len({tuple(one.ranks) for one in rankings}) > 1:
        yield "comparisons on which the annotators differ, all kept"
    yield from ("rankings that tie" for one in rankings if one.ranks == RANKS[0])
    for reply in replies:
        if "value" in reply.source:
            yield "replies that are a truth value in the file, kept as its word"
        if reply.is_empty:
            yield "empty replies, kept and flagged"
