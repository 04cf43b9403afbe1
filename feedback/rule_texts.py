"""What a rule says, apart from where it stands: read from a form or a file, checked once for both. Knows no rows.

`FIELDS` names what there is; `checked` gives a rule's values or says of every field what is wrong with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from feedback.errors import RuleRefused

Values = dict[str, Any]

TEXT = ("name", "wording", "breaks", "keeps")  # what people judge by: a change asks what it means for judgements
SETTINGS = ("category", "theme", "ideas", "is_sensitive", "warning", "probe_quota", "weight")
FIELDS = (*TEXT, *SETTINGS)
DEFAULTS: Values = {
    "theme": "", "breaks": [], "keeps": [], "ideas": [], "is_sensitive": False, "warning": "", "probe_quota": 60,
    "weight": 1.0,
}  # fmt: skip

CATEGORIES = ("harm", "correct", "helpful")
LONGEST = {
    "key": 60,
    "name": 80,
    "theme": 60,
    "wording": 600,
    "warning": 200,
    "breaks": 600,
    "keeps": 600,
    "ideas": 400,
}
MOST_IN_A_LIST = 12
MOST_RULES = 100
MOST_PROBES = 100_000
MOST_WEIGHT = 100.0
KEY = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)*")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def checked(given: Mapping[str, Any]) -> Values:
    """The values of all FIELDS, tidied, defaults where nothing is given.

    Raises  RuleRefused, with a sentence for every field that is wrong
    """
    problems: dict[str, str] = {}
    found: Values = {}
    for name in FIELDS:
        try:
            found[name] = _CHECKS[name](name, given.get(name, DEFAULTS.get(name, "")))
        except ValueError as err:
            problems[name] = str(err)
    if not problems and found["is_sensitive"] and not found["warning"]:
        problems["warning"] = "Say what may appear while it is probed: it is what people agree to."
    if problems:
        raise RuleRefused(problems)
    return found


def checked_key(key: Any) -> str:
    """A rule's key as it may be. Raises ValueError with what is wrong."""
    if not isinstance(key, str):
        raise ValueError(f"This is {kind_of(key)} where a word is wanted; put it in quotes.")
    if not KEY.fullmatch(key) or len(key) > LONGEST["key"]:
        raise ValueError(
            f"Use small letters, digits and single hyphens, at most {LONGEST['key']} of them: no-medical-advice."
        )
    return key


def kind_of(value: Any) -> str:
    """What a value of a file is, in words."""
    words = {
        bool: "yes or no",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "a table",
        type(None): "nothing",
    }
    return words.get(type(value), "a text" if isinstance(value, str) else "something else")


def _one_line(name: str, value: Any) -> str:
    return re.sub(r"\s+", " ", _text(name, value)).strip()


def _needed_line(name: str, value: Any) -> str:
    words = {
        "name": "Give it a short name, such as “No medical advice”.",
        "wording": "Say in one sentence what to keep to.",
    }
    if not (line := _one_line(name, value)):
        raise ValueError(words[name])
    return line


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"This is {kind_of(value)} where a text is wanted; put it in quotes.")
    text = value.replace("\r\n", "\n").replace("\r", "\n").strip()
    if _UNPRINTABLE.search(text):
        raise ValueError("It holds a character that cannot be shown; take that out.")
    if len(text) > LONGEST[name]:
        raise ValueError(f"It has {len(text)} characters; {LONGEST[name]} is the most. Make it shorter.")
    return text


def _texts(name: str, value: Any) -> list[str]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"This is {kind_of(value)} where a list of texts is wanted; begin each with a dash.")
    texts = [_one_text(name, place, text) for place, text in enumerate(value, start=1)]
    if len(texts) > MOST_IN_A_LIST:
        raise ValueError(f"There are {len(texts)}; {MOST_IN_A_LIST} is the most. Keep the clearest.")
    if len(set(texts)) < len(texts):
        raise ValueError("The same text stands there twice; take one out.")
    return texts


def _one_text(name: str, place: int, value: Any) -> str:
    try:
        text = _one_line(name, value)
    except ValueError as err:
        raise ValueError(f"Number {place}: {err}") from err
    if not text:
        raise ValueError(f"Number {place} is empty; write it or take it out.")
    return text


def _category(name: str, value: Any) -> str:
    if value not in CATEGORIES:
        raise ValueError("Choose harm, correct or helpful.")
    return str(value)


def _yes_or_no(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"This is {kind_of(value)}; write true or false.")
    return value


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_PROBES:
        raise ValueError(f"Write a whole number from 0 to {MOST_PROBES}.")
    return value


def _weight(name: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not 0 <= value <= MOST_WEIGHT:
        raise ValueError(f"Write a number from 0 to {MOST_WEIGHT:g}.")
    return float(value)


_CHECKS = {
    "name": _needed_line, "wording": _needed_line, "breaks": _texts, "keeps": _texts, "category": _category,
    "theme": _one_line, "ideas": _texts, "is_sensitive": _yes_or_no, "warning": _one_line, "probe_quota": _count,
    "weight": _weight,
}  # fmt: skip
