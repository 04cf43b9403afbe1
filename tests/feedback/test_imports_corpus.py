"""Corpora taken in: text, Markdown and lines of JSON, a file or a folder of them; all or nothing, each file once."""

from __future__ import annotations

import gzip
import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from feedback.imports.corpus import files_of, import_corpus
from feedback.models import AuditEntry, Document, Import, Passage, Project
from tests import make

pytestmark = [pytest.mark.django_db, pytest.mark.services]

LINES = [
    {"title": "Ferns", "text": "A fern drinks twice a week.", "source": "https://plants.example.org/fern"},
    {"text": "# Roses\n\nA rose drinks once a week.", "url": "https://plants.example.org/rose", "likes": 3},
    {"text": "Mint spreads."},
]


@pytest.fixture
def project() -> Project:
    return make.make_project()


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines_file(folder: Path, records: list[object] = LINES, name: str = "plants.jsonl") -> Path:  # type: ignore[assignment]
    return written(folder, name, "".join(json.dumps(record) + "\n" for record in records))


def run(*paths: Path, **options: object) -> str:
    out = StringIO()
    call_command("import_corpus", *map(str, paths), project="plant-desk", stdout=out, **options)
    return out.getvalue()


def told(*paths: Path, **options: object) -> str:
    """What the command complains of; nothing may have come in."""
    with pytest.raises(CommandError) as refusal:
        run(*paths, **options)
    assert not Document.objects.exists() and not Passage.objects.exists() and not Import.objects.exists()
    return str(refusal.value)


# What comes in


def test_each_line_of_json_is_a_document(project, tmp_path):
    said = run(lines_file(tmp_path))
    found = list(Document.objects.order_by("pk").values_list("title", "source"))
    assert found == [
        ("Ferns", "https://plants.example.org/fern"),
        ("Roses", "https://plants.example.org/rose"),
        ("plants, line 3", "plants.jsonl"),
    ]
    assert [passage.text for passage in Passage.objects.order_by("pk")] == [
        "A fern drinks twice a week.", "A rose drinks once a week.", "Mint spreads.",
    ]  # fmt: skip
    assert "plants.jsonl: 3 documents, 3 passages." in said
    assert "Next: try a search under Corpus in the browser, /projects/plant-desk/corpus/." in said


def test_each_file_of_text_is_a_document_called_by_its_heading_or_its_name(project, tmp_path):
    written(tmp_path, "care/ferns.md", "# All about ferns\n\nShade.\n\n## Water\n\nTwice a week.")
    written(tmp_path, "care/roses.txt.gz", gzip.compress(b"Full sun."))
    written(tmp_path, "care/logo.svg", "<svg/>")
    run(tmp_path, source_base="https://plants.example.org/")
    assert list(Document.objects.order_by("pk").values_list("title", "source")) == [
        ("All about ferns", "https://plants.example.org/care/ferns.md"),
        ("roses", "https://plants.example.org/care/roses.txt.gz"),
    ]
    assert list(Passage.objects.order_by("pk").values_list("heading", "text")) == [
        ("All about ferns", "Shade."), ("All about ferns: Water", "Twice a week."), ("roses", "Full sun."),
    ]  # fmt: skip


def test_a_byte_order_mark_and_other_ends_of_lines_are_no_text(project, tmp_path):
    run(written(tmp_path, "ferns.txt", b"\xef\xbb\xbfShade.\r\n\r\nWater."))
    assert Passage.objects.get().text == "Shade.\n\nWater."


def test_what_was_taken_in_is_written_down(project, tmp_path):
    (report,) = import_corpus(files_of([lines_file(tmp_path)]), project=project)
    source = Import.objects.get()
    assert (source.format, source.file_name, source.sha256) == ("corpus", "plants.jsonl", report.sha256)
    assert (source.report["documents"], source.report["passages"]) == (3, 3)
    entry = AuditEntry.objects.get(action="corpus.taken_in")
    assert entry.details == {"documents": 3, "passages": 3, "known": 0, "brought_back": 0}


