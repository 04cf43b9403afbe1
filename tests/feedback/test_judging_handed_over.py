"""What waits to be judged when other rules are published: asked by the new words, or no more."""

from __future__ import annotations

import pytest

from feedback import blind_sets, consents, disagreements, judgements, rule_figures, rule_sets, slots, tasks, work_items
from feedback.invariants import violations
from feedback.models import AuditEntry, Project, Rule, RuleSet, Slot, User, WorkItem
from tests import make

pytestmark = [pytest.mark.django_db, pytest.mark.services]


@pytest.fixture
def project(db: None) -> Project:
    return make.make_project(probes_open=True, judges_per_probe=2, other_rules_judged=1)


@pytest.fixture
def rules(project: Project) -> RuleSet:
    return make.make_rule_set(project)


def publish(project: Project, decision: str = "", *, removed: bool = False) -> RuleSet:
    """A further rule set in which r1 reads otherwise, or is gone."""
    draft = rule_sets.open_draft(project=project, by=None)
    if removed:
        rule_sets.remove_rule(rule=draft.rules.get(key="r1"), by=None)
    else:
        rule_sets.edit_rule(rule=draft.rules.get(key="r1"), by=None, wording="Never do the thing.")
    return rule_sets.publish(draft=draft, by=None, decisions={"r1": decision} if decision else None)


def probed(rules: RuleSet) -> Slot:
    return make.make_probe_slot(rules.rules.select_related("rule_set__project").get(key="r1"))


def asked(project: Project) -> dict[str, tuple[int, int]]:
    """{key of a rule: (its rule set, how many are wanted)} of what waits for judges now."""
    items = WorkItem.objects.filter(project=project, kind="judge", closed_at=None, slots__state="free").distinct()
    items = items.select_related("rule__rule_set")
    return {item.rule.key: (item.rule.rule_set.number, item.wanted) for item in items if item.rule}


def to_judge(project: Project, name: str) -> Slot | None:
    return slots.next_slot(user=make.make_member(project, name), project=project, kind="judge")


def test_where_earlier_judgements_count_the_question_is_asked_by_the_new_words(project, rules) -> None:
    make.make_verdict(probed(rules))
    assert asked(project) == {"r1": (1, 2), "r2": (1, 1)}
    publish(project, "wording")
    assert asked(project) == {"r1": (2, 2), "r2": (2, 1)}
    slot = to_judge(project, "bob")
    assert slot is not None and slot.work_item.rule is not None
    assert slot.work_item.rule.wording == "Never do the thing."
    make.make_verdict(slot, 2)
    assert rule_figures.figures_of(rule_sets.published_set(project)).rules[0].agreement.units == 1
    details = AuditEntry.objects.get(action="rule_set.published").details
    assert (details["judging_moved"], details["judging_ended"]) == (2, 0)
    assert list(violations()) == []


@pytest.mark.parametrize("removed", [False, True])
def test_where_the_rule_means_something_else_or_is_gone_nobody_is_asked(project, rules, removed) -> None:
    make.make_verdict(probed(rules))
    publish(project, "" if removed else "stale", removed=removed)
    assert asked(project) == {"r2": (2, 1)}
    ended = WorkItem.objects.get(rule__key="r1", kind="judge")
    assert ended.closed_because == "rule set 2 has this rule no more, or means something else"
    assert list(violations()) == []


def test_what_somebody_has_in_hand_stays_theirs_and_they_are_not_asked_again(project, rules) -> None:
    make.make_verdict(probed(rules))
    slot = to_judge(project, "bob")
    assert slot is not None
    publish(project, "wording")
    assert asked(project)["r1"] == (2, 1)
    bob = make.make_member(project, "bob")
    mine = Slot.objects.claimable_by(bob).filter(work_item__rule__key="r1")
    assert not mine.exists()
    make.make_verdict(slot, 2)
    assert not mine.exists()
    (agreement, _) = [one.agreement for one in rule_figures.figures_of(rule_sets.published_set(project)).rules]
    assert agreement.units == 1
    assert to_judge(project, "dora") is not None
    assert list(violations()) == []


