"""What was typed and not yet sent stays, and no window overwrites another's."""

from __future__ import annotations

import pytest

from feedback import drafts
from feedback.errors import MessageTooLong, SlotClosed, StaleDraft
from feedback.models import Draft, Slot
from tests import make
from tests.threads import at_once, raised

pytestmark = pytest.mark.django_db


def save(slot: Slot, text: str, version: int) -> Draft:
    return drafts.save_draft(slot=slot, body={"message": text}, version=version)


def body(slot: Slot) -> dict[str, object] | None:
    draft = drafts.draft_of(slot)
    return draft.body if draft is not None else None


def test_the_first_draft_is_version_one() -> None:
    slot = make.make_rank_slot()
    draft = save(slot, "Perhaps", 0)
    assert (draft.version, draft.body, str(draft)) == (1, {"message": "Perhaps"}, f"draft of slot {slot.pk}")


def test_each_saving_counts_the_version_up() -> None:
    slot = make.make_rank_slot()
    versions = [save(slot, text, version).version for version, text in enumerate(["P", "Pe", "Per"])]
    assert versions == [1, 2, 3]
    assert body(slot) == {"message": "Per"}


def test_there_is_no_draft_before_something_was_typed() -> None:
    assert drafts.draft_of(make.make_rank_slot()) is None


@pytest.mark.parametrize("version", [0, 1, 3])
def test_a_stale_window_does_not_overwrite_and_is_shown_the_newer_one(version: int) -> None:
    slot = make.make_rank_slot()
    save(slot, "one", 0)
    newest = save(slot, "two", 1)
    with pytest.raises(StaleDraft) as refusal:
        save(slot, "three", version)
    assert (refusal.value.draft, refusal.value.status) == (newest, 409)
    assert body(slot) == {"message": "two"}


def test_the_same_text_sent_again_is_no_conflict() -> None:
    slot = make.make_rank_slot()
    first = save(slot, "one", 0)
    assert save(slot, "one", 0) == first
    assert drafts.draft_of(slot).version == 1  # type: ignore[union-attr]


def test_a_draft_is_kept_for_a_slot_that_lapsed() -> None:
    slot = make.make_rank_slot()
    save(slot, "one", 0)
    make.lapse(slot)
    save(slot, "two", 1)
    assert body(slot) == {"message": "two"}


def test_a_late_draft_after_the_answer_changes_nothing() -> None:
    slot = make.make_rank_slot()
    save(slot, "one", 0)
    make.make_ranking(slot)
    with pytest.raises(SlotClosed):
        save(slot, "two", 1)
    assert body(slot) == {"message": "one"}


@pytest.mark.parametrize("before", [True, False], ids=["with a draft before", "without"])
def test_a_late_draft_of_a_message_that_was_sent_does_not_bring_it_back(before: bool) -> None:
    slot = make.make_chat()
    if before:
        save(slot, "And in win", 0)
    drafts.clear_draft(slot)
    with pytest.raises(StaleDraft):
        save(slot, "And in winter?", 1 if before else 0)
    assert body(slot) == {}


def test_after_clearing_the_next_text_is_kept() -> None:
    slot = make.make_chat()
    save(slot, "one", 0)
    drafts.clear_draft(slot)
    version = drafts.draft_of(slot).version  # type: ignore[union-attr]
    assert version == 2
    save(slot, "two", version)
    assert body(slot) == {"message": "two"}


def test_what_could_not_be_sent_is_kept_beside_what_else_was_typed() -> None:
    slot = make.make_chat()
    drafts.save_draft(slot=slot, body={"rank-1": "2", "message": "And"}, version=0)
    drafts.keep_unsent(slot, message="And in winter?")
    assert body(slot) == {"rank-1": "2", "message": "And in winter?"}
    assert drafts.draft_of(slot).version == 2  # type: ignore[union-attr]


def test_what_could_not_be_sent_is_kept_even_in_a_slot_that_is_closed() -> None:
    slot = make.make_rank_slot()
    make.make_ranking(slot)
    drafts.keep_unsent(slot, message="Too late")
    assert body(slot) == {"message": "Too late"}


def test_a_draft_has_a_largest_size() -> None:
    slot = make.make_rank_slot()
    save(slot, "a" * (drafts.LARGEST_DRAFT - 20), 0)
    with pytest.raises(MessageTooLong):
        save(slot, "a" * drafts.LARGEST_DRAFT, 1)


def test_lists_in_lists_without_end_are_refused() -> None:
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(MessageTooLong):
        drafts.save_draft(slot=make.make_rank_slot(), body={"a": deep}, version=0)


def test_what_no_database_keeps_is_left_out() -> None:
    slot = make.make_rank_slot()
    odd = {"me\x00ssage": "a\x00b\ud83d", "list": ["\x00", 1, None, True, {"x": 0.5}], "fine": "é🌱 \\u0000"}
    drafts.save_draft(slot=slot, body=odd, version=0)
    assert body(slot) == {"message": "ab?", "list": ["", 1, None, True, {"x": 0.5}], "fine": "é🌱 \\u0000"}


@pytest.mark.django_db(transaction=True)
def test_of_windows_that_save_at_once_one_wins_and_the_others_are_told() -> None:
    slot = make.make_rank_slot()
    for version in range(4):
        got = at_once(*(lambda n=n, version=version: save(slot, f"{version}-{n}", version) for n in range(3)))  # type: ignore[misc]
        assert len(raised(got, StaleDraft)) == 2
    assert drafts.draft_of(slot).version == 4  # type: ignore[union-attr]
