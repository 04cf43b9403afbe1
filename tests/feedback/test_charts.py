"""Numbers made into places on a drawing."""

from __future__ import annotations

import doctest

import pytest

from feedback import charts
from feedback.templatetags import shares


@pytest.mark.parametrize("module", [charts, shares])
def test_the_examples_in_the_docstrings_hold(module):
    assert doctest.testmod(module).failed == 0


def test_bars_stand_side_by_side_and_are_as_high_as_their_values():
    drawn = charts.bars([5, 10, 0, 20], ["a", "b", "c", "d"], height=100, gap=0.2)
    assert drawn.high == 20
    assert [(bar.left, bar.width) for bar in drawn.bars] == [(2.5, 20), (27.5, 20), (52.5, 20), (77.5, 20)]
    assert [(bar.top, bar.height) for bar in drawn.bars] == [(75, 25), (50, 50), (100, 0), (0, 100)]
    assert [bar.label for bar in drawn.bars] == ["a", "b", "c", "d"]
    assert drawn.half == 10


def test_bars_of_nothing_are_an_empty_axis():
    assert charts.bars([]).bars == []
    assert [bar.height for bar in charts.bars([0, 0]).bars] == [0, 0]


def test_a_bar_never_leaves_the_axis_it_is_given():
    assert charts.bars([30], height=100, high=20).bars[0].height == 100


def test_every_bar_wants_a_label_or_none_does():
    with pytest.raises(ValueError, match="shorter"):
        charts.bars([1, 2], ["only one"])


@pytest.mark.parametrize(
    ("values", "lowest"),
    [([0.1, 0.9], None), ([-3, 170], None), ([12.0], 0), ([7, 7], None), ([0], 0), ([1e-4, 2e-4], None), ([], None)],
)
def test_an_axis_has_length_and_holds_every_value(values, lowest):
    low, high = charts.axis_ends(values, lowest)
    assert low < high
    assert all(low <= value <= high for value in values)
    assert lowest is None or low == lowest


def test_a_value_that_is_no_number_does_not_stretch_the_axis():
    assert charts.axis_ends([0.2, float("nan"), float("inf"), 0.8]) == charts.axis_ends([0.2, 0.8])


@pytest.mark.parametrize("value", [3, 9, 11, 61, 99, 101, 4812])
def test_the_end_of_an_axis_of_counts_lies_above_them_and_not_far(value):
    assert value <= charts.round_up(value) <= 2 * value
