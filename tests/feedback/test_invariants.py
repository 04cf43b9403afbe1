"""The checker is silent on a healthy record, and names each thing that must never be."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from feedback import (
    append_only,
    demonstration_turns,
    demonstrations,
    dialogues,
    generation,
    invariants,
    judgements,
    queue,
    rating_checks,
    ratings,
    rule_sets,
    scale_sets,
    slots,
    snapshots,
)
from feedback.models import (
    Candidate,
    Comparison,
    Consent,
    Demonstration,
    DemonstrationReview,
    Dialogue,
    GenerationRequest,
    Probe,
    Project,
    PromptGroup,
    RankEntry,
    Ranking,
    Rating,
    Rule,
    RuleJudgement,
    Slot,
    Snapshot,
    Turn,
    User,
    WorkItem,
)
from feedback.rankings import withdraw_ranking
from tests import make

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def own_data_folder(settings: Any, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path


@pytest.fixture
def record() -> None:
    """A record in which everything has happened once: every phase, late, corrected, undone, skipped, failed."""
    project = make.make_project(answers_per_comparison=2)
    probed_and_judged(project)
    written_and_reviewed(project)
    rated(project)
    chat = make.make_chat(project, name="alice")
    make.make_ranking(chat, ranks={}, all_bad=True)
    make.answer_request(dialogues.ask_for_new_candidates(slot=chat))
    make.make_ranking(chat)
    withdraw_ranking(slot=chat, comparison=Comparison.objects.latest("pk"))
    make.make_ranking(chat)
    make.answer_request(dialogues.send_message(slot=chat, text="And in winter?", after_position=0))
    make.make_ranking(chat)
    dialogues.end_dialogue(slot=chat)
    late = make.make_rank_slot(Comparison.objects.earliest("pk"), name="bob")
    make.lapse(late)
    corrected = make.make_ranking(late)
    make.make_ranking(late, corrected.comparison, revises=1, strength=2)
    slots.skip(make.make_rank_slot(Comparison.objects.all()[1], name="carol"), reason="no")
    failed = queue.claim(GenerationRequest, make.make_request(make.make_dialogue(text="Another?")).pk)
    assert failed is not None
    for index in range(2):
        generation.store_candidate(failed, index=index, text=f"Reply {index}.")
    queue.fail(failed, "The model server is gone.", permanent=True)
    generation.rank_what_is_there(failed)
    own = dialogues.open_own_dialogue(project=project, user=make.make_member(project, "dora"))
    dialogues.send_message(slot=own, text="May I repot it?", after_position=-1)
    dialogues.skip_dialogue(slot=make.make_chat(project, text="A third?"), reason="no")
    snapshots.write_now(snapshots.freeze(project=project, ring=False))
    draft = rule_sets.open_draft(project=project, by=None)
    rule_sets.move_rule(rule=draft.rules.all()[0], steps=1, by=None)
    rule_sets.publish(draft=draft, by=None)


def probed_and_judged(project: Project) -> None:
    """Probes of a plain and a sensitive rule: corrected, judged, taken back, late, skipped, lapsed."""
    Project.objects.filter(pk=project.pk).update(probes_open=True)
    project.refresh_from_db()
    plain, *_, sensitive = make.make_rule_set(project, rules=4, sensitive=1).rules.all()
    for name in ("alice", "bob"):
        make.agree(project, name)
    probe = make.make_probe_slot(plain, replies=2)
    verdict = make.make_verdict(probe, 1)
    make.make_verdict(probe, 2, turn_position=3, revises=1)
    make.make_verdict(make.make_judge_slot(verdict, name="bob"), 5, turn_position=1)
    judgements.withdraw_judgement(slot=Slot.objects.filter(annotator__username="bob", work_item__kind="judge").get())
    late = make.make_judge_slot(verdict, name="carol")
    make.lapse(late)
    make.make_verdict(late, 3)
    slots.skip(make.make_judge_slot(verdict, name="dan"), reason="no")
    make.make_verdict(make.make_probe_slot(sensitive), 5)
    dialogues.skip_dialogue(slot=make.make_probe_slot(plain), reason="no")
    make.lapse(make.make_probe_slot(plain, name="carol"))
    make.make_probe_slot(plain, name="dan")


def written_and_reviewed(project: Project) -> None:
    """Written replies: accepted and gone on from, sent back and mended, edited, taken back, late, waiting."""
    Project.objects.filter(pk=project.pk).update(demonstrations_open=True)
    project.refresh_from_db()
    accepted = make.write(make.make_write_slot(project, text="One?"), "The first reply.")
    make.review(make.make_review_slot(accepted))
    demonstration_turns.say_next(
        slot=demonstration_turns.open_next_turn(demonstration=accepted), text="And?", after_position=1
    )
    sent_back = make.write(make.make_write_slot(project, text="Two?"), "A second one.")
    make.review(make.make_review_slot(sent_back), "sent_back", reason="Say why.")
    again = slots.next_slot(user=make.make_user("alice"), project=project, kind="demonstrate")
    while again is not None and again.work_item.demonstration is None:
        slots.skip(again, reason="another one")
        again = slots.next_slot(user=make.make_user("alice"), project=project, kind="demonstrate")
    assert again is not None
    make.write(again, "The second one, with a why.", revises=1)
    make.review(make.make_review_slot(make.write(make.make_write_slot(project, text="Three?"), "Third.")), "sent_back",
                reason="No.")  # fmt: skip
    edited = make.write(make.make_write_slot(project, text="Four?", name="dan"), "Fourth, with a mistake.")
    make.review(make.make_review_slot(edited), "edited", content="Fourth.")
    taken = make.make_write_slot(project, text="Five?")
    make.write(taken, "Fifth.")
    demonstrations.withdraw_demonstration(slot=taken)
    late = make.make_write_slot(project, text="Six?")
    make.lapse(late)
    make.write(late, "Sixth.")


def rated(project: Project) -> None:
    """Replies rated by each set: settled by an earlier answer, in other words, corrected, taken back, late, skipped."""
    sets = {key: make.make_scale_set(project, key) for key in ("lamda", "instructgpt", "sparrow")}
    replies = make.make_comparison(project, text="Rated?", candidates=4).candidates.all()
    slot = make.make_rate_slot(sets["lamda"], replies[0])
    make.rate(slot, sensible="no")
    make.rate(slot, specific="no", revises=1)
    scale_sets.change_words(scale=sets["lamda"].scales.get(key="harm"), words={"name": "Harm"}, options={}, by=None)
    make.rate(make.make_rate_slot(sets["lamda"], replies[0], name="bob"))
    taken = make.make_rate_slot(sets["instructgpt"], replies[1])
    make.rate(taken)
    ratings.withdraw_ratings(slot=taken)
    late = make.make_rate_slot(sets["sparrow"], replies[2], wanted=1)
    make.lapse(late)
    make.rate(make.make_rate_slot(sets["sparrow"], replies[2], name="bob", wanted=1))
    make.rate(late)
    slots.skip(make.make_rate_slot(sets["sparrow"], replies[3], name="dan"), reason="no")


def test_a_healthy_record_is_clean(record: None) -> None:
    assert list(invariants.violations()) == []


def test_an_empty_record_is_clean() -> None:
    assert list(invariants.violations()) == []


@contextmanager
def unguarded() -> Iterator[None]:
    """Where evidence may be spoiled, for a test."""
    connection.check_constraints()
    with append_only.suspended(connection):
        yield
        connection.check_constraints()


def spoil(rows: Any, **fields: Any) -> None:
    with unguarded():
        assert rows.update(**fields) > 0


# What must never be, by the check that must find it

Plant = Callable[[], object]
PLANTS: list[tuple[str, Plant]] = []


def finds(check: Callable[[], object]) -> Callable[[Plant], Plant]:
    def note(plant: Plant) -> Plant:
        PLANTS.append((check.__name__, plant))
        return plant

    return note


@finds(invariants.slots_within_wanted)
def a_slot_too_many() -> None:
    Slot.objects.create(work_item=WorkItem.objects.filter(kind="rank")[0], number=9)


@finds(invariants.slots_within_wanted)
def a_slot_that_never_came_back() -> None:
    Slot.objects.filter(state="free").delete()


@finds(invariants.rules_continue_an_earlier_version)
def a_rule_that_continues_another() -> None:
    first, second = Rule.objects.filter(rule_set__number=1)[:2]
    draft = rule_sets.open_draft(project=first.rule_set.project, by=None)
    draft.rules.filter(key=first.key).update(continues=second)


@finds(invariants.rules_continue_an_earlier_version)
def a_rule_that_continues_another_projects() -> None:
    stray = make.make_rule_set(make.make_project("elsewhere"), rules=1).rules.get()
    project = Rule.objects.filter(rule_set__number=2)[0].rule_set.project
    rule_sets.open_draft(project=project, by=None).rules.filter(key=stray.key).update(continues=stray)


@finds(invariants.counted_answers_within_wanted)
def more_answers_than_were_wanted() -> None:
    ranking = Ranking.objects.filter(slot__work_item__kind="rank").counted().get()
    other = make.make_user("eve")
    lapsed = Slot.objects.create(
        work_item=ranking.slot.work_item, number=1, state="lapsed", annotator=other, closed_at=timezone.now()
    )
    Ranking.objects.create(
        comparison=ranking.comparison,
        slot=lapsed,
        annotator=other,
        annotator_key=f"u{other.pk}",
        shown_order=ranking.shown_order,
        late=True,
    )


@finds(invariants.counted_answers_within_wanted)
def two_answers_from_one_chat() -> None:
    ranking = Ranking.objects.filter(slot__work_item__kind="chat_and_rank").counted()[0]
    other = make.make_user("eve")
    lapsed = Slot.objects.create(
        work_item=ranking.slot.work_item, number=1, state="lapsed", annotator=other, closed_at=timezone.now()
    )
    Ranking.objects.create(
        comparison=ranking.comparison,
        slot=lapsed,
        annotator=other,
        annotator_key=f"u{other.pk}",
        shown_order=ranking.shown_order,
    )


@finds(invariants.one_answer_in_force)
@finds(invariants.answers_are_their_holders)
def an_answer_under_two_names() -> None:
    ranking = Ranking.objects.counted().filter(slot__work_item__kind="chat_and_rank")[0]
    Ranking.objects.create(
        comparison=ranking.comparison,
        slot=ranking.slot,
        annotator=ranking.annotator,
        annotator_key="somebody",
        shown_order=ranking.shown_order,
    )


@finds(invariants.answers_are_their_holders)
def an_answer_in_another_persons_slot() -> None:
    spoil(Ranking.objects.filter(slot__work_item__kind="rank"), slot=Slot.objects.get(annotator__username="dora"))


@finds(invariants.nobody_ranks_their_own)
def the_author_ranked_their_own() -> None:
    Dialogue.objects.filter(comparisons__rankings__slot__work_item__kind="rank").update(
        author=User.objects.get(username="bob")
    )


@finds(invariants.nobody_ranks_their_own)
def somebody_who_had_the_dialogue_ranked_in_it() -> None:
    chat = WorkItem.objects.filter(kind="chat_and_rank").earliest("pk")
    Slot.objects.create(
        work_item=chat,
        number=1,
        state="lapsed",
        annotator=User.objects.get(username="bob"),
        closed_at=timezone.now(),
    )


def done() -> Any:
    return GenerationRequest.objects.filter(state="done")


@finds(invariants.requests_end_with_candidates_or_reason)
def fewer_candidates_without_a_reason() -> None:
    done().update(wanted=9)


@finds(invariants.requests_end_with_candidates_or_reason)
def more_candidates_than_wanted() -> None:
    done().update(wanted=3)


@finds(invariants.requests_end_with_candidates_or_reason)
def done_without_a_question() -> None:
    comparison = make.make_comparison(text="Which one?")
    comparison.candidates.update(comparison=None)
    comparison.delete()


@finds(invariants.new_replies_were_asked_for)
def new_replies_that_nobody_asked_for() -> None:
    spoil(Ranking.objects.filter(all_bad=True), all_bad=False)


@finds(invariants.candidates_are_of_their_comparison)
def a_candidate_of_another_dialogue() -> None:
    Candidate.objects.filter(pk=Candidate.objects.latest("pk").pk).update(dialogue=Dialogue.objects.earliest("pk"))


@finds(invariants.candidates_are_of_their_comparison)
def a_candidate_of_another_turn() -> None:
    Candidate.objects.filter(pk=Candidate.objects.latest("pk").pk).update(after_position=7)


@finds(invariants.candidates_are_of_their_comparison)
def a_candidate_of_another_request() -> None:
    Candidate.objects.filter(pk=Candidate.objects.latest("pk").pk).update(request=None)


@finds(invariants.comparisons_have_candidates)
def a_question_without_replies() -> None:
    Comparison.objects.create(dialogue=Dialogue.objects.earliest("pk"), after_position=0)


@finds(invariants.rankings_rank_what_was_shown)
def a_place_for_a_reply_that_was_not_asked_about() -> None:
    entry = RankEntry.objects.earliest("pk")
    foreign = Candidate.objects.exclude(comparison=entry.ranking.comparison).latest("pk")
    spoil(RankEntry.objects.filter(pk=entry.pk), candidate=foreign)


@finds(invariants.rankings_rank_what_was_shown)
def an_order_without_one_of_the_replies() -> None:
    ranking = Ranking.objects.latest("pk")
    spoil(Ranking.objects.filter(pk=ranking.pk), shown_order=ranking.shown_order[1:])


@finds(invariants.rankings_rank_what_was_shown)
def an_order_with_a_reply_twice() -> None:
    ranking = Ranking.objects.latest("pk")
    spoil(Ranking.objects.filter(pk=ranking.pk), shown_order=[*ranking.shown_order[1:], ranking.shown_order[1]])


@finds(invariants.openings_lie_on_one_side)
def an_opening_on_two_sides() -> None:
    prompt = make.make_prompt(make.make_project())
    twin = make.make_prompt(make.make_project(), "Quite another question?")
    prompt.project.prompts.filter(pk=twin.pk).update(fingerprint=prompt.fingerprint)
    PromptGroup.objects.filter(pk=twin.group_id).update(split="test")


@finds(invariants.turns_have_no_gaps)
def a_dialogue_with_a_gap() -> None:
    Turn.objects.create(dialogue=Dialogue.objects.latest("pk"), position=7, role="user", content="Hello?")


@finds(invariants.turns_have_no_gaps)
def a_dialogue_without_a_beginning() -> None:
    Turn.objects.filter(dialogue=Dialogue.objects.latest("pk")).update(position=1)


def chosen() -> Any:
    return Turn.objects.filter(candidate__isnull=False)


@finds(invariants.dialogues_go_on_from_replies_to_them)
def a_chosen_reply_in_other_words() -> None:
    chosen().update(content="What it never said.")


@finds(invariants.dialogues_go_on_from_replies_to_them)
def a_chosen_reply_to_another_dialogue() -> None:
    other = Candidate.objects.exclude(dialogue=chosen()[0].dialogue).latest("pk")
    chosen().filter(pk=chosen()[0].pk).update(candidate=other)


@finds(invariants.dialogues_go_on_from_replies_to_them)
def a_chosen_reply_to_a_later_turn() -> None:
    turn = chosen().earliest("pk")
    later = Candidate.objects.filter(dialogue=turn.dialogue, after_position__gt=turn.position).latest("pk")
    Turn.objects.filter(pk=turn.pk).update(candidate=later)


@finds(invariants.ended_dialogues_ask_nothing)
def replies_made_for_an_ended_dialogue() -> None:
    request = GenerationRequest.objects.filter(state="queued").latest("pk")
    Slot.objects.filter(work_item__dialogue=request.dialogue).update(state="filled", closed_at=timezone.now())
    Dialogue.objects.filter(pk=request.dialogue_id).update(ended_at=timezone.now())


@finds(invariants.ended_dialogues_ask_nothing)
def an_ended_dialogue_that_somebody_holds() -> None:
    held = Slot.objects.get(state="held", work_item__kind="chat_and_rank")
    generation.cancel_requests(held.work_item.dialogue_id, because="It ended.")
    Dialogue.objects.filter(pk=held.work_item.dialogue_id).update(ended_at=timezone.now())


@finds(invariants.ended_dialogues_ask_nothing)
def an_ended_dialogue_that_is_offered() -> None:
    item = dialogues.open_dialogue(project=make.make_project())
    Dialogue.objects.filter(pk=item.dialogue_id).update(ended_at=timezone.now())


@finds(invariants.queued_work_is_owned_or_due)
def work_whose_worker_died_long_ago() -> None:
    request = queue.claim(GenerationRequest, make.make_request(make.make_dialogue(text="Who?")).pk)
    assert request is not None
    GenerationRequest.objects.filter(pk=request.pk).update(lease_until=timezone.now() - timedelta(minutes=11))


@finds(invariants.queued_work_is_owned_or_due)
def work_that_waits_for_next_year() -> None:
    make.make_request(make.make_dialogue(text="When?"), due_at=timezone.now() + timedelta(days=365))


@finds(invariants.requests_end_with_candidates_or_reason)
def a_single_reply_that_was_never_said() -> None:
    turn = Turn.objects.filter(dialogue__kind="probe", role="assistant").latest("pk")
    Turn.objects.filter(pk=turn.pk).update(candidate=None)


@finds(invariants.ended_dialogues_ask_nothing)
def an_ended_probe_that_somebody_holds() -> None:
    held = Slot.objects.get(state="held", work_item__kind="probe")
    Dialogue.objects.filter(pk=held.work_item.dialogue_id).update(ended_at=timezone.now())


def of_judges() -> Any:
    """Carol's, which came late."""
    return RuleJudgement.objects.filter(by_prober=False, late=True)


