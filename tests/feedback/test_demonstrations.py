"""Written replies: asked for, sent once, late, alike, gone on from; reviewed by others, sent back, mended, edited."""

from __future__ import annotations

from uuid import uuid4

import pytest

from feedback import demonstration_reviews, demonstration_turns, demonstrations, demonstrations_wanted, slots
from feedback.errors import (
    AlikeAlready,
    AlreadyAnswered,
    AlreadyReviewed,
    AnswerTakenBack,
    BadVerdict,
    CandidatesNotReady,
    DialogueEnded,
    DialogueMovedOn,
    EmptyMessage,
    ForeignCandidate,
    MessageTooLong,
    NotDemonstrable,
    ReasonNeeded,
    ReasonTooLong,
    SlotClosed,
    SlotNotYours,
    SubmitKeyReused,
)
from feedback.invariants import violations
from feedback.models import Demonstration, DemonstrationReview, Dialogue, Project, Slot, Turn, User, WorkItem
from tests import make
from tests.threads import at_once, raised

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return make.make_project(demonstrations_open=True, ready_demonstrations=3)


def next_of(user: User | str, project: Project, kind: str = "demonstrate") -> Slot | None:
    person = make.make_member(project, user) if isinstance(user, str) else user
    return slots.next_slot(user=person, project=project, kind=kind)


def clean() -> None:
    assert list(violations()) == []


# What is asked for


def test_a_prompt_is_asked_about_once_and_then_by_more_people(project: Project) -> None:
    prompt = make.make_prompt(project)
    item = demonstrations_wanted.ask_for_demonstrations(prompt=prompt)
    assert (item.wanted, item.slots.count(), item.dialogue.kind) == (1, 1, "demonstration")
    assert item.dialogue.messages() == prompt.messages and item.dialogue.prompt == prompt
    again = demonstrations_wanted.ask_for_demonstrations(prompt=prompt, wanted=3)
    assert again == item and (again.wanted, again.slots.count()) == (3, 3)
    assert demonstrations_wanted.ask_for_demonstrations(prompt=prompt, wanted=2).wanted == 3


def test_a_project_says_how_many_people_answer_a_prompt(project: Project) -> None:
    project.demonstrations_per_prompt = 2
    project.save()
    assert demonstrations_wanted.ask_for_demonstrations(prompt=make.make_prompt(project)).wanted == 2


def test_a_dialogue_so_far_is_asked_about_as_it_stood(project: Project) -> None:
    dialogue = make.make_dialogue(project)
    Turn.objects.create(dialogue=dialogue, position=1, role="assistant", content="Too much water.")
    Turn.objects.create(dialogue=dialogue, position=2, role="user", content="And in winter?")
    Turn.objects.create(dialogue=dialogue, position=3, role="assistant", content="Less still.")
    item = demonstrations_wanted.ask_from_dialogue(dialogue=dialogue, position=2)
    assert item.dialogue.messages() == dialogue.messages()[:3] and item.dialogue != dialogue
    assert demonstrations_wanted.ask_from_dialogue(dialogue=dialogue, position=2) == item
    assert demonstrations_wanted.ask_from_dialogue(dialogue=dialogue, position=0) != item
    with pytest.raises(NotDemonstrable, match="a turn of the user's"):
        demonstrations_wanted.ask_from_dialogue(dialogue=dialogue, position=1)


def test_what_measures_policies_or_may_harm_is_not_asked_about(project: Project) -> None:
    with pytest.raises(NotDemonstrable, match="kept apart"):
        demonstrations_wanted.ask_from_dialogue(dialogue=make.make_dialogue(project, kind="evaluation"), position=0)
    probe = make.make_probe(make.make_rule_set(project, sensitive=1).rules.get(is_sensitive=True))
    with pytest.raises(NotDemonstrable, match="what harms"):
        demonstrations_wanted.ask_from_dialogue(dialogue=probe.dialogue, position=0)
    with pytest.raises(NotDemonstrable, match="no opening"):
        demonstrations_wanted.ask_from_dialogue(dialogue=make.make_dialogue(project, prompt=None), position=0)