def test_a_held_question_is_closed_where_the_rule_means_something_else_and_its_answer_is_kept(project, rules) -> None:
    make.make_verdict(probed(rules))
    slot = to_judge(project, "bob")
    assert slot is not None
    publish(project, "stale")
    assert make.make_verdict(slot, 5).pk
    assert "r1" not in asked(project)


def test_a_warning_that_is_new_is_asked_about_before_the_question_is(project, rules) -> None:
    make.make_verdict(probed(rules))
    draft = rule_sets.open_draft(project=project, by=None)
    rule_sets.edit_rule(
        rule=draft.rules.get(key="r1"), by=None, is_sensitive=True, theme="Poison", warning="Wrong advice about poison."
    )
    rule_sets.publish(draft=draft, by=None)
    bob: User = make.make_member(project, "bob")
    assert not Slot.objects.claimable_by(bob).filter(work_item__rule__key="r1").exists()
    make.agree(project, "bob")
    assert Slot.objects.claimable_by(bob).filter(work_item__rule__key="r1").exists()


@pytest.mark.parametrize(("decision", "number"), [("wording", 2), ("stale", 0)])
def test_a_probe_that_ends_after_publishing_is_judged_by_the_words_in_force_or_not_at_all(
    project, rules, decision, number
) -> None:
    slot = probed(rules)
    publish(project, decision)
    verdict = make.make_verdict(slot)
    assert verdict.rule == Rule.objects.get(rule_set=rules, key="r1")  # in the words they read
    assert asked(project) == ({"r1": (number, 2), "r2": (number, 1)} if number else {})
    assert judgements.open_judging(verdict.dialogue) == list(
        WorkItem.objects.filter(kind="judge", closed_at=None).order_by("pk")
    )


def test_what_was_asked_on_top_goes_along_and_can_still_be_undone(project, rules) -> None:
    dialogue = make.make_verdict(probed(rules)).dialogue
    for name, verdict in (("bob", 2), ("ben", 5)):
        slot = to_judge(project, name)
        assert slot is not None
        make.make_verdict(slot, verdict)
    rule = Rule.objects.select_related("rule_set").get(rule_set=rules, key="r1")
    maria = make.make_member(project, "maria", "manager")
    disagreements.ask_again(dialogue=dialogue, rule=rule, by=maria)
    published = publish(project, "wording")
    now = Rule.objects.select_related("rule_set").get(rule_set=published, key="r1")
    assert asked(project)["r1"] == (2, 1)
    disagreements.undo_asking(dialogue=dialogue, rule=now, by=maria)
    assert "r1" not in asked(project)


def blind_question(project: Project, rule: Rule) -> WorkItem:
    """A contestant's reply in a blind set, to be judged by a rule."""
    assert project.policy_id is not None
    prompt = make.make_prompt(project, "Break it?", "test")
    reply = blind_sets.BlindReply(blind_sets.Contestant(project.policy_id), "I will not.")
    return blind_sets.ask_to_judge(
        project=project, evaluation="evaluation 1", place=0, prompt=prompt, messages=prompt.messages, rule=rule,
        reply=reply,
    )  # fmt: skip


@pytest.mark.parametrize("decision", ["wording", "stale"])
def test_a_blind_set_is_judged_by_the_words_it_was_asked_in(project, rules, decision) -> None:
    rule = rules.rules.get(key="r1")
    item = blind_question(project, rule)
    publish(project, decision)
    assert asked(project) == {"r1": (1, 1)}
    slot = to_judge(project, "bob")
    assert slot is not None and slot.work_item == item
    assert make.make_verdict(slot, 5).rule == rule


def test_who_judges_a_blind_set_may_agree_to_a_warning_that_is_no_more_in_force(project) -> None:
    rules = make.make_rule_set(project, sensitive=1)
    item = blind_question(project, rules.rules.get(key="r2"))
    draft = rule_sets.open_draft(project=project, by=None)
    rule_sets.remove_rule(rule=draft.rules.get(key="r2"), by=None)
    rule_sets.publish(draft=draft, by=None)
    assert to_judge(project, "bob") is None
    make.agree(project, "bob")
    slot = to_judge(project, "bob")
    assert slot is not None and slot.work_item == item
    make.make_verdict(slot, 5)
    assert consents.themes(make.make_member(project, "dora"), project) == []


