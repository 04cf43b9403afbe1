"""Exports as others read them: datasets loads the folder, TRL trains on it, nothing changed in between."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from feedback.models import Comparison
from tests import make
from tests.feedback.sources import ORIGINALS, OURS, file_of, needs_originals, read_lines

datasets = pytest.importorskip("datasets", reason="what learning needs is not installed (requirements/learning.txt)")
pytestmark = [pytest.mark.django_db, pytest.mark.services]
COLUMNS = ["prompt", "chosen", "rejected", "margin"]


@pytest.fixture(autouse=True)
def offline_and_apart(settings, tmp_path, monkeypatch) -> None:
    settings.DATA_DIR = tmp_path / "kept"
    settings.DATA_DIR.mkdir()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def exported(tmp_path: Path, *sources: Path, file_format: str = "hh-rlhf") -> Path:
    if sources:
        arguments = [f"--format={file_format}", "--project=pairs"]
        call_command("import_feedback", *sources, *arguments, stdout=StringIO())
    out = tmp_path / "out"
    slug = "pairs" if sources else "plant-desk"
    call_command("export", f"--project={slug}", "--kind=preference", f"--out={out}", stdout=StringIO())
    return out


def load(*arguments: Any, tmp_path: Path, **options: Any) -> Any:
    return datasets.load_dataset(*arguments, cache_dir=str(tmp_path / "cache"), **options)


def test_datasets_loads_the_folder_as_the_card_says(tmp_path):
    out = exported(tmp_path, OURS / "hh_rlhf.jsonl")
    loaded = load(str(out), tmp_path=tmp_path)
    counts = json.loads((out / "manifest.json").read_text())["counts"]["splits"]
    assert {split: rows.num_rows for split, rows in loaded.items()} == {
        split: found["pairs"] for split, found in counts.items() if found["pairs"]
    }
    assert loaded["train"].column_names[:4] == COLUMNS


def test_parquet_and_jsonl_hold_the_same_rows(tmp_path):
    make.make_ranking(strength=2, flags={})
    make.make_ranking(comparison=make.make_comparison(text="Second"), all_bad=True)
    out = exported(tmp_path)
    parquet = load(str(out), tmp_path=tmp_path)["train"].to_list()
    lines = read_lines(out / "data" / "train-00000-of-00001.jsonl")
    assert parquet == lines
    assert len(lines) == 12
    assert load("json", data_files=str(out / "data" / "train-*.jsonl"), tmp_path=tmp_path)["train"].num_rows == 12


def test_the_rankings_load_as_they_are(tmp_path):
    make.make_ranking(strength=2)
    out = exported(tmp_path)
    rows = load("json", data_files=str(out / "rankings" / "train.jsonl"), tmp_path=tmp_path)["train"]
    assert rows[0]["rankings"][0]["ranks"] == [1, 2, 3, 4]


@needs_originals
@pytest.mark.slow
def test_the_original_files_go_in_and_out_whole(tmp_path):
    out = exported(tmp_path, ORIGINALS / "hh-rlhf" / "helpful-base" / "test.dev.jsonl.gz")
    loaded = load(str(out), tmp_path=tmp_path)
    assert sum(rows.num_rows for rows in loaded.values()) == 1241  # one of 1,242 pairs is equal, a tie
    openings = {split: {row[0]["content"] for row in rows["prompt"]} for split, rows in loaded.items()}
    assert not openings["train"] & (openings["test"] | openings["validation"])


@needs_originals
@pytest.mark.slow
def test_the_original_trees_give_a_row_for_every_pair_of_ranked_replies(tmp_path):
    out = exported(
        tmp_path, ORIGINALS / "open-assistant" / "en_100_tree.dev.jsonl.gz", file_format="open-assistant"
    )  # fmt: skip
    sizes = [one.candidates.count() for one in Comparison.objects.all()]
    # 39 sets of 2, 83 of 3, 20 of 4, 3 of 5, 4 of 6, 1 of 8: as the files' own description has it
    assert sum(size * (size - 1) // 2 for size in sizes) == 39 + 83 * 3 + 20 * 6 + 3 * 10 + 4 * 15 + 28
    assert sum(rows.num_rows for rows in load(str(out), tmp_path=tmp_path).values()) == 526


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file_format", "ours", "original"),
    [
        ("hh-rlhf", "hh_rlhf.jsonl", "hh-rlhf/helpful-base/test.dev.jsonl.gz"),
        ("open-assistant", "open_assistant_trees.jsonl", "open-assistant/en_100_tree.dev.jsonl.gz"),
    ],
)
def test_trls_reward_trainer_trains_on_the_rows_unchanged(tmp_path, file_format, ours, original):
    source = ORIGINALS / original if ORIGINALS.is_dir() else OURS / ours
    loaded = load(str(exported(tmp_path, source, file_format=file_format)), tmp_path=tmp_path)
    history = train_two_steps(loaded["train"], tmp_path)
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert len(losses) == 2
    assert all(0 < loss < 10 for loss in losses)


def train_two_steps(rows: Any, tmp_path: Path) -> list[dict[str, float]]:
    """The log of TRL's RewardTrainer on a tiny random network."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    from tests.rewardtrain.tiny import make_tokenizer

    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=262, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=512, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        num_labels=1,
    )  # fmt: skip
    settings = RewardConfig(
        output_dir=str(tmp_path / "trained"), max_steps=2, per_device_train_batch_size=4, logging_steps=1,
        max_length=512, report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True, bf16=False,
    )  # fmt: skip
    trainer = RewardTrainer(
        model=LlamaForSequenceClassification(shape), args=settings, train_dataset=rows,
        processing_class=make_tokenizer(),
    )  # fmt: skip
    trainer.train()
    return trainer.state.log_history


GSM8K = {"question": "How many legs have two hens?", "answer": "2 * 2 = <<2*2=4>>4\n#### 4"}


@pytest.mark.slow
def test_trls_sft_trainer_trains_on_imported_demonstrations_unchanged(tmp_path):
    source = ORIGINALS / "gsm8k" / "train.dev.jsonl.gz"
    if not ORIGINALS.is_dir():
        source = file_of(tmp_path, *(GSM8K | {"question": f"How many legs have {at} hens?"} for at in range(2, 40)))
    import_them = ["--format=gsm8k", "--project=sums", "--accepted"]
    call_command("import_feedback", source, *import_them, stdout=StringIO())
    out = tmp_path / "out"
    call_command("export", "--project=sums", "--kind=demonstrations", f"--out={out}", stdout=StringIO())
    rows = load(str(out), tmp_path=tmp_path)["train"]
    assert rows.column_names[:3] == ["messages", "prompt", "completion"]
    losses = [entry["loss"] for entry in imitate_two_steps(rows.select(range(16)), tmp_path) if "loss" in entry]
    assert len(losses) == 2
    assert all(0 < loss < 10 for loss in losses)


def imitate_two_steps(rows: Any, tmp_path: Path) -> list[dict[str, float]]:
    """The log of TRL's SFTTrainer on a tiny random network."""
    from trl import SFTConfig, SFTTrainer

    from tests.rewardtrain.tiny import make_llama, make_tokenizer

    settings = SFTConfig(
        output_dir=str(tmp_path / "trained"), max_steps=2, per_device_train_batch_size=4, logging_steps=1,
        max_length=512, report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True, bf16=False,
    )  # fmt: skip
    trainer = SFTTrainer(model=make_llama(), args=settings, train_dataset=rows, processing_class=make_tokenizer())
    trainer.train()
    return trainer.state.log_history