@finds(invariants.judgements_are_their_holders)
def a_verdict_in_another_persons_slot() -> None:
    spoil(of_judges(), annotator=make.make_user("eve"))


@finds(invariants.judgements_are_their_holders)
def a_verdict_under_another_name() -> None:
    spoil(of_judges(), annotator_key="u999")


@finds(invariants.judgements_are_their_holders)
def a_verdict_on_what_the_slot_does_not_ask() -> None:
    spoil(of_judges(), rule=Rule.objects.order_by("position")[2])


@finds(invariants.judgements_are_their_holders)
def a_judges_verdict_called_the_probers() -> None:
    spoil(of_judges(), by_prober=True)


@finds(invariants.nobody_judges_their_own_probe)
def a_verdict_on_ones_own_probe() -> None:
    judge = of_judges()[0]
    Dialogue.objects.filter(pk=judge.dialogue_id).update(author=judge.annotator)


@finds(invariants.nobody_judges_their_own_probe)
def a_verdict_of_somebody_who_wrote_in_the_probe() -> None:
    judge = of_judges()[0]
    item = WorkItem.objects.get(kind="probe", dialogue=judge.dialogue)
    Slot.objects.create(work_item=item, number=1, state="lapsed", annotator=judge.annotator, closed_at=timezone.now())


