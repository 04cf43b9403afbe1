"""Chats: what a person may do in each phase, what two windows may not do to each other, and what is kept ready."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from feedback import dialogues, drafts, generation, queue, slots
from feedback.dialogues import Phase, keep_dialogues_ready, look_at_chat, send_message
from feedback.errors import (
    CandidatesNotReady,
    DialogueEnded,
    DialogueMovedOn,
    EmptyMessage,
    FeedbackError,
    MessageTooLong,
    NoPolicy,
    ReasonNeeded,
    SlotClosed,
    SlotNotYours,
)
from feedback.invariants import violations
from feedback.models import (
    Candidate,
    Comparison,
    Dialogue,
    GenerationRequest,
    Project,
    Prompt,
    Ranking,
    Slot,
    Turn,
    User,
    WorkItem,
)
from feedback.prompts import add_prompt
from feedback.rankings import record_ranking, withdraw_ranking
from tests import make
from tests.threads import at_once, raised

pytestmark = pytest.mark.django_db


def phase(slot: Slot) -> Phase:
    return look_at_chat(slot).phase


def newest_request(slot: Slot) -> GenerationRequest:
    return slot.work_item.dialogue.generation_requests.latest("pk")  # type: ignore[union-attr]


def newest_comparison(slot: Slot) -> Comparison:
    return slot.work_item.dialogue.comparisons.latest("pk")  # type: ignore[union-attr]


def rank(slot: Slot, *places: int, **fields: Any) -> Ranking:
    """Rank the newest replies; in the order they were made, best first, unless told otherwise."""
    comparison = newest_comparison(slot)
    if places:
        fields["ranks"] = make.ranks_by_index(comparison, places)
    return make.make_ranking(slot, comparison, **fields)


def none_good(slot: Slot) -> Ranking:
    return rank(slot, ranks={}, all_bad=True)


def write(slot: Slot, text: str = "And in winter?", after: int | None = None) -> GenerationRequest:
    last = look_at_chat(slot).last_position
    return send_message(slot=slot, text=text, after_position=last if after is None else after)


def answered(request: GenerationRequest) -> Comparison:
    return make.answer_request(request)


def said(slot: Slot) -> list[tuple[str, str]]:
    return list(slot.work_item.dialogue.turns.values_list("role", "content"))  # type: ignore[union-attr]


def own_chat(name: str = "alice") -> Slot:
    project = make.make_project()
    return dialogues.open_own_dialogue(project=project, user=make.make_member(project, name))


def taken_over(slot: Slot, name: str = "bob") -> Slot:
    """What another person is given after the slot lapsed."""
    make.lapse(slot)
    project = slot.work_item.project
    taken = slots.next_slot(user=make.make_member(project, name), project=project)
    assert taken is not None and taken.work_item_id == slot.work_item_id
    return taken


# Each phase


def test_a_dialogue_of_ones_own_opens_empty() -> None:
    chat = look_at_chat(own_chat())
    assert (chat.phase, chat.turns, chat.last_position, chat.user_turns) == (Phase.OPENING, [], -1, 0)
    assert chat.may_write_on and not chat.may_ask_again


def test_replies_on_their_way_are_waited_for_in_the_order_they_will_be_shown() -> None:
    slot = make.make_chat(answered=False)
    request = queue.claim(GenerationRequest, newest_request(slot).pk)
    assert request is not None
    generation.store_candidate(request, index=2, text="The third is first.")
    chat = look_at_chat(slot)
    assert chat.phase == Phase.WAITING
    assert [candidate.index for candidate in chat.candidates if candidate] == [2]
    place = slots.shown_places(slot, after_position=0, redo=0, wanted=4).index(2)
    assert [candidate is not None for candidate in chat.candidates] == [at == place for at in range(4)]


def test_replies_that_could_not_be_made_are_a_failure() -> None:
    slot = make.make_chat(answered=False)
    request = queue.claim(GenerationRequest, newest_request(slot).pk)
    assert request is not None
    queue.fail(request, "The model server is gone.", permanent=True)
    chat = look_at_chat(slot)
    assert (chat.phase, chat.request.error) == (Phase.FAILED, "The model server is gone.")  # type: ignore[union-attr]


def test_a_message_nobody_was_asked_to_reply_to_is_a_failure() -> None:
    slot = make.make_chat(answered=False)
    GenerationRequest.objects.all().delete()
    chat = look_at_chat(slot)
    assert (chat.phase, chat.request) == (Phase.FAILED, None)


def test_replies_that_are_there_are_to_be_ranked() -> None:
    slot = make.make_chat()
    chat = look_at_chat(slot)
    assert (chat.phase, chat.comparison, chat.ranking) == (Phase.RANK, newest_comparison(slot), None)
    places = slots.shown_places(slot, after_position=0, redo=0, wanted=4)
    assert [candidate.index for candidate in chat.candidates if candidate] == places


def test_only_what_is_asked_about_is_shown() -> None:
    slot = make.make_chat()
    Candidate.objects.filter(index=3).update(comparison=None)
    assert sorted(candidate.index for candidate in look_at_chat(slot).candidates if candidate) == [0, 1, 2]


def test_ranked_replies_have_a_chosen_one() -> None:
    slot = make.make_chat()
    ranking = rank(slot, 2, 1, 3, 4)
    chat = look_at_chat(slot)
    assert (chat.phase, chat.ranking, chat.chosen.index) == (Phase.RANKED, ranking, 1)  # type: ignore[union-attr]


def test_when_none_is_good_new_replies_may_be_asked_for() -> None:
    slot = make.make_chat()
    none_good(slot)
    chat = look_at_chat(slot)
    assert (chat.phase, chat.chosen, chat.may_ask_again) == (Phase.NONE_GOOD, None, True)


def test_an_ended_dialogue_has_ended() -> None:
    slot = make.make_chat()
    dialogues.skip_dialogue(slot=slot, reason="It upsets me")
    assert phase(slot) == Phase.ENDED


def test_another_persons_ranking_that_counts_is_what_whoever_takes_over_goes_on_from() -> None:
    slot = make.make_chat()
    ranking = rank(slot, 2, 1, 3, 4)
    assert not look_at_chat(slot).is_inherited
    chat = look_at_chat(taken_over(slot))
    assert (chat.phase, chat.ranking, chat.chosen.index) == (Phase.RANKED, ranking, 1)  # type: ignore[union-attr]
    assert chat.is_inherited


def test_another_persons_ranking_that_does_not_count_is_not_shown_to_whoever_has_the_chat() -> None:
    slot = make.make_chat()
    taken = taken_over(slot)
    rank(slot)
    chat = look_at_chat(taken)
    assert (chat.phase, chat.ranking, chat.chosen) == (Phase.RANK, None, None)


def test_looking_changes_nothing(django_assert_max_num_queries: Any) -> None:
    slot = make.make_chat()
    before = Slot.objects.values().get()
    with django_assert_max_num_queries(7):
        look_at_chat(slot)
    assert Slot.objects.values().get() == before


def test_a_piece_that_is_no_dialogue_is_no_chat() -> None:
    with pytest.raises(SlotNotYours):
        look_at_chat(make.make_rank_slot())


# Opening


def test_a_prompt_opens_a_dialogue_with_its_words_and_asks_for_replies() -> None:
    project = make.make_project()
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    item = dialogues.open_dialogue(project=project, prompt=add_prompt(project=project, messages=messages))
    assert item.dialogue is not None
    assert item.dialogue.messages() == messages
    assert item.dialogue.policy == project.policy
    assert item.dialogue.generation_requests.get().after_position == 1
    assert (item.kind, item.wanted, item.slots.get().state) == ("chat_and_rank", 1, "free")
    assert str(item.dialogue) == f"dialogue {item.dialogue.pk}"
    assert str(item.dialogue.turns.first()) == f"system 0 of dialogue {item.dialogue.pk}"


def test_a_prompt_that_is_not_a_users_opens_nothing() -> None:
    project = make.make_project()
    prompt = add_prompt(project=project, messages=[{"role": "system", "content": "Be brief."}])
    with pytest.raises(CandidatesNotReady):
        dialogues.open_dialogue(project=project, prompt=prompt)
    assert not Dialogue.objects.exists()


def test_a_dialogue_of_ones_own_is_at_once_theirs() -> None:
    slot = own_chat()
    assert (slot.state, slot.annotator) == ("held", slot.work_item.dialogue.author)  # type: ignore[union-attr]


def test_a_double_click_opens_one_dialogue() -> None:
    first = own_chat()
    assert own_chat() == first
    write(first, "May I repot it?")
    assert own_chat() != first
    assert own_chat("bob") != first


@pytest.mark.django_db(transaction=True)
def test_dialogues_opened_at_once_by_one_person_are_one() -> None:
    project = make.make_project()
    alice = make.make_member(project)
    got = at_once(*[lambda: dialogues.open_own_dialogue(project=project, user=alice)] * 4)
    raised(got)
    assert len({slot.pk for slot in got}) == Dialogue.objects.count() == 1


def test_what_cannot_be_claimed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "claim_slot", lambda pk, user: None)
    with pytest.raises(SlotClosed):
        own_chat()
    assert not Dialogue.objects.exists()


# Writing


def test_the_first_words_become_a_prompt_that_is_not_offered_to_others() -> None:
    slot = own_chat()
    request = write(slot, "  May I repot it in winter? ")
    prompt = Dialogue.objects.get().prompt
    assert prompt is not None
    assert (prompt.opening, prompt.author, prompt.source) == ("May I repot it in winter?", slot.annotator, "annotator")
    assert not prompt.is_active
    assert said(slot) == [("user", "May I repot it in winter?")]
    assert Turn.objects.get().author == slot.annotator
    assert (request.after_position, phase(slot)) == (0, Phase.WAITING)


def test_words_somebody_used_before_share_their_prompt() -> None:
    write(own_chat("alice"), "May I repot it?")
    write(own_chat("bob"), "May I repot it?")
    assert Prompt.objects.count() == 1 and Dialogue.objects.count() == 2


def test_the_best_reply_becomes_a_turn_once_the_person_goes_on() -> None:
    slot = make.make_chat()
    rank(slot, 3, 1, 2, 4)
    assert len(said(slot)) == 1
    request = write(slot, "And in winter?")
    assert said(slot)[1:] == [("assistant", "Reply 1 to this."), ("user", "And in winter?")]
    chosen = Turn.objects.get(role="assistant").candidate
    assert chosen is not None and chosen.index == 1
    assert (request.after_position, phase(slot)) == (2, Phase.WAITING)
    assert list(violations()) == []


def test_a_reply_of_several_turns_is_repeated_whole() -> None:
    slot = make.make_chat()
    turns = [{"role": "search_query", "content": "basil"}, {"role": "assistant", "content": "Water less."}]
    Candidate.objects.filter(index=0).update(turns=turns)
    rank(slot)
    assert write(slot).after_position == 3
    assert [role for role, _ in said(slot)] == ["user", "search_query", "assistant", "user"]
    assert list(violations()) == []


def test_writing_renews_the_lease() -> None:
    slot = make.make_chat()
    rank(slot)
    Slot.objects.update(lease_until=timezone.now() + timedelta(seconds=5))
    write(slot)
    assert Slot.objects.get().lease_until > timezone.now() + timedelta(minutes=29)


@pytest.mark.parametrize("text", ["", "  \n "])
def test_an_empty_message_is_refused(text: str) -> None:
    with pytest.raises(EmptyMessage):
        write(own_chat(), text)


def test_a_message_has_a_greatest_length() -> None:
    write(own_chat("bob"), "a" * dialogues.LONGEST_MESSAGE)
    with pytest.raises(MessageTooLong, match="8001"):
        write(own_chat(), "a" * (dialogues.LONGEST_MESSAGE + 1))


def test_before_a_ranking_nobody_goes_on() -> None:
    waiting, there = make.make_chat(answered=False), make.make_chat(text="Another?")
    bad = make.make_chat(text="A third?")
    none_good(bad)
    for slot in (waiting, there, bad):
        with pytest.raises(CandidatesNotReady):
            write(slot)


def test_a_dialogue_has_at_most_the_projects_turns() -> None:
    make.make_project(max_turns=2)
    slot = make.make_chat()
    rank(slot)
    answered(write(slot))
    rank(slot)
    chat = look_at_chat(slot)
    assert (chat.user_turns, chat.may_write_on) == (2, False)
    with pytest.raises(DialogueEnded, match="2 turns"):
        write(slot, "One more")
    assert len(said(slot)) == 3
    dialogues.end_dialogue(slot=slot)
    assert len(said(slot)) == 4


def test_without_a_policy_nothing_is_written() -> None:
    slot = own_chat()
    Project.objects.update(policy=None)
    with pytest.raises(NoPolicy):
        write(slot)
    assert not Turn.objects.exists() and not Prompt.objects.exists()


# Two windows


def test_the_same_message_twice_is_one_turn() -> None:
    slot = make.make_chat()
    rank(slot)
    first = write(slot, "And in winter?", after=0)
    assert write(slot, " And in winter? ", after=0) == first
    assert len(said(slot)) == 3


def test_another_message_from_a_second_window_is_refused() -> None:
    slot = make.make_chat()
    rank(slot)
    write(slot, "And in winter?", after=0)
    with pytest.raises(DialogueMovedOn) as refusal:
        write(slot, "And in summer?", after=0)
    assert refusal.value.status == 409
    assert said(slot)[-1] == ("user", "And in winter?")


@pytest.mark.parametrize("after", [-1, 1, 99])
def test_a_window_that_shows_another_dialogue_is_refused(after: int) -> None:
    slot = make.make_chat()
    rank(slot)
    with pytest.raises(DialogueMovedOn):
        write(slot, "And in winter?", after=after)
    assert len(said(slot)) == 1


@pytest.mark.django_db(transaction=True)
def test_messages_sent_at_once_never_fork_a_dialogue() -> None:
    for number in range(6):
        slot = make.make_chat(text=f"Question {number}")
        rank(slot)
        texts = ["And in winter?", "And in summer?"]
        works = [lambda slot=slot, text=text: write(slot, text, after=0) for text in texts]
        assert len(raised(at_once(*works), DialogueMovedOn)) == 1
        assert len(said(slot)) == 3
    assert list(violations()) == []


@pytest.mark.django_db(transaction=True)
def test_a_double_click_on_send_is_one_turn_and_no_error() -> None:
    for number in range(6):
        slot = make.make_chat(text=f"Question {number}")
        rank(slot)
        got = at_once(*[lambda slot=slot: write(slot, "And in winter?", after=0)] * 3)
        raised(got)
        assert len({request.pk for request in got}) == 1
        assert len(said(slot)) == 3


@pytest.mark.django_db(transaction=True)
def test_ending_and_going_on_at_once_do_one_of_both() -> None:
    for number in range(6):
        slot = make.make_chat(text=f"Question {number}")
        rank(slot)
        got = at_once(
            lambda slot=slot: write(slot, "And in winter?", after=0),
            lambda slot=slot: dialogues.end_dialogue(slot=slot),
        )
        raised(got, FeedbackError)
    assert list(violations()) == []


@pytest.mark.django_db(transaction=True)
def test_ending_twice_at_once_ends_once() -> None:
    make.make_project(answers_per_comparison=3)
    for number in range(5):
        slot = make.make_chat(text=f"Question {number}")
        rank(slot)
        ends = [lambda slot=slot: dialogues.end_dialogue(slot=slot)] * 2
        skips = [lambda slot=slot: dialogues.skip_dialogue(slot=slot, reason="no")]
        assert len(raised(at_once(*ends, *skips), DialogueEnded)) == 2
    assert WorkItem.objects.filter(kind="rank").count() == 5
    assert Turn.objects.filter(role="assistant").count() == 5
    assert list(violations()) == []


@pytest.mark.django_db(transaction=True)
def test_the_sweep_and_a_message_at_once_keep_the_message() -> None:
    for number in range(6):
        slot = make.make_chat(text=f"Question {number}")
        rank(slot)
        Slot.objects.filter(pk=slot.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        raised(at_once(lambda slot=slot: write(slot, "And in winter?", after=0), slots.lapse_slots))
        assert said(slot)[-1] == ("user", "And in winter?")
        assert slot.work_item.slots.filter(state="held").count() == 1
    assert list(violations()) == []


@pytest.mark.django_db(transaction=True)
def test_ranking_and_skipping_at_once_leave_a_whole_dialogue() -> None:
    make.make_project(answers_per_comparison=2)
    for number in range(6):
        slot = make.make_chat(text=f"Question {number}")
        got = at_once(
            lambda slot=slot: rank(slot),
            lambda slot=slot: dialogues.skip_dialogue(slot=slot, reason="no"),
        )
        errors = raised(got, DialogueEnded)
        ranked = Ranking.objects.filter(comparison__dialogue=slot.work_item.dialogue).exists()
        asked = WorkItem.objects.filter(comparison__dialogue=slot.work_item.dialogue).exists()
        assert ranked == asked == (not errors)
    assert list(violations()) == []


# After the time was over


def test_a_lapsed_dialogue_that_nobody_took_goes_on_with_the_next_action() -> None:
    slot = make.make_chat()
    rank(slot)
    make.lapse(slot)
    write(slot)
    again = Slot.objects.get(state="held")
    assert again != slot and again.annotator == slot.annotator
    assert len(said(slot)) == 3
    assert list(violations()) == []


def test_a_lapsed_dialogue_may_be_ended_or_skipped_by_whoever_had_it() -> None:
    one, other = make.make_chat(), make.make_chat(text="Another?")
    rank(one)
    for slot in (one, other):
        make.lapse(slot)
    dialogues.end_dialogue(slot=one)
    dialogues.skip_dialogue(slot=other, reason="no")
    assert Slot.objects.filter(state="filled").count() == 2
    assert list(violations()) == []


def test_what_was_written_for_a_dialogue_that_somebody_else_has_is_kept_as_a_draft() -> None:
    slot = make.make_chat()
    rank(slot)
    taken_over(slot)
    with pytest.raises(SlotClosed):
        write(slot, "A long text.", after=0)
    draft = drafts.draft_of(slot)
    assert draft is not None and draft.body == {"message": "A long text."}
    assert len(said(slot)) == 1


def test_what_was_written_for_a_dialogue_that_ended_is_kept_as_a_draft() -> None:
    slot = make.make_chat()
    rank(slot)
    dialogues.end_dialogue(slot=slot)
    with pytest.raises(DialogueEnded):
        write(slot, "A long text.", after=0)
    draft = drafts.draft_of(slot)
    assert draft is not None and draft.body == {"message": "A long text."}


def test_whoever_takes_over_goes_on_from_what_was_ranked() -> None:
    slot = make.make_chat()
    rank(slot, 4, 3, 2, 1)
    taken = taken_over(slot)
    answered(write(taken))
    assert said(taken)[1:] == [("assistant", "Reply 3 to this."), ("user", "And in winter?")]
    rank(taken)
    assert Ranking.objects.counted().values("comparison").distinct().count() == 2
    assert Ranking.objects.counted().count() == 2
    assert list(violations()) == []


def test_whoever_takes_over_may_ask_for_new_replies_when_none_was_good() -> None:
    slot = make.make_chat()
    none_good(slot)
    taken = taken_over(slot)
    assert dialogues.ask_for_new_candidates(slot=taken).redo == 1
    assert list(violations()) == []


def test_whoever_takes_over_may_end_what_was_ranked_and_not_what_waits_for_a_ranking() -> None:
    one, other = make.make_chat(), make.make_chat(text="Another?")
    rank(one)
    rank(other)
    answered(write(other))
    dialogues.end_dialogue(slot=taken_over(one))
    assert said(one)[-1] == ("assistant", "Reply 0 to this.")
    with pytest.raises(CandidatesNotReady):
        dialogues.end_dialogue(slot=taken_over(other))
    assert list(violations()) == []


@pytest.mark.django_db(transaction=True)
def test_coming_back_and_another_claim_at_once_give_the_dialogue_to_one() -> None:
    make.make_member(make.make_project(), "bob")
    for number in range(6):
        slot = make.make_chat(text=f"Question {number}")
        rank(slot)
        make.lapse(slot)
        got = at_once(
            lambda slot=slot: write(slot, "And in winter?", after=0),
            lambda slot=slot: slots.next_slot(user=make.make_user("bob"), project=slot.work_item.project),
        )
        errors = raised(got, SlotClosed)
        assert bool(errors) == (got[1] is not None)
        if got[1] is not None:
            dialogues.skip_dialogue(slot=got[1], reason="no")
    assert list(violations()) == []


# None is good


def test_new_replies_are_made_once_and_then_the_dialogue_ends() -> None:
    slot = make.make_chat()
    none_good(slot)
    request = dialogues.ask_for_new_candidates(slot=slot)
    assert (request.redo, request.after_position, phase(slot)) == (1, 0, Phase.WAITING)
    answered(request)
    assert phase(slot) == Phase.RANK
    none_good(slot)
    assert phase(slot) == Phase.NONE_GOOD and not look_at_chat(slot).may_ask_again
    with pytest.raises(CandidatesNotReady, match="End"):
        dialogues.ask_for_new_candidates(slot=slot)
    dialogues.end_dialogue(slot=slot)
    assert said(slot) == [("user", "Why are my basil leaves yellow?")]
    assert list(violations()) == []


def test_of_the_new_replies_one_may_be_good() -> None:
    slot = make.make_chat()
    none_good(slot)
    request = dialogues.ask_for_new_candidates(slot=slot)
    make.answer_request(request, ["A better reply.", "Another one."])
    rank(slot, 1, 2)
    write(slot)
    assert said(slot)[1] == ("assistant", "A better reply.")
    assert list(violations()) == []


def test_asking_twice_for_new_replies_is_one_request() -> None:
    slot = make.make_chat()
    none_good(slot)
    first = dialogues.ask_for_new_candidates(slot=slot)
    assert dialogues.ask_for_new_candidates(slot=slot) == first
    answered(first)
    assert dialogues.ask_for_new_candidates(slot=slot) == first


def test_new_replies_need_a_reason() -> None:
    waiting, there, ranked = make.make_chat(answered=False), make.make_chat(text="B?"), make.make_chat(text="C?")
    rank(ranked)
    for slot in (own_chat(), waiting, there, ranked):
        with pytest.raises(CandidatesNotReady):
            dialogues.ask_for_new_candidates(slot=slot)


def test_new_replies_stand_in_another_order() -> None:
    slot = make.make_chat()
    Slot.objects.update(shuffle_seed=3)
    slot.refresh_from_db()
    first = [candidate.index for candidate in look_at_chat(slot).candidates if candidate]
    none_good(slot)
    answered(dialogues.ask_for_new_candidates(slot=slot))
    assert [candidate.index for candidate in look_at_chat(slot).candidates if candidate] != first


@pytest.mark.django_db(transaction=True)
def test_new_replies_asked_for_at_once_are_one_request() -> None:
    slot = make.make_chat()
    none_good(slot)
    got = at_once(*[lambda: dialogues.ask_for_new_candidates(slot=slot)] * 4)
    raised(got)
    assert len({request.pk for request in got}) == 1
    assert GenerationRequest.objects.count() == 2


# Undoing


def test_until_the_next_message_a_ranking_can_be_undone() -> None:
    slot = make.make_chat()
    rank(slot)
    withdraw_ranking(slot=slot, comparison=newest_comparison(slot))
    assert phase(slot) == Phase.RANK
    rank(slot, 4, 3, 2, 1)
    write(slot)
    assert said(slot)[1] == ("assistant", "Reply 3 to this.")
    assert list(violations()) == []


# Ending


def test_ending_keeps_the_best_reply_as_the_last_turn() -> None:
    slot = make.make_chat()
    rank(slot, 2, 1, 3, 4)
    dialogues.end_dialogue(slot=slot, reason="It answered everything.")
    dialogue = Dialogue.objects.get()
    slot.refresh_from_db()
    assert said(slot)[-1] == ("assistant", "Reply 1 to this.")
    assert dialogue.ended_at is not None and dialogue.end_reason == "It answered everything."
    assert (slot.state, slot.closed_because) == ("filled", "It answered everything.")
    assert slot.work_item.closed_at is not None
    assert list(violations()) == []


def test_ending_without_words_says_who_ended_it() -> None:
    slot = make.make_chat()
    rank(slot)
    dialogues.end_dialogue(slot=slot)
    assert Dialogue.objects.get().end_reason == "ended by the annotator"


def test_a_dialogue_in_which_nothing_stands_ranked_is_not_ended() -> None:
    slot = make.make_chat()
    with pytest.raises(CandidatesNotReady):
        dialogues.end_dialogue(slot=slot)
    rank(slot)
    withdraw_ranking(slot=slot, comparison=newest_comparison(slot))
    with pytest.raises(CandidatesNotReady):
        dialogues.end_dialogue(slot=slot)
    assert Dialogue.objects.get().is_open


def test_after_a_ranking_a_later_turn_need_not_be_waited_for() -> None:
    slot = make.make_chat()
    rank(slot)
    request = write(slot)
    dialogues.end_dialogue(slot=slot)
    request.refresh_from_db()
    assert (request.state, bool(request.error)) == ("cancelled", True)
    assert len(said(slot)) == 3
    assert list(violations()) == []


def test_a_reply_that_a_worker_is_making_for_an_ended_dialogue_is_dropped() -> None:
    slot = make.make_chat()
    rank(slot)
    request = queue.claim(GenerationRequest, write(slot).pk)
    assert request is not None
    dialogues.end_dialogue(slot=slot)
    assert generation.store_candidate(request, index=0, text="Too late.") is None
    assert list(violations()) == []


def test_a_dialogue_ends_once() -> None:
    slot = make.make_chat()
    rank(slot)
    dialogues.end_dialogue(slot=slot)
    for act in (
        lambda: dialogues.end_dialogue(slot=slot),
        lambda: dialogues.skip_dialogue(slot=slot, reason="no"),
        lambda: dialogues.ask_for_new_candidates(slot=slot),
    ):
        with pytest.raises(DialogueEnded):
            act()


def test_what_somebody_else_has_is_not_theirs_to_end() -> None:
    slot = make.make_chat()
    rank(slot)
    taken_over(slot)
    for act in (
        lambda: dialogues.end_dialogue(slot=slot),
        lambda: dialogues.skip_dialogue(slot=slot, reason="no"),
        lambda: dialogues.ask_for_new_candidates(slot=slot),
    ):
        with pytest.raises(SlotClosed):
            act()


def test_skipping_needs_a_reason_and_keeps_it() -> None:
    slot = make.make_chat()
    with pytest.raises(ReasonNeeded):
        dialogues.skip_dialogue(slot=slot, reason="  ")
    dialogues.skip_dialogue(slot=slot, reason=" The opening makes no sense ")
    slot.refresh_from_db()
    assert Dialogue.objects.get().end_reason == "skipped: The opening makes no sense"
    assert (slot.state, slot.closed_because) == ("filled", "skipped: The opening makes no sense")
    assert len(said(slot)) == 1
    assert list(violations()) == []


def test_a_long_reason_is_cut_and_not_refused() -> None:
    slot = make.make_chat()
    dialogues.skip_dialogue(slot=slot, reason="x" * 500)
    assert len(Dialogue.objects.get().end_reason) == 200


def test_skipping_after_a_ranking_keeps_the_chosen_reply() -> None:
    slot = make.make_chat()
    rank(slot)
    dialogues.skip_dialogue(slot=slot, reason="It upsets me")
    assert said(slot)[-1][0] == "assistant"
    assert Ranking.objects.counted().count() == 1


def test_after_an_end_the_next_piece_is_another() -> None:
    slot = make.make_chat()
    rank(slot)
    dialogues.end_dialogue(slot=slot)
    assert slot.annotator is not None
    assert slots.next_slot(user=slot.annotator, project=slot.work_item.project) is None


# What others are asked then


def test_each_ranked_comparison_of_an_ended_dialogue_is_asked_of_others() -> None:
    make.make_project(answers_per_comparison=3)
    slot = make.make_chat()
    none_good(slot)
    answered(dialogues.ask_for_new_candidates(slot=slot))
    rank(slot)
    answered(write(slot))
    assert not WorkItem.objects.filter(kind="rank").exists()
    dialogues.end_dialogue(slot=slot)
    first, second, last = Comparison.objects.order_by("pk")
    items = WorkItem.objects.filter(kind="rank").order_by("pk")
    assert [(item.comparison, item.wanted) for item in items] == [(first, 2), (second, 2)]
    assert {item.priority for item in items} == {dialogues.OVERLAP_PRIORITY}
    assert not last.rankings.exists()


def test_a_chat_that_changed_hands_is_one_answer_and_nobody_who_had_it_is_asked() -> None:
    project = make.make_project(answers_per_comparison=3)
    slot = make.make_chat()
    rank(slot)
    taken = taken_over(slot)
    dialogues.end_dialogue(slot=taken)
    assert WorkItem.objects.get(kind="rank").wanted == 2
    for had_it in (slot.annotator, taken.annotator):
        assert slots.next_slot(user=had_it, project=project) is None  # type: ignore[arg-type]


def test_without_overlap_nobody_is_asked() -> None:
    slot = make.make_chat()
    rank(slot)
    dialogues.end_dialogue(slot=slot)
    assert not WorkItem.objects.filter(kind="rank").exists()


def test_what_was_taken_back_or_did_not_count_is_asked_of_nobody() -> None:
    make.make_project(answers_per_comparison=2)
    slot = make.make_chat()
    taken = taken_over(slot)
    assert not rank(slot).counts
    dialogues.skip_dialogue(slot=taken, reason="no")
    assert not WorkItem.objects.filter(kind="rank").exists()


# Kept ready


def ready_project(count: int = 3, prompts: int = 5, **fields: Any) -> Project:
    project = make.make_project(ready_dialogues=count, **fields)
    for number in range(prompts):
        make.make_prompt(project, f"Question {number}?")
    return project


def ready(project: Project) -> int:
    return dialogues.unclaimed_dialogues(project).count()


def test_dialogues_are_kept_ready_with_their_replies_on_the_way() -> None:
    project = ready_project()
    assert keep_dialogues_ready(project) == 3
    assert keep_dialogues_ready(project) == 0
    assert ready(project) == 3
    assert GenerationRequest.objects.filter(state="queued").count() == 3
    assert list(violations()) == []


def test_one_that_is_taken_is_made_up_for() -> None:
    project = ready_project()
    keep_dialogues_ready(project)
    slots.next_slot(user=make.make_member(project), project=project)
    assert keep_dialogues_ready(project) == 1
    assert ready(project) == 3


def test_one_that_lapsed_is_offered_again_and_does_not_count_as_fresh() -> None:
    project = ready_project(count=1)
    keep_dialogues_ready(project)
    slot = slots.next_slot(user=make.make_member(project), project=project)
    assert slot is not None
    make.lapse(slot)
    assert keep_dialogues_ready(project) == 1


def test_every_prompt_comes_once_before_any_comes_twice() -> None:
    project = ready_project(count=2, prompts=4)
    alice = make.make_member(project)
    for _ in range(4):
        keep_dialogues_ready(project)
        slot = slots.next_slot(user=alice, project=project)
        assert slot is not None
        dialogues.skip_dialogue(slot=slot, reason="no")
    used = [prompt.dialogues.count() for prompt in Prompt.objects.all()]
    assert sorted(used) in ([1, 1, 1, 2], [1, 1, 1, 1])


def test_prompts_held_back_for_reports_or_set_aside_open_nothing() -> None:
    project = make.make_project(ready_dialogues=5)
    make.make_prompt(project, "For the report?", split="test")
    make.make_prompt(project, "Set aside?")
    Prompt.objects.filter(messages__0__content="Set aside?").update(is_active=False)
    make.make_prompt(project, "For the gate?", split="validation")
    make.make_prompt(make.make_project("another-desk"), "Elsewhere?")
    assert keep_dialogues_ready(project) == 1
    assert Turn.objects.get().content == "For the gate?"


@pytest.mark.parametrize(
    "fields", [{"ready_dialogues": 0}, {"policy": None}, {"archived_at": timezone.now()}], ids=lambda f: next(iter(f))
)
def test_some_projects_want_none(fields: dict[str, Any]) -> None:
    project = ready_project()
    Project.objects.update(**fields)
    project.refresh_from_db()
    assert keep_dialogues_ready(project) == 0
    assert not Dialogue.objects.exists()


def test_what_a_project_wants_is_read_when_it_is_locked() -> None:
    stale = ready_project()
    Project.objects.update(ready_dialogues=1)
    assert keep_dialogues_ready(stale) == 1
    Project.objects.update(policy=None, ready_dialogues=3)
    assert keep_dialogues_ready(stale) == 0


def test_without_prompts_none_are_opened() -> None:
    assert keep_dialogues_ready(make.make_project(ready_dialogues=3)) == 0


def test_only_so_many_are_opened_in_one_go() -> None:
    project = ready_project(count=25, prompts=30)
    assert [keep_dialogues_ready(project) for _ in range(4)] == [10, 10, 5, 0]


def test_a_prompt_that_cannot_open_a_dialogue_is_set_aside_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    project = ready_project(count=2, prompts=3)
    spoiled = Prompt.objects.order_by("content_hash")[0]
    Prompt.objects.filter(pk=spoiled.pk).update(messages=[{"role": "prompter", "content": "Hello"}])
    with caplog.at_level(logging.WARNING):
        assert keep_dialogues_ready(project) == 1
        assert keep_dialogues_ready(project) == 1
    spoiled.refresh_from_db()
    assert not spoiled.is_active
    assert f"prompt={spoiled.pk}" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_sweeps_at_once_open_no_more_than_are_wanted() -> None:
    project = ready_project(count=4, prompts=20)
    for _ in range(5):
        raised(at_once(*[lambda: keep_dialogues_ready(project)] * 4))
        keep_dialogues_ready(project)
        assert ready(project) == 4
        slots.next_slot(user=make.make_member(project, f"person-{User.objects.count()}"), project=project)
    assert list(violations()) == []


def test_with_nothing_missing_a_sweep_asks_one_question(django_assert_num_queries: Any) -> None:
    project = ready_project()
    keep_dialogues_ready(project)
    with django_assert_num_queries(1):
        keep_dialogues_ready(project)


def fail_all(**fields: Any) -> None:
    """What a model server that is away for long leaves behind."""
    long_ago = timezone.now() - timedelta(minutes=2)
    failed = {"state": "failed", "error": "The model server is gone.", "finished_at": long_ago, "attempts": 5}
    GenerationRequest.objects.filter(state="queued").update(**failed | fields)


def test_replies_that_failed_are_asked_for_again_where_nobody_has_the_dialogue() -> None:
    project = ready_project()
    keep_dialogues_ready(project)
    fail_all()
    taken = slots.next_slot(user=make.make_member(project), project=project)
    assert taken is not None
    assert dialogues.ask_again_where_it_failed(project) == 2
    assert dialogues.ask_again_where_it_failed(project) == 0
    assert newest_request(taken).state == "failed"
    assert GenerationRequest.objects.filter(state="queued", attempts=0, error="").count() == 2
    assert list(violations()) == []


def test_what_failed_just_now_is_left_alone_for_a_minute() -> None:
    project = ready_project()
    keep_dialogues_ready(project)
    fail_all(finished_at=timezone.now() - timedelta(seconds=50))
    assert dialogues.ask_again_where_it_failed(project) == 0


def test_what_was_withdrawn_or_is_another_projects_is_not_asked_for_again() -> None:
    project, other = ready_project(), make.make_project("another-desk", ready_dialogues=1)
    make.make_prompt(other)
    keep_dialogues_ready(project)
    keep_dialogues_ready(other)
    fail_all()
    dialogues.withdraw_ready_dialogues(project, because="policy 2 serves now")
    assert dialogues.ask_again_where_it_failed(project) == 0


def test_dialogues_with_replies_are_given_before_those_that_wait_and_those_that_failed() -> None:
    project = ready_project(count=3, prompts=3)
    keep_dialogues_ready(project)
    failed, waiting, there = GenerationRequest.objects.order_by("pk")
    GenerationRequest.objects.filter(pk=failed.pk).update(state="failed", error="The model server is gone.")
    answered(there)
    people = [make.make_member(project, f"person-{number}") for number in range(3)]
    given = [slots.next_slot(user=user, project=project) for user in people]
    assert [slot and slot.work_item.dialogue_id for slot in given] == [
        request.dialogue_id for request in (there, waiting, failed)
    ]


def test_replies_that_were_ranked_although_some_failed_are_not_asked_for_again() -> None:
    project = ready_project(count=1)
    keep_dialogues_ready(project)
    request = queue.claim(GenerationRequest, GenerationRequest.objects.get().pk)
    assert request is not None
    for index in range(2):
        generation.store_candidate(request, index=index, text=f"Reply {index}.")
    queue.fail(request, "The model server is gone.", permanent=True)
    generation.rank_what_is_there(request)
    GenerationRequest.objects.update(finished_at=timezone.now() - timedelta(minutes=2))
    assert dialogues.ask_again_where_it_failed(project) == 0


# Withdrawn


def test_what_nobody_has_begun_is_withdrawn_when_another_policy_serves() -> None:
    project = ready_project()
    keep_dialogues_ready(project)
    slot = slots.next_slot(user=make.make_member(project), project=project)
    assert slot is not None
    assert dialogues.withdraw_ready_dialogues(project, because="policy 2 serves now") == 2
    assert ready(project) == 0
    assert Dialogue.objects.filter(end_reason="policy 2 serves now").count() == 2
    assert GenerationRequest.objects.filter(state="cancelled").count() == 2
    assert phase(slot) == Phase.WAITING
    assert keep_dialogues_ready(project) == 3
    assert list(violations()) == []


def test_what_is_withdrawn_is_offered_to_nobody() -> None:
    project = ready_project(count=1)
    keep_dialogues_ready(project)
    dialogues.withdraw_ready_dialogues(project, because="policy 2 serves now")
    assert slots.next_slot(user=make.make_member(project), project=project) is None


def test_what_somebody_takes_at_this_moment_is_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    project = ready_project(count=2)
    keep_dialogues_ready(project)
    alice, withdraw = make.make_member(project), dialogues._withdraw

    def after_a_claim(*args: Any) -> int:
        assert slots.next_slot(user=alice, project=project)
        return withdraw(*args)

    monkeypatch.setattr(dialogues, "_withdraw", after_a_claim)
    assert dialogues.withdraw_ready_dialogues(project, because="no") == 1
    assert phase(Slot.objects.get(state="held")) == Phase.WAITING
    assert list(violations()) == []


def test_another_projects_dialogues_stay() -> None:
    project, other = ready_project(), make.make_project("another-desk", ready_dialogues=1)
    make.make_prompt(other)
    keep_dialogues_ready(other)
    assert dialogues.withdraw_ready_dialogues(project, because="no") == 0
    assert ready(other) == 1


@pytest.mark.django_db(transaction=True)
def test_taking_and_withdrawing_at_once_do_one_of_both_to_each_dialogue() -> None:
    project = ready_project(count=4, prompts=8)
    people = [make.make_member(project, f"person-{number}") for number in range(4)]
    for _ in range(5):
        keep_dialogues_ready(project)
        got = at_once(
            lambda: dialogues.withdraw_ready_dialogues(project, because="another policy"),
            *(lambda user=user: slots.next_slot(user=user, project=project) for user in people),
        )
        raised(got)
        for slot in filter(None, got[1:]):
            slot.refresh_from_db()
            assert phase(slot) != Phase.ENDED
            dialogues.skip_dialogue(slot=slot, reason="no")
    assert list(violations()) == []


# All at once


@pytest.mark.django_db(transaction=True)
def test_everything_at_once_leaves_a_whole_record() -> None:
    """People chat, rank, undo, write on, end and skip while sweeps lapse, open and withdraw."""
    project = ready_project(count=3, prompts=12, answers_per_comparison=3, max_turns=2)
    people = [make.make_member(project, f"person-{number}") for number in range(4)]
    keep_dialogues_ready(project)

    def work(user: User) -> None:
        for step in range(10):
            slot = slots.next_slot(user=user, project=project)
            if slot is None:
                continue
            try:
                one_step(slot, step)
            except FeedbackError:
                continue  # refused, with a reason; the record must be whole all the same

    def sweep() -> None:
        for _ in range(6):
            held = Slot.objects.filter(state="held").order_by("?").values_list("pk", flat=True)[:1]
            Slot.objects.filter(pk__in=list(held)).update(lease_until=timezone.now() - timedelta(seconds=1))
            slots.lapse_slots()
            keep_dialogues_ready(project)

    def answer_everything() -> None:
        for _ in range(10):
            for request in queue.claim_many(GenerationRequest, 10):
                for index in range(request.wanted):
                    generation.store_candidate(request, index=index, text=f"Reply {index}.")
                if request.candidates.count() == request.wanted:
                    generation.complete_request(request)

    answer_everything()  # so that the first step of everybody finds replies to rank
    works = [lambda user=user: work(user) for user in people]
    raised(at_once(*works, *works, sweep, sweep, answer_everything))
    assert list(violations()) == []
    assert Ranking.objects.exists()


def one_step(slot: Slot, step: int) -> None:
    """What somebody does with a piece, whatever it is."""
    if slot.work_item.comparison is not None:
        make.make_ranking(slot)
        return
    chat = look_at_chat(slot)
    if chat.phase == Phase.RANK and chat.comparison is not None:
        everything = make.ranks_by_index(chat.comparison)
        record_ranking(slot=slot, comparison=chat.comparison, submit_key=uuid4(), ranks=everything)
        if step % 3 == 0:
            withdraw_ranking(slot=slot, comparison=chat.comparison)
    elif chat.phase == Phase.RANKED and step % 2:
        send_message(slot=slot, text=f"And then {step}?", after_position=chat.last_position)
    elif chat.phase == Phase.RANKED:
        dialogues.end_dialogue(slot=slot)
    elif step == 5:
        dialogues.skip_dialogue(slot=slot, reason="no")
