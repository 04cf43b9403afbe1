"""PPO step by step, and as a whole on planted rewards."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import pytest
import torch
from torch.testing import assert_close

from rewardtrain import ppo
from rewardtrain.chat import encode_prompt
from rewardtrain.errors import NothingToLearn, TrainingDiverged
from rewardtrain.hyperparameters import InvalidSettings, LoraSettings, PpoSettings, SamplingSettings
from rewardtrain.kl import FixedKl
from rewardtrain.lora import add_lora, trainable_parameters
from rewardtrain.losses import masked_whiten
from rewardtrain.policy import reference_policy
from rewardtrain.ppo import (
    PpoResult,
    UpdateStatistics,
    estimate_advantages,
    minibatches,
    token_rewards,
    train_policy,
    update,
    value_learning_rate,
)
from rewardtrain.rollouts import Rollout, WeightedReward, sample_rollout
from tests.rewardtrain.small_rollouts import COUNT_E, DECODERS, TINY, TOKENIZER, at_the_end, make_policy, make_rollout
from tests.rewardtrain.tiny import bot, make_gpt2, make_llama, user
from tests.rewardtrain.trainings import PROMPTS

t = torch.tensor


# 3 reward, 4 advantage


def test_the_kl_is_charged_at_each_token_and_the_score_at_the_last():
    rollout = make_rollout(scores=t([1.0, 2.0, 3.0]))
    rewards = token_rewards(rollout, kl_coef=0.1)
    expected = [[-0.05, 0.0, 0.1 + 1.0], [-0.2 + 2.0, 0.0, 0.0], [0.0, -0.05 + 3.0, 0.0]]
    assert_close(rewards, t(expected))
    assert_close(rollout.kl, t([-0.5, 2.0, 0.5]))


def test_a_token_is_paid_by_how_much_it_moved_the_reward():
    rollout = make_rollout(progress=t([[0.5, -0.5, 1.0], [2.0, 0, 0], [4.0, 3.0, 0]]))
    assert_close(token_rewards(rollout, kl_coef=0.0), t([[0.5, -1.0, 1.5], [2.0, 0, 0], [4.0, -1.0, 0]]))


def test_the_sum_of_rewards_is_the_score_less_the_kl_penalty():
    rollout = make_rollout(scores=t([1.0, 2.0, 3.0]))
    assert_close(token_rewards(rollout, 0.3).sum(dim=1), rollout.scores - 0.3 * rollout.kl)


def test_without_discount_returns_are_rewards_to_go_and_advantages_are_whitened():
    rollout = make_rollout(scores=t([1.0, 2.0, 3.0]))
    rollout.rewards = token_rewards(rollout, 0.0)
    estimate_advantages(rollout, dataclasses.replace(TINY, gamma=1.0, gae_lambda=1.0))
    assert_close(rollout.returns, t([[1.0, 1.0, 1.0], [2.0, 0, 0], [3.0, 3.0, 0]]))
    mask = rollout.response_mask
    assert_close(rollout.advantages, masked_whiten(rollout.returns - rollout.values, mask))
    assert float(rollout.advantages[mask].mean()) == pytest.approx(0, abs=1e-6)


# 5 update


def drawn(policy, settings=TINY, scores=None) -> Rollout:
    encoded = [encode_prompt(TOKENIZER, prompt, 100) for prompt in PROMPTS[:4]]
    rollout = sample_rollout(policy, reference_policy(policy), PROMPTS[:4], encoded, settings, step=0)
    rollout.scores = torch.randn(8, generator=torch.Generator().manual_seed(0)) if scores is None else scores
    rollout.progress = at_the_end(rollout.scores, rollout.response_mask)
    rollout.rewards = token_rewards(rollout, 0.1)
    estimate_advantages(rollout, settings)
    return rollout


def gradients_of(policy, rollout, settings, mixed_in=None) -> list[torch.Tensor]:
    """What one minibatch of the whole rollout gives, by the update itself."""
    parameters = trainable_parameters(policy)
    kept: list[torch.Tensor] = []

    class Keep(torch.optim.SGD):
        def step(self, closure=None):
            kept.extend(p.grad.clone() for p in parameters)

    whole = dataclasses.replace(settings, minibatch_size=8, passes=1, max_grad_norm=1e9)
    update(policy, Keep(parameters, lr=0.0), parameters, rollout, whole, step=0, mixed_in=mixed_in)
    return kept


def test_the_first_step_follows_the_policy_gradient():
    # While the ratio is 1 the clipped objective's gradient is that of -advantage · log p, a mean over all tokens.
    policy = make_policy()
    settings = dataclasses.replace(TINY, value_coef=0.0)
    rollout = drawn(policy, settings)
    token_ids = [one.token_ids for one in rollout.replies]
    found = gradients_of(policy, rollout, settings)
    policy.zero_grad()
    now = policy.evaluate_replies(rollout.prompt_ids, token_ids, rollout.owners, share_prefix=False)
    (-(rollout.advantages * now.logprobs).sum() / rollout.response_mask.sum()).backward()
    expected = [torch.zeros_like(p) if p.grad is None else p.grad for p in trainable_parameters(policy)]
    for mine, theirs in zip(found, expected, strict=True):
        assert_close(mine, theirs, atol=1e-5, rtol=1e-3)


def test_value_loss_and_entropy_enter_with_their_coefficients():
    policy = make_policy()
    rollout = drawn(policy)
    token_ids = [one.token_ids for one in rollout.replies]
    settings = dataclasses.replace(TINY, value_coef=0.5, entropy_coef=0.3)
    found = gradients_of(policy, rollout, settings)
    policy.zero_grad()
    now = policy.evaluate_replies(rollout.prompt_ids, token_ids, rollout.owners, with_entropy=True)
    error = 0.5 * ((now.values - rollout.returns) ** 2)[rollout.response_mask].sum()  # at 0, so nothing is clipped
    loss = -(rollout.advantages * now.logprobs).sum() + 0.5 * error - 0.3 * now.entropy.sum()
    (loss / rollout.response_mask.sum()).backward()
    for mine, theirs in zip(found, [p.grad for p in trainable_parameters(policy)], strict=True):
        assert_close(mine, theirs, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("change", [{"tokens_per_forward": 20}, {"share_prefix": False}])
def test_how_the_work_is_cut_changes_no_gradient(change):
    policy = make_policy()
    rollout = drawn(policy)
    one, other = gradients_of(policy, rollout, TINY), gradients_of(policy, rollout, dataclasses.replace(TINY, **change))
    for mine, theirs in zip(one, other, strict=True):
        assert_close(mine, theirs, atol=1e-5, rtol=1e-3)


def test_minibatches_hold_every_sample_once_and_keep_a_prompts_samples_together():
    rollout = make_rollout(owners=[0, 0, 1, 1, 2, 2, 3, 3])
    settings = dataclasses.replace(TINY, minibatch_size=4)
    batches = list(minibatches(rollout, settings, step=0, number=0))
    assert [len(batch) for batch in batches] == [4, 4]
    assert sorted(sum(batches, [])) == list(range(8))
    assert [set(Counter(rollout.owners[place] for place in batch).values()) for batch in batches] == [{2}, {2}]
    orders = {tuple(sum(minibatches(rollout, settings, step=0, number=number), [])) for number in range(6)}
    assert len(orders) > 1


def test_passes_stop_when_the_policy_has_moved_far_enough():
    settings = dataclasses.replace(TINY, passes=4, pass_kl_limit=1e-6, value_coef=0.0)
    counts = {}
    for rate in (0.0, 0.05):
        policy = make_policy()
        rollout = drawn(policy, settings)
        parameters = trainable_parameters(policy)
        optimizer = torch.optim.SGD(parameters, lr=rate)
        counts[rate] = update(policy, optimizer, parameters, rollout, settings, step=0).passes
    assert counts == {0.0: 4, 0.05: 1}


def test_gradients_are_clipped_to_the_norm():
    policy = make_policy()
    rollout = drawn(policy)
    parameters = trainable_parameters(policy)
    before = [p.detach().clone() for p in parameters]
    settings = dataclasses.replace(TINY, minibatch_size=8, passes=1, max_grad_norm=1e-3)
    statistics = update(policy, torch.optim.SGD(parameters, lr=1.0), parameters, rollout, settings, step=0)
    moved = torch.stack([(p.detach() - old).norm() for p, old in zip(parameters, before, strict=True)]).norm()
    assert float(moved) == pytest.approx(1e-3, rel=1e-2)
    assert statistics.gradient_norm > 1e-3


def test_a_gradient_that_is_no_number_stops_the_run():
    policy = make_policy()
    rollout = drawn(policy)
    rollout.advantages[0, 0] = float("nan")
    parameters = trainable_parameters(policy)
    before = [p.detach().clone() for p in parameters]
    whole = dataclasses.replace(TINY, minibatch_size=8)
    with pytest.raises(TrainingDiverged, match="A gradient's norm was nan"):
        update(policy, torch.optim.SGD(parameters, lr=1.0), parameters, rollout, whole, step=0)
    assert all(torch.equal(p, old) for p, old in zip(parameters, before, strict=True))


# The whole


def run(settings=TINY, *, policy=None, rewards=(COUNT_E,), prompts=PROMPTS, **callbacks) -> PpoResult:
    policy = policy or make_policy()
    reference = reference_policy(policy)
    return train_policy(
        prompts, policy=policy, ref_policy=reference, rewards=rewards, settings=settings, **callbacks
    )  # fmt: skip


@pytest.mark.parametrize(("kind", "samples_per_prompt"), [("rotary", 1), ("rotary", 4), ("absolute", 2)])
def test_a_planted_reward_rises(kind, samples_per_prompt):
    settings = PpoSettings(
        updates=30, samples_per_update=32, samples_per_prompt=samples_per_prompt, minibatch_size=16, learning_rate=2e-3,
        kl_coef=0.01, warmup_updates=2, schedule="constant", malformed_penalty=0.0, pass_kl_limit=1.0, seed=3,
        sampling=SamplingSettings(max_new_tokens=10),
    )  # fmt: skip
    steps = run(settings, policy=make_policy(DECODERS[kind]())).steps
    early, late = (sum(step.reward for step in part) / len(part) for part in (steps[:4], steps[-4:]))
    assert late > early + 3.0
    assert steps[-1].kl_nats > 1.0 > abs(steps[0].kl_nats)


def test_the_value_head_learns_what_a_prompt_is_worth_and_would_not_at_the_policys_rate():
    prompts = [[user("xxx")], [user("some other words entirely")], [user("xyz" * 5)], [user("ab" * 7)]]
    settings = dataclasses.replace(
        TINY, updates=6, samples_per_update=32, minibatch_size=16, warmup_updates=0, schedule="constant",
        malformed_penalty=0.0,
    )  # fmt: skip

    def worth(asked, replies):
        values = {"xxx": 1.0, "ab" * 7: -1.0}
        return [[values.get(prompt[0]["content"], 0.0)] * len(own) for prompt, own in zip(asked, replies, strict=True)]

    def explained(**own):
        result = run(dataclasses.replace(settings, **own), prompts=prompts, rewards=[WeightedReward("w", 1.0, worth)])
        return result.steps[-1].explained_variance

    assert explained(value_learning_rate=settings.learning_rate) < 0.2
    assert explained() > 0.6


def test_the_value_heads_rate_follows_the_width_unless_it_is_set():
    policy = make_policy()
    width = policy.network.config.hidden_size
    assert value_learning_rate(policy, TINY) == pytest.approx(1 / width)
    assert value_learning_rate(policy, dataclasses.replace(TINY, value_learning_rate=0.25)) == 0.25


def test_a_high_kl_coefficient_holds_the_policy_back():
    loose, tight = (
        run(dataclasses.replace(TINY, updates=12, samples_per_update=32, minibatch_size=16, learning_rate=4e-3,
                                warmup_updates=0, schedule="constant", kl_coef=kl_coef)).kl_nats
        for kl_coef in (0.0, 2.0)
    )  # fmt: skip
    assert tight < loose / 2


def test_at_the_first_update_nothing_is_clipped_and_the_kl_is_zero():
    settings = dataclasses.replace(TINY, updates=1, minibatch_size=8, passes=1)
    step = run(settings).steps[0]
    assert step.kl_nats == pytest.approx(0, abs=1e-4)
    assert step.clip_fraction == 0
    assert step.approximate_kl == pytest.approx(0, abs=1e-5)
    assert step.explained_variance == pytest.approx(0, abs=1e-5)  # the value head starts at 0
    assert step.learning_rate == pytest.approx(1e-4 / 5)


def test_each_update_reports_and_the_ledger_has_every_sample_with_every_term():
    steps, entries = [], []
    result = run(on_step=steps.append, ledger=entries.extend)
    assert result.steps == steps
    assert [step.step for step in steps] == [1, 2]
    assert [(entry.step, entry.index) for entry in entries] == [(s, i) for s in (1, 2) for i in range(8)]
    assert result.samples == steps[-1].samples == 16
    for entry in entries:
        assert set(entry.terms) == {"letter e", "length_penalty", "malformed_penalty", "repetition_penalty"}
        assert entry.raw_terms["letter e"] == entry.response.count("e")
        assert entry.reward == pytest.approx(sum(entry.terms.values()), abs=1e-6)
        assert entry.kl_penalty == pytest.approx(TINY.kl_coef * entry.kl_nats)
        assert 1 <= entry.token_count <= 8
        assert entry.prompt[0]["role"] == "user"
    first = [entry for entry in entries if entry.step == 1]
    assert steps[0].reward == pytest.approx(sum(entry.reward for entry in first) / 8, abs=1e-5)
    assert steps[0].kl_nats == pytest.approx(sum(entry.kl_nats for entry in first) / 8, abs=1e-5)
    assert steps[0].response_tokens == sum(entry.token_count for entry in first) / 8
    assert steps[0].finished_rate == sum(entry.finished for entry in first) / 8
    assert steps[0].distinct_rate == len({entry.response for entry in first}) / 8
    assert steps[0].to_dict()["terms"].keys() == first[0].terms.keys()


def test_the_entropy_is_exact_with_a_bonus_and_estimated_without():
    exact = run(dataclasses.replace(TINY, entropy_coef=1e-9, updates=1, samples_per_update=64, passes=1)).steps[0]
    estimated = run(dataclasses.replace(TINY, updates=1, samples_per_update=64, passes=1)).steps[0]
    assert 0 < exact.entropy < math.log(262)
    assert estimated.entropy == pytest.approx(exact.entropy, rel=0.15)


def test_an_adaptive_coefficient_moves_and_a_fixed_one_stays():
    adaptive = dataclasses.replace(TINY, kl_controller="adaptive", kl_target_nats=5.0, kl_horizon_samples=80)
    steps = run(adaptive).steps
    assert steps[0].kl_coef == 0.1
    assert steps[1].kl_coef == pytest.approx(0.1 * (1 - 0.2 * 8 / 80))
    assert {step.kl_coef for step in run().steps} == {0.1}


def test_a_reply_that_never_ends_is_penalised_in_every_entry():
    entries = []
    run(dataclasses.replace(TINY, malformed_penalty=3.0), ledger=entries.extend)
    assert {entry.finished for entry in entries} <= {True, False}
    for entry in entries:
        assert entry.terms["malformed_penalty"] == (0.0 if entry.finished and entry.response else -3.0)


def test_the_same_seed_gives_the_same_weights_to_the_bit_and_another_does_not():
    def weights(seed):
        policy = run(dataclasses.replace(TINY, seed=seed)).policy
        return torch.cat([p.detach().flatten() for p in policy.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_dropout_takes_no_part():
    policy = make_policy(make_gpt2(dropout=0.3)).train()
    step = run(dataclasses.replace(TINY, updates=1, minibatch_size=8, passes=1), policy=policy).steps[0]
    assert step.approximate_kl == pytest.approx(0, abs=1e-5)


def test_under_lora_only_the_adapters_move_and_the_reference_is_the_base():
    network = add_lora(make_llama(), LoraSettings(rank=2), seed=1)
    policy = make_policy(network)
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    steps = run(dataclasses.replace(TINY, updates=3, learning_rate=5e-2, warmup_updates=0), policy=policy).steps
    moved = {name for name, p in policy.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all("lora" in name or "value_head" in name for name in moved)
    assert steps[0].kl_nats == pytest.approx(0, abs=1e-4)
    assert abs(steps[-1].kl_nats) > 1e-3


def test_dialogues_too_long_are_cut_and_counted():
    prompts = [[user("a" * 300), bot("b"), user("c")], *PROMPTS]
    result = run(prompts=prompts)
    assert (result.dialogues_cut, result.turns_cut) == (1, 2)


def test_the_reported_kl_is_that_of_the_last_fifth():
    result = run(dataclasses.replace(TINY, updates=10))
    assert result.kl_nats == pytest.approx((result.steps[-1].kl_nats + result.steps[-2].kl_nats) / 2)
    assert run().kl_nats == run().steps[-1].kl_nats


def test_nothing_to_learn_from_and_bad_settings_are_said_first():
    with pytest.raises(NothingToLearn, match="at least one prompt and one reward"):
        run(prompts=[])
    with pytest.raises(NothingToLearn):
        run(rewards=())
    with pytest.raises(InvalidSettings, match="minibatch_size"):
        run(dataclasses.replace(TINY, minibatch_size=99))


@pytest.mark.parametrize("place", ["score", "weights", "kl"])
def test_divergence_stops_the_run_before_its_result_is_given(place):
    policy, reported = make_policy(), []
    settings, rewards = TINY, [COUNT_E]
    if place == "score":
        rewards = [WeightedReward("bad", 1.0, lambda p, r: [[float("inf")] * len(own) for own in r])]
    elif place == "weights":
        with torch.no_grad():
            policy.value_head.weight.fill_(float("nan"))
    else:
        reference = make_policy(make_llama(seed=9))
        with pytest.raises(TrainingDiverged, match="KL to the reference"):
            train_policy(
                PROMPTS, policy=policy, ref_policy=reference_policy(reference), rewards=rewards,
                settings=dataclasses.replace(TINY, divergence_kl_nats=1.0), on_step=reported.append,
            )  # fmt: skip
        assert reported == []
        return
    with pytest.raises(TrainingDiverged):
        run(settings, policy=policy, rewards=rewards, on_step=reported.append)
    assert reported == []


def test_what_a_callback_raises_ends_the_run():
    def give_up(step):
        raise TimeoutError("the lease was lost")

    with pytest.raises(TimeoutError, match="lease"):
        run(on_step=give_up)


def test_an_update_without_steps_reports_zeros_and_no_division_by_zero():
    rollout = make_rollout(scores=torch.zeros(3), returns=torch.zeros(3, 3))
    done = ppo._summary(rollout, UpdateStatistics(), FixedKl(0.1), TINY, 0, 1e-4)
    assert (done.policy_loss, done.gradient_norm, done.clip_fraction) == (0.0, 0.0, 0.0)
