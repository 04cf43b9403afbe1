"""Trainings on a device that is no CPU: every tensor that is made on the way follows the network there."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("what", ["rewards", "policy"])
def test_trainings_elsewhere_mix_no_devices_and_go_as_on_the_cpu(what):
    ended = subprocess.run(
        [sys.executable, "-m", "tests.rewardtrain.elsewhere", what],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-2000:]
    operations, figures = map(int, re.findall(r"\d+", ended.stdout.splitlines()[-1]))
    assert operations > 5_000
    assert figures >= 8
