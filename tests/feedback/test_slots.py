"""Who does what next: claims, leases, skips, lapses, and what comes late."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from feedback import dialogues, drafts, slots, work_items
from feedback.errors import ReasonNeeded, SlotClosed
from feedback.invariants import violations
from feedback.models import Draft, Membership, Project, Slot, User, WorkItem
from tests import make
from tests.threads import at_once

pytestmark = pytest.mark.django_db


def rank_items(count: int, *, wanted: int = 1) -> list[WorkItem]:
    return [
        make.make_rank_work(make.make_comparison(text=f"Question {number}"), wanted=wanted) for number in range(count)
    ]


def next_for(user: User, kind: str = "") -> Slot | None:
    return slots.next_slot(user=user, project=make.make_project(), kind=kind)


def held_by(name: str, item: WorkItem) -> Slot:
    user = make.make_member(item.project, name)
    slot = next_for(user)
    assert slot is not None and slot.work_item_id == item.pk
    return slot


def members(*names: str) -> list[User]:
    return [make.make_member(make.make_project(), name) for name in names]


# Opening and closing work


def test_a_work_item_has_as_many_slots_as_it_wants_answers() -> None:
    item = make.make_rank_work(wanted=3)
    assert list(item.slots.values_list("number", "state")) == [(1, "free"), (2, "free"), (3, "free")]


def test_the_same_work_twice_is_one_item() -> None:
    item = make.make_rank_work(wanted=2)
    assert make.make_rank_work(item.comparison, wanted=3) == item
    assert item.slots.count() == 2


def test_closed_work_is_offered_to_nobody_and_what_is_held_stays_held() -> None:
    item = make.make_rank_work(wanted=2)
    slot = held_by("alice", item)
    work_items.close_work(item, because="x" * 300)
    (bob,) = members("bob")
    item.refresh_from_db()
    slot.refresh_from_db()
    assert next_for(bob) is None
    assert (slot.state, len(item.closed_because)) == ("held", 200)
    assert make.make_ranking(slot).counts


def test_work_is_closed_once() -> None:
    item = make.make_rank_work()
    work_items.close_work(item, because="done")
    work_items.close_work(item, because="again")
    item.refresh_from_db()
    assert item.closed_because == "done"


# What comes next


def test_next_is_theirs_for_the_projects_lease() -> None:
    make.make_project(lease_minutes=10)
    item = make.make_rank_work()
    slot = held_by("alice", item)
    left = slot.lease_until - timezone.now()
    assert (slot.state, slot.annotator.username) == ("held", "alice")
    assert timedelta(minutes=9.9) < left <= timedelta(minutes=10)
    assert slot.lease_token is not None and slot.claimed_at is not None


def test_next_gives_back_what_they_hold_already() -> None:
    rank_items(2)
    (alice,) = members("alice")
    first = next_for(alice)
    assert next_for(alice) == first


def test_next_of_a_kind_passes_by_what_they_hold_of_another() -> None:
    rank_items(1)
    chat = make.make_chat(text="Another question")
    slot = next_for(make.make_user("alice"), kind="rank")
    assert slot is not None and slot != chat
    assert next_for(make.make_user("alice"), kind="chat_and_rank") == chat


def test_the_most_urgent_work_comes_first_then_the_oldest() -> None:
    old, urgent = (make.make_comparison(text=text) for text in ("Old?", "Urgent?"))
    dialogues.ask_for_rankings(comparison=old, wanted=1)
    dialogues.ask_for_rankings(comparison=urgent, wanted=1, priority=5)
    alice, bob = members("alice", "bob")
    assert [next_for(user).work_item.comparison for user in (alice, bob)] == [urgent, old]  # type: ignore[union-attr]


def test_next_is_none_when_nothing_is_left() -> None:
    assert next_for(*members("alice")) is None


def test_next_goes_on_looking_until_all_that_is_left_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are quicker at everything of the first look; there is work beyond it."""
    rank_items(4)
    (alice,) = members("alice")
    monkeypatch.setattr(slots, "LOOKED_AT", 2)
    claim, lost = slots.claim_slot, []

    def claim_slower_at_first(pk: int, *, user: User, patient: bool = True) -> Slot | None:
        if len(lost) < 2:
            lost.append(claim(pk, user=make.make_member(make.make_project(), f"quick-{len(lost)}")))
            return None
        return claim(pk, user=user)

    monkeypatch.setattr(slots, "claim_slot", claim_slower_at_first)
    slot = next_for(alice)
    assert slot is not None and slot not in lost