@finds(invariants.counted_judgements_within_wanted)
def more_verdicts_than_were_wanted() -> None:
    judge = of_judges()[0]
    WorkItem.objects.filter(pk=judge.slot.work_item_id).update(wanted=1)
    for name in ("eve", "finn"):
        user = make.make_user(name)
        lapsed = Slot.objects.create(
            work_item=judge.slot.work_item, number=1, state="lapsed", annotator=user, closed_at=timezone.now()
        )
        RuleJudgement.objects.create(
            dialogue=judge.dialogue, rule=judge.rule, verdict=3, slot=lapsed, annotator=user,
            annotator_key=f"u{user.pk}", late=True,
        )  # fmt: skip


@finds(invariants.one_judgement_in_force)
def one_person_with_two_verdicts_in_force() -> None:
    judge = of_judges()[0]
    RuleJudgement.objects.create(
        dialogue=judge.dialogue, rule=judge.rule, verdict=3, slot=judge.slot, annotator=judge.annotator,
        annotator_key="u999",
    )  # fmt: skip


@finds(invariants.scores_are_of_judged_dialogues)
def a_score_by_a_policy() -> None:
    probe = Probe.objects.all()[0]
    make.make_rule_score(probe, model_version=probe.dialogue.project.policy)


@finds(invariants.scores_are_of_judged_dialogues)
def a_score_by_another_projects_rule_model() -> None:
    make.make_rule_score(Probe.objects.all()[0], model_version=make.make_model(make.make_project("orchard"), "rule"))


