"""Taking files in: all or nothing, once only, and each fault by its line."""

from __future__ import annotations

import copy
import gzip
import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import closing
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from config import heartbeats
from feedback.errors import ImportRefused
from feedback.imports import preparing, taking_in
from feedback.imports.hh_rlhf import read_pair
from feedback.imports.preparing import prepare
from feedback.imports.reading import Malformed, Problems, parse_object
from feedback.imports.records import Format, ImportedDialogue
from feedback.imports.taking_in import import_files, inspect
from feedback.management.commands import _reading
from feedback.models import AuditEntry, Candidate, Comparison, Import, Project, Prompt, RankEntry, Ranking, Turn
from feedback.prompts import add_prompt
from tests import make
from tests.feedback.sources import OURS, read_lines

PAIRS = OURS / "hh_rlhf.jsonl"
TREES = OURS / "open_assistant_trees.jsonl"
FORMATS = {"hh-rlhf": PAIRS, "open-assistant": TREES}
pytestmark = [pytest.mark.django_db, pytest.mark.services]


def run(*paths: Path, file_format: str = "hh-rlhf", slug: str = "taken-in", **options: Any) -> str:
    out = StringIO()
    call_command("import_feedback", *paths, f"--format={file_format}", f"--project={slug}", stdout=out, **options)
    return out.getvalue()


def row_counts() -> dict[str, int]:
    return {model._meta.label: model._default_manager.count() for model in apps.get_app_config("feedback").get_models()}


def pair(opening: str = "Hi", chosen: str = "Yes.", rejected: str = "No.", **others: Any) -> str:
    sides = {
        side: f"\n\nHuman: {opening}\n\nAssistant: {reply}"
        for side, reply in (("chosen", chosen), ("rejected", rejected))
    }
    return json.dumps(sides | others)


def written(tmp_path: Path, *lines: str, name: str = "pairs.jsonl") -> Path:
    path = tmp_path / name
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_the_command_makes_the_project_and_says_what_came_in_and_what_is_next():
    told = run(PAIRS)
    project = Project.objects.get(slug="taken-in")
    assert project.name == "Taken in"
    assert "13 lines, 13 dialogues with 11 openings, 26 replies, 13 comparisons" in told
    assert "equal pairs, kept as ties: 1" in told
    assert "manage.py export --project taken-in" in told


def test_an_existing_project_is_used_and_left_as_it_is():
    project = make.make_project("taken-in", with_policy=False, guidelines="Be kind.")
    run(PAIRS)
    project.refresh_from_db()
    assert (project.guidelines, project.imports.count()) == ("Be kind.", 1)


def test_the_same_file_again_says_when_and_changes_nothing():
    run(PAIRS)
    before = row_counts()
    told = run(PAIRS)
    assert "imported already on" in told
    assert "nothing was changed" in told
    assert row_counts() == before


def test_a_compressed_copy_is_the_same_file(tmp_path):
    run(PAIRS)
    copy_of_it = tmp_path / "copy.jsonl.gz"
    copy_of_it.write_bytes(gzip.compress(PAIRS.read_bytes()))
    assert "imported already on" in run(copy_of_it)


def test_the_same_file_may_go_into_another_project():
    run(PAIRS)
    run(PAIRS, slug="other")
    assert Import.objects.count() == 2


def test_the_same_file_twice_in_one_command_is_taken_in_once(tmp_path):
    copy_of_it = tmp_path / "copy.jsonl"
    copy_of_it.write_bytes(PAIRS.read_bytes())
    told = run(PAIRS, copy_of_it)
    assert "the same as" in told
    assert Comparison.objects.count() == 13


def test_a_file_that_somebody_takes_in_at_the_same_moment_is_taken_in_once(monkeypatch):
    mark = taking_in.mark_known
    looks = []

    def look_before_the_other_is_done(*args: Any) -> None:
        looks.append(1)
        if len(looks) > 1:
            mark(*args)

    import_files([PAIRS], file_format="hh-rlhf", slug="taken-in")
    monkeypatch.setattr(taking_in, "mark_known", look_before_the_other_is_done)
    (report,) = import_files([PAIRS], file_format="hh-rlhf", slug="taken-in")
    assert report.known.startswith("imported already on")
    assert Comparison.objects.count() == 13


