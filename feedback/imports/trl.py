"""TRL's own shapes: preferences with or without a prompt of their own, demonstrations, labelled replies, and prompts.

Which of them a record is its fields say. Prompts and replies are texts or lists of messages; what a field was stays
with the row, so that it can be written again. Preferences become comparisons with one ranking. A label says that a
reply is wanted or not, by no rule that is named and beside no other reply: it is kept with the reply, and is neither a
verdict nor a ranking. What is there to be imitated becomes demonstrations: each reply to a user's turn.

Source  TRL 1.16, "Dataset formats and types"; a prompt that both replies share is cut off as its `extract_prompt` does
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from feedback.imports.fields import message_of
from feedback.imports.hh_rlhf import shared_turns
from feedback.imports.reading import Lines, Malformed, Problems, kept_fields, shown, text_field
from feedback.imports.records import (
    ImportedCandidate,
    ImportedDemonstration,
    ImportedDialogue,
    ImportedText,
    Messages,
)

SIDES = ("chosen", "rejected")
MARK_OF_HH_RLHF = "\n\nHuman:"
ANNOTATOR = "trl"
NOT_TAKEN = {
    "text": "plain text to imitate, in which nobody can tell who speaks",
    "completions": "replies judged step by step",
}


def read(lines: Lines, problems: Problems) -> Iterator[ImportedDialogue]:
    """A comparison, a labelled reply or a prompt per line or record."""
    for number, record in lines:
        try:
            dialogue = read_record(record)
            dialogue.key = f"{lines.unit} {number}"
            yield dialogue
        except Malformed as err:
            problems.add(number, err)


def read_record(record: dict[str, Any]) -> ImportedDialogue:
    """Whatever a record is, by its fields. Raises Malformed for what is not taken, by name."""
    if set(SIDES) & set(record):
        return _preference(record)
    if {"prompt", "completion", "label"} <= set(record):
        return _labelled(record)
    if "messages" in record:
        return _dialogue(record)
    if {"prompt", "completion"} <= set(record):
        return _completed(record)
    if strange := next((name for name in NOT_TAKEN if name in record), None):
        raise Malformed(
            f"field {strange} says that this is {NOT_TAKEN[strange]}, which is not taken in. Taken are chosen and "
            "rejected, with or without prompt; messages; prompt and completion, with or without label; prompt alone."
        )
    return _prompt_alone(record)


def _preference(record: dict[str, Any]) -> ImportedDialogue:
    sides = {name: _turns(record, name, "assistant") for name in SIDES}
    if "prompt" in record:
        prompt, kept = _turns(record, "prompt", "user"), _kept(record, {"prompt", *SIDES})
        kept["prompt_is"] = _kind(record, "prompt")
    else:
        prompt, kept = _cut_off(record, sides), _kept(record, set(SIDES))
    is_tie = sides["chosen"] == sides["rejected"]
    ranks = {"chosen": 1, "rejected": 1 if is_tie else 2}
    return ImportedDialogue(
        key="",
        turns=prompt,
        candidates=[
            ImportedCandidate(sides[name], rank=ranks[name], source={"field": name, "is": _kind(record, name)})
            for name in SIDES
        ],
        source=kept,
        notes=tuple(_notes_of_pair(prompt, is_tie, "prompt" in record)),
    )


def _notes_of_pair(prompt: Messages, is_tie: bool, has_prompt: bool) -> Iterator[str]:
    yield "preferences" if has_prompt else "preferences without a prompt of their own"
    if is_tie:
        yield "equal pairs, kept as ties"
    if all(turn["role"] != "user" for turn in prompt):
        yield "pairs that share no opening, kept but not exported"


def _cut_off(record: dict[str, Any], sides: dict[str, Messages]) -> Messages:
    """What both replies begin with, which is the prompt; it is taken off them."""
    if _kind(record, "chosen") != _kind(record, "rejected"):
        raise Malformed(
            "fields chosen and rejected should both be text, or both be messages, where there is no prompt."
        )
    if _kind(record, "chosen") == "text":
        return _cut_off_text(sides)
    both = [[(turn["role"], turn["content"]) for turn in sides[name]] for name in SIDES]
    shared = shared_turns(*both)
    prompt = sides["chosen"][:shared]
    for name in SIDES:
        sides[name] = sides[name][shared:]
    return prompt


def _cut_off_text(sides: dict[str, Messages]) -> Messages:
    chosen, rejected = (sides[name][0]["content"] for name in SIDES)
    if chosen.startswith(MARK_OF_HH_RLHF):
        raise Malformed("field chosen is a whole transcript with marked turns. Import this with --format hh-rlhf.")
    shared = shared_text(chosen, rejected)
    if not chosen[:shared].strip():
        return []
    for name, text in zip(SIDES, (chosen, rejected), strict=True):
        sides[name] = [{"role": "assistant", "content": text[shared:]}]
    return [{"role": "user", "content": chosen[:shared]}]


def shared_text(chosen: str, rejected: str) -> int:
    """How many characters two texts begin with alike, without the blank before they part; all but the last at most.

    >>> shared_text("The sky is blue.", "The sky is green.")
    10
    """
    most = min(len(chosen), len(rejected)) - 1
    parts = next((place for place in range(most) if chosen[place] != rejected[place]), max(most, 0))
    is_other = chosen[parts : parts + 1] != rejected[parts : parts + 1]
    return parts - 1 if parts and is_other and chosen[parts - 1] == " " else parts


def _labelled(record: dict[str, Any]) -> ImportedDialogue:
    label = record["label"]
    if not isinstance(label, bool):
        raise Malformed(f"field label should be true or false, not {shown(label)}.")
    source = {"field": "completion", "is": _kind(record, "completion"), "label": label}
    completion = _turns(record, "completion", "assistant")
    return ImportedDialogue(
        key="",
        turns=_turns(record, "prompt", "user"),
        candidates=[ImportedCandidate(completion, is_compared=False, source=source)],
        source=_kept(record, {"prompt", "completion", "label"}) | {"prompt_is": _kind(record, "prompt")},
        notes=("labels without a rule, kept with their reply and no verdict",),
    )


def _dialogue(record: dict[str, Any]) -> ImportedDialogue:
    """A whole dialogue, of which every reply to a user is to be imitated."""
    if not isinstance(record["messages"], list):
        raise Malformed(f"field messages should be a list of messages, not {shown(record['messages'])}.")
    turns = _turns(record, "messages", "user")
    return _imitated(turns, 0, "messages", _kept(record, {"messages"}))


def _completed(record: dict[str, Any]) -> ImportedDialogue:
    """A dialogue so far, and what is to be imitated after it."""
    prompt = _turns(record, "prompt", "user")
    if prompt[-1]["role"] != "user":
        raise Malformed("field prompt should end with what a user said, as the completion answers that.")
    turns = prompt + _turns(record, "completion", "assistant")
    kept = _kept(record, {"prompt", "completion"}) | {"prompt_is": _kind(record, "prompt")}
    return _imitated(turns, len(prompt), "completion", kept | {"completion_is": _kind(record, "completion")})


def _imitated(turns: Messages, begins: int, name: str, source: dict[str, Any]) -> ImportedDialogue:
    """The replies from a place on as demonstrations; the last of them is no turn itself."""
    found = [
        ImportedDemonstration(at - 1, [ImportedText(ANNOTATOR, turn["content"])])
        for at, turn in enumerate(turns)
        if at >= max(begins, 1) and _is_reply(turns[at - 1], turn)
    ]
    if not found:
        raise Malformed(f"field {name} has no reply to a user's turn that could be imitated. Leave the record out.")
    is_last = found[-1].position == len(turns) - 2
    return ImportedDialogue(
        key="",
        turns=turns[:-1] if is_last else turns,
        demonstrations=found,
        source=source | {"begins": begins},
        notes=("dialogues to imitate",),
    )


def _is_reply(before: dict[str, str], turn: dict[str, str]) -> bool:
    return before["role"] == "user" and turn["role"] == "assistant" and bool(turn["content"].strip())


def _prompt_alone(record: dict[str, Any]) -> ImportedDialogue:
    if "prompt" not in record:
        raise Malformed("field prompt is missing, and so are chosen and rejected. Is this one of TRL's shapes?")
    prompt = _turns(record, "prompt", "user")
    return ImportedDialogue(
        key="",
        turns=prompt,
        source=_kept(record, {"prompt"}) | {"prompt_is": _kind(record, "prompt")},
        notes=("prompts alone",),
    )


def _kept(record: dict[str, Any], without: set[str]) -> dict[str, Any]:
    others = kept_fields(record, without=without)
    return {"fields": others} if others else {}


def _kind(record: dict[str, Any], name: str) -> str:
    return "text" if isinstance(record[name], str) else "messages"


def _turns(record: dict[str, Any], name: str, role: str) -> Messages:
    """A field as messages; a text is one by `role`. A prompt must say something, and a list hold a message."""
    if name not in record:
        raise Malformed(f"field {name} is missing. Is this the format you named?")
    if isinstance(record[name], list):
        turns = [message_of(one, f"{name}[{place}]") for place, one in enumerate(record[name])]
    else:
        turns = [{"role": role, "content": text_field(record, name)}]
    if not turns or (role == "user" and not any(turn["content"].strip() for turn in turns)):
        raise Malformed(f"field {name} is empty. Fill it, or leave the record out.")
    return turns