def test_the_test_split_is_for_reports(project: Project) -> None:
    with pytest.raises(NotDemonstrable, match="test split"):
        demonstrations_wanted.ask_for_demonstrations(prompt=make.make_prompt(project, split="test"))
    with pytest.raises(NotDemonstrable, match="test split"):
        demonstrations_wanted.ask_from_dialogue(dialogue=make.make_dialogue(project, split="test"), position=0)


def test_the_sweep_keeps_so_many_waiting_and_leaves_the_test_split(project: Project) -> None:
    for number in range(5):
        make.make_prompt(project, f"Question {number}?", split="test" if number < 3 else "train")
    assert demonstrations_wanted.keep_demonstrations_ready(project) == 2
    assert demonstrations_wanted.keep_demonstrations_ready(project) == 0
    asked = WorkItem.objects.filter(kind="demonstrate")
    assert {item.dialogue.prompt.split for item in asked} == {"train"}


def test_two_sweeps_at_once_ask_once(project: Project) -> None:
    make.make_prompt(project)
    assert (
        demonstrations_wanted.keep_demonstrations_ready(project)
        + demonstrations_wanted.keep_demonstrations_ready(project)
        == 1
    )


@pytest.mark.parametrize("closed", [{"demonstrations_open": False}, {"ready_demonstrations": 0}])
def test_nothing_is_asked_for_by_itself_where_it_is_closed(project: Project, closed: dict[str, object]) -> None:
    make.make_prompt(project)
    Project.objects.update(**closed)
    project.refresh_from_db()
    assert demonstrations_wanted.keep_demonstrations_ready(project) == 0


def test_nobody_is_given_any_where_they_are_closed(project: Project) -> None:
    demonstrations_wanted.ask_for_demonstrations(prompt=make.make_prompt(project))
    make.review(make.make_review_slot(make.write(make.make_write_slot(project, text="Another?"))), "sent_back",
                reason="No.")  # fmt: skip
    make.write(make.make_write_slot(project, text="A third?"), "Something else.")
    Project.objects.update(demonstrations_open=False)
    for name in ("alice", "bob", "carol"):
        assert next_of(name, project) is None and next_of(name, project, "review") is None
        assert next_of(name, project, "") is None


def test_a_stranger_is_given_nothing(project: Project) -> None:
    demonstrations_wanted.ask_for_demonstrations(prompt=make.make_prompt(project))
    assert slots.next_slot(user=make.make_user("charlie"), project=project, kind="demonstrate") is None


# What a person sends


def test_a_reply_is_stored_with_what_is_known_of_it_and_waits_for_a_review(project: Project) -> None:
    slot = make.make_write_slot(project)
    text = make.write(slot, "  Water it less.\r\n\r\nTwice a week.  ", pasted_share=0.25, seconds=80.0)
    text.refresh_from_db()
    assert text.content == "Water it less.\n\nTwice a week." and (text.pasted_share, text.seconds) == (0.25, 80.0)
    assert (text.position, text.revision, text.edited_from, text.late, text.counts) == (0, 1, None, False, True)
    assert text.annotator_key == f"u{text.annotator_id}" and text.slot == slot
    slot.refresh_from_db()
    assert slot.state == "filled" and list(Demonstration.objects.waiting()) == [text]
    assert text.work_items.get().kind == "review"
    assert demonstrations.counts_of(project) == {"accepted": 0, "waiting": 1, "sent_back": 0, "asked": 0}
    clean()


def test_the_same_key_is_one_row_and_another_text_under_it_is_refused(project: Project) -> None:
    slot, key = make.make_write_slot(project), uuid4()
    first = make.write(slot, submit_key=key)
    assert make.write(slot, submit_key=key) == first and Demonstration.objects.count() == 1
    with pytest.raises(SubmitKeyReused):
        make.write(slot, "Another text.", submit_key=key)
    other = make.make_write_slot(project, name="bob", text="Another?")
    with pytest.raises(SubmitKeyReused):
        make.write(other, submit_key=key)


