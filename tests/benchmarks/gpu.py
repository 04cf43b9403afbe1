"""On one CUDA device: tokens a second and memory of generation, reward-model steps and PPO updates, beside TRL's.

    make bench BENCH=gpu                              a Llama of 0.4 billion random weights
    python -m tests.benchmarks.gpu --size 1b          … of 1.2 billion

Every way runs in a process of its own, one after the other, in bfloat16: weights for generation, matrix products
(weights stay float32) for training. Tokens are those of the task, counted alike for both; the first turn warms up.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from tests.benchmarks import alternatives
from tests.benchmarks.bench_reward_model import comparison, our_example, our_reward_model, pair_rows, trl_trainer
from tests.benchmarks.contest import Contestant, Way, peak_mb
from tests.benchmarks.networks import llama_config, random_ids, word_tokenizer

HERE = "tests.benchmarks.gpu"
REPEATS = 3
SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 4, "vocab_size": 4096},
    "0.4b": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 24, "num_attention_heads": 16,
             "num_key_value_heads": 16, "vocab_size": 32_000},
    "1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 16,
           "num_key_value_heads": 16, "vocab_size": 32_000},
}  # fmt: skip
TASKS: dict[str, dict[str, int]] = {
    "tiny": {"dialogues": 2, "prompt": 12, "new": 4, "replies": 3, "samples": 4, "minibatch": 2},
    "0.4b": {"dialogues": 16, "prompt": 256, "new": 128, "replies": 4, "samples": 64, "minibatch": 16},
    "1b": {"dialogues": 16, "prompt": 256, "new": 128, "replies": 4, "samples": 64, "minibatch": 16},
}
Measured = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=[name for name in SIZES if name != "tiny"], default="0.4b")
    parser.add_argument("--device", default="cuda")
    report(parser.parse_args().size, parser.parse_args().device)


def report(size: str = "0.4b", device: str = "cuda") -> None:
    """Measure every way and print a table; ends the program where there is no CUDA device."""
    if not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} finds no CUDA device here, so nothing was measured.")
    say(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}; Llama {size}: {SIZES[size]}, {TASKS[size]}")
    for title, ways in contests(size, device).items():
        say(f"\n## {title}\n\n| | tokens a second | memory |\n|---|---:|---:|")
        for way in ways:
            found = ask(way)
            say(f"| {way.name} | {found['tokens_per_second']:,.0f} | {found['peak_mb']:,.0f} MB |")


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def contests(size: str, device: str) -> dict[str, list[Way]]:
    """By title what is compared, each in a process of its own."""
    given = {"size": size, "device": device}
    return {
        "Generation: several replies to each dialogue": [
            Way("Nestbox", f"{HERE}:our_generation", given),
            Way("transformers generate", f"{HERE}:their_generation", given),
        ],
        "Reward model: one comparison a step": [
            Way("Nestbox", f"{HERE}:our_reward_step", given),
            Way("Nestbox, layers computed twice", f"{HERE}:our_reward_step", given | {"gradient_checkpointing": True}),
            Way("TRL 1.16 RewardTrainer, every pair", f"{HERE}:their_reward_step", given),
        ],
        "PPO: one update": [
            Way("Nestbox", f"{HERE}:our_ppo", given),
            Way("Nestbox, layers computed twice", f"{HERE}:our_ppo", given | {"gradient_checkpointing": True}),
            Way("TRL 1.12 PPOTrainer", f"{HERE}:their_ppo", given, python=alternatives.python("trl==1.12.0")),
        ],
    }


def ask(way: Way) -> Measured:
    """What a process of its own answers."""
    contestant = Contestant(way)
    try:
        return contestant.ask("work")
    finally:
        contestant.close()


# In the process of each way. Options: size, device, and what differs


def measured(device: str, work: Callable[[], int]) -> Measured:
    """Tokens a second of `work`, which gives how many it did, and the most memory that models and work took."""
    work()
    started, tokens = now(device), 0
    for _ in range(REPEATS):
        tokens += work()
    return {"tokens_per_second": tokens / (now(device) - started), "peak_mb": memory_mb(device)}


def now(device: str) -> float:
    """The clock, once the device has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def memory_mb(device: str) -> float:
    """The most that tensors took on the device; without a GPU the process as a whole."""
    return torch.cuda.max_memory_allocated(device) / 1e6 if torch.device(device).type == "cuda" else peak_mb()


