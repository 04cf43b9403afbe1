"""What a person has typed and not yet sent, kept on the server."""

from __future__ import annotations

import json
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from feedback.errors import MessageTooLong, SlotClosed, StaleDraft
from feedback.models import Draft, Slot
from feedback.slots import locked

LARGEST_DRAFT = 64_000  # characters as JSON
ANSWERABLE = (Slot.State.HELD, Slot.State.LAPSED)


@transaction.atomic
def save_draft(*, slot: Slot, body: dict[str, Any], version: int) -> Draft:
    """Keep what was typed. Saved only while the slot can still be answered, and only over the version that was read.

    version  the draft's version the page last saw; 0 when it saw none
    Raises   SlotClosed (answered already), StaleDraft (another window saved since), MessageTooLong
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


def _checked(body: dict[str, Any]) -> dict[str, Any]:
    try:
        body = storable(body)
        fits = len(json.dumps(body)) <= LARGEST_DRAFT
    except RecursionError:  # lists in lists in lists: no page of ours sends that
        fits = False
    if not fits:
        raise MessageTooLong("This draft is too long to keep. Shorten it, or send it in parts.")
    return body


def draft_of(slot: Slot) -> Draft | None:
    return Draft.objects.filter(slot=slot).first()


def clear_draft(slot: Slot) -> None:
    """After what was typed has become a row: an empty draft, newer than any that a window may still send."""
    _put(slot, {})


@transaction.atomic
def keep_unsent(slot: Slot, **typed: str) -> None:
    """Keep what was sent and could not be stored where its writer finds it: in the draft of the slot it was sent to."""
    locked(slot)
    draft = draft_of(slot)
    _put(slot, {**(draft.body if draft else {}), **storable(typed)})


@transaction.atomic
def _put(slot: Slot, body: dict[str, Any]) -> None:
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
