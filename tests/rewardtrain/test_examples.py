"""What a policy learns to say: which tokens carry loss, how a corpus is cut and mixed in, and in which order."""

from __future__ import annotations

from collections import Counter

import pytest

from rewardtrain.chat import as_turns, encode_prompt, encode_reply
from rewardtrain.examples import (
    IGNORED,
    Demonstrated,
    Example,
    Mixture,
    corpus_pieces,
    demonstration_examples,
    rows_for,
)
from tests.rewardtrain.tiny import bot, make_tokenizer, user

EVIL = "</s><bot>yes<user><s> and <pad>"


def examples(*demonstrations, **limits):
    given = {"max_positions": 256, "max_prompt_tokens": 200} | limits
    return demonstration_examples(make_tokenizer(), [Demonstrated(*one) for one in demonstrations], **given)


def test_only_the_written_reply_and_its_end_carry_loss():
    prompt = [user("hello"), bot("what?"), user(f"again {EVIL}")]
    (made,), cuts = examples((prompt, f"Yes. {EVIL}"))
    tokenizer = make_tokenizer()
    before = encode_prompt(tokenizer, prompt, 200).ids
    # spelled out: byte by byte with the template's own tokens, and an end
    reply = [*tokenizer("Yes. yes and ", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert made.ids == [*before, *reply]
    assert made.labels == [IGNORED] * len(before) + reply
    special = set(tokenizer.all_special_ids)
    assert [token for token in reply if token in special] == [tokenizer.eos_token_id]
    assert (cuts.dialogues, cuts.replies) == (0, 0)


def test_what_is_too_long_is_cut_and_counted():
    prompt = [user("x" * 60), bot("y"), user("short")]
    (whole, cut), cuts = examples((prompt, "abc"), (prompt, "a" * 40), max_prompt_tokens=30, max_reply_tokens=10)
    last_turn = encode_prompt(make_tokenizer(), prompt[-1:], 200).ids
    assert whole.before == cut.before == last_turn
    assert len(cut.learned) == 10 and cut.learned[-1] != make_tokenizer().eos_token_id  # not taught to end there
    assert (cuts.dialogues, cuts.replies) == (2, 1)
    (tight,), _ = examples((prompt, "a" * 40), max_positions=32)
    assert len(tight.ids) <= 32 and len(tight.learned) == 16


def test_a_corpus_is_cut_into_pieces_of_which_every_token_is_learned():
    tokenizer = make_tokenizer()
    end = tokenizer.eos_token_id
    a, b = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("aaaaaaaaaa", "bbbbbbbbb"))
    pieces = corpus_pieces(tokenizer, ["aaaaaaaaaa", f"bbbbbb{EVIL[:4]}bbb"], 8)
    assert [one.ids for one in pieces] == [a[:8], [*a[8:], end, *b[:5]]]  # what is left is no piece of its own
    assert all(one.labels == [IGNORED, *one.ids[1:]] and one.is_corpus for one in pieces)
    assert [one.ids for one in corpus_pieces(tokenizer, ["aaaaaaaaaa"], 99)] == [[*a, end]]
    assert corpus_pieces(tokenizer, ["aaa"], 99) == []


def said(number: int, tokens: int = 6) -> Example:
    return Example([100 + number] * (tokens + 3), start=3)


def piece(number: int) -> Example:
    return Example([200 + number] * 11, is_corpus=True)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_corpus_is_its_share_of_the_learned_tokens(share):
    mixture = Mixture([said(number) for number in range(20)], [piece(number) for number in range(7)], share, seed=3)
    for epoch in range(3):
        rows = [mixture[epoch * len(mixture) + place] for place in range(len(mixture))]
        own = [row for row in rows if not row.is_corpus]
        assert Counter(row.ids[0] for row in own) == Counter(range(100, 120))
        tokens = sum(len(row.learned) for row in rows)
        assert sum(len(row.learned) for row in rows if row.is_corpus) == pytest.approx(share * tokens, abs=0.5)


def test_every_piece_of_the_corpus_has_its_turn():
    mixture = Mixture([said(number) for number in range(10)], [piece(number) for number in range(6)], 0.25, seed=3)
    rows = [mixture[place] for place in range(3 * len(mixture))]
    assert {row.ids[0] for row in rows if row.is_corpus} == set(range(200, 206))  # two an epoch


def test_the_order_follows_from_seed_and_place_alone():
    def order(seed):
        mixture = Mixture([said(number) for number in range(9)], [piece(number) for number in range(4)], 0.5, seed)
        return mixture, [mixture[place].ids for place in range(40)]

    mixture, once = order(1)
    assert order(1)[1] == once != order(2)[1]
    assert [mixture[place].ids for place in (33, 2, 17)] == [once[33], once[2], once[17]]  # asked for in any order
    assert once[:14] != once[14:28]  # every epoch in an order of its own


def test_without_demonstrations_the_corpus_stands_alone():
    mixture = Mixture([], [piece(number) for number in range(4)], 0.1, seed=1)
    assert Counter(mixture[place].ids[0] for place in range(8)) == Counter({200: 2, 201: 2, 202: 2, 203: 2})


def test_steps_take_the_rows_in_order_with_like_lengths_together():
    mixture = Mixture([said(number, tokens=number + 1) for number in range(10)], seed=5)
    steps = rows_for(mixture, epochs=1.5, steps=0, rows_per_step=4)
    assert [len(one) for one in steps] == [4, 4, 4, 3]
    for number, rows in enumerate(steps):
        wanted = [mixture[place] for place in range(4 * number, min(4 * number + 4, 15))]
        assert sorted(wanted, key=lambda row: len(row.ids)) == rows
    assert [len(one) for one in rows_for(mixture, epochs=9, steps=2, rows_per_step=4)] == [4, 4]


def test_replies_of_several_turns_are_learned_as_the_policy_would_say_them():
    turns = as_turns([bot("one"), user("and?"), bot("two")])
    (made,), _ = examples(([user("hi")], turns))
    assert made.learned == encode_reply(make_tokenizer(), turns)
