"""Argilla: records whose annotators ranked, rated or chose between replies, nested or flat, as its `to_list` has them.

A record becomes a dialogue with its replies as candidates, and what one annotator answered a ranking. Records with the
fields `chosen` and `rejected` are ranked by that. What is no part of this stays in the dialogue's source.

Source  argilla 2, `Dataset.records.to_list`, `to_json` and `to_datasets`; docs.argilla.io
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from feedback.imports.fields import LONGEST_KEY
from feedback.imports.reading import Lines, Malformed, Problems, kept_fields, refuse_unstorable, shown
from feedback.imports.records import ImportedDialogue, ImportedRanking
from feedback.imports.tool_fields import (
    Choices,
    annotator_of_tool,
    answer_of_choice,
    answer_of_ranks,
    answer_of_scores,
    chosen_place,
    number_revisions,
    prompt_field,
    prompt_of,
    replies_of,
)

PAIR = ("chosen", "rejected")
RESPONSES, USERS, STATUS = ".responses", ".responses.users", ".responses.status"
SUGGESTION = ".suggestion"
NESTED = {"id", "fields", "metadata", "suggestions", "responses", "vectors", "_server_id", "status", "score"}
LEFT_OUT = {"draft", "discarded"}
Answers = dict[str, list[dict[str, Any]]]  # {question: what each annotator answered}


@dataclass
class Config:
    """Which fields are what, as the manager says it.

    rated  {field of a reply: the question that rates it}
    """

    prompt: str = ""
    fields: Sequence[str] = ()
    question: str = ""
    choices: Choices = field(default_factory=dict)
    rated: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, lines: Lines) -> Config:
        said = lines.options
        rated = said.get("rated", {})
        fields = tuple(said.get("reply_fields") or rated)
        return cls(said.get("prompt_field", ""), fields, said.get("question", ""), said.get("choices", {}), rated)


def read(lines: Lines, problems: Problems) -> Iterator[ImportedDialogue]:
    """A comparison per record."""
    config = Config.of(lines)
    for number, record in lines:
        try:
            yield read_record(record, config, f"{lines.unit} {number}")
        except Malformed as err:
            problems.add(number, err)


def read_record(record: dict[str, Any], config: Config, key: str) -> ImportedDialogue:
    """The replies of a record, and what each annotator says of them."""
    fields, answers, path = _nested(record) if isinstance(record.get("fields"), dict) else _flat(record)
    names = list(config.fields) or _names(fields, answers, config)
    given = _rankings(answers, names, config)
    is_pair = not given and tuple(names) == PAIR
    replies = replies_of(fields, names, path)
    if is_pair:
        for place, reply in enumerate(replies):
            reply.rank = 1 if replies[0].turns == replies[1].turns else place + 1
    others = [name for name in fields if name not in names]
    prompt = prompt_field(fields, config.prompt, others, path)
    used = {prompt, *names}
    besides = {"fields": kept_fields(fields, without=used, path=path)} if path else {}
    return ImportedDialogue(
        key=_key(record, key),
        turns=prompt_of(fields, prompt, path),
        candidates=replies,
        rankings=None if is_pair else number_revisions([answer for answer, _ in given if answer]),
        source=besides | {"record": kept_fields(record, without={"id", "fields"} if path else {"id", *used})},
        notes=tuple(_notes(given, is_pair)),
    )


def _key(record: dict[str, Any], place: str) -> str:
    """The record's own name, where it has one that is not too long."""
    name = record.get("id")
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_KEY:
        return place
    refuse_unstorable(name, "field id")
    return name


def _nested(record: dict[str, Any]) -> tuple[dict[str, Any], Answers, str]:
    said = record.get("responses") or {}
    if not isinstance(said, dict):
        raise Malformed(f"field responses should be the answers by question, not {shown(said)}. Is this Argilla's?")
    answers: Answers = {}
    for question, given in said.items():
        if not isinstance(given, list) or not all(isinstance(one, dict) and "value" in one for one in given):
            raise Malformed(f"field responses.{shown(question)} should be a list of answers, not {shown(given)}.")
        answers[question] = given
    return record["fields"], answers, "fields."


def _flat(record: dict[str, Any]) -> tuple[dict[str, Any], Answers, str]:
    answers: Answers = {}
    for name, values in record.items():
        if name.endswith(RESPONSES) and values is not None:
            question = name.removesuffix(RESPONSES)
            users, states = record.get(question + USERS), record.get(question + STATUS)
            lists = [values, users, states if states is not None else [None] * len(values or [])]
            if not all(isinstance(one, list) and len(one) == len(lists[0]) for one in lists):
                raise Malformed(f"fields {shown(name)} and {shown(question + USERS)} should be lists of one length.")
            rows = zip(*lists, strict=True)
            answers[question] = [{"value": value, "user_id": who, "status": how} for value, who, how in rows]
    marks = (RESPONSES, USERS, STATUS, SUGGESTION, f"{SUGGESTION}.score", f"{SUGGESTION}.agent")
    fields = {name: value for name, value in record.items() if name not in NESTED and not name.endswith(marks)}
    return fields, answers, ""


