"""Sets of questions about a reply as YAML files, read all or nothing. `DEFAULT_SETS` come along."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feedback.errors import ScaleFileRefused, ScaleRefused
from feedback.scale_texts import KEY, LONGEST_KEY, MOST_RATERS, MOST_SCALES, Values, checked
from feedback.set_files import text_of, yaml_of

FORMAT = "nestbox scales 1"
LARGEST_BYTES = 200_000
FOLDER = Path(__file__).parent / "default_scales"
DEFAULT_SETS = {name: FOLDER / f"{name}.yaml" for name in ("lamda", "instructgpt", "sparrow", "unit-tests")}
TOP = ("format", "name", "source", "by_program", "raters", "scales")
# {name in a file: name of the row's field}; options, asked_after and positive are tables of their own
PLAIN = {
    "name": "name", "question": "question", "guidance": "guidance", "kind": "kind", "steps": "steps",
    "low": "low_words", "high": "high_words",
}  # fmt: skip
TABLES = {
    "options": None,
    "asked_after": {"scale": "asked_after", "values": "asked_values", "else": "implied"},
    "positive": {"values": "positive", "votes": "positive_votes", "raters": "positive_raters"},
}
_IN_A_FILE = {ours: name for name, ours in PLAIN.items()}


@dataclass(frozen=True)
class ScaleFile:
    """A set as its file has it: questions in order as (key, values)."""

    name: str
    source: str = ""
    by_program: bool = False
    raters: int = 1
    scales: list[tuple[str, Values]] = field(default_factory=list)


def read_file(path: Path) -> ScaleFile:
    """The set in a file, or one that comes along (its bare name). Raises ScaleFileRefused."""
    text = text_of(path, DEFAULT_SETS, LARGEST_BYTES, ScaleFileRefused)
    try:
        return read_text(text)
    except ScaleFileRefused as err:
        raise ScaleFileRefused(f"{path}: {err.message}") from err


def read_text(text: str) -> ScaleFile:
    """The set in a YAML text. Raises ScaleFileRefused."""
    found = yaml_of(text, ScaleFileRefused)
    if not isinstance(found, dict) or not isinstance(found.get("scales"), list):
        raise ScaleFileRefused("It has no list named “scales”. Begin with “scales:” and one entry per question.")
    _refuse_unknown(found, TOP, "At the top")
    if found.get("format", FORMAT) != FORMAT:
        raise ScaleFileRefused(f"Its format is {found['format']!r}; this version reads {FORMAT!r}.")
    name, source, raters = found.get("name", ""), found.get("source", ""), found.get("raters", 1)
    if not isinstance(name, str) or not 1 <= len(name.strip()) <= 80:
        raise ScaleFileRefused("Give the set a name of at most 80 characters.")
    if not isinstance(source, str) or len(source) > 300:
        raise ScaleFileRefused("Its source is to be a text of at most 300 characters.")
    if type(raters) is not int or not 1 <= raters <= MOST_RATERS:
        raise ScaleFileRefused(f"Its raters are to be a number from 1 to {MOST_RATERS}.")
    if type(found.get("by_program", False)) is not bool:
        raise ScaleFileRefused("by_program is true or false.")
    scales = _scales(found["scales"])
    return ScaleFile(name.strip(), " ".join(source.split()), found.get("by_program", False), raters, scales)


def _scales(rows: list[Any]) -> list[tuple[str, Values]]:
    if not 1 <= len(rows) <= MOST_SCALES:
        raise ScaleFileRefused(f"It holds {len(rows)} questions; 1 to {MOST_SCALES} can be.")
    found: dict[str, Values] = {}
    for number, row in enumerate(rows, start=1):
        key, values = _scale(row, f"Question {number}", found)
        if key in found:
            raise ScaleFileRefused(f"Question {number}: another one has the key “{key}” too. Each needs its own.")
        found[key] = values
    return list(found.items())


def _scale(row: Any, where: str, before: dict[str, Values]) -> tuple[str, Values]:
    if not isinstance(row, dict):
        raise ScaleFileRefused(f"{where}: it is to be a table of fields.")
    _refuse_unknown(row, ("key", *PLAIN, *TABLES), where)
    key = row.get("key")
    if not isinstance(key, str) or not KEY.fullmatch(key) or len(key) > LONGEST_KEY:
        raise ScaleFileRefused(f"{where}, key: use small letters, digits and single underscores, such as makes_sense.")
    where = f"{where} (“{key}”)"
    values: Values = {ours: row[name] for name, ours in PLAIN.items() if name in row}
    values["options"] = _options(row.get("options", {}), where)
    for name, names in TABLES.items():
        if names and name in row:
            table = row[name]
            if not isinstance(table, dict):
                raise ScaleFileRefused(f"{where}, {name}: it is to be a table with {', '.join(names)}.")
            _refuse_unknown(table, tuple(names), f"{where}, {name}")
            values |= {names[inner]: value for inner, value in table.items()}
    try:
        return key, checked(values, before)
    except ScaleRefused as err:
        problems = " ".join(f"{_IN_A_FILE.get(name, name)}: {text}" for name, text in err.problems.items())
        raise ScaleFileRefused(f"{where}, {problems}") from err


def _options(given: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(given, dict):
        raise ScaleFileRefused(f"{where}, options: they are to be a table of names and words.")
    unquoted = [name for name in given if not isinstance(name, str)]
    if unquoted:
        raise ScaleFileRefused(f"{where}, options: YAML reads “{unquoted[0]}” as no text. Put it in quotes: 'yes'.")
    return [{"value": value, "words": words} for value, words in given.items()]


def _refuse_unknown(row: dict[Any, Any], known: tuple[str, ...], where: str) -> None:
    if unknown := [str(name) for name in row if name not in known]:
        raise ScaleFileRefused(f"{where}: nobody knows the field “{unknown[0]}”. Known: {', '.join(known)}.")
