r"""hh-rlhf: pairs of whole transcripts as text, one pair per line.

`chosen` and `rejected` are transcripts whose turns begin with "\n\nHuman:" and "\n\nAssistant:". There is no prompt:
what the two share, turn by turn, is the dialogue, and what follows are the two candidates, usually one turn each.

Source  Bai et al. 2022, arXiv:2204.05862; the files of anthropics/hh-rlhf
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from feedback.imports.reading import Lines, Malformed, Problems, kept_fields, text_field
from feedback.imports.records import ImportedCandidate, ImportedDialogue, Messages

MARK = re.compile(r"\n\n(Human|Assistant):")
ROLES = {"Human": "user", "Assistant": "assistant"}
SIDES = ("chosen", "rejected")
NO_SPACE = "no_space_before"  # places of turns whose mark is not followed by a space, so that the text can be rebuilt


def read(lines: Lines, problems: Problems) -> Iterator[ImportedDialogue]:
    """One comparison of two candidates per line."""
    for number, record in lines:
        try:
            yield read_pair(number, record)
        except Malformed as err:
            problems.add(number, err)


def read_pair(number: int, record: dict[str, Any]) -> ImportedDialogue:
    """The dialogue both transcripts share, and what each makes of it."""
    chosen, rejected = (split_transcript(text_field(record, side), side) for side in SIDES)
    shared = shared_turns(chosen, rejected)
    others = kept_fields(record, without=set(SIDES))
    is_tie = chosen == rejected
    return ImportedDialogue(
        key=f"line {number}",
        turns=_messages(chosen[:shared]),
        candidates=[
            _candidate("chosen", chosen[shared:], rank=1),
            _candidate("rejected", rejected[shared:], rank=1 if is_tie else 2),
        ],
        source=_spacing(chosen[:shared]) | ({"fields": others} if others else {}),
        notes=tuple(_notes(chosen, rejected, shared)),
    )


def split_transcript(text: str, field: str) -> list[tuple[str, str]]:
    """(speaker, text after the mark) of every turn; written one after the other with their marks they are the text.

    >>> split_transcript("\\n\\nHuman: Hi\\n\\nAssistant: Hello.", "chosen")
    [('Human', ' Hi'), ('Assistant', ' Hello.')]
    """
    before, *parts = MARK.split(text)
    if before or not parts:
        raise Malformed(
            f"field {field} should begin with a blank line and 'Human:', and mark every turn so. Is this hh-rlhf?"
        )
    return list(zip(parts[::2], parts[1::2], strict=True))


def shared_turns(chosen: list[tuple[str, str]], rejected: list[tuple[str, str]]) -> int:
    """How many turns both begin with, leaving each at least one of its own.

    An equal pair shares all but its last turn: the two candidates are that turn, tied.
    """
    most = min(len(chosen), len(rejected)) - 1
    return next((place for place in range(most) if chosen[place] != rejected[place]), most)


def _candidate(side: str, turns: list[tuple[str, str]], rank: int) -> ImportedCandidate:
    return ImportedCandidate(turns=_messages(turns), rank=rank, source={"field": side} | _spacing(turns))


def _messages(turns: list[tuple[str, str]]) -> Messages:
    return [{"role": ROLES[speaker], "content": text.removeprefix(" ")} for speaker, text in turns]


def _spacing(turns: list[tuple[str, str]]) -> dict[str, Any]:
    unspaced = [place for place, (_, text) in enumerate(turns) if not text.startswith(" ")]
    return {NO_SPACE: unspaced} if unspaced else {}


def _notes(chosen: list[tuple[str, str]], rejected: list[tuple[str, str]], shared: int) -> Iterator[str]:
    ends = (chosen[-1], rejected[-1])
    if chosen == rejected:
        yield "equal pairs, kept as ties"
    elif shared < max(len(chosen), len(rejected)) - 1:
        yield "pairs that differ before their last turn"
    if any(speaker == "Assistant" and not text.strip() for speaker, text in ends):
        yield "pairs with an empty reply, kept and flagged"
    if any(speaker == "Human" for speaker, _ in ends):
        yield "pairs of which one ends in a human turn"
    if all(speaker != "Human" for speaker, _ in chosen[:shared]):
        yield "pairs that share no opening, kept but not exported"
    if any(one[0] == other[0] for turns in (chosen, rejected) for one, other in zip(turns, turns[1:], strict=False)):
        yield "pairs in which one speaker has two turns in a row"
