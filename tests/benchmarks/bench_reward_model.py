"""One optimiser step of a reward model on one comparison, beside TRL's RewardTrainer on the same replies as pairs."""

from __future__ import annotations

import copy
import itertools
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch

from tests.benchmarks.contest import Contest, Way, Work
from tests.benchmarks.networks import llama_config, random_ids, word_tokenizer

PREFIX, REPLY = 256, 64
PAIRS_PER_FORWARD = 6  # of TRL's side; more need more memory
STEPS = 2  # in one turn
HERE = "tests.benchmarks.bench_reward_model"


def contests() -> list[Contest]:
    return [
        Contest(
            title=f"Reward model: {k} replies of {REPLY} tokens to a dialogue of {PREFIX}",
            unit="step",
            ways=[
                Way("Nestbox", f"{HERE}:ours", {"k": k, "share_prefix": True}),
                Way("Nestbox, the dialogue encoded for each reply", f"{HERE}:ours", {"k": k, "share_prefix": False}),
                Way(f"TRL 1.16 RewardTrainer, {k * (k - 1) // 2} pairs", f"{HERE}:trl", {"k": k}),
            ],
            repeats=5 if k < 9 else 3,
        )
        for k in (4, 9)
    ]


# The data: the first reply is the best, the last one the worst


def comparison(k: int, seed: int = 0, lengths: tuple[int, ...] = ()) -> tuple[list[int], list[list[int]]]:
    """(tokens of the dialogue, tokens of each reply)."""
    generator = torch.Generator().manual_seed(seed)
    return random_ids(PREFIX, generator), [random_ids(n, generator) for n in lengths or [REPLY] * k]


def pair_rows(prompt: list[int], replies: list[list[int]]) -> list[dict[str, list[int]]]:
    """The same ranking as TRL takes it: every pair a row, dialogue and all."""
    pairs = itertools.combinations(replies, 2)
    return [{"chosen_ids": [*prompt, *better], "rejected_ids": [*prompt, *worse]} for better, worse in pairs]


# Ours


def ours(options: dict[str, Any]) -> Work:
    from rewardtrain import reward_training
    from rewardtrain.lora import trainable_parameters
    from rewardtrain.optimizer import adamw
    from rewardtrain.steps import update

    reward_model = our_reward_model(share_prefix=options["share_prefix"]).train()
    example = our_example(*comparison(options["k"]))
    settings = reward_training.RewardModelSettings()
    parameters = trainable_parameters(reward_model)
    optimizer = adamw(parameters, learning_rate=1e-4, weight_decay=0.0)

    def work() -> list[float]:
        seconds = []
        for step in range(STEPS):
            started = time.process_time()
            loss, _ = reward_training._backward(reward_model, [example], settings)
            update(optimizer, parameters, max_grad_norm=settings.max_grad_norm, loss=loss, step=step)
            seconds.append(time.process_time() - started)
        return seconds

    return work


def our_reward_model(*, share_prefix: bool = True, network: Any = None) -> Any:
    """Read at a reply's last token, as TRL's is, and without likelihoods."""
    from transformers import LlamaModel

    from rewardtrain.reward_model import HeadConfig, RewardModel

    torch.manual_seed(0)
    config = HeadConfig(
        pooling="last", is_causal=True, is_language_model=False, reads_likelihood=False, max_tokens=512,
        max_reply_tokens=128, tokens_per_forward=4096, share_prefix=share_prefix,
    )  # fmt: skip
    return RewardModel(network or LlamaModel(llama_config()), word_tokenizer(), config)


def our_example(prompt: list[int], replies: list[list[int]]) -> Any:
    from rewardtrain.losses import comparison_pairs
    from rewardtrain.reward_model import EncodedComparison
    from rewardtrain.reward_training import _Example

    return _Example(EncodedComparison(prompt, replies), comparison_pairs(range(1, len(replies) + 1)))


# TRL's


def trl(options: dict[str, Any]) -> Work:
    k = options["k"]
    rows = pair_rows(*comparison(k))
    clock: list[float] = []

    def work() -> list[float]:
        clock.clear()
        trl_trainer(rows * STEPS, accumulate=len(rows) // PAIRS_PER_FORWARD, clock=clock).train()
        return list(clock)

    return work


def trl_trainer(
    rows: list[dict[str, list[int]]], *, accumulate: int = 1, clock: list[float] | None = None, network: Any = None,
    per_forward: int = PAIRS_PER_FORWARD, now: Callable[[], float] = time.process_time, use_cpu: bool = True,
    bf16: bool = False,
) -> Any:  # fmt: skip
    """A RewardTrainer on these rows; the seconds of every step, by `now`, are put on the clock."""
    from datasets import Dataset
    from transformers import LlamaForSequenceClassification, TrainerCallback
    from trl import RewardConfig, RewardTrainer

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **more: Any) -> None:
            self.started = now()

        def on_step_end(self, *args: Any, **more: Any) -> None:
            if clock is not None:
                clock.append(now() - self.started)

    torch.manual_seed(0)
    config = RewardConfig(
        output_dir=tempfile.mkdtemp(), num_train_epochs=1, per_device_train_batch_size=per_forward,
        gradient_accumulation_steps=accumulate, max_length=None, use_cpu=use_cpu, bf16=bf16,
        activation_checkpointing=False, report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    return RewardTrainer(
        model=network or LlamaForSequenceClassification(llama_config(num_labels=1)),
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=word_tokenizer(),
        callbacks=[Clock()],
    )


# The same loss and the same gradients


def equality() -> str:
    """How far ours and TRL's are apart, in a sentence."""
    found = [differences(k) for k in (4, 9)]
    loss, gradients = (max(one[name] for one in found) for name in ("loss", "gradients"))
    return (
        "On replies of different lengths and the same weights, the two losses differ by "
        f"{f'at most {loss:.0e}' if loss else 'nothing'}, the\ngradients by at most {gradients:.0e} of the largest one."
    )


def differences(k: int = 4) -> dict[str, float]:
    """Ours against TRL's on one ranking of replies of different lengths, the same weights: how far they are apart.

    loss       absolute difference
    gradients  largest difference over the largest gradient
    """
    from transformers import LlamaForSequenceClassification

    from rewardtrain import reward_training

    prompt, replies = comparison(k, seed=1, lengths=tuple(range(20, 20 + 5 * k, 5)))
    torch.manual_seed(3)
    theirs = LlamaForSequenceClassification(llama_config(num_labels=1))
    own = our_reward_model(network=copy.deepcopy(theirs.model))
    with torch.no_grad():
        own.head.weight.copy_(theirs.score.weight)
    rows = pair_rows(prompt, replies)
    trainer = trl_trainer(rows, network=theirs)
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    loss.backward()
    own_loss, _ = reward_training._backward(own, [our_example(prompt, replies)], reward_training.RewardModelSettings())
    gradients = [(own.head.weight.grad, theirs.score.weight.grad)]
    gradients += [(a.grad, b.grad) for a, b in zip(own.network.parameters(), theirs.model.parameters(), strict=True)]
    largest = max(float(theirs_.abs().max()) for _, theirs_ in gradients)
    apart = max(float((ours_ - theirs_).abs().max()) for ours_, theirs_ in gradients)
    return {"loss": abs(float(loss.detach()) - own_loss), "gradients": apart / largest}
