"""Which samples of a gate are read first."""

from __future__ import annotations

from rewardtrain import gate_samples
from rewardtrain.gate_samples import sample_of


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
