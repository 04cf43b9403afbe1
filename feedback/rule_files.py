"""Rule sets as files, YAML or JSON: read all or nothing, written in one form, so that what is read back is the same.

A file is a table with `rules`, a list; each rule has the fields of `rule_texts` under the names of `NAMES`. A bare list
of rules is read too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from django.db import transaction

from feedback.errors import RuleFileRefused, RuleRefused
from feedback.models import Project, RuleSet, User
from feedback.rule_sets import open_draft, refuse_work_in_progress, replace_rules, values_of
from feedback.rule_texts import DEFAULTS, MOST_RULES, Values, checked, checked_key, kind_of
from feedback.set_files import text_of, yaml_of

FORMAT = "nestbox rules 1"
FORMATS = ("yaml", "json")
LARGEST_BYTES = 1_000_000
LONGEST_NOTE = 2000
DEFAULT_SETS = {path.stem: path for path in sorted((Path(__file__).parent / "default_rules").glob("*.yaml"))}

# {name in a file: name of the row's field}, in the order they are written
NAMES = {
    "key": "key", "name": "name", "category": "category", "theme": "theme", "wording": "wording", "breaks": "breaks",
    "keeps": "keeps", "ideas": "ideas", "sensitive": "is_sensitive", "warning": "warning",
    "probe_quota": "probe_quota", "weight": "weight",
}  # fmt: skip
NEEDED = ("key", "name", "category", "wording")
_IN_A_FILE = {name: ours for ours, name in NAMES.items()}


@dataclass(frozen=True)
class RuleFile:
    """What a file holds: a note about the set, and its rules in order as (key, values)."""

    note: str = ""
    rules: list[tuple[str, Values]] = field(default_factory=list)


# Reading


def read_file(path: Path) -> RuleFile:
    """The rules of a file, or of a set that comes along (its bare name). Raises RuleFileRefused."""
    text = text_of(path, DEFAULT_SETS, LARGEST_BYTES, RuleFileRefused)
    try:
        return read_text(text)
    except RuleFileRefused as err:
        raise RuleFileRefused(f"{path}: {err.message}") from err


def read_text(text: str) -> RuleFile:
    """The rules in a text, which is JSON when it begins like it and else YAML. Raises RuleFileRefused."""
    found = _json(text) if text.lstrip()[:1] in ("{", "[") else yaml_of(text, RuleFileRefused)
    if isinstance(found, list):
        found = {"rules": found}
    if not isinstance(found, dict) or not isinstance(found.get("rules"), list):
        raise RuleFileRefused("It has no list named “rules”. Begin with “rules:” and one entry per rule.")
    _refuse_unknown(found, {"format", "note", "rules"}, "At the top")
    if found.get("format", FORMAT) != FORMAT:
        raise RuleFileRefused(f"Its format is {found['format']!r}; this version reads {FORMAT!r}.")
    note = found.get("note", "")
    if not isinstance(note, str) or len(note) > LONGEST_NOTE:
        raise RuleFileRefused(f"Its note is to be a text of at most {LONGEST_NOTE} characters.")
    return RuleFile(note.strip(), _rules(found["rules"]))


def _rules(rows: list[Any]) -> list[tuple[str, Values]]:
    if not rows:
        raise RuleFileRefused("It holds no rule.")
    if len(rows) > MOST_RULES:
        raise RuleFileRefused(f"It holds {len(rows)} rules; {MOST_RULES} is the most.")
    rules = [_rule(row, f"Rule {number}") for number, row in enumerate(rows, start=1)]
    _refuse_twice("key", [key for key, _ in rules])
    _refuse_twice("name", [values["name"].casefold() for _, values in rules])
    return rules


def _rule(row: Any, where: str) -> tuple[str, Values]:
    if not isinstance(row, dict):
        raise RuleFileRefused(f"{where}: this is {kind_of(row)} where a table of fields is wanted.")
    _refuse_unknown(row, set(NAMES), where)
    if isinstance(row.get("name"), str):
        where = f"{where} (“{row['name'][:40]}”)"
    if missing := [name for name in NEEDED if name not in row]:
        raise RuleFileRefused(f"{where}: it has no {' and no '.join(missing)}.")
    try:
        key = checked_key(row["key"])
    except ValueError as err:
        raise RuleFileRefused(f"{where}, key: {err}") from err
    try:
        return key, checked({NAMES[name]: value for name, value in row.items() if name != "key"})
    except RuleRefused as err:
        problems = [f"{_IN_A_FILE[name]}: {text}" for name, text in err.problems.items()]
        raise RuleFileRefused(f"{where}, " + " ".join(problems)) from err


def _refuse_unknown(row: dict[Any, Any], known: set[str], where: str) -> None:
    if unknown := [str(name) for name in row if name not in known]:
        in_order = [name for name in (*NAMES, "format", "note", "rules") if name in known]
        raise RuleFileRefused(f"{where}: nobody knows the field “{unknown[0]}”. Known: {', '.join(in_order)}.")


def _refuse_twice(name: str, values: list[str]) -> None:
    for number, value in enumerate(values, start=1):
        if (first := values.index(value) + 1) < number:
            raise RuleFileRefused(f"Rule {number}, {name}: rule {first} has the same. Each rule needs its own.")


def _json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as err:
        raise RuleFileRefused(f"This is no JSON that can be read: {err}.") from err


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := next((name for place, name in enumerate(names) if name in names[:place]), None):
        raise ValueError(f"“{twice}” stands twice in one table; take one out")
    return dict(pairs)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


@transaction.atomic
def take_in(
    *, project: Project, found: RuleFile, by: User | None, source: str = "", replace_draft: bool = False
) -> RuleSet:
    """The project's draft, holding what the file holds and nothing else.

    Raises  DraftInTheWay when somebody works on the draft, unless `replace_draft`
    """
    draft = open_draft(project=project, by=by)
    if not replace_draft:
        refuse_work_in_progress(draft)
    replace_rules(draft=draft, rules=found.rules, by=by, note=found.note, source=source)
    draft.refresh_from_db()
    return draft


# Writing


def written(found: RuleFile, form: str = "yaml") -> str:
    """A rule set as a text: every field of every rule that differs from its default, always in the same form."""
    top: dict[str, Any] = {"format": FORMAT}
    if found.note:
        top["note"] = found.note
    top["rules"] = [_row(key, values) for key, values in found.rules]
    if form == "json":
        return json.dumps(top, ensure_ascii=False, indent=2) + "\n"
    return yaml.dump(top, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=118)


def of_rule_set(rule_set: RuleSet) -> RuleFile:
    """What a rule set holds, as a file would."""
    return RuleFile(rule_set.note, [(rule.key, values_of(rule)) for rule in rule_set.rules.all()])


def _row(key: str, values: Values) -> dict[str, Any]:
    found = {"key": key, **values}
    return {
        name: found[ours]
        for name, ours in NAMES.items()
        if name in NEEDED or ours not in DEFAULTS or found[ours] != DEFAULTS[ours]
    }


class _Dumper(yaml.SafeDumper):
    """Lists set in below their name, no aliases."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
        return super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True
