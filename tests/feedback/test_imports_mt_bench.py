"""MT-bench: questions become prompts, references whole dialogues, and the two kinds of file belong to one import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from feedback.errors import ImportRefused
from feedback.imports.taking_in import import_files
from feedback.invariants import violations
from feedback.models import Dialogue, Import, Project, Prompt
from tests.feedback.sources import ORIGINALS, file_of, needs_originals, read_lines
from tests.feedback.spoiling import assert_each_is_refused

QUESTIONS = ORIGINALS / "mt-bench" / "question.dev.jsonl.gz"
REFERENCES = ORIGINALS / "mt-bench" / "reference_answer_gpt-4.dev.jsonl.gz"
QUESTION = {
    "question_id": 5,
    "category": "garden",
    "turns": ["Name a tree.", "And its leaf?"],
    "reference": ["Oak", ""],
}
ANSWER = {
    "question_id": 5,
    "answer_id": "a1",
    "model_id": "fern-4",
    "choices": [{"index": 0, "turns": ["An oak.", "It has lobes."]}],
    "tstamp": 1.25,
}
pytestmark = [pytest.mark.django_db, pytest.mark.services]


def take_in(*paths: Path, **options: Any):
    return import_files(paths, file_format="mt-bench", slug="bench", **options)


def questions_again(source: Import) -> list[dict[str, Any]]:
    found = []
    for one in Dialogue.objects.filter(source_import=source).order_by("pk"):
        turns = [one.turns.get().content, *one.source["later_turns"]]
        reference = {name: one.source[name] for name in ("reference",) if name in one.source}
        found.append({"question_id": int(one.source_key), "turns": turns} | reference | one.source["fields"])
    return found


def references_again(source: Import) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for one in Dialogue.objects.filter(source_import=source).order_by("pk"):
        if "answer" in one.source:
            found.append(one.source["answer"] | {"choices": []})
        turns = [turn["content"] for turn in one.messages() if turn["role"] == "assistant"]
        found[-1]["choices"].append(one.source["choice"] | {"turns": turns})
    return found


def test_a_question_is_a_prompt_whose_second_turn_waits_for_an_answer(tmp_path):
    take_in(file_of(tmp_path, QUESTION))
    prompt = Prompt.objects.get()
    assert (prompt.messages, prompt.is_active) == ([{"role": "user", "content": "Name a tree."}], False)
    dialogue = Dialogue.objects.get()
    assert (dialogue.prompt, dialogue.source_key) == (prompt, "5")
    assert dialogue.source == {
        "later_turns": ["And its leaf?"], "reference": ["Oak", ""], "fields": {"category": "garden"},
    }  # fmt: skip


def test_a_reference_is_the_whole_dialogue_with_both_answers(tmp_path):
    reports = take_in(file_of(tmp_path, ANSWER, name="answers.jsonl"), file_of(tmp_path, QUESTION))
    dialogue = Dialogue.objects.get(source__model_name="fern-4")
    assert [(turn["role"], turn["content"]) for turn in dialogue.messages()] == [
        ("user", "Name a tree."), ("assistant", "An oak."), ("user", "And its leaf?"), ("assistant", "It has lobes."),
    ]  # fmt: skip
    assert dialogue.prompt == Prompt.objects.get()
    assert [dict(report.notes) for report in reports] == [
        {"reference answers": 1}, {"questions": 1, "questions with a reference of their own": 1},
    ]  # fmt: skip
    first, second = Import.objects.order_by("pk")
    assert (references_again(first), questions_again(second)) == ([ANSWER], [QUESTION])
    assert list(violations()) == []


def test_a_reference_without_its_question_is_refused_also_when_that_came_in_before(tmp_path):
    questions, answers = file_of(tmp_path, QUESTION), file_of(tmp_path, ANSWER, name="answers.jsonl")
    take_in(questions)
    with pytest.raises(ImportRefused, match="line 1: question_id 5 is the name of no question .* in the same command"):
        take_in(answers)
    known, new = take_in(questions, answers)
    assert ("imported already" in known.known, new.known) == (True, "")
    assert Dialogue.objects.count() == 2


def test_a_dry_run_changes_nothing(tmp_path):
    take_in(file_of(tmp_path, QUESTION), dry_run=True)
    assert not Project.objects.exists()


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (QUESTION, "question_id 5 stands in this file twice"),
        (
            QUESTION | {"question_id": "6"},
            "field question_id should be a whole number from 0, not '6'. Is this MT-bench",
        ),
        (QUESTION | {"question_id": 6, "turns": []}, r"field turns should be a list of texts, not \[\]"),
        (QUESTION | {"question_id": 6, "turns": ["x", " "]}, "field turns holds an empty text"),
        (QUESTION | {"question_id": 6, "reference": "x"}, "field reference should be a list of texts, not 'x'"),
        (ANSWER | {"question_id": 9}, "question_id 9 is the name of no question"),
        (ANSWER | {"model_id": ""}, "field model_id should have 1 to 120 characters"),
        (ANSWER | {"choices": []}, "field choices should be a list of answers"),
        (ANSWER | {"choices": [3]}, r"field choices\[0\] should be an answer with its turns, not 3"),
        (
            ANSWER | {"choices": [{"turns": ["a", "b", "c"]}]},
            r"field choices\[0\].turns has 3 answers, and the question 2",
        ),
    ],
)
def test_a_fault_is_named_by_line_and_field(tmp_path, bad, told):
    with pytest.raises(ImportRefused, match=f"line 2: {told}"):
        take_in(file_of(tmp_path, QUESTION, bad))
    assert not Project.objects.exists()


@needs_originals
def test_the_original_files_come_in_whole():
    asked, answered = take_in(QUESTIONS, REFERENCES)
    assert (asked.counts["dialogues"], answered.counts["dialogues"]) == (61, 22)
    assert asked.notes["questions with a reference of their own"] == 31
    assert Prompt.objects.count() == 61
    first, second = Import.objects.order_by("pk")
    assert questions_again(first) == read_lines(QUESTIONS)
    assert references_again(second) == read_lines(REFERENCES)
    assert list(violations()) == []


@needs_originals
def test_spoilt_questions_are_each_refused_by_the_right_line(tmp_path):
    wrong = {"question_id": [None, "81", -1, 0.5, True], "turns": [None, "x", [], [3], {}, [""]]}
    assert_each_is_refused(read_lines(QUESTIONS)[:20], tmp_path, file_format="mt-bench", wrong=wrong, is_list=False)


@needs_originals
def test_spoilt_references_are_each_refused_by_the_right_line(tmp_path):
    wrong = {
        "question_id": [None, "101", -1, 100_000],
        "choices": [None, "x", [], [3], [{}], [{"turns": [3]}]],
        "model_id": [None, 3, "", []],
    }
    for line in (references := read_lines(REFERENCES)):
        line.pop("answer_id")
    assert_each_is_refused(references, tmp_path, file_format="mt-bench", wrong=wrong, is_list=False, beside=[QUESTIONS])
