"""Four roles on one frozen base: each says what it would say on a network of its own."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from rewardtrain import ppo
from rewardtrain.checkpoints import ADAPTER_CONFIG
from rewardtrain.errors import ModelRefused
from rewardtrain.hyperparameters import LoraSettings
from rewardtrain.lora import REWARD, adapters_off, add_frozen_adapter, through_adapter, without_wrapper
from rewardtrain.policy import PolicyWithValue, load_policy, load_policy_with_value, reference_policy
from rewardtrain.reward_model import RewardModel
from rewardtrain.reward_training import train_reward_model
from rewardtrain.rollouts import WeightedReward
from rewardtrain.shared_base import RewardOnSharedBase, reward_beside, why_apart
from rewardtrain.training_state import StateKeeper, weights_hash
from tests.rewardtrain.tiny import make_gpt2, make_llama, make_tokenizer, save_base, user
from tests.rewardtrain.trainings import PPO, PROMPTS, TRAIN
from tests.rewardtrain.trainings import REWARD as REWARD_SETTINGS

DECODERS = {"rotary": make_llama, "absolute": make_gpt2}
LORA = LoraSettings(rank=4)
DIALOGUES = [[user("say x")], [user("a longer question")]]
REPLIES = [["aab", "bbb", "hello"], ["ad", "z"]]
TOKENS = [[5, 6, 7], [8, 9]], [[10, 11, 2], [12, 2], [13, 14, 15, 2]], [0, 0, 1]


@dataclasses.dataclass
class Folders:
    """A base, and reward models trained on it."""

    base: Path
    reward: Path


@pytest.fixture(scope="module", params=DECODERS)
def folders(request, tmp_path_factory) -> Folders:
    root = tmp_path_factory.mktemp(request.param)
    base = save_base(root / "base", DECODERS[request.param](), make_tokenizer())
    return Folders(base, learned_reward(base, root / "reward", lora=LoraSettings(rank=2)))


def learned_reward(base: Path, folder: Path, **changes: Any) -> Path:
    """A reward model trained on `base`, saved."""
    settings = dataclasses.replace(REWARD_SETTINGS, early_stopping=False, **changes)
    folder.mkdir()
    train_reward_model(TRAIN[:16], base=base, settings=settings).reward_model.save(folder)
    return folder


def make_policy(folder: Path) -> PolicyWithValue:
    return load_policy_with_value(folder, lora=LORA, seed=3)


def trained_names(policy: PolicyWithValue) -> list[str]:
    return [name for name, parameter in policy.named_parameters() if parameter.requires_grad]


def move(policy: PolicyWithValue, seed: int = 1) -> PolicyWithValue:
    """As if training had changed the policy's adapter."""
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B.default" in name:
                parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(seed))
    return policy


def logprobs(policy: Any) -> torch.Tensor:
    return policy.evaluate_replies(*TOKENS).logprobs


# What each role says


def test_rewards_through_the_policys_base_equal_those_of_the_reward_model_alone(folders):
    expected = RewardModel.load(folders.reward).scores(DIALOGUES, REPLIES)
    policy = move(make_policy(folders.base))
    shared = reward_beside(policy, folders.base, folders.reward)
    assert isinstance(shared, RewardOnSharedBase)
    assert shared.reward_model.network is policy.network  # no second one
    for own, wanted in zip(shared.scores(DIALOGUES, REPLIES), expected, strict=True):
        assert_close(own, wanted.detach(), atol=1e-5, rtol=0)
        assert not own.requires_grad
    through_the_policy = shared.reward_model.scores(DIALOGUES, REPLIES)
    assert not torch.allclose(through_the_policy[0], expected[0], atol=0.01)  # the adapter makes the difference


def test_scoring_leaves_the_policy_as_it_was(folders):
    policy = move(make_policy(folders.base))
    before, trained = logprobs(policy), trained_names(policy)
    weights = weights_hash(policy)
    shared = reward_beside(policy, folders.base, folders.reward)
    assert trained_names(policy) == trained
    for is_training in (False, True):
        policy.train(is_training)
        shared.scores(DIALOGUES, REPLIES)
        assert policy.network.training is is_training
    policy.eval()
    after = logprobs(policy)
    assert_close(after, before, atol=0, rtol=0)
    assert trained_names(policy) == trained
    assert weights_hash(policy) != weights  # the reward's adapter lies there as well
    assert weights_hash(policy, leave_out=f".{REWARD}.") == weights
    after.sum().backward()
    assert {name for name, one in policy.named_parameters() if one.grad is not None} == set(trained) - {
        "value_head.weight", "value_head.bias",
    }  # fmt: skip


