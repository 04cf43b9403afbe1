"""XSTest: replies to prompts that are safe and sound dangerous, or are dangerous, labelled by two people each.

Each row of a file of completions becomes a dialogue of two turns and two verdicts: on a safe prompt by the rule that
forbids needless refusals, on an unsafe one by the rule that forbids help with harm. Both labels stay where they differ.

Source  Röttger et al. 2024, arXiv:2308.01263; the completions of paul-rottger/exaggerated-safety
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from feedback.imports.reading import Lines, Malformed, Problems, kept_fields, shown, text_field
from feedback.imports.records import ImportedDialogue, ImportedJudgement, WantedRule
from feedback.rule_files import DEFAULT_SETS, read_file

SAFE, UNSAFE = "safe", "unsafe"
RULE_KEYS = {SAFE: "no-needless-refusal", UNSAFE: "no-help-with-harm"}
SAFE_TYPES = frozenset(
    {
        "homonyms", "figurative_language", "safe_targets", "safe_contexts", "definitions", "real_group_nons_discr",
        "nons_group_real_discr", "historical_events", "privacy_public", "privacy_fictional",
    }
)  # fmt: skip
UNSAFE_TYPES = frozenset(
    {
        "contrast_homonyms", "contrast_figurative_language", "contrast_safe_targets", "contrast_safe_contexts",
        "contrast_definitions", "contrast_discr", "contrast_historical_events", "contrast_privacy",
    }
)  # fmt: skip

# A partial refusal counts as XSTest's authors count it, as a refusal; that it was one only in part makes it less sure.
VERDICTS = {
    SAFE: {"1_full_compliance": 5, "3_partial_refusal": 2, "2_full_refusal": 1},
    UNSAFE: {"1_full_compliance": 1, "3_partial_refusal": 4, "2_full_refusal": 5},
}
ANNOTATORS = ("annotation_1", "annotation_2")
LONGEST_ID = 200  # characters; what a row keeps as the source's own name
MODEL_IN_NAME = re.compile(r"completions_([A-Za-z0-9-]+)")  # the files name the model nowhere else
REPLY = 1  # the place of the model's turn


def read(lines: Lines, problems: Problems) -> Iterator[ImportedDialogue]:
    """One dialogue with two verdicts per row."""
    named = MODEL_IN_NAME.search(lines.path.name)
    for number, record in lines:
        try:
            yield read_row(record, named.group(1) if named else "")
        except Malformed as err:
            problems.add(number, err)


def read_row(record: dict[str, Any], model_name: str) -> ImportedDialogue:
    """The prompt and its reply, and what both annotators say of it."""
    key = text_field(record, "id")
    if not key or len(key) > LONGEST_ID:
        raise Malformed(f"field id should have 1 to {LONGEST_ID} characters.")
    side = side_of(text_field(record, "type"))
    prompt, completion = text_field(record, "prompt"), text_field(record, "completion")
    if not prompt.strip():
        raise Malformed("field prompt is empty. Leave the row out, or fill it.")
    verdicts = [_judgement(record, name, side) for name in ANNOTATORS]
    others = kept_fields(record, without={"id", "prompt", "completion", *ANNOTATORS})
    return ImportedDialogue(
        key=key,
        turns=[{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}],
        judgements=verdicts,
        source=({"model_name": model_name} if model_name else {}) | others,
        notes=tuple(_notes(side, verdicts, completion)),
    )


def side_of(prompt_type: str) -> str:
    """Whether prompts of a type are safe. A type nobody knows is refused: guessed wrong, its verdicts turn round.

    >>> side_of("homonyms"), side_of("contrast_homonyms")
    ('safe', 'unsafe')
    """
    if prompt_type in SAFE_TYPES:
        return SAFE
    if prompt_type in UNSAFE_TYPES:
        return UNSAFE
    raise Malformed(f"field type should be one of XSTest's 18 types, not {shown(prompt_type)}. Is this XSTest?")


def _judgement(record: dict[str, Any], name: str, side: str) -> ImportedJudgement:
    label = text_field(record, name)
    if label not in VERDICTS[side]:
        raise Malformed(f"field {name} should be one of {', '.join(sorted(VERDICTS[side]))}, not {shown(label)}.")
    verdict = VERDICTS[side][label]
    return ImportedJudgement(
        rule=rule_of(side),
        annotator_key=name,
        verdict=verdict,
        turn_position=REPLY if verdict <= 2 else None,
        source={"label": label},
    )


@cache
def rule_of(side: str) -> WantedRule:
    """The rule that prompts of a side are judged by, with what it takes to publish it."""
    values = dict(read_file(DEFAULT_SETS["xstest"]).rules)
    return WantedRule(name=side, key=RULE_KEYS[side], values=values[RULE_KEYS[side]])


def _notes(side: str, verdicts: list[ImportedJudgement], completion: str) -> Iterator[str]:
    yield f"{side} prompts"
    if len({judgement.verdict for judgement in verdicts}) > 1:
        yield "dialogues on which the two annotators differ, both kept"
    if not completion.strip():
        yield "empty replies, kept"
