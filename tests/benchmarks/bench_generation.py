"""What replies cost: four to a dialogue beside one, requests together beside one by one, and transformers' own way."""

from __future__ import annotations

import time
from typing import Any

import torch

from tests.benchmarks.contest import Contest, Way, Work
from tests.benchmarks.networks import llama_config, random_ids, word_tokenizer

PROMPT, NEW = 256, 64
REQUESTS, CANDIDATES = 16, 4
HERE = "tests.benchmarks.bench_generation"


def contests() -> list[Contest]:
    return [
        Contest(
            title=f"Replies of {NEW} tokens to one dialogue of {PROMPT}",
            unit="request",
            ways=[
                Way("Nestbox, 4 replies", f"{HERE}:ours", {"dialogues": 1, "replies": 4}),
                Way("Nestbox, 1 reply", f"{HERE}:ours", {"dialogues": 1, "replies": 1}),
                Way("transformers generate, 4 replies", f"{HERE}:generate", {"dialogues": 1, "replies": 4}),
                Way("transformers generate, 4 times 1 reply", f"{HERE}:generate", {"dialogues": 4, "replies": 1}),
            ],
        ),
        Contest(
            title=f"{REQUESTS} requests of {CANDIDATES} replies of {NEW} tokens, dialogues of 65 to {PROMPT}",
            unit="16 requests",
            ways=[
                Way("Nestbox, together", f"{HERE}:ours", {"dialogues": REQUESTS, "replies": CANDIDATES}),
                Way("Nestbox, one by one", f"{HERE}:ours", {"dialogues": REQUESTS, "replies": 4, "apart": True}),
                Way("Nestbox, reply by reply", f"{HERE}:ours", {"dialogues": REQUESTS, "replies": 4, "alone": True}),
                Way("transformers generate, one by one", f"{HERE}:generate", {"dialogues": REQUESTS, "replies": 4}),
            ],
            repeats=3,
        ),
        Contest(
            title=f"{REQUESTS} requests of 1 reply of {NEW} tokens, dialogues of 65 to {PROMPT}",
            unit="16 requests",
            ways=[
                Way("Nestbox, together", f"{HERE}:ours", {"dialogues": REQUESTS, "replies": 1}),
                Way("Nestbox, one by one", f"{HERE}:ours", {"dialogues": REQUESTS, "replies": 1, "apart": True}),
                Way("transformers generate, one by one", f"{HERE}:generate", {"dialogues": REQUESTS, "replies": 1}),
            ],
            repeats=3,
        ),
    ]


def dialogues(count: int) -> list[list[int]]:
    """Tokens of so many dialogues; one alone is the longest."""
    generator = torch.Generator().manual_seed(0)
    shortest = PROMPT // 4 + 1 if count > CANDIDATES else PROMPT
    step = (PROMPT - shortest) / max(1, count - 1)
    return [random_ids(round(PROMPT - number * step), generator) for number in range(count)]


def network() -> Any:
    """A network that never ends a reply, so that all ways draw equally many tokens."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    made = LlamaForCausalLM(llama_config(eos_token_id=None)).eval()
    made.generation_config.eos_token_id = None
    return made


def ours(options: dict[str, Any]) -> Work:
    """Our sampling; `apart` a request at a time, `alone` a reply at a time."""
    from rewardtrain.chat import EncodedPrompt
    from rewardtrain.policy import Policy
    from rewardtrain.sampling import SamplingSettings, sample_replies

    tokenizer = word_tokenizer()
    tokenizer.eos_token = None
    policy = Policy(network(), tokenizer).eval()
    settings = SamplingSettings(max_new_tokens=NEW)
    rows = [EncodedPrompt(ids) for ids in dialogues(options["dialogues"]) for _ in range(options["replies"])]
    together = 1 if options.get("alone") else options["replies"] if options.get("apart") else len(rows)

    def work() -> list[float]:
        started = time.process_time()
        tokens = 0
        for start in range(0, len(rows), together):
            some = rows[start : start + together]
            drawn = sample_replies(policy, tokenizer, some, settings=settings, seeds=range(start, start + len(some)))
            tokens += sum(len(reply.token_ids) for reply in drawn)
        assert tokens == NEW * len(rows), f"{tokens} tokens were drawn"
        return [time.process_time() - started]

    return work


def generate(options: dict[str, Any]) -> Work:
    """transformers' own sampling, a dialogue at a time: what it does when it is given one."""
    made = network()
    prompts = dialogues(options["dialogues"])

    def work() -> list[float]:
        started = time.process_time()
        for ids in prompts:
            out = made.generate(
                input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), do_sample=True,
                top_k=0, max_new_tokens=NEW, num_return_sequences=options["replies"], pad_token_id=0,
            )  # fmt: skip
            assert out.shape == (options["replies"], len(ids) + NEW)
        return [time.process_time() - started]

    return work
