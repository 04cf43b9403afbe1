"""A running Nestbox for the rehearsal: the one that runs here already, or one of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2
from django.conf import settings

from rewardtrain.rehearsal.people import RehearsalFailed

UP_WITHIN_SECONDS = 120.0
STOPPED_WITHIN_SECONDS = 60.0


class Site:
    """Use the site on PORT if it answers; otherwise start web, workers and clock, and stop them at the end."""

    def __init__(self) -> None:
        self.address = f"http://127.0.0.1:{settings.PORT}"
        self.process: subprocess.Popen[bytes] | None = None
        self.log = Path(settings.DATA_DIR) / "logs" / "rehearsal.log"

    def __enter__(self) -> Self:
        if not self._answers():
            self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(STOPPED_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _answers(self) -> bool:
        try:
            return httpx2.get(f"{self.address}/healthz", timeout=5.0, trust_env=False).status_code == 200
        except httpx2.HTTPError:
            return False

    def _start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(settings.BASE_DIR / "manage.py"), "serve"],
                cwd=settings.BASE_DIR,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=os.environ,
            )
        until = time.monotonic() + UP_WITHIN_SECONDS
        while time.monotonic() < until:
            if self._answers():
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.3)
        raise RehearsalFailed(f"Web and workers did not start in {UP_WITHIN_SECONDS:.0f} s; {self.log} says why.")
