"""What the gate measures: here what needs no rows."""

from __future__ import annotations

import pytest
import torch

from rewardtrain import gate_run
from rewardtrain.hyperparameters import SamplingSettings
from rewardtrain.policy import Policy
from rewardtrain.sampling import encode_for_sampling, sample_replies
from tests.rewardtrain.tiny import make_llama, make_tokenizer

PROMPTS = [[{"role": "user", "content": text}] for text in ("hi", "a rather longer question than the first", "so?")]


def slow_kl(policy, reference, prompt, reply, temperature):
    """Summed difference of the taken tokens' log-probabilities, from plain forward passes of one row."""
    ids = torch.tensor([[*prompt, *reply]])
    before, taken = slice(len(prompt) - 1, -1), torch.tensor(reply).unsqueeze(-1)
    with torch.no_grad():
        own, other = (
            (one.network(input_ids=ids).logits[0, before] / temperature).log_softmax(-1).gather(-1, taken)
            for one in (policy, reference)
        )
    return float((own - other).sum())


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0])
def test_kl_is_measured_at_the_temperature_of_the_drawing(temperature, monkeypatch):
    monkeypatch.setattr(gate_run, "KL_TOKENS_PER_FORWARD", 60)  # several forward passes
    policy, reference = (Policy(make_llama(seed=seed), make_tokenizer()).eval() for seed in (1, 2))
    sampling = SamplingSettings(temperature=temperature, max_new_tokens=9)
    drawn = sample_replies(policy, policy.tokenizer, PROMPTS, settings=sampling, seeds=[1, 2, 3])

    found = gate_run.kl_to(reference, policy, PROMPTS, drawn, sampling)

    encoded = [encode_for_sampling(policy, policy.tokenizer, prompt, sampling).ids for prompt in PROMPTS]
    wanted = [
        slow_kl(policy, reference, prompt, reply.token_ids, temperature or 1.0)
        for prompt, reply in zip(encoded, drawn, strict=True)
    ]
    assert found == pytest.approx(wanted, abs=1e-4)


def test_a_policy_is_at_no_distance_from_itself():
    policy = Policy(make_llama(), make_tokenizer()).eval()
    drawn = sample_replies(
        policy, policy.tokenizer, PROMPTS, settings=SamplingSettings(max_new_tokens=5), seeds=[1, 2, 3]
    )
    assert gate_run.kl_to(policy, policy, PROMPTS, drawn, SamplingSettings()) == [0.0, 0.0, 0.0]