def test_a_dry_run_reports_and_changes_nothing(tmp_path):
    before = row_counts()
    told = run(PAIRS, dry_run=True, json=tmp_path / "report.json")
    assert "13 comparisons" in told
    assert "nothing was changed" in told
    assert row_counts() == before
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["dry_run"] is True
    assert report["files"][0]["counts"]["comparisons"] == 13


def test_one_bad_file_keeps_all_out(tmp_path):
    bad = written(tmp_path, pair(), '{"chosen": "no transcript", "rejected": 3}')
    before = row_counts()
    with pytest.raises(CommandError, match=r"line 2: field chosen should begin with a blank line and 'Human:'"):
        run(PAIRS, bad)
    assert row_counts() == before


def test_a_fault_while_writing_takes_everything_back(monkeypatch):
    before = row_counts()

    record = taking_in.audit.record

    def break_down(action: str, **about: Any) -> None:
        record(action, **about)
        if action == "import.taken_in":
            raise RuntimeError("disk full")

    monkeypatch.setattr(taking_in.audit, "record", break_down)
    with pytest.raises(RuntimeError, match="disk full"):
        import_files([PAIRS], file_format="hh-rlhf", slug="taken-in")
    assert row_counts() == before


def test_a_file_that_changes_between_the_two_readings_is_refused(tmp_path, monkeypatch):
    path = written(tmp_path, pair("One"), pair("Two"))
    known = taking_in.mark_known

    def change_it_too(*args: Any) -> None:
        known(*args)
        written(tmp_path, pair("One"), pair("Three"))

    monkeypatch.setattr(taking_in, "mark_known", change_it_too)
    before = row_counts()
    with pytest.raises(ImportRefused, match="changed while it was read"):
        import_files([path], file_format="hh-rlhf", slug="taken-in")
    assert row_counts() == before


@pytest.mark.django_db(transaction=True)
def test_nobody_waits_while_files_are_read(monkeypatch):
    read = taking_in.FORMATS["hh-rlhf"].read
    held = []

    def watched(*args: Any) -> Iterator[ImportedDialogue]:
        for record in read(*args):
            held.append(connection.in_atomic_block)
            yield record

    monkeypatch.setitem(taking_in.FORMATS, "hh-rlhf", Format(watched))
    run(PAIRS)
    assert held == [False] * 2 * 13


def test_what_is_written_is_written_many_rows_at_a_time(tmp_path):
    path = written(tmp_path, *(pair(f"Question {n}") for n in range(1000)))
    with CaptureQueriesContext(connection) as asked:
        run(path)
    assert (Comparison.objects.count(), Prompt.objects.count(), RankEntry.objects.count()) == (1000, 1000, 2000)
    assert len(asked) < 300


def test_openings_and_rows_of_many_chunks_are_those_of_one(tmp_path, monkeypatch):
    def rows(slug: str) -> list[Any]:
        run(path, slug=slug)
        rankings = Ranking.objects.filter(comparison__dialogue__project__slug=slug).order_by("pk")
        return [
            (
                one.comparison.source_key,
                one.comparison.dialogue.messages(),
                one.comparison.dialogue.prompt.messages,
                [(reply.turns, reply.source, one.ranks()[reply.pk]) for reply in one.comparison.candidates.all()],
            )
            for one in rankings
        ]

    path = written(tmp_path, *(pair(f"Question {n % 7}", rejected=f"No {n}.") for n in range(20)))
    whole = rows("whole")
    assert (len(whole), whole[8][0], whole[8][1][0]["content"]) == (20, "line 9", "Question 1")
    monkeypatch.setattr(preparing, "MOST_DIALOGUES", 3)
    assert rows("threes") == whole
    monkeypatch.setattr(preparing, "MOST_CHARACTERS", 1)
    assert rows("ones") == whole
    assert Prompt.objects.count() == 3 * 7


def test_memory_holds_as_many_dialogues_as_their_text_allows(monkeypatch):
    sizes = []
    monkeypatch.setattr(preparing, "MOST_CHARACTERS", 100)
    monkeypatch.setattr(preparing, "rows_of", lambda records, file_format: sizes.append(len(records)))
    with closing(preparing.Spool()) as spool:
        turns = [{"role": "user", "content": "x" * 40}]
        prepare((ImportedDialogue(str(n), turns) for n in range(7)), file_format="hh-rlhf", spool=spool)
    assert sizes == [3, 3, 1]


