"""Layers computed twice give the same gradients in less memory; bfloat16 trains, and what must stay whole does."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from rewardtrain import ppo, reward_training
from rewardtrain.errors import UnsupportedArchitecture
from rewardtrain.hyperparameters import InvalidSettings, LoraSettings, PpoSettings, RewardModelSettings
from rewardtrain.lora import add_lora
from rewardtrain.policy import PolicyWithValue, load_policy, load_policy_with_value, reference_policy
from rewardtrain.precision import check_device, mixed_precision, recomputed_layers
from rewardtrain.reward_model import RewardModel
from rewardtrain.reward_training import train_reward_model
from rewardtrain.rollouts import WeightedReward, sample_rollout, score
from rewardtrain.sampling import encode_for_sampling
from tests.rewardtrain.tiny import (
    make_bert,
    make_bert_tokenizer,
    make_gpt2,
    make_llama,
    make_tokenizer,
    planted,
    save_base,
)
from tests.rewardtrain.trainings import PPO, PROMPTS, count_e

BASES = {
    "rotary": lambda: (make_llama(), make_tokenizer()),
    "absolute, with dropout": lambda: (make_gpt2(dropout=0.1), make_tokenizer()),
    "encoder": lambda: (make_bert(), make_bert_tokenizer()),
}
REWARD = WeightedReward("letter e", 1.0, count_e, mean=0.1, std=0.5)
TRAIN = planted(24, seed=1)
BFLOAT16 = {"mixed_precision": "bfloat16"}


class SavedForBackward(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that a forward pass keeps for its gradient."""

    def __init__(self) -> None:
        self.bytes = 0
        super().__init__(self._count, lambda tensor: tensor)

    def __enter__(self) -> SavedForBackward:
        super().__enter__()
        return self

    def _count(self, tensor: torch.Tensor) -> torch.Tensor:
        self.bytes += tensor.numel() * tensor.element_size()
        return tensor


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {name: one.grad.clone() for name, one in module.named_parameters() if one.grad is not None}
    module.zero_grad(set_to_none=True)
    return found


# Layers computed twice


def reward_gradients(base: Any, **changes: Any) -> tuple[dict[str, torch.Tensor], int]:
    settings = RewardModelSettings(share_prefix=False, **changes)
    reward_model = RewardModel.from_base(base, settings).train(settings.dropout)
    examples, _ = reward_training._examples(reward_model, TRAIN[:4], settings)
    torch.manual_seed(1)  # dropout
    with SavedForBackward() as saved:
        reward_training._backward(reward_model, examples, settings)
    return gradients(reward_model), saved.bytes


@pytest.mark.parametrize("dropout", [True, False])
@pytest.mark.parametrize("kind", BASES)
def test_a_reward_model_gets_the_same_gradients_from_layers_computed_twice(kind, dropout, tmp_path):
    base = save_base(tmp_path / "base", *BASES[kind]())
    wanted, bytes_kept = reward_gradients(base, dropout=dropout)
    found, fewer_bytes = reward_gradients(base, dropout=dropout, gradient_checkpointing=True)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert_close(found[name], gradient, atol=1e-6, rtol=1e-6)
    assert fewer_bytes < 0.6 * bytes_kept


