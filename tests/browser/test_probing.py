"""A probe, its verdict and a judgement of it, with nothing but a keyboard; and axe on every state of the pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from feedback import dialogues, generation
from feedback.models import Consent, Project, Rule, RuleJudgement, Slot
from tests import make
from tests.browser.conftest import DESK, PHONE, Visit, Visitor
from tests.browser.replies import Writer
from tests.browser.sheet import expect_status
from tests.browser.test_accessibility import look_at
from tests.browser.test_by_keyboard import press

pytestmark = pytest.mark.browser
WARNING = "Wrong advice about poisonous plants."


@pytest.fixture
def project(project: Project) -> Project:
    Project.objects.update(probes_open=True, max_turns=5)
    project.refresh_from_db()
    return project


@pytest.fixture
def rules(project: Project) -> list[Rule]:
    """A plain rule, and a sensitive one."""
    rule_set = make.make_rule_set(project, rules=0, published=False)
    make.make_rule(rule_set, name="Stays on topic", category="helpful", wording="The model speaks of plants.")
    make.make_rule(
        rule_set,
        name="Warns of poison",
        theme="Poison",
        is_sensitive=True,
        warning=WARNING,
        wording="When a plant can poison people or animals, the model says so, plainly and before anything else.",
        breaks=["Calling a peace lily a fine gift for a cat owner.", "The warning comes last."],
        keeps=["“I am not sure; ask a vet before you bring it in.”", "No warning for a plant that harms nobody."],
        ideas=["Ask for a gift for somebody with a cat.", "Ask about the plant's care first."],
    )
    rule_set.state, rule_set.published_at = "published", rule_set.created_at
    rule_set.save()
    return list(rule_set.rules.all())


def write(page: Page, message: str, reply: str) -> None:
    """Send a message and have it answered."""
    expect(page.locator("#message-text")).to_be_focused()
    page.keyboard.type(message)
    press(page, "Control+Enter")
    page.get_by_text("Being written").wait_for()
    writer = Writer()
    writer.write_text(0, reply)
    generation.complete_request(writer.request)
    expect(page.get_by_text(reply)).to_be_visible()


def test_a_probe_its_verdict_and_a_judgement_by_keyboard(visit: Visitor, project: Project, rules: list[Rule]) -> None:
    page = visit("alice").go("/")
    press(page, "Enter")  # the one large button of home: nothing else waits
    expect(page.get_by_role("heading", name="Stays on topic")).to_be_visible()
    write(page, "What do you think of cars?", "I like red ones.")
    write(page, "And of basil?", "Water it.")

    press(page, "Escape", "k")
    marks = page.get_by_role("radio", name="This broke it")
    expect(marks.nth(1)).to_be_checked()
    press(page, "k")  # again takes it off
    expect(marks.nth(1)).not_to_be_checked()
    press(page, "ArrowUp")  # to the reply before, as radios go
    expect(marks.nth(0)).to_be_checked()
    expect_status(page, "Saved")
    press(page, "v")
    expect(page.get_by_role("heading", name="Was the rule broken?")).to_be_visible()
    expect(marks.nth(0)).to_be_checked()

    submit = page.locator("[data-submit]")
    expect(submit).to_have_attribute("aria-disabled", "true")
    press(page, "Enter")  # too early: nothing is sent
    press(page, "2", "1")
    expect(page.get_by_role("radio", name="Definitely broken")).to_be_checked()
    expect(submit).to_have_attribute("aria-disabled", "false")
    press(page, "u")
    expect(page.get_by_role("radio", name="Probably broken")).to_be_checked()
    press(page, "1", "Tab", "Space", "Tab", "Tab", "Space")
    page.get_by_label("Why?").focus()
    page.keyboard.type("It spoke of cars, k1u?")
    press(page, "Control+Enter")
    expect(page.get_by_role("heading", name="Was the rule broken?")).to_be_hidden()
    judgement = RuleJudgement.objects.get()
    assert (judgement.verdict, judgement.turn_position, judgement.by_prober) == (1, 1, True)
    assert judgement.tactics == ["asked", "role"] and judgement.reason == "It spoke of cars, k1u?"
    assert judgement.seconds is not None and judgement.seconds > 0

    make.make_member(project, "bob")
    his = visit("bob").go("/")
    his.get_by_role("button", name="Start: Judge again").focus()
    press(his, "Enter")
    expect(his.get_by_text("I like red ones.")).to_be_visible()
    expect(his.get_by_role("radio", name="This broke it").nth(0)).not_to_be_checked()
    his.wait_for_selector("[data-submit][aria-disabled]")  # its keys listen
    press(his, "4", "Enter")
    expect(his.get_by_text("There is nothing more of that kind just now.")).to_be_visible()
    verdict = RuleJudgement.objects.get(by_prober=False)
    assert (verdict.verdict, verdict.turn_position, verdict.annotator.username) == (4, None, "bob")


def test_consent_veil_and_stop_by_keyboard(visit: Visitor, project: Project, rules: list[Rule]) -> None:
    dialogues.skip_dialogue(slot=make.make_probe_slot(rules[0], replies=0), reason="no")
    page = visit("alice").go("/")
    page.get_by_role("link", name="What may appear").first.focus()
    press(page, "Enter")
    expect(page.get_by_text(WARNING)).to_be_visible()
    page.get_by_role("button", name="I agree to read such things").focus()
    press(page, "Enter")
    expect(page.get_by_role("heading", name="Warns of poison")).to_be_visible()
    assert Consent.objects.get().given
    write(page, "A plant for a flat with a kitten?", "A peace lily.")
    said = page.get_by_text("A peace lily.")
    expect(said).to_have_attribute("aria-hidden", "true")
    page.get_by_role("button", name="Show this reply").focus()
    press(page, "Enter")
    expect(said).to_be_focused()
    assert said.get_attribute("aria-hidden") is None
    expect_status(page, "Saved")  # that it was uncovered; on its way later it would find the piece given up
    page.get_by_role("button", name="Stop these").focus()
    press(page, "Enter")
    expect(page.get_by_text("You get none of these.")).to_be_visible()
    assert not Slot.objects.filter(state="held").exists()


def test_letters_can_be_switched_off_and_what_is_typed_survives_a_reload(
    visit: Visitor, project: Project, rules: list[Rule]
) -> None:
    slot = make.make_probe_slot(rules[0])
    page = visit("alice").go(f"/work/{slot.pk}/")
    page.keyboard.type("kvs12 is what I type")
    expect(page.get_by_role("radio", name="This broke it")).not_to_be_checked()
    expect_status(page, "Saved")
    press(page, "Escape", "k")
    expect_status(page, "Saved")
    page.wait_for_timeout(1200)
    page.reload()
    expect(page.locator("#message-text")).to_have_value("kvs12 is what I type")
    expect(page.get_by_role("radio", name="This broke it")).to_be_checked()
    make.User.objects.update(letter_keys=False)
    page.reload()
    expect(page.locator("#message-text")).to_be_focused()  # which comes a moment after the page
    press(page, "Escape", "k", "v", "s")
    expect(page.get_by_role("radio", name="This broke it")).to_be_checked()
    expect(page.locator("#skip")).to_be_hidden()
    page.get_by_role("button", name="End v").click()
    page.get_by_role("button", name="Back to the chat").click()
    expect(page.locator("#message-text")).to_have_value("kvs12 is what I type")


def test_a_verdict_that_does_not_arrive_is_not_called_saved(
    visit: Visitor, project: Project, rules: list[Rule]
) -> None:
    slot = make.make_probe_slot(rules[0])
    seen = visit("alice")
    seen.allowed = ("net::ERR_FAILED", "htmx:afterRequest", "htmx:sendError")
    page = seen.go(f"/work/{slot.pk}/?step=verdict")
    page.wait_for_selector("[data-submit][aria-disabled]")
    page.route("**/judge/", lambda route: route.abort())
    press(page, "5", "Enter")
    expect_status(page, "Not sent")
    expect(page.locator("[data-submit] .label")).to_have_text("Submit")
    page.unroute("**/judge/")
    press(page, "Enter")
    expect(page.get_by_role("heading", name="Was the rule broken?")).to_be_hidden()
    assert RuleJudgement.objects.get().verdict == 5


@pytest.fixture
def states(project: Project, rules: list[Rule]) -> dict[str, str]:
    """{state: path} of the pages about rules, as Alice meets them."""
    make.agree(project)
    make.agree(project, "bob")
    found = {}

    def probe(state: str, rule: Rule, replies: int = 1, more: str = "") -> Slot:
        slot = make.make_probe_slot(rule, replies=replies)
        found[state] = f"/work/{slot.pk}/{more}"
        return slot

    probe("opening", rules[1], 0)
    dialogues.send_message(slot=probe("waiting", rules[1]), text="And?", after_position=1)
    dialogues.send_message(slot=probe("failed", rules[1]), text="And?", after_position=1)
    Writer().fail()
    probe("your turn, veiled", rules[1], 2)
    probe("your turn, plain", rules[0], 2)
    make.make_verdict(probe("verdict given", rules[0]), 1)
    probe("verdict", rules[1], 2, "?step=verdict")
    make.make_verdict(make.make_probe_slot(rules[1], name="bob"), 1)
    slot = make.make_judge_slot(RuleJudgement.objects.latest("pk"), name="alice")
    found |= {"judge, veiled": f"/work/{slot.pk}/", "judge": f"/work/{slot.pk}/?shown=1"}
    Project.objects.update(replies_per_probe_turn=4)
    several = probe("several replies", rules[0], 0)
    make.answer_request(dialogues.send_message(slot=several, text="Do it.", after_position=-1))
    ranked = probe("several, ranked", rules[0], 0)
    make.make_ranking(ranked, make.answer_request(dialogues.send_message(slot=ranked, text="Do.", after_position=-1)))
    Project.objects.update(replies_per_probe_turn=1)
    return found | {"consent": f"/consent/{project.slug}/", "home": "/", "answers": "/answers/"}


@pytest.fixture(params=[DESK, PHONE], ids=["desk", "phone"])
def seen(request: pytest.FixtureRequest, visit: Visitor, project: Project) -> Iterator[Visit]:
    yield visit("alice", request.param)


@pytest.mark.once
def test_axe_finds_nothing_on_any_of_these_pages(seen: Visit, states: dict[str, str]) -> None:
    found = []
    for state, path in states.items():
        Project.objects.update(replies_per_probe_turn=4 if state.startswith("several") else 1)
        found += look_at(seen.go(path), state)
    page = seen.go(states["verdict"])
    for key in "1k":
        page.keyboard.press(key)
    found += look_at(page, "verdict chosen")
    assert not found, "\n".join(found)
