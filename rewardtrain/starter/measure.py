"""What replies at the plant desk come to: rule breaches, fluency, variety, and which of two policies is preferred."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from rewardtrain.starter import oracle
from rewardtrain.starter.oracle import OracleScore

Turns = Sequence[Mapping[str, str]]
Opening = str | Turns


@dataclass(frozen=True)
class ReplyFigures:
    """Figures of one policy's replies. Rates are shares from 0 to 1."""

    violation_rate: float
    fluent_rate: float
    distinct_rate: float
    mean_tokens: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class Preference:
    """What the oracle says of two policies' replies to the same prompts.

    win_rate  share it prefers of the second policy's, among the prompts on which it prefers one; None if all tie
    tie_rate  share of the prompts on which it prefers neither
    """

    win_rate: float | None
    tie_rate: float


def as_turns(opening: Opening) -> list[dict[str, str]]:
    """A dialogue as turns; a text alone is the user's first turn."""
    if isinstance(opening, str):
        return [{"role": "user", "content": opening}]
    return [dict(turn) for turn in opening]


def word_count(reply: str) -> int:
    """Words and marks: what stands in for tokens when no tokenizer is given."""
    return len(re.findall(r"\w+|[^\w\s]", reply))


def figures(pairs: Iterable[tuple[Opening, str]], count_tokens: Callable[[str], int] = word_count) -> ReplyFigures:
    """The figures of replies to openings, one reply each.

    pairs         (opening, reply); an opening is a text or the turns of a dialogue
    count_tokens  the length of a reply
    Raises        ValueError without pairs
    """
    pairs = list(pairs)
    if not pairs:
        raise ValueError("There is no reply to measure.")
    scores = oracle_scores(pairs)
    return ReplyFigures(
        violation_rate=_mean(bool(one.broken_rules) for one in scores),
        fluent_rate=_mean(one.fluent for one in scores),
        distinct_rate=len({reply for _, reply in pairs}) / len(pairs),
        mean_tokens=_mean(count_tokens(reply) for _, reply in pairs),
    )


def oracle_scores(pairs: Iterable[tuple[Opening, str]]) -> list[OracleScore]:
    """The oracle's score of each reply to its opening."""
    return [oracle.score(as_turns(opening), reply) for opening, reply in pairs]


def preference(openings: Sequence[Opening], before: Sequence[str], after: Sequence[str]) -> Preference:
    """How often the oracle prefers the replies `after` to those `before`, opening by opening.

    Raises  ValueError if the counts differ or are zero
    """
    if not openings or not len(openings) == len(before) == len(after):
        raise ValueError(f"{len(openings)} openings need as many replies; got {len(before)} and {len(after)}.")
    old = oracle_scores(zip(openings, before, strict=True))
    new = oracle_scores(zip(openings, after, strict=True))
    verdicts = [oracle.prefers(one, other) for one, other in zip(new, old, strict=True)]
    decided = [verdict for verdict in verdicts if verdict]
    win_rate = _mean(verdict > 0 for verdict in decided) if decided else None
    return Preference(win_rate, 1 - len(decided) / len(verdicts))


def judged_pairs(opening: Opening, replies: Sequence[str], ranks: Sequence[int | None]) -> list[tuple[int, int, bool]]:
    """(place preferred, place not preferred, whether the oracle agrees) for each pair neither party ties.

    ranks  1 is best, equal ranks tie, None is unranked
    """
    scores = oracle_scores((opening, reply) for reply in replies)
    found = []
    for better, better_rank in enumerate(ranks):
        for worse, worse_rank in enumerate(ranks):
            if better_rank is None or worse_rank is None or better_rank >= worse_rank:
                continue
            if verdict := oracle.prefers(scores[better], scores[worse]):
                found.append((better, worse, verdict > 0))
    return found


def ceiling(judgements: Iterable[tuple[Opening, Sequence[str], Sequence[int | None]]]) -> float | None:
    """The share of judged pairs that agree with the oracle: what no reward model can beat. None without such pairs."""
    agreed = [agrees for judgement in judgements for *_, agrees in judged_pairs(*judgement)]
    return _mean(agreed) if agreed else None


def tie_rate(openings: Sequence[Opening], replies: Sequence[Sequence[str]]) -> float | None:
    """The share of pairs of replies to one prompt that the oracle ties. None without a pair."""
    ties = []
    for opening, candidates in zip(openings, replies, strict=True):
        scores = oracle_scores((opening, reply) for reply in candidates)
        ties += [
            oracle.prefers(first, second) == 0 for place, first in enumerate(scores) for second in scores[place + 1 :]
        ]
    return _mean(ties) if ties else None


def _mean(numbers: Iterable[float]) -> float:
    numbers = list(numbers)
    return sum(numbers) / len(numbers)
