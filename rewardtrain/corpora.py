"""Plain text to learn from beside what people wrote: which file a name means, and the documents in it. No torch here.

A corpus is a text file, which is one document, or a JSONL file with a document in each line: {"text": "…"}. What a
project's settings name lies in DATA_DIR/corpora; a command may name any file.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from django.conf import settings

from rewardtrain.errors import CorpusRefused
from rewardtrain.models import TrainingRun

MOST_BYTES = 256 * 2**20  # it is held in memory, as text and as tokens
JSON_LINES = {".jsonl", ".ndjson"}


def corpora_folder() -> Path:
    """Where corpora lie that settings may name."""
    return Path(settings.DATA_DIR) / "corpora"


def corpus_file(name: str, *, by_command: bool) -> Path:
    """The file that a name means.

    by_command  somebody with a shell named it, so it may lie anywhere
    Raises      CorpusRefused where there is none, or where it would lie outside its folder
    """
    if by_command and Path(name).is_file():
        return Path(name)
    folder = corpora_folder()
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        known = ", ".join(sorted(one.name for one in folder.glob("*") if one.is_file())) if folder.is_dir() else ""
        raise CorpusRefused(f"There is no corpus {name!r} in {folder}. {f'Known: {known}.' if known else ''}".strip())
    return path


def documents(path: Path) -> list[str]:
    """The documents of a corpus, empty ones left out.

    Raises  CorpusRefused, naming the line that is at fault
    """
    if path.stat().st_size > MOST_BYTES:
        raise CorpusRefused(f"{path.name} is larger than {MOST_BYTES // 2**20} MB. Name a sample of it.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as err:
        raise CorpusRefused(f"{path.name} is not UTF-8: byte {err.start} is none. Convert it first.") from err
    if path.suffix.lower() not in JSON_LINES:
        return [text] if text.strip() else []
    lines = enumerate(text.split("\n"), start=1)
    found = [_document(path, number, line) for number, line in lines if line.strip()]
    return [one for one in found if one.strip()]


def _document(path: Path, number: int, line: str) -> str:
    try:
        row: Any = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as err:
        raise CorpusRefused(f'Line {number} of {path.name} is no JSON. Write {{"text": …}} in each line.') from err
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise CorpusRefused(f'Line {number} of {path.name} has no text. Write {{"text": …}} in each line.')
    return str(row["text"])


def corpus_of(run: TrainingRun, name: str) -> tuple[list[str], dict[str, Any]]:
    """(documents, what is kept of where they came from) for a run; nothing where no corpus is named.

    Raises  CorpusRefused, also where it is not the file any more that the run was begun with
    """
    if not name:
        return [], {}
    path = corpus_file(name, by_command=run.round_id is None)
    found = {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    kept = run.result.get("corpus")
    if kept and kept.get("sha256") != found["sha256"]:
        raise CorpusRefused(f"{path.name} has changed since run {run.pk} was begun. Put it back, or start a new run.")
    texts = documents(path)
    if not texts:
        raise CorpusRefused(f"{path.name} holds no text. Name another corpus, or none.")
    return texts, {**found, "documents": len(texts)}
