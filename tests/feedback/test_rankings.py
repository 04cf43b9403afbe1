"""One person's answer: what is stored, what is refused, and what becomes of it."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback import dialogues, rankings, slots
from feedback.errors import (
    AlreadyAnswered,
    AnswerTakenBack,
    BadRanks,
    DialogueEnded,
    DialogueMovedOn,
    FeedbackError,
    ForeignCandidate,
    NothingRanked,
    SlotClosed,
    SlotNotYours,
    SubmitKeyReused,
)
from feedback.invariants import violations
from feedback.models import Comparison, RankEntry, Ranking, Slot
from feedback.rankings import (
    dense,
    preference_pairs,
    ranking_in_force,
    record_ranking,
    shown_candidates,
    withdraw_ranking,
)
from tests import make
from tests.threads import at_once, raised

pytestmark = pytest.mark.django_db

ranks_of_anything = st.dictionaries(st.integers(0, 20), st.integers(1, 9), max_size=9)


def question(slot: Slot) -> Comparison:
    comparison = slot.work_item.comparison or slot.work_item.dialogue.comparisons.latest("pk")  # type: ignore[union-attr]
    assert comparison is not None
    return comparison


def ids(comparison: Comparison) -> list[int]:
    return list(comparison.candidates.order_by("index").values_list("pk", flat=True))


def answer(slot: Slot, *places: int, **fields: Any) -> Ranking:
    """Rank the candidates, in the order they were made, by these places; 0 leaves one out."""
    comparison = fields.pop("comparison", None) or question(slot)
    ranks = {pk: place for pk, place in zip(ids(comparison), places, strict=False) if place}
    return record_ranking(slot=slot, comparison=comparison, **{"submit_key": uuid4(), "ranks": ranks} | fields)


def stored_places(ranking: Ranking) -> list[int | None]:
    places = ranking.ranks()
    return [places.get(pk) for pk in ids(ranking.comparison)]


# Ranks as numbers


@pytest.mark.parametrize(
    ("given_ranks", "stored"),
    [
        ({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 2, "c": 3}),
        ({"a": 1, "b": 3, "c": 1}, {"a": 1, "b": 2, "c": 1}),
        ({"a": 4, "b": 4}, {"a": 1, "b": 1}),
        ({"a": 9, "b": 2, "c": 5}, {"a": 3, "b": 1, "c": 2}),
        ({}, {}),
    ],
)
def test_dense_ranks_leave_no_gap(given_ranks: dict[str, int], stored: dict[str, int]) -> None:
    assert dense(given_ranks) == stored


@given(ranks_of_anything)
def test_dense_ranks_say_the_same_and_use_every_place_from_one(ranks: dict[int, int]) -> None:
    packed = dense(ranks)
    assert set(packed.values()) == set(range(1, len(set(ranks.values())) + 1))
    assert all((ranks[a] < ranks[b]) == (packed[a] < packed[b]) for a in ranks for b in ranks)
    assert dense(packed) == packed


@pytest.mark.parametrize(
    ("ranks", "pairs"),
    [
        ({"a": 1, "b": 2, "c": 2}, [("a", "b"), ("a", "c")]),
        ({"a": 3, "b": 1, "c": 2}, [("b", "a"), ("c", "a"), ("b", "c")]),
        ({"a": 1, "b": 1}, []),
        ({"a": 1}, []),
        ({}, []),
    ],
)
def test_preferences_are_the_pairs_told_apart(ranks: dict[str, int], pairs: list[tuple[str, str]]) -> None:
    assert preference_pairs(ranks) == pairs


@given(ranks_of_anything)
def test_there_is_one_preference_for_each_pair_that_is_no_tie(ranks: dict[int, int]) -> None:
    pairs = preference_pairs(ranks)
    assert all(ranks[chosen] < ranks[rejected] for chosen, rejected in pairs)
    untied = {frozenset((a, b)) for a in ranks for b in ranks if ranks[a] != ranks[b]}
    assert {frozenset(pair) for pair in pairs} == untied
    assert len(pairs) == len(untied)


# What is stored


def test_an_answer_is_stored_with_all_that_was_said() -> None:
    slot = make.make_rank_slot()
    best, *_, worst = ids(question(slot))
    ranking = answer(slot, 1, 2, 3, 4, strength=3, flags={worst: ["wrong", "rule", "wrong"]}, seconds=12.5)
    assert (ranking.annotator, ranking.annotator_key) == (slot.annotator, f"u{slot.annotator_id}")
    assert (ranking.revision, ranking.strength, ranking.seconds) == (1, 3, 12.5)
    assert (ranking.late, ranking.counts, ranking.withdrawn, ranking.all_bad) == (False, True, False, False)
    assert stored_places(ranking) == [1, 2, 3, 4]
    assert ranking.entries.get(candidate=worst).flags == ["rule", "wrong"]
    assert ranking.best().pk == best  # type: ignore[union-attr]
    assert str(ranking) == f"ranking {ranking.pk}"


def test_the_order_shown_is_stored_as_it_was_shown() -> None:
    slot = make.make_rank_slot()
    shown = [candidate.pk for candidate in shown_candidates(slot, question(slot))]
    assert answer(slot, 1, 2, 3, 4).shown_order == shown
    assert sorted(shown) == ids(question(slot))


def test_ties_and_gaps_are_stored_dense() -> None:
    assert stored_places(answer(make.make_rank_slot(), 4, 2, 2, 4)) == [2, 1, 1, 2]


def test_what_was_left_out_is_unranked() -> None:
    ranking = answer(make.make_rank_slot(), 0, 2, 0, 1)
    assert stored_places(ranking) == [None, 2, None, 1]
    assert ranking.entries.count() == 2


def test_a_flag_without_a_place_is_kept() -> None:
    slot = make.make_rank_slot()
    ranking = answer(slot, 1, 2, 3, 0, flags={ids(question(slot))[3]: ["unsafe"]})
    entry = ranking.entries.get(candidate=ids(question(slot))[3])
    assert (entry.rank, entry.flags) == (None, ["unsafe"])
    assert str(entry) == f"candidate {entry.candidate_id} at None"


def test_empty_flags_leave_no_trace() -> None:
    slot = make.make_rank_slot()
    assert answer(slot, 1, 0, 0, 0, flags={ids(question(slot))[1]: []}).entries.count() == 1


def test_none_is_good_needs_no_places() -> None:
    ranking = answer(make.make_rank_slot(), all_bad=True)
    assert (ranking.all_bad, ranking.entries.count(), ranking.best()) == (True, 0, None)


def test_none_is_good_may_still_have_an_order() -> None:
    ranking = answer(make.make_rank_slot(), 2, 1, all_bad=True)
    assert stored_places(ranking)[:2] == [2, 1]
    assert ranking.best() is None


def test_the_best_of_tied_replies_is_the_first_shown() -> None:
    slot = make.make_rank_slot()
    ranking = answer(slot, 1, 1, 1, 2)
    last = ids(question(slot))[3]
    assert ranking.best().pk == next(pk for pk in ranking.shown_order if pk != last)  # type: ignore[union-attr]


def test_a_rank_piece_is_filled_by_its_answer() -> None:
    slot = make.make_rank_slot()
    answer(slot, 1, 2, 3, 4)
    slot.refresh_from_db()
    assert slot.state == "filled"


def test_in_a_chat_the_slot_stays_held_and_has_its_full_time_again() -> None:
    slot = make.make_chat()
    before = slot.lease_until
    answer(slot, 1, 2, 3, 4)
    slot.refresh_from_db()
    assert slot.state == "held" and slot.lease_until > before


def test_imported_candidates_are_all_shown_whatever_their_places() -> None:
    comparison = make.make_comparison(candidates=3)
    comparison.candidates.filter(index=1).update(index=7)
    Comparison.objects.update(request=None)
    comparison.refresh_from_db()
    slot = make.make_rank_slot(comparison)
    assert len(shown_candidates(slot, question(slot))) == 3
    Comparison.objects.create(dialogue=comparison.dialogue, after_position=0)
    assert shown_candidates(slot, Comparison.objects.latest("pk")) == []


# What is refused


def test_places_lie_between_one_and_the_number_of_replies() -> None:
    slot = make.make_rank_slot()
    for place in (-1, 5):
        with pytest.raises(BadRanks):
            record_ranking(
                slot=slot, comparison=question(slot), submit_key=uuid4(), ranks={ids(question(slot))[0]: place}
            )
    with pytest.raises(BadRanks):
        record_ranking(slot=slot, comparison=question(slot), submit_key=uuid4(), ranks={ids(question(slot))[0]: 0})
    assert not Ranking.objects.exists()


def test_an_empty_answer_is_refused() -> None:
    with pytest.raises(NothingRanked):
        answer(make.make_rank_slot())


@pytest.mark.parametrize("strength", [0, 5, -1])
def test_strength_goes_from_one_to_four(strength: int) -> None:
    with pytest.raises(BadRanks):
        answer(make.make_rank_slot(), 1, 2, strength=strength)


def test_a_reply_to_another_question_is_refused() -> None:
    slot = make.make_rank_slot()
    stranger = ids(make.make_comparison(text="Another question"))[0]
    for wrong in ({"ranks": {stranger: 1}}, {"flags": {stranger: ["wrong"]}, "all_bad": True, "ranks": {}}):
        with pytest.raises(ForeignCandidate):
            answer(slot, **wrong)
    assert not Ranking.objects.exists()


def test_a_reply_that_came_after_the_question_was_made_is_foreign_to_it() -> None:
    comparison = make.make_comparison()
    late = comparison.candidates.get(index=3)
    comparison.candidates.filter(index=3).update(comparison=None)
    with pytest.raises(ForeignCandidate):
        answer(make.make_rank_slot(comparison), ranks={late.pk: 1})


def test_another_question_than_the_slots_is_refused() -> None:
    other = make.make_comparison(text="Another question")
    for slot in (make.make_rank_slot(), make.make_chat(text="A third one")):
        with pytest.raises(SlotNotYours):
            answer(slot, 1, comparison=other)


def test_a_free_slot_takes_no_answer() -> None:
    item = make.make_rank_work()
    with pytest.raises(SlotNotYours):
        answer(item.slots.all()[0], 1, 2)


def test_a_skipped_piece_takes_no_answer() -> None:
    slot = make.make_rank_slot()
    slots.skip(slot, reason="I cannot judge this")
    with pytest.raises(SlotNotYours):
        answer(slot, 1, 2)


# The same answer again


def test_the_same_form_sent_again_is_the_same_row() -> None:
    slot, key = make.make_rank_slot(), uuid4()
    first = answer(slot, 1, 2, 3, 4, submit_key=key, seconds=3.0)
    assert [answer(slot, 1, 2, 3, 4, submit_key=key, seconds=9.0) for _ in range(5)] == [first] * 5
    assert Ranking.objects.count() == 1


@pytest.mark.parametrize(
    "change",
    [
        {"ranks": {}, "all_bad": True},
        {"strength": 2},
        {"flags": "first"},
        {"places": (2, 1, 3, 4)},
        {"places": (1, 2, 3, 0)},
    ],
    ids=str,
)
def test_the_same_key_with_another_answer_is_refused(change: dict[str, Any]) -> None:
    slot, key = make.make_rank_slot(), uuid4()
    answer(slot, 1, 2, 3, 4, submit_key=key)
    if change.get("flags"):
        change = {"flags": {ids(question(slot))[0]: ["wrong"]}}
    places = change.get("places", (1, 2, 3, 4))
    with pytest.raises(SubmitKeyReused) as refusal:
        answer(slot, *places, submit_key=key, **{name: value for name, value in change.items() if name != "places"})
    assert refusal.value.status == 409
    assert Ranking.objects.count() == 1


def test_the_same_key_from_another_person_or_for_another_question_is_refused() -> None:
    comparison, key = make.make_comparison(), uuid4()
    answer(make.make_rank_slot(comparison, name="alice"), 1, 2, submit_key=key)
    with pytest.raises(SubmitKeyReused):
        answer(make.make_rank_slot(comparison, name="bob"), 1, 2, submit_key=key)
    with pytest.raises(SubmitKeyReused):
        answer(make.make_rank_slot(make.make_comparison(text="Another?")), 1, 2, submit_key=key)


def test_the_same_form_sent_again_is_the_same_row_even_after_the_dialogue_went_on() -> None:
    slot, key = make.make_chat(), uuid4()
    comparison = question(slot)
    first = answer(slot, 1, 2, 3, 4, submit_key=key)
    dialogues.send_message(slot=slot, text="And in winter?", after_position=0)
    assert answer(slot, 1, 2, 3, 4, submit_key=key, comparison=comparison) == first


@pytest.mark.django_db(transaction=True)
def test_one_form_sent_five_times_at_once_is_one_row() -> None:
    for number in range(5):
        slot = make.make_rank_slot(make.make_comparison(text=f"Question {number}"))
        key = uuid4()
        got = at_once(*[lambda slot=slot, key=key: answer(slot, 1, 2, 3, 4, submit_key=key)] * 5)
        raised(got)
        assert len({ranking.pk for ranking in got}) == 1
    assert Ranking.objects.count() == 5
    assert RankEntry.objects.count() == 20
    assert list(violations()) == []


# Another answer


def test_a_second_window_is_told_and_the_first_answer_stands() -> None:
    slot = make.make_rank_slot()
    first = answer(slot, 1, 2, 3, 4)
    with pytest.raises(AlreadyAnswered) as refusal:
        answer(slot, 4, 3, 2, 1)
    assert refusal.value.answer == first
    assert ranking_in_force(slot=slot, comparison=question(slot)) == first


def test_a_correction_is_a_new_revision_and_the_old_one_stays() -> None:
    slot = make.make_rank_slot()
    first = answer(slot, 1, 2, 3, 4)
    second = answer(slot, 4, 3, 2, 1, revises=1)
    assert (second.revision, second.late, second.counts) == (2, False, True)
    assert ranking_in_force(slot=slot, comparison=question(slot)) == second
    assert list(Ranking.objects.order_by("revision")) == [first, second]
    assert stored_places(first) == [1, 2, 3, 4]


def test_a_correction_of_what_was_corrected_meanwhile_is_refused() -> None:
    slot = make.make_rank_slot()
    answer(slot, 1, 2, 3, 4)
    answer(slot, 2, 1, 3, 4, revises=1)
    with pytest.raises(AlreadyAnswered):
        answer(slot, 3, 1, 2, 4, revises=1)


def test_the_final_state_follows_from_the_revisions() -> None:
    slot = make.make_rank_slot()
    for revision in range(6):
        answer(slot, *((1, 2, 3, 4) if revision % 2 else (4, 3, 2, 1)), revises=revision)
    assert list(Ranking.objects.order_by("pk").values_list("revision", flat=True)) == [1, 2, 3, 4, 5, 6]
    assert Ranking.objects.counted().count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_windows_that_answer_at_once_one_is_told() -> None:
    for number in range(5):
        slot = make.make_rank_slot(make.make_comparison(text=f"Question {number}"))
        works = [lambda slot=slot, places=places: answer(slot, *places) for places in ((1, 2, 3, 4), (4, 3, 2, 1))]
        assert len(raised(at_once(*works), AlreadyAnswered)) == 1
    assert Ranking.objects.count() == 5
    assert list(violations()) == []


def test_an_answer_stored_between_look_and_write_is_not_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """From two slots of one person, which no common lock keeps apart: the database does."""
    slot = make.make_rank_slot()
    first = answer(slot, 1, 2, 3, 4)
    monkeypatch.setattr(rankings, "_newest", lambda slot, comparison: None)
    with pytest.raises(AlreadyAnswered):
        answer(slot, 4, 3, 2, 1)
    assert list(Ranking.objects.all()) == [first]


# Taking back


def test_taking_back_adds_a_withdrawn_revision() -> None:
    slot = make.make_chat()
    first = answer(slot, 1, 2, 3, 4, strength=2)
    withdrawn = withdraw_ranking(slot=slot, comparison=question(slot))
    assert withdrawn is not None
    assert (withdrawn.revision, withdrawn.withdrawn, withdrawn.strength) == (2, True, 2)
    assert withdrawn.shown_order == first.shown_order
    assert ranking_in_force(slot=slot, comparison=question(slot)) is None
    assert Ranking.objects.count() == 2


def test_after_taking_back_another_answer_may_be_given() -> None:
    slot = make.make_chat()
    answer(slot, 1, 2, 3, 4)
    withdraw_ranking(slot=slot, comparison=question(slot))
    again = answer(slot, 4, 3, 2, 1)
    assert (again.revision, again.counts) == (3, True)
    assert ranking_in_force(slot=slot, comparison=question(slot)) == again


def test_the_form_of_an_answer_that_was_taken_back_says_so_and_stores_nothing() -> None:
    """A back button, a stale tab, a duplicate that came late."""
    slot, key = make.make_chat(), uuid4()
    answer(slot, 1, 2, 3, 4, submit_key=key)
    withdraw_ranking(slot=slot, comparison=question(slot))
    with pytest.raises(AnswerTakenBack) as refusal:
        answer(slot, 1, 2, 3, 4, submit_key=key)
    assert refusal.value.status == 409
    assert ranking_in_force(slot=slot, comparison=question(slot)) is None
    assert answer(slot, 1, 2, 3, 4).revision == 3
    assert answer(slot, 1, 2, 3, 4, submit_key=key).revision == 1  # what the form said stands again
    assert Ranking.objects.count() == 3


def test_the_form_of_an_answer_taken_back_in_a_dialogue_that_ended_says_that_it_ended() -> None:
    slot, key = make.make_chat(), uuid4()
    answer(slot, 1, 2, 3, 4, submit_key=key)
    withdraw_ranking(slot=slot, comparison=question(slot))
    dialogues.skip_dialogue(slot=slot, reason="It upsets me")
    with pytest.raises(DialogueEnded):
        answer(slot, 1, 2, 3, 4, submit_key=key)


def test_without_an_answer_there_is_nothing_to_take_back() -> None:
    slot = make.make_chat()
    assert withdraw_ranking(slot=slot, comparison=question(slot)) is None
    answer(slot, 1, 2, 3, 4)
    assert withdraw_ranking(slot=slot, comparison=question(slot)) is not None
    assert withdraw_ranking(slot=slot, comparison=question(slot)) is None


def test_once_the_next_turn_is_sent_the_answer_stands() -> None:
    slot = make.make_chat()
    comparison = question(slot)
    answer(slot, 1, 2, 3, 4)
    dialogues.send_message(slot=slot, text="And in winter?", after_position=0)
    with pytest.raises(DialogueMovedOn):
        withdraw_ranking(slot=slot, comparison=comparison)
    with pytest.raises(DialogueMovedOn):
        answer(slot, 4, 3, 2, 1, comparison=comparison, revises=1)


def test_once_other_replies_were_asked_for_the_answer_stands() -> None:
    slot = make.make_chat()
    comparison = question(slot)
    answer(slot, all_bad=True)
    dialogues.ask_for_new_candidates(slot=slot)
    with pytest.raises(DialogueMovedOn):
        withdraw_ranking(slot=slot, comparison=comparison)
    with pytest.raises(DialogueMovedOn):
        answer(slot, 1, 2, 3, 4, comparison=comparison, revises=1)


def test_once_the_dialogue_has_ended_the_answer_stands() -> None:
    slot = make.make_chat()
    answer(slot, all_bad=True)
    dialogues.end_dialogue(slot=slot)
    with pytest.raises(DialogueEnded):
        withdraw_ranking(slot=slot, comparison=question(slot))
    with pytest.raises(DialogueEnded):
        answer(slot, 1, 2, 3, 4, revises=1)


def test_a_dialogue_skipped_in_another_window_takes_no_answer() -> None:
    slot = make.make_chat()
    dialogues.skip_dialogue(slot=slot, reason="It upsets me")
    with pytest.raises(DialogueEnded):
        answer(slot, 1, 2, 3, 4)


def test_a_rank_piece_is_corrected_and_not_taken_back() -> None:
    """Taken back it would leave a filled place without an answer."""
    slot = make.make_rank_slot()
    answer(slot, 1, 2, 3, 4)
    with pytest.raises(SlotClosed):
        withdraw_ranking(slot=slot, comparison=question(slot))


@pytest.mark.django_db(transaction=True)
def test_taking_back_and_going_on_at_once_leave_no_dialogue_on_a_withdrawn_answer() -> None:
    for number in range(6):
        slot = make.make_chat(text=f"Question {number}")
        comparison = question(slot)
        answer(slot, 1, 2, 3, 4)
        got = at_once(
            lambda slot=slot, comparison=comparison: withdraw_ranking(slot=slot, comparison=comparison),
            lambda slot=slot: dialogues.send_message(slot=slot, text="And in winter?", after_position=0),
        )
        assert len(raised(got, FeedbackError)) == 1
        went_on = comparison.dialogue.turns.count() > 1
        assert went_on == (ranking_in_force(slot=slot, comparison=comparison) is not None)
    assert list(violations()) == []


# Late answers


def late_slot(comparison: Comparison | None = None, *, wanted: int = 1) -> Slot:
    slot = make.make_rank_slot(comparison, wanted=wanted)
    make.lapse(slot)
    return slot


def take_over(slot: Slot, name: str = "bob") -> Slot:
    user = make.make_member(slot.work_item.project, name)
    taken = slots.next_slot(user=user, project=slot.work_item.project)
    assert taken is not None and taken.work_item_id == slot.work_item_id
    return taken


def test_a_late_answer_that_finds_its_place_free_counts() -> None:
    slot = late_slot()
    ranking = answer(slot, 1, 2, 3, 4)
    assert (ranking.slot, ranking.late, ranking.counts) == (slot, True, True)
    slot.refresh_from_db()
    assert slot.state == "lapsed"
    assert not slot.work_item.slots.filter(state="free").exists()
    assert list(violations()) == []


def test_a_late_answer_whose_place_is_taken_is_kept_and_does_not_count() -> None:
    slot = late_slot()
    taken = take_over(slot)
    ranking = answer(slot, 1, 2, 3, 4)
    assert (ranking.late, ranking.counts) == (True, False)
    assert answer(taken, 4, 3, 2, 1).counts
    assert Ranking.objects.in_force().count() == 2
    assert Ranking.objects.counted().get().annotator == taken.annotator
    assert list(violations()) == []


def test_a_late_answer_is_stored_in_the_order_its_writer_saw() -> None:
    slot = make.make_rank_slot(wanted=1)
    shown = [candidate.pk for candidate in shown_candidates(slot, question(slot))]
    make.lapse(slot)
    take_over(slot)
    assert answer(slot, 1, 2, 3, 4).shown_order == shown


def test_from_an_old_window_the_piece_taken_up_again_is_answered_in_time() -> None:
    slot = late_slot()
    again = take_over(slot, "alice")
    ranking = answer(slot, 1, 2, 3, 4)
    assert (ranking.slot, ranking.late, ranking.counts) == (again, False, True)
    again.refresh_from_db()
    assert again.state == "filled"
    assert list(violations()) == []


def test_correcting_a_late_answer_that_counts_keeps_it_counting() -> None:
    slot = late_slot()
    answer(slot, 1, 2, 3, 4)
    corrected = answer(slot, 4, 3, 2, 1, revises=1)
    assert (corrected.late, corrected.counts) == (True, True)
    assert list(violations()) == []


def test_correcting_a_late_answer_that_does_not_count_does_not_make_it_count() -> None:
    slot = late_slot()
    take_over(slot)
    answer(slot, 1, 2, 3, 4)
    assert not answer(slot, 4, 3, 2, 1, revises=1).counts


def test_a_correction_counts_once_the_place_became_free_again() -> None:
    slot = late_slot()
    taken = take_over(slot)
    answer(slot, 1, 2, 3, 4)
    slots.skip(taken, reason="I cannot judge this")
    assert answer(slot, 4, 3, 2, 1, revises=1).counts
    assert list(violations()) == []


def test_a_lapsed_chat_that_nobody_took_is_answered_as_if_in_time() -> None:
    slot = make.make_chat()
    make.lapse(slot)
    shown = [candidate.pk for candidate in shown_candidates(slot, question(slot))]
    ranking = answer(slot, 1, 2, 3, 4)
    assert ranking.slot is not None
    assert (ranking.slot.state, ranking.late, ranking.counts) == ("held", False, True)
    assert ranking.shown_order == shown
    dialogues.send_message(slot=ranking.slot, text="And in winter?", after_position=0)
    assert list(violations()) == []


def test_a_late_answer_in_a_chat_that_somebody_has_is_kept_and_leaves_the_chat_to_them() -> None:
    slot = make.make_chat()
    make.lapse(slot)
    taken = take_over(slot)
    ranking = answer(slot, 1, 2, 3, 4)
    assert (ranking.late, ranking.counts) == (True, False)
    taken.refresh_from_db()
    assert taken.state == "held"
    assert dialogues.look_at_chat(taken).phase == dialogues.Phase.RANK


def test_a_late_answer_to_a_turn_the_chat_has_left_is_kept() -> None:
    slot = make.make_chat()
    comparison = question(slot)
    make.lapse(slot)
    taken = take_over(slot)
    answer(taken, 1, 2, 3, 4)
    dialogues.send_message(slot=taken, text="And in winter?", after_position=0)
    assert not answer(slot, 4, 3, 2, 1, comparison=comparison).counts
    dialogues.skip_dialogue(slot=taken, reason="Something is broken")
    assert list(violations()) == []


def test_a_late_correction_of_what_the_chat_went_on_from_is_refused() -> None:
    """It would put an answer that does not count over one that does."""
    slot = make.make_chat()
    comparison = question(slot)
    answer(slot, 1, 2, 3, 4)
    make.lapse(slot)
    taken = take_over(slot)
    for go_on in (lambda: None, lambda: dialogues.send_message(slot=taken, text="And in winter?", after_position=0)):
        go_on()
        with pytest.raises(DialogueMovedOn):
            answer(slot, 2, 1, 3, 4, comparison=comparison, revises=1)
        with pytest.raises(DialogueMovedOn):
            withdraw_ranking(slot=slot, comparison=comparison)
    assert Ranking.objects.counted().count() == 1


def test_what_was_answered_and_counts_is_not_answered_again_by_whoever_takes_the_chat_over() -> None:
    slot = make.make_chat()
    first = answer(slot, 1, 2, 3, 4)
    make.lapse(slot)
    taken = take_over(slot)
    with pytest.raises(AlreadyAnswered):
        answer(taken, 4, 3, 2, 1)
    assert withdraw_ranking(slot=taken, comparison=question(slot)) is None
    assert list(Ranking.objects.all()) == [first]
    make.lapse(taken)
    back = take_over(slot, "alice")
    assert answer(back, 4, 3, 2, 1, revises=1).counts  # back in hand it is theirs to correct
    assert list(violations()) == []


def test_what_was_taken_back_is_asked_of_whoever_takes_the_chat_over_and_counts_once() -> None:
    slot = make.make_chat()
    answer(slot, 1, 2, 3, 4)
    withdraw_ranking(slot=slot, comparison=question(slot))
    make.lapse(slot)
    assert answer(take_over(slot), 4, 3, 2, 1).counts
    assert not answer(slot, 2, 1, 3, 4).counts
    assert list(violations()) == []


def test_who_takes_a_chat_up_again_cannot_make_an_answer_count_beside_the_one_that_does() -> None:
    slot = make.make_chat()
    make.lapse(slot)
    taken = take_over(slot)
    answer(taken, 1, 2, 3, 4)
    assert not answer(slot, 4, 3, 2, 1).counts
    make.lapse(taken)
    back = take_over(slot, "alice")
    for act in (
        lambda: answer(back, 2, 1, 3, 4, revises=1),
        lambda: withdraw_ranking(slot=back, comparison=question(slot)),
    ):
        with pytest.raises(AlreadyAnswered):
            act()
    assert dialogues.look_at_chat(back).ranking.annotator == taken.annotator  # type: ignore[union-attr]
    assert list(violations()) == []


@pytest.mark.django_db(transaction=True)
def test_a_late_answer_and_a_claim_at_once_never_count_both() -> None:
    make.make_member(make.make_project(), "bob")
    for number in range(6):
        slot = late_slot(make.make_comparison(text=f"Question {number}"))
        got = at_once(
            lambda slot=slot: answer(slot, 1, 2, 3, 4),
            lambda slot=slot: slots.next_slot(user=make.make_user("bob"), project=slot.work_item.project),
        )
        raised(got)
        ranking, taken = got
        assert ranking.counts == (taken is None)
        if taken is not None:
            answer(taken, 1, 2, 3, 4)
    assert list(violations()) == []


@pytest.mark.django_db(transaction=True)
def test_windows_before_and_after_the_lapse_that_send_at_once_store_one_answer() -> None:
    for number in range(5):
        slot = late_slot(make.make_comparison(text=f"Question {number}"))
        again = take_over(slot, "alice")
        got = at_once(lambda slot=slot: answer(slot, 1, 2, 3, 4), lambda again=again: answer(again, 4, 3, 2, 1))
        assert len(raised(got, AlreadyAnswered)) == 1
    assert Ranking.objects.count() == 5
    assert list(violations()) == []


# Who is asked


def test_everybody_who_is_asked_has_an_answer_of_their_own() -> None:
    comparison = make.make_comparison()
    make.make_rank_work(comparison, wanted=3)
    for name in ("alice", "bob", "charlie"):
        answer(make.make_rank_slot(comparison, name=name), 1, 2, 3, 4)
    assert Ranking.objects.counted().by_people().count() == 3
    assert list(violations()) == []


def test_a_dialogue_that_ended_is_still_ranked_by_others() -> None:
    make.make_project(answers_per_comparison=2)
    chat = make.make_chat()
    answer(chat, 1, 2, 3, 4)
    dialogues.end_dialogue(slot=chat)
    bob = make.make_member(make.make_project(), "bob")
    slot = slots.next_slot(user=bob, project=make.make_project())
    assert slot is not None
    assert answer(slot, 1, 2, 3, 4).counts
    assert list(violations()) == []
