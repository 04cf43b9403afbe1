"""Rows of a CSV file, read as `Lines` reads lines of JSON: a row may span several lines, each fault has its line."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from typing import Any

from feedback.imports.reading import Lines, Malformed, shown


class CsvRows(Lines):
    """The numbered, non-blank rows of a CSV file, as {name in the first row: text}; read once.

    A row's number is that of the line it begins on. Reading ends at the first fault in the CSV itself: what comes after
    it cannot be told apart.
    """

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        rows = csv.reader(self._texts(), strict=True)
        names: list[str] | None = None
        begins = 1
        try:
            for row in rows:
                if row and names is None:
                    names = _names(row)
                elif row and names is not None:
                    self.filled += 1
                    yield from self._record(begins, names, row)
                begins = self.number + 1
        except csv.Error as err:
            why = f"no valid CSV ({err}). Is a quotation mark missing in the row that begins here?"
            self.problems.add(begins, Malformed(why))
        except Malformed as err:
            self.problems.add(self.number, err)

    def _texts(self) -> Iterator[str]:
        for raw in self._raw_lines():
            try:
                yield raw.decode("utf-8")
            except UnicodeDecodeError as err:
                raise Malformed(f"byte {err.start + 1} is not UTF-8. Save the file as UTF-8.") from err

    def _record(self, number: int, names: list[str], row: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        if len(row) == len(names):
            yield number, dict(zip(names, row, strict=True))
        else:
            why = f"{len(row)} fields where the first row names {len(names)}. Is a comma or a quotation mark missing?"
            self.problems.add(number, Malformed(why))


def _names(row: list[str]) -> list[str]:
    twin = next((name for name, count in Counter(row).items() if count > 1), None)
    if twin is not None:
        raise Malformed(f"column {shown(twin)} stands there twice. Rename one, so that nothing is lost.")
    return row