def _names(fields: dict[str, Any], answers: Answers, config: Config) -> list[str]:
    """The fields of the replies: the two of a pair, else those that the deciding ranking names."""
    if set(PAIR) <= set(fields):
        return list(PAIR)
    for question in [config.question] if config.question else answers:
        for one in answers.get(question, []):
            named = [_item(item)[0] for item in one["value"]] if isinstance(one["value"], list) else []
            if len(named) > 1 and all(isinstance(name, str) and name in fields for name in named):
                return [name for name in fields if name in named]
    raise Malformed(
        "the record does not say which fields are replies. Name two or more with --reply-field, in their order."
    )


def _rankings(answers: Answers, names: list[str], config: Config) -> list[tuple[ImportedRanking | None, str]]:
    """(answer, or None where it does not count; its annotator) of the question, or questions, that decide."""
    if config.rated:
        return _rated(answers, names, config.rated)
    question = config.question or _deciding(answers, names, config.choices)
    if config.question and config.question not in answers and answers:
        raise Malformed(f"there is no question {shown(config.question)} in responses. See --question.")
    return [_one_answer(one, names, config, f"responses.{shown(question)}[{at}]") for at, one in
            enumerate(answers.get(question, []))]  # fmt: skip


def _deciding(answers: Answers, names: list[str], choices: Choices) -> str:
    """The only question that could decide between these replies; empty where none does."""
    found = [
        question for question, given in answers.items() if any(_decides(one["value"], names, choices) for one in given)
    ]
    if len(found) > 1:
        raise Malformed(f"several questions could decide: {', '.join(map(shown, found))}. Say which with --question.")
    if not found and any(answers.values()) and tuple(names) != PAIR:
        there = ", ".join(map(shown, answers))
        raise Malformed(
            f"none of the questions {there} ranks the replies or chooses one. Say with --question which decides and "
            "with --choice what its words mean, or with --rated FIELD=QUESTION what rates each."
        )
    return found[0] if found else ""


def _decides(value: Any, names: list[str], choices: Choices) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_item(one)[0] in names for one in value)
    return isinstance(value, str) and (value in names or value in choices)


def _item(item: Any) -> tuple[Any, Any]:
    """(name, rank) of one place in a ranking: a name alone, or a value with its rank."""
    if isinstance(item, dict):
        return item.get("value") if isinstance(item.get("value"), str) else None, item.get("rank")
    return (item, None) if isinstance(item, str) else (None, None)


def _one_answer(
    said: dict[str, Any], names: list[str], config: Config, path: str
) -> tuple[ImportedRanking | None, str]:
    annotator = annotator_of_tool(said.get("user_id"), f"{path}.user_id")
    if said.get("status") in LEFT_OUT or said["value"] is None:
        return None, annotator
    value = said["value"]
    if not isinstance(value, list):
        return answer_of_choice(annotator, chosen_place(value, config.choices, names, path), len(names)), annotator
    ranks: list[int | None] = [None] * len(names)
    for at, item in enumerate(value):
        name, rank = _item(item)
        rank = at + 1 if rank is None else rank
        if name not in names or ranks[names.index(name)] is not None or type(rank) is not int or rank < 1:
            raise Malformed(
                f"field {path}.value should rank {', '.join(map(shown, names))}, each once, not {shown(value)}."
            )
        ranks[names.index(name)] = rank
    return answer_of_ranks(annotator, ranks), annotator


def _rated(answers: Answers, names: list[str], rated: Mapping[str, str]) -> list[tuple[ImportedRanking | None, str]]:
    scores: dict[str, list[float | None]] = {}
    skipped: list[tuple[ImportedRanking | None, str]] = []
    for place, name in enumerate(names):
        question = rated.get(name, "")
        for at, one in enumerate(answers.get(question, [])):
            path = f"responses.{shown(question)}[{at}]"
            annotator, value = annotator_of_tool(one.get("user_id"), f"{path}.user_id"), one["value"]
            if one.get("status") in LEFT_OUT or value is None:
                skipped.append((None, annotator))
            elif not isinstance(value, int | float) or isinstance(value, bool):
                raise Malformed(f"field {path}.value should be a number, not {shown(value)}.")
            else:
                scores.setdefault(annotator, [None] * len(names))[place] = value
    return [*((answer_of_scores(who, given), who) for who, given in scores.items()), *skipped]


def _notes(given: list[tuple[ImportedRanking | None, str]], is_pair: bool) -> Iterator[str]:
    yield from ("answers that are drafts or were discarded, left out" for answer, _ in given if answer is None)
    if not is_pair and not any(answer for answer, _ in given):
        yield "records that nobody answered, which wait to be ranked"
