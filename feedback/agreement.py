"""How far annotators agree, and how certain a share is. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Share:
    """A share of a count, with its 95 % Wilson interval; hits may hold halves, for what is half right."""

    hits: float
    total: int

    @property
    def value(self) -> float | None:
        return self.hits / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float] | None:
        return wilson_interval(self.hits, self.total) if self.total else None


def wilson_interval(hits: float, total: float, z: float = Z_95) -> tuple[float, float]:
    """The interval a share lies in with 95 % confidence.

    Raises  ValueError when total is not positive
    Source  Wilson 1927, J. Am. Stat. Assoc. 22, 209-212
    """
    if total <= 0:
        raise ValueError("A share of nothing has no interval.")
    share = hits / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def pair_agreement(answers: Iterable[Iterable[Mapping[int, int]]]) -> Share:
    """How often two annotators put a pair of replies in the same order, over pairs neither of them ties.

    answers  per comparison, the ranks {candidate: rank} of each annotator
    Source   Ouyang et al. 2022, arXiv:2203.02155, section 3.4 (there as a mean over labelers)
    """
    same = total = 0
    for rankings in answers:
        for one, other in combinations(list(rankings), 2):
            for a, b in combinations(sorted(set(one) & set(other)), 2):
                first, second = one[a] - one[b], other[a] - other[b]
                if first and second:
                    total += 1
                    same += (first > 0) == (second > 0)
    return Share(same, total)


def noise_ceiling(agreement: float) -> float | None:
    """The best accuracy a model can show against annotators who agree this often; None below chance.

    With each right with probability a, two agree with p = 2a² − 2a + 1, so a = (1 + √(2p − 1)) / 2.
    """
    return (1 + math.sqrt(2 * agreement - 1)) / 2 if agreement >= 0.5 else None