def rule_now(rule_set: RuleSet) -> Rule:
    return rule_set.rules.select_related("rule_set").get(key="r1")


def test_what_two_versions_still_ask_becomes_one_question_that_wants_both_answers(project, rules) -> None:
    verdict = make.make_verdict(probed(rules))
    for name in ("bob", "ben"):
        assert to_judge(project, name) is not None
    published = publish(project, "wording")
    maria = make.make_member(project, "maria", "manager")
    make.make_member(project, "dora")
    disagreements.ask_again(dialogue=verdict.dialogue, rule=rule_now(published), by=maria)
    for slot in Slot.objects.filter(state="held", work_item__rule__key="r1"):
        make.lapse(slot)
    draft = rule_sets.open_draft(project=project, by=None)
    rule_sets.edit_rule(rule=draft.rules.get(key="r1"), by=None, wording="Do it never.")
    rule_sets.publish(draft=draft, by=None, decisions={"r1": "wording"})
    item = WorkItem.objects.get(rule__key="r1", rule__rule_set__number=3)
    assert (item.wanted, item.added, item.slots.filter(state="free").count()) == (3, 1, 3)
    assert list(violations()) == []


def test_a_question_closed_by_hand_is_asked_again_for_no_more_than_came_back(project, rules) -> None:
    rule = rules.rules.get(key="r1")
    about = {"project": project, "kind": "judge", "dialogue": make.make_probe(rule).dialogue, "rule": rule}
    item = work_items.open_more(**about, wanted=1, added=1)
    work_items.close_work(item, because="asked nobody more after all")
    again = work_items.open_more(**about, wanted=2, added=0)
    assert (again.pk, again.wanted, again.added, again.closed_at) == (item.pk, 2, 0, None)
    again = work_items.open_more(**about, wanted=1, added=1)
    assert (again.wanted, again.added, again.slots.filter(state="free").count()) == (3, 1, 3)
    assert list(violations()) == []


def come_back(slot: Slot, how: str) -> None:
    """What a judge had in hand is theirs no more."""
    if how == "lapsed":
        make.lapse(slot)
    elif how == "skipped":
        slots.skip(slot, reason="too long")
    else:
        make.make_verdict(slot, 2)
        judgements.withdraw_judgement(slot=slot)


@pytest.mark.parametrize("how", ["lapsed", "skipped", "taken back"])
@pytest.mark.parametrize("held", [1, 2])
def test_what_comes_back_after_publishing_is_asked_by_the_words_in_force(project, rules, held, how) -> None:
    make.make_verdict(probed(rules))
    hands = [to_judge(project, name) for name in ("bob", "ben")[:held]]
    publish(project, "wording")
    for slot in hands:
        assert slot is not None
        come_back(slot, how)
    dora = make.make_member(project, "dora")
    by_old_words = Slot.objects.claimable_by(dora).filter(work_item__rule__rule_set=rules)
    assert not by_old_words.exists()
    tasks.sweep()
    item = WorkItem.objects.get(rule__key="r1", rule__rule_set__number=2)
    assert (item.wanted, item.slots.filter(state="free").count()) == (2, 2)
    tasks.sweep()
    item.refresh_from_db()
    assert item.wanted == 2
    assert not by_old_words.exists()
    assert Slot.objects.claimable_by(dora).filter(work_item=item).exists()
    assert list(violations()) == []


def test_what_comes_back_to_a_rule_that_means_something_else_is_asked_of_nobody(project, rules) -> None:
    make.make_verdict(probed(rules))
    slot = to_judge(project, "bob")
    assert slot is not None
    make.make_verdict(slot, 2)
    other = to_judge(project, "ben")
    assert other is not None
    make.make_verdict(other, 2)
    publish(project, "stale")
    judgements.withdraw_judgement(slot=slot)
    tasks.sweep()
    assert "r1" not in asked(project)
    assert WorkItem.objects.get(rule__key="r1", kind="judge").closed_at is not None
    assert list(violations()) == []
