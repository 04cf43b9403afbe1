"""Open-Assistant's sampling reports: every output a candidate that says how it was sampled, and no comparison."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from feedback.errors import ImportRefused
from feedback.imports.taking_in import import_files
from feedback.invariants import violations
from feedback.models import Candidate, Comparison, Dialogue, Import, Project, Prompt
from tests.feedback.sources import ORIGINALS, needs_originals
from tests.feedback.spoiling import assert_each_is_refused

MODELS = ("1b", "3b", "12b")
REPORT = {
    "model_name": "desk/fern",
    "date": "2024-05-01",
    "args": {"seed": 7},
    "prompts": [
        {
            "prompt": "Name a tree.",
            "results": [
                {"sampling_config": "k50", "sampling_params": {"top_k": 50}, "outputs": ["Oak.", ""]},
                {"sampling_config": "greedy", "sampling_params": {}, "outputs": ["Fir."]},
            ],
        },
        {"prompt": "Name a bird.", "results": []},
    ],
}
pytestmark = [pytest.mark.django_db, pytest.mark.services]


def take_in(*paths: Path, **options: Any):
    return import_files(paths, file_format="open-assistant-reports", slug="sampled", **options)


def written(tmp_path: Path, report: Any) -> Path:
    path = tmp_path / "some.json"
    path.write_text(json.dumps(report, indent=2))
    return path


def original(model: str) -> Path:
    return ORIGINALS / "open-assistant" / "sampling_reports" / f"pythia-{model}-deduped-sft_sampling.dev.json.gz"


def again(source: Import) -> dict[str, Any]:
    """The report of an imported file, from the database alone."""
    dialogues = list(Dialogue.objects.filter(source_import=source).order_by("pk"))
    return dialogues[0].source["report"] | {"prompts": [_prompt(dialogue) for dialogue in dialogues]}


def _prompt(dialogue: Dialogue) -> dict[str, Any]:
    results = [fields | {"outputs": []} for fields in dialogue.source["results"]]
    for candidate in Candidate.objects.filter(dialogue=dialogue).order_by("index"):
        results[candidate.source["result"]]["outputs"].append(candidate.text)
    return {"prompt": dialogue.turns.get().content, "results": results} | dialogue.source.get("fields", {})


def test_a_prompt_becomes_a_dialogue_with_every_output_as_a_candidate(tmp_path):
    (report,) = take_in(written(tmp_path, REPORT))
    first = Dialogue.objects.get(source_key="prompt 1")
    assert first.messages() == first.prompt.messages == [{"role": "user", "content": "Name a tree."}]
    assert [(one.text, one.source["sampling_config"], one.source["model_name"]) for one in first.candidates.all()] == [
        ("Oak.", "k50", "desk/fern"), ("", "k50", "desk/fern"), ("Fir.", "greedy", "desk/fern"),
    ]  # fmt: skip
    assert first.source["report"] == {"model_name": "desk/fern", "date": "2024-05-01", "args": {"seed": 7}}
    assert not Comparison.objects.exists()
    assert report.notes == {"empty replies, kept and flagged": 1}
    assert again(Import.objects.get()) == REPORT
    assert list(violations()) == []


def test_a_dry_run_changes_nothing_and_the_same_file_twice_is_noticed(tmp_path):
    path = written(tmp_path, REPORT)
    take_in(path, dry_run=True)
    assert not Project.objects.exists()
    take_in(path)
    (report,) = take_in(path)
    assert "imported already" in report.known


@pytest.mark.parametrize(
    ("where", "value", "told"),
    [
        (["model_name"], "", "field model_name should have 1 to 200 characters"),
        (["prompts"], {}, "field prompts should be a list, not {}. Is this a sampling report"),
        (["prompts"], [], "field prompts is empty"),
        (["prompts", 1], 3, r"field prompts\[1\] should be a prompt with its results, not 3"),
        (["prompts", 1, "prompt"], " ", r"field prompts\[1\].prompt is empty"),
        (["prompts", 0, "results", 1], "x", r"field prompts\[0\].results\[1\] should be a result"),
        (["prompts", 0, "results", 1, "outputs"], None, r"field prompts\[0\].results\[1\].outputs should be a list"),
        (["prompts", 0, "results", 1, "outputs"], [4], r"field .*\[1\].outputs\[0\] should be text, not 4"),
        (["prompts", 0, "results", 1, "sampling_params"], "\ude00", r"field .*\[1\].'sampling_params' holds"),
        (["prompts", 0, "results", 1, "sampling_config"], "x" * 201, "field .*sampling_config should have 1 to 200"),
    ],
)  # fmt: skip
def test_a_fault_is_named_by_its_place_in_the_report(tmp_path, where, value, told):
    report: Any = copy.deepcopy(REPORT)
    inner = report
    for step in where[:-1]:
        inner = inner[step]
    inner[where[-1]] = value
    with pytest.raises(ImportRefused, match=f"record 1: {told}"):
        take_in(written(tmp_path, report))
    assert not Project.objects.exists()


@needs_originals
def test_the_original_reports_come_in_whole():
    reports = take_in(*map(original, MODELS))
    assert [one.counts["dialogues"] for one in reports] == [69, 69, 69]
    assert [one.counts["candidates"] for one in reports] == [69 * 7] * 3
    assert Prompt.objects.count() == 69  # the three models were asked the same
    for source, model in zip(Import.objects.order_by("pk"), MODELS, strict=True):
        assert again(source) == json.loads(gzip.decompress(original(model).read_bytes()))
    assert list(violations()) == []


@needs_originals
def test_spoilt_originals_are_each_refused_by_the_right_record(tmp_path):
    records = [json.loads(gzip.decompress(original(model).read_bytes())) for model in MODELS]
    for one in records:
        one["prompts"] = one["prompts"][:3]
    wrong = {"model_name": [None, 3, [], "", "x" * 201], "prompts": [None, "x", {}, [], [3], [{"prompt": "x"}]]}
    assert_each_is_refused(records, tmp_path, file_format="open-assistant-reports", wrong=wrong, is_list=True)
