"""What is reported of a reward model or a run: plain numbers from plain numbers, no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

from feedback.agreement import Share, clustered_share


@dataclass(frozen=True)
class ScoredPair:
    """Two replies of one prompt of which a person preferred the first. Scores are the reward model's.

    comparison  which ranking it comes from: the pairs of one rise and fall together. None when it stands alone
    """

    chosen_score: float
    rejected_score: float
    chosen_length: int = 0
    rejected_length: int = 0
    strength: int | None = None
    comparison: int | None = None

    @property
    def credit(self) -> float:
        """1 if the model agrees with the person, 0 if not, ½ if it scores both the same."""
        return _credit(self.chosen_score, self.rejected_score)

    @property
    def length_credit(self) -> float:
        """The same for "the longer reply wins"."""
        return _credit(self.chosen_length, self.rejected_length)


def _credit(chosen: float, rejected: float) -> float:
    if math.isclose(chosen, rejected, rel_tol=0, abs_tol=1e-12):
        return 0.5
    return float(chosen > rejected)


def pair_accuracy(pairs: Iterable[ScoredPair]) -> Share:
    """How often the higher score is the preferred reply's; an equal score counts half."""
    return _share(pairs, lambda pair: pair.credit)


def _share(pairs: Iterable[ScoredPair], credit: Callable[[ScoredPair], float]) -> Share:
    groups: dict[object, list[float]] = {}
    for place, pair in enumerate(pairs):
        key = ("alone", place) if pair.comparison is None else pair.comparison
        groups.setdefault(key, []).append(credit(pair))
    return clustered_share(groups.values())


def accuracy_by_strength(pairs: Sequence[ScoredPair]) -> dict[int | None, Share]:
    """`pair_accuracy` for each strength that occurs, weakest first; None is "not said"."""
    strengths = sorted({pair.strength for pair in pairs}, key=lambda strength: (strength is None, strength or 0))
    return {strength: pair_accuracy(pair for pair in pairs if pair.strength == strength) for strength in strengths}


def length_baseline(pairs: Iterable[ScoredPair]) -> Share:
    """The accuracy of always preferring the longer reply; equal lengths count half."""
    return _share(pairs, lambda pair: pair.length_credit)


def most_alike_in_length(pairs: Sequence[ScoredPair]) -> list[ScoredPair]:
    """The half of the pairs whose two lengths differ least, where length helps least."""
    by_difference = sorted(pairs, key=lambda pair: abs(pair.chosen_length - pair.rejected_length))
    return by_difference[: (len(by_difference) + 1) // 2]


@dataclass(frozen=True)
class CalibrationBin:
    """Pairs whose predicted probability fell into one range."""

    predicted: float
    observed: float
    count: int


@dataclass(frozen=True)
class Calibration:
    """Whether a predicted probability means what it says."""

    error: float
    brier: float
    bins: tuple[CalibrationBin, ...]

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def calibration(probabilities: Sequence[float], outcomes: Sequence[float], *, bins: int = 10) -> Calibration:
    """Expected calibration error over equal ranges of probability, and the Brier score.

    probabilities  predicted, 0 … 1
    outcomes       0 or 1 (½ for a tie)
    """
    if len(probabilities) != len(outcomes):
        raise ValueError(f"{len(probabilities)} probabilities, but {len(outcomes)} outcomes.")
    if not probabilities:
        return Calibration(0.0, 0.0, ())
    members: dict[int, list[int]] = {}
    for place, probability in enumerate(probabilities):
        members.setdefault(min(int(probability * bins), bins - 1), []).append(place)
    made = tuple(
        CalibrationBin(
            predicted=sum(probabilities[place] for place in own) / len(own),
            observed=sum(outcomes[place] for place in own) / len(own),
            count=len(own),
        )
        for _, own in sorted(members.items())
    )
    count = len(probabilities)
    error = sum(one.count * abs(one.predicted - one.observed) for one in made) / count
    brier = sum((p - o) ** 2 for p, o in zip(probabilities, outcomes, strict=True)) / count
    return Calibration(error, brier, made)


def pair_calibration(pairs: Sequence[ScoredPair], *, bins: int = 10) -> Calibration:
    """Calibration of sigmoid(score difference), each pair taken once with the likelier reply first."""
    probabilities, outcomes = [], []
    for pair in pairs:
        difference = pair.chosen_score - pair.rejected_score
        probabilities.append(_sigmoid(abs(difference)))
        outcomes.append(0.5 if difference == 0 else float(difference > 0))
    return calibration(probabilities, outcomes, bins=bins)


def roc_auc(scores: Sequence[float], positives: Sequence[bool]) -> float | None:
    """How often a positive scores above a negative, an equal score counting half. None where one of them is missing.

    By the ranks of the sorted scores, equal ones sharing their mean rank: O(n log n).
    """
    if len(scores) != len(positives):
        raise ValueError(f"{len(scores)} scores, but {len(positives)} labels.")
    if any(math.isnan(score) for score in scores):
        raise ValueError("A score is no number, so nothing can be put in order by it.")
    count = sum(map(bool, positives))
    if not 0 < count < len(scores):
        return None
    order = sorted(range(len(scores)), key=lambda place: scores[place])
    rank_sum, start = 0.0, 0
    while start < len(order):
        end = start
        while end < len(order) and scores[order[end]] == scores[order[start]]:
            end += 1
        mean_rank = (start + 1 + end) / 2
        rank_sum += mean_rank * sum(bool(positives[place]) for place in order[start:end])
        start = end
    return (rank_sum - count * (count + 1) / 2) / (count * (len(scores) - count))


TEMPERATURES = (0.05, 20.0)
"""What calibration may come to. Beyond it logits say nothing, or everything with certainty."""


def auc_error(auc: float, positives: int, negatives: int) -> float:
    """The standard error of an AUC found from so many of either kind; 1.96 of them to each side are a 95 % interval.

    Source  Hanley and McNeil 1982, Radiology 143, 29-36, equation 1

    >>> round(auc_error(0.8095, 9, 21), 3)
    0.096
    """
    if positives < 1 or negatives < 1:
        raise ValueError("An AUC wants at least one of either kind.")
    two_positives, two_negatives = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc)
    variance += (positives - 1) * (two_positives - auc**2) + (negatives - 1) * (two_negatives - auc**2)
    return math.sqrt(max(0.0, variance) / (positives * negatives))


