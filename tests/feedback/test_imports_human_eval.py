"""HumanEval: a prompt and the rest of its function; the tests are kept and never run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from feedback.errors import ImportRefused
from feedback.imports.taking_in import import_files
from feedback.invariants import violations
from feedback.models import Demonstration, Dialogue, Project
from tests.feedback.sources import ORIGINALS, file_of, needs_originals, read_lines
from tests.feedback.spoiling import NOT_TEXT, assert_each_is_refused

ORIGINAL = ORIGINALS / "human-eval" / "HumanEval.dev.jsonl.gz"
RECORD = {
    "task_id": "Garden/1",
    "prompt": "def legs(hens):\n",
    "entry_point": "legs",
    "canonical_solution": "    return 2 * hens\n",
    "test": "raise SystemExit('this was run')",
}
pytestmark = [pytest.mark.django_db, pytest.mark.services]


def take_in(path: Path, **options: Any):
    return import_files([path], file_format="human-eval", slug="code", **options)


def again() -> list[dict[str, Any]]:
    """The lines of the imported file, from the database alone."""
    found = []
    for one in Dialogue.objects.order_by("pk"):
        told = {name: one.source[name] for name in ("entry_point", "test")} | one.source.get("fields", {})
        said = {"prompt": one.turns.get().content, "canonical_solution": one.demonstrations.get().content}
        found.append({"task_id": one.source_key} | said | told)
    return found


def test_a_solution_is_a_demonstration_and_its_tests_are_kept_and_not_run(tmp_path):
    take_in(file_of(tmp_path, RECORD | {"level": 2}))
    text = Demonstration.objects.get()
    assert (text.content, text.annotator_key) == (
        "    return 2 * hens\n",
        "human-eval",
    )  # blanks mean something in code
    assert text.dialogue.source == {"entry_point": "legs", "test": RECORD["test"], "fields": {"level": 2}}
    assert again() == [RECORD | {"level": 2}]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"task_id": ""}, "field task_id should have 1 to 200 characters"),
        ({"prompt": " "}, "field prompt is empty"),
        ({"canonical_solution": "\n"}, "field canonical_solution is empty"),
        ({"test": None}, "field test should be text, not None"),
    ],
)
def test_a_fault_is_named_by_line_and_field(tmp_path, change, told):
    with pytest.raises(ImportRefused, match=f"line 2: {told}"):
        take_in(file_of(tmp_path, RECORD, RECORD | change))
    assert not Project.objects.exists()


@needs_originals
def test_the_original_file_comes_in_whole():
    (report,) = take_in(ORIGINAL)
    assert (report.counts["demonstrations"], report.counts["dialogues"]) == (124, 124)
    assert again() == read_lines(ORIGINAL)
    assert list(violations()) == []


@needs_originals
def test_spoilt_originals_are_each_refused_by_the_right_line(tmp_path):
    wrong = dict.fromkeys(("task_id", "prompt", "canonical_solution"), [*NOT_TEXT, ""])
    wrong |= dict.fromkeys(("entry_point", "test"), NOT_TEXT)
    assert_each_is_refused(read_lines(ORIGINAL)[:20], tmp_path, file_format="human-eval", wrong=wrong, is_list=False)
