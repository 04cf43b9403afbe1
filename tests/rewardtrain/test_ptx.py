"""PPO-ptx: what people wrote is learned word for word beside the reward (InstructGPT, arXiv:2203.02155, eq. 2)."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from rewardtrain.algorithms import learns_from_demonstrations, needs_demonstrations
from rewardtrain.errors import NothingToLearn, WrongCheckpoint
from rewardtrain.examples import Demonstrated, Example, Mixture, corpus_pieces, demonstration_examples
from rewardtrain.hyperparameters import InvalidSettings, PpoSettings
from rewardtrain.lora import trainable_parameters
from rewardtrain.policy_run import ppo_figures
from rewardtrain.ppo import UpdateStatistics, mix_in, rows_mixed_in
from rewardtrain.sft import measure
from rewardtrain.training_state import StateKeeper
from tests.rewardtrain.small_rollouts import TINY, TOKENIZER, make_policy
from tests.rewardtrain.test_ppo import drawn, gradients_of, run
from tests.rewardtrain.tiny import make_gpt2, make_llama, user
from tests.rewardtrain.trainings import PPO, learn_policy

WRITTEN, _ = demonstration_examples(
    TOKENIZER, [Demonstrated([user(f"say {number}")], "z" * (2 + number)) for number in range(5)],
    max_positions=256, max_prompt_tokens=99,
)  # fmt: skip
MIXTURE = Mixture(WRITTEN, corpus_pieces(TOKENIZER, ["yyyy " * 20], 12), corpus_share=0.2, seed=1)
PTX = dataclasses.replace(TINY, ptx_coef=0.7, ptx_rows=3)


def by_hand(policy, rows) -> torch.Tensor:
    """Mean cross entropy over the learned tokens, a row and a token at a time."""
    total, tokens = torch.zeros(()), 0
    for row in rows:
        logits = policy.network(torch.tensor([row.ids])).logits[0]
        for place in range(row.start, len(row.ids)):
            total = total - logits[place - 1].log_softmax(-1)[row.ids[place]]
            tokens += 1
    return total / tokens


@pytest.mark.parametrize("make_network", [make_llama, make_gpt2], ids=["rotary", "absolute positions"])
@pytest.mark.parametrize("tokens_per_forward", [4096, 16], ids=["at once", "in parts"])
def test_its_gradient_is_added_to_ppos(make_network, tokens_per_forward):
    policy = make_policy(make_network())
    settings = dataclasses.replace(
        PTX, tokens_per_forward=tokens_per_forward, samples_per_update=8, minibatch_size=8, passes=1
    )
    rollout = drawn(policy, settings)
    plain = gradients_of(policy, rollout, settings)
    rows = rows_mixed_in(MIXTURE, settings, 0, 0, 0)
    assert len(rows) == 3
    policy.zero_grad()
    (0.7 * by_hand(policy, rows)).backward()
    wanted = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in trainable_parameters(policy)]
    policy.zero_grad()
    mixed = gradients_of(policy, rollout, settings, MIXTURE)
    assert any(bool(one.any()) for one in wanted)
    for found, alone, more in zip(mixed, plain, wanted, strict=True):
        assert_close(found, alone + more, atol=1e-5, rtol=1e-3)


def test_a_policy_that_knows_nothing_pays_the_logarithm_of_its_vocabulary():
    policy = make_policy()
    for parameter in policy.parameters():
        torch.nn.init.zeros_(parameter)
    statistics = UpdateStatistics()
    mix_in(policy, [Example([7, 8, 9, 2], start=2), Example([5, 6])], PTX, statistics)
    assert statistics.ptx_tokens == 3  # two of the first row, one of the second
    assert statistics.ptx_loss == pytest.approx(3 * math.log(262), abs=1e-4)


def test_off_it_changes_nothing():
    plain, off = (run(TINY, mixed_in=given) for given in (None, MIXTURE))
    assert plain.steps == off.steps and off.steps[0].mixed_in == {}
    assert "ppo/ptx_loss" not in ppo_figures(off.steps[0])
    for one, other in zip(plain.policy.parameters(), off.policy.parameters(), strict=True):
        assert torch.equal(one, other)


def test_which_rows_come_next_is_known_from_the_step_alone():
    settings = dataclasses.replace(PTX, passes=2)  # of two minibatches each
    seen = [
        rows_mixed_in(MIXTURE, settings, step, number, turn)
        for step in range(3)
        for number in range(2)
        for turn in range(2)
    ]
    wanted = [[MIXTURE[3 * place + one] for one in range(3)] for place in range(12)]
    assert seen == wanted  # also where an update stops after its first pass
    assert rows_mixed_in(None, settings, 0, 0, 0) == rows_mixed_in(MIXTURE, TINY, 0, 0, 0) == []


def test_the_policy_learns_to_say_what_was_mixed_in_and_the_loss_is_told():
    settings = dataclasses.replace(PTX, updates=6, ptx_coef=5.0, ptx_rows=6, learning_rate=1e-2, warmup_updates=0)
    before = measure(make_policy(), WRITTEN)
    result = run(settings, mixed_in=MIXTURE)
    assert measure(result.policy, WRITTEN).loss < before.loss - 2
    losses = [ppo_figures(step)["ppo/ptx_loss"] for step in result.steps]
    assert losses[-1] < losses[0] - 1 < before.loss - 1


def stopped_after(folder: Path, step: int) -> StateKeeper:
    class Stop(Exception):
        pass

    def stop(saved: int) -> None:
        if saved == step:
            raise Stop

    with pytest.raises(Stop):
        learn_policy(folder, StateKeeper(folder, every_seconds=0, on_saved=stop), SAVED, mixed_in=MIXTURE)
    return StateKeeper(folder, must_resume=True)


SAVED = dataclasses.replace(PPO, ptx_coef=0.7, ptx_rows=3, updates=4)


def test_it_goes_on_after_a_kill_to_the_same_bits(tmp_path):
    whole = learn_policy(tmp_path, None, SAVED, mixed_in=MIXTURE)
    resumed = learn_policy(tmp_path, stopped_after(tmp_path, 2), SAVED, mixed_in=MIXTURE)
    assert resumed.weights == whole.weights and resumed.begun == (4, 2)
    assert [step["mixed_in"] for step in resumed.history] == [step["mixed_in"] for step in whole.history]
    assert learn_policy(tmp_path, None, dataclasses.replace(SAVED, ptx_coef=0.0)).weights != whole.weights


def test_with_other_demonstrations_it_does_not_go_on(tmp_path):
    keeper = stopped_after(tmp_path, 1)
    with pytest.raises(WrongCheckpoint, match="mixed in was"):
        learn_policy(tmp_path, keeper, SAVED, mixed_in=Mixture(WRITTEN[:3], seed=1))


def test_with_nothing_to_mix_in_it_says_so():
    for nothing in (None, Mixture([])):
        with pytest.raises(NothingToLearn, match="name a corpus, or set ptx_coef to 0"):
            run(PTX, mixed_in=nothing)


def test_settings_that_cannot_work_are_refused():
    for wrong in ({"ptx_coef": -1.0}, {"ptx_rows": 0}, {"corpus_share": 0.0}, {"corpus_tokens": 2}):
        with pytest.raises(InvalidSettings, match=next(iter(wrong))):
            PpoSettings.from_dict(wrong)


@pytest.mark.parametrize(
    ("chosen", "learns", "needs"),
    [
        ({}, False, False),
        ({"ptx_coef": 0}, False, False),
        ({"ptx_coef": 1}, True, True),
        ({"ptx_coef": 1, "corpus": "a.txt"}, True, False),
        ({"algorithm": "sft"}, True, True),
        ({"algorithm": "sft", "corpus": "a.txt"}, True, True),
        ({"algorithm": "dpo"}, False, False),
    ],
)
def test_who_asks_for_demonstrations(chosen, learns, needs):
    assert (learns_from_demonstrations(chosen), needs_demonstrations(chosen)) == (learns, needs)
