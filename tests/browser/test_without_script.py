"""Where no script runs, the same forms carry the same work."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from feedback import dialogues
from feedback.models import Project, Ranking, Turn
from tests import make
from tests.browser.conftest import Visitor
from tests.browser.replies import write_all

pytestmark = [pytest.mark.browser, pytest.mark.once]


def test_rank_write_on_and_end(visit: Visitor, project: Project) -> None:
    dialogues.open_dialogue(project=project, prompt=make.make_prompt(project))
    write_all()
    page = visit("alice", java_script_enabled=False).go("/")
    page.get_by_role("button", name="Start", exact=True).click()
    for letter, place in zip("ABCD", "2143", strict=True):
        page.get_by_role("group", name=f"Place of reply {letter}").get_by_role("radio", name=place).check(force=True)
    page.get_by_role("button", name="Submit").click()
    page.get_by_label("Your message").fill("And in winter?")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("Being written").first).to_be_visible()
    write_all()
    expect(
        page.get_by_role("group", name="Place of reply A").get_by_role("radio", name="1")
    ).to_be_enabled()  # by itself
    page.get_by_label("None is good").check(force=True)
    page.get_by_role("button", name="Submit").click()
    page.get_by_role("button", name="End the dialogue").click()
    expect(page.get_by_text("There is nothing more of that kind just now.")).to_be_visible()
    assert Ranking.objects.in_force().count() == 2 and Turn.objects.filter(content="And in winter?").count() == 1


def test_a_refused_answer_keeps_its_places(visit: Visitor, project: Project) -> None:
    slot = make.make_chat(project)
    page = visit("alice", java_script_enabled=False)
    page.allowed = ("422 (Unprocessable Entity)",)
    page.go(f"/work/{slot.pk}/")
    page.page.get_by_role("button", name="Submit").click()
    expect(page.page.get_by_role("alert")).to_have_text("Give at least one reply a place, or say that none is good.")
    expect(page.page.get_by_role("alert")).to_be_focused()
