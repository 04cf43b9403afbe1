"""Blind sets: asked once, answered like any work, told by contestant, and never learned from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from feedback import blind_sets, disagreements, figures, rule_figures, rule_lineage, slots, snapshots
from feedback.blind_sets import BlindReply, Contestant, answers_of, ask_to_compare, ask_to_judge
from feedback.errors import SnapshotEmpty
from feedback.invariants import violations
from feedback.models import Comparison, Dialogue, Project, Rule, RuleJudgement, Slot, WorkItem
from feedback.pages import rules as rule_pages
from rewardtrain import rounds, rule_model_run
from rewardtrain.models import TrainingRun
from tests import make

pytestmark = [pytest.mark.django_db, pytest.mark.services]


@pytest.fixture
def project() -> Project:
    return make.make_project()


@pytest.fixture
def contestants(project: Project) -> list[Contestant]:
    """The start, another policy, and that one with each reply the best of eight."""
    other = make.make_model(project)
    assert project.policy_id is not None
    return [Contestant(project.policy_id), Contestant(other.pk), Contestant(other.pk, 8)]


def compare(
    project: Project, contestants: Sequence[Contestant], place: int = 0, texts: str = "abc", **more: Any
) -> Any:
    prompt = make.make_prompt(project, f"Held out {place}?", "test")
    replies = [BlindReply(one, text, {"seed": 7}) for one, text in zip(contestants, texts, strict=True)]
    return ask_to_compare(
        project=project, evaluation="evaluation 1", place=place, prompt=prompt, replies=replies, **more
    )


def judge(project: Project, rule: Rule, contestant: Contestant, place: int = 0, **more: Any) -> WorkItem:
    prompt = make.make_prompt(project, f"Break it {place}?", "test")
    return ask_to_judge(
        project=project, evaluation="evaluation 1", place=place, prompt=prompt, messages=prompt.messages, rule=rule,
        reply=BlindReply(contestant, "I will not."), **more,
    )  # fmt: skip


def rank(item: WorkItem, places: dict[str, int], *, name: str = "alice", **answer: Any) -> None:
    """Somebody's answer: {text: place}."""
    user = make.make_member(item.project, name)
    slot = slots.claim_slot(item.slots.filter(state="free")[0].pk, user=user)
    assert slot is not None and item.comparison is not None
    by_text = {candidate.text: candidate.pk for candidate in item.comparison.candidates.all()}
    make.make_ranking(slot, item.comparison, ranks={by_text[text]: place for text, place in places.items()}, **answer)


def say(item: WorkItem, verdict: int, name: str = "bob") -> RuleJudgement:
    slot = slots.next_slot(user=make.make_member(item.project, name), project=item.project, kind="judge")
    assert slot is not None and slot.work_item_id == item.pk
    return make.make_verdict(slot, verdict)


# Asked


def test_a_question_is_an_ended_dialogue_and_an_ordinary_piece_of_ranking(
    project: Project, contestants: list[Contestant]
) -> None:
    item = compare(project, contestants, answers=2)
    dialogue = item.comparison.dialogue
    assert (dialogue.kind, dialogue.is_open, dialogue.prompt.split) == ("evaluation", False, "test")
    assert (item.kind, item.wanted, item.slots.count()) == ("rank", 2, 2)
    assert [candidate.text for candidate in item.comparison.candidates.order_by("index")] == ["a", "b", "c"]
    slot = slots.next_slot(user=make.make_member(project), project=project)
    assert slot is not None and slot.work_item == item
    assert list(violations()) == []


def test_the_same_place_asked_twice_is_one_question(project: Project, contestants: list[Contestant]) -> None:
    rule = make.make_rule_set(project).rules.all()[0]
    assert compare(project, contestants) == compare(project, contestants)
    assert judge(project, rule, contestants[0]) == judge(project, rule, contestants[0])
    assert (Comparison.objects.count(), Dialogue.objects.count(), Slot.objects.count()) == (1, 2, 2)


def test_replies_that_say_the_same_are_one_and_stand_for_all(project: Project, contestants: list[Contestant]) -> None:
    item = compare(project, contestants, texts="aba")
    first, second = item.comparison.candidates.order_by("index")
    assert first.source["contestants"] == [contestants[0].to_dict(), contestants[2].to_dict()]
    rank(item, {"a": 1, "b": 2})
    found = {(one.first, one.second): one.credit for one in answers_of(project).outcomes}
    assert found == {(contestants[0], contestants[1]): 1.0, (contestants[2], contestants[1]): 1.0}


def test_where_all_say_the_same_nobody_is_asked(project: Project, contestants: list[Contestant]) -> None:
    assert compare(project, contestants, texts="aaa") is None
    assert not Dialogue.objects.exists()


