"""Self-Instruct: tasks become demonstrations, and eight systems' files one comparison for each instruction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from feedback.errors import ImportRefused
from feedback.imports.taking_in import import_files
from feedback.invariants import violations
from feedback.models import Candidate, Comparison, Demonstration, Dialogue, Import, Project, PromptGroup, Ranking
from tests import make
from tests.feedback.sources import ORIGINALS, file_of, needs_originals, read_lines
from tests.feedback.spoiling import NOT_TEXT, assert_each_is_refused

FOLDER = ORIGINALS / "self-instruct"
SEED_TASKS = FOLDER / "seed_tasks.dev.jsonl.gz"
USERS = FOLDER / "human_eval" / "user_oriented_instructions.dev.jsonl.gz"
PREDICTIONS = sorted((FOLDER / "human_eval" / "predictions").glob("*.gz"))
TASK = {
    "id": "seed_7",
    "name": "trees",
    "instruction": "Name a tree.",
    "instances": [{"input": "with lobes", "output": "An oak."}],
    "is_classification": False,
}
ASKED = {"prompt": "Name a tree. Output:", "instruction": "Name a tree.\n", "input": "", "target": "An oak."}
pytestmark = [pytest.mark.django_db, pytest.mark.services]


def take_in(*paths: Path, **options: Any):
    return import_files(paths, file_format="self-instruct", slug="asked", **options)


def system(folder: Path, name: str, *lines: dict[str, Any]) -> Path:
    return file_of(folder, *lines, name=f"{name}_predictions.jsonl")


def parted(dialogue: Dialogue) -> dict[str, str]:
    """Instruction and input of a dialogue's one turn."""
    text, begins = dialogue.turns.get().content, dialogue.source["input_begins"]
    if begins is None:
        return {"instruction": text, "input": ""}
    return {"instruction": text[: max(0, begins - 2)], "input": text[begins:]}


def tasks_again(source: Import) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for one in Dialogue.objects.filter(source_import=source).order_by("pk"):
        said = parted(one)
        if "task" in one.source:
            found.append(
                {"id": one.source_key, "instruction": said["instruction"], "instances": []} | one.source["task"]
            )
        instance = {"input": said["input"], "output": one.demonstrations.get().content}
        found[-1]["instances"].append(instance | one.source.get("fields", {}))
    return found


def predictions_again(name: str) -> list[dict[str, Any]]:
    found = []
    for one in Candidate.objects.filter(source__model_name=name).select_related("dialogue").order_by("pk"):
        found.append(parted(one.dialogue) | {"response": one.text} | one.source["fields"])
    return found


def test_a_task_is_a_demonstration_of_each_instance(tmp_path):
    two = TASK | {"id": "seed_8", "instances": [*TASK["instances"], {"input": "", "output": "A rose.", "note": 1}]}
    take_in(path := file_of(tmp_path, TASK, two))
    texts = Demonstration.objects.order_by("pk")
    assert [text.content for text in texts] == ["An oak.", "An oak.", "A rose."]
    assert [text.dialogue.source_key for text in texts] == ["seed_7", "seed_8 1", "seed_8 2"]
    assert texts[0].dialogue.messages() == [{"role": "user", "content": "Name a tree.\n\nwith lobes"}]
    assert PromptGroup.objects.count() == 1  # all inputs of one instruction
    assert [len(one["instances"]) for one in tasks_again(Import.objects.get())] == [1, 2]
    assert tasks_again(Import.objects.get())[0] == read_lines(path)[0]
    assert list(violations()) == []


def test_instructions_of_users_and_what_systems_answered_lie_on_the_test_side(tmp_path):
    users = file_of(tmp_path, {"id": "u1", "motivation_app": "x"} | {n: TASK[n] for n in ("instruction", "instances")})
    (report, _) = take_in(users, system(tmp_path, "fern", ASKED | {"response": "Moss."}))
    assert set(PromptGroup.objects.values_list("split", flat=True)) == {"test"}
    assert report.notes == {"instructions of users, kept for tests as their authors ask": 1}


def test_where_they_lie_on_another_side_already_they_are_refused(tmp_path):
    project = make.make_project("asked", with_policy=False)
    make.make_prompt(project, text="Name a tree.", split="train")
    with pytest.raises(ImportRefused, match=r"ask that these openings lie in test, and here some lie in train already"):
        take_in(system(tmp_path, "fern", ASKED | {"response": "Moss."}))
    assert not Import.objects.exists()


def test_a_task_in_the_words_of_a_user_lies_apart_from_theirs(tmp_path):
    users = TASK | {"id": "u1", "motivation_app": "x", "instances": [{"input": "else", "output": "A birch."}]}
    take_in(file_of(tmp_path, TASK, users))
    assert PromptGroup.objects.filter(split="test").count() == 1 and PromptGroup.objects.count() == 2


