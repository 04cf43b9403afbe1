"""Train the starter policy: `python -m rewardtrain.starter.train_starter --out FOLDER`.

Needs no network and no GPU: about twelve minutes on two cores. The same seed and number of steps make the same corpus
and the same order; the weights can differ in the last bits between machines.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rewardtrain.child_environment import trainer_environment
from rewardtrain.starter.corpus import dialogues
from rewardtrain.starter.tokenizer import Encoded, encode_dialogues, train_tokenizer

TOKENIZER_DIALOGUES = 20_000


@dataclass(frozen=True)
class StarterSettings:
    """How the starter is made.

    steps         optimiser steps, each over at most `batch_tokens` tokens, padding included
    minutes       stop after this long, whatever the steps; the learning rate falls with whichever runs out first
    most_tokens   a longer dialogue is cut at its end
    sorted_count  dialogues sorted by length together, so that a batch needs little padding
    sharpening    the logits are this much larger in the end (through the last norm's gain): so small a network leaves
                  some chance to tokens that make no sense, and everything here is sampled at temperature 1
    matrix_rate   Muon's learning rate for the matrices; `learning_rate` is AdamW's for embeddings and norms
    """

    seed: int = 0
    steps: int = 3000
    minutes: float = 60.0
    threads: int = 2
    batch_tokens: int = 1800
    most_tokens: int = 256
    sorted_count: int = 2048
    matrix_rate: float = 4e-3
    learning_rate: float = 3e-3
    final_rate: float = 0.02
    warm_up_steps: int = 60
    weight_decay: float = 0.05
    sharpening: float = 1.15
    hidden: int = 192
    layers: int = 4
    heads: int = 6
    inner: int = 512
    positions: int = 1024


@dataclass
class Training:
    """What a training came to."""

    network: Any
    steps: int
    tokens: int
    loss: float
    wall_seconds: float
    cpu_seconds: float


def batches(tokenizer: Any, settings: StarterSettings) -> Iterator[list[Encoded]]:
    """Batches of dialogues of like length without end, no dialogue twice."""
    rng = random.Random(f"batches {settings.seed}")
    source = dialogues(sys.maxsize, settings.seed)
    while True:
        encoded = encode_dialogues(tokenizer, list(islice(source, settings.sorted_count)))
        cut = [(ids[: settings.most_tokens], learned[: settings.most_tokens]) for ids, learned in encoded]
        chunks = list(_chunks(sorted(cut, key=lambda one: len(one[0])), settings.batch_tokens))
        rng.shuffle(chunks)
        yield from chunks


def _chunks(encoded: Sequence[Encoded], most_tokens: int) -> Iterator[list[Encoded]]:
    """Neighbours together, as many as fit when each is padded to the longest, which is the last."""
    chunk: list[Encoded] = []
    for one in encoded:
        if chunk and (len(chunk) + 1) * len(one[0]) > most_tokens:
            yield chunk
            chunk = []
        chunk.append(one)
    yield chunk


def new_network(tokenizer: Any, settings: StarterSettings) -> Any:
    """An untrained causal language model of 2.2 million parameters with the default settings."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(settings.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.hidden,
            intermediate_size=settings.inner,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            num_key_value_heads=settings.heads,
            max_position_embeddings=settings.positions,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def loss_of(network: Any, batch: Sequence[Encoded], pad_id: int) -> Any:
    """Mean cross-entropy in nats over the assistant's tokens of a batch, padded on the right."""
    import torch
    from torch.nn.functional import cross_entropy

    width = max(len(ids) for ids, _ in batch)
    ids = torch.tensor([ids + [pad_id] * (width - len(ids)) for ids, _ in batch])  # (B, T)
    learned = torch.tensor([flags + [False] * (width - len(flags)) for _, flags in batch])
    with torch.autocast("cpu", torch.bfloat16):
        # Causal attention never looks at the padding on the right, so no mask is needed.
        states = network.model(input_ids=ids, use_cache=False).last_hidden_state
        logits = network.lm_head(states[:, :-1][learned[:, 1:]])
    return cross_entropy(logits.float(), ids[:, 1:][learned[:, 1:]])


def train(tokenizer: Any, settings: StarterSettings) -> Training:
    """A network trained on fresh dialogues, each seen once."""
    import torch

    network = new_network(tokenizer, settings)
    network.set_attn_implementation("eager")  # half as fast again: torch's fused attention is slow backwards on a CPU
    optimizers = _optimizers(network, settings)
    source = batches(tokenizer, settings)
    started, cpu_started = time.monotonic(), time.process_time()
    step = tokens = 0
    smooth = 0.0
    with _progress() as bar:
        task = bar.add_task("training", total=settings.steps, loss=0.0)
        while (done := _done(step, started, settings)) < 1:
            batch = next(source)
            for optimizer, rate in optimizers:
                optimizer.param_groups[0]["lr"] = rate * _rate(step, done, settings)
            loss = loss_of(network, batch, tokenizer.pad_token_id)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            for optimizer, _ in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            step += 1
            tokens += sum(len(ids) for ids, _ in batch)
            smooth = loss.item() if step == 1 else 0.98 * smooth + 0.02 * loss.item()
            bar.update(task, completed=done * settings.steps, loss=smooth)
    return Training(network.eval(), step, tokens, smooth, time.monotonic() - started, time.process_time() - cpu_started)


def _optimizers(network: Any, settings: StarterSettings) -> list[tuple[Any, float]]:
    """(optimiser, its learning rate): Muon for the matrices, which halves the tokens needed, AdamW for the rest."""
    import torch

    named = dict(network.named_parameters())
    matrices = [one for name, one in named.items() if one.ndim == 2 and "embed" not in name]
    others = [one for name, one in named.items() if one.ndim != 2 or "embed" in name]
    muon = torch.optim.Muon(matrices, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0)
    return [(muon, settings.matrix_rate), (adam, settings.learning_rate)]


def _done(step: int, started: float, settings: StarterSettings) -> float:
    """The share of the training that is done, by steps or by the clock, whichever is further."""
    return max(step / settings.steps, (time.monotonic() - started) / (60 * settings.minutes))


def _rate(step: int, done: float, settings: StarterSettings) -> float:
    """The share of the learning rate to use: up over the first steps, then down in a line."""
    return min((step + 1) / settings.warm_up_steps, 1 - (1 - settings.final_rate) * done)


def _progress() -> Any:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%  loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        refresh_per_second=1,
    )


