"""An answer as pages hold it: what stands on a sheet, with replies by the names that their page gives them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.utils.crypto import salted_hmac

from feedback.models import Ranking, Slot

FLAGS = {
    "rule": "Breaks a rule",
    "wrong": "Says something wrong",
    "unsafe": "Could do harm",
    "nonsense": "Makes no sense",
    "other": "Something else",
}
NAME = r"[0-9a-f]{12}"
OF_REPLY = r"(?:rank|flag|flagkind)"  # how fields about one reply begin


def name_of(slot: Slot, candidate_pk: int) -> str:
    """What a reply is called on this person's pages: it tells nothing, not which was made first, nor by what.

    It stays the same when they take up again what lapsed, so that a draft still fits.
    """
    return salted_hmac("annotate.reply", f"{slot.shuffle_seed}:{candidate_pk}", algorithm="sha256").hexdigest()[:12]


@dataclass(frozen=True)
class Answer:
    """Places, flags, how clear the best is; or that none is good."""

    ranks: Mapping[str, int] = field(default_factory=dict)
    flags: Mapping[str, Sequence[str]] = field(default_factory=dict)
    strength: int | None = None
    all_bad: bool = False


def answer_of(slot: Slot, ranking: Ranking | None) -> Answer:
    """A stored ranking as its sheet shows it."""
    if ranking is None:
        return Answer()
    ranks = {name_of(slot, pk): rank for pk, rank in ranking.ranks().items()}
    flags = {name_of(slot, entry.candidate_id): entry.flags for entry in ranking.entries.all() if entry.flags}
    return Answer(ranks, flags, ranking.strength, ranking.all_bad)


def answer_in_draft(body: Mapping[str, Any]) -> Answer | None:
    """The answer in a draft; None where it holds none. A draft comes from a browser and so is not to be trusted."""
    ranks, flags = {}, {}
    for key, value in body.items():
        match = re.fullmatch(rf"(rank|flag)-({NAME})", str(key))
        if match and match.group(1) == "rank" and re.fullmatch(r"[1-9]", str(value)):
            ranks[match.group(2)] = int(str(value))
        elif match and match.group(1) == "flag":
            kind = str(body.get(f"flagkind-{match.group(2)}", "other"))
            flags[match.group(2)] = [kind if kind in FLAGS else "other"]
    strength = int(body["strength"]) if str(body.get("strength", "")) in {"1", "2", "3", "4"} else None
    all_bad = bool(body.get("all_bad"))
    return Answer(ranks, flags, strength, all_bad) if ranks or flags or strength or all_bad else None


def without_answer(body: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """A draft without the answer about these replies. An answer about others stays: it is to a later question.

    names  what the replies are called on their page
    """
    about = {match.group(1) for match in (re.fullmatch(rf"{OF_REPLY}-({NAME})", key) for key in body) if match}
    if not about <= set(names):
        return dict(body)
    return {key: value for key, value in body.items() if not re.fullmatch(rf"{OF_REPLY}-.*|strength|all_bad", key)}