def test_the_same_file_comes_in_once_and_the_same_document_is_stored_once(project, tmp_path):
    first = lines_file(tmp_path)
    copy = written(tmp_path, "copy.jsonl.gz", gzip.compress(first.read_bytes()))
    assert "copy.jsonl.gz: the same as plants.jsonl in this list; left out." in run(first, copy)
    assert "plants.jsonl: imported already on" in run(first)
    assert "Nothing new, so nothing was changed." in run(copy)
    more = lines_file(tmp_path, [*LINES[:2], {"title": "Ivy", "text": "Ivy climbs.", "source": "ivy"}], "more.jsonl")
    assert "more.jsonl: 3 documents, 3 passages; 2 stood there already." in run(more)
    assert Document.objects.count() == 4


def test_a_dry_run_reads_and_changes_nothing(project, tmp_path):
    report = tmp_path / "report.json"
    said = run(lines_file(tmp_path), dry_run=True, json=report)
    assert "In all 3 documents, 3 passages of at most 500 characters." in said
    assert "A dry run: nothing was changed." in said
    assert not Document.objects.exists() and not Import.objects.exists()
    found = json.loads(report.read_text())
    assert (found["dry_run"], found["files"][0]["documents"]) == (True, 3)


# What is refused


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "no valid JSON"),
        ("[]", "a list stands here"),
        ('{"title": "Ferns"}', "field text is missing"),
        ('{"text": 3}', "field text should be text, not 3"),
        ('{"text": "  "}', "field text is empty"),
        ('{"text": "a\\u0000b"}', "field text holds '\\x00', which is no character"),
        ('{"text": "a", "title": ["b"]}', "field title should be text"),
        ('{"text": "a", "source": "\\ud800"}', "field source holds"),
        (json.dumps({"text": "a", "title": "t" * 301}), "field title has 301 characters; at most 300 can be kept"),
        (json.dumps({"text": "a", "url": "u" * 501}), "field url has 501 characters; at most 500 can be kept"),
    ],
)
def test_a_line_that_cannot_be_taken_is_named_and_nothing_comes_in(project, tmp_path, line, why):
    good = json.dumps(LINES[0])
    said = told(written(tmp_path, "a.jsonl", f"{good}\n\n{line}\n{good}\n"), written(tmp_path, "b.md", "Good."))
    assert "a.jsonl, line 3: " in said and why in said


def test_a_text_that_is_no_text_is_named_with_the_line(project, tmp_path):
    assert "a.md, line 2: byte 7 is not UTF-8" in told(written(tmp_path, "a.md", b"good\nb\xffd"))
    assert "which is no character" in told(written(tmp_path, "b.txt", b"a\x00b"))
    assert "damaged or cut short" in told(written(tmp_path, "c.txt.gz", gzip.compress(b"whole " * 99)[:-9]))


def test_what_cannot_be_read_at_all_is_refused(project, tmp_path):
    assert "of no kind that can be read" in told(written(tmp_path, "a.pdf", "x"))
    assert "no file that can be read" in told(tmp_path / "missing.md")
    assert "holds no text" in told(written(tmp_path, "empty.md", "\n \n"))
    (tmp_path / "empty").mkdir()
    assert "holds nothing that can be read" in told(tmp_path / "empty")


def test_a_project_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    make.make_project("orchard")
    assert "Projects: orchard." in told(lines_file(tmp_path))


def test_a_file_that_changes_while_it_is_read_is_refused(project, tmp_path):
    path = written(tmp_path, "a.md", "First.")

    def change(reports: object) -> None:
        path.write_text("Second.")

    with pytest.raises(Exception, match="changed while it was read"):
        import_corpus(files_of([path]), project=project, before_writing=change)
    assert not Document.objects.exists() and not Import.objects.exists()


def test_two_who_take_the_same_file_in_at_once_have_it_once(project, tmp_path):
    files = files_of([written(tmp_path, "a.md", "Once.")])

    def the_other(reports: object) -> None:
        import_corpus(files, project=project)

    (report,) = import_corpus(files, project=project, before_writing=the_other)
    assert report.known.startswith("imported already on") and Document.objects.count() == 1
