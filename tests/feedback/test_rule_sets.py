"""From draft to published: what may be edited, what publishing asks, and whose judgements count afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from feedback import rule_lineage, rule_sets, rule_texts
from feedback.errors import (
    DecisionMissing,
    DraftInTheWay,
    RuleRefused,
    RuleSetChanged,
    RuleSetEmpty,
    RuleSetFrozen,
    RuleSetUnchanged,
)
from feedback.models import AuditEntry, Project, Rule, RuleJudgement, RuleSet, User
from tests import make
from tests.threads import at_once, raised

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return make.make_project()


@pytest.fixture
def maria(project: Project) -> User:
    return make.make_member(project, "maria", "manager")


@pytest.fixture
def published(project: Project) -> RuleSet:
    return make.make_rule_set(project, rules=3)


@pytest.fixture
def draft(project: Project, maria: User, published: RuleSet) -> RuleSet:
    return rule_sets.open_draft(project=project, by=maria)


def keys(rule_set: RuleSet) -> list[str]:
    return [rule.key for rule in rule_set.rules.order_by("position")]


def actions() -> list[str]:
    return list(AuditEntry.objects.order_by("pk").values_list("action", flat=True))


def test_every_field_of_a_rule_has_a_word_and_a_kind() -> None:
    assert set(rule_sets.FIELD_WORDS) == set(rule_texts.FIELDS) == set(rule_texts.TEXT) | set(rule_texts.SETTINGS)
    ours = {field.name for field in Rule._meta.get_fields() if not field.is_relation or field.name == "continues"}
    assert set(rule_texts.FIELDS) <= ours
    assert set(rule_texts.CATEGORIES) == set(Rule.Category.values)


# Drafts


def test_the_first_draft_of_a_project_is_empty_and_number_one(project, maria) -> None:
    draft = rule_sets.open_draft(project=project, by=maria)
    assert (draft.number, draft.state, draft.created_by, keys(draft)) == (1, "draft", maria, [])


def test_a_draft_begins_with_what_is_published(published, draft, maria) -> None:
    assert (draft.number, keys(draft)) == (2, ["r1", "r2", "r3"])
    theirs, ours = published.rules.all(), draft.rules.all()
    assert [rule_sets.values_of(rule) for rule in theirs] == [rule_sets.values_of(rule) for rule in ours]
    assert [rule.continues for rule in ours] == [None] * 3
    assert actions() == ["rule_set.opened"]


def test_opening_a_draft_twice_is_one_draft(project, maria, draft) -> None:
    assert rule_sets.open_draft(project=project, by=None) == draft
    assert actions() == ["rule_set.opened"]


def test_a_rule_is_added_at_the_end_with_a_key_nobody_had(project, maria, draft) -> None:
    rule = rule_sets.add_rule(draft=draft, by=maria, name="Stays kind ", category="harm", wording="Be\n kind.")
    assert (rule.key, rule.position, rule.name, rule.wording) == ("stays-kind", 4, "Stays kind", "Be kind.")
    assert (rule.probe_quota, rule.weight, rule.breaks) == (60, 1.0, [])
    rule_sets.publish(draft=draft, by=maria)
    again = rule_sets.open_draft(project=project, by=maria)
    rule_sets.remove_rule(rule=again.rules.get(key="stays-kind"), by=maria)
    rule_sets.publish(draft=again, by=maria)
    third = rule_sets.open_draft(project=project, by=maria)
    other = rule_sets.add_rule(draft=third, by=maria, name="Stays kind", category="harm", wording="Something else.")
    assert other.key == "stays-kind-2"


def test_a_name_without_a_letter_still_gets_a_key(draft, maria) -> None:
    assert rule_sets.add_rule(draft=draft, by=maria, name="善", category="harm", wording="Be kind.").key == "rule"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 81}, "name"),
        ({"name": "rule 2"}, "name"),
        ({"wording": "  "}, "wording"),
        ({"wording": "A\x00b"}, "wording"),
        ({"category": "nice"}, "category"),
        ({"breaks": ["one", "one"]}, "breaks"),
        ({"breaks": "one"}, "breaks"),
        ({"keeps": ["", "b"]}, "keeps"),
        ({"ideas": ["i"] * 13}, "ideas"),
        ({"is_sensitive": True}, "warning"),
        ({"probe_quota": -1}, "probe_quota"),
        ({"probe_quota": True}, "probe_quota"),
        ({"weight": float("nan")}, "weight"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_by_its_field(draft, maria, values: dict[str, Any], field: str) -> None:
    rule = draft.rules.get(key="r1")
    with pytest.raises(RuleRefused) as refusal:
        rule_sets.edit_rule(rule=rule, by=maria, **values)
    assert list(refusal.value.problems) == [field]
    assert rule_sets.values_of(draft.rules.get(key="r1")) == rule_sets.values_of(rule)


def test_an_edited_rule_keeps_its_key_and_its_place(draft, maria) -> None:
    rule = draft.rules.get(key="r2")
    seen = rule_sets.fingerprint_of_rule(rule)
    changed = rule_sets.edit_rule(rule=rule, by=maria, seen=seen, wording="Do not do number 2.", weight=2)
    assert (changed.key, changed.position, changed.weight) == ("r2", 2, 2.0)
    assert AuditEntry.objects.latest("pk").details["fields"] == ["wording", "weight"]
    with pytest.raises(RuleSetChanged):
        rule_sets.edit_rule(rule=rule, by=maria, seen=seen, wording="Something else.")
    assert draft.rules.get(key="r2").wording == "Do not do number 2."


def test_rules_are_moved_and_removed_and_numbered_again(draft, maria) -> None:
    assert rule_sets.move_rule(rule=draft.rules.get(key="r3"), steps=-1, by=maria) == 2
    assert rule_sets.move_rule(rule=draft.rules.get(key="r1"), steps=-1, by=maria) == 1
    assert keys(draft) == ["r1", "r3", "r2"]
    rule_sets.remove_rule(rule=draft.rules.get(key="r1"), by=maria)
    assert list(draft.rules.values_list("key", "position")) == [("r3", 1), ("r2", 2)]
    rule_sets.reorder_rules(draft=draft, keys=["r2", "r3"], by=maria)
    assert keys(draft) == ["r2", "r3"]
    with pytest.raises(RuleSetChanged):
        rule_sets.reorder_rules(draft=draft, keys=["r2"], by=maria)
    assert actions()[1:] == ["rule.moved", "rule.removed", "rule_set.reordered"]


def test_a_removed_rule_is_brought_back_under_its_key(draft, maria) -> None:
    rule_sets.edit_rule(rule=draft.rules.get(key="r1"), by=maria, wording="Other words.")
    rule_sets.remove_rule(rule=draft.rules.get(key="r1"), by=maria)
    back = rule_sets.bring_back(draft=draft, key="r1", by=maria)
    assert (back.position, back.wording) == (3, "Do not do the thing number 1.")
    assert rule_sets.bring_back(draft=draft, key="r1", by=maria) == back
    with pytest.raises(RuleSetChanged):
        rule_sets.bring_back(draft=draft, key="r9", by=maria)


def test_what_another_window_removed_is_not_edited(draft, maria) -> None:
    rule = draft.rules.get(key="r1")
    rule_sets.remove_rule(rule=draft.rules.get(key="r1"), by=maria)
    with pytest.raises(RuleSetChanged, match="removed from the draft"):
        rule_sets.edit_rule(rule=rule, by=maria, name="Another")


def test_a_discarded_draft_leaves_what_is_published(project, published, draft, maria) -> None:
    seen = rule_sets.fingerprint(draft)
    rule_sets.edit_rule(rule=draft.rules.get(key="r1"), by=maria, name="Another")
    with pytest.raises(RuleSetChanged):
        rule_sets.discard_draft(draft=draft, by=maria, seen=seen)
    rule_sets.discard_draft(draft=draft, by=maria, seen=rule_sets.fingerprint(draft))
    assert list(project.rule_sets.all()) == [published]
    assert AuditEntry.objects.latest("pk").details["rules"][0] == ["r1", "Another", "Do not do the thing number 1."]
    with pytest.raises(RuleSetFrozen, match="discarded"):
        rule_sets.add_rule(draft=draft, by=maria, name="Late", category="harm", wording="Too late.")


def test_a_draft_somebody_works_on_is_in_the_way(draft, maria) -> None:
    rule_sets.refuse_work_in_progress(draft)
    rule_sets.edit_rule(rule=draft.rules.get(key="r1"), by=maria, theme="Kindness")
    with pytest.raises(DraftInTheWay, match="1 changed"):
        rule_sets.refuse_work_in_progress(draft)


# Comparing


def test_differences_name_what_is_new_gone_changed_and_moved(published, draft, maria) -> None:
    rule_sets.edit_rule(rule=draft.rules.get(key="r1"), by=maria, wording="Do not ever do number 1.", probe_quota=9)
    rule_sets.edit_rule(rule=draft.rules.get(key="r3"), by=maria, theme="Kindness")
    rule_sets.remove_rule(rule=draft.rules.get(key="r2"), by=maria)
    rule_sets.add_rule(draft=draft, by=maria, name="Fresh", category="harm", wording="A fresh one.")
    found = rule_sets.differences(draft, published)
    assert ([rule.key for rule in found.added], [rule.key for rule in found.removed]) == (["fresh"], ["r2"])
    assert [(change.after.key, change.asks) for change in found.changed] == [("r1", True), ("r3", False)]
    wording, quota = found.changed[0].fields
    assert [part.text for part in wording.before if part.is_new] == ["the thing"]
    assert [part.text for part in wording.after if part.is_new] == ["ever"]
    assert (quota.word, quota.after[0].text) == ("Probes wanted", "9")
    assert found.in_words() == "2 changed, 1 new, 1 removed"
    assert not found.is_reordered


def test_a_first_draft_is_all_new(project, maria) -> None:
    draft = rule_sets.open_draft(project=project, by=maria)
    make.make_rule(draft)
    assert rule_sets.differences(draft, None).in_words() == "1 new"


# Publishing


def test_publishing_retires_what_was_published_and_continues_what_is_the_same(project, published, draft, maria) -> None:
    rule_sets.edit_rule(rule=draft.rules.get(key="r1"), by=maria, theme="Kindness", weight=0.5)
    rule_sets.publish(draft=draft, by=maria, note=" Themes. ", seen=rule_sets.fingerprint(draft))
    published.refresh_from_db()
    draft.refresh_from_db()
    assert (published.state, draft.state) == ("retired", "published")
    assert (draft.published_by, draft.note, rule_sets.published_set(project)) == (maria, "Themes.", draft)
    assert [rule.continues for rule in draft.rules.all()] == list(published.rules.all())
    assert AuditEntry.objects.latest("pk").action == "rule_set.published"


def test_a_changed_text_continues_only_by_a_managers_word(published, draft, maria) -> None:
    for key in ("r1", "r2"):
        rule_sets.edit_rule(rule=draft.rules.get(key=key), by=maria, wording=f"New words of {key}.")
    with pytest.raises(DecisionMissing) as refusal:
        rule_sets.publish(draft=draft, by=maria, decisions={"r1": "wording", "r2": "maybe"})
    assert (refusal.value.keys, "“Rule 2”" in refusal.value.message) == (["r2"], True)
    assert published.__class__.objects.get(pk=published.pk).state == "published"
    rule_sets.publish(draft=draft, by=maria, decisions={"r1": "wording", "r2": "stale"})
    continued = {rule.key: rule.continues and rule.continues.key for rule in draft.rules.all()}
    assert continued == {"r1": "r1", "r2": None, "r3": "r3"}
    assert AuditEntry.objects.latest("pk").details["decisions"] == {"r1": "wording", "r2": "stale"}


@pytest.mark.parametrize("field", ["name", "wording", "breaks", "keeps"])
def test_what_people_judge_by_asks_for_a_decision(draft, maria, field: str) -> None:
    rule_sets.edit_rule(rule=draft.rules.get(key="r1"), by=maria, **{field: ["x"] if field[-1] == "s" else "Other"})
    with pytest.raises(DecisionMissing):
        rule_sets.publish(draft=draft, by=maria)


def test_an_empty_draft_and_one_that_changes_nothing_are_not_published(project, maria, published, draft) -> None:
    with pytest.raises(RuleSetUnchanged, match="rule set 1"):
        rule_sets.publish(draft=draft, by=maria)
    for rule in draft.rules.all():
        rule_sets.remove_rule(rule=rule, by=maria)
    with pytest.raises(RuleSetEmpty):
        rule_sets.publish(draft=draft, by=maria)


def test_what_changed_since_the_page_was_made_is_not_published(project, published, draft, maria) -> None:
    rule_sets.edit_rule(rule=draft.rules.get(key="r1"), by=maria, theme="Kindness")
    seen = rule_sets.fingerprint(draft)
    rule_sets.move_rule(rule=draft.rules.get(key="r1"), steps=1, by=maria)
    with pytest.raises(RuleSetChanged):
        rule_sets.publish(draft=draft, by=maria, seen=seen)
    rule_sets.publish(draft=draft, by=maria, seen=rule_sets.fingerprint(draft))
    with pytest.raises(RuleSetFrozen, match="published"):
        rule_sets.publish(draft=draft, by=maria)
    with pytest.raises(RuleSetFrozen):
        rule_sets.edit_rule(rule=draft.rules.get(key="r1"), by=maria, name="Too late")


def test_only_an_order_changed_can_be_published(draft, maria) -> None:
    rule_sets.move_rule(rule=draft.rules.get(key="r1"), steps=1, by=maria)
    rule_sets.publish(draft=draft, by=maria)
    assert all(rule.continues for rule in draft.rules.all())


def test_a_refused_publication_leaves_no_trace(published, draft, maria, monkeypatch) -> None:
    rule_sets.edit_rule(rule=draft.rules.get(key="r1"), by=maria, theme="Kindness")
    before = actions()
    monkeypatch.setattr(rule_sets.audit, "record", lambda *args, **rest: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rule_sets.publish(draft=draft, by=maria)
    assert set(RuleSet.objects.values_list("state", flat=True)) == {"published", "draft"}
    assert (actions(), Rule.objects.exclude(continues=None).count()) == (before, 0)


# Whose judgements count


def test_judgements_count_along_what_a_rule_continues(project, published, draft, maria) -> None:
    first = make.make_judgement(make.make_probe(published.rules.get(key="r1")))
    rule_sets.edit_rule(rule=draft.rules.get(key="r1"), by=maria, wording="The same in other words.")
    rule_sets.publish(draft=draft, by=maria, decisions={"r1": "wording"})
    second = make.make_judgement(make.make_probe(draft.rules.get(key="r1")), name="ben", verdict=5)
    third = rule_sets.open_draft(project=project, by=maria)
    rule_sets.edit_rule(rule=third.rules.get(key="r1"), by=maria, wording="Something else.")
    rule_sets.edit_rule(rule=third.rules.get(key="r2"), by=maria, theme="Kindness")
    rule_sets.publish(draft=third, by=maria, decisions={"r1": "stale"})

    def counted(rule_set: RuleSet) -> set[RuleJudgement]:
        return set(rule_lineage.judgements_of(rule_set.rules.get(key="r1")))

    assert counted(published) == {first}
    assert counted(draft) == {first, second}
    assert counted(third) == set()
    assert [rule.rule_set.number for rule in rule_lineage.lineage(third.rules.get(key="r2"))] == [3, 2, 1]
    rules = list(third.rules.select_related("rule_set"))
    found = rule_lineage.lineages(rules)
    expected = {one.pk: rule.pk for rule in rules for one in rule_lineage.lineage(rule)}
    assert found == expected and len(found) == 7


def test_only_judgements_in_force_count(published) -> None:
    judgement = make.make_judgement(make.make_probe(published.rules.get(key="r1")))
    judgement.pk, judgement.revision, judgement.withdrawn = None, 2, True
    judgement.save(force_insert=True)
    assert not rule_lineage.judgements_of(published.rules.get(key="r1")).exists()


def test_a_rule_that_comes_back_in_its_own_words_goes_on_and_in_others_begins_anew(project, published, maria) -> None:
    kept = make.make_judgement(make.make_probe(published.rules.get(key="r1")))
    away = rule_sets.open_draft(project=project, by=maria)
    for key in ("r1", "r2"):
        rule_sets.remove_rule(rule=away.rules.get(key=key), by=maria)
    rule_sets.publish(draft=away, by=maria)
    back = rule_sets.open_draft(project=project, by=maria)
    for rule in published.rules.filter(key__in=["r1", "r2"]):
        words = {"wording": "Other words."} if rule.key == "r2" else {}
        rule_sets.add_rule(draft=back, by=maria, key=rule.key, **(rule_sets.values_of(rule) | words))
    rule_sets.publish(draft=back, by=maria)
    assert list(rule_lineage.judgements_of(back.rules.get(key="r1"))) == [kept]
    assert back.rules.get(key="r2").continues is None


# At the same moment


@pytest.mark.django_db(transaction=True)
def test_two_who_publish_at_once_publish_once() -> None:
    project = make.make_project()
    make.make_rule_set(project)
    draft = rule_sets.open_draft(project=project, by=None)
    rule_sets.edit_rule(rule=draft.rules.get(key="r1"), by=None, theme="Kindness")
    seen = rule_sets.fingerprint(draft)

    def publish() -> RuleSet:
        return rule_sets.publish(draft=RuleSet.objects.get(pk=draft.pk), by=None, seen=seen)

    results = at_once(publish, publish)
    assert len(raised(results, RuleSetFrozen, RuleSetChanged)) == 1
    assert list(RuleSet.objects.values_list("number", "state")) == [(1, "retired"), (2, "published")]


@pytest.mark.django_db(transaction=True)
def test_two_who_open_a_draft_at_once_open_one() -> None:
    project = make.make_project()
    make.make_rule_set(project)
    one, other = at_once(*[lambda: rule_sets.open_draft(project=project, by=None)] * 2)
    assert one == other and one.rules.count() == 2


@pytest.mark.django_db(transaction=True)
def test_an_edit_comes_before_a_publication_or_not_at_all() -> None:
    project = make.make_project()
    draft = make.make_rule_set(project, published=False)
    rule = draft.rules.get(key="r1")
    results = at_once(
        lambda: rule_sets.publish(draft=draft, by=None),
        lambda: rule_sets.edit_rule(rule=rule, by=None, name="Another"),
    )
    refused = raised(results, RuleSetFrozen)
    assert Rule.objects.get(pk=rule.pk).name == ("Rule 1" if refused else "Another")
    assert rule_sets.published_set(project) == draft
