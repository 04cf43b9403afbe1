"""A snapshot's folder as one file to download, made while it is sent: nothing is written beside it, nothing held."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

CHUNK = 1 << 18  # bytes read at a time
NO_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a ZIP file knows


class _Outbox:
    """What the archive writes into: bytes wait here until they are sent. It cannot go back, so nor does the archive."""

    def __init__(self) -> None:
        self._waiting: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._waiting.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing to do: `take` is what empties it."""

    def take(self) -> bytes:
        taken, self._waiting = b"".join(self._waiting), []
        return taken


def zipped(folder: Path, *, name: str) -> Iterator[bytes]:
    """A folder as a ZIP file, in pieces; its files by name and without a date, so the same folder is the same bytes.

    name  of the folder that the archive unpacks to
    """
    outbox = _Outbox()
    with ZipFile(outbox, "w") as archive:  # type: ignore[call-overload]
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = ZipInfo(f"{name}/{path.relative_to(folder).as_posix()}", NO_DATE)
            entry.compress_type = ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            entry.file_size = path.stat().st_size  # tells the archive where a file is too large for the old format
            with path.open("rb") as source, archive.open(entry, "w") as target:
                while chunk := source.read(CHUNK):
                    target.write(chunk)
                    yield outbox.take()
    yield outbox.take()