# Who may take what


def takes_nothing(name: str) -> bool:
    return next_for(make.make_user(name)) is None


def test_a_stranger_takes_nothing() -> None:
    make.make_rank_work()
    make.make_user("charlie")
    assert takes_nothing("charlie")


def test_a_former_member_takes_nothing() -> None:
    make.make_rank_work()
    (alice,) = members("alice")
    Membership.objects.update(is_active=False)
    assert takes_nothing(alice.username)


def test_an_archived_project_offers_nothing() -> None:
    make.make_rank_work()
    (alice,) = members("alice")
    Project.objects.update(archived_at=timezone.now())
    assert takes_nothing(alice.username)


def test_another_projects_work_is_not_offered_here() -> None:
    make.make_rank_work(make.make_comparison(make.make_project("another-desk")))
    (alice,) = members("alice")
    make.make_member(make.make_project("another-desk"), "alice")
    assert takes_nothing(alice.username)


@pytest.mark.parametrize("state", ["held", "filled", "skipped"])
def test_nobody_is_given_a_second_slot_of_one_item(state: str) -> None:
    item = make.make_rank_work(wanted=2)
    slot = held_by("alice", item)
    if state == "filled":
        make.make_ranking(slot)
    elif state == "skipped":
        slots.skip(slot, reason="I cannot judge this")
    assert not slots.waiting_slots(user=slot.annotator, project=item.project).exists()


def test_what_lapsed_under_them_they_may_take_up_again() -> None:
    item = make.make_rank_work(wanted=1)
    slot = held_by("alice", item)
    make.lapse(slot)
    assert held_by("alice", item) != slot


def test_whoever_answered_late_is_not_asked_again() -> None:
    """Their answer did not count, because bob had the place; a second place of the item is free."""
    item = make.make_rank_work(wanted=2)
    slot = held_by("alice", item)
    make.lapse(slot)
    held_by("bob", item)
    assert not make.make_ranking(slot).counts
    assert takes_nothing("alice")


def test_the_author_of_a_dialogue_does_not_rank_its_replies() -> None:
    alice, bob = members("alice", "bob")
    make.make_rank_work(make.make_comparison(author=alice))
    assert takes_nothing("alice")
    assert next_for(bob) is not None


def test_whoever_chatted_does_not_rank_the_replies_again() -> None:
    """The prompt is nobody's, yet the words in the dialogue and its first ranking are alice's."""
    make.make_project(answers_per_comparison=2)
    chat = make.make_chat(name="alice")
    make.make_ranking(chat)
    dialogues.end_dialogue(slot=chat)
    (bob,) = members("bob")
    assert takes_nothing("alice")
    assert next_for(bob) is not None


def test_whoever_let_a_chat_lapse_does_not_rank_its_replies() -> None:
    make.make_project(answers_per_comparison=2)
    chat = make.make_chat(name="alice")
    make.lapse(chat)
    again = slots.next_slot(user=make.make_member(make.make_project(), "bob"), project=make.make_project())
    assert again is not None
    make.make_ranking(again)
    dialogues.end_dialogue(slot=again)
    assert takes_nothing("alice")


def two_questions_of_one_dialogue() -> list[WorkItem]:
    """Alice chatted two turns; both questions go to others."""
    make.make_project(answers_per_comparison=2)
    chat = make.make_chat(name="alice")
    make.make_ranking(chat)
    make.answer_request(dialogues.send_message(slot=chat, text="And in winter?", after_position=0))
    make.make_ranking(chat)
    dialogues.end_dialogue(slot=chat)
    return list(WorkItem.objects.filter(kind="rank").order_by("comparison__after_position"))


