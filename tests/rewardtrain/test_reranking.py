"""The rerank score: hand-worked numbers, rising in every term, and never lost to rounding."""

from __future__ import annotations

import doctest
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardtrain import reranking
from rewardtrain.reranking import best_first, log_rerank_scores

SCORES = st.floats(-30, 30)
CHANCES = st.floats(0.001, 0.999)


@st.composite
def samples(draw: st.DrawFn) -> tuple[list[float], list[list[float]], int]:
    """Scores of two to eight replies, chances that each of one to four rules was followed, and one reply's place."""
    count, rules = draw(st.integers(2, 8)), draw(st.integers(1, 4))
    scores = draw(st.lists(SCORES, min_size=count, max_size=count))
    row = st.lists(CHANCES, min_size=rules, max_size=rules)
    return scores, draw(st.lists(row, min_size=count, max_size=count)), draw(st.integers(0, count - 1))


def logs(chances: list[list[float]]) -> list[list[float]]:
    return [[math.log(chance) for chance in row] for row in chances]


def as_printed(scores: list[float], chances: list[list[float]]) -> list[float]:
    """The formula term by term, in plain numbers."""
    mean = sum(scores) / len(scores)
    return [
        math.exp(score) / (math.exp(score) + math.exp(mean)) * math.prod(row) ** (1 / len(row))
        for score, row in zip(scores, chances, strict=True)
    ]


def test_worked_by_hand() -> None:
    # mean R = 1, so the first factor is 1/(1+e), 1/2, e/(1+e); √(0.9·0.4) = 0.6, √(0.5·0.5) = 0.5, √(0.8·0.2) = 0.4
    found = log_rerank_scores([0.0, 1.0, 2.0], logs([[0.9, 0.4], [0.5, 0.5], [0.8, 0.2]]))
    assert [math.exp(one) for one in found] == pytest.approx([0.6 * 0.2689414, 0.25, 0.4 * 0.7310586], abs=1e-6)


def test_the_doctests_hold() -> None:
    assert doctest.testmod(reranking).failed == 0


@settings(max_examples=40)
@given(samples())
def test_it_is_the_formula(drawn: tuple[list[float], list[list[float]], int]) -> None:
    scores, chances, _ = drawn
    found = log_rerank_scores(scores, logs(chances))
    assert [math.exp(one) for one in found] == pytest.approx(as_printed(scores, chances), rel=1e-9)


@settings(max_examples=40)
@given(samples(), st.floats(0.01, 5))
def test_it_rises_with_a_replys_preference(drawn: tuple[list[float], list[list[float]], int], more: float) -> None:
    scores, chances, place = drawn
    better = [score + more * (index == place) for index, score in enumerate(scores)]
    before, after = (log_rerank_scores(some, logs(chances)) for some in (scores, better))
    assert after[place] > before[place]
    assert all(after[other] <= before[other] for other in range(len(scores)) if other != place)


@settings(max_examples=40)
@given(samples(), st.integers(0, 3), st.floats(0.05, 0.95))
def test_it_rises_with_each_rule(drawn: tuple[list[float], list[list[float]], int], rule: int, share: float) -> None:
    scores, chances, place = drawn
    rule %= len(chances[place])
    kept = [list(row) for row in chances]
    kept[place][rule] += share * (1 - kept[place][rule])
    before, after = (log_rerank_scores(scores, logs(some)) for some in (chances, kept))
    assert after[place] > before[place]
    assert [after[other] for other in range(len(scores)) if other != place] == [
        before[other] for other in range(len(scores)) if other != place
    ]


def test_large_scores_and_many_small_chances_are_not_lost() -> None:
    # in plain numbers exp(2000) has no value, and the product of 200 chances of 1e-6 is 0
    found = log_rerank_scores([2000.0, -2000.0], [[math.log(1e-6)] * 200, [math.log(1e-5)] * 200])
    assert found == pytest.approx([math.log(1e-6), -2000 + math.log(1e-5)])


def test_a_reply_that_surely_broke_a_rule_comes_last() -> None:
    found = log_rerank_scores([9.0, 0.0], [[-math.inf, -0.1], [-3.0, -3.0]])
    assert found[0] == -math.inf
    assert best_first(found) == [1, 0]


def test_without_rules_the_preference_alone_orders() -> None:
    assert best_first(log_rerank_scores([0.3, 2.0, -1.0])) == [1, 0, 2]
    assert log_rerank_scores([0.3, 2.0], [[], []]) == log_rerank_scores([0.3, 2.0])


def test_without_a_reward_model_the_rules_alone_order() -> None:
    assert best_first(log_rerank_scores(None, logs([[0.5, 0.5], [0.9, 0.4], [0.1, 0.99]]))) == [1, 0, 2]


def test_one_reply_alone_is_worth_half_of_its_rules() -> None:
    assert math.exp(log_rerank_scores([7.5], logs([[0.8]]))[0]) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("preferences", "followed"),
    [
        (None, None),
        (None, []),
        ([1.0], [[-0.1], [-0.2]]),
        ([math.nan], None),
        ([math.inf, 0.0], None),
        ([1.0], [[0.5]]),
        ([1.0], [[math.nan]]),
    ],
)
def test_what_cannot_be_ranked_is_refused(preferences: list[float] | None, followed: list[list[float]] | None) -> None:
    with pytest.raises(ValueError):
        log_rerank_scores(preferences, followed)
