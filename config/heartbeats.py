"""Signs of life: each background process touches a file in the data folder, and /readyz reads how long ago."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from django.conf import settings

SECONDS_BETWEEN = 5.0
SECONDS_UNTIL_MISSED = 30.0


def folder() -> Path:
    """Where the signs of life lie."""
    return Path(settings.DATA_DIR) / "heartbeats"


def touch(name: str) -> None:
    """Leave a sign of life for `name`."""
    folder().mkdir(mode=0o700, exist_ok=True)
    (folder() / name).touch()


def keep_touching(name: str) -> None:
    """Leave a sign of life every few seconds for as long as this process lives."""

    def beat() -> None:
        while True:
            touch(name)
            time.sleep(SECONDS_BETWEEN)

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()


def ages_in_seconds() -> dict[str, float]:
    """How long ago each process, ever started on this data folder, left its last sign of life."""
    now = time.time()
    found = sorted(folder().iterdir()) if folder().exists() else []
    return {path.name: max(0.0, now - path.stat().st_mtime) for path in found}


def alive() -> list[str]:
    """The background processes that left a sign of life a moment ago. The pages leave none, but run beside these."""
    return [name for name, age in ages_in_seconds().items() if age <= SECONDS_UNTIL_MISSED]
