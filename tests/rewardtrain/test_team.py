"""Two processes that train together end with the same weights as each other, and as one alone but for last digits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from rewardtrain.hyperparameters import InvalidSettings
from rewardtrain.team import ALONE, Team, _buckets, join
from tests.rewardtrain.tiny import make_llama, make_tokenizer, save_base

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("bases") / "llama", make_llama(), make_tokenizer())


def train(kind: str, base: Path, where: Path, *, processes: int, states: str) -> list[dict[str, Any]]:
    """What each process ended with."""
    out = where / f"{states}-{processes}"
    out.mkdir(parents=True)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    command = [sys.executable, *(launcher if processes > 1 else ["-m"]), "tests.rewardtrain.team_training"]
    ran = subprocess.run(
        [*command, kind, str(base), str(where / states), str(out)],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    return [json.loads((out / f"{rank}-of-{processes}.json").read_text()) for rank in range(processes)]


def numbers(step: dict[str, Any]) -> dict[str, float]:
    """A step's figures, those of its parts too."""
    flat = {**step, **step.get("terms", {})}
    return {name: value for name, value in flat.items() if isinstance(value, int | float)}


@pytest.mark.parametrize("kind", ["reward model", "policy"])
def test_two_processes_learn_what_one_learns(kind: str, base: Path, tmp_path: Path) -> None:
    (alone,) = train(kind, base, tmp_path, processes=1, states="alone")
    first, second = train(kind, base, tmp_path, processes=2, states="together")
    assert first == second
    for name, own in alone["weights"].items():
        assert_close(torch.tensor(first["weights"][name]), torch.tensor(own), atol=2e-5, rtol=1e-4)
    for one, other in zip(alone["history"], first["history"], strict=True):
        assert numbers(one) == pytest.approx(numbers(other), rel=1e-3, abs=1e-4, nan_ok=True)
    newest = sorted((tmp_path / "together").glob("step-*"))[-1]
    shutil.rmtree(newest)
    shutil.rmtree(tmp_path / "together-2")
    resumed, beside = train(kind, base, tmp_path, processes=2, states="together")
    assert resumed == beside == first


def test_a_part_is_every_nth_and_the_parts_are_the_whole() -> None:
    parts = [Team(rank, 3).own(range(8)) for rank in range(3)]
    assert parts == [[0, 3, 6], [1, 4, 7], [2, 5]]
    assert ALONE.own("abc") == ["a", "b", "c"]


def test_alone_nothing_is_exchanged() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    ALONE.sum_gradients([parameter])
    assert parameter.grad is None
    assert ALONE.gathered([1, 2]) == [1, 2]
    assert ALONE.sums([1.5, 2.5]) == [1.5, 2.5]
    assert ALONE.from_first(lambda: "made") == ALONE.first_then_others(lambda: "made") == "made"


def test_gradients_are_exchanged_in_few_pieces_each_of_one_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewardtrain.team.BUCKET", 10)
    whole, half = torch.float32, torch.bfloat16
    tensors = [
        torch.zeros(size, dtype=kind) for size, kind in [(4, whole), (6, whole), (1, whole), (2, half), (30, half)]
    ]
    assert [[one.numel() for one in group] for group in _buckets(tensors)] == [[4, 6], [1], [2], [30]]


def test_more_processes_than_gpus_are_refused_before_anybody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InvalidSettings, match="Set processes to at most 2"):
        join("cuda")
