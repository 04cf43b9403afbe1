"""Our own lines for judged dialogues: what `export --kind rules` writes, and how red-team data of others comes in.

One line is one dialogue with what people say of it by each rule. docs/formats.md has every field.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from feedback.errors import RuleRefused
from feedback.exports.judged import SAID
from feedback.imports.reading import Lines, Malformed, Problems, kept_fields, parse_object, refuse_unstorable, shown
from feedback.imports.records import ImportedDialogue, ImportedJudgement, Messages, WantedRule
from feedback.models import Dialogue, PromptGroup, RuleJudgement, Turn
from feedback.rule_texts import Values, checked, checked_key

KINDS = tuple(kind for kind in Dialogue.Kind.values if kind != Dialogue.Kind.EVALUATION)
VERDICTS = {verdict.name.lower(): int(verdict) for verdict in RuleJudgement.Verdict}
NEEDED_FOR_A_RULE = ("name", "category")
ACCOUNT = re.compile(r"u\d+")  # what an account's own answers are kept under
LONGEST_NAME = 120  # characters of an annotator's name
LONGEST_KEY = 200  # characters of the source's own name for a dialogue, and of a group
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
    sides: dict[str, str] = {}
    for number, record in lines:
        try:
            dialogue = read_line(record)
            _refuse_torn(dialogue, sides)
            yield dialogue
        except Malformed as err:
            problems.add(number, err)


def _refuse_torn(dialogue: ImportedDialogue, sides: dict[str, str]) -> None:
    """Raises Malformed where a group lies on two sides of the split."""
    if dialogue.group and dialogue.split and sides.setdefault(dialogue.group, dialogue.split) != dialogue.split:
        raise Malformed(
            f"field split is {dialogue.split}, and group {shown(dialogue.group)} lies in {sides[dialogue.group]} "
            "before. A group lies on one side: give both lines the same split."
        )


def read_line(record: dict[str, Any]) -> ImportedDialogue:
    """A dialogue with its verdicts. `dialogue_id` and `p_broken` follow from the rest and are not read."""
    _refuse_strangers(record, LINE, "")
    messages = _messages(record)
    by_rule = [_judged(one, f"rules[{place}].", messages) for place, one in enumerate(_listed(record, "rules", ""))]
    judgements = [judgement for some in by_rule for judgement in some]
    if not judgements:
        raise Malformed("field rules should hold at least one rule with a judgement. Leave the line out otherwise.")
    _refuse_twice(judgements)
    told = {
        "model_name": _text(record, "model", LONGEST_NAME),
        "kind": _one_of(record, "kind", KINDS),
        "meta": _meta(record, ""),
    } | ({"source": _text(record, "source", LONGEST_NAME)} if "source" in record else {})
    return ImportedDialogue(
        key=_text(record, "source_key", LONGEST_KEY),
        turns=messages,
        judgements=judgements,
        probed=_rule(record["probed"], "probed") if record.get("probed") is not None else None,
        source={name: value for name, value in told.items() if value or name == "source"},
        group=_text(record, "group", LONGEST_KEY),
        split=_one_of(record, "split", PromptGroup.Split.values),
        notes=tuple(_notes(judgements)),
    )


def _refuse_strangers(record: dict[str, Any], known: set[str], path: str) -> None:
    if strange := sorted(set(record) - known):
        raise Malformed(
            f"field {path}{shown(strange[0])} is not known here; known are {', '.join(sorted(known))}. What else a "
            "source says belongs in meta."
        )


def _messages(record: dict[str, Any]) -> Messages:
    messages = []
    for place, message in enumerate(_listed(record, "messages", "")):
        path = f"messages[{place}]."
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise Malformed(f"field {path[:-1]} should be a role and a content, not {shown(message)}.")
        role = _text(message, "role", LONGEST_NAME, path)
        if role not in Turn.Role.values:
            raise Malformed(f"field {path}role should be one of {', '.join(Turn.Role.values)}, not {shown(role)}.")
        messages.append({"role": role, "content": _text(message, "content", None, path)})
    roles = [message["role"] for message in messages]
    if "user" not in roles or "assistant" not in roles:
        raise Malformed("field messages should hold what a user and what the assistant said, at least one each.")
    return messages


def _listed(record: dict[str, Any], name: str, path: str) -> list[Any]:
    value = record.get(name)
    if not isinstance(value, list):
        raise Malformed(f"field {path}{name} should be a list, not {shown(value)}. Is this the format you named?")
    return value


def _judged(one: Any, path: str, messages: Messages) -> list[ImportedJudgement]:
    """What people say by one rule."""
    if not isinstance(one, dict):
        raise Malformed(f"field {path[:-1]} should be a rule with its judgements, not {shown(one)}.")
    _refuse_strangers(one, JUDGED, path)
    rule = _rule(one.get("rule"), f"{path}rule")
    verdicts = _listed(one, "judgements", path)
    return [_judgement(said, f"{path}judgements[{place}].", rule, messages) for place, said in enumerate(verdicts)]


def _rule(said: Any, path: str) -> WantedRule:
    """A rule by its key, its wording, or both; with all it takes to make it where name and category stand there."""
    if not isinstance(said, dict) or not (said.get("key") or said.get("wording")):
        raise Malformed(f"field {path} should be a table with a key or a wording, not {shown(said)}.")
    _refuse_strangers(said, set(SAID), f"{path}.")
    key, wording = (_text(said, name, None, f"{path}.") for name in ("key", "wording"))
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
    _refuse_strangers(said, VERDICT, path)
    annotator = _text(said, "annotator_id", LONGEST_NAME, path)
    if not annotator.strip():
        raise Malformed(
            f"field {path}annotator_id is missing. Name who judged, if only as one of several: first, second."
        )
    if ACCOUNT.fullmatch(annotator):
        raise Malformed(
            f"field {path}annotator_id is {shown(annotator)}, which is what accounts of this Nestbox are called. "
            f"Write another name, such as {shown('their-' + annotator)}, so that nobody is taken for somebody else."
        )
    told = {
        "created_at": _text(said, "created_at", LONGEST_NAME, path),
        "wording": _text(said, "wording", None, path),
        "meta": _meta(said, path),
    }
    return ImportedJudgement(
        rule=rule,
        annotator_key=annotator,
        verdict=_verdict(said, path),
        turn_position=_turn(said, path, messages),
        reason=_text(said, "reason", None, path),
        by_prober=_value(said, "by_prober", path, False, lambda value: isinstance(value, bool), "true or false"),
        tactics=_tactics(said, path),
        seconds=_value(said, "seconds", path, None, _is_time, "a number from 0, or null"),
        late=_value(said, "late", path, False, lambda value: isinstance(value, bool), "true or false"),
        revision=_value(said, "revision", path, 1, _is_revision, "a whole number from 1"),
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


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _is_revision(value: Any) -> bool:
    return type(value) is int and 1 <= value < 2**31


def _value(said: dict[str, Any], name: str, path: str, default: Any, fits: Callable[[Any], bool], what: str) -> Any:
    value = said.get(name)
    if value is None:
        return default
    if not fits(value):
        raise Malformed(f"field {path}{name} should be {what}, not {shown(value)}.")
    return value


def _text(record: dict[str, Any], name: str, longest: int | None, path: str = "") -> str:
    """A text that may be missing; empty then."""
    value = record.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"field {path}{name} should be text, not {shown(value)}.")
    if longest is not None and len(value) > longest:
        raise Malformed(f"field {path}{name} should have at most {longest} characters; it has {len(value)}.")
    refuse_unstorable(value, f"field {path}{name}")
    return value


def _one_of(record: dict[str, Any], name: str, known: tuple[str, ...] | list[str]) -> str:
    value = _text(record, name, LONGEST_NAME)
    if value and value not in known:
        hint = " What is kept for evaluation is not taken in." if value == Dialogue.Kind.EVALUATION else ""
        raise Malformed(f"field {name} should be one of {', '.join(known)}, not {shown(value)}.{hint}")
    return value


def _meta(record: dict[str, Any], path: str) -> dict[str, Any]:
    """What else a source says: an object, or the text of one."""
    value = record.get("meta")
    if isinstance(value, str) and value:
        try:
            value = parse_object(value.encode("utf-8", "surrogatepass"))
        except Malformed as err:
            raise Malformed(f"field {path}meta: {err}") from err
    if value and not isinstance(value, dict):
        raise Malformed(f"field {path}meta should be an object, or the text of one, not {shown(value)}.")
    return kept_fields(value, without=set(), path=f"{path}meta.") if value else {}


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
