"""Replies on their way: each into its own row, without moving what is there, and honest words when they do not come."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone
from playwright.sync_api import Page, Request, expect

from feedback import dialogues, slots
from feedback.models import GenerationRequest, Project, Slot
from tests import make
from tests.browser.conftest import Visit, Visitor
from tests.browser.replies import Writer, write_all
from tests.browser.sheet import expect_order, expect_ready, expect_sheet, places, row, submit_button

pytestmark = pytest.mark.browser


@pytest.fixture
def seen(visit: Visitor, project: Project) -> Visit:
    item = dialogues.open_dialogue(project=project, prompt=make.make_prompt(project))
    slot = slots.claim_slot(item.slots.get().pk, user=make.make_user("alice"))
    assert slot is not None
    visit = visit("alice")
    visit.go(f"/work/{slot.pk}/")
    expect_sheet(visit.page)
    return visit


def letter_of(page: Page, text: str) -> str:
    return page.locator("[data-candidate]", has_text=text).get_attribute("data-letter") or ""


def test_replies_come_without_moving_or_clearing_what_was_placed(seen: Visit) -> None:
    page = seen.page
    writer = Writer()
    writer.write(2)
    page.locator("[data-state=ready]").wait_for()
    first = letter_of(page, "dry to the touch")
    page.keyboard.press(first.lower())
    page.keyboard.press("x")
    row(page, first).get_by_role("combobox").select_option("wrong")
    page.locator("#reply-" + first).evaluate("element => { element.dataset.untouched = 'yes' }")
    row(page, first).locator("input[type=radio]").first.focus()
    expect(submit_button(page)).to_contain_text("when all are here")
    writer.write(0, 3)
    page.wait_for_function("() => document.querySelectorAll('[data-state=ready]').length === 3")
    assert row(page, first).get_attribute("data-untouched") == "yes"  # the very same element, not a new one
    assert row(page, first).locator("input[type=radio]").first.evaluate("element => element === document.activeElement")
    writer.finish()
    for letter in "ABCD":
        expect_ready(page, letter)
    assert row(page, first).get_by_role("combobox").input_value() == "wrong"
    page.keyboard.press("1")
    assert places(page)[first] == 1
    expect(submit_button(page)).to_contain_text("when all are placed")


def test_the_page_stops_asking_once_all_are_there(seen: Visit) -> None:
    page = seen.page
    write_all()
    expect_ready(page, "D")
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request) if "arrivals" in request.url else None)
    page.wait_for_timeout(1500)
    assert not asked and not page.locator("#arrivals[hx-get]").count()


def test_a_failure_shows_its_reason_and_its_buttons_work(seen: Visit) -> None:
    page = seen.page
    writer = Writer()
    writer.write(0, 1, 3)
    writer.fail()
    failed = page.locator("[data-state=failed]")
    expect(failed).to_contain_text("The model did not answer in 60 s.")
    ready = page.eval_on_selector_all("[data-state=ready]", "rows => rows.map(row => row.dataset.letter)")
    for letter in ready:
        page.keyboard.press(letter.lower())
    expect(submit_button(page)).to_contain_text("did not come")
    page.keyboard.press("Enter")  # cannot be sent; the focus goes to what can be done
    expect(page.get_by_role("button", name="Try again")).to_be_focused()
    with page.expect_response(lambda response: "/draft/" in response.url):
        pass  # what was placed is on the server
    page.get_by_role("button", name="Rank the other three").click()
    expect(page.get_by_text("There are three replies here. The model did not answer in 60 s.")).to_be_visible()
    expect_order(page, "A›B›C")  # the places given before
    page.keyboard.press("Enter")
    expect(page.locator("#message-text")).to_be_focused()


def test_trying_again_brings_the_missing_reply(seen: Visit) -> None:
    page = seen.page
    writer = Writer()
    writer.write(0, 1, 3)
    writer.fail()
    page.get_by_role("button", name="Try again").click()
    page.locator("[data-state=waiting]").wait_for()
    write_all()
    for letter in "ABCD":
        expect_ready(page, letter)


def test_after_ten_seconds_it_says_how_many_are_ahead(seen: Visit, project: Project) -> None:
    page = seen.page
    mine = GenerationRequest.objects.get()
    make.make_request(make.make_dialogue(project, text="Before?"), created_at=timezone.now() - timedelta(minutes=1))
    GenerationRequest.objects.filter(pk=mine.pk).update(created_at=timezone.now() - timedelta(seconds=12))
    expect(row(page, "A")).to_contain_text("1 ahead of you")
    GenerationRequest.objects.exclude(pk=mine.pk).update(state="cancelled")
    expect(row(page, "A")).to_contain_text("waiting for the model")


def test_the_seconds_count_on_by_themselves(seen: Visit) -> None:
    expect(row(seen.page, "B").locator("[data-elapsed]")).to_have_text("3 s")


def test_a_screen_reader_hears_what_is_there_and_what_is_not(seen: Visit) -> None:
    page = seen.page
    voice = page.locator("[data-order-said]")
    expect(voice).to_have_text("A, B, C and D are being written")
    write_all()
    expect(voice).to_have_text("A, B, C and D have no place yet")
    page.keyboard.press("b")
    page.keyboard.press("a")
    expect(voice).to_have_text("B first, then A. C and D have no place yet")


def test_a_dialogue_that_another_window_answered_is_drawn_anew(seen: Visit) -> None:
    with transaction.atomic():  # a page that asks in between would draw the replies, and ask no more
        make.make_ranking(Slot.objects.get(), write_all())
    expect(seen.page.get_by_role("heading", name="What do you say next?")).to_be_visible()
