"""What is typed survives reloads, outages and lost sessions; and "Saved" is said only of what the server has."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.sessions.models import Session
from playwright.sync_api import Page, Route, expect

from feedback.models import Draft, Project, Ranking, Slot, Turn
from tests import make
from tests.browser.conftest import Visit, Visitor
from tests.browser.sheet import expect_order, expect_sheet, expect_status, places, row, submit_button

pytestmark = pytest.mark.browser
NETWORK = (
    "Failed to load resource",
    "htmx:",
    "Response Status Error Code",
    "net::ERR",
)  # what the browser logs of outages


def let_requests_be_caught(page: Page) -> None:
    """Before the page is loaded: a page that already runs may send one more request past a route set then."""
    page.route("**/nobody-asks-for-this/", lambda route: route.abort())


@pytest.fixture
def ranking(visit: Visitor, project: Project) -> Visit:
    """Alice at replies to rank."""
    slot = make.make_chat(project)
    seen = visit("alice")
    seen.allowed = NETWORK
    let_requests_be_caught(seen.page)
    seen.go(f"/work/{slot.pk}/")
    expect_sheet(seen.page)
    return seen


@pytest.fixture
def writing(visit: Visitor, project: Project) -> Visit:
    """Alice at the message that follows her ranking."""
    slot = make.make_chat(project)
    make.make_ranking(slot)
    seen = visit("alice")
    seen.allowed = NETWORK
    let_requests_be_caught(seen.page)
    seen.go(f"/work/{slot.pk}/")
    expect(seen.page.locator("#message-text")).to_be_focused()
    return seen


RECORD_STATUS = """() => {
  const line = document.querySelector("[data-status]");
  const note = () => window.said.push(line.className + " " + line.querySelector("[data-status-text]").textContent);
  window.said = [];
  new MutationObserver(note).observe(line, { subtree: true, childList: true, attributes: true, characterData: true });
}"""


def keep_record_of_status(page: Page) -> Callable[[], list[str]]:
    """Everything the status line says from now on."""
    page.evaluate(RECORD_STATUS)
    return lambda: page.evaluate("window.said")


def test_places_flags_strength_and_message_survive_a_reload(ranking: Visit) -> None:
    page = ranking.page
    for key in "cadb":
        page.keyboard.press(key)
    page.keyboard.press("x")
    row(page, "B").get_by_role("combobox").select_option("nonsense")
    page.get_by_role("radio", name="3 of 4, clearly").check()
    expect_status(page, "Saved")
    page.wait_for_function("() => !document.querySelector('[data-status]').matches('.saving')")
    page.reload()
    expect_order(page, "C›A›D›B")
    assert row(page, "B").get_by_role("combobox").input_value() == "nonsense"
    expect(page.get_by_role("radio", name="3 of 4, clearly")).to_be_checked()
    expect_status(page, "Saved")


def test_what_was_typed_a_moment_before_a_reload_is_there_after_it(writing: Visit) -> None:
    page = writing.page
    page.keyboard.type("Typed and gone at once")
    page.reload()
    expect(page.locator("#message-text")).to_have_value("Typed and gone at once")


def test_an_outage_is_told_the_text_is_kept_here_and_saved_when_it_is_over(writing: Visit) -> None:
    page = writing.page
    said = keep_record_of_status(page)
    page.route("**/draft/", lambda route: route.abort())
    page.keyboard.type("Through the outage")
    expect_status(page, "Not saved yet. Kept on this device; trying again in")
    assert not any("saved Saved" in line for line in said())
    assert not Draft.objects.filter(body__message="Through the outage").exists()
    page.reload()  # the page can still be read; only saving fails
    expect(page.locator("#message-text")).to_have_value("Through the outage")
    page.unroute("**/draft/")
    page.evaluate("dispatchEvent(new Event('online'))")
    expect_status(page, "Saved")
    assert Draft.objects.get().body["message"] == "Through the outage"


@pytest.mark.parametrize("status", [500, 503, 413])
def test_a_refused_save_is_never_called_saved(writing: Visit, status: int) -> None:
    page = writing.page
    said = keep_record_of_status(page)
    page.route("**/draft/", lambda route: route.fulfill(status=status, body="no"))
    page.keyboard.type("Refused")
    expect_status(page, "Not saved")
    assert not any(" Saved" in line for line in said())
    expect(page.locator("#message-text")).to_have_value("Refused")


def drop_the_answer(route: Route) -> None:
    """The server does what was asked, and its answer is lost on the way."""
    route.fetch(max_redirects=0)
    route.abort()


@pytest.mark.parametrize(
    "fault",
    [
        lambda route: route.abort(),
        drop_the_answer,
        lambda route: route.fulfill(status=500, body="no"),
        lambda route: route.fulfill(status=503, body="no"),
    ],
    ids=["request lost", "answer lost", "500", "503"],
)
def test_an_answer_that_did_not_arrive_is_sent_again_by_one_press(
    ranking: Visit, fault: Callable[[Route], None]
) -> None:
    page = ranking.page
    for key in "cadb":
        page.keyboard.press(key)
    page.route("**/rank/", fault)
    page.keyboard.press("Enter")
    expect_status(page, "Not sent: the server did not answer.")
    expect_order(page, "C›A›D›B")
    expect(submit_button(page)).not_to_have_attribute("aria-busy", "true")
    page.unroute("**/rank/")
    page.keyboard.press("Enter")
    expect(page.locator("#message-text")).to_be_focused()
    assert Ranking.objects.count() == 1


@pytest.mark.parametrize("fault", [lambda route: route.abort(), drop_the_answer], ids=["request lost", "answer lost"])
def test_a_message_that_did_not_arrive_is_sent_again_by_one_press(
    writing: Visit, fault: Callable[[Route], None]
) -> None:
    page = writing.page
    page.keyboard.type("And in winter?")
    page.route("**/send/", fault)
    page.keyboard.press("Control+Enter")
    expect_status(page, "Not sent: the server did not answer.")
    expect(page.locator("#message-text")).to_have_value("And in winter?")
    page.unroute("**/send/")
    page.keyboard.press("Control+Enter")
    expect_sheet(page)
    assert Turn.objects.filter(content="And in winter?").count() == 1


def test_a_refused_message_stays_and_the_focus_goes_to_the_reason(writing: Visit) -> None:
    page = writing.page
    page.evaluate("document.querySelector('#message-text').style.height = '20rem'")  # as by dragging its corner
    page.keyboard.press("Control+Enter")
    expect(page.locator("#message-error")).to_have_text("Write a message first.")
    expect(page.locator("#message-text")).to_have_attribute("aria-describedby", "message-error")
    page.locator("#message-text").fill("And in winter?")
    Turn.objects.create(
        dialogue=Slot.objects.get().work_item.dialogue, position=1, role="user", content="From elsewhere"
    )
    page.keyboard.press("Control+Enter")
    expect(page.locator("[data-refused]")).to_be_focused()
    expect(page.locator("[data-refused]")).to_contain_text("Another window already wrote the next message.")
    expect(page.locator("#kept-message")).to_have_value("And in winter?")


def test_two_windows_the_second_is_told_and_keeps_its_own(ranking: Visit) -> None:
    page = ranking.page
    other = page.context.new_page()
    other.goto(page.url)
    expect_sheet(other)
    for key in "abcd":
        other.keyboard.press(key)
    expect_status(other, "Saved")
    page.bring_to_front()
    page.keyboard.press("d")
    expect_status(page, "Not saved: Another window has saved a newer draft of this.")
    assert places(page) == {"D": 1}


def test_a_word_mended_just_before_sending_leaves_nothing_to_be_sent(writing: Visit) -> None:
    page = writing.page
    page.keyboard.type("And in wniter?")
    expect_status(page, "Saved")
    page.locator("#message-text").fill("And in winter?")
    page.keyboard.press("Control+Enter")
    expect_sheet(page)
    assert Turn.objects.filter(content="And in winter?").count() == 1
    assert Draft.objects.get().body == {}


def test_what_a_window_left_open_could_not_send_is_kept_after_what_a_newer_one_typed(writing: Visit) -> None:
    old = writing.page
    newer = old.context.new_page()
    newer.goto(old.url)
    newer.locator("#message-text").fill("A long thought")
    expect_status(newer, "Saved")
    Turn.objects.create(
        dialogue=Slot.objects.get().work_item.dialogue, position=1, role="user", content="From elsewhere"
    )
    old.bring_to_front()
    old.locator("#message-text").fill("foo")
    old.keyboard.press("Control+Enter")
    expect(old.locator("#kept-message")).to_have_value("A long thought\n\nfoo")
    assert Draft.objects.get().body["message"] == "A long thought\n\nfoo"


def test_a_session_that_ended_costs_no_text(writing: Visit) -> None:
    page = writing.page
    page.keyboard.type("Written before it ended")
    expect_status(page, "Saved")
    page.keyboard.type(", and after")
    Session.objects.all().delete()
    page.keyboard.press("Control+Enter")
    expect_status(page, "You were signed out.")
    expect(page.locator("#message-text")).to_have_value("Written before it ended, and after")
    page.reload()
    page.get_by_label("User name").fill("alice")
    page.get_by_label("Password").fill(make.PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator("#message-text")).to_have_value("Written before it ended, and after")


def test_a_page_whose_token_is_too_old_says_what_to_do(writing: Visit) -> None:
    page = writing.page
    page.keyboard.type("Written on an old page")
    page.context.clear_cookies(name="csrftoken")
    page.keyboard.press("Control+Enter")
    expect_status(page, "Not sent: this page is too old. Reload it and send again; nothing you typed is lost.")
    page.reload()
    expect(page.locator("#message-text")).to_have_value("Written on an old page")
    page.keyboard.press("Control+Enter")
    expect_sheet(page)
    assert Turn.objects.filter(content="Written on an old page").count() == 1


def test_home_asks_to_sign_in_when_the_session_ended(visit: Visitor, project: Project) -> None:
    seen = visit("alice")
    page = seen.go("/")
    Session.objects.all().delete()
    page.evaluate("htmx.trigger('#waiting', 'load')")
    page.evaluate("htmx.ajax('GET', '/', '#waiting')")
    expect(page.get_by_role("heading", name="Nestbox")).to_be_visible()
    assert page.url.endswith("/sign-in/?next=/")


def test_back_leads_to_what_is_so_now(visit: Visitor, project: Project) -> None:
    slot = make.make_chat(project)
    page = visit("alice").go("/")
    today = page.locator(".today b")
    expect(today).to_have_text("0")
    page.keyboard.press("Enter")
    expect_sheet(page)
    make.make_ranking(slot)
    page.go_back()
    expect(today).to_have_text("1")


def test_after_signing_out_back_shows_nothing(writing: Visit) -> None:
    page = writing.page
    writing.go("/")
    page.get_by_role("button", name="Alice").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("User name")).to_be_visible()
    page.go_back()
    expect(page.get_by_label("User name")).to_be_visible()


def test_signing_out_takes_along_what_was_kept_on_this_device(writing: Visit) -> None:
    page = writing.page
    page.route("**/draft/", lambda route: route.abort())
    page.keyboard.type("A secret")
    expect_status(page, "Kept on this device")
    assert "A secret" in page.evaluate("JSON.stringify(localStorage)")
    page.goto(writing.address + "/")
    page.get_by_role("button", name="Alice").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Nestbox")).to_be_visible()
    assert page.evaluate("JSON.stringify(localStorage)") == "{}"


def test_what_somebody_wrote_in_a_dialogue_they_lost_is_there_to_be_copied(writing: Visit, project: Project) -> None:
    page = writing.page
    page.keyboard.type("Half a thought")
    expect_status(page, "Saved")
    slot = Slot.objects.get()
    make.lapse(slot)
    fresh = Slot.objects.get(work_item=slot.work_item, state="free")
    make.slots.claim_slot(fresh.pk, user=make.make_member(project, "bob"))
    page.keyboard.type(", and the rest")
    page.keyboard.press("Control+Enter")
    expect(page.locator("[data-refused]")).to_be_focused()
    expect(page.get_by_label("You had written this")).to_have_value("Half a thought, and the rest")
    page.goto(writing.address + f"/work/{slot.pk}/")
    expect(page.get_by_label("You had written this")).to_have_value("Half a thought, and the rest")
