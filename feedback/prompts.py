"""What opens dialogues: store a prompt once, in a group that never straddles the split."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction

from feedback.errors import SplitConflict
from feedback.models import Project, Prompt, PromptGroup, Turn, User

Messages = Sequence[Mapping[str, str]]
VALIDATION_SHARE = 0.1
TEST_SHARE = 0.1


def normalise(text: str) -> str:
    """The text as two careless typists would agree on: compatibility form, lower case, single spaces, no end marks.

    >>> normalise("  Why are  my Basil leaves yellow?? ")
    'why are my basil leaves yellow'
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return re.sub(r"\s+", " ", folded).strip().rstrip("?!. ")


def can_open(messages: Any) -> bool:
    """Whether a dialogue can begin with these messages: known speakers, and at the end a user who says something."""
    try:
        said = [(Turn.Role(message["role"]), message["content"].strip()) for message in messages]
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
    return bool(said) and said[-1][0] == Turn.Role.USER and said[-1][1] != ""


def fingerprint(messages: Messages) -> str:
    """sha256 of the opening: system messages and the first user turn, normalised."""
    opening = []
    for message in messages:
        opening.append([message["role"], normalise(message["content"])])
        if message["role"] == "user":
            break
    return _sha256(opening)


def content_hash(messages: Messages) -> str:
    """sha256 of all messages, exactly as they are."""
    return _sha256([[message["role"], message["content"]] for message in messages])


def split_of(group_key: str) -> str:
    """The side of the split a group falls on when its source does not say: by hash, so it is the same everywhere."""
    point = int(hashlib.sha256(f"split|{group_key}".encode()).hexdigest()[:12], 16) / 16**12
    if point < TEST_SHARE:
        return PromptGroup.Split.TEST
    if point < TEST_SHARE + VALIDATION_SHARE:
        return PromptGroup.Split.VALIDATION
    return PromptGroup.Split.TRAIN


@transaction.atomic
def add_prompt(
    *,
    project: Project,
    messages: Messages,
    group: str = "",
    split: str = "",
    source: str = "",
    details: dict[str, Any] | None = None,
    author: User | None = None,
    is_active: bool = True,
    weight: float = 1.0,
) -> Prompt:
    """Store what opens a dialogue; the same messages again give the same row.

    group      what must stay on one side of the split; empty: the fingerprint of the opening. A prompt whose opening
               is known already joins the group of that one
    split      the side its source wants; empty: by hash of the group
    weight     how often it is drawn beside others
    is_active  offered to annotators; messages that cannot open a dialogue never are
    Raises     SplitConflict when the group, or another prompt with the same opening, already lies on another side
    """
    messages = [{"role": message["role"], "content": message["content"]} for message in messages]
    exact = content_hash(messages)
    known = Prompt.objects.select_related("group").filter(project=project, content_hash=exact).first()
    if known is None:
        opening = fingerprint(messages)
        home = _group_for(project, opening, group, split)
        known, _ = Prompt.objects.get_or_create(
            project=project,
            content_hash=exact,
            defaults={
                "group": home,
                "messages": messages,
                "fingerprint": opening,
                "source": source,
                "details": details or {},
                "author": author,
                "is_active": is_active and can_open(messages),
                "weight": weight,
            },
        )
    if split and known.split != split:
        raise SplitConflict(f"This opening already lies in the {known.split} split; it cannot go to {split} as well.")
    return known


def _group_for(project: Project, opening: str, key: str, split: str) -> PromptGroup:
    """The group of a new prompt: that of a prompt with the same opening, the named one, or a new one."""
    twin = Prompt.objects.select_related("group").filter(project=project, fingerprint=opening).first()
    if twin is not None:
        return twin.group
    key = key or opening
    home, _ = PromptGroup.objects.get_or_create(project=project, key=key, defaults={"split": split or split_of(key)})
    return home


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()
