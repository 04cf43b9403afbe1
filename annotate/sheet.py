"""The ranking sheet: a row per reply, and the order as a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from annotate.answers import FLAGS, Answer, name_of
from feedback.models import Candidate, Slot
from feedback.rankings import dense

READY, WAITING, FAILED = "ready", "waiting", "failed"
NUMBER_WORDS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Row:
    """A reply's row on the sheet: its letter, its text when it is there, and the place it was given."""

    letter: str
    place: int  # 0-based, as shown
    name: str  # its letter until it is there
    candidate: Candidate | None
    state: str
    rank: int | None = None
    flags: tuple[str, ...] = ()
    tells: bool = False  # the first that failed says why, and offers what can be done

    @property
    def flag_words(self) -> list[str]:
        return [FLAGS.get(flag, "Flagged") for flag in self.flags]


def rows(slot: Slot, shown: Sequence[Candidate | None], answer: Answer, missing: str = WAITING) -> list[Row]:
    """A row per reply in the order shown; `missing` is the state of those that are not there."""
    absent = [place for place, candidate in enumerate(shown) if candidate is None]
    return [
        _missing_row(place, missing, tells=missing == FAILED and place == absent[0])
        if candidate is None
        else _ready_row(place, candidate, name_of(slot, candidate.pk), answer)
        for place, candidate in enumerate(shown)
    ]


def _missing_row(place: int, state: str, *, tells: bool) -> Row:
    letter = ascii_uppercase[place]
    return Row(letter=letter, place=place, name=letter, candidate=None, state=state, tells=tells)


def _ready_row(place: int, candidate: Candidate, name: str, answer: Answer) -> Row:
    return Row(
        letter=ascii_uppercase[place],
        place=place,
        name=name,
        candidate=candidate,
        state=READY,
        rank=answer.ranks.get(name),
        flags=tuple(answer.flags.get(name, ())),
    )


def order_of(built: Sequence[Row]) -> list[list[str]]:
    """The letters by place, ties together: [["A", "C"], ["D"], ["B"]] is said as A = C › D › B."""
    ranks = dense({row.letter: row.rank for row in built if row.rank is not None})
    places = range(1, len(set(ranks.values())) + 1)
    return [[letter for letter, rank in ranks.items() if rank == place] for place in places]


def order_in_words(built: Sequence[Row], *, all_bad: bool = False) -> str:
    """The order as one sentence: "A = C › D › B"."""
    return "none is good" if all_bad else " › ".join(" = ".join(letters) for letters in order_of(built))


def sheet(built: list[Row], answer: Answer, *, fewer_because: str = "") -> dict[str, Any]:
    """What the sheet's templates take."""
    arrived = [row for row in built if row.candidate is not None]
    return {
        "rows": built,
        "arrived": len(arrived),
        "arrived_in_words": NUMBER_WORDS[len(arrived)],
        "seen": ".".join(str(row.place) for row in arrived),
        "numbers": range(1, len(built) + 1),
        "order": order_of(built),
        "strength": answer.strength,
        "all_bad": answer.all_bad,
        "fewer_because": f"There are {NUMBER_WORDS[len(built)]} replies here. {fewer_because}" if fewer_because else "",
    }