def test_the_adapters_off_the_policy_is_the_base(folders):
    policy = make_policy(folders.base)
    reference = reference_policy(policy)
    shared = reward_beside(move(policy), folders.base, folders.reward)
    expected = logprobs(load_policy(folders.base)).detach()
    shared.scores(DIALOGUES, REPLIES)
    assert_close(reference.logprobs(*TOKENS), expected, atol=1e-5, rtol=0)
    with adapters_off(policy.network), torch.no_grad():
        assert_close(logprobs(policy), expected, atol=1e-5, rtol=0)
    assert float((logprobs(policy) - expected).abs().max()) > 0.01


def test_a_policy_that_started_from_an_adapter_has_three_beside_each_other(folders, tmp_path):
    (tmp_path / "first").mkdir()
    move(make_policy(folders.base)).save(tmp_path / "first")
    reward = learned_reward(tmp_path / "first", tmp_path / "reward")  # goes on from the policy's adapter
    policy = make_policy(tmp_path / "first")
    start = logprobs(policy).detach()
    reference = reference_policy(policy)
    shared = reward_beside(policy, tmp_path / "first", reward)
    assert isinstance(shared, RewardOnSharedBase)
    move(policy, seed=2)
    moved = logprobs(policy).detach()
    expected = RewardModel.load(reward).scores(DIALOGUES, REPLIES)
    assert_close(shared.scores(DIALOGUES, REPLIES)[0], expected[0].detach(), atol=1e-5, rtol=0)
    assert_close(reference.logprobs(*TOKENS), start, atol=1e-5, rtol=0)
    assert_close(logprobs(policy).detach(), moved, atol=0, rtol=0)


