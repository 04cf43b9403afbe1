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
