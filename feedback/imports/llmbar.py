"""LLMBar: pairs of replies to an instruction, with the label that its authors call objective.

A record becomes a comparison of two candidates and one ranking. What is known to be right can later be asked again to
see who reads with care, so dialogue and ranking say that theirs is a gold label.

Source  Zeng et al. 2024, arXiv:2310.07641; the files of princeton-nlp/LLMBar
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from feedback.imports.reading import Lines, Malformed, Problems, kept_fields, shown, text_field
from feedback.imports.records import ImportedCandidate, ImportedDialogue, ImportedRanking

ANNOTATOR = "llmbar"
OUTPUTS = ("output_1", "output_2")
RANKS: dict[int, list[int | None]] = {1: [1, 2], 2: [2, 1]}  # by the label: the better output
SUBSETS = ("Natural", "GPTInst", "GPTOut", "Manual", "Neighbor")  # the files name theirs by their folder alone


def read(lines: Lines, problems: Problems) -> Iterator[ImportedDialogue]:
    """One comparison with its gold label per record."""
    subset = subset_of(lines.path)
    for number, record in lines:
        try:
            yield read_record(number, record, subset)
        except Malformed as err:
            problems.add(number, err)


def subset_of(path: Path) -> str:
    """The subset a file is of, by the folder it lies in; empty where that is none of the five.

    >>> subset_of(Path("LLMBar/Adversarial/Manual/dataset.json")), subset_of(Path("dataset.json"))
    ('Manual', '')
    """
    folder = path.absolute().parent.name
    return folder if folder in SUBSETS else ""


def read_record(number: int, record: dict[str, Any], subset: str) -> ImportedDialogue:
    """The input, both outputs, and which one is right."""
    content = text_field(record, "input")
    if not content.strip():
        raise Malformed("field input is empty. Leave the record out, or fill it.")
    label = _label(record)
    others = kept_fields(record, without={"input", "label", *OUTPUTS})
    return ImportedDialogue(
        key=f"{subset} {number}".strip(),
        turns=[{"role": "user", "content": content}],
        candidates=[
            ImportedCandidate(
                turns=[{"role": "assistant", "content": text_field(record, name)}], source={"field": name}
            )
            for name in OUTPUTS
        ],
        rankings=[ImportedRanking(ANNOTATOR, RANKS[label], source={"gold": True})],
        source={"gold": True} | ({"subset": subset} if subset else {}) | ({"fields": others} if others else {}),
        notes=(f"records of {subset}" if subset else "records of a subset that the folder does not name",),
    )


def _label(record: dict[str, Any]) -> int:
    label = record.get("label")
    if type(label) is not int or label not in RANKS:
        raise Malformed(f"field label should be 1 or 2, the better output, not {shown(label)}. Is this LLMBar?")
    return label
