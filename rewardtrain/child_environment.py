"""The environment of a trainer's child process. No torch here: it must be set before torch is loaded.

Why (measured on two cores beside other work): with OpenMP's default active waiting, two threads that wait for each
other burn the core the web server needs and lose a third of their own throughput; and glibc hands torch's large
temporary buffers back to the kernel after every step, so that half of a trainer's CPU time went into page faults.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

NICENESS = 10
"""Added to a trainer's niceness, so that replies keep coming while a round trains."""

QUIET_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}

KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(4 * 1024**3),
    "MALLOC_TRIM_THRESHOLD_": str(8 * 1024**3),
    "MALLOC_TOP_PAD_": str(256 * 1024**2),
    "MALLOC_ARENA_MAX": "2",
}

STAY_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""Models come from folders; a trainer never asks the network for one."""

TRAINER_ENVIRONMENT = {**QUIET_THREADS, **KEEP_MEMORY, **STAY_OFFLINE, "TOKENIZERS_PARALLELISM": "false"}


def trainer_environment(threads: int | None = None, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The whole environment for a trainer's child process.

    threads  OpenMP threads; left as `base` has it when None
    base     what to start from, os.environ by default; its own choice of a variable wins, so that an
             operator can set another one
    """
    inherited = dict(os.environ if base is None else base)
    chosen = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    return {**TRAINER_ENVIRONMENT, **inherited, **chosen}
