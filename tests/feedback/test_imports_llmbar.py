"""LLMBar: pairs with a gold label, of five files that are told apart by their folders."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from feedback.errors import ImportRefused
from feedback.imports.taking_in import import_files
from feedback.invariants import violations
from feedback.models import Comparison, Import, Project, Ranking
from tests.feedback.sources import ORIGINALS, file_of, needs_originals
from tests.feedback.spoiling import NOT_TEXT, assert_each_is_refused

FOLDERS = {
    "Natural": 73,
    "Adversarial/GPTInst": 64,
    "Adversarial/GPTOut": 29,
    "Adversarial/Manual": 37,
    "Adversarial/Neighbor": 96,
}
RECORD = {"input": "Name a tree.", "output_1": "A rose.", "output_2": "An oak.", "label": 2}
pytestmark = [pytest.mark.django_db, pytest.mark.services]


def take_in(*paths: Path, **options: Any):
    return import_files(paths, file_format="llmbar", slug="gold", **options)


def written(folder: Path, *records: dict[str, Any]) -> Path:
    return file_of(folder, *records, name="dataset.json", as_list=True)


def original(folder: str) -> Path:
    return ORIGINALS / "llmbar" / folder / "dataset.dev.json.gz"


def records_of(path: Path) -> list[dict[str, Any]]:
    return json.loads(gzip.decompress(path.read_bytes()))


def again(source: Import) -> list[dict[str, Any]]:
    """The records of an imported file, from the database alone."""
    found = []
    for comparison in Comparison.objects.filter(dialogue__source_import=source).order_by("pk"):
        outputs = {one.source["field"]: one.text for one in comparison.candidates.all()}
        best = comparison.candidates.get(rank_entries__rank=1).source["field"]
        (turn,) = comparison.dialogue.messages()
        others = comparison.dialogue.source.get("fields", {})
        found.append({"input": turn["content"]} | outputs | {"label": int(best[-1])} | others)
    return found


def test_a_record_becomes_a_comparison_whose_ranking_is_gold(tmp_path):
    take_in(written(tmp_path / "Manual", RECORD))
    comparison = Comparison.objects.get()
    assert comparison.dialogue.source == {"gold": True, "subset": "Manual"}
    assert comparison.source_key == "Manual 1"
    ranking = comparison.rankings.get()
    assert (ranking.annotator_key, ranking.source) == ("llmbar", {"gold": True})
    assert {one.text: ranking.ranks()[one.pk] for one in comparison.candidates.all()} == {"An oak.": 1, "A rose.": 2}
    assert list(violations()) == []


def test_a_folder_that_names_no_subset_is_said_so(tmp_path):
    (report,) = take_in(written(tmp_path / "mine", RECORD | {"why": "roses are shrubs"}))
    assert Comparison.objects.get().dialogue.source == {"gold": True, "fields": {"why": "roses are shrubs"}}
    assert report.notes == {"records of a subset that the folder does not name": 1}


def test_a_dry_run_changes_nothing_and_the_same_file_twice_is_noticed(tmp_path):
    path = written(tmp_path / "Natural", RECORD)
    take_in(path, dry_run=True)
    assert not Project.objects.exists()
    take_in(path)
    (report,) = take_in(path)
    assert "imported already" in report.known


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"label": 0}, "field label should be 1 or 2, the better output, not 0. Is this LLMBar"),
        ({"label": True}, "field label should be 1 or 2"),
        ({"input": " "}, "field input is empty"),
        ({"output_1": None}, "field output_1 should be text, not None"),
    ],
)
def test_a_fault_is_named_by_record_and_field(tmp_path, change, told):
    with pytest.raises(ImportRefused, match=f"record 2: {told}"):
        take_in(written(tmp_path, RECORD, RECORD | change))


@needs_originals
def test_the_original_files_come_in_whole_in_one_go():
    reports = take_in(*map(original, FOLDERS))
    assert [report.counts["comparisons"] for report in reports] == list(FOLDERS.values())
    assert Ranking.objects.filter(annotator_key="llmbar", source__gold=True).count() == sum(FOLDERS.values()) == 299
    for source, folder in zip(Import.objects.order_by("pk"), FOLDERS, strict=True):
        assert again(source) == records_of(original(folder))
    assert list(violations()) == []


@needs_originals
def test_spoilt_originals_are_each_refused_by_the_right_record(tmp_path):
    wrong = dict.fromkeys(("input", "output_1", "output_2"), NOT_TEXT) | {"label": [None, 0, 3, "1", 1.5, False]}
    records = records_of(original("Natural"))[:20]
    assert_each_is_refused(records, tmp_path, file_format="llmbar", wrong=wrong, is_list=True)
