"""Each token is paid for what it did, each reply's sum stays what it was, and nothing is guessed where texts differ."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import rewardtrain
from rewardtrain.chat import encode_prompt
from rewardtrain.credit import TokenScores, after_tokens, paid_by_token
from rewardtrain.errors import TrainingDiverged, UnsupportedArchitecture
from rewardtrain.hyperparameters import PpoSettings, RewardModelSettings, SamplingSettings
from rewardtrain.policy import load_policy_with_value, reference_policy
from rewardtrain.ppo import estimate_advantages, token_rewards
from rewardtrain.reward_model import EncodedComparison, HeadConfig, RewardModel
from rewardtrain.rollouts import WeightedReward, sample_rollout, score
from tests.rewardtrain.small_rollouts import make_rollout
from tests.rewardtrain.tiny import make_bert, make_llama, make_tokenizer, user

STARTER = Path(rewardtrain.__file__).parent / "starter" / "policy"
t = torch.tensor
TINY = PpoSettings(
    updates=2, samples_per_update=8, samples_per_prompt=2, minibatch_size=4, kl_coef=0.1,
    sampling=SamplingSettings(max_new_tokens=8),
)  # fmt: skip


def test_scores_hold_as_far_as_both_cut_the_text_alike():
    scores = TokenScores([5, 6, 7, 8], t([0.1, 0.2, 0.3, 0.4]), 0.4)
    after, known = after_tokens(scores, [5, 6, 9, 9, 2])
    assert known == 2
    assert_close(after, t([0.1, 0.2, 0.2, 0.2, 0.2]))
    after, known = after_tokens(scores, [4, 6])
    assert known == 0
    assert_close(after, torch.zeros(2))
    assert after_tokens(TokenScores([], torch.zeros(0), 1.0), [5])[1] == 0


def test_a_reply_is_paid_its_whole_reward_whatever_the_way_there():
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(6) < t([[6], [1], [4]])
    progress = torch.where(mask, torch.randn(3, 6, generator=generator), 0.0)
    paid = paid_by_token(progress, mask)
    last = progress[torch.arange(3), mask.sum(dim=1) - 1]
    assert_close(paid.sum(dim=1), last)
    assert (paid[~mask] == 0).all()


# From a rollout


def by_token(prompts, replies):
    """Two tokens of each reply are known; it scores 1, 2, then 3."""
    return [[TokenScores([9, 9], t([1.0, 2.0]), 3.0) for _ in own] for own in replies]


def test_scores_are_standardised_cut_and_weighed_on_the_way_as_at_the_end():
    rollout = make_rollout()
    reward = WeightedReward("r", 2.0, lambda p, r: pytest.fail("asked"), mean=1.0, std=0.5, by_token=by_token)
    score(rollout, [reward], dataclasses.replace(TINY, reward_clip=1.5, malformed_penalty=0.25))
    assert_close(rollout.terms["r"], t([3.0, 3.0, 3.0]))
    # the first reply is 9 9 2; the second, 2, and the third, 8 8, begin otherwise, so nothing is known on the way
    assert_close(rollout.progress, t([[0.0, 3.0, 3.0], [2.75, 0, 0], [0.0, 2.75, 0]]))
    assert rollout.credit_rate == pytest.approx(2 / 6)


def test_the_whole_reply_is_paid_at_its_end_where_that_is_wanted():
    rollout = make_rollout()
    reward = WeightedReward("r", 1.0, lambda p, r: [[3.0] * len(own) for own in r], by_token=by_token)
    score(rollout, [reward], dataclasses.replace(TINY, credit="reply", malformed_penalty=0.0))
    assert_close(token_rewards(rollout, 0.0), t([[0, 0, 3.0], [3.0, 0, 0], [0, 3.0, 0]]))
    assert rollout.credit_rate == 0


def test_a_score_on_the_way_that_is_no_number_stops_the_run():
    def broken(prompts, replies):
        return [[TokenScores([9, 9], t([float("nan"), 2.0]), 3.0) for _ in own] for own in replies]

    with pytest.raises(TrainingDiverged, match="no number"):
        score(make_rollout(), [WeightedReward("r", 1.0, lambda p, r: [], by_token=broken)], TINY)


# From a reward model


def make_reward_model(pooling: str = "mean", reads_likelihood: bool = True) -> RewardModel:
    config = HeadConfig(
        pooling=pooling, is_causal=True, is_language_model=True, reads_likelihood=reads_likelihood, max_tokens=128,
        max_reply_tokens=64,
    )  # fmt: skip
    reward_model = RewardModel(make_llama(), make_tokenizer(), config).eval()
    if reward_model.likelihood_weights is not None:
        with torch.no_grad():
            reward_model.likelihood_weights.copy_(t([0.02, -0.01, 0.03]))
    return reward_model


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("reads_likelihood", [True, False])
def test_after_each_token_the_score_is_that_of_the_reply_cut_there(pooling, reads_likelihood):
    reward_model = make_reward_model(pooling, reads_likelihood)
    prompts = [[user("hello there")], [user("x")]]
    replies = [["all is well", "no", ""], ["yes, it is"]]
    found = reward_model.token_scores(prompts, replies)
    with torch.no_grad():
        whole = reward_model.scores(prompts, replies)
    for prompt, own, wanted in zip(prompts, found, whole, strict=True):
        assert_close(t([one.whole for one in own]), wanted, atol=1e-5, rtol=1e-5)
        encoded = reward_model.encode(prompt, ["unused"]).prompt
        for one in own:
            for end in range(1, len(one.ids) + 1):
                cut = EncodedComparison(encoded, [list(one.ids[:end])])
                with torch.no_grad():
                    (alone,) = reward_model.score_encoded([cut])
                assert_close(one.after[end - 1 : end], alone, atol=1e-5, rtol=1e-5)
            assert len(one.ids) == 0 or float(one.after[-1]) == pytest.approx(one.whole, abs=1e-5)
    assert not found[0][0].after.requires_grad


def test_an_encoder_has_no_score_for_each_token():
    config = HeadConfig(
        pooling="mean", is_causal=False, is_language_model=False, reads_likelihood=False, max_tokens=64,
        max_reply_tokens=32,
    )  # fmt: skip
    encoder = RewardModel(make_bert(), make_tokenizer(), config)
    assert not encoder.scores_tokens
    with pytest.raises(UnsupportedArchitecture, match="as a whole"):
        encoder.token_scores([[user("x")]], [["y"]])


def test_a_policy_and_a_reward_model_of_its_base_cut_what_the_policy_wrote_alike():
    policy = load_policy_with_value(STARTER)
    prompts = [[user("How much water does a fern need?")], [user("Are you a person?")]]
    encoded = [encode_prompt(policy.tokenizer, prompt, 100) for prompt in prompts]
    settings = dataclasses.replace(
        TINY, samples_per_update=4, minibatch_size=4, sampling=SamplingSettings(max_new_tokens=40)
    )
    rollout = sample_rollout(policy, reference_policy(policy), prompts, encoded, settings, step=0)
    reward_model = RewardModel.from_base(STARTER, RewardModelSettings()).eval()
    reward = WeightedReward("r", 1.0, reward_model.scores, by_token=reward_model.token_scores)
    score(rollout, [reward], settings)
    assert rollout.credit_rate > 0.95
    last = rollout.response_mask.sum(dim=1) - 1
    assert_close(rollout.progress[torch.arange(4), last], rollout.scores)
    assert int((rollout.progress != 0).sum()) == int(rollout.response_mask.sum())


def test_what_a_reply_earned_before_is_no_noise_to_its_last_token():
    """The reward is the number of letters e: after each token it is known how many there are so far."""
    policy = load_policy_with_value(STARTER).eval()
    tokenizer = policy.tokenizer

    def count(text):
        return float(text.count("e"))

    def so_far(asked, replies):
        def one(text):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            return TokenScores(
                ids, t([count(tokenizer.decode(ids[: end + 1])) for end in range(len(ids))]), count(text)
            )

        return [[one(text) for text in own] for own in replies]

    def spread_at_the_end(credit):
        settings = dataclasses.replace(
            TINY, samples_per_update=96, samples_per_prompt=24, minibatch_size=48, kl_coef=0.0, credit=credit,
            malformed_penalty=0.0, reward_clip=50.0, sampling=SamplingSettings(max_new_tokens=48),
        )  # fmt: skip
        prompts = [[user(f"How do I care for a {plant}?")] for plant in ("fern", "basil", "rose", "cactus")]
        encoded = [encode_prompt(tokenizer, prompt, 100) for prompt in prompts]
        rollout = sample_rollout(policy, reference_policy(policy), prompts, encoded, settings, step=0)
        reward = WeightedReward(
            "letters", 1.0, lambda p, r: [[count(text) for text in own] for own in r], by_token=so_far
        )
        score(rollout, [reward], settings)
        rollout.rewards = token_rewards(rollout, 0.0)
        estimate_advantages(rollout, settings)
        last = rollout.response_mask.sum(dim=1) - 1
        return float((rollout.returns - rollout.values)[torch.arange(len(rollout)), last].std())

    assert spread_at_the_end("token") < spread_at_the_end("reply") / 2


def test_what_is_set_must_be_known():
    assert "Set credit to one of token, reply" in " ".join(PpoSettings(credit="sentence").problems())
    assert RewardModelSettings().validate()
