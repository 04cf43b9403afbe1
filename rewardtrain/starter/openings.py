"""The openings of the plant desk: what people write first, in groups that lie on one side of the split as a whole."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from rewardtrain.starter.phrasing import Sentence, plant_words
from rewardtrain.starter.questions import USER_BY_KIND
from rewardtrain.starter.violations import PROVOCATIONS
from rewardtrain.starter.world import ATTRIBUTES, OUTSIDE, PLANTS, PROBLEMS, STRANGERS

SPLITS = ("train", "validation", "test")
TEST_SHARE, VALIDATION_SHARE = 0.22, 0.10


@dataclass(frozen=True)
class Opening:
    """A first user turn.

    group  "subject|question" or "subject|provocation"; no two splits share one
    kind   everyday or provoking
    rule   the rule it is meant to break, when provoking
    split  train, validation or test
    """

    text: str
    group: str
    kind: str
    rule: str | None
    split: str


@dataclass(frozen=True)
class _Group:
    """What may be asked under one group: the sentences for it, the words for their slots, how many to take."""

    key: str
    sentences: list[Sentence]
    words: dict[str, str]
    wanted: int
    rule: str | None = None


@cache
def openings(seed: int = 0) -> tuple[Opening, ...]:
    """All openings of the desk, the same for the same seed, in a shuffled order.

    Every fourth way of putting a question is kept for the test split, so a test opening shares neither its group nor
    its wording with one that is trained on. Openings differ in more than case and punctuation.
    """
    rng = random.Random(f"openings {seed}")
    found: dict[str, Opening] = {}
    for group in _groups(rng):
        split = _split(rng)
        for text in _texts(group, split, rng):
            kind = "provoking" if group.rule else "everyday"
            found.setdefault(normal_text(text), Opening(text, group.key, kind, group.rule, split))
    shuffled = list(found.values())
    rng.shuffle(shuffled)
    return tuple(shuffled)


def normal_text(text: str) -> str:
    """A text without what typing habits change: case, punctuation, a greeting in front."""
    plain = " ".join(re.findall(r"[a-z0-9']+", text.lower()))
    return re.sub(r"^(hi|hello|hey) ", "", plain)


def _split(rng: random.Random) -> str:
    return rng.choices(SPLITS, (1 - TEST_SHARE - VALIDATION_SHARE, VALIDATION_SHARE, TEST_SHARE))[0]


def _groups(rng: random.Random) -> Iterator[_Group]:
    for plant in PLANTS:
        words = plant_words(plant)
        for attribute in ATTRIBUTES:
            yield _Group(f"{plant}|{attribute}", USER_BY_KIND["ask", attribute], words, 3)
        for key in rng.sample(list(PROBLEMS), 8):
            signs = words | {"signs": rng.choice(PROBLEMS[key].signs)}
            ways = [*USER_BY_KIND["problem", ""], *USER_BY_KIND["problem", key]]
            yield _Group(f"{plant}|{key}", ways, signs, 1)
        yield _Group(f"{plant}|care", USER_BY_KIND["care", ""], words, 1)
        yield _Group(f"{plant}|unlearned", USER_BY_KIND["unlearned", ""], words, 1)
        for rule, scenarios in PROVOCATIONS.items():
            for scenario in scenarios:
                about = f"{rule}:{scenario}"
                yield _Group(f"{plant}|{about}", USER_BY_KIND["provoke", about], words, 1, rule)
    for stranger in STRANGERS:
        attribute = rng.choice(list(ATTRIBUTES))
        yield _Group(f"{stranger}|{attribute}", USER_BY_KIND["ask", attribute], plant_words(stranger), 1)
    for key in rng.sample(list(OUTSIDE), 60):
        yield _Group(key, [Sentence("outside", "", OUTSIDE[key])], {}, 1)


def _texts(group: _Group, split: str, rng: random.Random) -> list[str]:
    """Some ways of putting a group's question, as people type them."""
    sentences = group.sentences
    if len(sentences) > 1:
        sentences = [one for place, one in enumerate(sentences) if (place % 4 == 3) == (split == "test")]
    chosen = rng.sample(sentences, min(group.wanted, len(sentences)))
    return [as_typed(sentence.fill(group.words), rng) for sentence in chosen]


def as_typed(text: str, rng: random.Random) -> str:
    """A text as people type it: mostly as written, sometimes in lower case, without its mark, or after a greeting."""
    draw = rng.random()
    if draw < 0.12:
        return text.lower()
    if draw < 0.20:
        return text.lower().rstrip(".?")
    if draw < 0.28 and text.endswith("?"):
        return f"{rng.choice(('Hi', 'Hello'))}, {text if text.startswith('I ') else text[0].lower() + text[1:]}"
    return text
