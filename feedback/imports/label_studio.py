"""Label Studio: tasks whose annotators chose between replies, or rated them, as its JSON export has them.

A task becomes a dialogue with its replies as candidates, an annotation a ranking of them. Which fields are prompt and
replies the labelling configuration says, or the manager. Annotations that were cancelled are left out, and counted.
Names and addresses of annotators are not kept; what else an annotation says is.

Source  labelstud.io, "Label Studio JSON format of annotated tasks"; the tags Pairwise, Choices and Rating
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feedback.errors import ImportRefused
from feedback.imports.fields import is_time, list_of, value_of
from feedback.imports.labelling_config import Labelling, read_config
from feedback.imports.reading import Lines, Malformed, Problems, kept_fields, shown
from feedback.imports.records import ImportedDialogue, ImportedRanking
from feedback.imports.tool_fields import (
    Choices,
    annotator_of_tool,
    answer_of_choice,
    answer_of_scores,
    chosen_place,
    number_revisions,
    prompt_field,
    prompt_of,
    replies_of,
)

KINDS = ("pairwise", "choices", "rating")  # of a result, those that may decide, the first first
SIDES = ("left", "right")
PERSONAL = {"completed_by", "created_username", "updated_by", "last_created_by"}


@dataclass
class Config:
    """Which fields are what, from the labelling configuration and from what the manager says.

    fields    the replies, left before right
    question  name of the control that decides; empty: the only one
    """

    prompt: str = ""
    fields: Sequence[str] = ()
    question: str = ""
    choices: Choices = field(default_factory=dict)
    labelling: Labelling = field(default_factory=Labelling)

    @classmethod
    def of(cls, lines: Lines) -> Config:
        """Raises ImportRefused where nothing says which fields are compared."""
        said = lines.options
        path: Path | None = said.get("labelling_config")
        labelling = read_config(path) if path else Labelling()
        fields = list(said.get("reply_fields") or labelling.replies)
        if len(fields) < 2:
            raise ImportRefused(
                "Label Studio does not say which fields of a task were compared, nor which stood left. Give its "
                "labelling configuration with --labelling-config FILE, or the fields in their order with "
                "--reply-field LEFT --reply-field RIGHT. Nothing was imported."
            )
        return cls(said.get("prompt_field", ""), fields, said.get("question", ""), said.get("choices", {}), labelling)

    def place_of(self, tag: Any) -> int | None:
        """Which reply a tag shows, by its name or by that of its field."""
        name = self.labelling.shown.get(tag, tag) if isinstance(tag, str) else tag
        return self.fields.index(name) if name in self.fields else None


def read(lines: Lines, problems: Problems) -> Iterator[ImportedDialogue]:
    """A comparison per task."""
    config = Config.of(lines)
    for number, record in lines:
        try:
            yield read_task(record, config, f"{lines.unit} {number}")
        except Malformed as err:
            problems.add(number, err)


def read_task(record: dict[str, Any], config: Config, key: str) -> ImportedDialogue:
    """The replies of a task, and what each annotator says of them."""
    data = record.get("data")
    if not isinstance(data, dict):
        raise Malformed(
            f"field data should be the task's fields, not {shown(data)}. Export as JSON, not as JSON-MIN or CSV."
        )
    others = config.labelling.others or [name for name in data if name not in config.fields]
    said = list_of(record, "annotations", "")
    answers, notes = [], []
    for at, one in enumerate(said):
        answer = _annotation(one, f"annotations[{at}].", config)
        answers += [answer] if answer else []
        notes += [] if answer else ["annotations that were cancelled, left out"]
    prompt = prompt_field(data, config.prompt, others, "data.")
    source = {"task": kept_fields(record, without={"data", "annotations"} | PERSONAL)}
    return ImportedDialogue(
        key=f"task {record['id']}" if type(record.get("id")) is int else key,
        turns=prompt_of(data, prompt, "data."),
        candidates=replies_of(data, config.fields, "data."),
        rankings=number_revisions(answers),
        source=source | {"data": kept_fields(data, without={prompt, *config.fields}, path="data.")},
        notes=(*notes, *(() if answers else ("tasks that nobody answered, which wait to be ranked",))),
    )


def _annotation(said: Any, path: str, config: Config) -> ImportedRanking | None:
    """One annotator's answer; None where it was cancelled."""
    if not isinstance(said, dict):
        raise Malformed(f"field {path[:-1]} should be an annotation with its result, not {shown(said)}.")
    if said.get("was_cancelled") is True:
        return None
    who = said.get("completed_by")
    annotator = annotator_of_tool(who.get("id") if isinstance(who, dict) else who, f"{path}completed_by")
    results = [_result(one, f"{path}result[{at}]") for at, one in enumerate(list_of(said, "result", path))]
    answer = _answer(annotator, results, path, config)
    answer.seconds = value_of(said, "lead_time", path, None, is_time, "a number of seconds from 0, or null")
    gold = {"gold": True} if said.get("ground_truth") is True else {}
    answer.source = gold | {"annotation": kept_fields(said, without={"lead_time", *PERSONAL}, path=path)}
    return answer


def _result(said: Any, path: str) -> dict[str, Any]:
    if not isinstance(said, dict) or not isinstance(said.get("value"), dict):
        raise Malformed(f"field {path} should be a result with from_name, type and value, not {shown(said)}.")
    return said


def _answer(annotator: str, results: list[dict[str, Any]], path: str, config: Config) -> ImportedRanking:
    """What the deciding results say: the control the manager names, else the first kind of which there are any."""
    named = [one for one in results if not config.question or one.get("from_name") == config.question]
    kind = next((kind for kind in KINDS if any(one.get("type") == kind for one in named)), "")
    deciding = [one for one in named if one.get("type") == kind]
    if not deciding:
        there = ", ".join(sorted({shown(one.get("type")) for one in results})) or "none"
        raise Malformed(f"field {path}result has nothing of type {', '.join(KINDS)} that decides, but {there}.")
    if kind == "rating":
        return _rated(annotator, deciding, path, config)
    if len(deciding) > 1:
        raise Malformed(f"field {path}result has two of type {kind}. Say with --question which from_name decides.")
    word = deciding[0]["value"].get("selected") if kind == "pairwise" else _one_of(deciding[0]["value"].get("choices"))
    where = f"{path}result, {kind}"
    if kind == "pairwise" and word in SIDES and len(config.fields) == len(SIDES):
        return answer_of_choice(annotator, SIDES.index(word), len(SIDES))
    return answer_of_choice(annotator, chosen_place(word, config.choices, config.fields, where), len(config.fields))


def _one_of(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _rated(annotator: str, results: list[dict[str, Any]], path: str, config: Config) -> ImportedRanking:
    scores: list[float | None] = [None] * len(config.fields)
    for one in results:
        place, rating = config.place_of(one.get("to_name")), one["value"].get("rating")
        if place is None or scores[place] is not None:
            raise Malformed(
                f"field {path}result rates {shown(one.get('to_name'))}, which is no reply, or rates it twice. Say with "
                "--labelling-config or --question what is meant."
            )
        if not isinstance(rating, int | float) or isinstance(rating, bool):
            raise Malformed(f"field {path}result, rating should be a number, not {shown(rating)}.")
        scores[place] = rating
    return answer_of_scores(annotator, scores)