def policy_gradients(settings: PpoSettings, network: Any) -> tuple[dict[str, torch.Tensor], int, Any]:
    """Of the first minibatch of a run, with what its forward passes kept."""
    policy = PolicyWithValue(network, make_tokenizer()).eval()
    encoded = [encode_for_sampling(policy, policy.tokenizer, prompt, settings.sampling) for prompt in PROMPTS[:4]]
    rollout = sample_rollout(policy, reference_policy(policy), PROMPTS[:4], encoded, settings, 0)
    score(rollout, [REWARD], settings)
    rollout.rewards = ppo.token_rewards(rollout, 0.1)
    ppo.estimate_advantages(rollout, settings)

    class Keeps(torch.optim.SGD):
        found: dict[str, torch.Tensor]

        def step(self, closure: Any = None) -> None:
            self.found = gradients(policy)

    parameters = [one for one in policy.parameters() if one.requires_grad]
    keeps = Keeps(parameters, lr=1.0)
    with SavedForBackward() as saved:
        ppo._minibatch_step(
            policy, keeps, parameters, rollout, list(range(len(rollout))), settings, ppo.UpdateStatistics()
        )
    return keeps.found, saved.bytes, policy


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("kind", ["rotary", "absolute, with dropout"])
def test_a_policy_gets_the_same_gradients_from_layers_computed_twice(kind, rank):
    settings = dataclasses.replace(PPO, share_prefix=False, max_grad_norm=1e9)
    wanted, bytes_kept, _ = policy_gradients(settings, add_lora(BASES[kind]()[0], LoraSettings(rank=rank)))
    twice = dataclasses.replace(settings, gradient_checkpointing=True)
    found, fewer_bytes, policy = policy_gradients(twice, add_lora(BASES[kind]()[0], LoraSettings(rank=rank)))
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert_close(found[name], gradient, atol=1e-6, rtol=1e-6)
    assert fewer_bytes < 0.6 * bytes_kept
    assert not policy.training  # dropout stays off
    assert not any(hasattr(module, "is_recomputed") for module in policy.modules())


def test_whole_trainings_with_layers_computed_twice_end_with_the_same_weights(tmp_path):
    base = save_base(tmp_path / "base", *BASES["absolute, with dropout"]())
    settings = RewardModelSettings(epochs=1, share_prefix=False, learning_rate=3e-3)
    ends = []
    for wanted in (False, True):
        own = dataclasses.replace(settings, gradient_checkpointing=wanted)
        ends.append(train_reward_model(TRAIN, base=base, settings=own).reward_model.state_dict())
    assert_close(*ends, atol=1e-6, rtol=1e-6)
    assert_close(*(improved(gradient_checkpointing=wanted)[0].state_dict() for wanted in (False, True)))


def improved(network: Any = None, **changes: Any) -> tuple[PolicyWithValue, ppo.PpoResult]:
    policy = PolicyWithValue(network or make_llama(), make_tokenizer())
    settings = dataclasses.replace(PPO, updates=3, share_prefix=False, **changes)
    reference = reference_policy(policy)
    return policy, ppo.train_policy(PROMPTS, policy=policy, ref_policy=reference, rewards=[REWARD], settings=settings)


def test_prompts_are_not_shared_while_layers_are_computed_twice_and_that_is_said(tmp_path, caplog):
    base = save_base(tmp_path / "base", *BASES["rotary"]())
    settings = RewardModelSettings(epochs=0.2, gradient_checkpointing=True)
    with caplog.at_level(logging.WARNING):
        trained = train_reward_model(TRAIN, base=base, settings=settings)
    assert "encoded once per reply instead of once per dialogue: gradient checkpointing" in caplog.text
    assert trained.reward_model.config.share_prefix  # when it scores, they are


def test_layers_are_as_before_after_an_error_and_networks_without_any_are_refused():
    network = make_llama()
    with pytest.raises(RuntimeError, match="no memory"), recomputed_layers(network):
        raise RuntimeError("no memory")
    assert "forward" not in vars(network.model.layers[0])
    with recomputed_layers(network, wanted=False):
        assert "forward" not in vars(network.model.layers[0])
    with pytest.raises(UnsupportedArchitecture, match="Set gradient_checkpointing to false"):
        recomputed_layers(torch.nn.Linear(2, 2)).__enter__()


# bfloat16


def test_ppo_in_mixed_precision_goes_as_in_whole_and_keeps_weights_whole():
    (policy, mixed), (_, whole) = improved(**BFLOAT16), improved()
    assert {tensor.dtype for tensor in policy.state_dict().values()} == {torch.float32}
    assert mixed.steps[0].policy_loss != whole.steps[0].policy_loss
    assert mixed.steps[0].kl_nats == pytest.approx(0, abs=0.2)  # drawn and judged in the same precision
    assert mixed.steps[0].clip_fraction < 0.1
    assert mixed.steps[0].entropy == pytest.approx(
        whole.steps[0].entropy, abs=0.3
    )  # of other tokens, where a last digit drew them