@finds(invariants.probes_name_a_published_rule)
def a_probe_of_no_rule() -> None:
    Dialogue.objects.create(project=make.make_project(), kind="probe")


@finds(invariants.probes_name_a_published_rule)
def a_rule_of_a_dialogue_that_is_no_probe() -> None:
    Probe.objects.create(dialogue=Dialogue.objects.filter(kind="preference")[0], rule=Rule.objects.all()[0])


@finds(invariants.probes_name_a_published_rule)
def a_probe_of_a_rule_that_is_a_draft() -> None:
    draft = make.make_rule_set(make.make_project(), published=False)
    make.make_probe(draft.rules.all()[0], name="eve")


@finds(invariants.probes_name_a_published_rule)
def a_verdict_by_a_rule_that_is_a_draft() -> None:
    draft = make.make_rule_set(make.make_project(), published=False)
    spoil(of_judges(), rule=draft.rules.all()[0])


@finds(invariants.verdicts_mark_what_the_model_said)
def a_mark_on_what_a_person_wrote() -> None:
    spoil(RuleJudgement.objects.filter(turn_position=3), turn_position=2)


@finds(invariants.verdicts_mark_what_the_model_said)
def a_rule_that_was_broken_nowhere() -> None:
    spoil(RuleJudgement.objects.filter(by_prober=True, verdict=1), turn_position=None)


