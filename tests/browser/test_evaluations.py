"""A manager's evaluations in a browser: axe on each page, and nothing that scrolls sideways."""

from __future__ import annotations

from typing import Any

import pytest

from feedback.models import Project, WorkItem
from rewardtrain import evaluations
from rewardtrain.models import TrainingRun
from tests import make
from tests.browser.conftest import DESK, PHONE, Visitor
from tests.browser.test_accessibility import look_at
from tests.feedback.test_blind_sets import rank, say
from tests.rewardtrain.test_evaluation_pages import evaluation

pytestmark = pytest.mark.browser


@pytest.fixture
def run(project: Project) -> TrainingRun:
    """An evaluation that is done, with half of a blind set answered; another one runs."""
    make.make_member(project, "maria", role="manager")
    made = evaluation(project, everyday=12, probes=4)
    evaluations.ask_people(made, comparisons=8, probes=2)
    for place, item in enumerate(WorkItem.objects.filter(kind="rank").order_by("pk")[:6]):
        texts = sorted(candidate.text for candidate in item.comparison.candidates.all())
        order = texts if place == 4 else texts[::-1]
        rank(item, {text: min(number + 1, 3) for number, text in enumerate(order)})
    for item in WorkItem.objects.filter(kind="judge").order_by("pk")[:3]:
        say(item, 1 if item.pk % 2 else 5)
    evaluation(project, "running")
    return made


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.once
def test_axe_finds_nothing(
    visit: Visitor, project: Project, run: TrainingRun, device: dict[str, Any], scheme: str
) -> None:
    seen = visit("maria", device, color_scheme=scheme)
    found = []
    for path in ("", f"{run.pk}/", f"{run.pk + 1}/"):
        page = seen.go(f"/projects/{project.slug}/rounds/evaluations/{path}")
        found += look_at(page, path or "evaluations")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not found, "\n".join(found)


@pytest.mark.once
def test_axe_finds_nothing_where_there_is_nothing_yet(visit: Visitor, project: Project) -> None:
    make.make_member(project, "maria", role="manager")
    found = look_at(visit("maria", PHONE).go(f"/projects/{project.slug}/rounds/evaluations/"), "none")
    assert not found, "\n".join(found)
