"""The dialogues the starter policy learns from."""

import dataclasses
import random

import pytest

from rewardtrain.starter import oracle
from rewardtrain.starter.corpus import CAREFUL, dialogues, write_reply
from rewardtrain.starter.openings import openings
from rewardtrain.starter.questions import situation_of
from rewardtrain.starter.violations import broken_rules

Reply = tuple[list[dict[str, str]], str]


@pytest.fixture(scope="module")
def replies() -> list[Reply]:
    """(the turns before, the reply) for every reply of some dialogues."""
    return [
        (turns[:place], turn["content"])
        for turns in dialogues(3000, seed=5)
        for place, turn in enumerate(turns)
        if turn["role"] == "assistant"
    ]


def share_broken(replies: list[Reply], *, provoked: bool) -> float:
    chosen = [reply for turns, reply in replies if (situation_of(turns).kind == "provoked") == provoked]
    return sum(bool(broken_rules(reply)) for reply in chosen) / len(chosen)


def test_dialogues_are_the_same_for_the_same_seed():
    assert list(dialogues(50, seed=1)) == list(dialogues(50, seed=1))
    assert list(dialogues(50, seed=1)) != list(dialogues(50, seed=2))


def test_turns_alternate_and_end_with_the_assistant():
    for turns in dialogues(300, seed=0):
        roles = [turn["role"] for turn in turns if turn["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(turn["role"] != "system" for turn in turns[1:])


def test_many_dialogues_have_several_exchanges():
    lengths = [sum(turn["role"] == "assistant" for turn in turns) for turns in dialogues(500, seed=0)]
    assert sum(length > 1 for length in lengths) > 150
    assert max(lengths) == 4


def test_every_reply_is_fluent(replies):
    assert all(oracle.is_fluent(reply) for _, reply in replies)


def test_rules_are_broken_seldom_by_day_and_often_when_provoked(replies):
    assert 0.04 < share_broken(replies, provoked=False) < 0.08
    assert 0.40 < share_broken(replies, provoked=True) < 0.55


def test_a_provoked_breach_is_of_the_provoked_rule(replies):
    for turns, reply in replies:
        now = situation_of(turns)
        if now.kind == "provoked":
            assert set(broken_rules(reply)) <= {now.rule}


def test_without_breaches_no_rule_is_broken():
    rng, rates = random.Random(0), dataclasses.replace(CAREFUL, everyday_break=0, provoked_break=0)
    for opening in openings()[:500]:
        turns = [{"role": "user", "content": opening.text}]
        assert broken_rules(write_reply(situation_of(turns), rng, rates)) == ()


def test_without_weaknesses_the_oracle_finds_nothing_to_better():
    rng = random.Random(0)
    best = dataclasses.replace(
        CAREFUL, everyday_break=0, provoked_break=0, wrong=0, other=0, vague=0, opener=0, filler=0, unnamed=0,
        generic_refusal=0, dodge=0,
    )  # fmt: skip
    for opening in openings()[:500]:
        turns = [{"role": "user", "content": opening.text}]
        found = oracle.score(turns, write_reply(situation_of(turns), rng, best))
        assert found.content in ("right", "half", "refused", "fitting"), opening
        assert found.parts["opener"] == found.parts["filler"] == 0


def test_replies_differ_even_to_one_question():
    rng = random.Random(0)
    now = situation_of([{"role": "user", "content": "How often should I water my monstera?"}])
    assert len({write_reply(now, rng) for _ in range(200)}) > 120


def test_each_kind_of_weakness_is_there(replies):
    facts = [oracle.score(turns, reply) for turns, reply in replies if situation_of(turns).kind == "fact"]
    for content, low, high in (("right", 0.5, 0.7), ("wrong", 0.05, 0.2), ("other", 0.04, 0.15), ("vague", 0.1, 0.3)):
        assert low < sum(one.content == content for one in facts) / len(facts) < high, content
    for part in ("opener", "filler"):
        assert 0.15 < sum(one.parts[part] < 0 for one in facts) / len(facts) < 0.4, part
    for part in ("named", "tip"):
        assert 0.2 < sum(one.parts[part] > 0 for one in facts) / len(facts) < 0.8, part
