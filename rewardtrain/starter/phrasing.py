"""Sentences with slots: filling them in, and reading a sentence back into what it says."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from rewardtrain.starter.world import ATTRIBUTES, CARE, PLANTS, PROBLEMS, STRANGERS, TOWNS, plural, with_article

_NAMES = (*PLANTS, *STRANGERS)

SLOTS: dict[str, dict[str, str]] = {
    "plant": {name: name for name in _NAMES},
    "plants": {plural(name): name for name in _NAMES},
    "a_plant": {with_article(name): name for name in _NAMES},
    **{attribute: {phrase: key for key, phrase in values.items()} for attribute, values in ATTRIBUTES.items()},
    "cause": {problem.cause: key for key, problem in PROBLEMS.items()},
    "fix": {problem.fix: key for key, problem in PROBLEMS.items()},
    "signs": {signs: key for key, problem in PROBLEMS.items() for signs in problem.signs},
    "town": {town: town for town in TOWNS},
    "care": {care: care for care in CARE},
}
"""Slot -> {the words that may fill it: what they mean}. The three plant slots mean the plant's name."""

PLANT_SLOTS = ("plant", "plants", "a_plant")


@dataclass(frozen=True)
class Sentence:
    """A sentence of the desk.

    kind   what it does: fact, vague, tip, cause, fix, opener, filler, refusal, break, offer, ...
    about  the attribute, problem or rule it does it for; empty when it fits any
    text   its words, with slots in braces
    """

    kind: str
    about: str
    text: str

    @cached_property
    def slots(self) -> tuple[str, ...]:
        return tuple(re.findall(r"{(\w+)}", self.text))

    @cached_property
    def names_plant(self) -> bool:
        return any(slot in PLANT_SLOTS for slot in self.slots)

    def fill(self, words: Mapping[str, str]) -> str:
        """The sentence with its slots filled, its first letter a capital."""
        filled = self.text.format_map(words)
        return filled[0].upper() + filled[1:]


@dataclass(frozen=True)
class Reading:
    """What a sentence says: the sentence of the desk it is, and the meaning of each slot."""

    sentence: Sentence
    meanings: dict[str, str] = field(default_factory=dict)

    @property
    def plant(self) -> str | None:
        return next((self.meanings[slot] for slot in PLANT_SLOTS if slot in self.meanings), None)


def plant_words(name: str) -> dict[str, str]:
    """What the plant slots become for one plant."""
    return {"plant": name, "plants": plural(name), "a_plant": with_article(name)}


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, each with its full stop or question mark."""
    return [part for part in re.split(r"(?<=[.?!])\s+", text.strip()) if part]


class Reader:
    """Finds which of many sentences a text is. Case and a final mark are read, not asked for, when `loose`."""

    def __init__(self, sentences: Iterable[Sentence], *, loose: bool = False) -> None:
        self.loose = loose
        self._by_first: dict[str, list[tuple[re.Pattern[str], Sentence]]] = defaultdict(list)
        for sentence in sentences:
            first = _first_word(self._normal(sentence.text))
            pattern = re.compile(_pattern(self._normal(sentence.text), loose))
            self._by_first["" if "{" in first else first].append((pattern, sentence))

    def read(self, text: str) -> Reading | None:
        """The sentence a text is, or None when it is none of them."""
        if not text or (not self.loose and not text[0].isupper()):
            return None
        normal = self._normal(text)
        for pattern, sentence in (*self._by_first[_first_word(normal)], *self._by_first[""]):
            if match := pattern.fullmatch(normal):
                return Reading(sentence, _meanings(sentence, match.groups(), self.loose))
        return None

    def _normal(self, text: str) -> str:
        if self.loose:
            return text.strip().rstrip(".?!").lower()
        return text[0].lower() + text[1:]


def _first_word(text: str) -> str:
    return text.split(" ", 1)[0]


def _pattern(text: str, loose: bool) -> str:
    parts = re.split(r"{(\w+)}", text)
    return "".join(_slot_pattern(part, loose) if place % 2 else re.escape(part) for place, part in enumerate(parts))


def _slot_pattern(slot: str, loose: bool) -> str:
    words = sorted(SLOTS[slot], key=len, reverse=True)
    return f"({'|'.join(re.escape(word.lower() if loose else word) for word in words)})"


def _meanings(sentence: Sentence, words: Sequence[str], loose: bool) -> dict[str, str]:
    found = {}
    for slot, word in zip(sentence.slots, words, strict=True):
        table = {key.lower(): meaning for key, meaning in SLOTS[slot].items()} if loose else SLOTS[slot]
        found[slot] = table[word]
    return found
