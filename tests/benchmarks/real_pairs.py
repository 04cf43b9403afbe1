"""How far reward models get on real pairs: ours, TRL's on the same encoder, a bag of words, and the longer reply.

Folds are made by opening, so no dialogue is learned from in one turn and asked about in another. Each method trains on
four folds and is asked about the fifth; every pair is asked about once. The answers go to a file as they come, and a
study that was stopped goes on where it was:

    python -m tests.benchmarks.real_pairs answer --method ours --base ENCODER --out pairs.jsonl FILE...
    python -m tests.benchmarks.real_pairs answer --method trl --base ENCODER --out pairs.jsonl FILE...
    python -m tests.benchmarks.real_pairs report --out pairs.jsonl

FILE is in the format of hh-rlhf, plain or gzip. Several methods may write to the same file at the same time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from rewardtrain.hyperparameters import MIXED_PRECISIONS

METHODS = ("length", "words", "trl", "ours")
NAMES = {
    "length": "the longer reply wins",
    "words": "a bag of words",
    "trl": "TRL RewardTrainer",
    "ours": "Nestbox",
}
EPOCHS, LEARNING_RATE = 1, 1e-4  # the rate is TRL's default; neither was searched for
PAIRS_PER_STEP, MAX_TOKENS, MAX_REPLY_TOKENS = 16, 160, 112
WEIGHT_DECAYS = (0.1, 1.0, 10.0)
RESAMPLES = 10_000


@dataclass(frozen=True)
class Pair:
    """Two replies to one dialogue of which a person preferred the first; turns as Nestbox has them."""

    key: str
    opening: str
    prompt: list[dict[str, str]]
    chosen: list[dict[str, str]]
    rejected: list[dict[str, str]]

    @property
    def lengths(self) -> tuple[int, int]:
        """Characters of the preferred reply and of the other one."""
        return _characters(self.chosen), _characters(self.rejected)


@dataclass(frozen=True)
class Answer:
    """What one method said of one pair: its scores of the preferred reply and of the other one."""

    key: str
    chosen: float
    rejected: float

    @property
    def credit(self) -> float:
        return 0.5 if self.chosen == self.rejected else float(self.chosen > self.rejected)


Learner = Callable[[Sequence[Pair], Sequence[Pair], argparse.Namespace], list[Answer]]


def _characters(turns: Iterable[dict[str, str]]) -> int:
    return sum(len(turn["content"]) for turn in turns)


# Pairs and folds


def read_pairs(paths: Iterable[Path]) -> list[Pair]:
    """The pairs of hh-rlhf files that say something: ties and pairs without a shared opening are left out."""
    from feedback.imports import hh_rlhf
    from feedback.imports.reading import Lines, Problems
    from feedback.prompts import fingerprint

    pairs = []
    for path in paths:
        problems = Problems(path.name)
        for dialogue in hh_rlhf.read(Lines(path, problems), problems):
            better, worse = dialogue.candidates
            if better.rank == worse.rank or not dialogue.opening():
                continue
            key = f"{path.parent.name}/{path.name} {dialogue.key}"
            pairs.append(Pair(key, fingerprint(dialogue.turns), dialogue.turns, better.turns, worse.turns))
        problems.raise_if_any()
    return pairs


def fold_of(pair: Pair, folds: int) -> int:
    """Which fold a pair is in: decided by its opening alone."""
    return int.from_bytes(hashlib.sha256(pair.opening.encode()).digest()[:8], "big") % folds


# Methods: each takes (pairs to learn from, pairs to answer about, settings)


def answer_by_length(learned: Sequence[Pair], asked: Sequence[Pair], options: argparse.Namespace) -> list[Answer]:
    """The longer reply wins; nothing is learned."""
    return [Answer(pair.key, *map(float, pair.lengths)) for pair in asked]


def answer_by_words(learned: Sequence[Pair], asked: Sequence[Pair], options: argparse.Namespace) -> list[Answer]:
    """A linear score over log-counts of words and pairs of words in the reply.

    How much the weights are held back is chosen on a fifth of the pairs to learn from, again by opening.
    """
    inner = [pair for pair in learned if fold_of(pair, 7)]
    kept_out = [pair for pair in learned if not fold_of(pair, 7)]

    def found(decay: float) -> float:
        return sum(one.credit for one in _words(inner, kept_out, decay))

    return _words(learned, asked, max(WEIGHT_DECAYS, key=found))


def _words(learned: Sequence[Pair], asked: Sequence[Pair], decay: float) -> list[Answer]:
    seen = Counter(word for pair in learned for turns in (pair.chosen, pair.rejected) for word in set(_terms(turns)))
    places = {word: place for place, (word, count) in enumerate(seen.most_common(20_000)) if count > 2}
    differences = _counted(learned, "chosen", places) - _counted(learned, "rejected", places)
    weights = torch.zeros(len(places), requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.softplus(-(differences @ weights)).sum() + decay / 2 * weights.square().sum()
        loss.backward()
        return float(loss.detach())

    optimizer.step(closure)
    solved = weights.detach()
    scores = [(_counted(asked, side, places) @ solved).tolist() for side in ("chosen", "rejected")]
    return [Answer(pair.key, *own) for pair, *own in zip(asked, *scores, strict=True)]


def _terms(turns: Iterable[dict[str, str]]) -> list[str]:
    words = " ".join(turn["content"].lower() for turn in turns).replace("\n", " ").split()
    return words + [f"{one} {other}" for one, other in zip(words, words[1:], strict=False)]


def _counted(pairs: Sequence[Pair], side: str, places: dict[str, int]) -> torch.Tensor:
    """(pairs, words) logarithms of one plus each word's count."""
    rows = torch.zeros(len(pairs), len(places))
    for row, pair in zip(rows, pairs, strict=True):
        for word, count in Counter(_terms(getattr(pair, side))).items():
            if word in places:
                row[places[word]] = math.log1p(count)
    return rows


