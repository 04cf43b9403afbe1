"""Lines of JSON from a file that may be compressed, cut short, badly encoded or hostile: each fault has its line."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from feedback.errors import ImportRefused

GZIP_MAGIC = b"\x1f\x8b"
PARQUET_MAGIC = b"PAR1"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LONGEST_LINE = 32 * 1024 * 1024  # bytes
DEEPEST = 100  # levels of lists and objects inside one kept field
MOST_PROBLEMS = 10  # named in one message
READ_AT_ONCE = 1 << 16  # bytes, where a file is not read by lines
SHOWN = 60  # characters of an offending value
LONGEST_MESSAGE = 400  # characters
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")  # PostgreSQL takes no NUL, and half a surrogate pair is no character
Advance = Callable[[int], None]  # told how many more bytes of the file were read


class Malformed(Exception):
    """A line that cannot be taken; the message names field, fault and remedy, the reader adds file and line.

    line  where the fault is, when it is not the line that was read last
    """

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


class Unparsable(Malformed):
    """What stands there is no JSON, so that nobody can tell where it ends."""


class Problems:
    """What is wrong with a file, line by line; the first few are named.

    unit  what is counted in it: line or record
    """

    def __init__(self, file_name: str) -> None:
        self.file_name = file_name
        self.unit = "line"
        self.found: list[str] = []

    def add(self, line: int, fault: Malformed) -> None:
        """Remember a fault. Raises ImportRefused when there are as many as are worth reading."""
        place = f"{self.unit} {fault.line or line}"
        self.found.append(f"{self.file_name}, {place}: {_cut(str(fault), LONGEST_MESSAGE)}")
        if len(self.found) >= MOST_PROBLEMS:
            self.found.append("…and maybe more.")
            self.raise_if_any()

    def raise_if_any(self) -> None:
        if self.found:
            raise ImportRefused("\n".join([*self.found, "Nothing was imported. Mend the file, then import it again."]))


class Lines:
    """The numbered, non-blank lines of a file, plain or gzip, parsed as JSON objects; read once.

    `sha256` covers the uncompressed bytes that were read, so that a file and its compressed copy are the same file.
    """

    unit = "line"  # what is numbered, in messages

    def __init__(self, path: Path, problems: Problems, advance: Advance = lambda count: None) -> None:
        self.path = path
        self.beside: Sequence[Path] = ()  # the other files of the same import, for formats that need several
        self.options: Mapping[str, Any] = {}  # what the format asks for besides files, by name
        self.is_joined = False  # whether what it says stands together with what other files of the import say
        self.notes: Counter[str] = Counter()  # what is unusual about it besides what its dialogues say
        self.problems = problems
        problems.unit = self.unit
        self.number = 0
        self.filled = 0  # lines that are not blank
        self.length = 0  # bytes of the line that was read last
        self._advance = advance
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for raw in self._raw_lines():
            if not raw.strip():
                continue
            self.filled += 1
            try:
                yield self.number, parse_object(raw)
            except Malformed as err:
                self.problems.add(self.number, err)

    def _raw_lines(self) -> Iterator[bytes]:
        for raw in self._pieces(lambda stream: stream.readline(LONGEST_LINE + 1)):
            self.number += 1
            self.length = len(raw)
            self._refuse_oversized(len(raw))
            yield raw

    def _pieces(self, read: Callable[[BinaryIO], bytes]) -> Iterator[bytes]:
        """What `read` takes from the file, unpacked, without a byte order mark, until there is no more."""
        told = 0
        with self.path.open("rb") as file:
            stream = _unpacked(file)
            try:
                is_first = True
                while raw := read(stream):
                    self._digest.update(raw)
                    yield raw.removeprefix(BYTE_ORDER_MARK) if is_first else raw
                    is_first = False
                    self._advance(file.tell() - told)
                    told = file.tell()
            except (EOFError, zlib.error, gzip.BadGzipFile) as err:
                damage = Malformed(f"the compressed file is damaged or cut short ({err}). Fetch it again.")
                self.problems.add(self.number + 1, damage)

    def _refuse_oversized(self, length: int) -> None:
        if length > LONGEST_LINE:
            why = f"longer than {LONGEST_LINE >> 20} MiB. Each {self.unit} should be one small object."
            self.problems.add(self.number, Malformed(why))
            self.problems.raise_if_any()


def first_byte(path: Path) -> bytes:
    """The first byte of a file that is no blank, unpacked; empty where there is none, or none that can be read."""
    with path.open("rb") as file:
        try:
            start = _unpacked(file).read(READ_AT_ONCE)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return b""
    return start.removeprefix(BYTE_ORDER_MARK).lstrip()[:1]


def _unpacked(file: BinaryIO) -> BinaryIO:
    magic = file.read(len(GZIP_MAGIC))
    file.seek(0)
    return gzip.GzipFile(fileobj=file) if magic == GZIP_MAGIC else file  # type: ignore[return-value]


def parse_object(raw: bytes, unit: str = "line") -> dict[str, Any]:
    """One line, or record, as a JSON object; else Malformed with place and remedy, Unparsable when it is no JSON."""
    raw = raw.rstrip(b"\r\n")
    if raw.startswith(PARQUET_MAGIC):
        raise Malformed("this is a Parquet file. Convert it to lines of JSON first.")
    try:
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_without_twins, parse_constant=_no_number, parse_float=_finite
        )
    except UnicodeDecodeError as err:
        raise Malformed(f"byte {err.start + 1} is not UTF-8. Save the file as UTF-8.") from err
    except json.JSONDecodeError as err:
        place = f"column {err.pos + 1}" if unit == "line" else f"its character {err.pos + 1}"
        raise Unparsable(f"{place}: no valid JSON ({err.msg}). Each {unit} should be one whole object.") from err
    except RecursionError as err:
        raise Malformed(f"lists and objects are nested too deep. Each {unit} should be one flat record.") from err
    except ValueError as err:  # a whole number of thousands of digits
        raise Malformed(f"no valid JSON ({err}). Each {unit} should be one whole object.") from err
    if isinstance(value, list):
        raise Malformed(f"a list stands here. Write one object per {unit} instead of one list of all.")
    if not isinstance(value, dict):
        raise Malformed(f"{shown(value)} is no object. Each {unit} should be one whole object.")
    return value


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twin = next(name for name, count in counts.items() if count > 1)
        raise Malformed(f"field {shown(twin)} stands there twice. Remove one, so that nothing is lost.")
    return value


def _no_number(name: str) -> float:
    raise Malformed(f"{name} is no number. Use null where a value is missing.")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise Malformed(f"{shown(text)} is too large a number.")
    return number


def shown(value: Any) -> str:
    """A value of the file as a message may show it: escaped, on one line, cut.

    >>> shown("a\\nb")
    "'a\\\\nb'"
    """
    try:
        return _cut(ascii(value), SHOWN)
    except RecursionError:
        return "something nested very deep"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}…"


def text_field(record: dict[str, Any], name: str, path: str = "") -> str:
    """A field that must be there and be text that both databases can keep."""
    where = f"field {path}{name}"
    if name not in record:
        raise Malformed(f"{where} is missing. Is this the format you named?")
    value = record[name]
    if not isinstance(value, str):
        raise Malformed(f"{where} should be text, not {shown(value)}.")
    refuse_unstorable(value, where)
    return value


def refuse_unstorable(text: str, where: str) -> None:
    found = UNSTORABLE.search(text)
    if found:
        raise Malformed(f"{where} holds {shown(found.group())}, which is no character. Remove or replace it.")


def kept_fields(record: dict[str, Any], without: set[str], path: str = "") -> dict[str, Any]:
    """Everything a record says besides `without`, checked so that both databases can keep it as it is."""
    kept = {name: value for name, value in record.items() if name not in without}
    for name, value in kept.items():
        _check_storable(value, f"field {path}{shown(name)}")
        refuse_unstorable(name, f"field {path}{shown(name)}")
    return kept


def _check_storable(value: Any, where: str) -> None:
    """Walk a value without recursion, so that depth can be refused instead of crashed on."""
    waiting = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if depth > DEEPEST:
            raise Malformed(f"{where} is nested deeper than {DEEPEST} levels.")
        if isinstance(item, str):
            refuse_unstorable(item, where)
        elif isinstance(item, dict):
            waiting += [(inner, depth + 1) for pair in item.items() for inner in pair]
        elif isinstance(item, list):
            waiting += [(inner, depth + 1) for inner in item]
