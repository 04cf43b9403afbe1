"""What PPO's four roles take in memory: on one frozen base, with a reward network of their own, or each trained whole.

The base is a Llama of 187 million random weights in float32. Each way is a process of its own that loads its models,
makes two whole updates and says the most memory it ever had, less what it had once its libraries were imported.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rewardtrain.hyperparameters import LoraSettings, PpoSettings, SamplingSettings
from tests.benchmarks.contest import Contest, Contestant, Way, peak_mb
from tests.benchmarks.networks import llama_config, random_ids, word_tokenizer

PROMPT, NEW = 48, 32
SAMPLES, MINIBATCH = 16, 8
LORA = LoraSettings(rank=8)
BOUND = 1.4
MEASURE = "one step"
OWN_MAPPINGS = {"MALLOC_MMAP_THRESHOLD_": "131072"}
HERE = "tests.benchmarks.bench_lora"


def contests() -> list[Contest]:
    return []


def table(on_progress: Callable[[], object] = lambda: None) -> str:
    """The section for docs/benchmarks.md."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        ask("prepared", {"folder": folder})
        for name, function, options in ways():
            found[name] = ask(function, {"folder": folder, **options})
            on_progress()
    return section(found)


def section(found: dict[str, dict[str, float]]) -> str:
    """The figures in Markdown; those of MEASURE say what the others are compared with."""
    step = found[MEASURE]
    whole = step["weights_mb"] + step["activations_mb"]
    millions, base, activations = step["weights_mb"] / 4, step["weights_mb"], step["activations_mb"]
    lines = [
        f"## PPO's four roles in memory, on a base of {millions:.0f} million weights in float32",
        "",
        f"The base takes {base:.0f} MB and the activations of one training step on it, forward and backward",
        f"(LoRA, {MINIBATCH} rows of {PROMPT} + {NEW} tokens), {activations:.0f} MB: together {whole:.0f} MB.",
        "Peaks are those of whole runs from loading on, above what the imported libraries take, with",
        f"`{'='.join(*OWN_MAPPINGS.items())}`, so that what was freed is not counted.",
        "",
        "| | peak | times base + activations | CPU s an update |",
        "|---|---:|---:|---:|",
    ]
    for name, own in found.items():
        if name != MEASURE:
            times = own["peak_mb"] / whole
            lines.append(f"| {name} | {own['peak_mb']:.0f} MB | {times:.2f} | {own['seconds']:.0f} |")
    return "\n".join([*lines, "", f"The first is meant to stay within {BOUND} times.", ""])


def ways() -> list[tuple[str, str, dict[str, Any]]]:
    """(name, function, options) of every process, the measure first."""
    return [
        (MEASURE, "one_step", {}),
        ("LoRA: four roles on one base", "run", {"reward": "adapter"}),
        ("LoRA, its layers recomputed", "run", {"reward": "adapter", "gradient_checkpointing": True}),
        ("LoRA, a reward network of its own", "run", {"reward": "whole"}),
        ("every weight trained, reference and reward of their own", "run", {"reward": "whole", "rank": 0}),
    ]


def ask(function: str, options: dict[str, Any]) -> dict[str, float]:
    """What a process of its own answers."""
    contestant = Contestant(Way(function, f"{HERE}:{function}", options, environment=OWN_MAPPINGS))
    try:
        return contestant.ask("work")
    finally:
        contestant.close()


# In the process of each way


def prepared(options: dict[str, Any]) -> Callable[[], dict[str, float]]:
    """Save a base, and reward models on it: an adapter, and one of whole weights."""

    def work() -> dict[str, float]:
        from transformers import LlamaForCausalLM

        from rewardtrain.hyperparameters import RewardModelSettings
        from rewardtrain.reward_model import RewardModel

        root = Path(options["folder"])
        torch.manual_seed(0)
        network = LlamaForCausalLM(llama_config(**size(), eos_token_id=None))
        network.generation_config.eos_token_id = None
        network.save_pretrained(root / "base")
        word_tokenizer().save_pretrained(root / "base")
        for name, lora in {"adapter": LORA, "whole": LoraSettings()}.items():
            (root / name).mkdir()
            RewardModel.from_base(root / "base", RewardModelSettings(lora=lora)).save(root / name)
        return {}

    return work


def size() -> dict[str, int]:
    return {
        "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 12, "num_attention_heads": 16,
        "num_key_value_heads": 16, "vocab_size": 32_000,
    }  # fmt: skip


def one_step(options: dict[str, Any]) -> Callable[[], dict[str, float]]:
    """The measure: a base with an adapter, forward and backward once over a minibatch."""

    def work() -> dict[str, float]:
        from rewardtrain.policy import load_policy_with_value

        policy = load_policy_with_value(Path(options["folder"]) / "base", lora=LORA)
        rows, replies = (
            [random_ids(n, torch.Generator().manual_seed(n)) for _ in range(MINIBATCH)] for n in (PROMPT, NEW)
        )
        gc.collect()
        forget_peak()
        before = peak_mb()
        found = policy.evaluate_replies(rows, replies, list(range(MINIBATCH)))
        assert found.values is not None
        (found.logprobs.sum() + found.values.sum()).backward()
        activations = peak_mb() - before
        weights = sum(one.numel() * one.element_size() for name, one in policy.named_parameters() if "lora" not in name)
        return {"weights_mb": weights / 1e6, "activations_mb": activations}

    return work


def run(options: dict[str, Any]) -> Callable[[], dict[str, float]]:
    """A PPO run with all four roles, from loading on."""
    import_everything()
    imported = peak_mb()

    def work() -> dict[str, float]:
        from rewardtrain import ppo
        from rewardtrain.policy import load_policy_with_value, reference_policy
        from rewardtrain.rollouts import WeightedReward
        from rewardtrain.shared_base import reward_beside

        base, folder = Path(options["folder"]) / "base", Path(options["folder"]) / options["reward"]
        lora = LoraSettings(rank=options.get("rank", LORA.rank))
        settings = PpoSettings(
            updates=2, samples_per_update=SAMPLES, passes=1, minibatch_size=MINIBATCH, pass_kl_limit=1e9,
            tokens_per_forward=MINIBATCH * (PROMPT + NEW), lora=lora, learning_rate=1e-5, malformed_penalty=0.0,
            collapse_distinct_rate=0.0, gradient_checkpointing=options.get("gradient_checkpointing", False),
            sampling=SamplingSettings(max_new_tokens=NEW),
        )  # fmt: skip
        policy = load_policy_with_value(base, lora=lora)
        policy.tokenizer.eos_token = None
        ref_policy = reference_policy(policy)
        scorer = reward_beside(policy, base, folder)
        words = [random_ids(PROMPT - 2, torch.Generator().manual_seed(number)) for number in range(SAMPLES)]
        asked = [[{"role": "user", "content": policy.tokenizer.decode(ids)}] for ids in words]
        started = time.process_time()
        ppo.train_policy(
            asked, policy=policy, ref_policy=ref_policy, settings=settings,
            rewards=[WeightedReward("preference", 1.0, scorer.scores, by_token=scorer.token_scores)],
        )  # fmt: skip
        seconds = (time.process_time() - started) / settings.updates
        return {"peak_mb": peak_mb() - imported, "seconds": seconds}

    return work


def import_everything() -> None:
    """Load what a run needs, so that only models and work are counted."""
    import peft  # noqa: F401
    from transformers import LlamaForCausalLM  # noqa: F401

    from rewardtrain import ppo, shared_base  # noqa: F401


def forget_peak() -> None:
    """Count the most memory of this process from here on; Linux can, elsewhere the figure is too low."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
