"""A manager's pages about the rules in force: who may see them, what they say first, their order, what broke a rule."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from feedback import rule_sets
from feedback.models import Project, Rule, RuleSet, User
from tests import make
from tests.feedback.test_rule_figures import judged

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return make.make_project(probes_open=True)


@pytest.fixture
def manager(client: Client, project: Project) -> Client:
    client.force_login(make.make_member(project, "maria", "manager"))
    return client


@pytest.fixture
def rules(project: Project) -> RuleSet:
    return make.make_rule_set(project, rules=3)


def address(project: Project, name: str = "rules", *args: object) -> str:
    return reverse(f"feedback:{name}", args=[project.slug, *args])


def text_of(client: Client, path: str) -> str:
    return " ".join(client.get(path).content.decode().split())


PAGES = [("rules",), ("rule", "r1"), ("rule_versions",), ("rule_version", 1), ("rule_draft",), ("add_rule",),
         ("edit_rule", "r1"), ("compare_rules",), ("discard_rules",)]  # fmt: skip
DEEDS = [("open_rule_draft",), ("move_rule", "r1"), ("remove_rule", "r1"), ("bring_back_rule", "r1"),
         ("choose_probed_policy",)]  # fmt: skip


# Who may see them


@pytest.mark.parametrize("role", ["annotator", "reviewer", "elsewhere", None])
def test_who_does_not_manage_the_project_finds_nothing(client, project, rules, role):
    rule_sets.open_draft(project=project, by=None)
    person = make.make_user("charlie")
    if role == "elsewhere":
        make.make_member(make.make_project("orchard"), "charlie", "manager")
    elif role:
        make.make_member(project, "charlie", role)
    client.force_login(person)
    for name, *args in PAGES + DEEDS:
        assert client.post(address(project, name, *args), {"start": "sparrow"}).status_code in (404, 405), name
        assert client.get(address(project, name, *args)).status_code in (404, 405), name
    for name, *args in PAGES:
        assert client.get(address(project, name, *args)).status_code == 404, name
    assert RuleSet.objects.count() == 2


def test_every_page_opens_for_its_manager_and_deeds_want_a_post(manager, project, rules):
    rule_sets.open_draft(project=project, by=None)
    for name, *args in PAGES:
        assert manager.get(address(project, name, *args)).status_code == 200, name
    for name, *args in DEEDS:
        assert manager.get(address(project, name, *args)).status_code == 405, name


def test_what_is_not_there_is_not_found(manager, project, rules):
    rule_sets.open_draft(project=project, by=None)
    for name, *args in [("rule", "r9"), ("rule_version", 9), ("rule_version", 2), ("edit_rule", "r9")]:
        assert manager.get(address(project, name, *args)).status_code == 404, name
    stray = make.make_rule_set(make.make_project("orchard"), rules=1)
    make.make_rule(rule_sets.open_draft(project=stray.project, by=None), key="only-there")
    assert manager.get(address(project, "rule", "only-there")).status_code == 404


def test_who_is_not_signed_in_is_asked_to(client, project, rules):
    assert client.get(address(project)).url == f"/sign-in/?next={address(project)}"


def test_the_navigation_leads_there_and_says_where_one_is(manager, project, rules):
    assert f'<a href="{address(project)}">Rules</a>' in text_of(manager, address(project, "overview"))
    for name, *args in PAGES[:4]:
        assert f'<a href="{address(project)}" aria-current="page">Rules</a>' in text_of(
            manager, address(project, name, *args)
        )


# Which policy is probed


def test_a_manager_chooses_the_policy_that_is_probed_and_its_figures_are_shown(manager, project, rules):
    other = make.make_model(project, name="careful")
    body = text_of(manager, address(project))
    assert "whichever policy serves: policy 1 now" in body and "policy 2, careful (trained)" in body
    reply = manager.post(address(project, "choose_probed_policy"), {"policy": other.pk}, follow=True)
    body = " ".join(reply.content.decode().split())
    assert "Policy 2 is probed from the next probe on." in body and "Policy 2 was not probed yet." in body
    assert f'<option value="{other.pk}" selected>' in body
    manager.post(address(project, "choose_probed_policy"), {"policy": ""})
    assert Project.objects.get().probed_policy is None


def test_a_policy_of_nobody_or_of_others_is_not_found(manager, project, rules):
    strange = make.make_model(make.make_project("orchard"))
    for choice in (strange.pk, 999_999):
        reply = manager.post(address(project, "choose_probed_policy"), {"policy": choice})
        assert reply.status_code == 404, choice
    assert Project.objects.get(pk=project.pk).probed_policy is None


# What the page says first


def test_a_project_without_rules_is_offered_twenty_three(manager, project):
    body = text_of(manager, address(project))
    assert "No rules are in force here" in body and "Start with these 23 rules" in body
    assert "Answers what was asked" in body
    reply = manager.post(address(project, "open_rule_draft"), {"start": "sparrow"}, follow=True)
    assert "23 rules. Nobody probes or judges by them before you publish." in reply.content.decode()
    draft = rule_sets.draft_of(project)
    assert draft is not None and draft.created_by == User.objects.get(username="maria")
    body = text_of(manager, address(project))
    assert "Draft 1 is not published yet" in body and "Start with" not in body


def test_rules_nobody_probed_say_so(manager, project, rules):
    body = text_of(manager, address(project))
    assert "Policy 1 was not probed yet. Three want more probes." in body
    assert body.count("60 more probes") == 3
    assert "too few" in body and "Rule set 1" in body and "Change the rules" in body
    Project.objects.update(probes_open=False)
    assert "Nobody is asked to probe: probing is closed in the settings." in text_of(manager, address(project))
    Project.objects.update(policy=None)
    assert "No model serves here, so nothing was probed." in text_of(manager, address(project))


def test_the_page_begins_with_what_needs_its_manager(manager, project, rules):
    for verdict in (1,) * 9 + (5,) * 3:
        judged(rules.rules.get(key="r2"), verdict)
    body = text_of(manager, address(project))
    assert "Policy 1 breaks a rule in <b>75%</b> of 12 probes (47% to 91% with 95% certainty)." in body
    assert "One rule needs you: the model still breaks it." in body
    assert "Still broken: train on it" in body
    assert 'aria-label="75% of 12 probes broken, between 47% and 91% with 95% certainty"' in body


def test_a_rate_is_set_beside_that_of_the_policy_before(manager, project, rules):
    judged(rules.rules.get(key="r1"), 1)
    project.policy = make.make_model(project, state="passed")
    project.save()
    rules.refresh_from_db()
    judged(Rule.objects.get(key="r1"), 5)
    body = text_of(manager, address(project))
    assert "Policy 2 breaks a rule in <b>0%</b> of 1 probe (0% to 79% with 95% certainty), down from 100%." in body
    assert "policy 1: 100% of 1" in body and body.count("dot-before") == 2


def test_people_who_differ_are_worth_a_word(manager, project, rules):
    for index in range(12):
        judged(rules.rules.get(key="r3"), 1 if index % 2 else 5, 5 if index % 3 else 1)
    body = text_of(manager, address(project))
    assert "needs you: people read it differently." in body
    assert "People differ: reword" in body


# The table


def order(client: Client, path: str) -> list[str]:
    return [row.one.rule.key for row in client.get(path).context["rows"]]


def test_the_worst_stand_first_and_every_column_sorts(manager, project, rules):
    for key, verdicts in (("r1", (5, 5)), ("r3", (1, 5, 1))):
        for verdict in verdicts:
            judged(rules.rules.get(key=key), verdict)
    make.make_model(project, kind="rule", figures={"rules": {"r1": {"auc": 0.9}, "r2": {"auc": 0.7}}})
    page = address(project)
    assert order(manager, page) == order(manager, f"{page}?by=broken") == ["r3", "r1", "r2"]
    assert order(manager, f"{page}?by=-broken") == ["r1", "r3", "r2"]
    assert order(manager, f"{page}?by=number") == ["r1", "r2", "r3"]
    assert order(manager, f"{page}?by=-name") == ["r3", "r2", "r1"]
    assert order(manager, f"{page}?by=probes") == ["r2", "r1", "r3"]
    assert order(manager, f"{page}?by=auc") == ["r2", "r1", "r3"]
    assert order(manager, f"{page}?by=<script>") == ["r3", "r1", "r2"]
    body = text_of(manager, f"{page}?by=-number")
    assert 'aria-sort="descending"><a class="plain" href="?by=number">No. ↓</a>' in body
    assert 'href="?by=broken">Broken</a>' in body


def test_what_a_manager_wrote_is_escaped_everywhere(manager, project):
    draft = rule_sets.open_draft(project=project, by=None)
    evil = "<img src=x onerror=alert(1)>"
    rule = rule_sets.add_rule(
        draft=draft, by=None, name=evil, category="harm", wording=evil, theme=evil, breaks=[evil], keeps=[f"no {evil}"],
        ideas=[evil], is_sensitive=True, warning=evil,
    )  # fmt: skip
    pages = [("rule_draft",), ("edit_rule", rule.key), ("compare_rules",)]
    assert all("<img" not in text_of(manager, address(project, name, *args)) for name, *args in pages)
    rule_sets.publish(draft=draft, by=None, note=evil)
    judged(draft.rules.get(), 1)
    again = rule_sets.open_draft(project=project, by=None)
    rule_sets.edit_rule(rule=again.rules.get(), by=None, wording=f"Not {evil}")
    pages = [
        ("rules",),
        ("rule", rule.key),
        ("rule_versions",),
        ("rule_version", 1),
        ("rule_draft",),
        ("compare_rules",),
    ]
    for name, *args in pages:
        body = text_of(manager, address(project, name, *args))
        assert "<img" not in body, name


def test_the_page_asks_no_more_of_the_database_when_there_is_more(manager, project, django_assert_max_num_queries):
    rules = make.make_rule_set(project, rules=8)
    for rule in rules.rules.all():
        judged(rule, 1, 5)
    rule_sets.open_draft(project=project, by=None)
    with django_assert_max_num_queries(22):
        assert manager.get(address(project)).status_code == 200
    with django_assert_max_num_queries(26):
        assert manager.get(address(project, "rule", "r1")).status_code == 200


# One rule


def test_a_rules_page_shows_what_broke_it_and_who_said_so(manager, project, rules):
    rule = rules.rules.get(key="r1")
    probe = make.make_probe(rule)
    make.make_judgement(probe, name="bob", verdict=1, turn_position=1, reason="It <b>did</b> it.")
    judged(rule, 5)
    body = text_of(manager, address(project, "rule", "r1"))
    assert f'aria-label="Dialogue {probe.dialogue_id}"' in body
    assert "<b>Definitely broken</b>" in body and "Bob" in body and "It &lt;b&gt;did&lt;/b&gt; it." in body
    assert 'class="turn assistant marked"' in body
    assert "All 2 that were judged" in body and body.count('class="judged"') == 1
    everything = text_of(manager, address(project, "rule", "r1") + "?show=all")
    assert "Only the 1 that broke it" in everything and everything.count('class="judged"') == 2


def test_a_dialogue_about_a_sensitive_rule_opens_when_asked_to(manager, project):
    draft = make.make_rule_set(project, rules=1, published=False)
    draft.rules.update(is_sensitive=True, warning="Wrong advice.")
    rule_sets.publish(draft=draft, by=None)
    judged(draft.rules.get(), 1)
    assert "<details><summary>Show this dialogue, it may upset" in text_of(manager, address(project, "rule", "r1"))


def test_dialogues_come_ten_to_a_page(manager, project, rules):
    for _ in range(11):
        judged(rules.rules.get(key="r1"), 1)
    page = address(project, "rule", "r1")
    assert "Page 1 of 2" in text_of(manager, page)
    assert text_of(manager, f"{page}?page=2").count('class="judged"') == 1
    assert "Page 2 of 2" in text_of(manager, f"{page}?page=99")


def test_a_rules_history_says_what_each_change_meant(manager, project, rules):
    for number, (key, values, decision) in enumerate(
        [
            ("r1", {"wording": "Do not do the thing at all."}, {"r1": "wording"}),
            ("r1", {"weight": 0.5}, {}),
            ("r2", {"theme": "Other"}, {}),
            ("r1", {"wording": "Do another thing."}, {"r1": "stale"}),
        ],
        start=2,
    ):
        draft = rule_sets.open_draft(project=project, by=None)
        rule_sets.edit_rule(rule=draft.rules.get(key=key), by=None, **values)
        rule_sets.publish(draft=draft, by=None, decisions=decision, note=f"Change {number}")
    page = manager.get(address(project, "rule", "r1"))
    assert [(one.word, one.rule.rule_set.number) for one in page.context["chapters"]] == [
        ("Another meaning, judged anew", 5),
        ("Same words", 3),
        ("Wording only, earlier judgements count", 2),
        ("New", 1),
    ]
    assert "<del>number 1.</del>" in page.content.decode() and "<mark>at all.</mark>" in page.content.decode()
    body = text_of(manager, address(project, "rule_versions"))
    assert "Change 4" in body and body.index("Rule set 5") < body.index("Rule set 1")
    assert "Another meaning: judged anew." in text_of(manager, address(project, "rule_version", 5))


def test_a_rule_that_is_not_in_force_any_more_is_still_found(manager, project, rules):
    draft = rule_sets.open_draft(project=project, by=None)
    rule_sets.remove_rule(rule=draft.rules.get(key="r1"), by=None)
    rule_sets.publish(draft=draft, by=None)
    body = text_of(manager, address(project, "rule", "r1"))
    assert "last in rule set 1, not in force any more" in body
    assert "Removed: Rule 1." in text_of(manager, address(project, "rule_version", 2))