def test_replies_are_judged_where_nobody_probes_and_never_by_whoever_wrote_the_opening(
    project: Project, contestants: list[Contestant]
) -> None:
    rule = make.make_rule_set(project).rules.all()[0]
    alice, bob = make.make_member(project), make.make_member(project, "bob")
    item = judge(project, rule, contestants[0], author=alice)
    assert not project.probes_open
    assert slots.next_slot(user=alice, project=project) is None
    slot = slots.next_slot(user=bob, project=project)
    assert slot is not None and slot.work_item == item
    assert [turn.role for turn in item.dialogue.turns.all()] == ["user", "assistant"]
    assert list(violations()) == []


def test_a_sensitive_rule_is_judged_only_by_those_who_agreed(project: Project, contestants: list[Contestant]) -> None:
    rule = make.make_rule_set(project, rules=1, sensitive=1).rules.get()
    judge(project, rule, contestants[0])
    bob = make.make_member(project, "bob")
    assert slots.next_slot(user=bob, project=project) is None
    make.agree(project, "bob")
    assert slots.next_slot(user=bob, project=project) is not None


def test_a_set_can_be_closed_and_its_answers_stay(project: Project, contestants: list[Contestant]) -> None:
    answered, waiting = compare(project, contestants), compare(project, contestants, place=1)
    rank(answered, {"a": 1, "b": 2, "c": 3})
    assert blind_sets.close(project, "evaluation 1", because="enough") == 1
    waiting.refresh_from_db()
    assert waiting.closed_because == "enough"
    assert slots.next_slot(user=make.make_member(project, "bob"), project=project) is None
    assert len(answers_of(project).outcomes) == 3


def test_asked_is_told_without_what_was_closed(project: Project, contestants: list[Contestant]) -> None:
    rule = make.make_rule_set(project).rules.all()[0]
    item = compare(project, contestants, answers=3)
    judge(project, rule, contestants[0], answers=2)
    rank(item, {"a": 1, "b": 2, "c": 3})
    bobs = slots.claim_slot(item.slots.filter(state="free")[0].pk, user=make.make_member(project, "bob"))
    assert (answers_of(project).asked, answers_of(project).answered) == (5, 1)
    blind_sets.close(project, "evaluation 1", because="enough")
    assert (answers_of(project).asked, answers_of(project).answered) == (2, 1)  # Bob may still answer
    assert bobs is not None
    make.lapse(bobs)
    assert (answers_of(project).asked, answers_of(project).answered) == (1, 1)


def test_a_known_question_asked_again_wants_more_people_or_is_opened_again(
    project: Project, contestants: list[Contestant]
) -> None:
    rule = make.make_rule_set(project).rules.all()[0]
    rank(compare(project, contestants), {"a": 1, "b": 2, "c": 3})
    assert (compare(project, contestants, answers=3).wanted, answers_of(project).asked) == (3, 3)
    assert compare(project, contestants, answers=2).wanted == 3
    judge(project, rule, contestants[0])
    assert blind_sets.close(project, "evaluation 1", because="enough") == 2
    assert compare(project, contestants).closed_because == "enough"  # it has its one answer
    assert compare(project, contestants, answers=2).closed_at is None
    opened = judge(project, rule, contestants[0], answers=2)
    assert (opened.wanted, opened.closed_at, opened.closed_because) == (2, None, "")
    answers = answers_of(project)
    assert (answers.asked, answers.answered) == (5, 1)
    assert list(violations()) == []


# Told


def test_wins_losses_and_ties_are_told_by_pair(project: Project, contestants: list[Contestant]) -> None:
    start, other, best = contestants
    for place, ranks in enumerate([{"a": 2, "b": 1, "c": 1}, {"a": 1, "b": 2}, {"a": 3, "b": 2, "c": 1}]):
        rank(compare(project, contestants, place=place), ranks)
    rank(compare(project, contestants, place=3), {}, all_bad=True)
    answers = answers_of(project, "evaluation 1")
    assert (answers.asked, answers.answered) == (4, 4)
    duels = {(duel.first, duel.second): (duel.wins.hits, duel.wins.total, duel.ties) for duel in answers.duels()}
    assert duels == {(start, other): (1, 3, 1), (start, best): (0, 2, 1), (other, best): (0, 1, 2)}


