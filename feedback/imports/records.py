"""What every format's reader makes of a file: dialogues with their candidates and ranks, before they are rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from feedback.imports.reading import Lines, Problems

Messages = list[dict[str, str]]


@dataclass
class ImportedCandidate:
    """A reply the source has: its turns, its rank (1 is best; None: unranked), and all else the source says of it.

    is_compared  whether it is one of the replies that were compared with each other
    """

    turns: Messages
    is_compared: bool = True
    rank: int | None = None
    source: dict[str, Any] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether what it ends in has no text."""
        return not self.turns[-1]["content"].strip()


@dataclass
class ImportedDialogue:
    """A dialogue as far as its candidates answer it.

    key    the source's name for it
    notes  what is unusual about it, for the report: each is counted
    """

    key: str
    turns: Messages
    candidates: list[ImportedCandidate] = field(default_factory=list)
    source: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def has_comparison(self) -> bool:
        return any(candidate.is_compared for candidate in self.candidates)

    @property
    def characters(self) -> int:
        """Length of all its text, and that of its candidates."""
        ends = (turn for candidate in self.candidates for turn in candidate.turns)
        return sum(len(turn["content"]) for turn in (*self.turns, *ends))

    def opening(self) -> Messages | None:
        """The turns up to the first by a user; None when no user has spoken."""
        for place, turn in enumerate(self.turns):
            if turn["role"] == "user":
                return self.turns[: place + 1]
        return None


Reader = Callable[[Lines, Problems], Iterator[ImportedDialogue]]