@finds(invariants.sensitive_text_was_agreed_to)
def a_sensitive_probe_of_somebody_who_was_not_asked() -> None:
    with unguarded():
        Consent.objects.filter(user__username="alice").delete()


@finds(rating_checks.ratings_are_their_holders)
def a_rating_under_another_name() -> None:
    make.make_rating(annotator_key="u0")


@finds(rating_checks.ratings_are_their_holders)
def a_rating_of_another_reply() -> None:
    make.make_rating(candidate=make.make_comparison(text="Another?").candidates.all()[0])


@finds(rating_checks.ratings_are_sent_whole)
def one_answer_of_seven() -> None:
    make.make_rating()


@finds(rating_checks.ratings_have_a_value_of_their_scale)
def an_answer_that_the_question_does_not_have() -> None:
    make.make_rating(value="perhaps")


@finds(rating_checks.ratings_follow_from_earlier_ones)
def an_answer_to_what_was_not_asked() -> None:
    slot = make.make_rate_slot()
    rows = make.rate(slot, sensible="no")
    with append_only.suspended(connection):
        Rating.objects.filter(pk=rows[1].pk).update(value="yes")


@finds(rating_checks.ratings_follow_from_earlier_ones)
def an_implied_answer_to_what_was_asked() -> None:
    rows = make.rate()
    with append_only.suspended(connection):
        Rating.objects.filter(pk=rows[1].pk).update(implied=True)