def test_answers_to_one_question_weigh_less_than_as_many_questions(
    project: Project, contestants: list[Contestant]
) -> None:
    pair = contestants[:2]
    item = compare(project, pair, texts="ab", answers=4)
    for name in ("alice", "bob", "carol", "dora"):
        rank(item, {"a": 1, "b": 2}, name=name)
    (together,) = answers_of(project).duels()
    for place in range(1, 4):
        rank(compare(project, pair, place=place, texts="ab"), {"a": 1, "b": 2})
    (apart,) = answers_of(project).duels()
    assert together.wins.interval is not None and apart.wins.interval is not None
    assert (together.wins.total, apart.wins.total) == (4, 7)
    assert together.wins.interval[0] < apart.wins.interval[0]


def test_taken_back_and_corrected_answers_count_as_they_stand(project: Project, contestants: list[Contestant]) -> None:
    item = compare(project, contestants[:2], texts="ab")
    rank(item, {"a": 1, "b": 2})
    slot = item.slots.get(state="filled")
    make.make_ranking(slot, item.comparison, ranks=make.ranks_by_index(item.comparison, [2, 1]), revises=1)
    (duel,) = answers_of(project).duels()
    assert (duel.wins.hits, duel.wins.total) == (0, 1)


def test_replies_are_broken_by_consensus_of_their_judges(project: Project, contestants: list[Contestant]) -> None:
    one, two = make.make_rule_set(project).rules.all()
    for place, (rule, contestant, verdict) in enumerate(
        [(one, contestants[0], 1), (one, contestants[0], 5), (one, contestants[1], 5), (two, contestants[1], 2)]
    ):
        say(judge(project, rule, contestant, place), verdict)
    answers = answers_of(project)
    found = {contestant: (share.hits, share.total) for contestant, share in answers.broken.items()}
    assert found == {contestants[0]: (1, 2), contestants[1]: (1, 2)}
    assert answers.broken_by_rule["r2"][contestants[1]].value == 1.0
    assert answers_of(project, "evaluation 2").broken == {}


def test_names_say_the_policy_and_the_draws(project: Project, contestants: list[Contestant]) -> None:
    assert list(blind_sets.names_of(contestants).values()) == ["policy 1", "policy 2", "policy 2, best of 8"]


# Never learned from


@pytest.fixture
def answered(project: Project, contestants: list[Contestant]) -> Project:
    """A blind set of which everything is answered, each question by two, and nothing else in the project."""
    rule = make.make_rule_set(project).rules.all()[0]
    item = compare(project, contestants, answers=2)
    for name in ("alice", "bob"):
        rank(item, {"a": 1, "b": 2, "c": 3}, name=name, strength=3)
    say(judge(project, rule, contestants[0], answers=2), 1)
    return project


def test_no_snapshot_has_it(answered: Project) -> None:
    with pytest.raises(SnapshotEmpty):
        snapshots.freeze(project=answered)
    make.make_ranking(make.make_rank_slot(make.make_comparison(answered), wanted=1, name="dora"))
    snapshot = snapshots.freeze(project=answered)
    assert len(snapshot.ranking_ids) == 1
    assert snapshot.excluded == {"it was asked to measure policies, not to teach one": 2}


def test_no_rule_model_learns_from_it(answered: Project) -> None:
    run = TrainingRun.objects.create(project=answered, kind="rule_model")
    assert RuleJudgement.objects.counted().count() == 1
    assert rule_model_run.counted_judgements(run) == []


def test_no_round_starts_for_it(answered: Project) -> None:
    assert rounds.new_rankings(answered, since=None) == 0


def test_no_figure_of_rules_or_of_agreement_has_it(answered: Project) -> None:
    rule = answered.rule_sets.get().rules.all()[0]
    found = rule_figures.figures_of(answered.rule_sets.get()).rules[0]
    assert (found.broken.total, found.agreement.units) == (0, 0)
    assert not rule_lineage.judgements_of(rule).exists()
    assert rule_pages.judged_dialogues(rule) == ([], [])
    assert figures.agreement_of(answered).comparisons == 0
    assert figures.clearness_of(answered).total == 0


def test_it_is_no_dialogue_on_which_people_differ_and_nobody_more_is_asked_about_it(
    answered: Project, client: Client
) -> None:
    item = answered.work_items.get(kind="judge")
    say(item, 5, name="carol")
    assert RuleJudgement.objects.counted().filter(dialogue=item.dialogue).count() == 2
    assert disagreements.find(answered) == []
    client.force_login(make.make_member(answered, "maria", "manager"))
    make.make_member(answered, "dora")
    where = reverse("feedback:judge_again", args=[answered.slug, item.dialogue_id, item.rule.key])
    for body in ({}, {"undo": "1"}):
        assert client.post(where, body).status_code == 404
    item.refresh_from_db()
    assert (item.wanted, item.added) == (2, 0)


def test_it_is_work_all_the_same(answered: Project) -> None:
    assert figures.pace(answered).total == 2
