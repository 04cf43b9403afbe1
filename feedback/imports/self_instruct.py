"""Self-Instruct: tasks with outputs that people wrote, and what several systems answered to the same instructions.

A task becomes a dialogue with a demonstration for each of its instances. Files of predictions belong into one import:
the first of them, by its path, makes a dialogue of every line, and all of them give it a candidate each, joined by
instruction and input. Nobody has ranked these: the comparison waits. The authors ask that the instructions of users,
which the predictions answer, are not used for training, so both lie on the test side of the split.

Source  Wang et al. 2022, arXiv:2212.10560; the files of yizhongw/self-instruct
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from feedback.errors import ImportRefused
from feedback.imports.fields import LONGEST_KEY, list_of
from feedback.imports.instructions import Instruction
from feedback.imports.json_records import records_or_lines
from feedback.imports.reading import Lines, Malformed, Problems, kept_fields, shown, text_field
from feedback.imports.records import ImportedCandidate, ImportedDemonstration, ImportedDialogue, ImportedText
from feedback.models import PromptGroup

ANNOTATOR = "self-instruct"
MARK = "_predictions"  # in a file's name, after that of the system: the files name it nowhere else
LONGEST_NAME = 120  # characters, of a system
Replies = dict[Instruction, ImportedCandidate]


def read(lines: Lines, problems: Problems) -> Iterator[ImportedDialogue]:
    """A dialogue per instance of a task, and per line of the first file of predictions."""
    joined: Joined | None = None
    for number, record in lines:
        try:
            if "instances" in record:
                yield from read_task(record)
            else:
                joined = joined or Joined(lines)
                yield from joined.take(number, record)
        except Malformed as err:
            problems.add(number, err)


def read_task(record: dict[str, Any]) -> list[ImportedDialogue]:
    """The dialogues of a task: one for each instance of its instruction."""
    key = text_field(record, "id")
    if not key or len(key) > LONGEST_KEY - 10:
        raise Malformed(f"field id should have 1 to {LONGEST_KEY - 10} characters.")
    instruction = text_field(record, "instruction")
    instances = list_of(record, "instances", "")
    if not instances:
        raise Malformed("field instances is empty. Leave the task out.")
    told = [_instance(one, f"instances[{at}].", instruction) for at, one in enumerate(instances)]
    told[0].source["task"] = kept_fields(record, without={"id", "instruction", "instances"})
    for at, one in enumerate(told):
        one.key = key if len(told) == 1 else f"{key} {at + 1}"
        if "motivation_app" in record:
            one.group = one.group.removeprefix("task ")
            one.split, one.is_promised = PromptGroup.Split.TEST, True
            one.notes = ("instructions of users, kept for tests as their authors ask",)
    return told


def _instance(said: Any, path: str, instruction: str) -> ImportedDialogue:
    if not isinstance(said, dict):
        raise Malformed(f"field {path[:-1]} should be an instance with input and output, not {shown(said)}.")
    asked = Instruction(instruction, text_field(said, "input", path))
    asked.refuse_empty(f"fields {path[:-1]}:")
    output = text_field(said, "output", path)
    if not output.strip():
        raise Malformed(f"field {path}output is empty. Leave the instance out, or fill it.")
    others = kept_fields(said, without={"input", "output"}, path=path)
    return ImportedDialogue(
        key="",
        turns=asked.turns,
        demonstrations=[ImportedDemonstration(0, [ImportedText(ANNOTATOR, output)])],
        source={"input_begins": asked.input_begins} | ({"fields": others} if others else {}),
        group=f"task {asked.group}",  # apart from the instructions of users, which may be the same words
    )


class Joined:
    """The predictions of a file, beside those of the other files of the import."""

    def __init__(self, lines: Lines) -> None:
        files = sorted(path for path in {lines.path, *lines.beside} if path == lines.path or _has_predictions(path))
        self.lines = lines
        self.first = files[0]
        self.others = [(system_of(path), replies_of(path)) for path in files if path != lines.path]
        self.system = system_of(lines.path)
        self.seen: set[Instruction] = set()
        self.is_first = lines.path == self.first
        lines.is_joined = bool(self.others)
        _refuse_one_name_twice([self.system, *(name for name, _ in self.others)])

    def take(self, number: int, record: dict[str, Any]) -> Iterator[ImportedDialogue]:
        """The dialogue with every system's reply, where this is the first file; else the line's reply is elsewhere."""
        asked, reply = read_prediction(record, self.system)
        if asked in self.seen:
            raise Malformed("this instruction and input stand in this file twice. Remove one of the two.")
        self.seen.add(asked)
        beside = [replies[asked] for _, replies in self.others if asked in replies]
        if self.is_first:
            yield self._dialogue(number, asked, [reply, *beside])
        elif not any(asked in replies for name, replies in self.others if name == system_of(self.first)):
            raise Malformed(
                f"this instruction and input do not stand in {self.first.name}, the first file of predictions, with "
                "which the others are joined. Remove the line, or add it there."
            )
        else:
            self.lines.notes[f"replies that stand in the comparisons of {self.first.name}"] += 1

    def _dialogue(self, number: int, asked: Instruction, replies: list[ImportedCandidate]) -> ImportedDialogue:
        candidates = [ImportedCandidate(one.turns, len(replies) > 1, source=one.source) for one in replies]
        fewer = len(replies) < len(self.others) + 1
        notes = ["comparisons that wait to be ranked"] * (len(replies) > 1) + ["without every system's reply"] * fewer
        return ImportedDialogue(
            key=f"{self.lines.unit} {number}",
            turns=asked.turns,
            candidates=candidates,
            rankings=[],
            source={"input_begins": asked.input_begins},
            group=asked.group,
            split=PromptGroup.Split.TEST,
            is_promised=True,
            notes=(*notes, *("empty replies, kept and flagged" for one in candidates if one.is_empty)),
        )


def _refuse_one_name_twice(names: Sequence[str]) -> None:
    if twin := next((name for name in names if names.count(name) > 1), None):
        raise ImportRefused(
            f"Two files are named after the system {shown(twin)}. Name each SYSTEM{MARK}.jsonl. Nothing was imported."
        )


def read_prediction(record: dict[str, Any], system: str) -> tuple[Instruction, ImportedCandidate]:
    """What was asked, and a system's reply to it."""
    asked = Instruction(text_field(record, "instruction"), text_field(record, "input"))
    asked.refuse_empty()
    response = text_field(record, "response")
    fields = kept_fields(record, without={"instruction", "input", "response"})
    source = {"model_name": system, "fields": fields}
    return asked, ImportedCandidate([{"role": "assistant", "content": response}], source=source)


def system_of(path: Path) -> str:
    """The system a file of predictions is of, by its name.

    >>> system_of(Path("text-davinci-003_predictions.dev.jsonl.gz")), system_of(Path("mine.jsonl"))
    ('text-davinci-003', 'mine')
    """
    before, mark, _ = path.name.partition(MARK)
    return (before if mark else path.name.partition(".")[0])[:LONGEST_NAME]


def _has_predictions(path: Path) -> bool:
    first = next(islice(_records_of(path), 1), {})
    return "response" in first


def replies_of(path: Path) -> Replies:
    """The replies of another file, as far as they can be read: what is wrong in a file is said where it is read."""
    found: Replies = {}
    for record in _records_of(path):
        try:
            asked, reply = read_prediction(record, system_of(path))
        except Malformed:
            continue
        found.setdefault(asked, reply)
    return found


def _records_of(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    try:
        for _, record in records_or_lines(path, Problems(str(path))):
            yield record
    except ImportRefused:
        return
