"""Records of a JSON list: as lines are, one in memory at a time, each fault by its record."""

from __future__ import annotations

import gzip
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.errors import ImportRefused
from feedback.imports import json_records, reading
from feedback.imports.json_records import Cutter, JsonRecords, records_or_lines
from feedback.imports.reading import Lines, Problems


def read(path: Path, kind: Any = JsonRecords) -> list[tuple[int, dict[str, Any]]]:
    problems = Problems("some.json")
    found = list(kind(path, problems))
    problems.raise_if_any()
    return found


def written(tmp_path: Path, content: bytes | str) -> Path:
    path = tmp_path / "some.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return path


def refused(tmp_path: Path, content: bytes | str) -> str:
    with pytest.raises(ImportRefused) as caught:
        read(written(tmp_path, content))
    return caught.value.message


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
RECORDS = st.lists(st.dictionaries(st.text(), VALUES, max_size=4), max_size=5)


@given(RECORDS, st.sampled_from([None, 0, 3]), st.booleans(), st.integers(1, 7))
def test_the_records_are_those_of_the_list_however_it_is_written_and_read(records, indent, is_ascii, size):
    raw = f" {json.dumps(records, indent=indent, ensure_ascii=is_ascii)}\n".encode()
    cutter = Cutter()
    pieces = [raw[at : at + size] for at in range(0, len(raw), size)]
    assert [json.loads(one) for piece in pieces for one in cutter.take(piece)] == records
    assert (cutter.is_list, cutter.is_ended, cutter.finish()) == (True, True, b"")


def test_records_are_numbered_from_one(tmp_path):
    path = written(tmp_path, '[{"a": "}],["},\n {"a": "\\\\"}, {"a": "\\""}]')
    assert read(path) == [(1, {"a": "}],["}), (2, {"a": "\\"}), (3, {"a": '"'})]


def test_a_file_that_is_one_object_is_one_record(tmp_path):
    assert read(written(tmp_path, '\n{"a": [1, {"b": 2}],\n "c": "]"}\n')) == [(1, {"a": [1, {"b": 2}], "c": "]"})]


def test_a_list_is_told_from_lines_by_its_first_byte(tmp_path):
    for content, kind in ((b'\xef\xbb\xbf\n [{"a": 1}]', JsonRecords), (b'{"a": 1}\n', Lines), (b"", Lines)):
        for raw in (content, gzip.compress(content)):
            found = records_or_lines(written(tmp_path, raw), Problems("some.json"))
            assert type(found) is kind
            assert [record for _, record in found] == ([{"a": 1}] if content else [])


def test_a_compressed_list_has_the_hash_of_the_plain_one(tmp_path):
    hashes = set()
    for raw in (b'[{"a": 1}]', gzip.compress(b'[{"a": 1}]')):
        records = JsonRecords(written(tmp_path, raw), Problems("some.json"))
        assert list(records) == [(1, {"a": 1})]
        hashes.add(records.sha256)
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ("{", "record 2: its character 2: no valid JSON"),
        ('{"a": "x', "record 2: its character 10: no valid JSON (Invalid control character"),
        ("[1, 2]", "record 2: a list stands here"),
        ('"text"', "record 2: 'text' is no object. Each record should be one whole object"),
        ("nothing", "record 2: its character 1: no valid JSON"),
        ("", "record 2: nothing stands here. Is there a comma too many?"),
        ('{"a": 1} {"b": 2}', "record 2: its character 10: no valid JSON"),
        ('{"a": 1}}', "record 2: its character 9: no valid JSON"),
        ('{"a": [1}', "record 2: its character 9: no valid JSON"),
        ('{"a": +1}', "record 2: its character 7: no valid JSON"),
        ('{"a": "b", "a": "c"}', "record 2: field 'a' stands there twice"),
        ('{"a": NaN}', "record 2: NaN is no number"),
        ('{"a": 1e999}', "record 2: '1e999' is too large a number"),
        ('{"a": ' + "9" * 5000 + "}", "record 2: no valid JSON"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "record 2: lists and objects are nested too deep"),
    ],
)
def test_a_fault_is_named_by_its_record(tmp_path, second, told):
    assert told in refused(tmp_path, f'[{{"a": 1}},\n {second},\n {{"a": 3}}]').splitlines()[0]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('[{"a": 1}, {"a": 2}', "record 2: the list does not end here: a ] is missing"),
        ('[{"a": 1}, {"a": ', "record 2: its character 6: no valid JSON"),
        ('[{"a": 1}, ]', "record 2: nothing stands here"),
        ('[{"a": 1}] x', "record 1: something stands after the end of the list"),
        ('[{"a": 1}][{"a": 1}]', "record 1: something stands after the end of the list"),
        (b'[{"a": 1}, {"a": "x\xff"}]', "record 2: byte 9 is not UTF-8"),
        (b"PAR1\x15\x04", "record 1: this is a Parquet file"),
        ("  ", ""),
    ],
)
def test_a_fault_of_the_list_itself_is_named(tmp_path, content, told):
    if told:
        assert told in refused(tmp_path, content)
    else:
        assert read(written(tmp_path, content)) == []


def test_faults_that_leave_the_list_whole_are_all_named(tmp_path):
    message = refused(tmp_path, '[{"a": NaN}, {"a": 1}, 3]')
    assert [line.split(": ")[0] for line in message.splitlines()[:2]] == ["some.json, record 1", "some.json, record 3"]


def test_a_compressed_list_cut_short_is_named_once(tmp_path):
    whole = gzip.compress(json.dumps([{"a": random.random()} for _ in range(3000)]).encode())
    message = refused(tmp_path, whole[:-2000])
    assert "damaged or cut short" in message
    assert message.count("some.json, record") == 1


def test_a_long_record_is_refused_before_all_of_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "LONGEST_LINE", 1000)
    monkeypatch.setattr(json_records, "READ_AT_ONCE", 100)
    assert len(read(written(tmp_path, json.dumps([{"a": "x" * 900}] * 50)))) == 50
    told: list[int] = []
    path = written(tmp_path, '[{"a": 1}, {"a": "' + "x" * 100_000)
    with pytest.raises(ImportRefused, match="record 2: longer than"):
        list(JsonRecords(path, Problems("some.json"), told.append))
    assert sum(told) < 1500


def test_reading_takes_time_in_proportion_to_the_file(tmp_path):
    def seconds(count: int) -> float:
        """The quickest of five: what else the machine does only ever adds."""
        path = written(tmp_path, json.dumps([{"a": 'x"[{,' * 20, "b": [1, 2]}] * count))
        taken = []
        for _ in range(5):
            began = time.process_time()
            read(path)
            taken.append(time.process_time() - began)
        return min(taken)

    assert seconds(8000) < 4 * 2.5 * seconds(2000)  # two doublings
