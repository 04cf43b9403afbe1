"""Rows of a Hugging Face dataset, on disk or by name, read as files of prompts are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from feedback.errors import ImportRefused
from feedback.imports.reading import Advance, Lines, Malformed, Problems, parse_object


class DatasetRows(Lines):
    """The numbered rows of a dataset as objects of JSON, the first is 1; what JSON has no word for is its text.

    `sha256` covers the rows, so that a dataset is the same one wherever it lies.
    """

    unit = "row"

    def __init__(self, rows: Any, problems: Problems, advance: Advance = lambda count: None) -> None:
        super().__init__(Path(problems.file_name), problems, advance)
        self.rows = rows
        self._rows_digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._rows_digest.hexdigest()

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, row in enumerate(self.rows, start=1):
            self.number = number
            self.filled += 1
            raw = json.dumps(row, default=str, sort_keys=True).encode()
            self._rows_digest.update(raw + b"\n")
            try:
                yield number, parse_object(raw, self.unit)
            except Malformed as err:
                self.problems.add(number, err)


def open_dataset(name: str, split: str) -> Any:
    """One split of a dataset: a folder that `save_to_disk` wrote, or a name that `load_dataset` knows.

    Its code is never run. Raises ImportRefused, saying what to do
    """
    try:
        import datasets
    except ImportError as err:
        raise ImportRefused("Datasets need what learning needs: install requirements/learning.txt.") from err
    try:
        is_folder = Path(name).is_dir()
        is_saved = is_folder and any((Path(name) / one).is_file() for one in ("state.json", "dataset_dict.json"))
        found = datasets.load_from_disk(name) if is_saved else datasets.load_dataset(name)
    except Exception as err:  # noqa: BLE001 - whatever a server, a cache or a file made of it: the person sees it
        raise ImportRefused(
            f"The dataset {name} cannot be read: {str(err)[:300]} Name a folder that save_to_disk wrote, a folder of "
            "files, or a dataset of the hub that this machine can reach. Nothing was imported."
        ) from err
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise ImportRefused(
                f"{name} has no split {split}; it has {', '.join(found)}. Name one with --dataset-split."
            )
        return found[split]
    return found
