"""A Celery broker that needs no server: messages are files in a folder, written whole or not at all.

kombu's own file-system transport writes a message in place, and its reader takes no lock: a reader that comes between
the opening and the writing moves an empty file away, and the message is lost. Here a message is written under a name
no reader looks for, and renamed when it is complete. Names begin with the wall clock, so that messages of several
processes stay in the order of their sending (a monotonic clock starts anew with the machine).
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections import defaultdict, deque
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.exceptions import ChannelError
from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.encoding import bytes_to_str, str_to_bytes
from kombu.utils.json import dumps, loads

SCHEME = "atomicfiles"
POLLING_SECONDS = 0.15


class Channel(filesystem.Channel):
    """kombu's channel with whole-or-nothing writes, and a claim by rename inside the queue's own folder."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The folder is listed once for all messages found in it, not once for each: a long queue stays quick to read.
        self._listed: defaultdict[str, deque[str]] = defaultdict(deque)

    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:
        folder = Path(self.data_folder_out)
        name = f"{time.time_ns():020d}_{uuid.uuid4()}"
        draft = folder / f"{name}.draft"
        try:
            draft.write_bytes(str_to_bytes(dumps(payload)))
            os.replace(draft, folder / f"{name}.{queue}.msg")
        except OSError as error:
            raise ChannelError(f"The message could not be written to {folder}") from error

    def _get(self, queue: str) -> Any:
        listed = self._listed[queue]
        for look_again in (False, True):
            if look_again:
                listed.extend(self._waiting(queue))
            while listed:
                message = self._claim(listed.popleft())
                if message is not None:
                    return message
        raise Empty

    def _claim(self, name: str) -> Any:
        """The message in a file that is ours from the rename on; None when another reader was quicker."""
        folder = Path(self.data_folder_in)
        claimed = folder / f"{name}.{uuid.uuid4()}.claimed"
        try:
            os.rename(folder / name, claimed)
        except FileNotFoundError:
            return None
        payload = claimed.read_bytes()
        claimed.unlink()
        return loads(bytes_to_str(payload))

    def _waiting(self, queue: str) -> list[str]:
        """Names of complete messages for `queue`, oldest first."""
        suffix = f"{queue}.msg"
        return sorted(name for name in os.listdir(self.data_folder_in) if name.partition(".")[2] == suffix)

    def _size(self, queue: str) -> int:
        return len(self._waiting(queue))


class Transport(filesystem.Transport):
    """The transport behind `atomicfiles://`."""

    Channel = Channel
    default_port = 0
    polling_interval = POLLING_SECONDS
    driver_type = "filesystem"
    driver_name = "atomicfiles"


def options(folder: Path) -> dict[str, Any]:
    """Transport options for a queue kept in `folder`, which is made when missing."""
    for part in ("messages", "control"):
        (folder / part).mkdir(mode=0o700, parents=True, exist_ok=True)
    return {
        "data_folder_in": str(folder / "messages"),
        "data_folder_out": str(folder / "messages"),
        "control_folder": str(folder / "control"),
        "store_processed": False,
        "polling_interval": POLLING_SECONDS,
    }


def discard_leftovers(folder: Path, *, older_than_seconds: float = 600.0) -> int:
    """Remove what writers and readers that were killed left half done; gives how many files."""
    oldest = time.time() - older_than_seconds
    removed = 0
    for suffix in ("*.draft", "*.claimed"):
        for path in (folder / "messages").glob(suffix):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    path.unlink()
                    removed += 1
    return removed


def register() -> None:
    """Make kombu understand `atomicfiles://`."""
    TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"
