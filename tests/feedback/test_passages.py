"""Texts cut into passages: nothing lost, nothing longer than can be read at a glance, cut where they have seams."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.passages import passages_of, title_of


def texts(text: str, longest: int = 500, title: str = "Ferns") -> list[str]:
    return [cut.text for cut in passages_of(title, text, longest)]


@pytest.mark.parametrize("text", ["", "  \n\n ", "# A heading\n\n## And another\n"])
def test_a_text_that_says_nothing_has_no_passages(text):
    assert texts(text) == []


def test_a_short_text_stays_whole():
    assert texts("Ferns like shade.\n\nThey drink twice a week.") == ["Ferns like shade.\n\nThey drink twice a week."]


def test_a_long_text_is_cut_between_paragraphs_and_short_ones_stay_together():
    assert texts("One one.\n\nTwo two.\n\nThree three.", longest=20) == ["One one.\n\nTwo two.", "Three three."]


def test_a_long_paragraph_is_cut_between_sentences_a_long_sentence_between_words_and_a_long_word_anywhere():
    assert texts("It is so. Is it? Yes.", longest=16) == ["It is so. Is it?", "Yes."]
    assert texts("one two three four", longest=9) == ["one two", "three", "four"]
    assert texts("abcdefghij", longest=4) == ["abcd", "efgh", "ij"]


def test_sentences_of_scripts_without_blanks_are_seams_too():
    assert texts("水をやる。日陰に置く。", longest=6) == ["水をやる。", "日陰に置く。"]


def test_sections_are_never_mixed_and_carry_their_names():
    found = passages_of("Ferns", "Before.\n\n# Ferns\n\nAll of them.\n\n## Water ##\nTwice a week.")
    assert [(cut.heading, cut.text) for cut in found] == [
        ("Ferns", "Before."), ("Ferns", "All of them."), ("Ferns: Water", "Twice a week."),
    ]  # fmt: skip


def test_a_heading_in_code_is_code():
    found = passages_of("Notes", "```\n# no heading\n~~~\n# nor this\n```\n# Heading\ntext")
    assert [cut.heading for cut in found] == ["Notes", "Notes: Heading"]


def test_the_title_of_a_text_is_its_first_heading():
    assert title_of("words first\n\n## Then this\n# Not this") == "Then this"
    assert title_of("no heading\n#nor here") == ""


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"]), max_size=300), st.integers(1, 60))
def test_nothing_but_blanks_is_lost_and_no_passage_is_too_long(text, longest):
    found = passages_of("T", text, longest)
    assert all(0 < len(cut.text) <= longest and cut.text.strip() for cut in found)
    kept = "".join("".join(cut.text.split()) for cut in found)
    assert len(kept) <= len("".join(text.split()))
    if not any(line.lstrip(" ").startswith("#") for line in text.replace("\r\n", "\n").split("\n")):
        assert kept == "".join(text.split())
