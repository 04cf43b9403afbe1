"""The study of real pairs: folds keep openings together, words are learned, a stopped study goes on where it was."""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import pytest

from tests.benchmarks import real_pairs
from tests.benchmarks.real_pairs import Answer, Pair, answer_by_words, answer_folds, fold_of, read_pairs, report


def make_pair(number: int, opening: str, chosen: str, rejected: str) -> Pair:
    def said(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    return Pair(f"pair {number}", opening, [{"role": "user", "content": opening}], said(chosen), said(rejected))


def planted(count: int) -> list[Pair]:
    """Replies with "please" are preferred, whatever their length."""
    return [
        make_pair(
            number, f"opening {number}", f"please w{number % 5}" + " more" * (number % 3), f"no w{number % 4} more"
        )
        for number in range(count)
    ]


def options(out: Path, method: str = "length", folds: int = 3) -> argparse.Namespace:
    return argparse.Namespace(out=out, method=method, folds=folds, only=None, seed=0)


def test_an_opening_is_in_one_fold_and_every_fold_has_some() -> None:
    pairs = [make_pair(number, f"opening {number // 4}", "a", "b") for number in range(400)]
    folds: dict[str, set[int]] = {}
    for pair in pairs:
        folds.setdefault(pair.opening, set()).add(fold_of(pair, 5))
    assert all(len(own) == 1 for own in folds.values())
    assert set.union(*folds.values()) == set(range(5))


def test_a_file_gives_its_decided_pairs_and_openings_that_differ_in_case_alone_are_one(tmp_path: Path) -> None:
    lines = [
        {"chosen": "\n\nHuman: Hi there\n\nAssistant: Good", "rejected": "\n\nHuman: Hi there\n\nAssistant: Bad"},
        {"chosen": "\n\nHuman: hi THERE\n\nAssistant: Good", "rejected": "\n\nHuman: hi THERE\n\nAssistant: Bad"},
        {"chosen": "\n\nHuman: Hi there\n\nAssistant: Same", "rejected": "\n\nHuman: Hi there\n\nAssistant: Same"},
    ]
    path = tmp_path / "pairs.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    pairs = read_pairs([path])
    assert [pair.chosen[-1]["content"] for pair in pairs] == ["Good", "Good"]
    assert pairs[0].opening == pairs[1].opening
    assert pairs[0].lengths == (4, 3)


def test_a_bag_of_words_finds_a_planted_word() -> None:
    pairs = planted(120)
    answers = answer_by_words(pairs[:80], pairs[80:], argparse.Namespace())
    assert all(answer.credit == 1 for answer in answers)


def test_a_stopped_study_goes_on_with_the_folds_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def learner(learned: list[Pair], about: list[Pair], chosen: argparse.Namespace) -> list[Answer]:
        assert {pair.opening for pair in learned}.isdisjoint(pair.opening for pair in about)
        asked.append(len(about))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return [Answer(pair.key, 1.0, 0.0) for pair in about]

    monkeypatch.setitem(real_pairs.LEARNERS, "length", learner)
    pairs, out = planted(60), tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        answer_folds(pairs, options(out))
    answer_folds(pairs, options(out))
    folds = [json.loads(line)["fold"] for line in out.read_text().splitlines()]
    assert folds == [0, 1, 2]
    assert len(asked) == 4


def test_the_report_has_every_method_on_the_same_pairs(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    keys = [f"pair {number}" for number in range(8)]
    for method, right in (("ours", 6), ("length", 4)):
        answers = [[key, float(place < right), 0.5, 10 + place, 10] for place, key in enumerate(keys)]
        line = {"method": method, "fold": 0, "cpu_seconds": 2.0, "answers": answers}
        out.open("a").write(json.dumps(line) + "\n")
    found = report(out)
    assert found["all"]["ours"]["pair_accuracy"] == 0.75
    assert found["all"]["length"]["pair_accuracy"] == 0.5
    assert found["all"]["length"]["ours_ahead_by"][0] == 0.25
    assert found["most_alike_in_length"]["ours"] == found["most_alike_in_length"]["length"] | {
        "ours_ahead_by": [0.0, 0.0, 0.0]
    }