def test_log_probabilities_of_the_drawing_are_those_of_the_update_in_bfloat16_too():
    settings = dataclasses.replace(PPO, share_prefix=False, **BFLOAT16)
    policy = PolicyWithValue(make_llama(), make_tokenizer()).eval()
    encoded = [encode_for_sampling(policy, policy.tokenizer, prompt, settings.sampling) for prompt in PROMPTS[:4]]
    with mixed_precision(settings), torch.no_grad():
        rollout = sample_rollout(policy, reference_policy(policy), PROMPTS[:4], encoded, settings, 0)
        again = policy.evaluate_replies(rollout.prompt_ids, [one.token_ids for one in rollout.replies], rollout.owners)
    assert_close(rollout.logprobs, again.logprobs, atol=0.1, rtol=0)
    assert rollout.values.dtype == torch.float32


def test_heads_keep_their_digits_in_mixed_precision(tmp_path):
    policy = PolicyWithValue(make_llama(), make_tokenizer()).eval()
    torch.nn.init.normal_(policy.value_head.weight)
    reward_model = RewardModel.from_base(save_base(tmp_path / "base", *BASES["rotary"]()), RewardModelSettings())
    hidden = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    wanted = policy.values(hidden), reward_model._head(hidden)
    with mixed_precision(RewardModelSettings(mixed_precision="bfloat16")):
        assert_close((policy.values(hidden), reward_model._head(hidden)), wanted, atol=0, rtol=0)
        assert policy.network.lm_head(hidden).dtype == torch.bfloat16  # where whole precision was not asked for


def test_a_frozen_base_in_bfloat16_carries_adapters_in_float32(tmp_path):
    base = save_base(tmp_path / "base", *BASES["rotary"]())
    policy = load_policy_with_value(base, lora=LoraSettings(rank=2), dtype="bfloat16")
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    settings = dataclasses.replace(PPO, updates=2, lora=LoraSettings(rank=2), dtype="bfloat16", **BFLOAT16).validate()
    ppo.train_policy(
        PROMPTS, policy=policy, ref_policy=reference_policy(policy), rewards=[REWARD], settings=settings
    )  # fmt: skip
    for name, tensor in policy.state_dict().items():
        trained = "lora" in name or "value_head" in name
        assert tensor.dtype == (torch.float32 if trained else torch.bfloat16), name
        assert torch.equal(tensor, before[name]) is not trained, name
    (tmp_path / "saved").mkdir()
    policy.save(tmp_path / "saved")
    assert load_policy(tmp_path / "saved").device.type == "cpu"


# Settings


@pytest.mark.parametrize(
    ("kind", "changes", "problem"),
    [
        (PpoSettings, {"dtype": "bfloat16"}, "lora.rank above 0: PPO's small steps are lost in bfloat16 weights"),
        (RewardModelSettings, {"dtype": "bfloat16"}, "or lora.rank above 0: a reward model's small steps are lost"),
        (RewardModelSettings, {"dtype": "float16"}, "Set dtype to float32, or lora.rank above 0"),
        (PpoSettings, {"dtype": "int8"}, "Set dtype to one of"),
        (PpoSettings, {"mixed_precision": "float16"}, "Set mixed_precision to one of"),
        (PpoSettings, {"device": "gpu"}, "Set device to cpu, cuda or cuda:NUMBER"),
        (RewardModelSettings, {"device": "cuda:one"}, "Set device to cpu, cuda or cuda:NUMBER"),
        (RewardModelSettings, {"gradient_checkpointing": "yes"}, "Set gradient_checkpointing to true or false"),
    ],
)
def test_what_cannot_be_computed_is_refused(kind, changes, problem):
    with pytest.raises(InvalidSettings, match=problem):
        kind.from_dict(changes)


def test_a_device_that_is_not_here_is_named(monkeypatch, tmp_path):
    base = save_base(tmp_path / "base", *BASES["rotary"]())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidSettings, match=r"Set device to cpu: torch finds no CUDA device here \(it was cuda:1\)"):
        train_reward_model(TRAIN, base=base, settings=RewardModelSettings(device="cuda:1"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert check_device("cuda:1") == "cuda:1"
    with pytest.raises(InvalidSettings, match=r"cuda:0 … cuda:1 \(it was cuda:2\)"):
        check_device("cuda:2")
