"""What was typed and not yet sent stays, and no window overwrites another's."""

from __future__ import annotations

import json

import pytest

from feedback import drafts
from feedback.dialogues import LONGEST_MESSAGE
from feedback.errors import DraftUnreadable, MessageTooLong, SlotClosed, StaleDraft
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
    drafts.clear_message(slot, message="And in winter?")
    with pytest.raises(StaleDraft):
        save(slot, "And in winter?", 1 if before else 0)
    assert body(slot) == {}


def test_after_clearing_the_next_text_is_kept() -> None:
    slot = make.make_chat()
    save(slot, "one", 0)
    drafts.clear_message(slot, message="one")
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


def test_what_could_not_be_sent_takes_the_place_of_what_its_page_had_saved() -> None:
    slot = make.make_chat()
    save(slot, "And in wniter?", 0)
    assert drafts.keep_unsent(slot, message="And in winter?", version=1) == "And in winter?"
    assert body(slot) == {"message": "And in winter?"}


@pytest.mark.parametrize("version", [None, 0, 1])
def test_what_an_old_window_could_not_send_is_kept_after_what_another_typed_since(version: int | None) -> None:
    slot = make.make_chat()
    save(slot, "And in win", 0)
    save(slot, "And in winter?", 1)
    both = "And in winter?\n\nfoo"
    for _ in range(2):  # sent again, it is not kept twice
        assert drafts.keep_unsent(slot, message="foo", version=version) == both
        assert body(slot) == {"message": both}
    assert drafts.draft_of(slot).version == 3  # type: ignore[union-attr]


def test_an_old_window_that_sends_nothing_is_shown_what_another_typed() -> None:
    slot = make.make_chat()
    newest = save(slot, "And in winter?", 0)
    assert drafts.keep_unsent(slot, message="  ", version=0) == "And in winter?"
    assert drafts.draft_of(slot) == newest


@pytest.mark.parametrize("sent", ["one", "one and more", "one\r\nmore"])
def test_a_message_that_was_sent_is_no_draft_any_more(sent: str) -> None:
    slot = make.make_chat()
    save(slot, sent.replace("\r\n", "\n"), 0)
    drafts.clear_message(slot, message=sent)
    assert body(slot) == {}


def test_what_was_corrected_before_it_was_sent_is_no_draft_any_more() -> None:
    slot = make.make_chat()
    save(slot, "And in wniter?", 0)
    drafts.clear_message(slot, message="And in winter?", version=1)
    assert body(slot) == {}


@pytest.mark.parametrize("typed", [{"message": "And in winter?"}, {"rank-1": "2"}])
def test_what_another_window_typed_since_a_message_was_sent_stays_as_it_is(typed: dict[str, str]) -> None:
    slot = make.make_chat()
    drafts.save_draft(slot=slot, body=typed, version=0)
    drafts.clear_message(slot, message="And in summer?", version=0)
    draft = drafts.draft_of(slot)
    assert draft is not None and (draft.body, draft.version) == (typed, 1)


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


def test_the_longest_message_fits_whatever_it_is_written_in() -> None:
    slot = make.make_rank_slot()
    save(slot, "🌱" * LONGEST_MESSAGE, 0)
    assert body(slot) == {"message": "🌱" * LONGEST_MESSAGE}


@pytest.mark.parametrize("typed", ["a" * 4_000_000, '"\n🌱' * 30_000])
def test_of_what_could_not_be_sent_as_much_is_kept_as_a_draft_holds(typed: str) -> None:
    slot = make.make_chat()
    drafts.save_draft(slot=slot, body={"rank-1": "2"}, version=0)
    drafts.keep_unsent(slot, message=typed)
    kept = drafts.draft_of(slot).body  # type: ignore[union-attr]
    size = len(json.dumps(kept, ensure_ascii=False))
    assert drafts.LARGEST_DRAFT - 2 < size <= drafts.LARGEST_DRAFT
    assert typed.startswith(kept["message"]) and kept["rank-1"] == "2"


def test_lists_in_lists_without_end_are_refused() -> None:
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(MessageTooLong):
        drafts.save_draft(slot=make.make_rank_slot(), body={"a": deep}, version=0)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_none_is_refused(number: float) -> None:
    slot = make.make_rank_slot()
    with pytest.raises(DraftUnreadable):
        drafts.save_draft(slot=slot, body={"a": [number]}, version=0)
    assert body(slot) is None


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