def fit_temperature(logits: Sequence[float], targets: Sequence[float], weights: Sequence[float]) -> float | None:
    """The temperature by which to divide logits so that held-out targets are likeliest; None where none can be told.

    logits   at temperature 1
    targets  0 … 1, how likely it is that the answer is yes
    weights  how much each counts
    None     where targets are all alike, or the best temperature lies outside of `TEMPERATURES`: logits that put
             things in the wrong order want an infinite one
    Source   Guo et al. 2017, arXiv:1706.04599. The loss is convex in 1 / temperature, so a golden section finds it.
    """
    if not len(logits) == len(targets) == len(weights):
        raise ValueError(f"{len(logits)} logits, {len(targets)} targets and {len(weights)} weights.")
    counted = [one for one in zip(logits, targets, weights, strict=True) if one[2] > 0]
    if len({target for _, target, _ in counted}) < 2:
        return None

    def loss(inverse: float) -> float:
        return sum(weight * cross_entropy(logit * inverse, target) for logit, target, weight in counted)

    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    best = _lowest(loss, low, high)
    margin = 1e-3
    return None if best < low * (1 + margin) or best > high * (1 - margin) else 1 / best


def _lowest(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a convex function is lowest between two ends, to a millionth of the way."""
    share = (math.sqrt(5) - 1) / 2
    inner = [high - share * (high - low), low + share * (high - low)]
    values = [function(one) for one in inner]
    end = (high - low) * 1e-7
    while high - low > end:
        if values[0] <= values[1]:
            high, inner[1], values[1] = inner[1], inner[0], values[0]
            inner[0] = high - share * (high - low)
            values[0] = function(inner[0])
        else:
            low, inner[0], values[0] = inner[0], inner[1], values[1]
            inner[1] = low + share * (high - low)
            values[1] = function(inner[1])
    return (low + high) / 2


def cross_entropy(logit: float, target: float) -> float:
    """-target · log p - (1 - target) · log(1 - p) for p = sigmoid(logit)."""
    return max(logit, 0.0) - logit * target + math.log1p(math.exp(-abs(logit)))


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


def explained_variance(predictions: Sequence[float], targets: Sequence[float]) -> float:
    """1 - Var(target - prediction) / Var(target): 1 is perfect, 0 no better than a constant; 0 if targets are equal."""
    if len(predictions) != len(targets):
        raise ValueError(f"{len(predictions)} predictions, but {len(targets)} targets.")
    spread = _variance(targets)
    if spread == 0:
        return 0.0
    return 1 - _variance([target - guess for guess, target in zip(predictions, targets, strict=True)]) / spread


def _variance(values: Sequence[float]) -> float:
    if not values:
        return 0.0
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / len(values)