def answer_by_ours(learned: Sequence[Pair], asked: Sequence[Pair], options: argparse.Namespace) -> list[Answer]:
    """What `manage.py train_reward_model --base` does, on these pairs."""
    from rewardtrain.reward_training import score_pairs, train_reward_model

    settings = _our_settings(options)
    trained = train_reward_model(
        [_as_comparison(pair) for pair in learned],
        base=options.base,
        settings=settings,
        on_step=lambda step: _say(options, step.step, step.steps, step.loss),
    )
    scored = score_pairs(trained.reward_model, [_as_comparison(pair) for pair in asked])
    return [Answer(pair.key, one.chosen_score, one.rejected_score) for pair, one in zip(asked, scored, strict=True)]


def _our_settings(options: argparse.Namespace) -> Any:
    from rewardtrain.hyperparameters import RewardModelSettings

    return RewardModelSettings(
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        comparisons_per_step=PAIRS_PER_STEP,
        max_tokens=MAX_TOKENS,
        max_reply_tokens=MAX_REPLY_TOKENS,
        mixed_precision=options.mixed_precision,
        seed=options.seed,
    )


def _as_comparison(pair: Pair) -> Any:
    from rewardtrain.chat import as_turns
    from rewardtrain.reward_training import RankedComparison

    return RankedComparison(as_turns(pair.prompt), [as_turns(pair.chosen), as_turns(pair.rejected)], [1, 2])


def answer_by_trl(learned: Sequence[Pair], asked: Sequence[Pair], options: argparse.Namespace) -> list[Answer]:
    """TRL's RewardTrainer: the same tokens, epochs, pairs a step, rate and schedule; the rest are its defaults."""
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    from rewardtrain.reward_model import RewardModel

    encoder = RewardModel.from_base(options.base, _our_settings(options))
    torch.manual_seed(options.seed)
    model = AutoModelForSequenceClassification.from_pretrained(options.base, num_labels=1)
    with tempfile.TemporaryDirectory() as folder:
        config = RewardConfig(
            output_dir=folder, num_train_epochs=options.epochs, per_device_train_batch_size=PAIRS_PER_STEP,
            learning_rate=options.learning_rate, lr_scheduler_type="cosine", warmup_steps=0.05, weight_decay=0.01,
            max_length=None, use_cpu=True, bf16=options.mixed_precision == "bfloat16", activation_checkpointing=False,
            report_to=[], save_strategy="no", logging_steps=10_000, disable_tqdm=True, seed=options.seed,
        )  # fmt: skip
        rows = Dataset.from_list([_token_rows(encoder, pair) for pair in learned])
        trainer = RewardTrainer(model=model, args=config, train_dataset=rows, processing_class=encoder.tokenizer)
        trainer.train()
    model.eval()
    return [_ask(model, encoder, pair) for pair in asked]


def _token_rows(encoder: Any, pair: Pair) -> dict[str, list[int]]:
    """Both replies behind their dialogue, cut and marked as our reward model does it."""
    encoded = encoder.encode(pair.prompt, [pair.chosen, pair.rejected])
    first, last = encoder.tokenizer.cls_token_id, encoder.tokenizer.sep_token_id
    chosen, rejected = ([first, *encoded.prompt, *reply, last] for reply in encoded.replies)
    return {"chosen_ids": chosen, "rejected_ids": rejected}


@torch.no_grad()
def _ask(model: Any, encoder: Any, pair: Pair) -> Answer:
    rows = _token_rows(encoder, pair)
    scores = [float(model(input_ids=torch.tensor([rows[side]])).logits) for side in ("chosen_ids", "rejected_ids")]
    return Answer(pair.key, *scores)


def _say(options: argparse.Namespace, step: int, steps: int, loss: float) -> None:
    if step % 20 == 0 or step == steps:
        print(f"{options.method}: step {step} of {steps}, loss {loss:.3f}", file=sys.stderr, flush=True)  # noqa: T201


