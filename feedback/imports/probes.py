"""Our own lines for judged dialogues: what `export --kind rules` writes, and how red-team data of others comes in.

One line is one dialogue with what people say of it by each rule. docs/formats.md has every field.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from feedback.errors import RuleRefused
from feedback.exports.judged import SAID
from feedback.imports.fields import (
    LONGEST_KEY,
    LONGEST_NAME,
    annotator_of,
    is_revision,
    is_time,
    is_truth,
    list_of,
    meta_of,
    one_of,
    read_lines,
    refuse_strangers,
    text_or_empty,
    value_of,
)
from feedback.imports.reading import Lines, Malformed, Problems, refuse_unstorable, shown
from feedback.imports.records import ImportedDialogue, ImportedJudgement, Messages, WantedRule
from feedback.models import Dialogue, PromptGroup, RuleJudgement, Turn
from feedback.rule_texts import Values, checked, checked_key

KINDS = tuple(kind for kind in Dialogue.Kind.values if kind != Dialogue.Kind.EVALUATION)
VERDICTS = {verdict.name.lower(): int(verdict) for verdict in RuleJudgement.Verdict}
NEEDED_FOR_A_RULE = ("name", "category")
MOST_TACTICS = 50

LINE = {
    "dialogue_id", "kind", "split", "group", "model", "messages", "probed", "rules", "source", "source_key", "meta",
}  # fmt: skip
JUDGED = {"rule", "p_broken", "judgements"}
VERDICT = {
    "annotator_id", "by_prober", "verdict", "turn", "reason", "tactics", "seconds", "late", "revision", "wording",
    "created_at", "meta",
}  # fmt: skip


def read(lines: Lines, problems: Problems) -> Iterator[ImportedDialogue]:
    """One dialogue per line."""
    return read_lines(lines, problems, read_line)


def read_line(record: dict[str, Any]) -> ImportedDialogue:
    """A dialogue with its verdicts. `dialogue_id` and `p_broken` follow from the rest and are not read."""
    refuse_strangers(record, LINE, "")
    messages = _messages(record)
    by_rule = [_judged(one, f"rules[{place}].", messages) for place, one in enumerate(list_of(record, "rules", ""))]
    judgements = [judgement for some in by_rule for judgement in some]
    if not judgements:
        raise Malformed("field rules should hold at least one rule with a judgement. Leave the line out otherwise.")
    _refuse_twice(judgements)
    told = {
        "model_name": text_or_empty(record, "model", LONGEST_NAME),
        "kind": one_of(record, "kind", KINDS),
        "meta": meta_of(record, ""),
    } | ({"source": text_or_empty(record, "source", LONGEST_NAME)} if "source" in record else {})
    return ImportedDialogue(
        key=text_or_empty(record, "source_key", LONGEST_KEY),
        turns=messages,
        judgements=judgements,
        probed=_rule(record["probed"], "probed") if record.get("probed") is not None else None,
        source={name: value for name, value in told.items() if value or name == "source"},
        group=text_or_empty(record, "group", LONGEST_KEY),
        split=one_of(record, "split", PromptGroup.Split.values),
        notes=tuple(_notes(judgements)),
    )


def _messages(record: dict[str, Any]) -> Messages:
    messages = []
    for place, message in enumerate(list_of(record, "messages", "")):
        path = f"messages[{place}]."
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise Malformed(f"field {path[:-1]} should be a role and a content, not {shown(message)}.")
        role = text_or_empty(message, "role", LONGEST_NAME, path)
        if role not in Turn.Role.values:
            raise Malformed(f"field {path}role should be one of {', '.join(Turn.Role.values)}, not {shown(role)}.")
        messages.append({"role": role, "content": text_or_empty(message, "content", None, path)})
    roles = [message["role"] for message in messages]
    if "user" not in roles or "assistant" not in roles:
        raise Malformed("field messages should hold what a user and what the assistant said, at least one each.")
    return messages


def _judged(one: Any, path: str, messages: Messages) -> list[ImportedJudgement]:
    """What people say by one rule."""
    if not isinstance(one, dict):
        raise Malformed(f"field {path[:-1]} should be a rule with its judgements, not {shown(one)}.")
    refuse_strangers(one, JUDGED, path)
    rule = _rule(one.get("rule"), f"{path}rule")
    verdicts = list_of(one, "judgements", path)
    return [_judgement(said, f"{path}judgements[{place}].", rule, messages) for place, said in enumerate(verdicts)]


def _rule(said: Any, path: str) -> WantedRule:
    """A rule by its key, its wording, or both; with all it takes to make it where name and category stand there."""
    if not isinstance(said, dict) or not (said.get("key") or said.get("wording")):
        raise Malformed(f"field {path} should be a table with a key or a wording, not {shown(said)}.")
    refuse_strangers(said, set(SAID), f"{path}.")
    key, wording = (text_or_empty(said, name, None, f"{path}.") for name in ("key", "wording"))
    try:
        key = checked_key(key) if key else ""
    except ValueError as err:
        raise Malformed(f"field {path}.key: {err}") from err
    values = _values(said, path) if key and wording and all(said.get(name) for name in NEEDED_FOR_A_RULE) else None
    words = values["wording"] if values else " ".join(wording.split())
    return WantedRule(name=key or words, key=key, wording=words, values=values)


def _values(said: dict[str, Any], path: str) -> Values:
    try:
        return checked({SAID[name]: value for name, value in said.items() if name != "key"})
    except RuleRefused as err:
        names = {ours: name for name, ours in SAID.items()}
        field, why = next(iter(err.problems.items()))
        raise Malformed(f"field {path}.{names.get(field, field)}: {why}") from err


def _judgement(said: Any, path: str, rule: WantedRule, messages: Messages) -> ImportedJudgement:
    if not isinstance(said, dict):
        raise Malformed(f"field {path[:-1]} should be one annotator's verdict, not {shown(said)}.")
    refuse_strangers(said, VERDICT, path)
    annotator = annotator_of(said, path)
    told = {
        "created_at": text_or_empty(said, "created_at", LONGEST_NAME, path),
        "wording": text_or_empty(said, "wording", None, path),
        "meta": meta_of(said, path),
    }
    return ImportedJudgement(
        rule=rule,
        annotator_key=annotator,
        verdict=_verdict(said, path),
        turn_position=_turn(said, path, messages),
        reason=text_or_empty(said, "reason", None, path),
        by_prober=value_of(said, "by_prober", path, False, is_truth, "true or false"),
        tactics=_tactics(said, path),
        seconds=value_of(said, "seconds", path, None, is_time, "a number from 0, or null"),
        late=value_of(said, "late", path, False, is_truth, "true or false"),
        revision=value_of(said, "revision", path, 1, is_revision, "a whole number from 1"),
        source={name: value for name, value in told.items() if value},
    )


def _verdict(said: dict[str, Any], path: str) -> int:
    verdict = said.get("verdict")
    if isinstance(verdict, str) and verdict in VERDICTS:
        return VERDICTS[verdict]
    if type(verdict) is int and verdict in VERDICTS.values():
        return verdict
    names = ", ".join(f"{value} {name}" for name, value in VERDICTS.items())
    raise Malformed(f"field {path}verdict should be one of {names}, not {shown(verdict)}.")


def _turn(said: dict[str, Any], path: str, messages: Messages) -> int | None:
    turn = said.get("turn")
    if turn is None:
        return None
    if type(turn) is not int or not 0 <= turn < len(messages) or messages[turn]["role"] != "assistant":
        raise Malformed(
            f"field {path}turn should be the place of a message of the assistant, the first is 0, not {shown(turn)}."
        )
    return turn


def _tactics(said: dict[str, Any], path: str) -> list[str]:
    value = said.get("tactics") or []
    if not isinstance(value, list) or len(value) > MOST_TACTICS or not all(isinstance(one, str) for one in value):
        raise Malformed(f"field {path}tactics should be a list of at most {MOST_TACTICS} words, not {shown(value)}.")
    for one in value:
        refuse_unstorable(one, f"field {path}tactics")
    return sorted(set(value))


def _refuse_twice(judgements: list[ImportedJudgement]) -> None:
    given = [(one.rule.mark, one.annotator_key, one.revision) for one in judgements]
    if twin := next((one for one in given if given.count(one) > 1), None):
        raise Malformed(f"annotator {shown(twin[1])} judges by one rule twice. Leave one verdict out.")


def _notes(judgements: list[ImportedJudgement]) -> Iterator[str]:
    steps: dict[str, set[int]] = {}
    for judgement in judgements:
        steps.setdefault(judgement.rule.mark, set()).add(judgement.verdict)
    if any(len(found) > 1 for found in steps.values()):
        yield "dialogues on which verdicts differ, all kept"