def save(network: Any, tokenizer: Any, folder: Path) -> None:
    """Write an ordinary Hugging Face folder, weights in half precision."""
    import torch
    from transformers import GenerationConfig

    folder.mkdir(parents=True, exist_ok=True)
    network.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=64,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    network.set_attn_implementation("sdpa")
    network.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    network.to(torch.float32)
    tokenizer.save_pretrained(folder)


def starter_tokenizer(seed: int, count: int = TOKENIZER_DIALOGUES) -> Any:
    """The tokenizer learned from dialogues of the corpus."""
    rng = random.Random(f"tokenizer {seed}")
    return train_tokenizer(turn["content"] for turns in dialogues(count, rng.randrange(2**32)) for turn in turns)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, save and measure; the measurement becomes the model card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--seed", type=int, default=StarterSettings.seed)
    parser.add_argument("--steps", type=int, default=StarterSettings.steps)
    parser.add_argument("--minutes", type=float, default=StarterSettings.minutes, help="stop after this long")
    parser.add_argument("--threads", type=int, default=StarterSettings.threads)
    options = parser.parse_args(arguments)
    settings = StarterSettings(seed=options.seed, steps=options.steps, minutes=options.minutes, threads=options.threads)
    import torch

    from rewardtrain.starter.measure_starter import write_card

    torch.set_num_threads(settings.threads)
    tokenizer = starter_tokenizer(settings.seed)
    training = train(tokenizer, settings)
    save(training.network, tokenizer, options.out)
    write_card(options.out, settings, training)


def _in_trainer_environment() -> None:
    """Start this module again with the environment torch must find when it is loaded, unless it has it."""
    if os.environ.get("MALLOC_TRIM_THRESHOLD_"):
        return
    os.nice(5)
    os.execve(  # noqa: S606
        sys.executable,
        [sys.executable, "-m", "rewardtrain.starter.train_starter", *sys.argv[1:]],
        trainer_environment(),
    )


if __name__ == "__main__":
    _in_trainer_environment()
    main()
