"""Rollouts: which prompts, what is drawn, how it is scored, when it is refused, what the ledger has."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import pytest
import torch
from torch.testing import assert_close

from rewardtrain.chat import encode_prompt
from rewardtrain.errors import NothingToLearn, TrainingDiverged
from rewardtrain.policy import reference_policy
from rewardtrain.rollouts import (
    Rollout,
    WeightedReward,
    check_rollout,
    is_malformed,
    ledger_entries,
    length_penalty,
    prompts_of_update,
    repetitions,
    reward_scale,
    sample_rollout,
    score,
)
from tests.rewardtrain.small_rollouts import (
    COUNT_E,
    DECODERS,
    TINY,
    TOKENIZER,
    make_policy,
    make_reply,
    make_rollout,
)
from tests.rewardtrain.trainings import PROMPTS, count_e

t = torch.tensor

# Sample


def test_every_prompt_comes_once_before_any_comes_again():
    settings = dataclasses.replace(TINY, samples_per_update=8, samples_per_prompt=2)  # 4 prompts an update
    places = [place for step in range(11) for place in prompts_of_update(11, step, settings)]
    assert len(places) == 44
    for sweep in range(4):
        assert sorted(places[sweep * 11 : sweep * 11 + 11]) == list(range(11))
    assert places[:11] != places[11:22]


def test_an_update_may_need_more_prompts_than_there_are():
    times = Counter(prompts_of_update(3, 0, dataclasses.replace(TINY, samples_per_prompt=1)))
    assert sorted(times.values()) == [2, 3, 3]


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("share_prefix", [True, False])
def test_a_rollouts_log_probabilities_and_values_equal_a_fresh_forward_pass(kind, share_prefix):
    policy = make_policy(DECODERS[kind]())
    torch.nn.init.normal_(policy.value_head.weight)
    reference = reference_policy(make_policy(DECODERS[kind](seed=1)))
    settings = dataclasses.replace(TINY, share_prefix=share_prefix)
    encoded = [encode_prompt(TOKENIZER, prompt, 100) for prompt in PROMPTS[:4]]
    rollout = sample_rollout(policy, reference, PROMPTS[:4], encoded, settings, step=0)
    assert rollout.owners == [0, 0, 1, 1, 2, 2, 3, 3]
    assert rollout.response_mask.sum(dim=1).tolist() == [len(one.token_ids) for one in rollout.replies]
    token_ids = [one.token_ids for one in rollout.replies]
    with torch.no_grad():
        fresh = policy.evaluate_replies(rollout.prompt_ids, token_ids, rollout.owners, share_prefix=False)
        ref = reference.policy.evaluate_replies(rollout.prompt_ids, token_ids, rollout.owners, share_prefix=False)
    assert_close(rollout.logprobs, fresh.logprobs, atol=1e-4, rtol=0)
    assert_close(rollout.values, fresh.values, atol=1e-4, rtol=1e-4)
    assert_close(rollout.ref_logprobs, ref.logprobs, atol=1e-4, rtol=0)


# Score


def test_every_term_is_standardised_weighed_and_kept():
    rollout = make_rollout()
    other = WeightedReward("length", 0.5, lambda prompts, replies: [[len(x) for x in own] for own in replies], 2.0, 4.0)
    settings = dataclasses.replace(TINY, length_penalty=0.1, length_free_tokens=1, malformed_penalty=2.0)
    score(rollout, [COUNT_E, other], settings)
    assert rollout.raw_terms["letter e"].tolist() == [2.0, 0.0, 1.0]
    assert_close(rollout.terms["letter e"], t([(2 - 0.1) / 0.5, -0.2, 1.8]))
    assert_close(rollout.terms["length"], 0.5 * (t([3.0, 0.0, 2.0]) - 2) / 4)
    assert_close(rollout.terms["length_penalty"], t([-0.2, 0.0, -0.1]))
    assert_close(rollout.terms["malformed_penalty"], t([0.0, -2.0, -2.0]))
    assert_close(rollout.scores, torch.stack(list(rollout.terms.values())).sum(dim=0))


def test_a_standardised_score_is_cut_before_it_is_weighed():
    rollout = make_rollout()
    wild = WeightedReward("wild", 2.0, lambda prompts, replies: [[1e6, -1e6], [1.0]])
    score(rollout, [wild], dataclasses.replace(TINY, reward_clip=5.0))
    assert rollout.terms["wild"].tolist() == [10.0, -10.0, 2.0]


def test_scorers_get_each_prompt_once_with_all_its_replies():
    asked = []
    rollout = make_rollout()
    score(rollout, [WeightedReward("r", 1.0, lambda p, r: asked.append((p, r)) or [t([1.0, 2.0]), t([3.0])])], TINY)
    assert asked == [([PROMPTS[0], PROMPTS[1]], [["eel", ""], ["he"]])]
    assert rollout.raw_terms["r"].tolist() == [1.0, 2.0, 3.0]


def test_a_score_that_is_no_number_stops_the_run():
    with pytest.raises(TrainingDiverged, match="reward broken gave a score that is no number"):
        score(make_rollout(), [WeightedReward("broken", 1.0, lambda p, r: [[1.0, float("nan")], [1.0]])], TINY)


def test_a_reward_without_spread_is_refused():
    for mean, std in ((0.0, 0.0), (float("nan"), 1.0), (0.0, float("inf"))):
        with pytest.raises(ValueError, match="The reward flat needs"):
            WeightedReward("flat", 1.0, count_e, mean, std)


def test_only_tokens_beyond_the_free_ones_are_penalised():
    settings = dataclasses.replace(TINY, length_penalty=0.5, length_free_tokens=3)
    assert length_penalty(t([1, 3, 5]), settings).tolist() == [0.0, 0.0, 1.0]


def test_a_reply_without_an_end_or_without_words_is_malformed():
    assert not is_malformed(make_reply([9, 2]))
    assert is_malformed(make_reply([9, 9], finished=False))
    assert is_malformed(make_reply([2], text=""))


def test_a_reply_that_many_prompts_got_loses_the_logarithm_of_their_number():
    replies = [make_reply([9, 2], text) for text in ("same", "same", "own", "same", "other", "same")]
    rollout = make_rollout(owners=[0, 0, 0, 1, 1, 2], replies=replies, prompts=PROMPTS[:3], prompt_ids=[[3], [4], [5]])
    assert_close(repetitions(rollout), t([3.0, 3.0, 1.0, 3.0, 1.0, 3.0]).log())  # one prompt's twins count once
    rollout.prompt_ids = [[3], [3], [5]]  # a prompt that was asked twice is one prompt
    assert_close(repetitions(rollout), t([2.0, 2.0, 1.0, 2.0, 1.0, 2.0]).log())


def test_repetition_costs_nothing_unless_it_is_asked_for():
    rollout = make_rollout()
    rollout.replies[2].text = "eel"
    score(rollout, [COUNT_E], TINY)
    assert (rollout.terms["repetition_penalty"] == 0).all()
    score(rollout, [COUNT_E], dataclasses.replace(TINY, repetition_penalty=0.5))
    assert_close(rollout.terms["repetition_penalty"], t([-0.5 * math.log(2), 0.0, -0.5 * math.log(2)]))


def test_the_scale_of_a_reward_is_its_mean_and_spread_over_given_replies():
    mean, std = reward_scale(count_e, PROMPTS[:2], [["e", "eee"], ["ee", "ee"]])
    assert (mean, std) == (2.0, pytest.approx(math.sqrt(0.5)))
    with pytest.raises(NothingToLearn, match="scores of 2 replies do not differ"):
        reward_scale(count_e, PROMPTS[:1], [["e", "e"]])


# Check


@pytest.mark.parametrize("broken", ["logprobs", "ref_logprobs", "values", "rewards", "advantages"])
def test_a_rollout_with_a_number_that_is_none_stops_the_run(broken):
    rollout = make_rollout(rewards=torch.zeros(3, 3), advantages=torch.zeros(3, 3))
    check_rollout(rollout, 0, TINY)
    getattr(rollout, broken)[0, 0] = float("inf")
    with pytest.raises(TrainingDiverged, match="At update 4 a log-probability, value or reward was no number"):
        check_rollout(rollout, 3, TINY)


def test_a_policy_that_ran_away_stops_the_run():
    rollout = make_rollout(rewards=torch.zeros(3, 3), advantages=torch.zeros(3, 3))
    with pytest.raises(TrainingDiverged, match=r"KL to the reference was 0.7 nats a reply, above 0.5. Raise kl_coef"):
        check_rollout(rollout, 0, dataclasses.replace(TINY, divergence_kl_nats=0.5))


def collapsed(prompts: int, distinct: int) -> Rollout:
    """Forty samples, of so many different prompts, with so many different replies."""
    return make_rollout(
        owners=list(range(40)), prompts=[PROMPTS[0]] * 40, prompt_ids=[[3 + place % prompts] for place in range(40)],
        replies=[make_reply([9, 2], f"reply {place % distinct}") for place in range(40)],
        response_mask=torch.ones(40, 1, dtype=torch.bool), rewards=torch.zeros(40, 1), advantages=torch.zeros(40, 1),
        **{name: torch.zeros(40, 1) for name in ("logprobs", "ref_logprobs", "values")},
    )  # fmt: skip


def test_a_policy_that_gives_everybody_the_same_reply_is_stopped():
    settings = dataclasses.replace(TINY, collapse_distinct_rate=0.1)
    check_rollout(collapsed(prompts=40, distinct=4), 0, settings)
    with pytest.raises(TrainingDiverged, match="At update 3 40 prompts got only 3 different replies"):
        check_rollout(collapsed(prompts=40, distinct=3), 2, settings)
    check_rollout(collapsed(prompts=10, distinct=1), 0, settings)  # few prompts asked again and again: one good answer


# Ledger


def test_an_entry_is_of_its_own_sample():
    rollout = make_rollout()
    score(rollout, [COUNT_E], TINY)
    second = ledger_entries(rollout, 0.5, step=6)[1]
    assert (second.step, second.index, second.response, second.token_count) == (7, 1, "", 1)
    assert (second.kl_nats, second.kl_penalty) == (2.0, 1.0)