def test_the_questions_of_a_dialogue_come_in_the_order_of_its_turns() -> None:
    first, second = two_questions_of_one_dialogue()
    (bob,) = members("bob")
    make.make_ranking(held_by("bob", first))
    assert next_for(bob).work_item == second  # type: ignore[union-attr]


@pytest.mark.parametrize("leave", ["answer", "skip", "lapse"])
def test_whoever_has_read_on_is_not_asked_about_an_earlier_turn(leave: str) -> None:
    """The dialogue before the second question shows which reply to the first was chosen."""
    first, second = two_questions_of_one_dialogue()
    early = held_by("bob", first)
    late = held_by("carl", second)
    if leave == "answer":
        make.make_ranking(late)
    elif leave == "skip":
        slots.skip(late, reason="I cannot judge this")
    else:
        make.lapse(late)
        Slot.objects.filter(work_item=second, state="free").delete()
    slots.skip(early, reason="I cannot judge this")
    assert takes_nothing("carl")
    assert held_by("dora", first)


def test_a_late_answer_of_whoever_has_read_on_does_not_count() -> None:
    first, second = two_questions_of_one_dialogue()
    early = held_by("bob", first)
    make.lapse(early)
    between = held_by("carl", first)
    held_by("bob", second)
    slots.skip(between, reason="I cannot judge this")
    ranking = make.make_ranking(early)
    assert (ranking.late, ranking.counts) == (True, False)
    assert held_by("dora", first)
    assert list(violations()) == []


def test_another_dialogues_later_turn_tells_nothing() -> None:
    first, second = two_questions_of_one_dialogue()
    held_by("bob", first)
    make.make_ranking(held_by("carl", second))
    other = make.make_rank_work(make.make_comparison(text="Another question"))
    held_by("carl", other)


def test_a_dialogue_that_its_opener_left_empty_is_given_to_nobody_else() -> None:
    alice, bob = members("alice", "bob")
    make.lapse(dialogues.open_own_dialogue(project=make.make_project(), user=alice))
    assert next_for(bob) is None
    assert next_for(alice) is not None


def test_a_dialogue_that_its_opener_began_goes_on_with_others() -> None:
    alice, bob = members("alice", "bob")
    own = dialogues.open_own_dialogue(project=make.make_project(), user=alice)
    dialogues.send_message(slot=own, text="May I repot it in winter?", after_position=-1)
    make.lapse(own)
    assert next_for(bob) is not None


def test_an_empty_dialogue_that_nobody_opened_is_anybodys() -> None:
    dialogues.open_dialogue(project=make.make_project())
    assert next_for(*members("alice")) is not None


@pytest.mark.parametrize("agreed", [False, True])
def test_of_one_kind_the_same_is_offered_as_of_all_together(agreed: bool) -> None:
    """Asked for one kind, what cannot hold for it is left out of the question; the answer is the same."""
    project = make.make_project(probes_open=True, demonstrations_open=True)
    for rule in make.make_rule_set(project, rules=3, sensitive=1).rules.order_by("position"):
        for name in ("alice", "bob"):
            make.agree(project, name)
            make.make_verdict(make.make_probe_slot(rule, name=name))
    rank_items(3, wanted=2)
    make.make_ranking()
    make.make_chat(project, name="alice")
    dialogues.open_dialogue(project=project)
    make.write(make.make_write_slot(project, text="What wants a reply?", wanted=2))
    carol = make.make_member(project, "carol")
    if agreed:
        make.agree(project, "carol")
    offered = set()
    for user in (*User.objects.filter(username__in=["alice", "bob"]), carol):
        for kind in WorkItem.Kind.values:
            of_one_kind = set(Slot.objects.claimable_by(user, kind))
            assert of_one_kind == set(Slot.objects.claimable_by(user).filter(work_item__kind=kind)), (user, kind)
            offered |= {kind} if of_one_kind else set()
    assert offered == {"chat_and_rank", "rank", "judge", "demonstrate", "review"}


