"""Plain text beside what people wrote: which file a name means, and what is refused with its line."""

from __future__ import annotations

import os

import pytest

from rewardtrain import corpora
from rewardtrain.corpora import corpus_file, corpus_of, documents
from rewardtrain.errors import CorpusRefused
from rewardtrain.models import TrainingRun


@pytest.fixture(autouse=True)
def folder(tmp_path, settings):
    settings.DATA_DIR = tmp_path
    (tmp_path / "corpora").mkdir()
    (tmp_path / "secret.txt").write_text("not for learning")
    return tmp_path / "corpora"


def test_a_command_may_name_any_file_and_settings_one_of_the_folder(folder, tmp_path):
    (folder / "plants.txt").write_text("Ivy climbs.")
    assert corpus_file("plants.txt", by_command=False) == folder / "plants.txt"
    assert corpus_file(str(tmp_path / "secret.txt"), by_command=True) == tmp_path / "secret.txt"
    os.symlink(tmp_path / "secret.txt", folder / "link.txt")
    for name in ("../secret.txt", str(tmp_path / "secret.txt"), "link.txt", ".", "", "absent.txt"):
        with pytest.raises(CorpusRefused, match=r"There is no corpus .* Known: .*plants\.txt"):
            corpus_file(name, by_command=False)


def test_a_text_file_is_one_document_and_a_line_of_jsonl_another(folder):
    (folder / "a.txt").write_text("\ufeffOne.\n\nStill one.\n", encoding="utf-8")
    assert documents(folder / "a.txt") == ["One.\n\nStill one.\n"]
    (folder / "b.jsonl").write_text('{"text": "one\\u2028still one", "id": 3}\n\n{"text": " "}\n{"text": "two"}\n')
    assert documents(folder / "b.jsonl") == ["one\u2028still one", "two"]
    (folder / "c.txt").write_text(" \n")
    assert documents(folder / "c.txt") == []


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("a.jsonl", b'{"text": "fine"}\n{"text": ', "Line 2 of a.jsonl is no JSON"),
        ("a.jsonl", b'{"text": "fine"}\n\n{"texts": "?"}', "Line 3 of a.jsonl has no text"),
        ("a.jsonl", b'["text"]', "Line 1 of a.jsonl has no text"),
        ("a.jsonl", b"[" * 100_000, "Line 1 of a.jsonl is no JSON"),
        ("a.txt", b"gr\xfcn", "a.txt is not UTF-8: byte 2"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(name, content, wanted, folder):
    (folder / name).write_bytes(content)
    with pytest.raises(CorpusRefused, match=wanted):
        documents(folder / name)


def test_a_file_too_large_to_hold_is_refused(folder, monkeypatch):
    monkeypatch.setattr(corpora, "MOST_BYTES", 2**20)
    (folder / "a.txt").write_text("x" * (2**20 + 1))
    with pytest.raises(CorpusRefused, match="larger than 1 MB. Name a sample"):
        documents(folder / "a.txt")


def test_a_run_goes_on_with_the_file_it_was_begun_with_or_not_at_all(folder):
    (folder / "a.txt").write_text("Ivy climbs.")
    run = TrainingRun(pk=3)
    texts, about = corpus_of(run, "a.txt")
    assert texts == ["Ivy climbs."] and (about["file"], about["documents"], len(about["sha256"])) == ("a.txt", 1, 64)
    run.result = {"corpus": about}
    assert corpus_of(run, "a.txt") == (texts, about)
    (folder / "a.txt").write_text("Ivy falls.")
    with pytest.raises(CorpusRefused, match="changed since run 3 was begun"):
        corpus_of(run, "a.txt")
    (folder / "b.txt").write_text(" ")
    with pytest.raises(CorpusRefused, match="holds no text"):
        corpus_of(TrainingRun(pk=4), "b.txt")
    assert corpus_of(TrainingRun(pk=4), "") == ([], {})
