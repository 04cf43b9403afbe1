"""Plain text, read as `Lines` reads lines of JSON: a prompt on each line, or between blank lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from feedback.imports.reading import Lines, Malformed

COLUMN = "prompt"


class TextLines(Lines):
    """The numbered, non-blank lines of a text file, each as {"prompt": text}; read once."""

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, text in self._texts():
            if text.strip():
                self.filled += 1
                yield number, {COLUMN: text.strip()}

    def _texts(self) -> Iterator[tuple[int, str]]:
        for raw in self._raw_lines():
            try:
                yield self.number, raw.decode("utf-8")
            except UnicodeDecodeError as err:
                why = f"byte {err.start + 1} is not UTF-8. Save the file as UTF-8."
                self.problems.add(self.number, Malformed(why))


class TextParagraphs(TextLines):
    """What stands between blank lines, numbered by the line it begins on."""

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        begins, lines = 0, list[str]()
        for number, text in self._texts():
            if text.strip():
                begins = begins if lines else number
                lines.append(text.rstrip())
            elif lines:
                yield self._whole(begins, lines)
                lines = []
        if lines:
            yield self._whole(begins, lines)

    def _whole(self, begins: int, lines: list[str]) -> tuple[int, dict[str, Any]]:
        self.filled += 1
        return begins, {COLUMN: "\n".join(lines).strip()}