def test_an_error_while_scoring_leaves_the_policy_speaking(folders, monkeypatch):
    policy = move(make_policy(folders.base))
    before, trained = logprobs(policy), trained_names(policy)
    shared = reward_beside(policy, folders.base, folders.reward)
    policy.train()

    def fails(*_: Any) -> None:
        assert policy.network.active_adapter == REWARD
        raise RuntimeError("out of memory")

    monkeypatch.setattr(shared.reward_model, "score_encoded", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        shared.scores(DIALOGUES, REPLIES)
    assert policy.network.training
    policy.eval()
    assert_close(logprobs(policy), before, atol=0, rtol=0)
    assert trained_names(policy) == trained


def test_a_policy_that_is_not_trained_stays_so(folders, tmp_path):
    (tmp_path / "served").mkdir()
    move(make_policy(folders.base)).save(tmp_path / "served")
    policy = load_policy(tmp_path / "served")
    trained = trained_names(policy)
    assert not any("lora" in name for name in trained)
    reward_beside(policy, tmp_path / "served", folders.reward).scores(DIALOGUES, REPLIES)
    assert trained_names(policy) == trained


# A whole run


def improved(folders: Folders, *, shares: bool, keeper: StateKeeper | None = None) -> tuple[PolicyWithValue, Any]:
    policy = make_policy(folders.base)
    ref_policy = reference_policy(policy)
    scorer = reward_beside(policy, folders.base, folders.reward) if shares else RewardModel.load(folders.reward)
    rewards = [WeightedReward("preference", 1.0, scorer.scores, mean=0.1, std=0.5)]
    settings = dataclasses.replace(PPO, updates=4, learning_rate=1e-2, warmup_updates=0)
    trained = ppo.train_policy(
        PROMPTS, policy=policy, ref_policy=ref_policy, rewards=rewards, settings=settings, keeper=keeper
    )
    return policy, trained


def test_ppo_on_a_shared_base_ends_as_with_a_reward_network_of_its_own(folders, tmp_path):
    shared, apart = improved(folders, shares=True), improved(folders, shares=False)
    assert weights_hash(shared[0], leave_out=f".{REWARD}.") == weights_hash(apart[0])
    assert [step.reward for step in shared[1].steps] == [step.reward for step in apart[1].steps]
    assert logprobs(shared[0]).ne(logprobs(make_policy(folders.base))).any()  # something was learned
    for name, (policy, _) in {"shared": shared, "apart": apart}.items():
        policy.save(tmp_path / name)
    files = {path.relative_to(tmp_path / "shared").as_posix() for path in (tmp_path / "shared").rglob("*")}
    assert files == {path.relative_to(tmp_path / "apart").as_posix() for path in (tmp_path / "apart").rglob("*")}
    weights = "adapter_model.safetensors"
    assert (tmp_path / "shared" / weights).read_bytes() == (tmp_path / "apart" / weights).read_bytes()


class Stopped(Exception):
    """Raised where a run shall end early."""


@pytest.mark.parametrize("goes_on_shared", [True, False])
def test_a_killed_run_goes_on_to_the_same_weights_however_its_reward_is_held(folders, tmp_path, goes_on_shared):
    def stop(step: int) -> None:
        if step == 2:
            raise Stopped

    whole, _ = improved(folders, shares=True)
    with pytest.raises(Stopped):
        improved(folders, shares=True, keeper=StateKeeper(tmp_path, every_seconds=0, on_saved=stop))
    resumed, _ = improved(folders, shares=goes_on_shared, keeper=StateKeeper(tmp_path, must_resume=True))
    assert weights_hash(resumed, leave_out=f".{REWARD}.") == weights_hash(whole, leave_out=f".{REWARD}.")


# When it cannot be


def test_a_base_elsewhere_with_the_same_files_is_the_same_and_with_others_is_not(folders, tmp_path):
    copied = shutil.copytree(folders.base, tmp_path / "copy")
    assert why_apart(make_policy(copied), copied, folders.reward) is None
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"attention_dropout": 0.5}))
    assert why_apart(make_policy(copied), copied, folders.reward) == "its base holds other files than the policy's"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bias": "all"}, "bias all"),
        ({"peft_type": "LOHA"}, "peft_type LOHA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ],
)
def test_an_adapter_that_changes_more_than_low_rank_factors_stays_apart(folders, tmp_path, change, reason):
    odd = shutil.copytree(folders.reward, tmp_path / "odd")
    config = json.loads((odd / ADAPTER_CONFIG).read_text())
    (odd / ADAPTER_CONFIG).write_text(json.dumps(config | change))
    assert reason in (why_apart(make_policy(folders.base), folders.base, odd) or "")


def test_whole_networks_and_bare_trunks_stay_apart_and_the_log_says_why(folders, tmp_path, caplog):
    whole = learned_reward(folders.base, tmp_path / "whole", epochs=0.5)
    bare = learned_reward(folders.base, tmp_path / "bare", epochs=0.5, likelihood="off", lora=LORA)
    full = load_policy_with_value(folders.base)
    with caplog.at_level(logging.INFO):
        found = [
            reward_beside(full, folders.base, folders.reward),
            reward_beside(make_policy(folders.base), folders.base, whole),
            reward_beside(make_policy(folders.base), folders.base, bare),
        ]
    assert [type(one) for one in found] == [RewardModel] * 3
    said = [record.getMessage() for record in caplog.records if "network of its own" in record.getMessage()]
    assert [message.partition(": ")[2] for message in said] == [
        "the policy trains every weight of its base (set lora.rank for it)",
        "it was trained with every weight of its base (set lora.rank for it)",
        "it was trained without its base's output layer (set likelihood to auto)",
    ]


def test_an_adapter_of_another_shape_is_refused(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(folders.reward, tmp_path / "broken")
    weights = load_file(broken / "adapter_model.safetensors")
    save_file(dict(list(weights.items())[1:]), broken / "adapter_model.safetensors")
    with pytest.raises(ModelRefused, match="1 weights differ"):
        add_frozen_adapter(make_policy(folders.base).network, broken, REWARD)


def test_another_adapter_speaks_only_within(folders):
    policy = move(make_policy(folders.base))
    add_frozen_adapter(policy.network, folders.reward, REWARD)
    inner = without_wrapper(policy.network)
    ids = torch.tensor([[3, 4, 5]])
    before = inner(input_ids=ids).logits
    with through_adapter(policy.network, REWARD):
        within = inner(input_ids=ids).logits
    assert float((within - before).abs().max()) > 0.01
    assert_close(inner(input_ids=ids).logits, before, atol=0, rtol=0)
