"""How alike two texts are, against sets made by hand."""

from __future__ import annotations

import pytest

from feedback.likeness import NEARLY, fingerprint, likeness, nearest, normalised, shingles


def test_case_blanks_and_marks_make_no_difference() -> None:
    assert normalised("  Water it\n\nLESS, please! ") == "water it less please"
    assert fingerprint("Water it less.") == fingerprint("water it, LESS") != fingerprint("Water it more.")
    assert fingerprint("ﬁne") == fingerprint("fine")  # one ligature, and two letters


def test_a_text_of_marks_alone_is_itself() -> None:
    assert normalised("?! ?!") == "?! ?!" and fingerprint("?!") != fingerprint("...")


def test_likeness_is_the_shared_part_of_all_runs_of_three_words() -> None:
    one, other = shingles("a b c d e"), shingles("a b c d f")
    assert one == {("a", "b", "c"), ("b", "c", "d"), ("c", "d", "e")}
    assert likeness(one, other) == pytest.approx(2 / 4)  # shared: abc, bcd; all: abc, bcd, cde, cdf
    assert likeness(one, one) == 1 and likeness(one, shingles("x y z")) == 0


def test_short_texts_are_compared_as_a_whole() -> None:
    assert shingles("Yes.") == {("yes",)} and likeness(shingles("Yes."), shingles("yes")) == 1
    assert likeness(shingles("Yes."), shingles("No.")) == 0


def test_the_nearest_is_found_only_where_it_is_nearly_the_same() -> None:
    words = [f"word{number}" for number in range(30)]
    text = " ".join(words)
    changed = " ".join([*words[:-1], "another"])  # 27 of 29 runs shared
    half = " ".join([*words[:15], *(f"other{number}" for number in range(15))])
    found = nearest(text, [("half", half), ("changed", changed), ("none", "")])
    assert found is not None and found[0] == "changed" and found[1] == pytest.approx(27 / 29) and found[1] > NEARLY
    assert nearest(text, [("half", half)]) is None and nearest(text, []) is None
