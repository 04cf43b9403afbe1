"""The environment of a trainer's child process."""

from __future__ import annotations

import subprocess
import sys

from rewardtrain.child_environment import TRAINER_ENVIRONMENT, trainer_environment


def test_a_trainer_waits_quietly_keeps_its_memory_and_stays_offline():
    environment = trainer_environment(base={"PATH": "/bin"})
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert environment["GOMP_SPINCOUNT"] == "0"
    assert int(environment["MALLOC_TRIM_THRESHOLD_"]) > 2**30
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["PATH"] == "/bin"
    assert all(isinstance(value, str) for value in TRAINER_ENVIRONMENT.values())


def test_an_operators_own_choice_wins_and_threads_are_set_on_request():
    environment = trainer_environment(threads=2, base={"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "8"})
    assert environment["OMP_WAIT_POLICY"] == "ACTIVE"
    assert environment["OMP_NUM_THREADS"] == "2"
    assert trainer_environment(base={"OMP_NUM_THREADS": "8"})["OMP_NUM_THREADS"] == "8"


def test_what_the_web_process_may_read_loads_no_torch():
    code = (
        "import sys, rewardtrain.child_environment, rewardtrain.hyperparameters, rewardtrain.checkpoints, "
        "rewardtrain.metrics, rewardtrain.seeds, rewardtrain.errors, rewardtrain.chat\n"
        "sys.exit(int(bool({'torch', 'transformers', 'django'} & set(sys.modules))))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
