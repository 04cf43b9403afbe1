"""Files of real records with one of them spoilt in a random way, and what must become of them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from feedback.errors import ImportRefused
from feedback.imports.records import NO_CHOICES, Choices
from feedback.imports.taking_in import import_files
from feedback.models import Import, Project

Record = dict[str, Any]
NOT_TEXT: list[Any] = [None, 7, 0.5, [], ["x"], {}]


def assert_each_is_refused(
    records: Sequence[Record],
    folder: Path,
    *,
    file_format: str,
    wrong: Mapping[str, Sequence[Any]],
    is_list: bool,
    may_lack: Sequence[str] = (),
    beside: Sequence[Path] = (),
    choices: Choices = NO_CHOICES,
    count: int = 60,
) -> None:
    """Spoil one record after the other: one fault is named, by the right record, and nothing comes in.

    wrong     per field, values it must not have
    may_lack  those of the fields that need not be there
    beside    whole files of the same import
    """
    chance = random.Random(11)
    path = folder / "spoilt.json"
    before = (Project.objects.count(), Import.objects.count())
    for how in range(count):
        place = chance.randrange(len(records))
        texts = [json.dumps(record, ensure_ascii=False).encode() for record in records]
        texts[place] = spoilt(records[place], wrong, may_lack, chance, how)
        path.write_bytes(b"[" + b",\n".join(texts) + b"]" if is_list else b"\n".join(texts) + b"\n")
        with pytest.raises(ImportRefused) as caught:
            import_files([path, *beside], file_format=file_format, slug="spoilt", choices=choices)
        first, *others = caught.value.message.splitlines()
        unit = "record" if is_list else "line"
        assert f"spoilt.json, {unit} {place + 1}: " in first, (how, first)
        assert others == ["Nothing was imported. Mend the file, then import it again."], (how, others)
        assert first.isprintable()
        assert len(first) < 700
    assert (Project.objects.count(), Import.objects.count()) == before


def spoilt(
    record: Record, wrong: Mapping[str, Sequence[Any]], may_lack: Sequence[str], chance: random.Random, how: int
) -> bytes:
    """The record as JSON with one thing wrong in it; every way comes round."""
    raw = json.dumps(record, ensure_ascii=False).encode()
    ways = [*_as_values(record, wrong, may_lack, chance), *_as_bytes(raw, chance)]
    return ways[how % len(ways)]


def _as_values(
    record: Record, wrong: Mapping[str, Sequence[Any]], may_lack: Sequence[str], chance: random.Random
) -> Iterator[bytes]:
    missing = chance.choice(sorted(set(wrong) - set(may_lack)))
    yield json.dumps({key: value for key, value in record.items() if key != missing}).encode()
    name = chance.choice(sorted(wrong))
    yield json.dumps(record | {name: chance.choice(wrong[name])}).encode()
    text = chance.choice([key for key in wrong if isinstance(record[key], str)] or ["extra"])
    for bad in ("\x00", "\ud83d", "\ude00"):
        yield json.dumps(record | {text: str(record.get(text)) + bad}).encode()
    yield json.dumps(record | {"extra": ["\udc00"]}).encode()
    yield json.dumps(record | {"extra": json.loads("[" * 150 + "]" * 150)}).encode()
    yield chance.choice([b"[]", b"null", b"3", b'"x"'])


def _as_bytes(raw: bytes, chance: random.Random) -> Iterator[bytes]:
    inside = raw.index(b'"') + 1
    yield raw[:inside] + bytes([chance.randrange(0x80, 0xC0)]) + raw[inside:]
    yield raw[:inside] + bytes([chance.randrange(1, 9)]) + raw[inside:]
    yield raw[: inside - 1] + raw[inside:]
    yield raw[: chance.randrange(1, len(raw) - 1)]
    yield raw[:1] + raw[1 : raw.index(b":")] + b': "x", ' + raw[1:]
    yield b'{"extra": NaN, ' + raw[1:]
    yield b'{"extra": 1e999, ' + raw[1:]
    yield b'{"extra": ' + b"9" * 4400 + b", " + raw[1:]
