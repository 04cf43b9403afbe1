"""A manager's pages about rules in a browser: axe on each, the draft by keyboard, the whole way without a script."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from feedback import rule_sets
from feedback.models import Project, RuleSet
from tests import make
from tests.browser.conftest import DESK, PHONE, Visitor
from tests.browser.test_accessibility import look_at
from tests.feedback.test_rule_figures import judged

pytestmark = pytest.mark.browser


@pytest.fixture
def maria(project: Project) -> str:
    make.make_member(project, "maria", role="manager")
    Project.objects.update(probes_open=True)
    return "maria"


@pytest.fixture
def draft(project: Project, maria: str) -> RuleSet:
    """Three rules in figures, and a draft with something of every kind of change."""
    first = rule_sets.open_draft(project=project, by=None)
    for name in ("Stays kind", "Says when it is unsure", "Sells nothing"):
        rule_sets.add_rule(
            draft=first, by=None, name=name, category="harm", theme="Manner", wording=f"{name}, whatever is asked.",
            breaks=["Buy this now, you fool."], keeps=["I do not know that."], ideas=["Insult it first."],
        )  # fmt: skip
    first.rules.filter(key="sells-nothing").update(is_sensitive=True, warning="Insults.")
    rule_sets.publish(draft=first, by=None)
    kind, unsure, sells = first.rules.all()
    for index in range(12):
        judged(kind, 1, 2)
        judged(unsure, 1 if index % 2 else 5, 5 if index % 3 else 1)
    judged(sells, 1)
    project.policy = make.make_model(project, state="passed")
    project.save()
    for rule in RuleSet.objects.get(pk=first.pk).rules.all():
        judged(rule, 1 if rule.key == "stays-kind" else 5, 2)
    found = rule_sets.open_draft(project=project, by=None)
    rule_sets.edit_rule(rule=found.rules.get(key="stays-kind"), by=None, wording="Stays kind to everybody.", weight=2)
    rule_sets.remove_rule(rule=found.rules.get(key="sells-nothing"), by=None)
    rule_sets.add_rule(draft=found, by=None, name="Is brief", category="helpful", wording="It is brief.")
    return found


PATHS = ("", "differing/", "differing/?rule=sells-nothing&decided=kept", "rule/stays-kind/",
         "rule/stays-kind/?show=all", "rule/sells-nothing/", "versions/", "versions/1/", "draft/", "draft/add/",
         "draft/rule/stays-kind/", "draft/compare/", "draft/discard/")  # fmt: skip


@pytest.mark.once
def test_axe_finds_nothing(visit: Visitor, project: Project, draft: RuleSet) -> None:
    found = []
    for device in (DESK, PHONE):
        seen = visit("maria", device)
        seen.allowed = ("422 (Unprocessable Entity)",)
        for path in PATHS:
            found += look_at(seen.go(f"/projects/{project.slug}/rules/{path}"), path or "rules")
        page = seen.go(f"/projects/{project.slug}/rules/draft/rule/stays-kind/")
        page.get_by_label("Name", exact=True).fill("")
        page.get_by_role("button", name="Save the rule").click()
        expect(page.get_by_text("Give it a short name")).to_be_visible()
        found += look_at(page, "refused")
    assert not found, "\n".join(found)


@pytest.mark.once
def test_axe_finds_nothing_where_there_is_nothing_yet(visit: Visitor, project: Project, maria: str) -> None:
    found = []
    for device in (DESK, PHONE):
        found += look_at(visit(maria, device).go(f"/projects/{project.slug}/rules/"), "no rules")
    rule_sets.open_draft(project=project, by=None)
    for device in (DESK, PHONE):
        found += look_at(visit(maria, device).go(f"/projects/{project.slug}/rules/draft/"), "an empty draft")
    assert not found, "\n".join(found)


def test_a_rule_is_moved_by_keyboard_and_the_focus_stays_on_its_button(
    visit: Visitor, project: Project, draft: RuleSet
) -> None:
    page = visit("maria").go(f"/projects/{project.slug}/rules/draft/")
    button = page.get_by_role("button", name=re.compile("^Up.*Is brief"))
    button.focus()
    for place in ("2", "1"):
        page.keyboard.press("Enter")
        expect(page.locator("#rule-is-brief td").first).to_have_text(place)
        expect(button).to_be_focused()
        expect(page.locator(".htmx-added")).to_have_count(0)  # from then on its form is sent without leaving the page
    page.get_by_role("button", name=re.compile("^Bring back.*Sells nothing")).click()
    expect(page.locator("tbody tr")).to_have_count(4)
    assert [rule.key for rule in draft.rules.all()] == [
        "is-brief",
        "stays-kind",
        "says-when-it-is-unsure",
        "sells-nothing",
    ]


def test_from_nothing_to_a_second_version_without_a_script(visit: Visitor, project: Project, maria: str) -> None:
    page = visit(maria, java_script_enabled=False).go(f"/projects/{project.slug}/rules/")
    page.get_by_role("button", name="Start with these 23 rules").click()
    page.get_by_role("button", name=re.compile("^Remove.*No stereotypes")).click()
    page.get_by_role("button", name=re.compile("^Down.*No subtle bias")).click()
    page.get_by_role("link", name="Compare and publish").click()
    page.get_by_role("button", name="Publish rule set 1").click()
    expect(page.get_by_text("Rule set 1 is published and frozen.")).to_be_visible()
    page.get_by_role("button", name="Change the rules").click()
    page.get_by_role("link", name="No threats").click()
    page.get_by_label("Wording", exact=True).fill("Do not threaten.")
    page.get_by_role("button", name="Save the rule").click()
    page.get_by_role("link", name="Compare and publish").click()
    page.get_by_label("Another meaning: judge anew").check(force=True)
    page.get_by_label("Why?", exact=True).fill("Shorter.")
    page.get_by_role("button", name="Publish rule set 2").click()
    expect(page.get_by_role("heading", name="Rule set 2")).to_be_visible()
    published = rule_sets.published_set(project)
    assert published is not None and (published.number, published.note, published.rules.count()) == (2, "Shorter.", 22)
    assert [rule.key for rule in published.rules.filter(continues=None)] == ["threats"]


def test_the_table_is_sorted_by_its_heads_at_every_width(visit: Visitor, project: Project, draft: RuleSet) -> None:
    for device in (DESK, PHONE):
        page = visit("maria", device).go(f"/projects/{project.slug}/rules/")
        expect(page.locator("tbody th b").first).to_have_text("Stays kind")
        page.get_by_role("link", name="Rule", exact=True).click()
        expect(page.locator("tbody th b").first).to_have_text("Says when it is unsure")


def test_one_more_person_is_asked_and_not_after_all_by_keyboard(
    visit: Visitor, project: Project, draft: RuleSet
) -> None:
    make.make_member(project, "dora")
    page = visit("maria").go(f"/projects/{project.slug}/rules/differing/")
    page.get_by_label("Together they say").select_option("undecided")
    page.get_by_role("button", name="Show these").press("Enter")
    expect(page.get_by_label("Together they say")).to_have_value("undecided")
    page.get_by_role("button", name="Ask one more person").first.press("Enter")
    expect(page.locator("#notices")).to_contain_text("One more person is asked")
    expect(page.get_by_label("Together they say")).to_have_value("undecided")
    page.get_by_role("button", name="Undo").press("Enter")
    expect(page.locator("#notices")).to_contain_text("Nobody more is asked about it.")
