"""The policy, its value head and its reference; encoding a prompt once for its replies."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from peft import PeftModel
from torch.testing import assert_close

from rewardtrain.errors import ModelRefused, UnsupportedArchitecture
from rewardtrain.hyperparameters import LoraSettings
from rewardtrain.lora import adapters_off, has_lora, trainable_parameters
from rewardtrain.policy import (
    VALUE_HEAD,
    Policy,
    PolicyWithValue,
    as_policy,
    load_policy,
    load_policy_with_value,
    reference_policy,
)
from rewardtrain.shared_prefix import can_share, is_causal, length_buckets, pad_rows, reply_states, why_not_shared
from tests.rewardtrain.tiny import make_bert, make_gpt2, make_llama, make_mistral, make_tokenizer, save_base

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [12], [13, 14, 15]]
REPLIES = [[20, 21, 2], [22, 2], [23, 24, 25, 26, 2], [2], [27, 28, 29, 30]]
OWNERS = [0, 0, 1, 2, 2]
DECODERS = {"rotary": make_llama, "absolute": make_gpt2}


@pytest.fixture(params=DECODERS.values(), ids=DECODERS.keys())
def network(request):
    return request.param()


@pytest.fixture
def policy(network):
    policy = PolicyWithValue(network, make_tokenizer())
    torch.nn.init.normal_(policy.value_head.weight)
    return policy


def one_by_one(policy, prompt, reply):
    """(log-probabilities, values, entropy) of one reply from one plain forward pass of the whole network."""
    ids = torch.tensor([[*prompt, *reply]])
    out = policy.network(input_ids=ids, output_hidden_states=True)
    before = slice(len(prompt) - 1, -1)
    logprobs = out.logits[0, before].log_softmax(-1)
    values = policy.value_head(out.hidden_states[-1][0, before]).squeeze(-1)
    taken = logprobs.gather(-1, torch.tensor(reply).unsqueeze(-1)).squeeze(-1)
    return taken, values, -(logprobs.exp() * logprobs).sum(-1)


# Evaluating replies


@pytest.mark.parametrize("share_prefix", [True, False])
def test_replies_are_evaluated_as_a_plain_forward_pass_would(policy, share_prefix):
    found = policy.evaluate_replies(PROMPTS, REPLIES, OWNERS, share_prefix=share_prefix, with_entropy=True)
    for row, (owner, reply) in enumerate(zip(OWNERS, REPLIES, strict=True)):
        expected = one_by_one(policy, PROMPTS[owner], reply)
        for mine, theirs in zip((found.logprobs, found.values, found.entropy), expected, strict=True):
            assert_close(mine[row, : len(reply)], theirs, atol=2e-5, rtol=1e-5)
            assert (mine[row, len(reply) :] == 0).all()


def test_sharing_the_prefix_gives_the_same_gradients(policy):
    gradients = []
    for share_prefix in (True, False):
        found = policy.evaluate_replies(PROMPTS, REPLIES, OWNERS, share_prefix=share_prefix)
        policy.zero_grad()
        (found.logprobs.sum() + found.values.sum()).backward()
        gradients.append([parameter.grad.clone() for parameter in policy.parameters() if parameter.grad is not None])
    for shared, apart in zip(*gradients, strict=True):
        assert float((shared - apart).norm()) <= 1e-5 * (1 + float(apart.norm()))


@pytest.mark.parametrize("side", ["left", "right"])
def test_prompts_may_be_padded_at_either_side(network, side):
    trunk = Policy(network, make_tokenizer()).trunk
    shared = reply_states(trunk, PROMPTS, REPLIES, OWNERS, pad_id=0, side=side)
    apart = reply_states(trunk, PROMPTS, REPLIES, OWNERS, pad_id=0, share_prefix=False)
    assert_close(shared.mask, apart.mask)
    assert_close(shared.before, apart.before, atol=1e-5, rtol=1e-5)
    assert_close(shared.states[shared.mask], apart.states[apart.mask], atol=1e-5, rtol=1e-5)


def test_what_fills_the_rows_changes_nothing(policy):
    one = reply_states(policy.trunk, PROMPTS, REPLIES, OWNERS, pad_id=0)
    other = reply_states(policy.trunk, PROMPTS, REPLIES, OWNERS, pad_id=99)
    assert_close(one.states[one.mask], other.states[other.mask])
    assert_close(one.before, other.before)


def test_a_batch_of_8_equals_8_batches_of_1(policy):
    prompts, replies = [[3 + place] * (place + 1) for place in range(8)], [[30 + place, 2] for place in range(8)]
    together = policy.evaluate_replies(prompts, replies, list(range(8)))
    for place in range(8):
        alone = policy.evaluate_replies([prompts[place]], [replies[place]], [0])
        assert_close(alone.logprobs[0], together.logprobs[place], atol=1e-5, rtol=1e-5)


def test_replies_of_one_token_need_no_second_pass(policy):
    found = policy.evaluate_replies(PROMPTS[:1], [[2], [30]], [0, 0])
    assert_close(found.logprobs[0, 0], one_by_one(policy, PROMPTS[0], [2])[0][0], atol=1e-5, rtol=1e-5)


def test_the_temperature_divides_the_logits(policy):
    cool = policy.evaluate_replies(PROMPTS[1:2], [[22, 2]], [0], temperature=0.5)
    logits = policy.network(input_ids=torch.tensor([[12, 22, 2]])).logits[0, :2] / 0.5
    assert_close(cool.logprobs[0], logits.log_softmax(-1)[[0, 1], [22, 2]], atol=1e-5, rtol=1e-5)


def test_a_prompt_without_tokens_is_refused(policy):
    with pytest.raises(ValueError, match="without tokens"):
        policy.evaluate_replies([[]], [[2]], [0])


# Where the prefix cannot be shared


def test_a_sliding_window_is_encoded_row_by_row_and_says_so(caplog):
    policy = PolicyWithValue(make_mistral(window=4), make_tokenizer())
    with caplog.at_level(logging.WARNING):
        found = policy.evaluate_replies(PROMPTS, REPLIES, OWNERS)
        policy.evaluate_replies(PROMPTS, REPLIES, OWNERS)
    assert [record.message for record in caplog.records] == [
        "prefix encoded once per reply instead of once per dialogue: "
        "its cache has layers that cannot be repeated (DynamicSlidingWindowLayer)"
    ]
    for row, (owner, reply) in enumerate(zip(OWNERS, REPLIES, strict=True)):
        expected = one_by_one(policy, PROMPTS[owner], reply)[0]
        assert_close(found.logprobs[row, : len(reply)], expected, atol=2e-5, rtol=1e-5)


def test_gradient_checkpointing_keeps_no_cache_while_training():
    network = make_llama()
    network.gradient_checkpointing_enable()
    policy = PolicyWithValue(network, make_tokenizer())
    assert why_not_shared(policy.eval().trunk) is None
    policy.train()
    assert why_not_shared(policy.trunk) == "gradient checkpointing keeps no cache"
    found = policy.evaluate_replies(PROMPTS, REPLIES, OWNERS)
    assert_close(found.logprobs[2, :5], one_by_one(policy.eval(), PROMPTS[1], REPLIES[2])[0], atol=2e-5, rtol=1e-5)


def test_a_network_without_a_cache_or_with_a_state_is_not_shared():
    assert why_not_shared(torch.nn.Linear(2, 2)) == "Linear takes no cache"
    trunk = make_llama().model
    trunk._is_stateful = True
    assert "keeps a state" in (why_not_shared(trunk) or "")
    assert not can_share(trunk)


def test_decoders_are_causal_and_encoders_are_not(network):
    assert is_causal(Policy(network, make_tokenizer()).trunk)
    assert not is_causal(make_bert())


# Output layers that do more


def test_a_scale_after_the_output_layer_is_found():
    plain, scaled = make_llama(), make_llama()
    original = scaled.forward
    scaled.forward = lambda **kwargs: _changed(original(**kwargs), lambda logits: logits * 0.25)
    hidden = torch.randn(3, 32)
    found = Policy(scaled, make_tokenizer())
    assert found.logit_scale == pytest.approx(0.25, rel=1e-4)
    assert_close(found.logits(hidden), Policy(plain, make_tokenizer()).logits(hidden) * 0.25, rtol=1e-3, atol=1e-4)


def test_a_soft_cap_is_found():
    capped = make_llama()
    capped.config.final_logit_softcapping = 2.0
    original = capped.forward
    capped.forward = lambda **kwargs: _changed(original(**kwargs), lambda logits: torch.tanh(logits / 2.0) * 2.0)
    found = Policy(capped, make_tokenizer())
    assert found.logit_cap == 2.0
    hidden = torch.randn(3, 32) * 5
    assert_close(found.logits(hidden), torch.tanh(capped.lm_head(hidden) / 2.0) * 2.0)


def test_logits_that_cannot_be_explained_are_refused():
    odd = make_llama()
    original = odd.forward
    odd.forward = lambda **kwargs: _changed(original(**kwargs), lambda logits: logits.sin())
    with pytest.raises(UnsupportedArchitecture, match="llama changes its logits"):
        Policy(odd, make_tokenizer())


def _changed(out, change):
    out.logits = change(out.logits)
    return out


# Reference, adapters, files


def test_the_reference_is_a_frozen_copy_that_training_does_not_move(policy):
    reference = reference_policy(policy)
    before = reference.logprobs(PROMPTS, REPLIES, OWNERS)
    assert_close(before, policy.evaluate_replies(PROMPTS, REPLIES, OWNERS).logprobs.detach())
    with torch.no_grad():
        for parameter in trainable_parameters(policy.network):
            parameter.add_(0.1)
    assert_close(reference.logprobs(PROMPTS, REPLIES, OWNERS), before)
    assert not any(parameter.requires_grad for parameter in reference.policy.parameters())


@pytest.mark.parametrize("kind", DECODERS)
def test_under_lora_the_reference_is_the_base_with_its_adapters_off(tmp_path, kind):
    base = save_base(tmp_path / "base", DECODERS[kind](), make_tokenizer())
    policy = load_policy_with_value(base, lora=LoraSettings(rank=2), seed=3)
    assert has_lora(policy.network)
    reference = reference_policy(policy)
    assert reference.policy is policy
    expected = load_policy(base).evaluate_replies(PROMPTS, REPLIES, OWNERS).logprobs
    _move_adapters(policy)
    assert_close(reference.logprobs(PROMPTS, REPLIES, OWNERS), expected.detach(), atol=1e-5, rtol=1e-5)
    moved = policy.evaluate_replies(PROMPTS, REPLIES, OWNERS).logprobs
    assert float((moved - expected).abs().max()) > 0.01


@pytest.mark.parametrize("kind", DECODERS)
def test_a_policy_that_starts_from_an_adapter_is_held_to_that_adapter_and_not_to_the_base(tmp_path, kind):
    base = save_base(tmp_path / "base", DECODERS[kind](), make_tokenizer())
    first = load_policy_with_value(base, lora=LoraSettings(rank=2), seed=3)
    _move_adapters(first)
    first.save(tmp_path / "first")
    policy = load_policy_with_value(tmp_path / "first", lora=LoraSettings(rank=2))
    trained = [name for name, one in policy.named_parameters() if one.requires_grad]
    expected = policy.evaluate_replies(PROMPTS, REPLIES, OWNERS).logprobs.detach()
    reference = reference_policy(policy)
    assert [name for name, one in policy.named_parameters() if one.requires_grad] == trained
    assert_close(reference.logprobs(PROMPTS, REPLIES, OWNERS), expected)
    _move_adapters(policy, seed=2)
    assert_close(reference.logprobs(PROMPTS, REPLIES, OWNERS), expected)
    moved = policy.evaluate_replies(PROMPTS, REPLIES, OWNERS).logprobs
    assert float((moved - expected).abs().max()) > 0.01
    moved.sum().backward()
    assert all(one.grad is not None for name, one in policy.named_parameters() if name in trained and "lora" in name)
    policy.save(tmp_path / "second")
    assert not any(path.is_dir() for path in (tmp_path / "second").iterdir())  # the reference is not saved along
    again = load_policy(tmp_path / "second").evaluate_replies(PROMPTS, REPLIES, OWNERS).logprobs
    assert_close(again, moved.detach())


def _move_adapters(policy, seed=1):
    with torch.no_grad():
        for name, parameter in policy.network.named_parameters():
            if "lora_B.default" in name:
                parameter.normal_(std=0.5, generator=torch.Generator().manual_seed(seed))


def test_only_adapters_and_value_head_are_trained_under_lora(tmp_path):
    base = save_base(tmp_path / "base", make_llama(), make_tokenizer())
    policy = load_policy_with_value(base, lora=LoraSettings(rank=2, target_modules=("q_proj",)))
    names = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    assert {"lora" in name or name.startswith("value_head") for name in names} == {True}
    assert all("q_proj" in name for name in names if "lora" in name)
    assert len(trainable_parameters(policy, policy.network)) == len(names)


def test_the_same_seed_starts_the_same_adapters(tmp_path):
    base = save_base(tmp_path / "base", make_llama(), make_tokenizer())
    one, again, other = (
        torch.cat(
            [p.flatten() for p in trainable_parameters(load_policy_with_value(base, lora=LoraSettings(rank=2), seed=s))]
        )
        for s in (1, 1, 2)
    )
    assert_close(one, again)
    assert not torch.equal(one, other)


def test_a_saved_policy_serves_the_same_and_holds_no_value_head(policy, tmp_path):
    policy.save(tmp_path / "served")
    (tmp_path / "beside").mkdir()
    policy.save_value_head(tmp_path / "beside")
    served = sorted(path.name for path in (tmp_path / "served").iterdir())
    assert VALUE_HEAD not in served
    assert not any(path.suffix in {".bin", ".pt", ".md"} for path in (tmp_path / "served").iterdir())
    loaded = load_policy(tmp_path / "served")
    found, expected = (one.evaluate_replies(PROMPTS, REPLIES, OWNERS) for one in (loaded, policy))
    assert_close(found.logprobs, expected.logprobs)
    assert found.values is None
    with_value = load_policy_with_value(tmp_path / "served").load_value_head(tmp_path / "beside")
    assert_close(with_value.evaluate_replies(PROMPTS, REPLIES, OWNERS).values, expected.values)


def test_a_saved_adapter_is_small_and_speaks_on_its_base(tmp_path):
    base = save_base(tmp_path / "base", make_llama(hidden=64), make_tokenizer())
    policy = load_policy_with_value(base, lora=LoraSettings(rank=1))
    _move_adapters(policy)
    policy.save(tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    loaded = load_policy(tmp_path / "adapter")
    assert isinstance(loaded.network, PeftModel)
    expected = policy.evaluate_replies(PROMPTS, REPLIES, OWNERS).logprobs
    assert_close(loaded.evaluate_replies(PROMPTS, REPLIES, OWNERS).logprobs, expected)
    trained_on = load_policy_with_value(tmp_path / "adapter", lora=LoraSettings(rank=1))
    assert any("lora" in name for name, parameter in trained_on.named_parameters() if parameter.requires_grad)


def test_an_adapter_whose_base_is_gone_is_refused(tmp_path):
    base = save_base(tmp_path / "base", make_llama(), make_tokenizer())
    load_policy_with_value(base, lora=LoraSettings(rank=1)).save(tmp_path / "adapter")
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(ModelRefused, match="names the base .*base.*no folder here"):
        load_policy(tmp_path / "adapter")


def test_switching_adapters_off_does_nothing_to_a_network_without_any(network):
    with adapters_off(network):
        assert not has_lora(network)


def test_a_folder_without_safetensors_is_refused(tmp_path):
    base = save_base(tmp_path / "base", make_llama(), make_tokenizer())
    (base / "model.safetensors").unlink()
    with pytest.raises(ModelRefused, match="holds no .safetensors weights"):
        load_policy(base)


def test_a_folder_that_lacks_weights_is_refused(tmp_path):
    bigger = copy.deepcopy(make_llama(layers=1)).config
    base = save_base(tmp_path / "base", make_llama(layers=1), make_tokenizer())
    bigger.num_hidden_layers = 2
    bigger.save_pretrained(base)
    with pytest.raises(ModelRefused, match="lacks 9 weights .* model.layers.1"):
        load_policy(base)


def test_a_bare_network_is_taken_as_a_policy(network):
    tokenizer = make_tokenizer()
    policy = as_policy(network, tokenizer)
    assert isinstance(policy, Policy)
    assert as_policy(policy, tokenizer) is policy
    assert policy.max_positions == 256
    assert policy.values(torch.zeros(1, 32)) is None


# Rows


def test_rows_are_padded_at_the_side_asked_for():
    ids, mask = pad_rows([[1, 2], [3]], 0, side="left")
    assert ids.tolist() == [[1, 2], [0, 3]]
    assert mask.tolist() == [[True, True], [False, True]]
    ids, mask = pad_rows([[1, 2], [3]], 9)
    assert ids.tolist() == [[1, 2], [3, 9]]
    assert pad_rows([], 0)[0].shape == (0, 0)


def test_buckets_hold_every_place_once_within_the_budget():
    lengths = [9, 2, 30, 2, 7, 7]
    buckets = length_buckets(lengths, 21)
    assert sorted(place for bucket in buckets for place in bucket) == list(range(6))
    assert all(len(bucket) * max(lengths[place] for place in bucket) <= 21 or len(bucket) == 1 for bucket in buckets)