LEARNERS: dict[str, Learner] = {
    "length": answer_by_length, "words": answer_by_words, "trl": answer_by_trl, "ours": answer_by_ours,
}  # fmt: skip


# The study


def answer_folds(pairs: Sequence[Pair], options: argparse.Namespace) -> None:
    """Answer about every fold this method has not answered yet; each fold's answers are written at once."""
    done = {(one["method"], one["fold"]) for one in _read(options.out)}
    for fold in range(options.folds):
        if (options.method, fold) in done or (options.only is not None and fold != options.only):
            continue
        asked = [pair for pair in pairs if fold_of(pair, options.folds) == fold]
        learned = [pair for pair in pairs if fold_of(pair, options.folds) != fold]
        random.seed(options.seed)
        started = time.process_time()
        answers = LEARNERS[options.method](learned, asked, options)
        seconds = time.process_time() - started
        lengths = {pair.key: pair.lengths for pair in asked}
        line = {
            "method": options.method,
            "fold": fold,
            "cpu_seconds": seconds,
            "answers": [[one.key, one.chosen, one.rejected, *lengths[one.key]] for one in answers],
        }
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        share = sum(one.credit for one in answers) / len(answers)
        print(f"{options.method}, fold {fold}: {share:.1%} of {len(answers)} pairs, {seconds:.0f} s", flush=True)  # noqa: T201


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def report(path: Path) -> dict[str, Any]:
    """Accuracy of each method over all pairs and over the half most alike in length, and how far ours is ahead."""
    credits: dict[str, dict[str, float]] = defaultdict(dict)
    seconds: Counter[str] = Counter()
    differences: dict[str, int] = {}
    for line in _read(path):
        seconds[line["method"]] += line["cpu_seconds"]
        for key, chosen, rejected, long, short in line["answers"]:
            credits[line["method"]][key] = Answer(key, chosen, rejected).credit
            differences[key] = abs(long - short)
    keys = sorted(set.intersection(*(set(own) for own in credits.values())), key=lambda key: (differences[key], key))
    parts = {"all": keys, "most_alike_in_length": keys[: len(keys) // 2]}
    return {
        part: {
            method: {
                "pairs": len(chosen),
                **_share([credits[method][key] for key in chosen]),
                "cpu_seconds": round(seconds[method]),
                "ours_ahead_by": _ahead(credits["ours"], credits[method], chosen) if "ours" in credits else None,
            }
            for method in METHODS
            if method in credits
        }
        for part, chosen in parts.items()
    }


def _share(credit: Sequence[float]) -> dict[str, Any]:
    from feedback.agreement import wilson_interval

    low, high = wilson_interval(sum(credit), len(credit))
    return {"pair_accuracy": round(sum(credit) / len(credit), 4), "interval": [round(low, 4), round(high, 4)]}


def _ahead(ours: dict[str, float], theirs: dict[str, float], keys: Sequence[str]) -> list[float]:
    """[difference, lower end, upper end]: a paired bootstrap over pairs, 95 %."""
    gaps = torch.tensor([ours[key] - theirs[key] for key in keys], dtype=torch.float64)
    draws = torch.randint(len(gaps), (RESAMPLES, len(gaps)), generator=torch.Generator().manual_seed(0))
    means = gaps[draws].mean(dim=1)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return [round(float(gaps.mean()), 4), round(low, 4), round(high, 4)]


def show(found: dict[str, Any]) -> None:
    for part, methods in found.items():
        table = Table(title=part.replace("_", " "))
        for column in ("method", "pairs", "accuracy", "95 %", "Nestbox ahead by", "CPU s"):
            table.add_column(column)
        for method, own in methods.items():
            low, high = own["interval"]
            ahead = own["ours_ahead_by"]
            gap = f"{ahead[0]:+.1%} ({ahead[1]:+.1%} to {ahead[2]:+.1%})" if ahead and method != "ours" else ""
            table.add_row(
                NAMES[method], str(own["pairs"]), f"{own['pair_accuracy']:.1%}", f"{low:.1%} to {high:.1%}", gap,
                str(own["cpu_seconds"]),
            )  # fmt: skip
        Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["answer", "report"])
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--out", type=Path, required=True, help="where answers are kept, one line per method and fold")
    parser.add_argument("--method", choices=METHODS)
    parser.add_argument("--base", type=Path, help="folder of the encoder that ours and TRL's start from")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--only", type=int, help="this fold alone")
    parser.add_argument("--epochs", type=float, default=EPOCHS)
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    parser.add_argument("--mixed-precision", choices=MIXED_PRECISIONS, default="off", help="of ours and trl")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    if options.action == "report":
        show(report(options.out))
        return
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.base")
    django.setup()
    if not options.files or options.method is None or (options.method in ("ours", "trl") and options.base is None):
        parser.error("answer needs --method, FILE, and for ours and trl --base")
    answer_folds(read_pairs(options.files), options)


if __name__ == "__main__":
    main()
