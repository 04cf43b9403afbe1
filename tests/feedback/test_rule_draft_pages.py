"""A manager edits, compares and publishes a draft through its pages, with and without htmx."""

from __future__ import annotations

import pytest
from django.test import Client

from feedback import rule_lineage, rule_sets
from feedback.models import AuditEntry, Project, RuleSet, User
from tests import make
from tests.feedback.test_rules_page import address, text_of

pytestmark = pytest.mark.django_db
HTMX = {"HTTP_HX_REQUEST": "true", "HTTP_HX_TARGET": "draft-rules"}
RULE = {
    "name": "Stays kind", "category": "harm", "wording": "Be kind.", "theme": "Manner",
    "breaks": "You fool.\r\n\r\nGo.", "keeps": "",
    "ideas": " Insult it. ", "warning": "", "probe_quota": "30", "weight": "0.5",
}  # fmt: skip


@pytest.fixture
def project() -> Project:
    return make.make_project(probes_open=True)


@pytest.fixture
def manager(client: Client, project: Project) -> Client:
    client.force_login(make.make_member(project, "maria", "manager"))
    return client


@pytest.fixture
def published(project: Project) -> RuleSet:
    return make.make_rule_set(project, rules=3)


@pytest.fixture
def draft(project: Project, published: RuleSet) -> RuleSet:
    return rule_sets.open_draft(project=project, by=None)


def keys(draft: RuleSet) -> list[str]:
    return [rule.key for rule in draft.rules.order_by("position")]


def test_a_draft_is_opened_from_the_page_of_the_rules(manager, project, published):
    reply = manager.post(address(project, "open_rule_draft"), follow=True)
    assert "Nothing differs yet from" in reply.content.decode()
    assert keys(project.rule_sets.get(state="draft")) == ["r1", "r2", "r3"]
    assert "Compare and publish" not in reply.content.decode()


def test_a_set_that_comes_along_does_not_replace_somebodys_work(manager, project, draft):
    rule_sets.edit_rule(rule=draft.rules.get(key="r1"), by=None, name="Mine")
    reply = manager.post(address(project, "open_rule_draft"), {"start": "sparrow"}, follow=True)
    assert "that nobody published" in reply.content.decode()
    assert keys(draft) == ["r1", "r2", "r3"]


def test_a_rule_is_written_on_its_page(manager, project, draft):
    reply = manager.post(address(project, "add_rule"), RULE, follow=True)
    assert "“Stays kind” was added to the draft." in reply.content.decode()
    rule = draft.rules.get(key="stays-kind")
    assert (rule.breaks, rule.keeps, rule.ideas) == (["You fool.", "Go."], [], ["Insult it."])
    assert (rule.probe_quota, rule.weight, rule.is_sensitive) == (30, 0.5, False)
    assert AuditEntry.objects.latest("pk").actor == User.objects.get(username="maria")
    assert '<span class="chip on">new</span>' in reply.content.decode()


def test_what_is_refused_is_said_beside_its_field_and_kept(manager, project, draft):
    page = manager.post(
        address(project, "add_rule"),
        RULE
        | {"name": "", "is_sensitive": "on", "probe_quota": "many", "weight": "-1", "keeps": "Kept words\nKept words"},
    )
    assert page.status_code == 422
    assert "Write a number." in page.content.decode() and "Kept words" in page.content.decode()
    page = manager.post(address(project, "add_rule"), RULE | {"name": "", "is_sensitive": "on", "weight": "-1"})
    body = page.content.decode()
    assert "Give it a short name" in body and "Write a number from 0 to 100." in body
    assert body.count("autofocus") == 1 and body.index("autofocus") < body.index("id_wording")
    assert 'aria-invalid="true"' in body and "id_name_error" in body and "Be kind.</textarea>" in body
    page = manager.post(address(project, "add_rule"), RULE | {"is_sensitive": "on"})
    assert "Say what may appear while it is probed" in page.content.decode()
    assert draft.rules.count() == 3


def test_an_edited_rule_is_saved_unless_another_window_was_quicker(manager, project, draft):
    where = address(project, "edit_rule", "r2")
    page = manager.get(where)
    seen = page.context["seen"]
    reply = manager.post(where, RULE | {"seen": seen})
    assert reply.url == address(project, "rule_draft") + "#rule-r2"
    assert draft.rules.get(key="r2").name == "Stays kind"
    again = manager.post(where, RULE | {"seen": seen, "name": "Too late"})
    assert again.status_code == 422
    assert "Another window changed it meanwhile" in again.content.decode()
    assert 'value="Too late"' in again.content.decode()
    assert draft.rules.get(key="r2").name == "Stays kind"


def test_rules_move_by_button_with_and_without_htmx(manager, project, draft):
    where = address(project, "move_rule", "r3")
    assert manager.post(where, {"to": "up"}).url.endswith("#rule-r3")
    assert keys(draft) == ["r1", "r3", "r2"]
    part = manager.post(where, {"to": "up"}, **HTMX)
    assert part.content.decode().strip().startswith('<div id="draft-rules">')
    assert "<html" not in part.content.decode() and 'id="up-r3"' in part.content.decode()
    manager.post(where, {"to": "sideways"})
    assert keys(draft) == ["r3", "r1", "r2"]


