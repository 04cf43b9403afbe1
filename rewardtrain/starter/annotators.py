"""Simulated annotators: people with the oracle's taste who err in about one judgement of seven.

They take texts and return answers, and know nothing of rows, pages or models.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rewardtrain.starter import oracle
from rewardtrain.starter.corpus import follow_up_text
from rewardtrain.starter.openings import as_typed

NOISE = 0.93
"""Standard deviation of what an annotator adds to the oracle's score of a reply. Found by simulation (the tests repeat
it): with it about one judged pair in seven contradicts the oracle."""

TIE_WITHIN = 0.20
"""Replies that seem this close to an annotator get the same rank."""

BAD_BELOW = -1.5
"""When every reply seems worse than this, none is good."""

CLEAR_FROM = (0.5, 1.2, 2.4)
"""How far the best must be ahead of the next for the strengths 2, 3 and 4."""

SEES_BREACH, IMAGINES_BREACH = 0.86, 0.02

ERRS = 1 / 7
"""How often an annotator takes a broken rule for kept, or a kept one for broken."""

HOW_SURE = {0: 0.55, 1: 0.35, 2: 0.10}
"""How often they are definitely, probably or not sure: steps away from the end of the scale."""

TRIES_AGAIN = 1 / 3

Turns = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Judgement:
    """One annotator's answer to a comparison.

    ranks     a rank for each reply, in the order given; 1 is best, equal ranks tie
    all_bad   none of the replies is good
    strength  how clear the best is, 1 to 4; None when none is good or the best tie
    flags     {place of the reply: names of what is wrong with it}
    seconds   how long it took, made up
    """

    ranks: tuple[int, ...]
    all_bad: bool
    strength: int | None
    flags: dict[int, list[str]] = field(default_factory=dict)
    seconds: float = 0.0


class Annotator:
    """One simulated person. The same seed and the same questions in the same order give the same answers."""

    def __init__(self, seed: int, noise: float = NOISE) -> None:
        self.noise = noise
        self._rng = random.Random(f"annotator {seed}")

    def judge(self, turns: Turns, replies: Sequence[str]) -> Judgement:
        """Rank replies to a dialogue that ends with a user's turn.

        Raises  ValueError without replies
        """
        if not replies:
            raise ValueError("There is no reply to judge.")
        scores = [oracle.score(turns, reply) for reply in replies]
        seeming = [one.total + self._rng.gauss(0, self.noise) for one in scores]
        ranks = ranks_of(seeming, TIE_WITHIN)
        all_bad = max(seeming) < BAD_BELOW
        flags = {place: ["rule"] for place, one in enumerate(scores) if self._flags(bool(one.broken_rules))}
        strength = None if all_bad else _strength(seeming, ranks)
        return Judgement(ranks, all_bad, strength, flags, self.seconds(replies))

    def opening(self, texts: Sequence[str]) -> str:
        """Choose what to write first among some openings."""
        return self._rng.choice(texts)

    def follow_up(self, turns: Turns) -> str:
        """What the annotator writes after a dialogue's last reply."""
        return as_typed(follow_up_text([dict(turn) for turn in turns], self._rng), self._rng)

    def goes_on(self, exchanges: int) -> bool:
        """True if the annotator writes another turn after this many exchanges: half do, after four nobody."""
        return exchanges < 4 and self._rng.random() < 0.5

    def verdict(self, is_broken: bool) -> int:
        """On five steps whether a rule was broken, 1 definitely, 5 definitely not; wrong in one case of seven."""
        if self._rng.random() < ERRS:
            is_broken = not is_broken
        away = self._rng.choices(list(HOW_SURE), list(HOW_SURE.values()))[0]
        return 1 + away if is_broken else 5 - away

    def tries_again(self, exchanges: int) -> bool:
        """True if a prober whom the model did not fall for writes once more: a third do, once."""
        return exchanges < 2 and self._rng.random() < TRIES_AGAIN

    def _flags(self, is_broken: bool) -> bool:
        return self._rng.random() < (SEES_BREACH if is_broken else IMAGINES_BREACH)

    def seconds(self, replies: Sequence[str]) -> float:
        """How long reading these and answering took, made up."""
        words = sum(len(reply.split()) for reply in replies)
        return round(4 + words / 4 * self._rng.uniform(0.7, 1.4), 1)


def ranks_of(scores: Sequence[float], tie_within: float) -> tuple[int, ...]:
    """Dense ranks from 1 for the highest score; a reply ties with the one before it when they are close.

    >>> ranks_of([0.0, 2.0, 1.9, -1.0], tie_within=0.2)
    (2, 1, 1, 3)
    """
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    ranks = [0] * len(scores)
    rank, last = 0, float("inf")
    for place in order:
        if last - scores[place] > tie_within:
            rank += 1
            last = scores[place]
        ranks[place] = rank
    return tuple(ranks)


def _strength(seeming: Sequence[float], ranks: Sequence[int]) -> int | None:
    if len(seeming) < 2 or list(ranks).count(1) > 1:
        return None
    best, second = sorted(seeming, reverse=True)[:2]
    return 1 + sum(best - second >= bound for bound in CLEAR_FROM)
