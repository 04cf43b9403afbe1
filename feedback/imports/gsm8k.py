"""GSM8K: questions with a worked answer that a person wrote, and questions with the solutions of four models.

Which of them a line is its fields say. An answer is a demonstration. Solutions become candidates that are ranked by the
truth: those that are correct before those that are not, equals tied, and none is good where none is correct. The
authors took these questions from the test set, so they, and a file whose name begins with "test", lie on that side.

Source  Cobbe et al. 2021, arXiv:2110.14168; the files of openai/grade-school-math
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from feedback.imports.reading import Lines, Malformed, Problems, kept_fields, refuse_unstorable, shown, text_field
from feedback.imports.records import (
    ImportedCandidate,
    ImportedDemonstration,
    ImportedDialogue,
    ImportedRanking,
    ImportedText,
)
from feedback.models import PromptGroup

ANNOTATOR = "gsm8k"
LONGEST_NAME = 120  # characters, of a model


def read(lines: Lines, problems: Problems) -> Iterator[ImportedDialogue]:
    """A dialogue with a demonstration, or with ranked candidates, per line."""
    is_test = lines.path.name.lower().startswith("test")
    for number, record in lines:
        try:
            dialogue = _answered(record, is_test) if "answer" in record else _solved(record)
            dialogue.key = f"{lines.unit} {number}"
            yield dialogue
        except Malformed as err:
            problems.add(number, err)


def _answered(record: dict[str, Any], is_test: bool) -> ImportedDialogue:
    """The question, and the answer to imitate."""
    answer = text_field(record, "answer")
    if not answer.strip():
        raise Malformed("field answer is empty. Leave the line out, or fill it.")
    others = kept_fields(record, without={"question", "answer"})
    return ImportedDialogue(
        key="",
        turns=[{"role": "user", "content": _question(record)}],
        demonstrations=[ImportedDemonstration(0, [ImportedText(ANNOTATOR, answer)])],
        source={"fields": others} if others else {},
        split=PromptGroup.Split.TEST if is_test else "",
    )


def _solved(record: dict[str, Any]) -> ImportedDialogue:
    """The question, and the solutions ranked by the truth."""
    truth = text_field(record, "ground_truth")
    solutions = {name: value for name, value in record.items() if isinstance(value, dict)}
    if len(solutions) < 2:
        raise Malformed("there should be an answer, or the solutions of two models or more. Is this GSM8K?")
    candidates = [_candidate(name, value) for name, value in solutions.items()]
    correct = [candidate.source["is_correct"] for candidate in candidates]
    best = any(correct)
    ranks: list[int | None] = [1 if is_correct or not best else 2 for is_correct in correct]
    others = kept_fields(record, without={"question", "ground_truth", *solutions})
    return ImportedDialogue(
        key="",
        turns=[{"role": "user", "content": _question(record)}],
        candidates=candidates,
        rankings=[ImportedRanking(ANNOTATOR, ranks, all_bad=not best, source={"gold": True})],
        source={"gold": True, "ground_truth": truth} | ({"fields": others} if others else {}),
        split=PromptGroup.Split.TEST,
        notes=(f"questions with {sum(correct)} of {len(correct)} solutions correct",),
    )


def _question(record: dict[str, Any]) -> str:
    question = text_field(record, "question")
    if not question.strip():
        raise Malformed("field question is empty. Leave the line out, or fill it.")
    return question


def _candidate(name: str, said: dict[str, Any]) -> ImportedCandidate:
    """What one model made of the question, and whether it is correct."""
    refuse_unstorable(name, f"field {shown(name)}")
    if not name or len(name) > LONGEST_NAME:
        raise Malformed(f"field {shown(name)} should have a name of 1 to {LONGEST_NAME} characters: the model's.")
    path = f"{shown(name)}."
    solution = text_field(said, "solution", path)
    is_correct = said.get("is_correct")
    if not isinstance(is_correct, bool):
        raise Malformed(f"field {path}is_correct should be true or false, not {shown(is_correct)}.")
    others = kept_fields(said, without={"solution", "is_correct"}, path=path)
    source = {"model_name": name, "is_correct": is_correct} | ({"fields": others} if others else {})
    return ImportedCandidate([{"role": "assistant", "content": solution}], source=source)