def causal_lm(options: dict[str, Any]) -> Any:
    """A network on the device that never ends a reply, so that all ways draw equally many tokens."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    made = LlamaForCausalLM(llama_config(**SIZES[options["size"]], eos_token_id=None)).eval()
    made.generation_config.eos_token_id = None
    return made.to(options["device"])


def endless_tokenizer() -> Any:
    tokenizer = word_tokenizer()
    tokenizer.eos_token = None
    return tokenizer


def dialogues(count: int, length: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [random_ids(length, generator) for _ in range(count)]


def our_generation(options: dict[str, Any]) -> Callable[[], Measured]:
    from rewardtrain.chat import EncodedPrompt
    from rewardtrain.policy import Policy
    from rewardtrain.sampling import SamplingSettings, sample_replies

    task, tokenizer = TASKS[options["size"]], endless_tokenizer()
    policy = Policy(causal_lm(options).bfloat16(), tokenizer).eval()
    rows = [EncodedPrompt(ids) for ids in dialogues(task["dialogues"], task["prompt"]) for _ in range(task["replies"])]
    settings = SamplingSettings(max_new_tokens=task["new"])

    def work() -> int:
        drawn = sample_replies(policy, tokenizer, rows, settings=settings, seeds=range(len(rows)))
        return sum(len(reply.token_ids) for reply in drawn)

    return lambda: measured(options["device"], work)


def their_generation(options: dict[str, Any]) -> Callable[[], Measured]:
    task, network = TASKS[options["size"]], causal_lm(options).bfloat16()
    ids = torch.tensor(dialogues(task["dialogues"], task["prompt"]), device=options["device"])

    def work() -> int:
        out = network.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0, max_new_tokens=task["new"],
            num_return_sequences=task["replies"], pad_token_id=0,
        )  # fmt: skip
        return int(out.shape[0] * (out.shape[1] - ids.shape[1]))

    return lambda: measured(options["device"], work)


def our_reward_step(options: dict[str, Any]) -> Callable[[], Measured]:
    from transformers import LlamaModel

    from rewardtrain import reward_training
    from rewardtrain.lora import trainable_parameters
    from rewardtrain.steps import update

    torch.manual_seed(0)
    network = LlamaModel(llama_config(**SIZES[options["size"]])).to(options["device"])
    reward_model = our_reward_model(network=network).train()
    prompt, replies, tokens = ranked(options)
    settings = reward_training.RewardModelSettings(
        device=options["device"], mixed_precision="bfloat16",
        gradient_checkpointing=options.get("gradient_checkpointing", False),
    )  # fmt: skip
    parameters = trainable_parameters(reward_model)
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)

    def work() -> int:
        loss, _ = reward_training._backward(reward_model, [our_example(prompt, replies)], settings)
        update(optimizer, parameters, max_grad_norm=settings.max_grad_norm, loss=loss, step=0)
        return tokens

    return lambda: measured(options["device"], work)


def ranked(options: dict[str, Any]) -> tuple[list[int], list[list[int]], int]:
    """(dialogue, its replies, how many tokens that is)."""
    task = TASKS[options["size"]]
    prompt, replies = comparison(task["replies"], lengths=(task["new"],) * task["replies"])
    prompt = prompt[: task["prompt"]]
    return prompt, replies, len(prompt) + sum(map(len, replies))


def their_reward_step(options: dict[str, Any]) -> Callable[[], Measured]:
    from transformers import LlamaForSequenceClassification

    prompt, replies, tokens = ranked(options)
    rows = pair_rows(prompt, replies)
    torch.manual_seed(0)
    network = LlamaForSequenceClassification(llama_config(**SIZES[options["size"]], num_labels=1))
    on_cpu = torch.device(options["device"]).type == "cpu"
    clock: list[float] = []
    trainer = trl_trainer(
        rows * (REPEATS + 1), network=network.to(options["device"]), clock=clock, per_forward=len(rows),
        now=lambda: now(options["device"]), use_cpu=on_cpu, bf16=True,
    )  # fmt: skip

    def work() -> Measured:
        trainer.train()
        return {"tokens_per_second": tokens * REPEATS / sum(clock[1:]), "peak_mb": memory_mb(options["device"])}

    return work


def our_ppo(options: dict[str, Any]) -> Callable[[], Measured]:
    from transformers import LlamaModel

    from rewardtrain import ppo
    from rewardtrain.hyperparameters import PpoSettings, SamplingSettings
    from rewardtrain.policy import PolicyWithValue, reference_policy
    from rewardtrain.rollouts import WeightedReward

    task, device = TASKS[options["size"]], options["device"]
    policy = PolicyWithValue(causal_lm(options), endless_tokenizer())
    ref_policy = reference_policy(policy)
    scorer = our_reward_model(network=LlamaModel(llama_config(**SIZES[options["size"]])).to(device)).eval()
    settings = PpoSettings(
        updates=REPEATS + 1, samples_per_update=task["samples"], passes=1, minibatch_size=task["minibatch"],
        tokens_per_forward=task["minibatch"] * (task["prompt"] + task["new"]), pass_kl_limit=1e9, learning_rate=1e-6,
        collapse_distinct_rate=0.0, device=device, mixed_precision="bfloat16",
        gradient_checkpointing=options.get("gradient_checkpointing", False),
        sampling=SamplingSettings(max_new_tokens=task["new"]),
    )  # fmt: skip
    asked = [
        [{"role": "user", "content": policy.tokenizer.decode(ids)}]
        for ids in dialogues(task["samples"], task["prompt"] - 2)
    ]

    def work() -> Measured:
        clock: list[float] = []
        ppo.train_policy(
            asked, policy=policy, ref_policy=ref_policy, settings=settings,
            rewards=[WeightedReward("preference", 1.0, scorer.scores, by_token=scorer.token_scores)],
            on_step=lambda step: clock.append(now(device)),
        )  # fmt: skip
        return of_updates(clock, options)

    return work


def of_updates(clock: list[float], options: dict[str, Any]) -> Measured:
    """From when each update ended; the first one warmed up."""
    task = TASKS[options["size"]]
    tokens = task["samples"] * (task["prompt"] + task["new"]) * (len(clock) - 1)
    return {"tokens_per_second": tokens / (clock[-1] - clock[0]), "peak_mb": memory_mb(options["device"])}


def their_ppo(options: dict[str, Any]) -> Callable[[], Measured]:
    import tempfile

    from datasets import Dataset
    from transformers import LlamaForSequenceClassification, TrainerCallback
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    task, size = TASKS[options["size"]], SIZES[options["size"]]
    on_cpu = torch.device(options["device"]).type == "cpu"
    tokenizer = word_tokenizer()
    tokenizer.padding_side = "left"
    reward_model, value_model = (
        LlamaForSequenceClassification(llama_config(**size, num_labels=1)).to(options["device"]) for _ in range(2)
    )
    rows = [{"input_ids": [2, *ids, 3]} for ids in dialogues(task["samples"], task["prompt"] - 2)]
    clock: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **more: Any) -> None:
            clock.append(now(options["device"]))

    config = PPOConfig(
        output_dir=tempfile.mkdtemp(), total_episodes=task["samples"] * (REPEATS + 1), use_cpu=on_cpu, bf16=True,
        per_device_train_batch_size=task["samples"], gradient_accumulation_steps=1, num_ppo_epochs=1,
        num_mini_batches=task["samples"] // task["minibatch"], response_length=task["new"], temperature=1.0,
        local_rollout_forward_batch_size=task["samples"], num_sample_generations=0, gradient_checkpointing=False,
        report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip

    def work() -> Measured:
        PPOTrainer(
            args=config, processing_class=tokenizer, model=causal_lm(options), ref_model=causal_lm(options),
            reward_model=reward_model, value_model=value_model, train_dataset=Dataset.from_list(rows),
            callbacks=[Clock()],
        ).train()  # fmt: skip
        return of_updates(clock, options)

    return work


if __name__ == "__main__":
    main()
