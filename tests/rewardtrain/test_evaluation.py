"""Policies measured beside each other in memory: their log-ratios, and where there are none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rewardtrain.evaluation import Measures, evaluate
from rewardtrain.evaluation_figures import Opening, figures_of
from rewardtrain.policy import Policy
from rewardtrain.sampling import SamplingSettings
from tests.rewardtrain import tiny

OPENINGS = [Opening([tiny.user(text)]) for text in ("hello", "why?")]


def first() -> Policy:
    return Policy(tiny.make_llama(), tiny.make_tokenizer()).eval()


def with_one_token_more() -> Policy:
    """A policy whose prompts hold a token that is beyond the first one's embeddings."""
    network, tokenizer = tiny.make_llama(seed=1), tiny.make_tokenizer()
    tokenizer.add_tokens(["hello"])
    network.resize_token_embeddings(len(tokenizer))
    return Policy(network, tokenizer).eval()


def with_letters_swapped() -> Policy:
    """A policy with as many tokens, two of which stand for each other's letter."""
    tokenizer = tiny.make_tokenizer()
    inner = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = inner["model"]["vocab"]
    vocabulary["h"], vocabulary["w"] = vocabulary["w"], vocabulary["h"]
    tokenizer.backend_tokenizer.model = type(tokenizer.backend_tokenizer).from_str(json.dumps(inner)).model
    return Policy(tiny.make_llama(seed=1), tokenizer).eval()


def figures(*policies: Policy) -> list[dict[str, Any]]:
    both = evaluate(
        policies, OPENINGS, measures=Measures(), draws=1, sampling=SamplingSettings(max_new_tokens=4), seed=1
    )
    for replies, _ in both:
        json.dumps([reply.to_dict() for reply in replies], allow_nan=False)
    return [figures_of(OPENINGS, replies, draws=1) for replies, _ in both]


def test_policies_with_the_same_tokens_have_a_kl() -> None:
    other = Policy(tiny.make_llama(seed=1), tiny.make_tokenizer()).eval()
    own, found = figures(first(), other)
    assert own["kl_nats"]["mean"] == 0
    assert found["kl_nats"]["mean"] > 0


@pytest.mark.parametrize("make", [with_one_token_more, with_letters_swapped])
def test_policies_with_different_tokens_have_none_and_everything_else(make: Any) -> None:
    other = make()
    assert other.tokenizer.get_vocab() != tiny.make_tokenizer().get_vocab()
    own, found = figures(first(), other)
    assert (own["kl_nats"]["mean"], found["kl_nats"]) == (0, None)
    assert found["tokens"]["mean"] > 0
