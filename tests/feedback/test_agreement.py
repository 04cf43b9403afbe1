"""Agreement, against numbers worked by hand."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.agreement import (
    Alpha,
    Share,
    alpha_of,
    clustered_share,
    cohen_kappa,
    krippendorff_alpha,
    noise_ceiling,
    pair_agreement,
    pair_orders,
    pairwise_kappa,
    wilson_interval,
)

ranks = st.dictionaries(st.integers(0, 5), st.integers(1, 4), max_size=5)


# Two annotators


def test_two_who_say_the_same_agree_on_every_pair() -> None:
    assert pair_agreement([[{1: 1, 2: 2, 3: 3}, {1: 1, 2: 2, 3: 3}]]) == Share(3, 3)


def test_two_who_say_the_opposite_agree_on_none() -> None:
    assert pair_agreement([[{1: 1, 2: 2, 3: 3}, {1: 3, 2: 2, 3: 1}]]) == Share(0, 3)


def test_one_pair_the_other_way_round() -> None:
    # (1,2) the same, (1,3) the same, (2,3) turned round
    assert pair_agreement([[{1: 1, 2: 2, 3: 3}, {1: 1, 2: 3, 3: 2}]]) == Share(2, 3)


def test_what_either_ties_says_nothing() -> None:
    # of (1,2) (1,3) (2,3) the first ties (2,3), the other (1,2); only (1,3) is left, and they agree
    assert pair_agreement([[{1: 1, 2: 2, 3: 2}, {1: 1, 2: 1, 3: 2}]]) == Share(1, 1)


def test_only_what_both_ranked_is_compared() -> None:
    assert pair_agreement([[{1: 1, 2: 2}, {2: 1, 3: 2}]]) == Share(0, 0)
    assert pair_agreement([[{1: 1, 2: 2, 9: 3}, {1: 2, 2: 1, 8: 3}]]) == Share(0, 1)


def test_of_three_annotators_each_two_are_compared() -> None:
    # a and b agree; c differs from both
    assert pair_agreement([[{1: 1, 2: 2}, {1: 1, 2: 2}, {1: 2, 2: 1}]]) == Share(1, 3)


def test_comparisons_are_added_up() -> None:
    agree, differ = [{1: 1, 2: 2}] * 2, [{1: 1, 2: 2}, {1: 2, 2: 1}]
    assert pair_agreement([agree, differ, agree, [{1: 1, 2: 2}], []]) == Share(2, 3)


@given(st.lists(ranks, max_size=4))
def test_who_is_first_does_not_matter(answers: list[dict[int, int]]) -> None:
    assert pair_agreement([answers]) == pair_agreement([answers[::-1]])


@given(st.lists(ranks, max_size=4))
def test_the_count_is_that_of_the_slow_way(answers: list[dict[int, int]]) -> None:
    """Every ordered pair of annotators and of replies, each counted four times over."""
    same = total = 0
    for (i, one), (j, other) in product(enumerate(answers), repeat=2):
        for a, b in product(one, repeat=2):
            if i != j and a in other and b in other and one[a] != one[b] and other[a] != other[b]:
                total += 1
                same += (one[a] < one[b]) == (other[a] < other[b])
    assert pair_agreement([answers]) == Share(same // 4, total // 4)


# Shares


def test_a_share_of_nothing_is_unknown() -> None:
    assert (Share(0, 0).value, Share(0, 0).interval) == (None, None)


def test_a_share_has_its_interval() -> None:
    share = Share(3, 4)
    assert share.value == 0.75
    assert share.interval == wilson_interval(3, 4)


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [
        # (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n) with z = 1.96, worked by hand
        (5, 10, 0.2366, 0.7634),  # (0.5 + 0.19208 ± 1.96·√(0.025 + 0.009604)) / 1.38416
        (0, 10, 0.0, 0.2775),  # (0.19208 ± 0.19208) / 1.38416
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, Stat. Med. 17, 857-872, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_wilsons(hits: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(hits, total) == pytest.approx((low, high), abs=6e-5)


@given(st.integers(1, 500).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_the_interval_holds_the_share_and_turns_with_it(counts: tuple[int, int]) -> None:
    hits, total = counts
    low, high = wilson_interval(hits, total)
    assert 0 <= low <= hits / total + 1e-12 and hits / total - 1e-12 <= high <= 1
    assert (1 - high, 1 - low) == pytest.approx(wilson_interval(total - hits, total))


@given(st.integers(1, 500).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_the_ends_are_where_the_share_is_just_not_refuted(counts: tuple[int, int]) -> None:
    """What defines the interval: at its ends the distance to the share is z standard deviations."""
    hits, total = counts
    for end in wilson_interval(hits, total):
        if 1e-9 < end < 1 - 1e-9:  # at 0 and 1 rounding is all there is
            assert abs(hits / total - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / total), rel=1e-5)


def test_95_of_100_intervals_hold_the_truth() -> None:
    rng = random.Random(0)
    held = 0
    for _ in range(1000):
        low, high = wilson_interval(sum(rng.random() < 0.72 for _ in range(200)), 200)
        held += low <= 0.72 <= high
    assert 930 <= held <= 970


@pytest.mark.parametrize("total", [0, -1])
def test_nothing_has_no_interval(total: int) -> None:
    with pytest.raises(ValueError, match="nothing"):
        wilson_interval(0, total)


# The ceiling


@pytest.mark.parametrize(
    ("agreement", "ceiling"),
    [(1.0, 1.0), (0.5, 0.5), (0.82, 0.9), (0.68, 0.8), (0.58, 0.7)],  # a² + (1-a)² of the right-hand side
)
def test_the_ceiling_is_how_often_each_is_right(agreement: float, ceiling: float) -> None:
    assert noise_ceiling(agreement) == pytest.approx(ceiling)


def test_below_chance_there_is_no_ceiling() -> None:
    assert noise_ceiling(0.49) is None


@given(st.floats(0.5, 1.0))
def test_two_who_are_that_often_right_agree_that_often(agreement: float) -> None:
    right = noise_ceiling(agreement)
    assert right is not None and 0.5 <= right <= 1
    assert right**2 + (1 - right) ** 2 == pytest.approx(agreement)


# Pairs of one ranking are no independent evidence


def test_credits_that_stand_alone_are_worth_themselves():
    share = clustered_share([[1.0]] * 7 + [[0.0]] * 3)
    assert (share.hits, share.total, share.effective) == (7, 10, 10)
    assert share.interval == Share(7, 10).interval


def test_groups_that_say_one_thing_are_worth_one_each():
    share = clustered_share([[1.0] * 6] * 7 + [[0.0] * 6] * 3)
    assert (share.hits, share.total) == (42, 60)
    assert share.effective == 10
    assert share.interval == Share(7, 10).interval


def test_groups_between_are_worth_something_between():
    # shares 1, 1/2, 1/2, 0 of two credits each: p = 1/2, variance between (1 + 0 + 0 + 1) / 64 · 4/3 = 1/24 against
    # 1/4 / 8 = 1/32 if they were independent; 8 · 24/32 = 6
    share = clustered_share([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    assert share.effective == pytest.approx(6)


def test_what_nothing_varies_in_is_worth_its_groups_and_never_more_than_its_credits():
    assert clustered_share([[1.0, 1.0], [1.0, 1.0]]).effective == 2
    assert clustered_share([[1.0, 0.0], [0.0, 1.0]]).effective == 4  # groups that vary less than chance would
    assert clustered_share([[1.0, 0.0, 1.0]]).effective == 1
    assert clustered_share([[], [1.0]]).total == 1
    assert clustered_share([]) == Share(0.0, 0)
    assert clustered_share([[]]).interval is None


@pytest.mark.parametrize("k", [2, 4, 9])
def test_the_interval_holds_what_it_says_though_skill_differs_from_ranking_to_ranking(k):
    dice, pairs, held = random.Random(k), k * (k - 1) // 2, 0
    for _ in range(400):
        skills = [dice.betavariate(3.5, 1.5) for _ in range(60)]  # 0.7 on average
        share = clustered_share([[float(dice.random() < skill) for _ in range(pairs)] for skill in skills])
        low, high = share.interval
        held += low <= 0.7 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_agreement_takes_the_pairs_of_one_comparison_together():
    same, other = {1: 1, 2: 2, 3: 3, 4: 4}, {1: 4, 2: 3, 3: 2, 4: 1}
    share = pair_agreement([[same, same]] * 7 + [[same, other]] * 3)
    assert (share.hits, share.total, share.effective) == (42, 60, 10)


# Several people on one scale

# Krippendorff's own example: twelve units, four observers, with gaps. Nominal .743, ordinal .815.
KRIPPENDORFF = [
    [1, 1, 1], [2, 2, 3, 2], [3, 3, 3, 3], [3, 3, 3, 3], [2, 2, 2, 2], [1, 2, 3, 4], [4, 4, 4, 4], [1, 1, 2, 1],
    [2, 2, 2, 2], [5, 5, 5], [1, 1], [3],
]  # fmt: skip


def test_alpha_is_what_krippendorff_found() -> None:
    assert krippendorff_alpha(KRIPPENDORFF) == pytest.approx(0.815, abs=5e-4)


def test_alpha_of_two_by_hand() -> None:
    # values 1 1 | 1 2: margins 3 and 1, n = 4, distance(1,2) = (4 - 4/2)^2 = 4; observed 4, expected 3*1*4 = 12
    # alpha = 1 - (4 - 1) * 4 / 12 = 0
    assert krippendorff_alpha([[1, 1], [1, 2]]) == pytest.approx(0)


def test_alpha_of_three_steps_by_hand() -> None:
    # values 1 1 | 3 3 | 1 2: margins 1: 3, 2: 1, 3: 2, n = 6
    # distances: (1,2): (4 - 2)^2 = 4; (2,3): (3 - 1.5)^2 = 2.25; (1,3): (6 - 2.5)^2 = 12.25
    # observed 4; expected 3*1*4 + 1*2*2.25 + 3*2*12.25 = 90; alpha = 1 - 5 * 4 / 90
    assert krippendorff_alpha([[1, 1], [3, 3], [1, 2]]) == pytest.approx(1 - 20 / 90)


def slow_alpha(units: list[list[int]]) -> float:
    """The same from the matrix of coincidences, entry by entry, as the paper writes it."""
    units = [unit for unit in units if len(unit) > 1]
    size = 6
    found = [[0.0] * size for _ in range(size)]
    for unit in units:
        for i, j in product(range(len(unit)), repeat=2):
            if i != j:
                found[unit[i]][unit[j]] += 1 / (len(unit) - 1)
    margin = [sum(row) for row in found]
    total = sum(margin)

    def square(c: int, k: int) -> float:
        low, high = min(c, k), max(c, k)
        return (sum(margin[low : high + 1]) - (margin[c] + margin[k]) / 2) ** 2

    pairs = list(product(range(size), repeat=2))
    observed = sum(found[c][k] * square(c, k) for c, k in pairs if c != k)
    expected = sum(margin[c] * margin[k] * square(c, k) for c, k in pairs if c != k)
    return 1 - (total - 1) * observed / expected


@given(st.lists(st.lists(st.integers(1, 5), max_size=5), max_size=12))
def test_alpha_is_that_of_the_whole_matrix(units: list[list[int]]) -> None:
    values = {value for unit in units if len(unit) > 1 for value in unit}
    if len(values) < 2:
        assert krippendorff_alpha(units) is None
    else:
        assert krippendorff_alpha(units) == pytest.approx(slow_alpha(units))


def test_alpha_is_undefined_where_everybody_says_the_same() -> None:
    assert alpha_of([[5, 5], [5, 5, 5]]) == Alpha(None, None, 2, is_alike=True)
    assert alpha_of([[1], []]) == Alpha(None, None, 0)
    assert krippendorff_alpha([[1, 1], [5, 5]]) == 1


def test_alphas_interval_holds_it_narrows_with_more_and_is_the_same_each_time() -> None:
    few, many = alpha_of(KRIPPENDORFF), alpha_of(KRIPPENDORFF * 9)
    assert few.interval and many.interval and few.value
    assert few.interval[0] < few.value < few.interval[1] <= 1
    assert many.interval[1] - many.interval[0] < few.interval[1] - few.interval[0]
    assert (few.units, alpha_of(reversed(KRIPPENDORFF))) == (11, few)


def test_alphas_interval_holds_the_true_value_about_as_often_as_it_says() -> None:
    chance = random.Random(5)

    def drawn(count: int) -> list[list[int]]:
        return [
            [1 + (truth + chance.choice((0, 0, 0, 1))) % 5 for _ in range(3)]
            for truth in chance.choices(range(5), k=count)
        ]

    truth = krippendorff_alpha(drawn(40_000))
    assert truth is not None
    held = [
        one.interval[0] <= truth <= one.interval[1]
        for _ in range(60)
        if (one := alpha_of(drawn(60), draws=200)).interval
    ]
    assert 0.85 <= sum(held) / len(held) <= 1


# Two people beyond chance, and pairs of replies as things to judge


def test_kappa_of_a_table_worked_by_hand() -> None:
    # Cohen 1960: 20 both yes, 15 both no, 5 and 10 apart. Observed 35/50; by chance 25/50 * 30/50 + 25/50 * 20/50 = 0.5
    pairs = [(1, 1)] * 20 + [(0, 0)] * 15 + [(1, 0)] * 5 + [(0, 1)] * 10
    assert cohen_kappa(pairs) == pytest.approx((0.7 - 0.5) / (1 - 0.5), abs=1e-15)


def test_kappa_is_undefined_where_nobody_could_differ() -> None:
    assert cohen_kappa([]) is None
    assert cohen_kappa([(1, 1)] * 5) is None
    assert cohen_kappa([(1, 0)] * 5) == 0.0


def test_nominal_alpha_knows_no_distance_between_answers() -> None:
    near, far = [(1, 1), (2, 2), (3, 3), (1, 2)], [(1, 1), (2, 2), (3, 3), (1, 3)]
    assert krippendorff_alpha(near, is_ordered=False) == pytest.approx(krippendorff_alpha(far, is_ordered=False))
    assert krippendorff_alpha(near) > krippendorff_alpha(far)


def test_every_pair_of_replies_is_a_thing_that_those_who_ranked_both_judged() -> None:
    orders = pair_orders([{"a": {1: 1, 2: 2, 3: 2}, "b": {1: 2, 2: 1}}, {"a": {4: 1}}])
    assert orders == [{"a": 1, "b": -1}, {"a": 1}, {"a": 0}]
    assert pairwise_kappa(orders) == {("a", "b"): 0.0}