@pytest.fixture
def long_to_write(monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path) -> None:
    """Any file takes longer to write than people may wait; the signs of life lie in a folder of their own."""
    settings.DATA_DIR = tmp_path
    monkeypatch.setattr(_reading, "LONGEST_WAIT", 0)


@pytest.mark.skipif(connection.vendor != "sqlite", reason="on PostgreSQL nobody waits")
@pytest.mark.usefixtures("long_to_write")
def test_a_file_that_takes_long_is_refused_while_nestbox_runs_on_sqlite():
    heartbeats.touch("beat")
    before = row_counts()
    with pytest.raises(CommandError, match="nobody can save anything while this is written.*Stop Nestbox first"):
        run(PAIRS)
    assert row_counts() == before
    assert "13 comparisons" in run(PAIRS, dry_run=True)
    assert "13 comparisons" in run(PAIRS, anyway=True)


@pytest.mark.usefixtures("long_to_write")
def test_a_file_that_takes_long_is_taken_when_nestbox_is_stopped():
    heartbeats.touch("beat")
    os.utime(heartbeats.folder() / "beat", (0, 0))
    assert "13 comparisons" in run(PAIRS)


@pytest.mark.usefixtures("long_to_write")
def test_on_postgresql_a_file_is_taken_while_nestbox_runs(monkeypatch):
    heartbeats.touch("beat")
    monkeypatch.setattr(_reading, "connection", SimpleNamespace(vendor="postgresql"))
    assert "13 comparisons" in run(PAIRS)


def test_the_rows_a_file_becomes_are_told_before_they_are_written():
    before = sum(row_counts().values())
    (report,) = import_files([PAIRS], file_format="hh-rlhf", slug="taken-in")
    project_import_and_their_audit_entries, openings_alike = 4, 2  # two in the file share the group of another
    written_rows = sum(row_counts().values()) - before - project_import_and_their_audit_entries
    assert 0 <= report.rows - written_rows <= openings_alike
    texts = [*Turn.objects.values("content"), *(turn for one in Candidate.objects.all() for turn in one.turns)]
    assert report.characters == sum(len(text["content"]) for text in texts)


def test_a_rehearsal_takes_nothing_in():
    make.make_project("played", with_policy=False, is_rehearsal=True)
    with pytest.raises(CommandError, match="played is a rehearsal"):
        run(PAIRS, slug="played")


@pytest.mark.parametrize("slug", ["two words", "a/b", "", "x" * 61])
def test_a_project_name_that_cannot_be_is_refused(slug):
    with pytest.raises(ImportRefused, match="project name"):
        import_files([PAIRS], file_format="hh-rlhf", slug=slug)


def test_missing_and_empty_files_are_named(tmp_path):
    with pytest.raises(CommandError, match="nowhere.jsonl is no file"):
        run(tmp_path / "nowhere.jsonl")
    with pytest.raises(CommandError, match="holds no lines"):
        run(written(tmp_path, "", "  "))


def test_blank_lines_are_no_fault_and_lines_keep_their_number(tmp_path):
    path = written(tmp_path, "", pair("One"), "", pair("Two"))
    run(path)
    assert sorted(Comparison.objects.values_list("source_key", flat=True)) == ["line 2", "line 4"]


def test_a_byte_order_mark_is_no_fault(tmp_path):
    path = tmp_path / "marked.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + pair().encode())
    run(path)
    assert Comparison.objects.count() == 1


def test_openings_join_the_group_their_twins_are_in():
    project = make.make_project("taken-in", with_policy=False)
    twin = add_prompt(
        project=project,
        messages=[{"role": "user", "content": "why are my basil leaves yellow"}],
        group="basil",
        split="test",
    )
    run(PAIRS)
    imported = Prompt.objects.filter(project=project, fingerprint=twin.fingerprint)
    assert imported.count() == 3  # as typed twice, and the one that was there
    assert {prompt.group for prompt in imported} == {twin.group}


