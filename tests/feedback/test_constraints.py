"""What the database itself refuses in the record, whoever asks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from feedback.models import (
    Candidate,
    Comparison,
    Demonstration,
    DemonstrationReview,
    Dialogue,
    Draft,
    GenerationRequest,
    Import,
    Membership,
    ModelVersion,
    Probe,
    Project,
    Prompt,
    PromptGroup,
    RankEntry,
    Ranking,
    Rating,
    RuleJudgement,
    RuleSet,
    Scale,
    ScaleSet,
    Slot,
    Snapshot,
    Turn,
    User,
    WorkItem,
)
from tests import make
from tests.constraints import Deed, Deeds, assert_refused

pytestmark = pytest.mark.django_db
deeds = Deeds("feedback")
breaks = deeds.breaks


def test_every_constraint_has_a_test() -> None:
    assert set(deeds.by_name) == set(deeds.columns_by_name())


# Projects, members, prompts


@breaks("feedback_project.slug")
def two_projects_of_one_slug() -> None:
    make.make_project()
    Project.objects.create(slug="plant-desk", name="Another")


@breaks("one_to_sixteen_draws_per_reply")
def no_draw_per_reply() -> None:
    make.make_project(draws_per_reply=0)


@breaks("one_to_sixteen_draws_per_reply")
def seventeen_draws_per_reply() -> None:
    make.make_project(draws_per_reply=17)


@breaks("one_to_sixteen_draws_for_each")
def a_request_without_draws() -> None:
    make.make_request(draws=0)


@breaks("no_more_search_than_are_wanted")
def a_request_of_which_more_search_than_are_wanted() -> None:
    make.make_request(wanted=2, searching=3)


@breaks("evidence_is_sought_somewhere_known")
def evidence_from_nobody_knows_where() -> None:
    make.make_project(evidence="psychic")


@breaks("two_to_nine_candidates")
def one_candidate_per_turn() -> None:
    make.make_project(candidates_per_turn=1)


@breaks("two_to_nine_candidates")
def ten_candidates_per_turn() -> None:
    make.make_project(candidates_per_turn=10)


@breaks("a_comparison_wants_an_answer")
def a_comparison_that_wants_none() -> None:
    make.make_project(answers_per_comparison=0)


@breaks("temperature_is_not_negative")
def a_negative_temperature() -> None:
    make.make_project(temperature=-0.1)


@breaks("one_membership_per_person")
def a_second_membership() -> None:
    member = make.make_member(make.make_project())
    Membership.objects.create(project=make.make_project(), user=member, role="manager")


@breaks("feedback_user.username")
def two_people_of_one_name() -> None:
    make.make_user("alice")
    User.objects.create(username="alice")


@breaks("one_group_per_key")
def a_group_twice() -> None:
    prompt = make.make_prompt(make.make_project())
    PromptGroup.objects.create(project=prompt.project, key=prompt.group.key, split="test")


@breaks("split_is_known")
def a_split_of_another_name() -> None:
    PromptGroup.objects.create(project=make.make_project(), key="g", split="dev")


@breaks("a_prompt_is_stored_once")
def a_prompt_twice() -> None:
    prompt = make.make_prompt(make.make_project())
    other = PromptGroup.objects.create(project=prompt.project, key="other", split="train")
    Prompt.objects.create(
        project=prompt.project, group=other, messages=[], fingerprint="f", content_hash=prompt.content_hash
    )


# Models


@breaks("one_model_per_number")
def a_model_number_twice() -> None:
    project = make.make_project()
    make.make_model(project, number=1)


@breaks("a_served_model_has_an_endpoint")
def a_served_model_without_an_endpoint() -> None:
    make.make_model(make.make_project(), backend="openai", endpoint="")


@breaks("model_kind_state_backend_are_known")
def a_model_of_another_kind() -> None:
    make.make_model(make.make_project(), kind="critic")


@breaks("model_kind_state_backend_are_known")
def a_model_in_another_state() -> None:
    make.make_model(make.make_project(), state="serving")


@breaks("model_kind_state_backend_are_known")
def a_model_of_another_backend() -> None:
    make.make_model(make.make_project(), backend="pickle")


# Dialogues


@breaks("imported_dialogues_name_their_import")
def an_imported_dialogue_without_its_import() -> None:
    make.make_dialogue(kind="imported")


@breaks("imported_dialogues_name_their_import")
def a_dialogue_of_ours_that_names_an_import() -> None:
    make.make_dialogue(source_import=an_import())


@breaks("one_turn_per_position")
def two_turns_in_one_place() -> None:
    Turn.objects.create(dialogue=make.make_dialogue(), position=0, role="user", content="Me too.")


@breaks("role_is_known")
def a_turn_by_another_speaker() -> None:
    Turn.objects.create(dialogue=make.make_dialogue(), position=1, role="narrator", content="Meanwhile")


def an_import(**fields: Any) -> Import:
    return Import.objects.create(
        **{"project": make.make_project(), "format": "hh-rlhf", "file_name": "a.jsonl", "sha256": "a" * 64} | fields
    )


@breaks("a_file_is_imported_once")
def a_file_twice() -> None:
    an_import()
    an_import(file_name="b.jsonl")


# Replies


@breaks("one_request_per_turn_and_redo")
def the_same_replies_asked_for_twice() -> None:
    request = make.make_request()
    GenerationRequest.objects.create(
        dialogue=request.dialogue, after_position=0, model_version=request.model_version, wanted=4
    )


@breaks("one_to_nine_are_wanted")
def no_reply_wanted() -> None:
    make.make_request(wanted=0)


@breaks("one_to_nine_are_wanted")
def ten_replies_wanted() -> None:
    make.make_request(wanted=10)


def a_candidate(**fields: Any) -> Candidate:
    fields.setdefault("dialogue", fields["request"].dialogue if "request" in fields else make.make_dialogue())
    return Candidate.objects.create(**{"after_position": 0, "index": 0, "turns": []} | fields)


@breaks("one_candidate_per_index")
def two_candidates_of_one_index() -> None:
    request = make.make_request()
    for _ in range(2):
        a_candidate(request=request, model_version=request.model_version)


@breaks("one_candidate_per_place_in_comparison")
def two_candidates_in_one_place() -> None:
    comparison = make.make_comparison()
    a_candidate(dialogue=comparison.dialogue, comparison=comparison)


@breaks("made_replies_name_their_maker")
def a_made_reply_without_its_maker() -> None:
    a_candidate(request=make.make_request())


@breaks("feedback_comparison.request_id")
def two_comparisons_of_one_request() -> None:
    comparison = make.make_comparison()
    Comparison.objects.create(dialogue=comparison.dialogue, after_position=0, request=comparison.request)


# Rankings


def a_ranking(**fields: Any) -> Ranking:
    """A row as no verb of ours would store it."""
    slot = fields.pop("slot", None) or make.make_rank_slot()
    row = {
        "comparison": slot.work_item.comparison,
        "slot": slot,
        "annotator": slot.annotator,
        "annotator_key": f"u{slot.annotator_id}",
    }
    return Ranking.objects.create(**row | fields)


@breaks("one_ranking_per_revision")
def a_revision_twice() -> None:
    slot = make.make_rank_slot()
    a_ranking(slot=slot)
    a_ranking(slot=slot)


@breaks("a_ranking_comes_from_a_slot_or_an_import")
def a_ranking_from_nowhere() -> None:
    Ranking.objects.create(comparison=make.make_comparison(), annotator_key="u1")


@breaks("a_ranking_comes_from_a_slot_or_an_import")
def a_ranking_from_a_slot_and_an_import() -> None:
    a_ranking(source_import=an_import())


@breaks("a_ranking_comes_from_a_slot_or_an_import")
def a_ranking_from_a_slot_by_nobody() -> None:
    a_ranking(annotator=None)


@breaks("a_ranking_comes_from_a_slot_or_an_import")
def an_imported_ranking_by_a_person_here() -> None:
    Ranking.objects.create(
        comparison=make.make_comparison(),
        annotator=make.make_user(),
        annotator_key="w7",
        source_import=an_import(),
    )


@breaks("revisions_start_at_one")
def revision_zero() -> None:
    a_ranking(revision=0)


@breaks("strength_is_one_to_four")
def a_strength_of_zero() -> None:
    a_ranking(strength=0)


@breaks("strength_is_one_to_four")
def a_strength_of_five() -> None:
    a_ranking(strength=5)


@breaks("ranking_seconds_are_not_negative")
def negative_seconds() -> None:
    a_ranking(seconds=-1.0)


@breaks("only_late_answers_may_not_count")
def an_answer_in_time_that_does_not_count() -> None:
    a_ranking(counts=False)


@breaks("feedback_ranking.submit_key")
def a_submit_key_twice() -> None:
    slot, key = make.make_rank_slot(), uuid4()
    a_ranking(slot=slot, submit_key=key)
    a_ranking(slot=slot, submit_key=key, revision=2)


@breaks("one_place_per_candidate")
def a_candidate_in_two_places() -> None:
    ranking = make.make_ranking()
    RankEntry.objects.create(ranking=ranking, candidate=ranking.comparison.candidates.all()[0], rank=2)


@breaks("rank_starts_at_one")
def rank_zero() -> None:
    ranking = a_ranking()
    RankEntry.objects.create(ranking=ranking, candidate=ranking.comparison.candidates.all()[0], rank=0)


# Work


def a_work_item(**fields: Any) -> WorkItem:
    return WorkItem.objects.create(**{"project": make.make_project(), "kind": "rate"} | fields)


@breaks("a_work_item_is_about_one_thing")
def work_about_nothing() -> None:
    a_work_item()


@breaks("a_work_item_is_about_one_thing")
def work_about_two_things() -> None:
    comparison = make.make_comparison()
    a_work_item(comparison=comparison, dialogue=comparison.dialogue)


@breaks("a_work_item_is_about_one_thing")
def work_about_a_prompt_and_a_candidate() -> None:
    comparison = make.make_comparison()
    a_work_item(prompt=comparison.dialogue.prompt, candidate=comparison.candidates.all()[0])


@breaks("chat_and_rank_is_one_persons_dialogue")
def a_chat_about_a_prompt() -> None:
    a_work_item(kind="chat_and_rank", prompt=make.make_prompt(make.make_project()))


@breaks("chat_and_rank_is_one_persons_dialogue")
def a_chat_for_two() -> None:
    a_work_item(kind="chat_and_rank", dialogue=make.make_dialogue(), wanted=2)


@breaks("rank_is_about_a_comparison")
def a_dialogue_to_rank() -> None:
    a_work_item(kind="rank", dialogue=make.make_dialogue())


@breaks("a_work_item_wants_an_answer")
def work_that_wants_no_answer() -> None:
    a_work_item(kind="rank", comparison=make.make_comparison(), wanted=0)


@breaks("added_answers_are_wanted")
def more_answers_added_than_are_wanted() -> None:
    a_work_item(kind="rank", comparison=make.make_comparison(), wanted=1, added=2)


@breaks("one_work_item_per_comparison_and_kind")
def a_comparison_queued_twice() -> None:
    item = make.make_rank_work()
    a_work_item(kind="rank", comparison=item.comparison)


@breaks("one_work_item_per_dialogue_and_kind")
def a_dialogue_queued_twice() -> None:
    slot = make.make_chat()
    a_work_item(kind="chat_and_rank", dialogue=slot.work_item.dialogue)


HELD = {"state": "held", "lease_until": timezone.now(), "lease_token": uuid4()}
CLOSED = {"closed_at": timezone.now()}


def a_slot(item: WorkItem | None = None, **fields: Any) -> Slot:
    return Slot.objects.create(**{"work_item": item or make.make_rank_work(), "number": 9} | fields)


@breaks("one_live_slot_per_number")
def two_free_slots_of_one_number() -> None:
    a_slot(number=1)


@breaks("one_live_slot_per_number")
def a_free_slot_beside_a_filled_one() -> None:
    item = make.make_rank_work()
    a_slot(item, state="filled", annotator=make.make_user(), **CLOSED)
    a_slot(item)


@breaks("one_live_slot_per_annotator")
def two_slots_held_by_one_person() -> None:
    slot = make.make_rank_slot()
    a_slot(slot.work_item, annotator=slot.annotator, **HELD)


@breaks("one_live_slot_per_annotator")
def a_slot_held_by_whoever_answered() -> None:
    item, alice = make.make_rank_work(), make.make_user()
    a_slot(item, state="filled", annotator=alice, **CLOSED)
    a_slot(item, number=10, annotator=alice, **HELD)


@breaks("a_slot_is_free_or_somebodys")
def a_free_slot_with_an_annotator() -> None:
    a_slot(annotator=make.make_user())


@breaks("a_slot_is_free_or_somebodys")
def a_held_slot_without_a_lease() -> None:
    a_slot(state="held", annotator=make.make_user())


@breaks("a_slot_is_free_or_somebodys")
def a_slot_held_by_nobody() -> None:
    a_slot(**HELD)


@breaks("a_slot_is_free_or_somebodys")
def a_slot_filled_at_no_time() -> None:
    a_slot(state="filled", annotator=make.make_user())


@breaks("a_slot_is_free_or_somebodys")
def a_slot_lapsed_under_nobody() -> None:
    a_slot(state="lapsed", **CLOSED)


@breaks("a_slot_is_free_or_somebodys")
def a_slot_in_another_state() -> None:
    a_slot(state="lost", annotator=make.make_user(), **CLOSED)


@breaks("slot_numbers_start_at_one")
def slot_zero() -> None:
    a_slot(number=0)


@breaks("feedback_draft.slot_id")
def two_drafts_of_one_slot() -> None:
    slot = make.make_rank_slot()
    Draft.objects.create(slot=slot)
    Draft.objects.create(slot=slot)


# Queued work


def a_snapshot(**fields: Any) -> Snapshot:
    return Snapshot.objects.create(**{"project": make.make_project()} | fields)


LEASED = {"lease_token": uuid4(), "lease_until": timezone.now()}
WRONG_QUEUED_WORK: list[tuple[str, str, dict[str, Any]]] = [
    ("is_leased_exactly_while_running", "running_without_a_lease", {"state": "running"}),
    ("is_leased_exactly_while_running", "running_without_an_end", {"state": "running", "lease_token": uuid4()}),
    ("is_leased_exactly_while_running", "waiting_under_a_lease", {"state": "queued", **LEASED}),
    ("is_leased_exactly_while_running", "done_under_a_lease", {"state": "done", "sha256": "s", **LEASED}),
    ("fails_only_with_a_reason", "failed_without_a_reason", {"state": "failed", "error": ""}),
    ("progress_is_a_fraction", "negative_progress", {"progress": -0.1}),
    ("progress_is_a_fraction", "too_much_progress", {"progress": 1.1}),
    ("state_is_known", "another_state", {"state": "paused"}),
]


def refuse_queued_work(prefix: str, build: Any, drop: tuple[str, ...] = ()) -> None:
    """The same deeds for every kind of queued work."""
    for name, what, fields in WRONG_QUEUED_WORK:
        wrong = {key: value for key, value in fields.items() if key not in drop}
        deed = lambda wrong=wrong: build(**wrong)  # noqa: E731 - it gets its name below
        deed.__name__ = what
        breaks(f"{prefix}_{name}")(deed)


refuse_queued_work("generationrequest", make.make_request, drop=("sha256",))
refuse_queued_work("snapshot", a_snapshot)


@breaks("a_written_snapshot_has_its_hash")
def a_written_snapshot_without_its_hash() -> None:
    a_snapshot(state="done")


# Rules, probes, judgements


def a_rule_set(**fields: Any) -> RuleSet:
    project = fields.pop("project", None) or make.make_project()
    return RuleSet.objects.create(**{"project": project, "number": 1} | fields)


def publish(rule_set: RuleSet, **fields: Any) -> None:
    RuleSet.objects.filter(pk=rule_set.pk).update(**{"state": "published", "published_at": timezone.now()} | fields)


def again(judgement: RuleJudgement, **fields: Any) -> RuleJudgement:
    """The same judgement once more, as a revision unless the fields say otherwise."""
    values = {"revision": judgement.revision + 1, "submit_key": None} | fields
    for name, value in values.items():
        setattr(judgement, name, value)
    judgement.pk = None
    judgement.save(force_insert=True)
    return judgement


@breaks("one_to_nine_replies_per_probe_turn")
def ten_replies_per_probe_turn() -> None:
    make.make_project(replies_per_probe_turn=10)


@breaks("one_rule_set_per_number")
def two_rule_sets_of_one_number() -> None:
    publish(a_rule_set())
    a_rule_set()


@breaks("one_draft_per_project")
def two_drafts() -> None:
    a_rule_set()
    a_rule_set(number=2)


@breaks("one_published_rule_set_per_project")
def two_published_rule_sets() -> None:
    publish(a_rule_set())
    publish(a_rule_set(number=2))


@breaks("a_rule_set_says_since_when")
def a_published_rule_set_of_no_date() -> None:
    publish(a_rule_set(), published_at=None)


@breaks("a_rule_set_says_since_when")
def a_draft_that_ended() -> None:
    a_rule_set(retired_at=timezone.now())


@breaks("rule_sets_start_at_one")
def rule_set_zero() -> None:
    a_rule_set(number=0)


@breaks("one_rule_per_key")
def two_rules_of_one_key() -> None:
    rule_set = a_rule_set()
    make.make_rule(rule_set, key="kind")
    make.make_rule(rule_set, key="kind")


@breaks("category_is_known")
def a_rule_of_an_unknown_kind() -> None:
    make.make_rule(a_rule_set(), category="nice")


@breaks("weight_is_not_negative")
def a_rule_that_weighs_less_than_nothing() -> None:
    make.make_rule(a_rule_set(), weight=-1)


@breaks("a_rule_has_words")
def a_rule_without_words() -> None:
    make.make_rule(a_rule_set(), wording="")


@breaks("a_sensitive_rule_says_what_may_appear")
def a_sensitive_rule_without_a_warning() -> None:
    make.make_rule(a_rule_set(), is_sensitive=True)


@breaks("feedback_probe.dialogue_id")
def two_probes_of_one_dialogue() -> None:
    probe = make.make_probe()
    Probe.objects.create(dialogue=probe.dialogue, rule=probe.rule)


@breaks("probe_and_judge_are_about_a_dialogue_and_a_rule")
def judging_by_no_rule() -> None:
    probe = make.make_probe()
    WorkItem.objects.create(project=probe.dialogue.project, kind="judge", dialogue=probe.dialogue)


@breaks("one_work_item_per_dialogue_kind_and_rule")
def judging_one_dialogue_by_one_rule_twice() -> None:
    probe = make.make_probe()
    for _ in range(2):
        WorkItem.objects.create(project=probe.dialogue.project, kind="judge", dialogue=probe.dialogue, rule=probe.rule)


@breaks("one_judgement_per_revision")
def two_judgements_of_one_revision() -> None:
    again(make.make_judgement(), revision=1)


@breaks("verdict_is_one_to_five")
def a_sixth_verdict() -> None:
    make.make_judgement(verdict=6)


@breaks("a_judgement_comes_from_a_slot_or_an_import")
def a_judgement_of_nobody() -> None:
    again(make.make_judgement(), slot=None, annotator=None)


@breaks("one_score_per_model_dialogue_and_rule")
def a_rule_model_that_says_two_things_of_one_dialogue() -> None:
    probe, version = make.make_probe(), make.make_model(make.make_project(), "rule")
    for p_broken in (0.5, 0.6):
        make.make_rule_score(probe, p_broken=p_broken, model_version=version)


@breaks("a_rule_score_is_a_chance")
def a_chance_above_one() -> None:
    make.make_rule_score(p_broken=1.5)


@breaks("judgement_revisions_start_at_one")
def revision_zero_of_a_judgement() -> None:
    again(make.make_judgement(), revision=0)


@breaks("judgement_seconds_are_not_negative")
def a_judgement_before_it_was_asked() -> None:
    make.make_judgement(seconds=-1)


@breaks("only_late_judgements_may_not_count")
def a_judgement_in_time_that_does_not_count() -> None:
    make.make_judgement(counts=False)


@breaks("feedback_rulejudgement.submit_key")
def two_judgements_of_one_submit_key() -> None:
    judgement = make.make_judgement(submit_key=uuid4())
    again(judgement, submit_key=judgement.submit_key)


# Demonstrations and their reviews


def once_more(row: Any, **fields: Any) -> Any:
    """The same row once more, as the fields say."""
    for name, value in ({"submit_key": None} | fields).items():
        setattr(row, name, value)
    row.pk = None
    row.save(force_insert=True)
    return row


def next_of(demonstration: Demonstration, **fields: Any) -> Demonstration:
    """The next revision of a demonstration, in the place of the one before."""
    before = Demonstration.objects.get(pk=demonstration.pk)
    return once_more(demonstration, **{"revision": demonstration.revision + 1, "supersedes": before} | fields)


@breaks("a_prompt_wants_a_demonstration")
def a_project_whose_prompts_want_none() -> None:
    make.make_project(demonstrations_per_prompt=0)


@breaks("one_demonstration_per_revision")
def two_demonstrations_of_one_revision() -> None:
    once_more(make.make_demonstration())


@breaks("a_demonstration_comes_from_a_slot_or_an_import")
def a_demonstration_of_nobody() -> None:
    make.make_demonstration(slot=None, annotator=None)


@breaks("a_demonstration_says_something")
def a_demonstration_without_a_word() -> None:
    make.make_demonstration(content="")


@breaks("demonstration_revisions_start_at_one")
def revision_zero_of_a_demonstration() -> None:
    next_of(make.make_demonstration(), revision=0)


@breaks("a_later_demonstration_supersedes")
def a_later_one_that_supersedes_nothing() -> None:
    next_of(make.make_demonstration(), supersedes=None)


@breaks("feedback_demonstration.supersedes_id")
def two_demonstrations_in_the_place_of_one() -> None:
    first = make.make_demonstration()
    make.make_demonstration(first.dialogue, name="bob", supersedes=first)
    next_of(Demonstration.objects.get(pk=first.pk))


@breaks("pasted_share_is_nought_to_one")
def more_pasted_than_there_is() -> None:
    make.make_demonstration(pasted_share=1.01)


@breaks("pasted_share_is_nought_to_one")
def less_than_nothing_pasted() -> None:
    make.make_demonstration(pasted_share=-0.01)


@breaks("demonstration_seconds_are_not_negative")
def a_demonstration_before_it_was_asked() -> None:
    make.make_demonstration(seconds=-1)


@breaks("only_late_demonstrations_may_not_count")
def a_demonstration_in_time_that_does_not_count() -> None:
    make.make_demonstration(counts=False)


@breaks("feedback_demonstration.submit_key")
def two_demonstrations_of_one_submit_key() -> None:
    key = uuid4()
    next_of(make.make_demonstration(submit_key=key), submit_key=key)


@breaks("a_demonstration_is_reviewed_or_written_again_once")
def a_review_of_a_dialogue() -> None:
    dialogue = make.make_dialogue()
    WorkItem.objects.create(project=dialogue.project, kind="review", dialogue=dialogue)


@breaks("a_demonstration_is_reviewed_or_written_again_once")
def a_demonstration_that_two_write_again() -> None:
    first = make.make_demonstration()
    WorkItem.objects.create(project=first.dialogue.project, kind="demonstrate", demonstration=first, wanted=2)


@breaks("a_demonstration_is_reviewed_or_written_again_once")
def a_demonstration_that_is_rated() -> None:
    first = make.make_demonstration()
    WorkItem.objects.create(project=first.dialogue.project, kind="rate", demonstration=first)


@breaks("one_work_item_per_demonstration_and_kind")
def two_reviews_asked_of_one_demonstration() -> None:
    first = make.make_demonstration()
    for _ in range(2):
        WorkItem.objects.create(project=first.dialogue.project, kind="review", demonstration=first)


@breaks("a_prompt_weighs_nought_to_a_hundred")
def a_prompt_lighter_than_nothing() -> None:
    Prompt.objects.filter(pk=make.make_prompt(make.make_project()).pk).update(weight=-0.5)


@breaks("a_prompt_weighs_nought_to_a_hundred")
def a_prompt_that_crowds_out_all_others() -> None:
    Prompt.objects.filter(pk=make.make_prompt(make.make_project()).pk).update(weight=100.5)


@breaks("one_review_per_revision")
def two_reviews_of_one_revision() -> None:
    once_more(make.make_demonstration_review())


@breaks("review_verdict_is_known")
def a_review_that_says_something_else() -> None:
    make.make_demonstration_review(verdict="fine")


@breaks("what_is_sent_back_has_a_reason")
def sent_back_without_a_reason() -> None:
    make.make_demonstration_review(verdict="sent_back")


@breaks("an_edit_is_there_where_it_was_edited")
def edited_into_nothing() -> None:
    make.make_demonstration_review(verdict="edited")


@breaks("an_edit_is_there_where_it_was_edited")
def accepted_with_an_edit() -> None:
    first = make.make_demonstration()
    edit = make.make_demonstration(first.dialogue, name="bob", supersedes=first)
    make.make_demonstration_review(first, edit=edit)


@breaks("feedback_demonstrationreview.edit_id")
def one_edit_of_two_reviews() -> None:
    first = make.make_demonstration()
    edit = make.make_demonstration(first.dialogue, name="bob", supersedes=first)
    review = make.make_demonstration_review(first, verdict="edited", edit=edit)
    once_more(review, revision=2)


@breaks("a_review_comes_from_a_slot_or_an_import")
def a_review_from_nowhere() -> None:
    once_more(make.make_demonstration_review(), revision=2, slot=None, annotator=None)


@breaks("a_review_comes_from_a_slot_or_an_import")
def a_review_from_a_slot_and_an_import() -> None:
    review = make.make_demonstration_review()
    source = Import.objects.create(project=review.demonstration.dialogue.project, format="x", sha256="0" * 64)
    once_more(review, revision=2, source_import=source)


@breaks("review_revisions_start_at_one")
def revision_zero_of_a_review() -> None:
    once_more(make.make_demonstration_review(), revision=0)


@breaks("review_seconds_are_not_negative")
def a_review_before_it_was_asked() -> None:
    make.make_demonstration_review(seconds=-1)


@breaks("only_late_reviews_may_not_count")
def a_review_in_time_that_does_not_count() -> None:
    make.make_demonstration_review(counts=False)


@breaks("feedback_demonstrationreview.submit_key")
def two_reviews_of_one_submit_key() -> None:
    review: DemonstrationReview = make.make_demonstration_review(submit_key=uuid4())
    once_more(review, revision=2, submit_key=review.submit_key)


@breaks("a_document_is_stored_once")
def the_same_document_twice() -> None:
    once_more(make.make_document())


@breaks("a_document_has_a_title")
def a_document_without_a_title() -> None:
    make.make_document(title="")


@breaks("a_document_has_a_source")
def a_document_from_nowhere() -> None:
    once_more(make.make_document(), content_hash="0" * 64, source="")


@breaks("one_passage_per_number")
def two_passages_in_one_place() -> None:
    once_more(make.make_document().passages.get())


@breaks("a_passage_says_something")
def a_passage_that_says_nothing() -> None:
    once_more(make.make_document().passages.get(), number=1, text="")


@breaks("a_passage_can_be_read_at_a_glance")
def a_passage_of_501_characters() -> None:
    once_more(make.make_document().passages.get(), number=1, text="x" * 501)


# Questions about replies, and what is answered


@breaks("one_scale_set_per_key")
def two_scale_sets_of_one_key() -> None:
    scale_set = make.make_scale_set()
    ScaleSet.objects.create(project=scale_set.project, key=scale_set.key, name="Another")


@breaks("one_to_twenty_raters")
def a_reply_that_nobody_rates() -> None:
    make.make_scale_set(raters=0)


@breaks("one_to_twenty_raters")
def a_reply_that_a_crowd_rates() -> None:
    make.make_scale_set(raters=21)


@breaks("nobody_is_asked_what_a_program_answers")
def a_programs_questions_open_to_people() -> None:
    scale_set = make.make_scale_set(key="unit-tests")
    ScaleSet.objects.filter(pk=scale_set.pk).update(is_open=True)


def a_scale(**fields: Any) -> Scale:
    """A further question of a set."""
    values = {"key": "further", "position": 9, "name": "Further", "question": "Is it?", "kind": "choice"}
    return Scale.objects.create(**{"scale_set": make.make_scale_set()} | values | fields)


@breaks("one_scale_per_version")
def two_questions_of_one_version() -> None:
    scale = a_scale(asked_until=timezone.now() + timedelta(days=1))
    once_more(scale, name="Again")


@breaks("one_version_of_a_scale_is_asked")
def two_versions_asked_at_once() -> None:
    once_more(a_scale(), version=2)


@breaks("numbers_have_two_to_nine_steps")
def numbers_of_one_step() -> None:
    a_scale(kind="numbers", steps=1)


@breaks("numbers_have_two_to_nine_steps")
def numbers_of_ten_steps() -> None:
    a_scale(kind="numbers", steps=10)


@breaks("numbers_have_two_to_nine_steps")
def numbers_without_steps() -> None:
    a_scale(kind="numbers")


@breaks("numbers_have_two_to_nine_steps")
def flags_with_steps() -> None:
    a_scale(kind="flags", steps=3)


@breaks("numbers_have_two_to_nine_steps")
def a_kind_of_question_that_nobody_knows() -> None:
    a_scale(kind="stars")


@breaks("scale_versions_start_at_one")
def a_question_of_version_nought() -> None:
    a_scale(version=0)


@breaks("a_scale_asks_something")
def a_question_without_words() -> None:
    a_scale(question="")


@breaks("what_may_not_be_asked_implies_a_value")
def a_question_that_may_not_be_asked_and_has_no_value_then() -> None:
    a_scale(asked_after="sensible", asked_values=["yes"])


@breaks("what_may_not_be_asked_implies_a_value")
def a_question_that_is_always_asked_and_has_a_value_else() -> None:
    a_scale(implied="no")


@breaks("positive_votes_are_of_raters")
def more_votes_than_raters() -> None:
    a_scale(positive=["yes"], positive_votes=4, positive_raters=3)


@breaks("positive_votes_are_of_raters")
def no_vote_that_makes_positive() -> None:
    a_scale(positive=["yes"], positive_votes=0, positive_raters=3)


@breaks("positive_votes_are_of_raters")
def votes_of_nobody() -> None:
    a_scale(positive=["yes"], positive_votes=2)


@breaks("a_scale_is_asked_before_it_is_not")
def a_question_that_ends_before_it_begins() -> None:
    a_scale(asked_until=timezone.now() - timedelta(days=1))


@breaks("to_rate_is_about_a_reply_and_a_scale_set")
def to_rate_by_no_questions() -> None:
    comparison = make.make_comparison()
    WorkItem.objects.create(project=comparison.dialogue.project, kind="rate", candidate=comparison.candidates.all()[0])


@breaks("to_rate_is_about_a_reply_and_a_scale_set")
def to_rank_by_a_scale_set() -> None:
    comparison = make.make_comparison()
    project = comparison.dialogue.project
    WorkItem.objects.create(project=project, kind="rank", comparison=comparison, scale_set=make.make_scale_set(project))


@breaks("one_work_item_per_reply_and_scale_set")
def a_reply_asked_about_twice() -> None:
    item = make.make_rate_slot().work_item
    WorkItem.objects.create(project=item.project, kind="rate", candidate=item.candidate, scale_set=item.scale_set)


@breaks("one_rating_per_revision")
def two_ratings_of_one_revision() -> None:
    once_more(make.make_rating())


@breaks("one_rating_per_submit_and_scale")
def two_ratings_of_one_submit() -> None:
    rating: Rating = make.make_rating(submit_key=uuid4())
    once_more(rating, revision=2, submit_key=rating.submit_key)


@breaks("a_rating_comes_from_a_slot_an_import_or_a_program")
def a_rating_from_nowhere() -> None:
    make.make_rating(slot=None, annotator=None)


@breaks("a_rating_comes_from_a_slot_an_import_or_a_program")
def a_rating_by_a_person_and_a_program() -> None:
    make.make_rating(program="pytest")


@breaks("a_rating_comes_from_a_slot_an_import_or_a_program")
def a_rating_of_a_slot_and_an_import() -> None:
    make.make_rating(source_import=an_import())


@breaks("a_rating_says_something")
def a_rating_without_a_value() -> None:
    make.make_rating(value="")


@breaks("rating_revisions_start_at_one")
def a_rating_of_revision_nought() -> None:
    make.make_rating(revision=0)


@breaks("rating_seconds_are_not_negative")
def a_rating_before_it_was_asked() -> None:
    make.make_rating(seconds=-1)


@breaks("only_late_ratings_may_not_count")
def a_rating_in_time_that_does_not_count() -> None:
    make.make_rating(counts=False)


@pytest.mark.parametrize(("name", "deed"), deeds.cases())
def test_the_database_refuses(name: str, deed: Deed) -> None:
    """`the database refuses two turns in one place`, and so on, each by the constraint that says so."""
    assert_refused(name, deeds.columns_by_name()[name], deed)


# What stands beside a constraint and is allowed


def test_a_slot_may_lapse_and_be_skipped_many_times_under_one_number() -> None:
    item, alice = make.make_rank_work(wanted=1), make.make_user()
    for state in ("lapsed", "lapsed", "skipped"):
        a_slot(item, number=1, state=state, annotator=alice, **CLOSED)
    assert item.slots.count() == 4


def test_answers_that_tell_nothing_of_strength_or_time_are_kept() -> None:
    ranking = a_ranking(strength=None, seconds=None)
    RankEntry.objects.create(ranking=ranking, candidate=ranking.comparison.candidates.all()[0], rank=None)
    assert Ranking.objects.get().entries.get().rank is None


def test_two_annotators_may_rank_the_same_and_one_may_correct() -> None:
    item = make.make_rank_work()
    for name in ("alice", "bob"):
        slot = make.make_rank_slot(item.comparison, name=name)
        a_ranking(slot=slot)
        a_ranking(slot=slot, revision=2)
    assert Ranking.objects.count() == 4


def test_an_imported_ranking_and_dialogue_stand_without_a_slot() -> None:
    source = an_import()
    dialogue = Dialogue.objects.create(project=source.project, kind="imported", source_import=source)
    comparison = Comparison.objects.create(dialogue=dialogue, after_position=0)
    ranking = Ranking.objects.create(comparison=comparison, annotator_key="w7", source_import=source)
    assert ranking.slot is None


def test_a_served_model_with_an_endpoint_is_kept() -> None:
    version = make.make_model(make.make_project(), backend="openai", endpoint="https://models.example.org/v1")
    assert ModelVersion.objects.get(pk=version.pk).endpoint
