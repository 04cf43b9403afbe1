"""Reranking: of several replies to one prompt the one that preference and rules put first. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence


def log_rerank_scores(
    preferences: Sequence[float] | None, followed: Sequence[Sequence[float]] | None = None
) -> list[float]:
    """The logarithm of each reply's rerank score, of replies to the same prompt.

        score_j = exp(R_j) / (exp(R_j) + exp(mean R)) · (Π_i P_ij)^(1/n)

    preferences  R, one score per reply, as the reward model gives it; None where there is no reward model
    followed     log P, per reply for each of n rules the log-probability that it was followed; None or empty rows where
                 there are no rules, which leaves the preference alone
    Returns      one logarithm per reply, at most 0; -inf for a reply that surely broke a rule
    Raises       ValueError where both are missing, counts differ, or a number is none
    Source       Glaese et al. 2022, arXiv:2209.14375. The one transcription of its formula that we found lacks the
                 exponential in the numerator, and the score would fall as the preference rises; we take the form that
                 rises. Worked out in logarithms, where neither a large score nor a product of small chances is lost.
    """
    if preferences is None and not followed:
        raise ValueError("Give preferences, chances that rules were followed, or both: there is nothing to rank by.")
    count = len(preferences if preferences is not None else followed or ())
    if followed and len(followed) != count:
        raise ValueError(f"There are {count} preferences, but rules were asked about {len(followed)} replies.")
    wanted = preferred(preferences) if preferences is not None else [0.0] * count
    kept = [rules_followed(row) for row in followed] if followed else [0.0] * count
    return [one + other for one, other in zip(wanted, kept, strict=True)]


def preferred(preferences: Sequence[float]) -> list[float]:
    """The first factor, as logarithms: log σ(R_j - mean R).

    >>> preferred([2.0, 2.0]) == [-math.log(2)] * 2
    True
    """
    if not all(math.isfinite(score) for score in preferences):
        raise ValueError(f"A preference score is a finite number; among these one is not: {list(preferences)}.")
    mean = math.fsum(preferences) / len(preferences) if preferences else 0.0
    return [_log_sigmoid(score - mean) for score in preferences]


def rules_followed(logprobs: Sequence[float]) -> float:
    """The second factor, as a logarithm: the mean of log P over the rules; 0 without rules.

    >>> round(math.exp(rules_followed([math.log(0.9), math.log(0.4)])), 6)
    0.6
    """
    if any(math.isnan(one) or one > 0 for one in logprobs):
        raise ValueError(f"The logarithm of a chance is at most 0; among these one is not: {list(logprobs)}.")
    return math.fsum(logprobs) / len(logprobs) if logprobs else 0.0


def best_first(scores: Sequence[float]) -> list[int]:
    """Places from the best to the worst; of equal ones the earlier draw first.

    >>> best_first([-2.0, -1.0, -2.0, -0.5])
    [3, 1, 0, 2]
    """
    return sorted(range(len(scores)), key=lambda place: (-scores[place], place))


def _log_sigmoid(value: float) -> float:
    return -math.log1p(math.exp(-value)) if value >= 0 else value - math.log1p(math.exp(value))
