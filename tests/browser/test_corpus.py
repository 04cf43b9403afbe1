"""A manager's pages about the corpus in a browser: axe on each, a search by keyboard, all of it without a script."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from feedback.models import Document, Project
from tests import make
from tests.browser.conftest import DESK, PHONE, Visitor
from tests.browser.test_accessibility import look_at

pytestmark = pytest.mark.browser

FERN = "# Where they grow\n\nFerns want deep shade.\n\n# What they need\n\nWater ferns twice a week."


@pytest.fixture
def maria(project: Project) -> str:
    make.make_member(project, "maria", role="manager")
    return "maria"


@pytest.fixture
def document(project: Project, maria: str) -> Document:
    make.make_document(project, "Roses want full sun.", title="Roses", source="care-sheets/roses.md")
    return make.make_document(project, FERN, title="Ferns", source="https://plants.example.org/" + "care/" * 30)


@pytest.mark.once
def test_axe_finds_nothing(visit: Visitor, project: Project, document: Document) -> None:
    found = []
    for device in (DESK, PHONE):
        seen = visit("maria", device)
        for path in ("", "?q=shade", "?q=helicopter", "?removed=1", f"{document.pk}/"):
            found += look_at(seen.go(f"/projects/{project.slug}/corpus/{path}"), path or "corpus")
    assert not found, "\n".join(found)


@pytest.mark.once
def test_axe_finds_nothing_where_there_is_nothing_yet(visit: Visitor, project: Project, maria: str) -> None:
    found = []
    for device in (DESK, PHONE):
        found += look_at(visit(maria, device).go(f"/projects/{project.slug}/corpus/"), "no documents")
    assert not found, "\n".join(found)


def test_a_search_by_keyboard_shows_what_it_finds_and_keeps_it_in_the_address(
    visit: Visitor, project: Project, document: Document
) -> None:
    page = visit("maria").go(f"/projects/{project.slug}/corpus/")
    page.get_by_role("searchbox").focus()
    page.keyboard.type("watering")
    page.keyboard.press("Enter")
    expect(page.get_by_text("1 passage, best first.")).to_be_visible()
    expect(page.get_by_role("article")).to_contain_text("Water ferns twice a week.")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.reload()
    expect(page.get_by_role("searchbox")).to_have_value("watering")
    expect(page.get_by_role("article")).to_contain_text("Water ferns twice a week.")


def test_a_document_is_searched_taken_out_and_brought_back_without_a_script(
    visit: Visitor, project: Project, document: Document
) -> None:
    page = visit("maria", java_script_enabled=False).go(f"/projects/{project.slug}/corpus/")
    page.get_by_role("searchbox").fill("shade")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.get_by_role("article")).to_contain_text("Ferns want deep shade.")
    page.get_by_role("link", name="Ferns").click()
    page.get_by_role("button", name="Take it out").click()
    expect(page.get_by_text("No search finds Ferns any more.")).to_be_visible()
    page.get_by_role("button", name="Bring it back").click()
    expect(page.get_by_text("Searches find Ferns again.")).to_be_visible()
    assert Document.objects.searched().count() == 2
