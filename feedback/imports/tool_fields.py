"""What exports of labelling tools share: a manager says which fields are prompt and replies, and which question counts.

Options, by name
    prompt_field   the field that is answered; empty: the only one that can be it
    reply_fields   the fields that are compared, in their order
    question       what decides, where several questions could
    choices        {word: place of the reply it prefers from 1, or TIE, or BAD}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from feedback.imports.fields import message_of
from feedback.imports.reading import Malformed, refuse_unstorable, shown, text_field
from feedback.imports.records import ImportedCandidate, ImportedRanking, Messages
from feedback.rankings import dense

TIE, BAD = "tie", "bad"
PROMPT_NAMES = ("prompt", "instruction", "question", "input")
LONGEST_NAME = 120  # characters, of an annotator
Choices = Mapping[str, int | str]


def prompt_field(data: dict[str, Any], said: str, others: Sequence[str], path: str) -> str:
    """The field that is answered: as the manager says, or the one of `others` that is alone, or is called as one is."""
    there = [name for name in others if isinstance(data.get(name), str | list)]
    named = [name for name in PROMPT_NAMES if name in there]
    if not said and len(there) != 1 and not named:
        known = ", ".join(map(shown, there)) or "none"
        where = f"field {path[:-1]}" if path else "the record"
        raise Malformed(f"{where} does not say which field is the prompt ({known}). Name it with --prompt-field.")
    return said or (there[0] if len(there) == 1 else named[0])


def prompt_of(data: dict[str, Any], name: str, path: str) -> Messages:
    """The dialogue so far: a text, or a list of messages that a user's ends."""
    value = data.get(name)
    if isinstance(value, list):
        turns = [message_of(one, f"{path}{shown(name)}[{at}]") for at, one in enumerate(value)]
    else:
        turns = [{"role": "user", "content": text_field(data, name, path)}]
    if not turns or turns[-1]["role"] != "user" or not turns[-1]["content"].strip():
        raise Malformed(f"field {path}{shown(name)} should end with what a user said.")
    return turns


def replies_of(data: dict[str, Any], fields: Sequence[str], path: str) -> list[ImportedCandidate]:
    """The replies that are compared, each named by its field."""
    replies = []
    for name in fields:
        if name not in data:
            raise Malformed(f"field {path}{shown(name)} is missing, which should be a reply. See --reply-field.")
        content = text_field(data, name, path)
        replies.append(ImportedCandidate([{"role": "assistant", "content": content}], source={"field": name}))
    return replies


def annotator_of_tool(value: Any, path: str) -> str:
    """Who answered, as the tool numbers or names them; never a name that accounts here have."""
    if not isinstance(value, int | str) or isinstance(value, bool) or not str(value).strip():
        raise Malformed(f"field {path} should say who answered, not {shown(value)}.")
    name = f"annotator {value}" if isinstance(value, int) else value
    refuse_unstorable(name, f"field {path}")
    if len(name) > LONGEST_NAME - 10:
        raise Malformed(f"field {path} should have at most {LONGEST_NAME - 10} characters.")
    return f"annotator {name}" if name[:1] == "u" and name[1:].isdecimal() else name


def chosen_place(word: Any, choices: Choices, fields: Sequence[str], path: str) -> int | str:
    """The place of the reply that a word prefers, from 0, or TIE, or BAD."""
    if not isinstance(word, str):
        raise Malformed(f"field {path} should be a choice, not {shown(word)}.")
    if word in choices:
        meant = choices[word]
        if isinstance(meant, int) and not 1 <= meant <= len(fields):
            raise Malformed(f"field {path} is {shown(word)}, which --choice calls reply {meant}, of {len(fields)}.")
        return meant - 1 if isinstance(meant, int) else meant
    if word in fields:
        return fields.index(word)
    raise Malformed(
        f"field {path} is {shown(word)}, and nothing says which reply that prefers. Say it with --choice WORD=PLACE, "
        "the first reply is 1, or =tie, or =bad."
    )


def answer_of_choice(annotator: str, place: int | str, count: int) -> ImportedRanking:
    """One annotator's answer that prefers a reply to all others, or none to any."""
    ranks: list[int | None] = [1] * count if isinstance(place, str) else [2] * count
    if isinstance(place, int):
        ranks[place] = 1
    return ImportedRanking(annotator, ranks, all_bad=place == BAD)


def answer_of_scores(annotator: str, scores: Sequence[float | None]) -> ImportedRanking:
    """One annotator's answer that scores each reply by itself: the highest is best, equals tie, None is unranked."""
    order = sorted({score for score in scores if score is not None}, reverse=True)
    ranks = [None if score is None else order.index(score) + 1 for score in scores]
    return ImportedRanking(annotator, list(ranks))


def answer_of_ranks(annotator: str, ranks: Sequence[int | None]) -> ImportedRanking:
    """One annotator's answer in ranks that may have gaps."""
    given = dense({at: rank for at, rank in enumerate(ranks) if rank is not None})
    return ImportedRanking(annotator, [given.get(at) for at in range(len(ranks))])


def number_revisions(answers: list[ImportedRanking]) -> list[ImportedRanking]:
    """Answers of one annotator to one question follow each other as the file has them."""
    seen: dict[str, int] = {}
    for answer in answers:
        seen[answer.annotator_key] = answer.revision = seen.get(answer.annotator_key, 0) + 1
    return answers
