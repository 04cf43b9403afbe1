"""How alike two texts are: the same but for case and blanks, or nearly the same, by the words they share."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Hashable, Iterable
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)
SHINGLE = 3  # words that are looked at together
NEARLY = 0.8  # of all shingles that either text has, the share that both have


def normalised(text: str) -> str:
    """The words of a text in small letters, one blank between them.

    >>> normalised("Water it  LESS, please!")
    'water it less please'
    """
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())) or " ".join(text.split())


def fingerprint(text: str) -> str:
    """The same for texts that differ in case, blanks and marks alone."""
    return hashlib.sha256(normalised(text).encode("utf-8", "replace")).hexdigest()


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Every run of three words; of a text with fewer words, all of them.

    >>> sorted(shingles("water it less please"))
    [('it', 'less', 'please'), ('water', 'it', 'less')]
    """
    words = normalised(text).split()
    return frozenset(tuple(words[at : at + SHINGLE]) for at in range(max(1, len(words) - SHINGLE + 1)))


def likeness(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> float:
    """Jaccard's index of two sets of shingles: 1 for the same set, 0 where they share nothing.

    Source  Broder 1997, On the resemblance and containment of documents, section 2
    """
    return len(one & other) / len(one | other)


def nearest(text: str, others: Iterable[tuple[Key, str]]) -> tuple[Key, float] | None:
    """The most alike of other texts and how alike it is, if it is nearly the same; of equals the first. Else None."""
    mine = shingles(text)
    found = ((key, likeness(mine, shingles(other))) for key, other in others)
    best = max(found, key=lambda pair: pair[1], default=None)
    return best if best is not None and best[1] >= NEARLY else None
