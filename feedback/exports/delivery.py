"""A copy of a snapshot where somebody wants it, complete or not there at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from feedback.errors import FeedbackError
from feedback.exports.files import CARD, MANIFEST
from feedback.exports.layouts import LAYOUTS


class FolderNotOurs(FeedbackError):
    """A folder that holds something no export wrote, which is not overwritten."""

    code = "folder_not_ours"
    status = 409


def refuse_foreign(target: Path) -> None:
    """Raises FolderNotOurs unless a folder is missing, empty, or an earlier export with nothing beside it."""
    if not target.exists():
        return
    if not target.is_dir():
        raise FolderNotOurs(f"{target} is a file. Name a folder.")
    foreign = sorted(_names_in(target) - _written_by_export(target))
    if foreign:
        named = ", ".join(foreign[:3]) + (", …" if len(foreign) > 3 else "")
        raise FolderNotOurs(f"{target} holds what no export wrote ({named}). Name another folder, or empty this one.")


def _names_in(folder: Path) -> set[str]:
    """Every file, folder and link below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def _written_by_export(folder: Path) -> set[str]:
    """The files the manifest in a folder lists, with their folders and itself; nothing when there is none of ours."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = set(manifest["files"])
        ours = CARD in files and bool(manifest["identity"]) and manifest["kind"] in LAYOUTS
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return files | {Path(name).parent.as_posix() for name in files} | {MANIFEST} if ours else set()


def deliver(folder: Path, target: Path) -> None:
    """Copy a snapshot's folder to a target beside which there is room; an earlier export there is replaced whole.

    Raises  FolderNotOurs
    """
    refuse_foreign(target)
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    draft, old = (target.with_name(f".{target.name}.{part}-{os.getpid()}") for part in ("draft", "old"))
    try:
        _copy(folder, draft)
        if target.exists():
            target.rename(old)
        draft.rename(target)
    finally:
        for left in (draft, old):
            shutil.rmtree(left, ignore_errors=True)


def _copy(folder: Path, draft: Path) -> None:
    """Copy the files with the rights new files have: the kept snapshot is its owner's alone, the copy need not be."""
    for name in sorted(_names_in(folder)):
        if (folder / name).is_file():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, draft / name)
