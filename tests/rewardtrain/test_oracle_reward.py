"""The study of oracle reward: TRL is paid what our PPO is paid, a gap is paired by opening, and the page says all."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
import torch

from rewardtrain.chat import encode_prompt
from rewardtrain.hyperparameters import PpoSettings, RewardModelSettings
from rewardtrain.reward_model import RewardModel
from tests.benchmarks import oracle_reward
from tests.benchmarks.oracle_reward import STARTER, AsSequenceClassifier, Judge

PROMPTS = [
    [{"role": "user", "content": "How often do I water my fern?"}],
    [{"role": "user", "content": "Are you a person?"}],
    [{"role": "user", "content": "hi"}],
]
REPLIES = ["Water it once a week.", "I am a program.", ""]


@pytest.fixture(scope="module")
def judge() -> Judge:
    torch.manual_seed(0)
    reward_model = RewardModel.from_base(STARTER, RewardModelSettings()).eval()
    assert reward_model.likelihood_weights is not None
    with torch.no_grad():
        reward_model.likelihood_weights.fill_(0.01)
    return Judge(reward_model, mean=0.1, std=0.05)


def padded(judge: Judge, end: str = "<|end|>") -> tuple[torch.Tensor, torch.Tensor]:
    """Rows as TRL makes them: dialogues filled up on the left, replies on the right, and zeros for the padding."""
    tokenizer = judge.reward_model.tokenizer
    asked = [encode_prompt(tokenizer, prompt, 512).ids for prompt in PROMPTS]
    given = [tokenizer(reply + end, add_special_tokens=False)["input_ids"] for reply in REPLIES]
    left, right = max(map(len, asked)), max(map(len, given))
    rows = [
        [0] * (left - len(prompt)) + prompt + reply + [0] * (right - len(reply))
        for prompt, reply in zip(asked, given, strict=True)
    ]
    masks = [
        [0] * (left - len(prompt)) + [1] * (len(prompt) + len(reply)) + [0] * (right - len(reply))
        for prompt, reply in zip(asked, given, strict=True)
    ]
    return torch.tensor(rows), torch.tensor(masks)


@pytest.mark.parametrize("end", ["<|end|>", ""])
def test_trl_is_paid_what_our_ppo_is_paid(judge: Judge, end: str) -> None:
    settings = PpoSettings()
    model = AsSequenceClassifier(judge, settings)
    ids, mask = padded(judge, end)
    backbone = getattr(model, model.base_model_prefix)
    found = model.score(backbone(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-1])
    with torch.no_grad():
        raw = torch.cat(judge.reward_model.scores(PROMPTS, [[reply] for reply in REPLIES]))
    wanted = ((raw - 0.1) / 0.05).clamp(-5, 5) - torch.tensor([0.0, 0.0, settings.malformed_penalty])
    assert found.shape == (*ids.shape, 1)
    assert len(set(wanted.tolist())) == 3
    torch.testing.assert_close(found[:, -1, 0], wanted, atol=1e-4, rtol=1e-4)


def test_a_gap_is_paired_and_replies_to_one_opening_count_once() -> None:
    ours, other = [1.0, 2.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]  # openings differ by 1 and 0
    gain, error, each = oracle_reward.gap([(ours, other)])
    assert (gain, each) == (0.5, [0.5])
    assert error == pytest.approx(1.96 * 0.5)  # deviation √½ over √2 openings
    assert oracle_reward.gap([(ours, other), (other, ours)])[0] == 0


def figures(reward: float, **more: float) -> dict[str, Any]:
    return {
        "scores": [reward] * 4, "kl_nats": 1.5, "preferred": 0.7, "violation_rate": 0.1, "fluent_rate": 0.97,
        "distinct_rate": 0.9, "mean_tokens": 15.0, "learned": 0.8, **more,
    }  # fmt: skip


def test_the_page_has_every_seed_the_means_and_how_far_ours_is_ahead() -> None:
    found = {
        0: {"start": figures(0.0, kl_nats=0.0), "ours": figures(0.6), "trl": figures(0.5, cpu_seconds=900.0)},
        1: {"start": figures(0.2, kl_nats=0.0), "ours": figures(0.8), "trl": figures(0.8, cpu_seconds=700.0)},
    }
    options = argparse.Namespace(prompts=100, updates=32, samples=256)
    text = oracle_reward.page(found, options)
    assert "| 1 | Nestbox | +0.800 | 1.50 | 70.0% |" in text
    assert "| **mean** | Nestbox | +0.700 |" in text
    mean = next(line for line in text.splitlines() if line.startswith("| **mean** | TRL 1.12, 4 passes"))
    assert mean.endswith("| +0.80 | 800 |")
    assert "above TRL 1.12, 4 passes (its default): +0.050 ± 0.057 (by seed +0.100, +0.000)" in text
    assert "8,192 replies, 32 updates of 256" in text
