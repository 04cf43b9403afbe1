"""Records of a JSON list, read as `Lines` reads lines of JSON: one in memory at a time, each fault has its record.

The list is cut at the commas between its records and each is parsed as a line is, so what a line is refused for a
record is refused for in the same words. No streaming parser was found that does both: of ijson's two, the fast one
writes a question mark where half a surrogate pair stands, and the exact one takes `+1` and `nan` for numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from feedback.imports.reading import (
    READ_AT_ONCE,
    Advance,
    Lines,
    Malformed,
    Problems,
    Unparsable,
    first_byte,
    parse_object,
)

OUTSIDE = re.compile(rb'["\[\]{},]')  # what matters between texts…
INSIDE = re.compile(rb'["\\]')  # …and within one
OPENING, CLOSING = b"[{", b"]}"


class JsonRecords(Lines):
    """The numbered records of one JSON list, or of a file that is one object; read once.

    Reading ends at the first record that is no JSON: what comes after it cannot be told apart.
    """

    unit = "record"

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        try:
            for raw in self._raw_records():
                self.filled += 1
                yield from self._parsed(raw)
        except Unparsable as err:
            self.problems.add(self.number, err)

    def _parsed(self, raw: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
        try:
            yield self.number, parse_object(raw, self.unit)
        except Unparsable:
            raise
        except Malformed as err:
            self.problems.add(self.number, err)

    def _raw_records(self) -> Iterator[bytes]:
        """The bytes of one record after the other. Raises Unparsable where the list itself is at fault."""
        cutter = Cutter()
        for piece in self._pieces(lambda stream: stream.read(READ_AT_ONCE)):
            for raw in cutter.take(piece):
                yield self._next(raw)
            self._refuse_long(cutter)
        if self.problems.found:  # the compressed file is cut short, which explains all that follows
            return
        if rest := cutter.finish():
            yield self._next(rest)
        if cutter.is_list and not cutter.is_ended:
            raise Unparsable("the list does not end here: a ] is missing. Is the file cut short?")

    def _next(self, raw: bytes) -> bytes:
        self.number += 1
        self.length = len(raw)
        self._refuse_oversized(len(raw))
        if not raw:
            raise Unparsable("nothing stands here. Is there a comma too many?")
        return raw

    def _refuse_long(self, cutter: Cutter) -> None:
        """Refuse a record that is too long before all of it is in memory."""
        self.number += 1
        self._refuse_oversized(cutter.waiting)
        self.number -= 1


class Cutter:
    """Cuts the text of a JSON list, which comes in pieces, at the commas between its records.

    It knows texts from what is outside them and counts what is open, and nothing else: what lies between two commas
    may be anything, and whoever parses it will see.
    """

    def __init__(self) -> None:
        self.is_list = False
        self.is_ended = False
        self._begun = False
        self._in_text = False
        self._is_escaped = False
        self._depth = 0  # of what is open inside the record
        self._record = bytearray()
        self._has_comma = False  # a record must follow

    @property
    def waiting(self) -> int:
        """How many bytes of a record that is not whole are held."""
        return len(self._record)

    def take(self, piece: bytes) -> Iterator[bytes]:
        """The records that are whole now, without the blanks around them."""
        at = self._begin(piece)
        while at < len(piece):
            if self.is_ended:
                if piece[at:].strip():
                    raise Unparsable("something stands after the end of the list. Is this one list of all records?")
                return
            cut, at = self._step(piece, at)
            if cut:
                yield self._whole()

    def finish(self) -> bytes:
        """What is left at the end of the file: a whole object where there is no list, else a record cut short."""
        return bytes(self._record).strip()

    def _begin(self, piece: bytes) -> int:
        """Where the first record begins; all of a piece of blanks is passed over."""
        if self._begun:
            return 0
        blanks = len(piece) - len(piece.lstrip())
        if blanks == len(piece):
            return blanks
        self._begun = True
        self.is_list = piece[blanks : blanks + 1] == b"["
        return blanks + 1 if self.is_list else blanks

    def _step(self, piece: bytes, at: int) -> tuple[bool, int]:
        """Go on to the next mark. Returns whether a record ends there, and the place after it."""
        if self._is_escaped:
            self._is_escaped = False
            self._record += piece[at : at + 1]
            return False, at + 1
        found = (INSIDE if self._in_text else OUTSIDE).search(piece, at)
        if found is None:
            self._record += piece[at:]
            return False, len(piece)
        self._record += piece[at : found.start()]
        return self._mark(found.group()), found.end()

    def _mark(self, mark: bytes) -> bool:
        """Take a mark in. Returns whether it ends a record; then it is no part of it."""
        if self._in_text:
            self._in_text = mark != b'"'
            self._is_escaped = mark == b"\\"
        elif mark == b'"':
            self._in_text = True
        elif self.is_list and self._depth == 0 and mark in b",]":
            self.is_ended = mark == b"]"
            return self._is_record_wanted(mark)
        elif mark in OPENING:
            self._depth += 1
        elif mark in CLOSING:
            self._depth = max(self._depth - 1, 0)
        self._record += mark
        return False

    def _is_record_wanted(self, mark: bytes) -> bool:
        """Whether there is a record before a mark: not in an empty list."""
        is_empty_list = mark == b"]" and not self._has_comma and not self._record.strip()
        self._has_comma = True
        return not is_empty_list

    def _whole(self) -> bytes:
        whole = bytes(self._record).strip()
        self._record.clear()
        return whole


def records_or_lines(path: Path, problems: Problems, advance: Advance = lambda count: None) -> Lines:
    """Records where a file begins with a list, lines of JSON else."""
    kind = JsonRecords if first_byte(path) == b"[" else Lines
    return kind(path, problems, advance)