def test_looking_for_work_does_not_go_through_all_that_one_has_done() -> None:
    """Who had twenty thousand slots waited thirteen seconds: for each free slot all of theirs were looked at."""
    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL plans by what is in the tables, so there is no plan to hold it to")
    (alice,) = members("alice")
    plan = slots.waiting_slots(user=alice, project=make.make_project()).explain()
    assert plan.count("INDEX slot_of_item_and_person") == 5
    assert "INDEX slot_of_person" not in plan


# Claiming


def test_a_slot_is_claimed_once() -> None:
    item = make.make_rank_work(wanted=1)
    alice, bob = members("alice", "bob")
    pk = item.slots.get().pk
    assert slots.claim_slot(pk, user=alice) is not None
    assert slots.claim_slot(pk, user=bob) is None
    assert slots.claim_slot(pk, user=alice) is None


def test_one_person_cannot_claim_two_slots_of_an_item() -> None:
    item = make.make_rank_work(wanted=2)
    (alice,) = members("alice")
    one, other = item.slots.order_by("number")
    assert slots.claim_slot(one.pk, user=alice) is not None
    assert slots.claim_slot(other.pk, user=alice) is None
    other.refresh_from_db()
    assert other.state == "free"


def test_a_slot_of_closed_work_cannot_be_claimed() -> None:
    item = make.make_rank_work()
    work_items.close_work(item, because="withdrawn")
    assert slots.claim_slot(item.slots.all()[0].pk, user=make.make_user()) is None


def test_a_slot_that_is_not_there_cannot_be_claimed() -> None:
    assert slots.claim_slot(404, user=make.make_user()) is None


def test_a_draft_and_the_order_of_replies_come_along_when_a_lapsed_piece_is_taken_up_again() -> None:
    item = make.make_rank_work(wanted=1)
    slot = held_by("alice", item)
    drafts.save_draft(slot=slot, body={"rank-1": "2"}, version=0)
    make.lapse(slot)
    again = held_by("alice", item)
    draft = drafts.draft_of(again)
    assert draft is not None and draft.body == {"rank-1": "2"}
    assert again.shuffle_seed == slot.shuffle_seed
    assert Draft.objects.count() == 2  # the old one is kept where it was


def test_of_several_drafts_the_newest_comes_along() -> None:
    item = make.make_rank_work(wanted=1)
    first = held_by("alice", item)
    drafts.save_draft(slot=first, body={"a": "old"}, version=0)
    make.lapse(first)
    second = held_by("alice", item)
    drafts.save_draft(slot=second, body={"a": "new"}, version=1)
    make.lapse(second)
    assert drafts.draft_of(held_by("alice", item)).body == {"a": "new"}  # type: ignore[union-attr]


def test_nobody_finds_another_persons_draft_or_order() -> None:
    item = make.make_rank_work(wanted=1)
    slot = held_by("alice", item)
    drafts.save_draft(slot=slot, body={"a": "alice's"}, version=0)
    make.lapse(slot)
    taken = held_by("bob", item)
    assert drafts.draft_of(taken) is None
    assert taken.shuffle_seed != slot.shuffle_seed


# Races


@pytest.mark.django_db(transaction=True)
def test_people_who_ask_at_once_get_all_slots_and_none_twice() -> None:
    items = rank_items(3, wanted=2)
    people = members(*(f"person-{number}" for number in range(8)))
    got = [slot for slot in at_once(*(lambda user=user: next_for(user) for user in people)) if slot is not None]
    assert len({slot.pk for slot in got}) == len(got) == 6
    assert Counter(slot.work_item_id for slot in got) == {item.pk: 2 for item in items}
    assert list(violations()) == []