@pytest.mark.parametrize(("text", "error"), [(" \n ", EmptyMessage), ("x" * 8001, MessageTooLong)])
def test_nothing_and_too_much_are_refused(project: Project, text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        make.write(make.make_write_slot(project), text)
    assert not Demonstration.objects.exists()


def test_until_somebody_reads_it_a_reply_can_be_corrected(project: Project) -> None:
    slot = make.make_write_slot(project)
    first = make.write(slot)
    with pytest.raises(AlreadyAnswered):
        make.write(slot, "From another window.")
    second = make.write(slot, "Water it less, and turn it.", revises=1)
    assert (second.revision, second.supersedes) == (2, first)
    assert list(Demonstration.objects.in_force()) == [second]
    assert first.work_items.get().closed_at is not None and second.work_items.get().closed_at is None
    make.make_review_slot(second)
    with pytest.raises(AlreadyReviewed, match="Somebody reviews"):
        make.write(slot, "A third text.", revises=2)
    clean()


def test_a_reply_that_nobody_has_read_can_be_taken_back_and_is_asked_of_another(project: Project) -> None:
    slot, key = make.make_write_slot(project), uuid4()
    make.write(slot, submit_key=key)
    taken = demonstrations.withdraw_demonstration(slot=slot)
    assert taken is not None and taken.withdrawn and not Demonstration.objects.in_force().exists()
    assert demonstrations.withdraw_demonstration(slot=slot) is None
    with pytest.raises(AnswerTakenBack):
        make.write(slot, submit_key=key)
    assert next_of("alice", project) is None  # not again of them
    assert next_of("bob", project).work_item == slot.work_item
    clean()


def test_a_reply_that_was_reviewed_stays(project: Project) -> None:
    slot = make.make_write_slot(project)
    make.review(make.make_review_slot(make.write(slot)))
    with pytest.raises(AlreadyReviewed):
        demonstrations.withdraw_demonstration(slot=slot)


def test_a_late_reply_counts_while_its_place_is_free_and_is_kept_when_it_is_not(project: Project) -> None:
    first, second = make.make_write_slot(project), make.make_write_slot(project, text="Another?")
    make.lapse(first)
    assert make.write(first).counts and Demonstration.objects.waiting().count() == 1
    make.lapse(second)
    other = next_of("bob", project)
    assert other is not None and other.work_item == second.work_item
    kept = make.write(second, "I was here before.")
    assert (kept.late, kept.counts) == (True, False) and not kept.work_items.exists()
    make.write(other, "A reply of Bob's own.")
    assert Demonstration.objects.counted().count() == 2
    clean()


def test_a_skipped_piece_is_somebody_elses(project: Project) -> None:
    slot = make.make_write_slot(project)
    demonstrations.leave(slot=slot, reason="I do not know")
    with pytest.raises(SlotNotYours):
        make.write(slot)
    assert next_of("alice", project) is None and next_of("bob", project) is not None
    clean()


def test_another_kind_of_work_takes_no_demonstration(project: Project) -> None:
    with pytest.raises(SlotNotYours):
        make.write(make.make_rank_slot(make.make_comparison(project)))


# Starting from a reply of the model's


def test_the_models_replies_to_the_same_opening_are_offered_in_an_order_of_the_slots_own(project: Project) -> None:
    made = make.make_comparison(project, texts=["Water it.", "Sun.", "Water it.", "Wait."])
    make.make_comparison(project, text="Another?", texts=["No.", "Nor this.", "c", "d"])
    make.make_comparison(project, kind="evaluation", texts=["Measured.", "b", "c", "d"])
    slot = make.make_write_slot(project)
    offered = demonstrations.candidates_for(slot)
    assert sorted(candidate.text for candidate in offered) == ["Sun.", "Wait.", "Water it."]
    assert {candidate.comparison for candidate in offered} == {made}
    assert demonstrations.candidates_for(slot) == offered


def test_an_edited_reply_knows_what_it_was_made_from_and_whether_it_says_something_else(project: Project) -> None:
    made = make.make_comparison(project).candidates.all()[0]
    edited = make.write(make.make_write_slot(project, wanted=2), "Water it less.", edited_from=made)
    assert edited.edited_from == made and edited.is_changed
    same = make.write(make.make_write_slot(project, wanted=2, name="bob"), made.text + " ", edited_from=made)
    assert not same.is_changed


def test_a_reply_to_something_else_is_no_start(project: Project) -> None:
    made = make.make_comparison(project, text="Another?").candidates.all()[0]
    with pytest.raises(ForeignCandidate):
        make.write(make.make_write_slot(project), edited_from=made)


# Texts that are alike


def test_nearly_the_same_text_is_stored_only_on_purpose(project: Project) -> None:
    words = " ".join(f"word{number}" for number in range(30))
    make.write(make.make_write_slot(project), words)
    slot = make.make_write_slot(project, text="Another?")
    with pytest.raises(AlikeAlready, match="97% the same as"):
        make.write(slot, words + " more")
    with pytest.raises(AlikeAlready, match="This is the same as"):
        make.write(slot, words.upper() + "!")
    assert Demonstration.objects.count() == 1
    assert make.write(slot, words + " more", keep_alike=True).pk
    clean()


def test_ones_own_earlier_text_and_other_projects_are_no_twins(project: Project) -> None:
    slot = make.make_write_slot(project)
    make.write(slot)
    make.write(slot, "Water it less!", revises=1)
    make.write(make.make_write_slot(make.make_project("another", demonstrations_open=True)), "Water it less.")
    assert Demonstration.objects.in_force().count() == 2


# Reviews


def test_a_review_is_of_another_persons_text_and_makes_it_accepted(project: Project) -> None:
    text = make.write(make.make_write_slot(project))
    assert next_of("alice", project, "review") is None
    slot = next_of("bob", project, "review")
    assert slot is not None and slot.work_item.demonstration == text
    key = uuid4()
    review = make.review(slot, seconds=20.0, submit_key=key)
    assert make.review(slot, submit_key=key) == review
    with pytest.raises(SubmitKeyReused):
        make.review(slot, "sent_back", reason="No.", submit_key=key)
    assert list(Demonstration.objects.accepted()) == [text] and not Demonstration.objects.waiting().exists()
    assert demonstrations.counts_of(project)["accepted"] == 1 and demonstrations.review_of(text) == review
    with pytest.raises(AlreadyReviewed):
        make.write(text.slot, "Another text.", revises=1)
    clean()


def test_who_writes_to_a_dialogue_reviews_no_other_text_there_and_who_read_one_writes_none(project: Project) -> None:
    first = make.make_write_slot(project, wanted=3)
    second = make.make_write_slot(project, name="bob", wanted=3)
    text = make.write(first)
    assert next_of("bob", project, "review") is None  # they write
    make.write(second, "Turn it around.")
    assert next_of("bob", project, "review") is None  # they wrote
    review = next_of("carol", project, "review")
    assert review is not None and review.work_item.demonstration == text
    assert next_of("carol", project, "demonstrate") is None and next_of("dora", project, "demonstrate") is not None
    clean()


@pytest.mark.parametrize(
    ("verdict", "said", "error"),
    [
        ("fine", {}, BadVerdict),
        ("sent_back", {"reason": " "}, ReasonNeeded),
        ("sent_back", {"reason": "x" * 2001}, ReasonTooLong),
        ("edited", {"content": ""}, EmptyMessage),
        ("edited", {"content": "Water it less. "}, BadVerdict),
    ],
)
def test_a_review_that_cannot_be_is_refused(project: Project, verdict: str, said: dict, error: type[Exception]) -> None:
    slot = make.make_review_slot(make.write(make.make_write_slot(project)))
    with pytest.raises(error):
        make.review(slot, verdict, **said)
    assert not DemonstrationReview.objects.exists() and Demonstration.objects.count() == 1


def test_what_is_sent_back_is_its_writers_alone_who_mends_it(project: Project) -> None:
    text = make.write(make.make_write_slot(project))
    make.review(make.make_review_slot(text), "sent_back", reason="Say how often.")
    assert list(Demonstration.objects.sent_back()) == [text] and next_of("bob", project) is None
    again = next_of("alice", project)
    assert again is not None and again.work_item.demonstration == text
    assert demonstrations.in_force_of(again) == text
    with pytest.raises(AlreadyAnswered):
        make.write(again, "Water it less, twice a week.")
    mended = make.write(again, "Water it less, twice a week.", revises=1)
    assert (mended.revision, mended.supersedes, mended.position) == (2, text, 0)
    assert list(Demonstration.objects.waiting()) == [mended] and not Demonstration.objects.sent_back().exists()
    make.review(make.make_review_slot(mended, name="bob"))
    assert list(Demonstration.objects.accepted()) == [mended]
    clean()


def test_what_is_sent_back_may_lapse_and_is_its_writers_still(project: Project) -> None:
    make.review(make.make_review_slot(make.write(make.make_write_slot(project))), "sent_back", reason="Say how often.")
    again = next_of("alice", project)
    assert again is not None
    make.lapse(again)
    assert next_of("bob", project) is None
    assert make.write(again, "Water it less, twice a week.", revises=1).counts
    clean()


def test_who_does_not_mend_what_was_sent_back_leaves_the_prompt_to_another(project: Project) -> None:
    text = make.write(make.make_write_slot(project))
    make.review(make.make_review_slot(text), "sent_back", reason="Say how often.")
    demonstrations.leave(slot=next_of("alice", project), reason="I know no better")
    assert next_of("alice", project) is None
    fresh = next_of("carol", project)
    assert fresh is not None and fresh.work_item.dialogue == text.dialogue
    make.write(fresh, "Twice a week, no more.")
    clean()


def test_an_edit_stands_in_the_place_of_the_text_and_is_reviewed_by_somebody_else(project: Project) -> None:
    text = make.write(make.make_write_slot(project))
    review = make.review(make.make_review_slot(text), "edited", content="Water it less often.")
    edit = review.edit
    assert edit is not None and (edit.supersedes, edit.annotator.username, edit.revision) == (text, "bob", 1)
    assert list(Demonstration.objects.waiting()) == [edit] and edit.edited_from is None
    assert next_of("bob", project, "review") is None
    mine = next_of("alice", project, "review")  # whose own text stands no more
    assert mine is not None and mine.work_item.demonstration == edit
    with pytest.raises(AlreadyReviewed, match="edited this reply"):
        make.write(text.slot, "Another text.", revises=1)
    back = make.review(mine, "edited", content="Water it less often, please.")
    assert (back.edit.supersedes, back.edit.revision, back.edit.annotator.username) == (edit, 2, "alice")
    make.review(make.make_review_slot(back.edit, name="carol"))
    assert list(Demonstration.objects.accepted()) == [back.edit]
    clean()


def test_an_edit_that_is_sent_back_is_its_editors_to_mend(project: Project) -> None:
    text = make.write(make.make_write_slot(project))
    edit = make.review(make.make_review_slot(text), "edited", content="Water it less often.").edit
    make.review(make.make_review_slot(edit, name="carol"), "sent_back", reason="How often?")
    assert next_of("alice", project) is None
    again = next_of("bob", project)
    assert again is not None and make.write(again, "Water it once a week.", revises=1).supersedes == edit
    clean()


def test_a_review_is_corrected_until_the_writer_is_at_it(project: Project) -> None:
    slot = make.make_review_slot(make.write(make.make_write_slot(project)))
    make.review(slot, "sent_back", reason="No.")
    with pytest.raises(AlreadyAnswered):
        make.review(slot)
    make.review(slot, revises=1)
    assert Demonstration.objects.accepted().count() == 1 and next_of("alice", project) is None
    make.review(slot, "sent_back", reason="No, after all.", revises=2)
    assert next_of("alice", project) is not None
    with pytest.raises(AlreadyReviewed, match="at it already"):
        make.review(slot, revises=3)
    clean()


def test_a_late_review_counts_while_its_place_is_free_and_a_late_edit_is_kept_when_it_is_not(project: Project) -> None:
    text = make.write(make.make_write_slot(project))
    slot = make.make_review_slot(text)
    make.lapse(slot)
    other = next_of("carol", project, "review")
    late = make.review(slot, "edited", content="My own words.")
    assert (late.late, late.counts, late.edit.counts, late.edit.supersedes) == (True, False, False, None)
    make.review(other)
    assert list(Demonstration.objects.accepted()) == [text]
    clean()


def test_a_text_its_writer_corrected_while_a_review_lapsed_is_reviewed_no_more(project: Project) -> None:
    writing = make.make_write_slot(project)
    slot = make.make_review_slot(make.write(writing))
    make.lapse(slot)
    make.write(writing, "Water it less, and turn it.", revises=1)
    with pytest.raises(AlreadyReviewed, match="Another text stands"):
        make.review(slot)
    clean()


def test_a_writer_does_not_review_by_way_of_a_demonstrate_slot(project: Project) -> None:
    slot = make.make_write_slot(project)
    make.write(slot)
    with pytest.raises(SlotNotYours):
        make.review(slot)
    assert demonstration_reviews.review_in_force(slot) is None


# The next turn


def test_who_goes_on_says_what_the_person_says_and_answers_it(project: Project) -> None:
    text = make.write(make.make_write_slot(project))
    slot = demonstration_turns.open_next_turn(demonstration=text)
    assert demonstration_turns.open_next_turn(demonstration=text) == slot and slot.annotator == text.annotator
    assert demonstrations.is_to_be_continued(slot)
    with pytest.raises(CandidatesNotReady):
        make.write(slot, "Too early.")
    turn = demonstration_turns.say_next(slot=slot, text="And in winter?", after_position=1)
    assert demonstration_turns.say_next(slot=slot, text="And in winter?", after_position=1) == turn
    with pytest.raises(DialogueMovedOn):
        demonstration_turns.say_next(slot=slot, text="And in spring?", after_position=1)
    second = make.write(slot, "Less still.")
    assert second.position == 2 and [one.content for one in demonstrations.turns_of(slot)] == [
        "Why are my basil leaves yellow?", "Water it less.", "And in winter?",
    ]  # fmt: skip
    repeated = Turn.objects.get(dialogue=second.dialogue, position=1)
    assert (repeated.demonstration, repeated.author) == (text, text.annotator)
    clean()


def test_what_somebody_began_nobody_else_goes_on_with(project: Project) -> None:
    slot = demonstration_turns.open_next_turn(demonstration=make.write(make.make_write_slot(project)))
    make.lapse(slot)
    assert next_of("bob", project) is None and next_of("alice", project) is not None
    demonstrations.leave(slot=next_of("alice", project), reason="enough")
    assert next_of("alice", project) is None
    with pytest.raises(SlotClosed):
        demonstration_turns.say_next(slot=slot, text="And in winter?", after_position=1)
    clean()


def test_a_dialogue_ends_after_the_projects_turns(project: Project) -> None:
    Project.objects.update(max_turns=1)
    with pytest.raises(DialogueEnded, match="all the turns"):
        demonstration_turns.open_next_turn(demonstration=make.write(make.make_write_slot(Project.objects.get())))
    assert Dialogue.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_text_sent_twice_at_once_is_one_row_and_so_are_two_texts(project: Project) -> None:
    slot, key = make.make_write_slot(project), uuid4()
    found = at_once(*[lambda: make.write(slot, submit_key=key) for _ in range(3)])
    assert len({one.pk for one in found}) == 1
    other = make.make_write_slot(project, text="Another?")
    results = at_once(*[lambda text=text: make.write(other, text) for text in ("The one text.", "Some other text.")])
    assert len(raised(results, AlreadyAnswered)) == 1 and Demonstration.objects.count() == 2
    clean()
