"""The files of a snapshot: written once, each with its hash, so that anybody can tell whether they are whole."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from feedback.exports import card
from feedback.exports.layouts import Layout
from feedback.models import PromptGroup

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
CARD = "README.md"
SPLITS = tuple(PromptGroup.Split.values)
ROW_GROUP = 5000  # rows of Parquet held in memory before they are written
READ_AT_ONCE = 1 << 20
Progress = Callable[[float], None]  # given the share that is done, 0 to 1


class Reader(Protocol):
    """Gives the records of a snapshot in the order of their names, each with its split."""

    def __len__(self) -> int: ...

    def sort(self) -> Iterator[int]: ...

    def read(self) -> Iterator[Any]: ...


def write_files(
    folder: Path, layout: Layout, reader: Reader, about: dict[str, Any], progress: Progress
) -> dict[str, Any]:
    """Write every file of a snapshot below an empty folder. Returns the manifest.

    about     what the manifest says of the project, filters and exclusions
    progress  called after each chunk; may raise to stop
    """
    counts = _write_rows(folder, layout, reader, progress)
    files = {name: _described(folder / name) for name in _row_files(folder)}
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "kind": layout.kind,
        **about,
        "counts": counts,
        "parquet_writer": _parquet_writer(),
        "identity": identity(files),
        "files": files,
    }
    write_whole(folder / CARD, card.render(manifest).encode())
    manifest["files"][CARD] = _described(folder / CARD)
    write_whole(folder / MANIFEST, manifest_bytes(manifest))
    for inner in [*(path for path in folder.iterdir() if path.is_dir()), folder]:
        fsync_folder(inner)
    return manifest


def identity(files: dict[str, dict[str, Any]]) -> str:
    """The hash over the JSONL files' hashes: what a snapshot is, whatever library wrote its Parquet."""
    lines = [f"{described['sha256']}  {name}\n" for name, described in sorted(files.items()) if name.endswith(".jsonl")]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def manifest_bytes(manifest: dict[str, Any]) -> bytes:
    """The manifest as it stands in its file."""
    return (json.dumps(manifest, ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode()


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_AT_ONCE):
            digest.update(block)
    return digest.hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("xb") as file:
        file.write(content)
        _settle(file)


def fsync_folder(folder: Path) -> None:
    """Wait until the disk has a folder's names."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _settle(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _described(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def _row_files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _parquet_writer() -> str:
    import pyarrow

    return f"pyarrow {pyarrow.__version__}"


def _write_rows(folder: Path, layout: Layout, reader: Reader, progress: Progress) -> dict[str, Any]:
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    with ExitStack() as stack:
        writers = {split: stack.enter_context(SplitWriter(folder, layout, split)) for split in SPLITS}
        for done, record in enumerate(_in_order(reader, progress), start=1):
            rows = list(layout.rows(record))
            writers[record.split].add(record, rows)
            counts[record.split].update(layout.count(record, rows))
            if done % 100 == 0:
                progress(0.3 + 0.7 * done / len(reader))
    return {
        "total": {name: sum(counts[split][name] for split in SPLITS) for name in layout.counted},
        "splits": {split: {name: counts[split][name] for name in layout.counted} for split in SPLITS},
    }


def _in_order(reader: Reader, progress: Progress) -> Iterator[Any]:
    named = 0
    for step in reader.sort():
        named += step
        progress(0.3 * named / len(reader))
    yield from reader.read()


class SplitWriter:
    """The files of one split: rows for trainers as JSONL and as Parquet, every answer as it was given as JSONL."""

    def __init__(self, folder: Path, layout: Layout, split: str) -> None:
        self.data = folder / "data"
        self.answers = folder / layout.folder
        self.schema = layout.schema()
        self.split = split
        self.waiting: list[dict[str, Any]] = []

    def __enter__(self) -> SplitWriter:
        import pyarrow.parquet

        for folder in (self.data, self.answers):
            folder.mkdir(exist_ok=True)
        name = f"{self.split}-00000-of-00001"
        self.stack = ExitStack()
        self.rows_file = self.stack.enter_context((self.data / f"{name}.jsonl").open("xb"))
        self.answers_file = self.stack.enter_context((self.answers / f"{self.split}.jsonl").open("xb"))
        self.parquet_file = self.stack.enter_context((self.data / f"{name}.parquet").open("xb"))
        self.parquet = pyarrow.parquet.ParquetWriter(self.parquet_file, self.schema, compression="zstd")
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with self.stack:
            if kind is None:
                self._write_waiting()
            self.parquet.close()
            for file in (self.rows_file, self.answers_file, self.parquet_file):
                _settle(file)

    def add(self, record: Any, rows: list[dict[str, Any]]) -> None:
        self.answers_file.write(_json_line(asdict(record)))
        for row in rows:
            self.rows_file.write(_json_line(row))
        self.waiting += rows
        if len(self.waiting) >= ROW_GROUP:
            self._write_waiting()

    def _write_waiting(self) -> None:
        import pyarrow

        if self.waiting:
            self.parquet.write_table(pyarrow.Table.from_pylist(self.waiting, schema=self.schema))
            self.waiting = []


def _json_line(row: dict[str, Any]) -> bytes:
    return (json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n").encode()
