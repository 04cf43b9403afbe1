"""Drawing replies: alike whatever the batch, the padding or the sharing; truly from the policy's distribution."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter

import pytest
import torch
from torch.testing import assert_close

from rewardtrain import sampling, shared_prefix
from rewardtrain.chat import EncodedPrompt, encode_prompt
from rewardtrain.errors import UnsupportedArchitecture
from rewardtrain.hyperparameters import SamplingSettings
from rewardtrain.policy import Policy, PolicyWithValue
from rewardtrain.sampling import candidate_seed, sample_replies, stable_seed
from tests.rewardtrain.tiny import bot, make_gpt2, make_llama, make_mistral, make_tokenizer, user

DECODERS = {"rotary": make_llama, "absolute": make_gpt2, "sliding window": make_mistral}
TOKENIZER = make_tokenizer()
SHORT, LONG = [user("hi")], [user("a longer opening"), bot("fine"), user("and then?")]
# three replies to one dialogue, one to another, two to a third
PROMPTS = [LONG, SHORT, LONG, [user("x")], LONG, [user("x")]]
SEEDS = [11, 12, 13, 14, 15, 16]
SETTINGS = SamplingSettings(max_new_tokens=24)


@pytest.fixture(params=DECODERS.values(), ids=DECODERS.keys())
def policy(request):
    policy = PolicyWithValue(request.param(), TOKENIZER)
    torch.nn.init.normal_(policy.value_head.weight, std=0.5)
    return policy


def draw(policy, prompts=PROMPTS, seeds=SEEDS, settings=SETTINGS, **how):
    return sample_replies(policy, TOKENIZER, prompts, settings=settings, seeds=seeds, **how)


def assert_same(one, other):
    assert [reply.token_ids for reply in one] == [reply.token_ids for reply in other]
    assert [reply.text for reply in one] == [reply.text for reply in other]
    for mine, theirs in zip(one, other, strict=True):
        assert_close(mine.logprobs, theirs.logprobs, atol=1e-5, rtol=0)
        assert_close(mine.values, theirs.values, atol=1e-5, rtol=1e-4)
        assert mine.finished == theirs.finished


# The same whatever it is batched with


def test_a_prompt_encoded_once_for_its_replies_gives_what_it_gives_encoded_for_each(policy):
    assert_same(draw(policy), draw(policy, share_prefix=False))


def test_padding_at_the_right_gives_what_padding_at_the_left_gives(policy):
    assert_same(draw(policy, padding_side="left"), draw(policy, padding_side="right"))


@pytest.mark.parametrize("side", ["left", "right"])
def test_prompts_of_unlike_length_encoded_in_groups_give_the_same(policy, side, monkeypatch):
    widths = []
    encode = shared_prefix.encode_prompts

    def noting(trunk, prompts, **how):
        widths.append((len(prompts), max(map(len, prompts))))
        return encode(trunk, prompts, **how)

    at_once = draw(policy, padding_side=side)
    monkeypatch.setattr(shared_prefix, "encode_prompts", noting)
    monkeypatch.setattr(shared_prefix.groups_of_like_length, "__defaults__", (8,))
    assert_same(draw(policy, padding_side=side), at_once)
    if shared_prefix.can_share(policy.trunk):
        assert len(widths) == 2 and widths[0][1] > widths[1][1] and sum(rows for rows, _ in widths) == 3


def test_a_further_group_must_spare_padding():
    grouped = shared_prefix.groups_of_like_length
    assert grouped([3, 200, 5, 190]) == [[1, 3], [2, 0]]
    assert grouped([30, 20, 10]) == [[0, 1, 2]]
    assert grouped([]) == [[]]


def test_a_reply_does_not_depend_on_what_it_is_batched_with(policy):
    alone = [draw(policy, [prompt], [seed])[0] for prompt, seed in zip(PROMPTS, SEEDS, strict=True)]
    assert_same(draw(policy), alone)
    assert_same(draw(policy), draw(policy, rows_per_batch=2))
    assert_same(draw(policy), draw(policy, PROMPTS[::-1], SEEDS[::-1])[::-1])


def test_the_log_probabilities_and_values_are_those_of_a_fresh_forward_pass(policy):
    replies = draw(policy)
    ids = [encode_prompt(TOKENIZER, prompt, 200).ids for prompt in PROMPTS]
    with torch.no_grad():
        fresh = policy.evaluate_replies(ids, [reply.token_ids for reply in replies], list(range(len(replies))))
    for row, reply in enumerate(replies):
        assert_close(fresh.logprobs[row, : len(reply.token_ids)], reply.logprobs, atol=1e-4, rtol=0)
        assert_close(fresh.values[row, : len(reply.token_ids)], reply.values, atol=1e-4, rtol=1e-4)


def test_another_seed_gives_another_reply():
    policy = Policy(make_llama(), TOKENIZER)
    texts = {reply.text for reply in draw(policy, [SHORT] * 8, list(range(8)))}
    assert len(texts) == 8


# What a reply says of itself


def test_a_reply_ends_with_the_stop_token_or_unfinished():
    policy = Policy(make_llama(seed=3), TOKENIZER)
    replies = draw(policy, [SHORT] * 60, list(range(60)), SamplingSettings(max_new_tokens=120))
    assert {reply.finished for reply in replies} == {True, False}
    for reply in replies:
        assert reply.finished == (reply.token_ids[-1] == TOKENIZER.eos_token_id)
        assert TOKENIZER.eos_token_id not in reply.token_ids[:-1]
        assert len(reply.token_ids) == 120 if not reply.finished else len(reply.token_ids) <= 120
        assert len(reply.logprobs) == len(reply.token_ids)
        assert reply.mean_logprob == pytest.approx(float(reply.logprobs.mean()))
        assert "</s>" not in reply.text


def test_a_policy_without_a_value_head_gives_no_values():
    assert all(reply.values is None for reply in draw(Policy(make_llama(), TOKENIZER)))


def test_a_network_of_transformers_is_taken_as_it_is():
    network = make_llama()
    assert [r.text for r in draw(network)] == [r.text for r in draw(Policy(network, TOKENIZER))]


def test_prompts_may_be_encoded_before():
    policy = Policy(make_llama(), TOKENIZER)
    encoded = EncodedPrompt(encode_prompt(TOKENIZER, LONG, 100).ids)
    assert draw(policy, [encoded], [1])[0].token_ids == draw(policy, [LONG], [1])[0].token_ids


def test_training_mode_is_put_back_and_dropout_takes_no_part():
    policy = Policy(make_gpt2(dropout=0.5), TOKENIZER)
    quiet = draw(policy.eval())
    assert [r.token_ids for r in draw(policy.train())] == [r.token_ids for r in quiet]
    assert policy.training


# The distribution


def chances_after(policy, prompt, temperature=1.0):
    ids = torch.tensor([encode_prompt(TOKENIZER, prompt, 100).ids])
    with torch.no_grad():
        return (policy.network(input_ids=ids).logits[0, -1] / temperature).softmax(-1)


def first_tokens(policy, count, **settings):
    settings = SamplingSettings(max_new_tokens=1, **settings)
    return Counter(reply.token_ids[0] for reply in draw(policy, [SHORT] * count, list(range(count)), settings))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_come_as_often_as_the_policy_says(temperature):
    policy, count = Policy(make_llama(), TOKENIZER), 4000
    expected, found = chances_after(policy, SHORT, temperature), first_tokens(policy, count, temperature=temperature)
    for token in expected.topk(5).indices.tolist():
        p = float(expected[token])
        assert abs(found[token] / count - p) < 4 * math.sqrt(p * (1 - p) / count)


def test_every_token_of_a_vocabulary_comes_as_often_as_its_chance():
    """All 300 tokens at once, three levels deep: the chi-square of 60,000 draws is one that chance explains."""
    rows, size = 60_000, 300
    chances = torch.rand(size, generator=torch.Generator().manual_seed(5), dtype=torch.float64) ** 3
    chances[::7] = 0.0
    uniforms = torch.rand(rows, sampling._levels(size), generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    found = torch.bincount(sampling._descend(chances.expand(rows, size), uniforms), minlength=size)
    expected = rows * chances / chances.sum()
    likely = expected > 5
    assert found[chances == 0].sum() == 0
    statistic = float(((found - expected)[likely] ** 2 / expected[likely]).sum())
    freedom = int(likely.sum()) - 1
    assert abs(statistic - freedom) < 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("number", [0.0, 0.5, 1 - 2.0**-53])
def test_the_outermost_random_numbers_draw_no_token_without_a_chance(number):
    chances = torch.zeros(1, 1000, dtype=torch.float64)
    chances[0, [300, 301, 640]] = torch.tensor([0.1, 0.7, 0.2], dtype=torch.float64)
    uniforms = torch.full((1, sampling._levels(1000)), number, dtype=torch.float64)
    assert sampling._descend(chances, uniforms).item() in (300, 301, 640)


def test_what_a_batch_does_to_the_last_digits_hardly_ever_changes_a_token():
    """Beside a ladder of all tokens, which changes dozens of times as often."""
    size, rows = 32_768, 400
    generator = torch.Generator().manual_seed(7)
    uniforms = torch.rand(rows, sampling._levels(size), generator=generator, dtype=torch.float64)
    one_number = uniforms[:, :1].contiguous()
    logits = torch.randn(rows, size, generator=generator)
    nudged = logits * (1 + 1e-4 * torch.randn(rows, size, generator=generator))

    def changed(draw):
        one, other = (draw(each.double().softmax(dim=-1)) for each in (logits, nudged))
        return int((one != other).sum())

    plain = changed(lambda chances: torch.searchsorted(chances.cumsum(dim=-1), one_number, right=True).squeeze(1))
    ours = changed(lambda chances: sampling._descend(chances, uniforms))

    assert plain >= 10
    assert ours * 10 <= plain


def test_temperature_0_takes_the_likeliest_token():
    policy = Policy(make_llama(), TOKENIZER)
    assert set(first_tokens(policy, 5, temperature=0)) == {int(chances_after(policy, SHORT).argmax())}


def test_top_k_and_top_p_leave_the_tail_out():
    policy = Policy(make_llama(), TOKENIZER)
    ordered, tokens = chances_after(policy, SHORT).sort(descending=True)
    assert set(first_tokens(policy, 300, top_k=3)) == set(tokens[:3].tolist())
    nucleus = int((ordered.cumsum(0) < 0.5).sum()) + 1  # the token that crosses one half stays
    assert set(first_tokens(policy, 2000, top_p=0.5)) <= set(tokens[:nucleus].tolist())
    assert int(tokens[nucleus - 1]) in set(first_tokens(policy, 4000, top_p=0.5))
    assert set(first_tokens(policy, 50, top_p=1e-6)) == {int(tokens[0])}


def test_log_probabilities_are_at_the_sampling_temperature_before_the_tail_is_cut():
    policy = Policy(make_llama(), TOKENIZER)
    settings = SamplingSettings(max_new_tokens=1, temperature=0.7, top_k=2)
    reply = draw(policy, [SHORT], [5], settings)[0]
    expected = chances_after(policy, SHORT, 0.7)[reply.token_ids[0]].log()
    assert reply.mean_logprob == pytest.approx(float(expected), abs=1e-5)


# Limits


def test_a_prompt_is_cut_to_leave_the_reply_room():
    policy = Policy(make_llama(), TOKENIZER)  # 256 positions
    replies = draw(policy, [[user("a" * 400)]], [1], SamplingSettings(max_new_tokens=100))
    assert len(replies) == 1


def test_a_reply_that_leaves_no_room_is_refused():
    with pytest.raises(ValueError, match="max_new_tokens 256 leaves this network no room"):
        draw(Policy(make_llama(), TOKENIZER), settings=SamplingSettings(max_new_tokens=256))


def test_every_prompt_needs_a_seed():
    with pytest.raises(ValueError, match="6 prompts were given, but 2 seeds"):
        draw(Policy(make_llama(), TOKENIZER), seeds=[1, 2])


def test_a_network_that_gives_no_cache_back_is_refused():
    network = make_llama()
    original = network.model.forward

    def forgetful(*args, past_key_values=None, position_ids=None, **kwargs):
        out = original(*args, past_key_values=past_key_values, position_ids=position_ids, **kwargs)
        out.past_key_values = None
        return out

    policy = Policy(network, TOKENIZER)
    network.model.forward = forgetful
    with pytest.raises(UnsupportedArchitecture, match="LlamaModel gives no cache back"):
        draw(policy, share_prefix=False)


def test_nothing_wanted_is_nothing_drawn():
    assert draw(Policy(make_llama(), TOKENIZER), [], []) == []


# Seeds


def test_a_candidates_seed_is_the_same_in_another_process():
    code = "from rewardtrain.seeds import candidate_seed; print(candidate_seed(7, 2, 1))"
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(told.stdout) == candidate_seed(7, 2, 1)


def test_seeds_differ_by_request_index_and_draw_and_fit_a_generator():
    seeds = {candidate_seed(request, index, draw) for request in range(20) for index in range(9) for draw in range(4)}
    assert len(seeds) == 20 * 9 * 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert stable_seed("a", "bc") != stable_seed("ab", "c")
