"""One PPO update, from prompts to new weights: ours beside TRL 1.12's PPOTrainer, the last TRL that had one.

Both draw 32 replies of 64 tokens to prompts of 128, score them with a reward model of the policy's size, and take four
passes in minibatches of eight: sixteen optimiser steps. TRL trains a second network for the values, ours has a head.
"""

from __future__ import annotations

import tempfile
import time
from typing import Any

import torch

from tests.benchmarks import alternatives
from tests.benchmarks.contest import Contest, Way, Work
from tests.benchmarks.networks import llama_config, random_ids, word_tokenizer

PROMPT, NEW = 128, 64
SAMPLES, PASSES, MINIBATCH = 32, 4, 8
UPDATES = 2  # in one turn
HERE = "tests.benchmarks.bench_ppo"


def contests() -> list[Contest]:
    return [
        Contest(
            title=f"PPO: {SAMPLES} replies of {NEW} tokens to prompts of {PROMPT}, {PASSES} passes by {MINIBATCH}",
            unit="update",
            ways=[
                Way("Nestbox, 1 reply to a prompt", f"{HERE}:ours", {"samples_per_prompt": 1}),
                Way("Nestbox, 4 replies to a prompt", f"{HERE}:ours", {"samples_per_prompt": 4}),
                Way("TRL 1.12 PPOTrainer", f"{HERE}:trl", {}, python=alternatives.python("trl==1.12.0")),
            ],
            repeats=3,
        )
    ]


def causal_lm() -> Any:
    """A network that never ends a reply, so that both draw equally many tokens."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    made = LlamaForCausalLM(llama_config(eos_token_id=None))
    made.generation_config.eos_token_id = None
    return made


def prompts(count: int) -> list[list[int]]:
    """Token IDs; two of each prompt are the marks of the turns."""
    generator = torch.Generator().manual_seed(0)
    return [random_ids(PROMPT - 2, generator) for _ in range(count)]


def ours(options: dict[str, Any]) -> Work:
    from rewardtrain import ppo
    from rewardtrain.hyperparameters import PpoSettings, SamplingSettings
    from rewardtrain.policy import PolicyWithValue, reference_policy
    from rewardtrain.rollouts import WeightedReward
    from rewardtrain.sampling import encode_for_sampling
    from tests.benchmarks.bench_reward_model import our_reward_model

    tokenizer = word_tokenizer()
    tokenizer.eos_token = None
    policy = PolicyWithValue(causal_lm(), tokenizer)
    ref_policy = reference_policy(policy)
    scorer = our_reward_model().eval()
    settings = PpoSettings(
        updates=UPDATES, samples_per_update=SAMPLES, samples_per_prompt=options["samples_per_prompt"], passes=PASSES,
        minibatch_size=MINIBATCH, pass_kl_limit=1e9, sampling=SamplingSettings(max_new_tokens=NEW),
    )  # fmt: skip
    asked = [[{"role": "user", "content": tokenizer.decode(ids)}] for ids in prompts(settings.prompts_per_update)]
    encoded = len(encode_for_sampling(policy, tokenizer, asked[0], settings.sampling).ids)
    assert encoded == PROMPT, encoded

    def work() -> list[float]:
        clock = [0.0]

        def tick(*_: Any) -> None:
            clock.append(time.process_time())

        ppo.train_policy(
            asked, policy=policy, ref_policy=ref_policy, settings=settings, on_begin=tick, on_step=tick,
            rewards=[WeightedReward("preference", 1.0, scorer.scores, by_token=scorer.token_scores)],
        )  # fmt: skip
        return [after - before for before, after in zip(clock[1:], clock[2:], strict=False)]

    return work


def trl(options: dict[str, Any]) -> Work:
    from datasets import Dataset
    from transformers import LlamaForSequenceClassification, TrainerCallback
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    tokenizer = word_tokenizer()
    tokenizer.padding_side = "left"
    policy, reference = causal_lm(), causal_lm()
    reward_model, value_model = (LlamaForSequenceClassification(llama_config(num_labels=1)) for _ in range(2))
    rows = Dataset.from_list([{"input_ids": [2, *ids, 3]} for ids in prompts(SAMPLES)])
    clock: list[float] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, *args: Any, **more: Any) -> None:
            clock.append(time.process_time())

        def on_step_end(self, *args: Any, **more: Any) -> None:
            clock.append(time.process_time())

    def work() -> list[float]:
        clock.clear()
        config = PPOConfig(
            output_dir=tempfile.mkdtemp(), total_episodes=SAMPLES * UPDATES, per_device_train_batch_size=SAMPLES,
            gradient_accumulation_steps=1, num_mini_batches=SAMPLES // MINIBATCH, num_ppo_epochs=PASSES,
            response_length=NEW, local_rollout_forward_batch_size=SAMPLES, num_sample_generations=0, temperature=1.0,
            use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[], save_strategy="no",
            logging_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        PPOTrainer(
            args=config, processing_class=tokenizer, model=policy, ref_model=reference, reward_model=reward_model,
            value_model=value_model, train_dataset=rows, callbacks=[Clock()],
        ).train()  # fmt: skip
        return [after - before for before, after in zip(clock, clock[1:], strict=False)]

    return work
