"""Bradley-Terry ratings: hand-worked numbers, a slow independent fit, and data that says little or only one thing."""

from __future__ import annotations

import math
import random

import pytest

from feedback.bradley_terry import ELO, PRIOR_GAMES, Outcome, ratings


def games(first: str, second: str, won: int, lost: int, tied: int = 0) -> list[Outcome[str]]:
    credits = [1.0] * won + [0.0] * lost + [0.5] * tied
    return [Outcome(first, second, credit) for credit in credits]


def slow_fit(outcomes: list[Outcome[str]], prior: float) -> dict[str, float]:
    """Zermelo's fixed point: strength = wins / Σ games / (own + other's), the average opponent held at 1."""
    names = sorted({who for one in outcomes for who in (one.first, one.second)})
    wins = dict.fromkeys(names, prior / 2)
    for one in outcomes:
        wins[one.first] += one.credit
        wins[one.second] += 1 - one.credit
    strength = dict.fromkeys(names, 1.0)
    for _ in range(20_000):
        for name in names:
            met = prior / (strength[name] + 1)
            for one in outcomes:
                if name in (one.first, one.second):
                    met += 1 / (strength[one.first] + strength[one.second])
            strength[name] = wins[name] / met
    logs = {name: math.log(one) for name, one in strength.items()}
    mean = sum(logs.values()) / len(logs)
    return {name: ELO * (one - mean) for name, one in logs.items()}


def test_three_wins_to_one_are_odds_of_three() -> None:
    # without a prior the difference is ln 3; half of it each: 400 / ln 10 · ln 3 / 2 = 95.42
    found = ratings(games("a", "b", 75, 25), prior_games=0)
    assert found["a"].rating == pytest.approx(95.424, abs=1e-2)
    assert found["b"].rating == pytest.approx(-95.424, abs=1e-2)
    assert found["a"].comparisons == 100
    # the difference varies by 1 / (100 · ¾ · ¼), each rating by a quarter of that: 1.96 · √(1 / 18.75) / 2 · 173.72
    low, high = found["a"].interval
    assert (high - low) / 2 == pytest.approx(39.31, rel=0.01)


def test_a_tie_is_half_a_win_of_each() -> None:
    tied, shared = ratings(games("a", "b", 0, 0, 20)), ratings(games("a", "b", 10, 10))
    assert tied["a"].rating == pytest.approx(0)
    assert ratings(games("a", "b", 6, 2, 4))["a"].rating == pytest.approx(ratings(games("a", "b", 8, 4))["a"].rating)
    assert shared["a"].rating == pytest.approx(0)


def test_the_prior_in_numbers() -> None:
    # one win of one and two games of prior: 1 - σ(2x) + 2 (½ - σ(x)) = 0, which is u³ = u² + 2 for u = exp(x)
    found = ratings(games("a", "b", 1, 0), prior_games=2)
    assert math.exp(found["a"].rating / ELO) == pytest.approx(1.69562, abs=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_what_a_slow_fit_finds(seed: int) -> None:
    chance = random.Random(seed)
    names = ["a", "b", "c", "d", "e"]
    outcomes = [
        Outcome(*chance.sample(names, 2), chance.choice([0.0, 0.0, 0.5, 1.0]))  # type: ignore[misc]
        for _ in range(12)
    ]
    wanted = slow_fit(outcomes, PRIOR_GAMES)
    assert {name: one.rating for name, one in ratings(outcomes).items()} == pytest.approx(wanted, abs=0.05)


def test_who_won_everything_is_far_up_and_not_endlessly_so() -> None:
    few, many = ratings(games("a", "b", 3, 0)), ratings(games("a", "b", 30, 0))
    assert 0 < few["a"].rating < many["a"].rating < 1000
    assert few["a"].interval[0] < few["b"].interval[1]  # of three games nothing is sure
    assert many["a"].interval[0] > many["b"].interval[1]


def test_groups_that_never_met_are_held_to_be_alike() -> None:
    found = ratings([*games("a", "b", 9, 1), *games("c", "d", 9, 1)])
    assert found["a"].rating == pytest.approx(found["c"].rating)
    assert found["b"].rating == pytest.approx(found["d"].rating)
    near = ratings(games("a", "b", 9, 1))["a"].interval
    assert found["a"].interval[1] - found["a"].interval[0] > near[1] - near[0]


def test_whoever_was_never_compared_has_the_widest_interval() -> None:
    found = ratings(games("a", "b", 20, 20), ["new"])
    widths = {name: one.interval[1] - one.interval[0] for name, one in found.items()}
    assert (found["new"].rating, found["new"].comparisons) == (pytest.approx(0), 0)
    assert max(widths, key=widths.__getitem__) == "new"


def test_answers_to_one_question_do_not_count_as_many() -> None:
    alone = [Outcome("a", "b", float(number % 4 > 0), group=number) for number in range(40)]
    tenfold = [Outcome("a", "b", float(number % 4 > 0), group=number) for number in range(4) for _ in range(10)]
    widths = [one["a"].interval[1] - one["a"].interval[0] for one in map(ratings, (alone, tenfold))]
    assert widths[1] > 2 * widths[0]
    assert ratings(alone)["a"].rating == pytest.approx(ratings(tenfold)["a"].rating)


def test_the_order_of_the_games_changes_nothing() -> None:
    outcomes = [*games("a", "b", 5, 2), *games("b", "c", 4, 4), *games("a", "c", 1, 3)]
    turned = [Outcome(one.second, one.first, 1 - one.credit) for one in reversed(outcomes)]
    for name, one in ratings(outcomes).items():
        assert ratings(turned)[name].rating == pytest.approx(one.rating)


def test_nobody_and_nothing() -> None:
    assert ratings([]) == {}
    assert ratings([], ["a"])["a"].rating == 0


@pytest.mark.parametrize("wrong", [Outcome("a", "a", 1.0), Outcome("a", "b", 1.5), Outcome("a", "b", -0.1)])
def test_what_is_no_comparison_is_refused(wrong: Outcome[str]) -> None:
    with pytest.raises(ValueError):
        ratings([wrong])