def test_a_removed_rule_can_be_brought_back(manager, project, draft):
    reply = manager.post(address(project, "remove_rule", "r1"), follow=True)
    assert "Bring back" in reply.content.decode() and keys(draft) == ["r2", "r3"]
    part = manager.post(address(project, "bring_back_rule", "r1"), **HTMX)
    assert "Bring back" not in part.content.decode() and keys(draft) == ["r2", "r3", "r1"]
    stale = manager.post(address(project, "remove_rule", "r1"), {"seen": "0" * 32}, **HTMX)
    assert "Another window changed it meanwhile" in stale.content.decode() and keys(draft) == ["r2", "r3", "r1"]


def test_publishing_asks_what_changed_words_mean(manager, project, published, draft):
    make.make_judgement(make.make_probe(published.rules.get(key="r1")))
    rule_sets.edit_rule(rule=draft.rules.get(key="r1"), by=None, wording="Do not ever do it.")
    rule_sets.edit_rule(rule=draft.rules.get(key="r2"), by=None, theme="Manner")
    where = address(project, "compare_rules")
    body = text_of(manager, where)
    assert "What does the change mean for 1 judgement?" in body
    assert "<mark>ever</mark>" in body and "Its words are the same, so earlier judgements count." in body
    seen = manager.get(where).context["seen"]
    refused = manager.post(where, {"seen": seen, "note": "Clearer."})
    assert refused.status_code == 422
    assert "Choose one of the two." in refused.content.decode() and "Clearer.</textarea>" in refused.content.decode()
    reply = manager.post(where, {"seen": seen, "note": "Clearer.", "means-r1": "wording"}, follow=True)
    assert "Rule set 2 is published and frozen." in reply.content.decode()
    draft.refresh_from_db()
    assert (draft.state, draft.note, draft.published_by.username) == ("published", "Clearer.", "maria")
    assert rule_lineage.judgements_of(draft.rules.get(key="r1")).count() == 1


def test_a_draft_that_changed_since_is_shown_again_instead_of_published(manager, project, draft):
    rule_sets.edit_rule(rule=draft.rules.get(key="r1"), by=None, wording="Do not ever do it.")
    where = address(project, "compare_rules")
    seen = manager.get(where).context["seen"]
    rule_sets.edit_rule(rule=draft.rules.get(key="r3"), by=None, wording="Something else.")
    reply = manager.post(where, {"seen": seen, "means-r1": "stale"})
    assert reply.status_code == 422
    body = reply.content.decode()
    assert "Another window changed it meanwhile" in body and "Something" in body
    assert 'value="stale" required checked' in body
    manager.post(where, {"seen": reply.context["seen"], "means-r1": "stale", "means-r3": "stale"})
    assert rule_sets.published_set(project) == draft


def test_publishing_without_having_seen_the_draft_is_refused(manager, project, draft):
    rule_sets.edit_rule(rule=draft.rules.get(key="r1"), by=None, theme="Manner")
    assert manager.post(address(project, "compare_rules"), {"note": "x"}).status_code == 422
    draft.refresh_from_db()
    assert draft.is_draft


def test_the_first_set_is_published_without_a_question(manager, project):
    manager.post(address(project, "open_rule_draft"), {"start": "sparrow"})
    where = address(project, "compare_rules")
    assert "All 23 rules" in text_of(manager, where)
    reply = manager.post(where, {"seen": manager.get(where).context["seen"]}, follow=True)
    assert "Rule set 1 is published and frozen." in reply.content.decode()


def test_discarding_a_draft_asks_for_a_word(manager, project, published, draft):
    where = address(project, "discard_rules")
    refused = manager.post(where, {"word": "", "seen": manager.get(where).context["seen"]})
    assert refused.status_code == 422 and "Type the word discard" in refused.content.decode()
    stale = manager.post(where, {"word": "discard", "seen": "0" * 32})
    assert stale.status_code == 422 and "Another window" in stale.content.decode()
    reply = manager.post(where, {"word": " Discard ", "seen": manager.get(where).context["seen"]}, follow=True)
    assert "Draft 2 was discarded." in reply.content.decode()
    assert list(project.rule_sets.all()) == [published]


def test_who_comes_to_a_draft_that_is_gone_is_told_so(manager, project, published):
    for name, *args in [("rule_draft",), ("add_rule",), ("edit_rule", "r1"), ("compare_rules",), ("discard_rules",)]:
        for reply in (manager.get(address(project, name, *args)), manager.post(address(project, name, *args))):
            assert reply.status_code == 405 or reply.url == address(project)
    assert "There is no draft any more" in text_of(manager, address(project))
    reply = manager.post(address(project, "move_rule", "r1"), {"to": "up"}, **HTMX)
    assert reply["HX-Redirect"] == address(project)
