"""The GPU benchmark's own code, at a size a CPU can do; where there is a GPU, on that."""

from __future__ import annotations

import sys

import pytest
import torch

from tests.benchmarks import __main__ as benchmarks
from tests.benchmarks import gpu

WAYS = ["our_generation", "their_generation", "our_reward_step", "their_reward_step", "our_ppo"]
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("function", WAYS)
def test_every_way_runs_and_says_what_it_took(function):
    found = getattr(gpu, function)({"size": "tiny", "device": "cpu"})()
    assert found["tokens_per_second"] > 0
    assert found["peak_mb"] > 0


@pytest.mark.gpu
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("function", WAYS)
def test_every_way_runs_on_a_gpu(function, checkpointing):
    found = getattr(gpu, function)({"size": "tiny", "device": "cuda", "gradient_checkpointing": checkpointing})()
    assert found["tokens_per_second"] > 0


@pytest.mark.parametrize("function", ["our_reward_step", "our_ppo"])
def test_layers_computed_twice_run_as_well(function):
    found = getattr(gpu, function)({"size": "tiny", "device": "cpu", "gradient_checkpointing": True})()
    assert found["tokens_per_second"] > 0


@pytest.mark.parametrize(("main", "arguments"), [(gpu.main, []), (benchmarks.main, ["gpu"])])
def test_without_a_gpu_it_says_so_and_measures_nothing(main, arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="finds no CUDA device here, so nothing was measured"):
        main()
    assert capsys.readouterr().out == ""


def test_the_table_has_a_line_for_every_way(monkeypatch, capsys):
    monkeypatch.setattr(gpu.alternatives, "python", lambda requirement: sys.executable)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A card")
    monkeypatch.setattr(gpu, "ask", lambda way: {"tokens_per_second": 1234.5, "peak_mb": 99.0})
    gpu.report()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("A card, torch ")
    assert sum(line.endswith("| 1,234 | 99 MB |") for line in lines) == 8
    for ways in gpu.contests("0.4b", "cuda").values():
        assert all(hasattr(gpu, way.function.partition(":")[2]) for way in ways)