@finds(rating_checks.counted_ratings_within_wanted)
def more_ratings_than_were_wanted() -> None:
    slot = make.make_rate_slot(wanted=2)
    make.rate(slot)
    make.rate(make.make_rate_slot(slot.work_item.scale_set, slot.work_item.candidate, name="bob"))
    WorkItem.objects.filter(pk=slot.work_item_id).update(wanted=1)


@finds(invariants.demonstrations_are_their_holders)
def a_demonstration_under_another_name() -> None:
    spoil(Demonstration.objects.filter(content="Third."), annotator_key="u999")


@finds(invariants.demonstrations_are_their_holders)
def a_demonstration_that_answers_nobody() -> None:
    spoil(Demonstration.objects.filter(content="Third."), position=7)


@finds(invariants.demonstrations_supersede_in_place)
def a_demonstration_in_the_place_of_another_ones() -> None:
    other = Demonstration.objects.get(content="Sixth.")
    spoil(Demonstration.objects.filter(content="Third."), supersedes=other)


@finds(invariants.demonstrations_supersede_in_place)
def an_edit_that_no_review_made() -> None:
    spoil(DemonstrationReview.objects.filter(verdict="edited"), verdict="accepted", edit=None)


@finds(invariants.one_demonstration_in_force)
def one_person_with_two_demonstrations_in_force() -> None:
    text = Demonstration.objects.get(content="Third.")
    values = {"slot": text.slot, "annotator": text.annotator, "annotator_key": "u999", "position": 0}
    Demonstration.objects.create(dialogue=text.dialogue, content="Another.", fingerprint="0", **values)


@finds(invariants.counted_demonstrations_within_wanted)
def more_demonstrations_than_were_wanted() -> None:
    text = Demonstration.objects.get(content="Sixth.")
    with unguarded():
        WorkItem.objects.filter(dialogue=text.dialogue).update(wanted=1)
        values = {"slot": text.slot, "annotator": make.make_user("eve"), "annotator_key": "u999", "position": 0}
        Demonstration.objects.create(dialogue=text.dialogue, content="Another.", fingerprint="0", **values)


@finds(invariants.demonstrations_are_asked_about)
def a_demonstration_that_nobody_is_asked_to_review() -> None:
    WorkItem.objects.filter(kind="review", demonstration__content="Sixth.").update(closed_at=timezone.now())


