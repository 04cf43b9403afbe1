"""What a person has typed and not yet sent, kept on the server."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from feedback.errors import DraftUnreadable, MessageTooLong, SlotClosed, StaleDraft
from feedback.models import Draft, Slot
from feedback.slots import locked

LARGEST_DRAFT = 64_000  # characters as JSON
Body = dict[str, Any]  # {name of a field: what was typed or chosen}
ANSWERABLE = (Slot.State.HELD, Slot.State.LAPSED)


@transaction.atomic
def save_draft(*, slot: Slot, body: Body, version: int) -> Draft:
    """Keep what was typed. Saved only while the slot can still be answered, and only over the version that was read.

    version  the draft's version the page last saw; 0 when it saw none
    Raises   SlotClosed (answered already), StaleDraft (another window saved since), MessageTooLong, DraftUnreadable
    """
    body = _checked(body)
    if locked(slot).state not in ANSWERABLE:
        raise SlotClosed("This piece is answered already; the draft was not needed any more.")
    now = timezone.now()
    draft, made = Draft.objects.get_or_create(slot=slot, defaults={"body": body, "saved_at": now})
    if made:
        return draft
    updated = Draft.objects.filter(pk=draft.pk, version=version).update(body=body, version=version + 1, saved_at=now)
    draft.refresh_from_db()
    if not updated and draft.body != body:
        raise StaleDraft("Another window has saved a newer draft of this. Reload to go on from that one.", draft=draft)
    return draft


def _checked(body: Body) -> Body:
    try:
        body = storable(body)
        fits = _size(body) <= LARGEST_DRAFT
    except RecursionError:  # lists in lists in lists: no page of ours sends that
        fits = False
    except ValueError as err:  # infinite, or not a number
        raise DraftUnreadable("This draft could not be read.") from err
    if not fits:
        raise MessageTooLong("This draft is too long to keep. Shorten it, or send it in parts.")
    return body


def _size(value: Any) -> int:
    """Characters as JSON. Raises RecursionError, and ValueError for a number that is none."""
    return len(json.dumps(value, ensure_ascii=False, allow_nan=False))


def draft_of(slot: Slot) -> Draft | None:
    return Draft.objects.filter(slot=slot).first()


@transaction.atomic
def clear_draft(slot: Slot, *, version: int | None, left: Callable[[Body], Body]) -> None:
    """After what was typed has become a row: an empty draft, newer than any that a window may still send.

    version  the draft's version the page last saw; None when that is not known
    left     what stays of a draft that another window has saved since
    """
    locked(slot)
    draft = draft_of(slot)
    body = {} if draft is None or draft.version == version else left(draft.body)
    if draft is None or draft.version == version or body != draft.body:
        _put(slot, body)


def clear_message(slot: Slot, *, message: str, version: int | None = None) -> None:
    """After a message was sent: an empty draft. What another window has typed since stays.

    version  the draft's version the page last saw; None when that is not known
    """

    def left(body: Body) -> Body:
        is_sent = _both(body.get("message"), message) == message
        return {key: value for key, value in body.items() if key != "message" or not is_sent}

    clear_draft(slot, version=version, left=left)


@transaction.atomic
def keep_unsent(slot: Slot, *, message: str, version: int | None = None) -> str:
    """Keep a message that could not be stored where its writer finds it: in the draft of the slot it was sent to.

    It takes the place of the draft that its page last saw. What another window has typed since stays before it. Of what
    is too long for a draft the beginning is kept.

    version  the draft's version the page last saw; None when that is not known
    Returns  all that is not sent yet, for the page to show
    """
    locked(slot)
    draft = draft_of(slot)
    body = draft.body if draft else {}
    unsent = message if draft is None or draft.version == version else _both(body.get("message"), message)
    kept = {**body, "message": _beginning(storable(unsent), beside=body)}
    if message.strip() and kept != body:
        _put(slot, kept)
    return unsent


def _both(stored: Any, message: str) -> str:
    """A stored text and another after it; only one of them where it holds the other, as its beginning or a paragraph.

    >>> _both("And in winter?", "And in summer?"), _both("And in", "And in winter?")
    ('And in winter?\\n\\nAnd in summer?', 'And in winter?')
    """
    before, after = (_same_lines(text) if isinstance(text, str) else "" for text in (stored, message))
    if after.startswith(before):
        return message
    if before.startswith(after) or f"\n\n{after}\n\n" in f"\n\n{before}\n\n":
        return str(stored)
    return f"{stored}\n\n{message}"


def _same_lines(text: str) -> str:
    """Forms send the ends of lines in another way than scripts."""
    return text.replace("\r\n", "\n").strip()


def _beginning(message: str, *, beside: Body) -> str:
    """As much of a message as a draft holds beside its other fields."""
    room = LARGEST_DRAFT - _size({**beside, "message": ""})
    message = message[: max(room, 0)]
    quotes = _size("")
    return message[: bisect_right(range(1, len(message) + 1), room, key=lambda end: _size(message[:end]) - quotes)]


@transaction.atomic
def _put(slot: Slot, body: Body) -> None:
    """Overwrite the draft, whatever its version; the version counts up."""
    locked(slot)
    _, made = Draft.objects.get_or_create(slot=slot, defaults={"body": body})
    if not made:
        Draft.objects.filter(slot=slot).update(body=body, version=F("version") + 1, saved_at=timezone.now())


def storable(value: Any) -> Any:
    """The same without what no database keeps in JSON: NUL, and halves of surrogate pairs.

    >>> storable({"message": "a" + chr(0) + "b", "ranks": [1, chr(0xD800)]})
    {'message': 'ab', 'ranks': [1, '?']}
    """
    if isinstance(value, str):
        return value.replace("\x00", "").encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [storable(part) for part in value]
    if isinstance(value, dict):
        return {storable(key): storable(part) for key, part in value.items()}
    return value
