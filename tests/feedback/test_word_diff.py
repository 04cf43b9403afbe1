"""Which words of a reply are new."""

from __future__ import annotations

import doctest

from hypothesis import given
from hypothesis import strategies as st

from feedback import word_diff
from feedback.word_diff import marked_words

TEXT = st.text(alphabet="ab \n", max_size=30)


def new_words(before: str, after: str) -> list[str]:
    return [stretch.text for stretch in marked_words(before, after) if stretch.is_new]


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(word_diff).failed == 0


def test_words_put_around_a_reply_are_marked_in_one_piece_each():
    before = "Three times as deep as the bulb is tall."
    after = "That is a lovely question! Three times as deep as the bulb is tall. Happy planting."
    assert new_words(before, after) == ["That is a lovely question!", "Happy planting."]


def test_the_same_words_are_not_marked_and_others_all_are():
    assert new_words("Water it.", "Water  it.") == []
    assert new_words("", "Water it.") == ["Water it."]
    assert marked_words("Water it.", "") == []


@given(TEXT, TEXT)
def test_the_stretches_are_the_reply_again_and_take_turns(before, after):
    stretches = marked_words(before, after)
    assert "".join(stretch.text for stretch in stretches) == after
    assert all(one.is_new != other.is_new for one, other in zip(stretches, stretches[1:], strict=False))