def test_no_opening_lies_on_two_sides_after_many_imports(tmp_path):
    path = written(tmp_path, *(pair(f"Question {n % 700}{'?' * (n % 3)}", rejected=f"No {n}.") for n in range(1200)))
    run(path)
    run(PAIRS)
    sides = Prompt.objects.values_list("fingerprint", "group__split").distinct()
    assert len(sides) == len({fingerprint for fingerprint, _ in sides})
    assert Ranking.objects.count() == 1213


def test_what_was_done_is_in_the_audit_trail():
    run(PAIRS)
    assert list(AuditEntry.objects.order_by("pk").values_list("action", flat=True)) == [
        "project.created",
        "import.taken_in",
    ]


def refused(path: Path, file_format: str = "hh-rlhf") -> str:
    with pytest.raises(ImportRefused) as caught:
        inspect(path, file_format)
    return caught.value.message


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2: column 2: no valid JSON"),
        ('{"chosen": "x', "line 2: column 12: no valid JSON"),
        ("[1, 2]", "line 2: a list stands here. Write one object per line"),
        ('"text"', "line 2: 'text' is no object"),
        ("nothing", "line 2: column 1: no valid JSON"),
        ("PAR1\x15\x04", "line 2: this is a Parquet file"),
        ('{"chosen": "x"}', "line 2: field chosen should begin with"),
        (json.dumps({"chosen": "\n\nHuman: Hi"}), "line 2: field rejected is missing. Is this the format you named?"),
        (json.dumps({"chosen": 7, "rejected": ""}), "line 2: field chosen should be text, not 7"),
        (json.dumps({"chosen": None}), "line 2: field chosen should be text, not None"),
        (pair(chosen="a\x00b"), "line 2: field chosen holds '\\x00', which is no character"),
        (pair(chosen="half \ud83d"), "line 2: field chosen holds '\\ud83d', which is no character"),
        (pair(extra="half \ude00"), "line 2: field 'extra' holds '\\ude00'"),
        (pair(**{"na\x00me": 1}), "line 2: field 'na\\x00me' holds '\\x00'"),
        (pair(extra={"in\x00side": 1}), "line 2: field 'extra' holds '\\x00'"),
        ('{"chosen": "a", "chosen": "b"}', "line 2: field 'chosen' stands there twice"),
        ('{"chosen": NaN}', "line 2: NaN is no number"),
        ('{"chosen": 1e999}', "line 2: '1e999' is too large a number"),
        ('{"chosen": ' + "9" * 5000 + "}", "line 2: no valid JSON"),
        ('{"chosen": ' + "[" * 100_000 + "]" * 100_000 + "}", "line 2: lists and objects are nested too deep"),
        (pair(extra=json.loads("[" * 101 + "]" * 101)), "line 2: field 'extra' is nested deeper than 100 levels"),
        ('{"chosen": "' + "x" * 500 + '"}', "line 2: field chosen should begin"),
    ],
)
def test_a_malformed_line_is_named_with_field_and_remedy(tmp_path, line, told):
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(f"{pair()}\n{line}\n{pair('Other')}\n".encode("utf-8", "surrogatepass"))
    message = refused(path)
    assert told in message.splitlines()[0]
    assert message.endswith("Nothing was imported. Mend the file, then import it again.")
    assert all(len(part) < 600 and part.isprintable() for part in message.splitlines())


