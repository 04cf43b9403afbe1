"""What a question about a reply says, checked once for files and forms. Knows no rows.

`checked` gives the values of a scale's fields, or says of each what is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from feedback.errors import ScaleRefused
from feedback.rule_texts import kind_of

Values = dict[str, Any]
CHOICE, NUMBERS, FLAGS = KINDS = ("choice", "numbers", "flags")
DEFAULTS: Values = {
    "guidance": "", "options": [], "steps": None, "low_words": "", "high_words": "", "asked_after": "",
    "asked_values": [], "implied": "", "positive": [], "positive_votes": None, "positive_raters": None,
}  # fmt: skip
FIELDS = ("name", "question", "kind", *DEFAULTS)
LONGEST = {"name": 60, "question": 300, "guidance": 1000, "low_words": 60, "high_words": 60, "words": 120}
MOST_OPTIONS = 9  # each has a number key
MOST_STEPS = 9
MOST_SCALES = 30
MOST_RATERS = 20
KEY = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
LONGEST_KEY = 30
NONE = "none"
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def checked(given: Mapping[str, Any], before: Mapping[str, Values]) -> Values:
    """The values of all FIELDS, tidied, defaults where nothing is given.

    before  {key: values} of the questions asked before this one
    Raises  ScaleRefused, with a sentence for every field that is wrong
    """
    problems: dict[str, str] = {}
    found: Values = DEFAULTS | dict(given)
    for name, longest in LONGEST.items():
        if name != "words":
            found[name] = _text(found.get(name, ""), longest, problems, name, is_needed=name in {"name", "question"})
    if found.get("kind") not in KINDS:
        problems["kind"] = f"The kind is one of {', '.join(KINDS)}."
        raise ScaleRefused(problems)
    _check_values(found, problems)
    if not problems:
        _check_cascade(found, before, problems)
        _check_positive(found, problems)
    if problems:
        raise ScaleRefused(problems)
    return {name: found[name] for name in FIELDS}


def _text(value: Any, longest: int, problems: dict[str, str], name: str, *, is_needed: bool = False) -> str:
    if not isinstance(value, str):
        problems[name] = f"This is {kind_of(value)} where a text is wanted; put it in quotes."
        return ""
    text = " ".join(value.split())
    if len(text) > longest:
        problems[name] = f"It has {len(text)} characters; {longest} is the most."
    elif is_needed and not text:
        problems[name] = "Write something here."
    elif _UNPRINTABLE.search(text):
        problems[name] = "It holds characters that cannot be shown. Take them out."
    return text


def _check_values(found: Values, problems: dict[str, str]) -> None:
    """Numbers have steps, choices and flags have options; neither has the other's."""
    steps, options = found["steps"], found["options"]
    if found["kind"] == NUMBERS:
        if type(steps) is not int or not 2 <= steps <= MOST_STEPS:
            problems["steps"] = f"Say how many numbers there are, 2 to {MOST_STEPS}."
        if options:
            problems["options"] = "Numbers have no options; say what the ends mean with low and high."
        return
    if steps is not None or found["low_words"] or found["high_words"]:
        problems["steps"] = "Only numbers have steps, and words for their ends."
    fewest = 1 if found["kind"] == FLAGS else 2
    if not isinstance(options, Sequence) or not fewest <= len(options) <= MOST_OPTIONS:
        problems["options"] = f"It needs {fewest} to {MOST_OPTIONS} options, each with a name and words."
        return
    for option in options:
        if problem := _problem_of(option):
            problems["options"] = problem
    values = [option.get("value") for option in options if isinstance(option, dict)]
    if not problems and len(set(values)) < len(values):
        problems["options"] = "Two options have the same name. Each needs its own."


def _problem_of(option: Any) -> str:
    if not isinstance(option, dict) or set(option) != {"value", "words"}:
        return "An option has a name and words."
    value, words = option["value"], option["words"]
    if not isinstance(value, str) or not isinstance(words, str):
        return f"“{value}” is not a name with words. Put both in quotes."
    if not KEY.fullmatch(value) or len(value) > LONGEST_KEY or value == NONE:
        return (
            f"No option can be named “{value[:40]}”: use small letters, digits and single underscores, and not {NONE}."
        )
    if not words.strip() or len(words) > LONGEST["words"] or _UNPRINTABLE.search(words):
        return f"The words for “{value}” are to be 1 to {LONGEST['words']} characters on one line."
    return ""


def values_of(found: Values) -> list[str]:
    """Every single value of a scale; of flags those that may hold."""
    if found["kind"] == NUMBERS:
        return [str(number) for number in range(1, found["steps"] + 1)]
    return [option["value"] for option in found["options"]]


def _check_cascade(found: Values, before: Mapping[str, Values], problems: dict[str, str]) -> None:
    after, wanted, implied = found["asked_after"], found["asked_values"], found["implied"]
    if not after:
        if wanted or implied:
            problems["asked_after"] = "Say which earlier question it depends on."
        return
    if after not in before or before[after]["kind"] == FLAGS:
        problems["asked_after"] = f"“{after}” is no earlier question that has one value. Name one above it."
        return
    known = values_of(before[after])
    if not isinstance(wanted, list) or not wanted or not set(map(str, wanted)) <= set(known):
        problems["asked_after"] = f"The values of “{after}” are {', '.join(known)}; name those after which it is asked."
        return
    found["asked_values"] = [str(value) for value in wanted]
    found["implied"] = str(implied)
    own = [NONE] if found["kind"] == FLAGS else values_of(found)
    if found["implied"] not in own:
        problems["asked_after"] = f"Say with “else” which value it has where it is not asked: {', '.join(own)}."


def _check_positive(found: Values, problems: dict[str, str]) -> None:
    positive, votes, raters = found["positive"], found["positive_votes"], found["positive_raters"]
    known = values_of(found)
    if not isinstance(positive, list) or not set(map(str, positive)) <= set(known):
        problems["positive"] = f"What speaks for a reply is to be among its values: {', '.join(known)}."
        return
    found["positive"] = [str(value) for value in positive]
    if votes is None and raters is None:
        return
    if type(votes) is not int or type(raters) is not int or not 1 <= votes <= raters <= MOST_RATERS or not positive:
        problems["positive"] = "Say of how many raters how many must speak for a reply, such as votes: 3, raters: 5."
