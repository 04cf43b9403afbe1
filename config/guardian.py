"""Kills process groups whose supervisor is gone. A script of its own, run by path, so that it loads nothing of ours.

It reads lines from a pipe that only the supervisor holds open: `watch 4711`, `forget 4711`. When the pipe ends, the
supervisor has died, even by kill -9, and every group still watched is killed with all its children.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterable


def groups_left(lines: Iterable[str]) -> set[int]:
    """The process groups still watched when the lines end."""
    groups: set[int] = set()
    for line in lines:
        verb, _, group = line.strip().partition(" ")
        if verb == "watch":
            groups.add(int(group))
        elif verb == "forget":
            groups.discard(int(group))
    return groups


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for group in groups_left(sys.stdin):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
