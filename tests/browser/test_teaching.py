"""A manager teaches the policy what people wrote, from the overview's card to the round that runs; axe on the way."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from feedback.models import Project
from rewardtrain.demonstrations_to_learn import FEWEST_DEMONSTRATIONS
from rewardtrain.models import Round
from rewardtrain.rounds import FEWEST_RANKINGS
from tests import make
from tests.browser.conftest import DESK, PHONE, Visitor
from tests.browser.test_accessibility import look_at

pytestmark = [pytest.mark.browser, pytest.mark.once]


def write(project: Project, *numbers: int) -> None:
    for number in numbers:
        written = make.write(make.make_write_slot(project, text=f"Asked {number}?"), f"Answer number {number}.")
        make.review(make.make_review_slot(written))


def rank(project: Project) -> None:
    for number in range(FEWEST_RANKINGS):
        make.make_ranking(comparison=make.make_comparison(project, text=f"Question {number}?"))
    for number in range(20):
        make.make_prompt(project, f"Held out {number}?", "validation")


@pytest.mark.parametrize("device", [DESK, PHONE], ids=["desk", "phone"])
def test_from_the_card_to_the_round(visit: Visitor, project: Project, device: dict[str, Any]) -> None:
    make.make_member(project, "maria", role="manager")
    make.make_member(project, "bob")
    found = []
    path = f"/projects/{project.slug}/rounds/teach/"
    write(project, 0)
    seen = visit("maria", device)
    found += look_at(seen.go(path), "too few")
    write(project, *range(1, FEWEST_DEMONSTRATIONS))
    found += look_at(seen.go(path), "no rankings")
    rank(project)
    page = seen.go(f"/projects/{project.slug}/")
    page.get_by_role("link", name="Teach the policy what people wrote").click()
    expect(page.get_by_role("heading", name="Teach the policy what people wrote?")).to_be_visible()
    found += look_at(page, "ready")
    page.get_by_role("button", name="Start round 1").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Round 1 has begun.")).to_be_visible()
    assert Round.objects.get().algorithm == "SFT"
    expect(page.get_by_role("heading", name="Round 1: snapshot")).to_be_visible()
    page.wait_for_load_state("networkidle")
    found += look_at(page, "the round")
    assert not found, "\n".join(found)