def test_files_of_several_systems_are_one_comparison_that_waits_to_be_ranked(tmp_path):
    other = ASKED | {"input": "with lobes"}
    fern = system(tmp_path, "fern", ASKED | {"response": "Moss."}, other | {"response": "A fern."})
    moss = system(tmp_path, "moss", other | {"response": " An oak."}, ASKED | {"response": ""})
    first, second = take_in(moss, fern)  # the order of the command does not matter
    comparison = Comparison.objects.order_by("pk")[0]
    replies = {one.source["model_name"]: one.text for one in comparison.candidates.all()}
    assert replies == {"fern": "Moss.", "moss": ""}
    assert (Comparison.objects.count(), Candidate.objects.count(), Ranking.objects.count()) == (2, 4, 0)
    assert first.notes == {"replies that stand in the comparisons of fern_predictions.jsonl": 2}
    assert second.notes == {"comparisons that wait to be ranked": 2, "empty replies, kept and flagged": 1}
    assert predictions_again("moss") == [read_lines(moss)[1], read_lines(moss)[0]]
    assert Import.objects.count() == 2
    assert list(violations()) == []


def test_one_file_alone_has_replies_that_nothing_is_compared_with(tmp_path):
    take_in(system(tmp_path, "fern", ASKED | {"response": "Moss."}))
    assert (Comparison.objects.count(), Candidate.objects.count()) == (0, 1)


def test_what_came_in_before_is_not_joined_with_something_new(tmp_path):
    fern, moss = (system(tmp_path, name, ASKED | {"response": name}) for name in ("fern", "moss"))
    take_in(fern, moss)
    assert all("imported already" in report.known for report in take_in(moss, fern))
    oak = system(tmp_path, "oak", ASKED | {"response": "oak"})
    with pytest.raises(ImportRefused, match=r"Import all of them together, each once, into a project that has none"):
        take_in(fern, moss, oak)
    assert Comparison.objects.count() == 1


def test_two_files_of_one_system_are_refused(tmp_path):
    paths = [system(tmp_path / name, "fern", ASKED | {"response": name}) for name in ("a", "b")]
    with pytest.raises(ImportRefused, match="Two files are named after the system 'fern'"):
        take_in(*paths)


def test_a_reply_to_what_the_first_file_does_not_ask_is_refused_and_a_missing_one_is_said(tmp_path):
    fern = system(tmp_path, "fern", ASKED | {"response": "x"}, ASKED | {"input": "more", "response": "y"})
    moss = system(tmp_path, "moss", ASKED | {"input": "else", "response": "z"})
    with pytest.raises(ImportRefused, match="moss_predictions.jsonl, line 1: .* do not stand in fern_predictions"):
        take_in(fern, moss)
    moss = system(tmp_path, "moss", ASKED | {"response": "z"})
    report, _ = take_in(fern, moss)
    assert report.notes["without every system's reply"] == 1


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (TASK | {"id": ""}, "field id should have 1 to 190 characters"),
        (TASK | {"instances": []}, "field instances is empty"),
        (TASK | {"instances": [3]}, r"field instances\[0\] should be an instance with input and output, not 3"),
        (TASK | {"instances": [{"input": "", "output": " "}]}, r"field instances\[0\].output is empty"),
        (
            TASK | {"instruction": " ", "instances": [{"input": "", "output": "x"}]},
            "instruction and input are both empty",
        ),
        (ASKED, "field response is missing. Is this the format you named"),
    ],
)
def test_a_fault_is_named_by_line_and_field(tmp_path, bad, told):
    with pytest.raises(ImportRefused, match=f"line 2: .*{told}"):
        take_in(file_of(tmp_path, TASK, bad))
    assert not Project.objects.exists()


def test_one_question_twice_in_a_file_is_refused(tmp_path):
    with pytest.raises(ImportRefused, match="line 2: this instruction and input stand in this file twice"):
        take_in(system(tmp_path, "fern", ASKED | {"response": "x"}, ASKED | {"response": "y"}))


@needs_originals
def test_the_original_files_come_in_whole_in_one_go():
    reports = take_in(SEED_TASKS, USERS, *PREDICTIONS)
    assert [report.counts["demonstrations"] for report in reports] == [116, 181, *[0] * 8]
    assert [report.counts["comparisons"] for report in reports] == [0, 0, 181, *[0] * 7]
    assert (Candidate.objects.count(), Ranking.objects.count()) == (8 * 181, 0)
    assert Candidate.objects.filter(is_empty=True).count() == 2 + 1 + 31
    first, second = Import.objects.order_by("pk")[:2]
    assert tasks_again(first) == read_lines(SEED_TASKS)
    assert tasks_again(second) == read_lines(USERS)
    for path in PREDICTIONS:
        assert predictions_again(path.name.partition("_predictions")[0]) == read_lines(path)
    assert not Comparison.objects.exclude(dialogue__prompt__group__split="test").exists()
    assert list(violations()) == []


@needs_originals
def test_spoilt_originals_are_each_refused_by_the_right_line(tmp_path):
    wrong = {
        "id": [None, 3, "", []],
        "instruction": NOT_TEXT,
        "instances": [None, "x", [], {}, [3], [{}], [{"input": "x"}], [{"input": "x", "output": ""}]],
    }
    assert_each_is_refused(
        read_lines(SEED_TASKS)[:20], tmp_path, file_format="self-instruct", wrong=wrong, is_list=False
    )
    wrong = dict.fromkeys(("instruction", "input", "response"), NOT_TEXT)
    lines = read_lines(PREDICTIONS[0])
    assert_each_is_refused(
        lines[:20], tmp_path, file_format="self-instruct", wrong=wrong, is_list=False, beside=PREDICTIONS[1:2], count=20
    )
