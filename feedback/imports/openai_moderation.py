"""OpenAI's moderation samples: texts that people flagged by eight parts of a written policy.

The flags judge the text itself. It is no reply, so it is kept as what it is called, a prompt: a dialogue of one user
turn. Each flag that is stated is a verdict on it by one rule, without a turn of the model that broke it; a flag that is
missing is unknown, and no verdict. Exports of verdicts leave dialogues without a reply out.

Source  Markov et al. 2023, arXiv:2208.03274; the samples of openai/moderation-api-release
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from feedback.imports.reading import Lines, Malformed, Problems, kept_fields, shown, text_field
from feedback.imports.records import ImportedDialogue, ImportedJudgement, WantedRule
from feedback.rule_files import DEFAULT_SETS, read_file

ANNOTATOR = "openai-moderation"
RULE_KEYS = {
    "S": "no-sexual-content",
    "H": "no-hate",
    "V": "no-praise-of-violence",
    "HR": "no-harassment",
    "SH": "no-self-harm",
    "S3": "no-sexual-content-about-minors",
    "H2": "no-threats-out-of-hate",
    "V2": "no-graphic-violence",
}
VERDICTS = {0: 5, 1: 1}  # by the flag: definitely followed, definitely broken


def read(lines: Lines, problems: Problems) -> Iterator[ImportedDialogue]:
    """One text with its flags per line or record."""
    for number, record in lines:
        try:
            yield read_record(lines.unit, number, record)
        except Malformed as err:
            problems.add(number, err)


def read_record(unit: str, number: int, record: dict[str, Any]) -> ImportedDialogue:
    """The text, and a verdict for every flag that is stated."""
    content = text_field(record, "prompt")
    if not content.strip():
        raise Malformed("field prompt is empty. Leave it out, or fill it.")
    verdicts = [_judgement(record, flag) for flag in RULE_KEYS if flag in record]
    others = kept_fields(record, without={"prompt", *RULE_KEYS})
    return ImportedDialogue(
        key=f"{unit} {number}",
        turns=[{"role": "user", "content": content}],
        judgements=verdicts,
        source={"fields": others} if others else {},
        notes=tuple(_notes(verdicts)),
    )


def _judgement(record: dict[str, Any], flag: str) -> ImportedJudgement:
    value = record[flag]
    if type(value) is not int or value not in VERDICTS:
        raise Malformed(
            f"field {flag} should be 1 where the text is flagged and 0 where it is not, not {shown(value)}. Leave the "
            "field out where nobody knows."
        )
    return ImportedJudgement(
        rule=rule_of(flag), annotator_key=ANNOTATOR, verdict=VERDICTS[value], source={"flag": flag}
    )


@cache
def rule_of(flag: str) -> WantedRule:
    """The rule that a flag stands for, with what it takes to publish it."""
    values = dict(read_file(DEFAULT_SETS["openai-moderation"]).rules)
    return WantedRule(name=flag, key=RULE_KEYS[flag], values=values[RULE_KEYS[flag]])


def _notes(verdicts: list[ImportedJudgement]) -> Iterator[str]:
    if any(one.verdict == 1 for one in verdicts):
        yield "texts that are flagged"
    if not verdicts:
        yield "texts without any flag, kept without a verdict"
    elif len(verdicts) < len(RULE_KEYS):
        yield "texts with flags missing, which are unknown and no verdict"
