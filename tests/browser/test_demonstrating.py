"""A reply and its review with nothing but a keyboard, what was pasted, and axe on every state of the pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from feedback import demonstration_turns, demonstrations_wanted
from feedback.models import Demonstration, DemonstrationReview, Project, Slot
from tests import make
from tests.browser.conftest import DESK, PHONE, Visit, Visitor
from tests.browser.sheet import expect_status
from tests.browser.test_accessibility import look_at
from tests.browser.test_by_keyboard import press

pytestmark = pytest.mark.browser
REPLY = "Too much water is the usual reason. Let the soil dry before you water again."


@pytest.fixture
def project(project: Project) -> Project:
    Project.objects.update(demonstrations_open=True)
    project.refresh_from_db()
    make.make_member(project, "bob")
    rule_set = make.make_rule_set(project, rules=0, published=False)
    make.make_rule(rule_set, name="Stays on topic", wording="The model speaks of plants, and of nothing else.")
    make.make_rule(rule_set, name="Says what it does not know", wording="Where it is not sure, the model says so.")
    rule_set.state, rule_set.published_at = "published", rule_set.created_at
    rule_set.save()
    return project


def test_a_reply_its_next_turn_and_a_review_by_keyboard(visit: Visitor, project: Project) -> None:
    demonstrations_wanted.ask_for_demonstrations(prompt=make.make_prompt(project))
    page = visit("alice").go("/")
    press(page, "Enter")  # the one large button of home: nothing else waits
    field = page.get_by_label("The reply", exact=True)
    expect(field).to_be_focused()
    page.keyboard.type(REPLY)
    expect(page.get_by_text("15 words, 76 characters.")).to_be_visible()
    expect_status(page, "Saved")
    page.reload()
    expect(field).to_have_value(REPLY)
    page.get_by_text("Preview").focus()
    press(page, "Enter")
    expect(page.locator("[data-preview-text]")).to_have_text(REPLY)
    page.get_by_role("button", name="Submit and write the next turn").focus()
    press(page, "Enter")
    expect(page.get_by_label("What the person says")).to_be_focused()
    page.keyboard.type("And in winter?")
    press(page, "Control+Enter")
    expect(field).to_be_focused()
    page.keyboard.type("Less still; once a month will do.")
    press(page, "Control+Enter")
    expect(page.get_by_text("There is nothing more of that kind just now.")).to_be_visible()
    first, second = Demonstration.objects.order_by("pk")
    assert (first.content, first.pasted_share, second.position) == (REPLY, 0.0, 2)
    assert first.seconds is not None and first.seconds > 0

    his = visit("bob").go("/")
    his.get_by_role("button", name="Start: Review").focus()
    press(his, "Enter")
    expect(his.get_by_text(REPLY).first).to_be_visible()
    submit = his.locator("[data-submit]")
    expect(submit).to_have_attribute("aria-disabled", "true")
    press(his, "Enter")  # too early: nothing is sent
    press(his, "b")
    expect(his.get_by_label("What is to change?")).to_be_focused()
    his.keyboard.type("Say how often, abe?")
    press(his, "Control+Enter")
    expect(his.get_by_text("Less still; once a month will do.").first).to_be_visible()
    his.wait_for_selector("[data-submit][aria-disabled]")
    press(his, "a")
    expect(his.get_by_role("radio", name="Accept")).to_be_checked()
    press(his, "e")
    expect(his.get_by_label("As it should be")).to_be_focused()
    press(his, "Control+a")
    his.keyboard.type("Less: once a month.")
    press(his, "Control+Enter")
    expect(his.get_by_text("There is nothing more of that kind just now.")).to_be_visible()
    said = list(DemonstrationReview.objects.order_by("pk").values_list("verdict", "reason"))
    assert said == [("sent_back", "Say how often, abe?"), ("edited", "")]
    assert Demonstration.objects.waiting().get().content == "Less: once a month."

    page.goto(page.url)
    page.get_by_role("button", name="Start: Demonstrate").focus()
    press(page, "Enter")
    expect(page.get_by_text("Sent back by a reviewer: Say how often, abe?")).to_be_visible()
    expect(field).to_have_value(REPLY)


def test_what_is_pasted_is_counted_and_survives_a_reload(visit: Visitor, project: Project) -> None:
    slot = make.make_write_slot(project)
    page = visit("alice").go(f"/work/{slot.pk}/")
    field = page.get_by_label("The reply", exact=True)
    page.keyboard.type("0123456789")
    field.evaluate(
        """(field) => {
          const clipboardData = new DataTransfer();
          clipboardData.setData("text/plain", "0123456789");
          field.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
          field.setRangeText("0123456789");
          field.dispatchEvent(new Event("input", { bubbles: true }));
        }"""
    )
    expect_status(page, "Saved")
    page.wait_for_timeout(1200)
    page.reload()
    expect(page.locator("[data-pasted]")).to_have_value("10")
    press(page, "Control+Enter")
    expect(page.get_by_text("There is nothing more of that kind just now.")).to_be_visible()
    assert Demonstration.objects.get().pasted_share == 0.5


def test_a_reply_of_the_models_is_a_start_and_one_click_away(visit: Visitor, project: Project) -> None:
    make.make_comparison(project, texts=["Let it dry.", "Let it dry.", "Let it dry.", "Let it dry."])
    slot = make.make_write_slot(project)
    page = visit("alice").go(f"/work/{slot.pk}/")
    page.get_by_text("Start from a reply of the model’s").click()
    page.get_by_role("button", name="Start from this one").click()
    expect(page.get_by_label("The reply", exact=True)).to_have_value("Let it dry.")


def test_letters_are_silent_where_they_are_switched_off(visit: Visitor, project: Project) -> None:
    slot = make.make_review_slot(make.write(make.make_write_slot(project, name="bob")), name="alice")
    make.User.objects.update(letter_keys=False)
    page = visit("alice").go(f"/work/{slot.pk}/")
    page.wait_for_selector("[data-submit][aria-disabled]")
    press(page, "a", "b", "e", "s")
    expect(page.get_by_role("radio", checked=True)).to_have_count(0)
    expect(page.locator("#skip")).to_be_hidden()


@pytest.fixture
def states(project: Project) -> dict[str, str]:
    """{state: path} of the pages on which replies are written and reviewed, as Alice meets them."""
    found = {}
    make.make_comparison(project, text="One?", texts=[REPLY, "Sun.", "Wait a week, and look again.", "Water it."])

    def piece(state: str, slot: Slot) -> Slot:
        found[state] = f"/work/{slot.pk}/"
        return slot

    piece("to write", make.make_write_slot(project, text="One?"))
    piece("waiting", make.make_write_slot(project, text="Two?"))
    make.write(Slot.objects.latest("pk"), REPLY)
    accepted = make.write(piece("accepted", make.make_write_slot(project, text="Three?")), "Once a week.")
    make.review(make.make_review_slot(accepted))
    piece("to say", demonstration_turns.open_next_turn(demonstration=accepted))
    back = make.write(make.make_write_slot(project, text="Four?"), "It depends.")
    make.review(make.make_review_slot(back), "sent_back", reason="Say on what, and how one can tell.")
    item = back.work_items.get(kind="demonstrate")
    piece("sent back", make.slots.claim_slot(item.slots.get().pk, user=make.make_user("alice")))
    late = piece("late", make.make_write_slot(project, text="Five?"))
    make.lapse(late)
    theirs = make.write(make.make_write_slot(project, text="Six?", name="bob"), "Let the soil dry first.")
    piece("to review", make.make_review_slot(theirs, name="alice"))
    alike = make.write(make.make_write_slot(project, text="Seven?", name="bob"), REPLY, keep_alike=True)
    piece("to review, alike", make.make_review_slot(alike, name="alice"))
    edited = make.write(make.make_write_slot(project, text="Eight?", name="bob"), "No.")
    make.review(piece("edited", make.make_review_slot(edited, name="alice")), "edited", content="No, and here is why.")
    return found | {"home": "/", "answers": "/answers/"}


@pytest.fixture(params=[DESK, PHONE], ids=["desk", "phone"])
def seen(request: pytest.FixtureRequest, visit: Visitor, project: Project) -> Iterator[Visit]:
    yield visit("alice", request.param)


@pytest.mark.once
def test_axe_finds_nothing_on_any_of_these_pages(seen: Visit, states: dict[str, str]) -> None:
    found = []
    for state, path in states.items():
        found += look_at(seen.go(path), state)
    page = seen.go(states["to write"])
    page.evaluate("document.querySelectorAll('details').forEach((details) => (details.open = true))")
    found += look_at(page, "to write, all open")
    page = seen.go(states["to review"])
    for key, state in (("b", "send back"), ("e", "edit")):
        page.locator(f"[data-key={key}]").evaluate("(field) => field.click()")
        found += look_at(page, f"to review, {state}")
    assert not found, "\n".join(found)
