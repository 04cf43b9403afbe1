"""One scale for all who were ever compared: Bradley-Terry ratings from wins, losses and ties. Pure functions."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from feedback.agreement import Z_95

Player = TypeVar("Player", bound=Hashable)
Matrix = list[list[float]]
ELO = 400 / math.log(10)  # points per unit of log-odds: 400 points are odds of ten to one
PRIOR_GAMES = 1.0
STEPS = 100
CLOSE_ENOUGH = 1e-10


@dataclass(frozen=True)
class Outcome(Generic[Player]):
    """One comparison of two: 1 the first won, 0 the second did, 0.5 a tie.

    group  outcomes of one question rise and fall together: several people's answers, or the pairs of one ranking
    """

    first: Player
    second: Player
    credit: float
    group: Hashable = None


@dataclass(frozen=True)
class Strength:
    """A rating in Elo points, 0 the mean of all, with its 95 % interval, and how many comparisons it rests on."""

    rating: float
    interval: tuple[float, float]
    comparisons: int


def ratings(
    outcomes: Iterable[Outcome[Player]], players: Iterable[Player] = (), *, prior_games: float = PRIOR_GAMES
) -> dict[Player, Strength]:
    """Everybody's rating. P(i beats j) = 1 / (1 + 10^((r_j - r_i) / 400)); a tie is half a win of each.

    players      who is rated although nobody compared them
    prior_games  a weak prior: so many games, half of them won, of everybody against one average opponent. It keeps
                 ratings finite where somebody won or lost everything, and puts those on one scale who were never
                 compared, not even by way of others: they are held to be alike until something is known
    Returns      intervals by the wider of two: the curvature of the likelihood, and how the groups vary (sandwich),
                 since answers to one question are not independent
    Raises       ValueError for a credit outside 0 to 1, or somebody compared with themselves
    Source       Bradley and Terry 1952, Biometrika 39, 324-345; Newton's method, which the concave likelihood allows
    """
    played = list(outcomes)
    names = list(dict.fromkeys([*players, *(who for one in played for who in (one.first, one.second))]))
    place = {name: index for index, name in enumerate(names)}
    if wrong := [one for one in played if not 0 <= one.credit <= 1 or one.first == one.second]:
        raise ValueError(f"A comparison is of two, with a credit from 0 to 1; {wrong[0]} is not.")
    games = [(place[one.first], place[one.second], one.credit) for one in played]
    strengths = _fit(len(names), games, prior_games)
    errors = _errors(strengths, games, [one.group for one in played], prior_games)
    mean = math.fsum(strengths) / len(strengths) if strengths else 0.0
    counts: dict[int, int] = defaultdict(int)
    for first, second, _ in games:
        counts[first] += 1
        counts[second] += 1
    found = {}
    for name, index in place.items():
        rating, spread = ELO * (strengths[index] - mean), ELO * Z_95 * errors[index]
        found[name] = Strength(rating, (rating - spread, rating + spread), counts[index])
    return found


def _fit(size: int, games: Sequence[tuple[int, int, float]], prior: float) -> list[float]:
    """Log-strengths at the maximum of the likelihood with the prior."""
    strengths = [0.0] * size
    for _ in range(STEPS):
        gradient, curvature = _slopes(strengths, games, prior)
        step = _times(_inverse(curvature), gradient)
        scale = min(1.0, 2 / max([abs(one) for one in step], default=1.0) if any(step) else 1.0)
        strengths = [one + scale * move for one, move in zip(strengths, step, strict=True)]
        if max((abs(one) for one in step), default=0.0) < CLOSE_ENOUGH:
            break
    return strengths


def _slopes(
    strengths: Sequence[float], games: Sequence[tuple[int, int, float]], prior: float
) -> tuple[list[float], Matrix]:
    """The gradient of the log-likelihood, and its curvature turned round (positive)."""
    size = len(strengths)
    chances = [_sigmoid(one) for one in strengths]
    gradient = [prior * (0.5 - chance) for chance in chances]
    curvature = [[0.0] * size for _ in range(size)]
    for index, chance in enumerate(chances):
        curvature[index][index] = prior * chance * (1 - chance)
    for first, second, credit in games:
        chance = _sigmoid(strengths[first] - strengths[second])
        gradient[first] += credit - chance
        gradient[second] -= credit - chance
        weight = chance * (1 - chance)
        for row, column, sign in ((first, first, 1), (second, second, 1), (first, second, -1), (second, first, -1)):
            curvature[row][column] += sign * weight
    return gradient, curvature


def _errors(
    strengths: Sequence[float], games: Sequence[tuple[int, int, float]], groups: Sequence[Hashable], prior: float
) -> list[float]:
    """Standard errors of the strengths less their mean."""
    size = len(strengths)
    if not size:
        return []
    inverse = _inverse(_slopes(strengths, games, prior)[1])
    scores: dict[Hashable, list[float]] = defaultdict(lambda: [0.0] * size)
    for number, ((first, second, credit), group) in enumerate(zip(games, groups, strict=True)):
        surprise = credit - _sigmoid(strengths[first] - strengths[second])
        score = scores[("alone", number) if group is None else group]
        score[first] += surprise
        score[second] -= surprise
    many = len(scores) / (len(scores) - 1) if len(scores) > 1 else 0.0
    varying = [[many * math.fsum(one[i] * one[j] for one in scores.values()) for j in range(size)] for i in range(size)]
    between = _product(_product(inverse, varying), inverse)
    return [math.sqrt(max(_centred(inverse, index), _centred(between, index))) for index in range(size)]


def _centred(covariance: Matrix, index: int) -> float:
    """The variance of one less the mean of all."""
    size = len(covariance)
    row = math.fsum(covariance[index]) / size
    return max(0.0, covariance[index][index] - 2 * row + math.fsum(map(math.fsum, covariance)) / size**2)


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


# Small matrices


def _inverse(matrix: Matrix) -> Matrix:
    """By elimination with pivots. Where it is singular, which only no prior allows, the smallest ridge that is not."""
    size = len(matrix)
    rows = [[*row, *(float(index == other) for other in range(size))] for index, row in enumerate(matrix)]
    ridge = 1e-12 * max([1e-12, *(matrix[index][index] for index in range(size))])
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(rows[row][column]))
        rows[column], rows[pivot] = rows[pivot], rows[column]
        if abs(rows[column][column]) < ridge:
            rows[column][column] = ridge
        divisor = rows[column][column]
        rows[column] = [value / divisor for value in rows[column]]
        for row in range(size):
            if row != column and (factor := rows[row][column]):
                rows[row] = [value - factor * own for value, own in zip(rows[row], rows[column], strict=True)]
    return [row[size:] for row in rows]


def _times(matrix: Matrix, vector: Sequence[float]) -> list[float]:
    return [math.fsum(one * other for one, other in zip(row, vector, strict=True)) for row in matrix]


def _product(one: Matrix, other: Matrix) -> Matrix:
    columns = list(zip(*other, strict=True))
    return [_times(columns, row) for row in one]  # type: ignore[arg-type]
