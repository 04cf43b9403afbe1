"""What an export wrote, imported into a project that had nothing and exported again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from feedback import snapshots
from feedback.exports import files
from feedback.exports.layouts import LAYOUTS
from feedback.imports.taking_in import import_files
from feedback.models import Project, Snapshot

OWN_FORMATS = {"preference": "rankings", "rules": "probes", "demonstrations": "demonstrations"}


def written(slug: str, kind: str = "preference", **choices: Any) -> Snapshot:
    """A snapshot of a project, frozen and written."""
    project = Project.objects.get(slug=slug)
    return snapshots.write_now(snapshots.freeze(project=project, kind=kind, ring=False, **choices))


def lines_of(snapshot: Snapshot, folder: str = "") -> list[dict[str, Any]]:
    """The lines of a snapshot, of all splits: every answer as it was given, or the rows in `data`."""
    folder = folder or LAYOUTS[snapshot.kind].folder
    found = []
    for split in files.SPLITS:
        name = f"{split}-00000-of-00001" if folder == "data" else split
        text = (snapshots.folder_of(snapshot) / folder / f"{name}.jsonl").read_text(encoding="utf-8")
        found += [json.loads(line) for line in text.split("\n") if line]
    return found


def again(snapshot: Snapshot, tmp_path: Path, slug: str = "again") -> Snapshot:
    """A snapshot of what an import of a snapshot's answers makes of them, in a project that had nothing."""
    path = tmp_path / f"{slug}.jsonl"
    folder = snapshots.folder_of(snapshot) / LAYOUTS[snapshot.kind].folder
    path.write_bytes(b"".join((folder / f"{split}.jsonl").read_bytes() for split in files.SPLITS))
    import_files([path], file_format=OWN_FORMATS[snapshot.kind], slug=slug)
    return written(slug, snapshot.kind)


def assert_the_same(first: Snapshot, second: Snapshot) -> None:
    assert lines_of(second) == lines_of(first)
    assert lines_of(second, "data") == lines_of(first, "data")
    assert second.sha256 == first.sha256
