"""Which words of a reply are new."""

from __future__ import annotations

import doctest

from hypothesis import given
from hypothesis import strategies as st

from rewardtrain import gate_samples, word_diff
from rewardtrain.gate_samples import sample_of
from rewardtrain.word_diff import marked_words

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


def report(*, found: str = "+19%") -> dict:
    samples = [
        {"prompt": [{"role": "user", "content": name}], "before": {"text": "a b", "tokens": 10},
         "after": {"text": "a c", "tokens": tokens}, "score_before": 0.0, "score_after": score}
        for name, tokens, score in (("grown", 40, 0.5), ("worse", 11, -2.0), ("shrunk", 2, 0.1))
    ]  # fmt: skip
    line = {"key": "length", "name": "Reply length", "found": found, "wanted": "within 15%", "passed": False}
    return {"passed": False, "lines": [line], "samples": samples}


def test_samples_are_read_for_the_line_that_failed():
    assert sample_of(report()).asked == "grown"
    assert sample_of(report(found="−40%")).asked == "shrunk"


def test_samples_for_a_reward_begin_with_the_greatest_loss():
    assert sample_of(report(), by="reward").asked == "worse"


def test_a_number_beyond_the_samples_is_the_last_or_the_first():
    last = sample_of(report(), number=99)
    assert (last.number, last.next_number, last.previous_number) == (3, None, 2)
    first = sample_of(report(), number=-4)
    assert (first.number, first.next_number, first.previous_number) == (1, 2, None)


def test_a_report_without_samples_shows_none():
    assert sample_of({"passed": True, "lines": []}) is None


def test_a_round_that_has_no_report_has_no_sample_whatever_is_asked_for():
    assert sample_of({}, by="length") is None


def test_failed_lines_come_first_and_keep_their_order():
    lines = [{"key": key, "passed": key not in "bd"} for key in "abcd"]
    assert [line["key"] for line in gate_samples.sorted_lines(lines)] == ["b", "d", "a", "c"]
