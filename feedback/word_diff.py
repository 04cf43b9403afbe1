"""Which words of a text are new beside another one. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher


@dataclass(frozen=True)
class Stretch:
    """A piece of text, new or not. Plain text: whoever shows it escapes it."""

    text: str
    is_new: bool


def marked_words(before: str, after: str) -> list[Stretch]:
    """`after` cut into stretches, those that `before` lacks marked as new; joined they are `after` again.

    Words are compared as written, punctuation included; the space between two new words is new with them.

    >>> [(s.text, s.is_new) for s in marked_words("Water it once.", "Please water it once.")]
    [('Please water', True), (' it once.', False)]
    """
    words = [match.span() for match in re.finditer(r"\S+", after)]
    texts = [after[start:end] for start, end in words]
    matcher = SequenceMatcher(a=before.split(), b=texts, autojunk=False)
    known = {place for block in matcher.get_matching_blocks() for place in range(block.b, block.b + block.size)}
    stretches: list[Stretch] = []
    reached = 0
    for is_new, start, end in _runs(words, known):
        if is_new and start > reached:
            stretches.append(Stretch(after[reached:start], False))
            reached = start
        stretches.append(Stretch(after[reached:end], is_new))
        reached = end
    return _joined([*stretches, Stretch(after[reached:], False)])


def _runs(words: list[tuple[int, int]], known: set[int]) -> list[tuple[bool, int, int]]:
    """(new, start, end) of each run of words that are all new or all known."""
    runs: list[tuple[bool, int, int]] = []
    for place, (start, end) in enumerate(words):
        is_new = place not in known
        if runs and runs[-1][0] == is_new:
            runs[-1] = (is_new, runs[-1][1], end)
        else:
            runs.append((is_new, start, end))
    return runs


def _joined(stretches: list[Stretch]) -> list[Stretch]:
    """Neighbours of the same kind as one, nothing empty."""
    joined: list[Stretch] = []
    for stretch in stretches:
        if joined and joined[-1].is_new == stretch.is_new:
            joined[-1] = Stretch(joined[-1].text + stretch.text, stretch.is_new)
        elif stretch.text:
            joined.append(stretch)
    return joined
