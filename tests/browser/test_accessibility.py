"""axe-core on every page and every state of the task pages, at 390 and 1440 pixels, light and dark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from feedback import dialogues, drafts, slots
from feedback.models import Project, Slot
from tests import make
from tests.browser.conftest import DESK, PHONE, Visit, Visitor
from tests.browser.replies import TEXTS, Writer
from tests.browser.sheet import expect_sheet
from tests.rewardtrain.test_rounds_page import running, waiting

pytestmark = [pytest.mark.browser, pytest.mark.once]
AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text()
RUN = """async (only) => {
  const { violations } = await axe.run(document, only ? { runOnly: { type: "rule", values: only } } : {});
  const said = ({ target, any }) => `${target} (${any.map(({ message }) => message)})`;
  return violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.map(said).join("; ")}`);
}"""
COLOURS = ["color-contrast", "link-in-text-block"]  # what another scheme can change


def findings(page: Page, only: list[str] | None = None) -> list[str]:
    """What axe finds, of any impact."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    found: list[str] = page.evaluate(RUN, only)
    return found


def look_at(page: Page, where: str) -> list[str]:
    """What axe finds in light and dark, everything in view: a phone shows all of a long page, nothing under the bar."""
    size = page.viewport_size
    assert size is not None
    page.set_viewport_size({"width": size["width"], "height": max(size["height"], page.evaluate(FULL_HEIGHT))})
    found: list[str] = []
    for scheme, only in (("light", None), ("dark", COLOURS)):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        found += [f"{where}, {size['width']} px, {scheme}: {finding}" for finding in findings(page, only)]
    if page.evaluate("document.documentElement.scrollWidth") > size["width"]:
        found.append(f"{where}, {size['width']} px: scrolls sideways")
    page.set_viewport_size(size)
    return found


FULL_HEIGHT = "document.documentElement.scrollHeight + 200"


@pytest.fixture
def work(project: Project) -> dict[str, str]:
    """{name of a state: path}: every state that a task page can be in."""
    make.make_member(project, "maria", role="manager")
    found: dict[str, Slot] = {}

    def chat(state: str, text: str) -> tuple[Slot, Writer]:
        item = dialogues.open_dialogue(project=project, prompt=make.make_prompt(project, text))
        slot = slots.claim_slot(item.slots.get().pk, user=make.make_user("alice"))
        assert slot is not None
        found[state] = slot
        return slot, Writer()

    def ranked(state: str, text: str, **answer: Any) -> Slot:
        slot, writer = chat(state, text)
        make.make_ranking(slot, writer.finish(), **answer)
        return slot

    chat("waiting", "How do I repot an orchid?")[1].write(0, 2)
    chat("rank", "Why are my basil leaves yellow?")[1].finish()
    _, writer = chat("failed", "Can tomatoes live outside?")
    writer.write(0, 1, 3)
    writer.fail()
    chat("nothing came", "Is anybody there?")[1].fail()
    ranked("ranked", "My orchid has silver leaves")
    ranked("none good", "What is root rot?", ranks={}, all_bad=True)
    dialogues.end_dialogue(slot=ranked("ended", "How often do cacti want water?"))
    found["opening"] = dialogues.open_own_dialogue(project=project, user=make.make_user("alice"))
    taken = ranked("taken", "Which window suits a monstera?")
    drafts.keep_unsent(taken, message="Half a thought")
    make.lapse(taken)
    fresh = Slot.objects.get(work_item=taken.work_item, state="free")
    slots.claim_slot(fresh.pk, user=make.make_member(project, "bob"))
    found["rank only"] = make.make_rank_slot(
        make.make_comparison(project, texts=list(TEXTS), text="Is my fern thirsty?")
    )
    nine = make.make_comparison(project, candidates=9, text="Nine of them")
    found["nine replies"] = slots.claim_slot(make.make_rank_work(nine).slots.first().pk, user=make.make_user("alice"))
    return {state: f"/work/{slot.pk}/" for state, slot in found.items()}


@pytest.fixture(params=[DESK, PHONE], ids=["desk", "phone"])
def seen(request: pytest.FixtureRequest, visit: Visitor, project: Project) -> Iterator[Visit]:
    yield visit("alice", request.param)


def test_axe_sees_what_is_wrong(visit: Visitor, project: Project) -> None:
    page = visit("alice").go("/")
    page.evaluate("document.querySelector('h1').style.color = 'rgb(220, 215, 205)'")
    page.evaluate("document.querySelector('[data-enter], .button').removeAttribute('aria-label')")
    page.evaluate("document.querySelector('#main').append(document.createElement('button'))")
    assert sorted(finding.split(":")[0] for finding in findings(page)) == [
        "critical button-name", "serious color-contrast"
    ]  # fmt: skip


def test_every_state_of_the_task_pages(seen: Visit, work: dict[str, str]) -> None:
    found = []
    for state, path in work.items():
        found += look_at(seen.go(path), state)
    assert not found, "\n".join(found)


def flagged_and_placed(page: Page) -> None:
    for key in "bad":
        page.keyboard.press(key)
    page.keyboard.press("x")
    page.keyboard.press("0")


def refused(page: Page) -> None:
    page.evaluate("document.querySelector('[name=comparison]').value = ''")
    for key in "abcd":
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    expect(page.locator("[data-refused]")).to_be_visible()


def not_saved(page: Page) -> None:
    page.route("**/draft/", lambda route: route.abort())
    page.keyboard.press("0")
    expect(page.locator(".status.waiting")).to_be_visible()


DEEDS: dict[str, Callable[[Page], None]] = {
    "flagged and placed": flagged_and_placed,
    "all keys": lambda page: page.keyboard.press("?"),
    "skip": lambda page: page.keyboard.press("s"),
    "not saved": not_saved,
    "refused": refused,
}


def test_what_a_person_does_to_the_sheet(seen: Visit, project: Project) -> None:
    slot = make.make_chat(project)
    seen.allowed = ("net::ERR_FAILED", "422 (Unprocessable Entity)")
    found = []
    for name, deed in DEEDS.items():
        page = seen.go(f"/work/{slot.pk}/")
        expect_sheet(page)
        deed(page)
        found += look_at(page, name)
    assert not found, "\n".join(found)


def test_pages_around_the_work(seen: Visit, project: Project) -> None:
    ranking = make.make_ranking(make.make_chat(project))
    comparison = make.make_comparison(project, text="Is my fern thirsty?")
    make.make_ranking(make.make_rank_slot(comparison), comparison)
    paths = ["/", "/?none=1", "/answers/", f"/answers/{ranking.comparison_id}/", f"/answers/{comparison.pk}/"]
    paths += [f"/guidelines/{project.slug}/", "/settings/", "/password/", "/nothing-here/"]
    seen.allowed = ("404 (Not Found)",)
    found = []
    for path in paths:
        found += look_at(seen.go(path), path)
    page = seen.go("/")
    page.get_by_role("button", name="Alice").click()
    found += look_at(page, "menu under the name")
    page.goto(seen.address + "/password/")
    for label in ("Password now", "New password", "New password, once more"):
        page.get_by_label(label, exact=True).fill("short")
    page.keyboard.press("Enter")
    expect(page.locator(".field-error").first).to_be_visible()
    found += look_at(page, "password refused")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("device", [DESK, PHONE], ids=["desk", "phone"])
def test_the_door_and_an_empty_house(visit: Visitor, project: Project, device: dict) -> None:
    page = visit(device=device).go("/sign-in/")
    found = look_at(page, "sign-in")
    page.get_by_label("User name").fill("alice")
    page.get_by_label("Password").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    found += look_at(page, "sign-in refused")
    found += look_at(visit("charlie", device).go("/"), "in no project")
    assert not found, "\n".join(found)


def test_managers_pages(visit: Visitor, project: Project) -> None:
    make.make_member(project, "maria", role="manager")
    make.make_ranking(make.make_chat(project))
    found = []
    for device in (DESK, PHONE):
        seen = visit("maria", device)
        for path in ("", "rounds/"):
            found += look_at(seen.go(f"/projects/{project.slug}/{path}"), path or "overview")
    waiting(project, failed=("length",))
    runs = running(project, number=2).runs
    run, reward = (f"rounds/runs/{runs.get(kind=kind).pk}/" for kind in ("policy", "reward_model"))
    for device in (DESK, PHONE):
        seen = visit("maria", device)
        rounds = ("rounds/", "rounds/1/", "rounds/2/ledger/", "rounds/1/ledger/", "rounds/roll-back/")
        for path in ("", *rounds, run, reward):
            page = seen.go(f"/projects/{project.slug}/{path}")
            page.wait_for_load_state("networkidle")
            found += look_at(page, f"{path or 'overview'} with rounds")
    assert not found, "\n".join(found)


def test_at_twice_the_text_size_and_320_pixels_nothing_is_cut_off(visit: Visitor, project: Project) -> None:
    slot = make.make_chat(project)
    page = visit("alice", {"viewport": {"width": 320, "height": 640}}).go(f"/work/{slot.pk}/")
    expect_sheet(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.set_viewport_size({"width": 720, "height": 900})
    page.evaluate("document.documentElement.style.fontSize = '200%'")
    assert page.evaluate("document.documentElement.scrollWidth") <= 720
