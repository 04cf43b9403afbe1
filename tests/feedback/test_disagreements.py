"""Where people differ: which dialogues, in which order, and one more person asked, or not after all."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from feedback import disagreements, rule_sets, slots
from feedback.disagreements import ask_again, asked_about, find, undo_asking
from feedback.errors import NotAskedAgain
from feedback.invariants import violations
from feedback.models import (
    AuditEntry,
    Dialogue,
    Probe,
    Project,
    Rule,
    RuleJudgement,
    RuleSet,
    Slot,
    User,
    WorkItem,
)  # fmt: skip
from feedback.rule_scores import newest_scores, record_scores
from tests import make
from tests.threads import at_once, raised

pytestmark = [pytest.mark.django_db, pytest.mark.services]


@pytest.fixture
def project(db: None) -> Project:
    return make.make_project(probes_open=True)


@pytest.fixture
def rules(project: Project) -> RuleSet:
    return make.make_rule_set(project)


@pytest.fixture
def maria(project: Project) -> User:
    return make.make_member(project, "maria", "manager")


@pytest.fixture
def manager(client: Client, maria: User) -> Client:
    client.force_login(maria)
    return client


def judged(rule: Rule, *verdicts: int, prober: int | None = None) -> Probe:
    """A probe, what its prober said of it, and what Bob and Ben did."""
    if prober is None:
        probe = make.make_probe(rule)
    else:
        probe = make.make_verdict(make.make_probe_slot(rule), prober).dialogue.probe
    for name, verdict in zip(("bob", "ben"), verdicts, strict=False):
        make.make_judgement(probe, name=name, verdict=verdict)
    return probe


def first(rules: RuleSet) -> Rule:
    return rules.rules.select_related("rule_set__project").get(key="r1")


# Which, and in which order


def test_they_come_furthest_apart_first_and_what_all_say_alike_does_not_come(project, rules) -> None:
    near, far, *_ = [judged(first(rules), *said) for said in ((1, 2), (1, 5), (4, 4), (3,))]
    found = find(project)
    assert [one.dialogue_id for one in found] == [far.dialogue_id, near.dialogue_id]
    assert [(one.steps, one.p_broken, one.decided) for one in found] == [(4, 0.5, "undecided"), (1, 0.875, "broken")]


def test_a_prober_and_a_judge_may_differ_or_judges_among_each_other(project, rules) -> None:
    judged(first(rules), 5, prober=1)
    judged(first(rules), 2, 5)
    assert [one.is_about_the_prober for one in find(project)] == [True, False]


def test_they_are_found_by_rule_and_by_what_was_decided(project, rules) -> None:
    broken, other = judged(first(rules), 1, 3), judged(rules.rules.get(key="r2"), 4, 5)
    assert [one.dialogue_id for one in find(project, rule_key="r2")] == [other.dialogue_id]
    assert [one.dialogue_id for one in find(project, decided="broken")] == [broken.dialogue_id]
    assert [one.dialogue_id for one in find(project, decided="kept")] == [other.dialogue_id]
    assert find(project, rule_key="r1", decided="kept") == []


def test_verdicts_on_earlier_words_that_count_are_set_beside_those_on_later_ones(project, rules) -> None:
    probe = judged(first(rules), 1)
    draft = rule_sets.open_draft(project=project, by=None)
    rule_sets.edit_rule(rule=draft.rules.get(key="r1"), by=None, wording="Never do the thing.")
    rule_sets.publish(draft=draft, by=None, decisions={"r1": "wording"})
    later = Probe(dialogue=probe.dialogue, rule=draft.rules.get(key="r1"))
    make.make_judgement(later, name="ben", verdict=5)
    (one,) = find(project)
    assert (one.rule, sorted(one.verdicts)) == (draft.rules.get(key="r1"), [1, 5])


def test_a_verdict_taken_back_is_no_disagreement(project, rules) -> None:
    probe = judged(first(rules), 1, 5)
    last = RuleJudgement.objects.get(dialogue=probe.dialogue, verdict=5)
    RuleJudgement.objects.create(
        dialogue=last.dialogue, rule=last.rule, verdict=5, slot=last.slot, annotator=last.annotator,
        annotator_key=last.annotator_key, revision=2, withdrawn=True,
    )  # fmt: skip
    assert find(project) == []


def test_a_rule_model_that_is_handed_in_is_set_beside_the_people(project, rules) -> None:
    alike, apart = judged(first(rules), 1, 1), judged(first(rules), 1, 2)
    said = {(alike.dialogue_id, "r1"): 0.1, (apart.dialogue_id, "r1"): 0.8}
    assert [one.dialogue_id for one in find(project)] == [apart.dialogue_id]
    found = find(project, predictions=said)
    assert [(one.dialogue_id, round(one.distance, 6)) for one in found] == [
        (alike.dialogue_id, 3.6), (apart.dialogue_id, 1),
    ]  # fmt: skip
    assert find(project, predictions={(alike.dialogue_id, "r1"): 0.6}) == find(project)  # not far enough


# One more person is asked


def test_asking_again_raises_what_is_wanted_by_one_and_goes_to_somebody_else(project, rules, maria) -> None:
    probe = judged(first(rules), 1, 5)
    make.make_member(project, "dora")
    item = ask_again(dialogue=probe.dialogue, rule=first(rules), by=maria)
    assert (item.wanted, item.added) == (3, 1)
    for name in ("alice", "bob", "ben"):  # who probed, and who has judged
        user = make.make_member(project, name)
        assert slots.next_slot(user=user, project=project, kind="judge") is None, name
    slot = slots.next_slot(user=make.make_member(project, "dora"), project=project, kind="judge")
    assert slot is not None and slot.work_item == item
    make.make_verdict(slot, 5)
    assert find(project)[0].verdicts == [1, 5, 5]
    entry = AuditEntry.objects.get(action="judgement.asked_again")
    assert (entry.actor, entry.details) == (maria, {"dialogue": probe.dialogue_id, "rule": "r1"})
    assert list(violations()) == []


def test_who_judged_the_words_before_is_not_asked_about_those_after(project, rules, maria) -> None:
    probe = judged(first(rules), 1, 5)
    draft = rule_sets.open_draft(project=project, by=None)
    rule_sets.edit_rule(rule=draft.rules.get(key="r1"), by=None, wording="Never do the thing.")
    rule_sets.publish(draft=draft, by=None, decisions={"r1": "wording"})
    now = Rule.objects.select_related("rule_set").get(rule_set=draft, key="r1")
    now.rule_set.refresh_from_db()
    ask_again(dialogue=probe.dialogue, rule=now, by=maria)
    for name in ("bob", "ben"):
        assert slots.next_slot(user=make.make_member(project, name), project=project, kind="judge") is None
    assert slots.next_slot(user=maria, project=project, kind="judge") is not None


def test_a_dialogue_nobody_was_asked_about_is_opened_and_closed_again(project, rules, maria) -> None:
    other = rules.rules.select_related("rule_set__project").get(key="r2")
    imported = make.make_probe(other, name="eve")
    item = ask_again(dialogue=imported.dialogue, rule=other, by=maria)
    assert (item.wanted, item.added, item.slots.get().state) == (1, 1, "free")
    undo_asking(dialogue=imported.dialogue, rule=other, by=maria)
    item.refresh_from_db()
    assert item.closed_because == "not asked after all"
    assert slots.next_slot(user=maria, project=project, kind="judge") is None
    again = ask_again(dialogue=imported.dialogue, rule=other, by=maria)
    assert (again, again.closed_at, again.slots.count()) == (item, None, 1)
    assert list(violations()) == []


def test_asking_can_be_undone_while_nobody_has_claimed_it(project, rules, maria) -> None:
    probe = judged(first(rules), 1, 5)
    item = ask_again(dialogue=probe.dialogue, rule=first(rules), by=maria)
    assert asked_about(find(project))[probe.dialogue_id, item.rule_id].may_undo
    undo_asking(dialogue=probe.dialogue, rule=first(rules), by=maria)
    item.refresh_from_db()
    assert (item.wanted, item.added, item.slots.count()) == (2, 0, 2)
    assert AuditEntry.objects.filter(action="judgement.asking_undone", actor=maria).count() == 1
    with pytest.raises(NotAskedAgain, match="nothing to undo"):
        undo_asking(dialogue=probe.dialogue, rule=first(rules), by=maria)
    ask_again(dialogue=probe.dialogue, rule=first(rules), by=maria)
    assert slots.next_slot(user=maria, project=project, kind="judge") is not None
    with pytest.raises(NotAskedAgain, match="somebody has it in hand"):
        undo_asking(dialogue=probe.dialogue, rule=first(rules), by=maria)
    assert list(violations()) == []


def test_what_the_project_wants_anyway_is_not_undone(project, rules, maria) -> None:
    probe = make.make_verdict(make.make_probe_slot(first(rules))).dialogue.probe
    with pytest.raises(NotAskedAgain, match="wanted for it already"):
        ask_again(dialogue=probe.dialogue, rule=first(rules), by=maria)
    with pytest.raises(NotAskedAgain, match="nothing to undo"):
        undo_asking(dialogue=probe.dialogue, rule=first(rules), by=maria)


def test_nobody_left_and_a_rule_that_is_past_are_said(project, rules) -> None:
    probe = judged(first(rules), 1, 5)
    with pytest.raises(NotAskedAgain, match="Everybody here has judged it"):
        ask_again(dialogue=probe.dialogue, rule=first(rules), by=None)
    make.make_member(project, "dora")
    RuleSet.objects.filter(pk=rules.pk).update(state="retired", retired_at=probe.created_at)
    with pytest.raises(NotAskedAgain, match="not in force any more"):
        ask_again(dialogue=probe.dialogue, rule=first(rules), by=None)


@pytest.mark.django_db(transaction=True)
def test_two_managers_at_once_ask_one_more_person_together(project, rules, maria) -> None:
    probe, rule = judged(first(rules), 1, 5), first(rules)
    results = at_once(*[lambda: ask_again(dialogue=probe.dialogue, rule=rule, by=maria)] * 2)
    assert len(raised(results, NotAskedAgain)) == 1
    item = WorkItem.objects.get(kind="judge")
    assert (item.wanted, item.added, item.slots.filter(state="free").count()) == (3, 1, 1)


@pytest.mark.django_db(transaction=True)
def test_undoing_and_claiming_at_once_leave_it_done_or_undone(project, rules, maria) -> None:
    probe, rule = judged(first(rules), 1, 5), first(rules)
    dora = make.make_member(project, "dora")
    item = ask_again(dialogue=probe.dialogue, rule=rule, by=maria)
    free = item.slots.get(state="free").pk
    claimed, undone = at_once(
        lambda: slots.claim_slot(free, user=dora), lambda: undo_asking(dialogue=probe.dialogue, rule=rule, by=maria)
    )
    raised([claimed, undone], NotAskedAgain)
    assert (claimed is None) != isinstance(undone, NotAskedAgain)
    item.refresh_from_db()
    assert item.slots.filter(state__in=Slot.LIVE).count() == item.wanted
    assert list(violations()) == []


# The page


def address(project: Project, *args: object) -> str:
    return reverse("feedback:judge_again" if args else "feedback:rule_disagreements", args=[project.slug, *args])


def text_of(client: Client, path: str) -> str:
    return " ".join(client.get(path).content.decode().split())


def test_the_page_shows_who_said_what_and_asks_one_more(manager, project, rules) -> None:
    probe = judged(first(rules), 1, 5)
    assert f'<a class="button" href="{address(project)}">Where people differ <span class="chip waits">1</span></a>' in (
        text_of(manager, reverse("feedback:rules", args=[project.slug]))
    )
    body = text_of(manager, address(project))
    assert "1 dialogue judged differently" in body and "4 steps apart" in body
    assert "Together: undecided" in body and "judges differ among each other" in body
    assert "<b>Definitely broken</b>" in body and "Bob" in body and "I did the thing." in body
    here = {"rule": "r1", "decided": "undecided", "page": "1"}
    reply = manager.post(address(project, probe.dialogue_id, "r1"), here, follow=True)
    assert reply.redirect_chain[0][0] == address(project) + "?rule=r1&decided=undecided&who=&page=1"
    body = reply.content.decode()
    assert "One more person is asked, who has not judged it." in body and 'name="undo"' in body
    body = manager.post(address(project, probe.dialogue_id, "r1"), {"undo": "1"}, follow=True).content.decode()
    assert "Nobody more is asked about it." in body and "Ask one more person" in body
    assert WorkItem.objects.get(kind="judge").wanted == 2


def test_the_page_says_so_when_nobody_differs_and_when_a_filter_leaves_none(manager, project) -> None:
    assert "Nobody differs." in text_of(manager, address(project))
    judged(first(make.make_rule_set(project)), 1, 2)
    assert "None of these." in text_of(manager, address(project) + "?decided=kept")
    assert "1 step apart" in text_of(manager, address(project) + "?decided=nonsense&rule=nonsense&page=x")


def test_the_newest_rule_models_word_stands_beside_peoples(manager, project, rules) -> None:
    alike, apart = judged(first(rules), 1, 1), judged(first(rules), 1, 2)
    pairs = [(probe.dialogue_id, probe.rule_id) for probe in (alike, apart)]
    assert "Once a rule model was trained" in text_of(manager, address(project))
    for chances in ((0.9, 0.9), (0.1, 0.8)):
        record_scores(make.make_model(project, "rule"), dict(zip(pairs, chances, strict=True)))
    make.make_model(project, "rule")  # said nothing
    body = text_of(manager, address(project))
    assert "2 dialogues judged differently" in body and body.index("3.6 steps apart") < body.index("1 step apart")
    assert (
        "Rule model: 10%" in body and "the rule model differs from people" in body and "rule model 2 holds it" in body
    )
    body = text_of(manager, address(project) + "?who=model")
    assert "Rule model: 10%" in body and "Rule model: 80%" not in body
    assert "Rule model: 10%" not in text_of(manager, address(project) + "?who=people")
    assert '<span class="chip waits">2</span>' in text_of(manager, reverse("feedback:rules", args=[project.slug]))
    assert list(violations()) == []


def test_what_another_projects_model_says_is_not_read_here(project, rules) -> None:
    probe, version = judged(first(rules), 1, 5), make.make_model(project, "rule")
    record_scores(version, {(probe.dialogue_id, probe.rule_id): 0.5})
    strange = make.make_model(make.make_project("orchard"), "rule")
    record_scores(strange, {(probe.dialogue_id, probe.rule_id): 0.5})
    assert [one.check for one in violations()] == ["scores are of judged dialogues"]
    assert newest_scores(project) == (version, {(probe.dialogue_id, "r1"): 0.5})


def test_what_may_upset_is_folded(manager, project) -> None:
    rules = make.make_rule_set(project, rules=1, sensitive=1)
    judged(first(rules), 1, 5)
    assert "Show this dialogue, it may upset" in text_of(manager, address(project))


@pytest.mark.parametrize("role", ["annotator", "reviewer", None])
def test_only_a_manager_sees_it_or_asks(client, project, rules, role) -> None:
    probe = judged(first(rules), 1, 5)
    if role:
        make.make_member(project, "charlie", role)
    client.force_login(make.make_user("charlie"))
    assert client.get(address(project)).status_code == 404
    assert client.post(address(project, probe.dialogue_id, "r1")).status_code == 404
    assert WorkItem.objects.get(kind="judge").wanted == 2


def test_what_is_of_another_project_is_not_found_and_a_deed_wants_a_post(manager, project, rules) -> None:
    strange = make.make_dialogue(make.make_project("orchard"))
    assert manager.post(address(project, strange.pk, "r1")).status_code == 404
    probe = judged(first(rules), 1, 5)
    assert manager.post(address(project, probe.dialogue_id, "r9")).status_code == 404
    assert manager.get(address(project, probe.dialogue_id, "r1")).status_code == 405
    assert Dialogue.objects.count() == 2 and disagreements.find(project)
