"""Whenever a training is killed, it goes on to the weights it would have had, to the last bit.

NESTBOX_FULL_PROMISES=1 kills twenty of each kind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from tests.promises.conftest import FULL, figures

pytestmark = pytest.mark.slow

KILLS = 20 if FULL else 3


@pytest.mark.parametrize("kind", ["reward model", "policy"])
@pytest.mark.parametrize("threads", [1, 2] if FULL else [1])
def test_a_training_killed_at_any_moment_ends_with_the_same_weights(kind: str, threads: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.promises.killed_trainings", kind, str(KILLS), "7", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        command, cwd=settings.BASE_DIR, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    killed = found["killed"]
    figures(
        f"{kind}, {threads} threads", kills=len(killed), during_a_save=sum(one["was_saving"] for one in killed),
        went_on_after=sorted(one["began"] for one in killed), steps=found["alone"]["steps"],
    )  # fmt: skip
    assert len(killed) == KILLS
    assert [one["weights"] for one in killed] == [found["alone"]["weights"]] * KILLS
    assert {one["steps"] for one in killed} == {found["alone"]["steps"]}
    assert not any(one["partial_left"] for one in killed)  # what was half written is removed
    if FULL:
        assert any(one["was_saving"] for one in killed)
