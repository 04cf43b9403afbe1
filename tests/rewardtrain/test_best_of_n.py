"""Best of n: what is kept, what is learned from it, and going on after a kill."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from rewardtrain import best_of_n, drawing
from rewardtrain.algorithms import BestOfNSettings
from rewardtrain.best_of_n import best_places, reply_gradients, train_policy
from rewardtrain.drawing import Drawer
from rewardtrain.errors import NothingToLearn, TrainingDiverged
from rewardtrain.hyperparameters import LoraSettings, SamplingSettings
from rewardtrain.lora import add_lora
from rewardtrain.policy import Policy, reference_policy
from rewardtrain.rollouts import Rollout, WeightedReward
from rewardtrain.training_state import StateKeeper, weights_hash
from tests.rewardtrain.tiny import make_gpt2, make_llama, make_tokenizer
from tests.rewardtrain.trainings import PROMPTS

SETTINGS = BestOfNSettings(
    updates=4, samples_per_update=16, samples_per_prompt=4, minibatch_size=3, learning_rate=2e-3, warmup_updates=0,
    malformed_penalty=0.0, checkpoint_seconds=0, seed=3, sampling=SamplingSettings(max_new_tokens=8, temperature=0.7),
)  # fmt: skip


def count_ascii(prompts, replies):
    return [[sum(one.isascii() for one in text) / 4 for text in own] for own in replies]


REWARD = WeightedReward("ascii", 1.0, count_ascii)


def make_policy(network=None) -> Policy:
    return Policy(network or make_llama(), make_tokenizer()).eval()


def train(policy=None, settings=SETTINGS, **more):
    policy = policy or make_policy()
    return train_policy(
        PROMPTS, policy=policy, ref_policy=reference_policy(policy), settings=settings, **{"rewards": [REWARD], **more}
    )


def test_the_best_paid_reply_to_each_prompt_is_kept_and_of_equal_ones_the_first():
    rollout = SimpleNamespace(owners=[0, 0, 0, 1, 1, 1], scores=torch.tensor([1.0, 3.0, 2.0, -1.0, -1.0, -2.0]))
    assert best_places(rollout) == [1, 3]


@pytest.mark.parametrize("make_network", [make_llama, make_gpt2])
@pytest.mark.parametrize("tokens_per_forward", [4096, 30], ids=["at once", "in parts"])
def test_gradients_are_those_of_the_cross_entropy_over_reply_tokens(make_network, tokens_per_forward):
    policy = make_policy(make_network())
    drawer = Drawer(policy, reference_policy(policy), PROMPTS, [REWARD], SETTINGS.as_drawn())
    rollout, places = drawer.draw(0), [0, 5, 6, 13]
    settings = BestOfNSettings(**{**vars(SETTINGS), "tokens_per_forward": tokens_per_forward})
    total = reply_gradients(policy, rollout, places, settings)
    found = {name: one.grad.clone() for name, one in policy.named_parameters() if one.grad is not None}

    policy.zero_grad()
    wanted, tokens = 0.0, 0
    for place in places:  # a row at a time, by the plain network
        prompt, reply = rollout.prompt_ids[rollout.owners[place]], rollout.replies[place].token_ids
        logits = policy.network(input_ids=torch.tensor([[*prompt, *reply]])).logits[0, len(prompt) - 1 : -1] / 0.7
        wanted = wanted + torch.nn.functional.cross_entropy(logits, torch.tensor(reply), reduction="sum")
        tokens += len(reply)
    (wanted / tokens).backward()
    assert total == pytest.approx(float(wanted.detach()), rel=1e-4)
    for name, one in policy.named_parameters():
        if one.grad is not None:
            torch.testing.assert_close(found[name], one.grad, atol=1e-5, rtol=1e-3)


def test_it_learns_what_is_paid_for_and_says_how_it_goes():
    settings = BestOfNSettings(**{**vars(SETTINGS), "updates": 8, "samples_per_update": 64, "learning_rate": 5e-3})
    begun, told, ledger = [], [], []
    result = train(
        settings=settings, on_begin=lambda *counts: begun.append(counts), on_step=told.append, ledger=ledger.append
    )
    assert begun == [(8, 0)] and [one.step for one in told] == list(range(1, 9))
    assert told[-1].figures["ppo/ascii"] > told[0].figures["ppo/ascii"] + 0.2
    assert all(one.kept_reward > one.figures["ppo/reward"] for one in told)
    assert told[0].figures["ppo/kl_nats"] == pytest.approx(0, abs=1e-4) and told[-1].figures["ppo/kl_nats"] > 0.1
    assert result.samples == 8 * 64 == sum(map(len, ledger))
    for one, entries in zip(told, ledger, strict=True):  # of every four samples the best is learned from
        best = [max(entries[start : start + 4], key=lambda entry: entry.reward) for start in range(0, 64, 4)]
        assert one.optimizer_tokens == sum(entry.token_count for entry in best)


class Killed(RuntimeError):
    pass


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
def test_a_killed_training_ends_with_the_same_weights(lora, tmp_path):
    def fresh() -> Policy:
        return make_policy(add_lora(make_llama(), LoraSettings(rank=2), seed=1) if lora else None)

    whole, policy = fresh(), fresh()
    steps = train(whole).steps

    def killed(step):
        if step == 2:
            raise Killed

    with pytest.raises(Killed):
        train(policy, keeper=StateKeeper(tmp_path, every_seconds=0, on_saved=killed))
    begun, policy = [], fresh()
    result = train(
        policy, keeper=StateKeeper(tmp_path, every_seconds=0, must_resume=True),
        on_begin=lambda *counts: begun.append(counts),
    )  # fmt: skip
    assert begun == [(4, 2)] and result.steps == steps
    assert weights_hash(policy) == weights_hash(whole) != weights_hash(fresh())


def test_a_policy_that_ran_away_is_told_of_with_what_can_be_set(monkeypatch):
    monkeypatch.setattr(Rollout, "kl", torch.full((1,), 99.0))
    with pytest.raises(TrainingDiverged, match="At update 1 the KL to the reference was 99.0 .* above 50. Lower learn"):
        train()
    assert {*best_of_n.ADVICE.far, *best_of_n.ADVICE.alike} <= vars(SETTINGS).keys()


def test_one_reply_for_everybody_is_told_of_with_what_can_be_set(monkeypatch):
    settings = BestOfNSettings(**{**vars(SETTINGS), "collapse_distinct_rate": 1.0})
    drawer = Drawer(make_policy(), None, PROMPTS, [], settings.as_drawn(), best_of_n.ADVICE)
    rollout = SimpleNamespace(
        prompt_ids=[[3], [4]], replies=[SimpleNamespace(text="Yes.")] * 2, kl=torch.zeros(1),
        **{name: torch.zeros(1) for name in ("logprobs", "ref_logprobs", "values", "rewards", "advantages")},
    )  # fmt: skip
    monkeypatch.setattr(drawing, "sample_rollout", lambda *given: rollout)
    monkeypatch.setattr(drawing, "score", lambda *given: None)
    with pytest.raises(TrainingDiverged, match="collapsed. Raise repetition_penalty, or lower learning_rate."):
        drawer.draw(0)


def test_nothing_comes_of_numbers_that_are_none(monkeypatch):
    with pytest.raises(TrainingDiverged, match="no number"):
        train(rewards=[WeightedReward("none", 1.0, lambda asked, given: [[math.nan] * len(own) for own in given])])
    monkeypatch.setattr(
        best_of_n,
        "reply_gradients",
        lambda policy, *rest: next(policy.parameters()).sum().mul(math.nan).backward() or 0.0,
    )
    with pytest.raises(TrainingDiverged, match="gradient"):
        train()


def test_without_prompts_or_rewards_there_is_nothing_to_learn():
    with pytest.raises(NothingToLearn, match="at least one prompt"):
        train(rewards=[])


def test_samples_of_a_policy_without_a_value_head_have_no_values():
    policy = make_policy()
    drawer = Drawer(policy, reference_policy(policy), PROMPTS, [REWARD], SETTINGS.as_drawn())
    rollout = drawer.draw(0)
    assert not rollout.values.any() and rollout.values.shape == rollout.logprobs.shape
    assert isinstance(rollout, Rollout)
