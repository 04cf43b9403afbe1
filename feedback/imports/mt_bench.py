"""MT-bench: questions of two user turns, and a model's answers to both turns as a reference.

The two kinds of file are told apart by their fields and belong to one import: a reference names its question by
`question_id` alone. A question becomes a dialogue that ends in its first turn, which is a prompt; its second turn asks
about the answer to the first, so it waits in the dialogue's source. A reference becomes a whole dialogue of its own.

Source  Zheng et al. 2023, arXiv:2306.05685; fastchat/llm_judge/data/mt_bench of lm-sys/FastChat
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from feedback.errors import ImportRefused
from feedback.imports.json_records import records_or_lines
from feedback.imports.reading import Lines, Malformed, Problems, kept_fields, refuse_unstorable, shown, text_field
from feedback.imports.records import ImportedDialogue, Messages

Questions = dict[int, list[str]]  # {question_id: its turns}
LONGEST_NAME = 120  # characters


def read(lines: Lines, problems: Problems) -> Iterator[ImportedDialogue]:
    """A dialogue per question, and one per choice of a reference."""
    questions: Questions | None = None
    known: set[int] = set()
    for number, record in lines:
        try:
            if "choices" in record:
                questions = questions_of([lines.path, *lines.beside]) if questions is None else questions
                yield from read_reference(record, questions)
            else:
                _refuse_known(record, known)
                yield read_question(record)
        except Malformed as err:
            problems.add(number, err)


def questions_of(paths: Iterable[Path]) -> Questions:
    """The questions of some files, as far as they can be read: what is wrong in a file is said where it is read."""
    found: Questions = {}
    for path in filter(Path.is_file, paths):
        try:
            for _, record in records_or_lines(path, Problems(str(path))):
                _remember(record, found)
        except ImportRefused:
            continue
    return found


def _remember(record: dict[str, Any], found: Questions) -> None:
    try:
        if "choices" not in record:
            found.setdefault(_id(record), _texts(record, "turns"))
    except Malformed:
        return


def _refuse_known(record: dict[str, Any], known: set[int]) -> None:
    question = _id(record)
    if question in known:
        raise Malformed(f"question_id {question} stands in this file twice. Remove one of the two.")
    known.add(question)


def read_question(record: dict[str, Any]) -> ImportedDialogue:
    """A question's first turn, with all else that is said of it."""
    first, *later = _texts(record, "turns")
    reference = {"reference": _texts(record, "reference", may_be_empty=True)} if "reference" in record else {}
    others = kept_fields(record, without={"question_id", "turns", "reference"})
    notes = ["questions"] + ["questions with a reference of their own"] * bool(reference)
    return ImportedDialogue(
        key=str(_id(record)),
        turns=[{"role": "user", "content": first}],
        source={"later_turns": later} | reference | {"fields": others},
        notes=tuple(notes),
    )


def read_reference(record: dict[str, Any], questions: Questions) -> list[ImportedDialogue]:
    """The dialogues of one line of answers: one for each choice."""
    question = _id(record)
    if question not in questions:
        raise Malformed(
            f"question_id {question} is the name of no question in the files of this import. Name the file of "
            "questions in the same command, also when it was imported before."
        )
    model_name = text_field(record, "model_id")
    if not model_name or len(model_name) > LONGEST_NAME:
        raise Malformed(f"field model_id should have 1 to {LONGEST_NAME} characters.")
    choices = record["choices"]
    if not isinstance(choices, list) or not choices:
        raise Malformed(f"field choices should be a list of answers, not {shown(choices)}.")
    about = kept_fields(record, without={"choices"})
    told = [_choice(one, f"choices[{at}].", questions[question]) for at, one in enumerate(choices)]
    told[0].source["answer"] = about
    for one in told:
        one.key = f"{question} {model_name}"
        one.source["model_name"] = model_name
    return told


def _choice(choice: Any, path: str, asked: list[str]) -> ImportedDialogue:
    """The question's turns, each followed by the answer to it."""
    if not isinstance(choice, dict):
        raise Malformed(f"field {path[:-1]} should be an answer with its turns, not {shown(choice)}.")
    answers = _texts(choice, "turns", path, may_be_empty=True)
    if len(answers) > len(asked):
        raise Malformed(f"field {path}turns has {len(answers)} answers, and the question {len(asked)} turns.")
    turns: Messages = []
    for question, answer in zip(asked, answers, strict=False):
        turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return ImportedDialogue(
        key="",
        turns=turns,
        source={"choice": kept_fields(choice, without={"turns"}, path=path)},
        notes=("reference answers",),
    )


def _id(record: dict[str, Any]) -> int:
    question = record.get("question_id")
    if type(question) is not int or question < 0:
        raise Malformed(f"field question_id should be a whole number from 0, not {shown(question)}. Is this MT-bench?")
    return question


def _texts(record: dict[str, Any], name: str, path: str = "", *, may_be_empty: bool = False) -> list[str]:
    texts = record.get(name)
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise Malformed(f"field {path}{name} should be a list of texts, not {shown(texts)}. Is this MT-bench?")
    for text in texts:
        refuse_unstorable(text, f"field {path}{name}")
        if not may_be_empty and not text.strip():
            raise Malformed(f"field {path}{name} holds an empty text. Fill it, or leave the question out.")
    return texts
