"""How far a trained policy is from its start."""

from __future__ import annotations

import dataclasses
import operator

import pytest
import torch

from rewardtrain.drawing import Drawer, kl_to_start
from rewardtrain.hyperparameters import PpoSettings, SamplingSettings
from rewardtrain.policy import Policy, reference_policy
from rewardtrain.sampling import sample_replies
from rewardtrain.seeds import stable_seed
from tests.rewardtrain.tiny import make_llama, make_tokenizer
from tests.rewardtrain.trainings import PROMPTS

SETTINGS = PpoSettings(seed=4, sampling=SamplingSettings(max_new_tokens=7, temperature=0.8))


@torch.no_grad()
def test_the_distance_is_the_mean_over_replies_of_the_summed_difference(monkeypatch):
    most = 60
    start, policy = (Policy(make_llama(seed=seed), make_tokenizer()).eval() for seed in (1, 2))
    settings = dataclasses.replace(SETTINGS, tokens_per_forward=most)
    drawer = Drawer(policy, reference_policy(start), PROMPTS, [], settings)
    asked, ask = [], drawer.ref_policy.logprobs

    def logprobs(prompt_ids, reply_ids, *rest, **named):
        asked.append(len(prompt_ids) * max(map(len, map(operator.add, prompt_ids, reply_ids))))
        return ask(prompt_ids, reply_ids, *rest, **named)

    monkeypatch.setattr(drawer.ref_policy, "logprobs", logprobs)
    seeds = [stable_seed(4, "distance", place) for place in range(len(PROMPTS))]
    drawn = sample_replies(policy, policy.tokenizer, PROMPTS, settings=SETTINGS.sampling, seeds=seeds)
    nats = []
    for one, reply in zip(drawer.encoded, drawn, strict=True):  # a row at a time, by the plain networks
        ids, taken = torch.tensor([[*one.ids, *reply.token_ids]]), torch.tensor(reply.token_ids).unsqueeze(-1)
        own, other = (
            (who.network(input_ids=ids).logits[0, len(one.ids) - 1 : -1] / 0.8).log_softmax(-1).gather(-1, taken).sum()
            for who in (policy, start)
        )
        nats.append(float(own - other))
    assert kl_to_start(drawer) == pytest.approx(sum(nats) / len(nats), abs=1e-4)
    assert 1 < len(asked) < len(PROMPTS) and max(asked) <= most


def test_a_policy_that_learned_nothing_is_where_it_started():
    policy = Policy(make_llama(), make_tokenizer()).eval()
    assert kl_to_start(Drawer(policy, reference_policy(policy), PROMPTS, [], SETTINGS)) == pytest.approx(0, abs=1e-4)