@pytest.mark.django_db(transaction=True)
def test_a_double_click_on_next_gives_the_same_piece() -> None:
    rank_items(4)
    (alice,) = members("alice")
    got = at_once(*[lambda: next_for(alice)] * 4)
    assert len({slot.pk for slot in got}) == 1
    assert Slot.objects.filter(state="held").count() == 1


@pytest.mark.django_db(transaction=True)
def test_one_slot_that_many_want_goes_to_one() -> None:
    pk = make.make_rank_work(wanted=1).slots.get().pk
    people = members(*(f"person-{number}" for number in range(6)))
    got = at_once(*(lambda user=user: slots.claim_slot(pk, user=user) for user in people))
    assert sum(slot is not None for slot in got) == 1
    assert all(slot is None or isinstance(slot, Slot) for slot in got)


@pytest.mark.django_db(transaction=True)
def test_sweeps_at_once_lapse_a_slot_once() -> None:
    slot = make.make_rank_slot(wanted=1)
    Slot.objects.filter(pk=slot.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    assert sum(at_once(*[slots.lapse_slots] * 4)) == 1
    assert list(violations()) == []


@pytest.mark.django_db(transaction=True)
def test_an_answer_and_the_sweep_at_once_leave_a_whole_item() -> None:
    for number in range(5):
        comparison = make.make_comparison(text=f"Question {number}")
        slot = make.make_rank_slot(comparison, wanted=1)
        Slot.objects.filter(pk=slot.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        ranking, _ = at_once(lambda slot=slot: make.make_ranking(slot), slots.lapse_slots)
        assert ranking.counts, ranking
    assert list(violations()) == []


# Leases


def test_each_action_gives_the_full_time_again() -> None:
    slot = make.make_rank_slot()
    Slot.objects.filter(pk=slot.pk).update(lease_until=timezone.now() + timedelta(seconds=5))
    assert slots.renew_lease(slot)
    slot.refresh_from_db()
    assert slot.lease_until > timezone.now() + timedelta(minutes=29)


def test_a_lease_that_lapsed_is_not_renewed() -> None:
    slot = make.make_rank_slot()
    make.lapse(slot)
    assert not slots.renew_lease(slot)


def test_what_is_held_is_listed_oldest_first_and_per_project() -> None:
    one, other = make.make_chat(text="One?"), make.make_chat(text="Other?")
    elsewhere = make.make_chat(make.make_project("another-desk"), text="Elsewhere?")
    alice = make.make_user()
    assert list(slots.held_slots(alice)) == [one, other, elsewhere]
    assert list(slots.held_slots(alice, elsewhere.work_item.project)) == [elsewhere]


def test_a_slot_whose_time_is_over_is_not_in_hand() -> None:
    slot = make.make_rank_slot()
    Slot.objects.filter(state="held").update(lease_until=timezone.now() - timedelta(seconds=1))
    assert list(Slot.objects.held_by(slot.annotator)) == []
    assert list(Slot.objects.given_to(slot.annotator)) == [slot]
    assert list(Slot.objects.lapsed_by(timezone.now())) == [slot]


def test_filling_closes_a_held_slot_once() -> None:
    slot = make.make_rank_slot()
    assert slots.fill(slot, because="done")
    assert not slots.fill(slot)
    slot.refresh_from_db()
    assert (slot.state, slot.closed_because) == ("filled", "done")


# Skipping


def test_a_skipped_piece_goes_to_somebody_else() -> None:
    item = make.make_rank_work(wanted=1)
    slot = held_by("alice", item)
    slots.skip(slot, reason="  I cannot judge this ")
    slot.refresh_from_db()
    assert (slot.state, slot.closed_because) == ("skipped", "I cannot judge this")
    assert takes_nothing("alice")
    assert held_by("bob", item).number == slot.number


@pytest.mark.parametrize("reason", ["", "   "])
def test_skipping_wants_a_reason(reason: str) -> None:
    slot = make.make_rank_slot()
    with pytest.raises(ReasonNeeded):
        slots.skip(slot, reason=reason)
    slot.refresh_from_db()
    assert slot.state == "held"


def test_a_piece_can_be_skipped_once() -> None:
    slot = make.make_rank_slot()
    slots.skip(slot, reason="no")
    with pytest.raises(SlotClosed):
        slots.skip(slot, reason="no")
    assert list(violations()) == []


def test_what_lapsed_cannot_be_skipped_unless_it_was_taken_up_again() -> None:
    item = make.make_rank_work(wanted=1)
    slot = held_by("alice", item)
    make.lapse(slot)
    with pytest.raises(SlotClosed):
        slots.skip(slot, reason="no")
    again = held_by("alice", item)
    slots.skip(slot, reason="no")  # from the old window
    again.refresh_from_db()
    assert again.state == "skipped"


def test_skipping_from_an_old_window_frees_the_place_that_is_held_now() -> None:
    item = make.make_rank_work(wanted=2)
    slot = held_by("alice", item)
    make.lapse(slot)
    held_by("bob", item)
    again = held_by("alice", item)
    assert (slot.number, again.number) == (1, 2)
    slots.skip(slot, reason="no")
    assert item.slots.get(state="free").number == 2
    assert list(violations()) == []


# Lapsing


def test_a_lapsed_slot_is_kept_and_a_fresh_one_of_its_number_is_free() -> None:
    slot = make.make_rank_slot(wanted=1)
    drafts.save_draft(slot=slot, body={"a": "typed"}, version=0)
    make.lapse(slot)
    assert (slot.state, slot.annotator.username) == ("lapsed", "alice")  # type: ignore[union-attr]
    assert slot.closed_at is not None and drafts.draft_of(slot) is not None
    fresh = Slot.objects.get(state="free")
    assert (fresh.work_item_id, fresh.number) == (slot.work_item_id, slot.number)
    assert fresh.shuffle_seed != slot.shuffle_seed


def test_a_hundred_abandoned_slots_are_free_after_one_sweep() -> None:
    items = rank_items(1, wanted=100)
    people = members(*(f"person-{number}" for number in range(100)))
    for slot, user in zip(items[0].slots.all(), people, strict=True):
        slots.claim_slot(slot.pk, user=user)
    Slot.objects.filter(state="held").update(lease_until=timezone.now() - timedelta(seconds=1))
    assert slots.lapse_slots() == 100
    assert Slot.objects.filter(state="free").count() == 100
    assert list(violations()) == []


def test_a_running_lease_does_not_lapse() -> None:
    make.make_rank_slot()
    assert slots.lapse_slots() == 0


@pytest.mark.parametrize(
    "send_away",
    [
        lambda: User.objects.update(is_active=False),
        lambda: Membership.objects.update(is_active=False),
        lambda: Membership.objects.all().delete(),
    ],
    ids=["deactivated", "suspended in the project", "no member any more"],
)
def test_what_somebody_held_who_may_work_no_more_comes_back_at_once(send_away: Callable[[], object]) -> None:
    slot = make.make_rank_slot(wanted=1)
    send_away()
    assert slots.lapse_slots() == 1
    assert Slot.objects.filter(work_item=slot.work_item, state="free").count() == 1


def test_a_lease_that_was_renewed_meanwhile_does_not_lapse(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep has read the slot; before it writes, the person does something."""
    slot = make.make_rank_slot()
    Slot.objects.filter(state="held").update(lease_until=timezone.now() - timedelta(seconds=1))
    lapse = slots._lapse

    def after_an_action(stale: Slot, now: Any) -> int:
        slots.renew_lease(slot)
        return lapse(stale, now)

    monkeypatch.setattr(slots, "_lapse", after_an_action)
    assert slots.lapse_slots() == 0
    slot.refresh_from_db()
    assert slot.state == "held"


# Coming back


def test_a_lapsed_dialogue_that_nobody_took_goes_on() -> None:
    slot = make.make_chat()
    make.lapse(slot)
    again = slots.regain(slot)
    assert again is not None and again != slot
    assert (again.state, again.annotator, again.shuffle_seed) == ("held", slot.annotator, slot.shuffle_seed)
    assert slots.regain(slot) == again  # from a second window
    assert list(violations()) == []


def test_a_lapsed_dialogue_that_somebody_has_does_not_come_back() -> None:
    slot = make.make_chat()
    make.lapse(slot)
    assert next_for(*members("bob")) is not None
    assert slots.regain(slot) is None


def test_a_lapsed_dialogue_that_was_closed_does_not_come_back() -> None:
    slot = make.make_chat()
    make.lapse(slot)
    work_items.close_work(slot.work_item, because="withdrawn")
    assert slots.regain(slot) is None


def test_a_lapsed_rank_piece_is_not_taken_up_again_by_itself() -> None:
    slot = make.make_rank_slot(wanted=1)
    make.lapse(slot)
    assert slots.regain(slot) is None
    assert slots.in_hand(slot) == slot


def test_in_hand_is_the_slot_itself_while_it_is_held() -> None:
    slot = make.make_rank_slot()
    assert slots.in_hand(slot) == slot
    make.make_ranking(slot)
    assert slots.in_hand(slot).state == "filled"
    assert slots.regain(slot) is None


# Late answers


def test_the_fresh_slot_is_filled_by_the_late_answer_that_finds_it_free() -> None:
    slot = make.make_rank_slot(wanted=1)
    make.lapse(slot)
    assert slots.close_fresh_one(slot)
    fresh = Slot.objects.get(state="filled")
    assert (fresh.annotator, fresh.closed_because) == (slot.annotator, "answered late")
    assert not slots.close_fresh_one(slot)


def test_the_fresh_slot_of_somebody_else_is_left_alone() -> None:
    item = make.make_rank_work(wanted=1)
    slot = held_by("alice", item)
    make.lapse(slot)
    held_by("bob", item)
    assert not slots.close_fresh_one(slot)


def test_a_person_fills_one_slot_of_an_item_only() -> None:
    item = make.make_rank_work(wanted=2)
    slot = held_by("alice", item)
    make.lapse(slot)
    other = item.slots.get(state="free", number=2)
    slots.claim_slot(other.pk, user=slot.annotator)  # type: ignore[arg-type]
    assert not slots.close_fresh_one(slot)
    assert item.slots.get(state="free").number == 1


# The order shown


@given(seed=st.integers(0, 2**31), position=st.integers(0, 200), redo=st.integers(0, 3), wanted=st.integers(1, 9))
def test_every_place_is_shown_once_and_the_same_at_every_look(seed: int, position: int, redo: int, wanted: int) -> None:
    slot = Slot(shuffle_seed=seed)
    places = slots.shown_places(slot, after_position=position, redo=redo, wanted=wanted)
    assert sorted(places) == list(range(wanted))
    assert places == slots.shown_places(slot, after_position=position, redo=redo, wanted=wanted)


def test_each_candidate_stands_first_equally_often() -> None:
    firsts = Counter(
        slots.shown_places(Slot(shuffle_seed=seed), after_position=0, redo=0, wanted=4)[0] for seed in range(2000)
    )
    expected = 500
    chi_square = sum((count - expected) ** 2 / expected for count in firsts.values())
    assert chi_square < 11.34  # 1 % with 3 degrees of freedom


def test_the_order_differs_from_turn_to_turn_and_when_asked_again() -> None:
    slot = Slot(shuffle_seed=7)
    orders = {
        tuple(slots.shown_places(slot, after_position=position, redo=redo, wanted=9))
        for position in range(0, 20, 2)
        for redo in range(2)
    }
    assert len(orders) == 20


def test_slots_and_work_items_say_what_they_are() -> None:
    slot = make.make_rank_slot()
    assert str(slot) == f"slot 1 of work item {slot.work_item_id}"
    assert str(slot.work_item) == f"Rank replies {slot.work_item_id}"