def test_bytes_that_are_no_text_are_named_with_their_place(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(pair().encode() + b'\n{"chosen": "\xff"}\n')
    assert "line 2: byte 13 is not UTF-8" in refused(path)


def test_a_compressed_file_cut_short_is_named(tmp_path):
    path = tmp_path / "pairs.jsonl.gz"
    rows = [pair(f"Question {random.random()}") for _ in range(2000)]
    path.write_bytes(gzip.compress("\n".join(rows).encode())[:-2000])
    assert "damaged or cut short" in refused(path)


def test_a_line_longer_than_a_file_should_have_is_refused_without_reading_on(tmp_path, monkeypatch):
    monkeypatch.setattr("feedback.imports.reading.LONGEST_LINE", 1000)
    assert "line 1: longer than" in refused(written(tmp_path, "x" * 1001))


def test_faults_are_told_up_to_ten():
    problems = Problems("file")
    with pytest.raises(ImportRefused) as caught:
        for number in range(1, 99):
            problems.add(number, Malformed(f"fault {number}"))
    assert caught.value.message.count("file, line ") == 10


def mutations(good: list[bytes], chance: random.Random) -> tuple[list[bytes], int]:
    """A file with one line spoilt in a random way, and the number of that line."""
    lines = list(good)
    place = chance.randrange(len(lines))
    line = lines[place]
    how = chance.randrange(7)
    if how == 0:  # cut short
        lines[place] = line[: chance.randrange(1, len(line) - 1)]
    elif how == 1:  # bad encoding inside a text
        at = line.index(b'": "') + 4
        lines[place] = line[:at] + bytes([chance.randrange(0x80, 0xC0)]) + line[at:]
    elif how == 2:  # a byte no JSON text may have
        at = line.index(b'": "') + 4
        lines[place] = line[:at] + bytes([chance.randrange(0, 0x20)]).replace(b"\n", b"\t") + line[at:]
    elif how == 3:  # another type
        record = json.loads(line)
        wrong = chance.choice([None, 5, 1.5, True, [], ["x"], {}])
        lines[place] = json.dumps(_spoil(record, wrong)).encode()
    elif how == 4:  # a quote lost
        lines[place] = line.replace(b'"', b"", 1)
    elif how == 5:  # nested deep, or a number out of all bounds
        spoilt = chance.choice([b'{"chosen": ' + b"[" * 5000, b'{"prompt": -' + b"9" * 4400 + b"}", b"[]", b"null"])
        lines[place] = spoilt
    else:  # a field twice
        name = line[1 : line.index(b":")]
        lines[place] = b"{" + name + b': "x", ' + line[1:]
    return lines, place + 1


def _spoil(record: dict[str, Any], wrong: Any) -> dict[str, Any]:
    """The record with a field the format needs turned into something else."""
    record = copy.deepcopy(record)
    if "chosen" in record:
        record["rejected"] = wrong
    else:
        record["prompt"]["text"] = wrong
    return record


@pytest.mark.parametrize("file_format", sorted(FORMATS))
def test_five_hundred_spoilt_files_are_each_refused_by_the_right_line(file_format, tmp_path):
    good = [json.dumps(line, ensure_ascii=False).encode() for line in read_lines(FORMATS[file_format])]
    chance = random.Random(7)
    before = row_counts()
    path = tmp_path / "spoilt.jsonl"
    for _ in range(500):
        lines, number = mutations(good, chance)
        path.write_bytes(b"\n".join(lines))
        began = time.monotonic()
        with pytest.raises(ImportRefused) as caught:
            import_files([path], file_format=file_format, slug="taken-in")
        assert time.monotonic() - began < 5
        first = caught.value.message.splitlines()[0]
        assert f"line {number}:" in first, (number, caught.value.message, lines[number - 1][:200])
    assert row_counts() == before


def test_reading_takes_time_in_proportion_to_the_file(tmp_path):
    def seconds(count: int) -> float:
        path = written(tmp_path, *(pair(f"Question {n}") for n in range(count)))
        began = time.process_time()
        inspect(path, "hh-rlhf")
        return time.process_time() - began

    seconds(200)
    assert seconds(8000) < 4 * 2.5 * seconds(2000)  # two doublings


def test_a_twin_among_many_fields_is_found_in_proportion_to_their_number():
    def seconds(count: int) -> float:
        names = [*(f"name {n}" for n in range(count)), f"name {count - 1}"]
        raw = ("{" + ", ".join(f'"{name}": 0' for name in names) + "}").encode()
        began = time.process_time()
        with pytest.raises(Malformed, match=f"field 'name {count - 1}' stands there twice"):
            parse_object(raw)
        return time.process_time() - began

    seconds(1000)
    assert seconds(16_000) < 4 * 2.5 * max(seconds(4_000), 0.05)


def test_long_hostile_transcripts_are_read_in_proportion_to_their_length():
    def seconds(turns: int) -> float:
        text = "\n\nHuman: x\n\n\n\n\n\nAssistant:" * turns
        record = parse_object(json.dumps({"chosen": text, "rejected": text}).encode())
        began = time.process_time()
        read_pair(1, record)
        return time.process_time() - began

    seconds(1000)
    assert seconds(40_000) < 4 * 2.5 * max(seconds(10_000), 0.005)