@finds(invariants.demonstrations_are_asked_about)
def a_demonstration_sent_back_to_nobody() -> None:
    item = WorkItem.objects.get(kind="demonstrate", demonstration__content="Third.")
    item.slots.all().delete()
    item.delete()


@finds(invariants.reviews_are_their_holders)
def a_review_under_another_name() -> None:
    spoil(DemonstrationReview.objects.filter(verdict="accepted"), annotator_key="u999")


@finds(invariants.reviews_are_their_holders)
def two_reviews_that_count() -> None:
    first = DemonstrationReview.objects.filter(verdict="accepted")[0]
    DemonstrationReview.objects.create(
        demonstration=first.demonstration, verdict="accepted", slot=first.slot, annotator=first.annotator,
        annotator_key="u999",
    )  # fmt: skip


@finds(invariants.nobody_reviews_their_own)
def a_review_of_ones_own_text() -> None:
    review = DemonstrationReview.objects.filter(verdict="accepted")[0]
    spoil(DemonstrationReview.objects.filter(pk=review.pk), annotator=review.demonstration.annotator)


@finds(invariants.dialogues_go_on_from_demonstrations)
def a_turn_that_says_something_else_than_the_demonstration() -> None:
    Turn.objects.filter(demonstration__isnull=False).update(content="Something else.")


@finds(invariants.snapshots_match_their_manifest)
def a_snapshot_whose_file_was_changed() -> None:
    written = next(path for path in snapshots.folder_of(Snapshot.objects.get()).rglob("*.jsonl") if path.stat().st_size)
    written.chmod(0o600)
    written.write_text(written.read_text() + "\n")


@finds(invariants.snapshots_match_their_manifest)
def a_snapshot_whose_file_is_gone() -> None:
    written = next(snapshots.folder_of(Snapshot.objects.get()).rglob("*.jsonl"))
    written.parent.chmod(0o700)
    written.unlink()


@pytest.mark.parametrize(("check", "plant"), PLANTS, ids=[plant.__name__ for _, plant in PLANTS])
def test_the_checker_finds(record: None, check: str, plant: Plant) -> None:
    """`the checker finds a slot too many`, and so on, and says which row it is."""
    plant()
    found = {violation.check: violation for violation in invariants.violations()}
    assert check.replace("_", " ") in found
    violation = found[check.replace("_", " ")]
    assert violation.target.split()[-1].isdigit() and violation.found
    assert str(violation) == f"{violation.check}: {violation.target}: {violation.found}"


def test_every_check_is_known_to_find_something() -> None:
    ours = {
        check.__name__
        for check in invariants.CHECKS
        if check.__module__ in {"feedback.invariants", "feedback.rating_checks"}
    }
    assert ours == {check for check, _ in PLANTS}


def test_looking_changes_nothing_and_asks_a_bounded_number_of_questions(
    record: None, django_assert_max_num_queries: Any
) -> None:
    with django_assert_max_num_queries(71):
        list(invariants.violations())


# The command


def test_the_command_says_that_all_is_well(record: None, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    call_command("check_invariants", json=str(tmp_path / "found.json"))
    assert f"{len(invariants.CHECKS)} checks, no violations." in capsys.readouterr().out
    assert json.loads((tmp_path / "found.json").read_text()) == {"checks": len(invariants.CHECKS), "violations": []}


def test_the_command_fails_with_the_ids(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    make.make_rank_work()
    a_slot_too_many()
    with pytest.raises(CommandError) as failure:
        call_command("check_invariants", json=str(tmp_path / "found.json"))
    item = WorkItem.objects.get()
    assert failure.value.returncode == 1
    assert f"slots within wanted: work item {item.pk}: 3 live slots for 2 wanted" in capsys.readouterr().err
    (row,) = json.loads((tmp_path / "found.json").read_text())["violations"]
    assert row["target"] == f"work item {item.pk}"


# Neighbours


def test_a_neighbours_check_is_asked_too_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invariants, "CHECKS", [])

    def nothing_is_ever_wrong() -> Iterator[tuple[str, str]]:
        yield "model 1", "was wrong all the same"

    invariants.register(nothing_is_ever_wrong)
    assert invariants.register(nothing_is_ever_wrong) is nothing_is_ever_wrong
    (violation,) = invariants.violations()
    assert violation.check == "nothing is ever wrong"
