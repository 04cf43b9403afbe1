"""The whole of chat and rank with nothing but a keyboard."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from feedback import dialogues
from feedback.models import Dialogue, Project, Ranking, Slot, Turn
from tests import make
from tests.browser.conftest import Visitor
from tests.browser.replies import Writer, write_all
from tests.browser.sheet import (
    expect_order,
    expect_ready,
    expect_sheet,
    expect_status,
    order,
    places,
    row,
    submit_button,
)

pytestmark = pytest.mark.browser


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def open_chat(project: Project, text: str = "Why are my basil leaves yellow?", *, answered: bool = True) -> Dialogue:
    item = dialogues.open_dialogue(project=project, prompt=make.make_prompt(project, text))
    if answered:
        write_all()
    assert item.dialogue is not None
    return item.dialogue


def test_from_signing_in_to_the_end_of_a_dialogue(visit: Visitor, project: Project) -> None:
    dialogue = open_chat(project)
    seen = visit()
    page = seen.go("/")
    page.keyboard.type("alice")
    press(page, "Tab")
    page.keyboard.type(make.PASSWORD)
    press(page, "Enter")
    page.wait_for_url("**/")
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_visible()
    press(page, "Enter")  # the one large button of home
    expect_sheet(page)

    press(page, "c", "a", "d", "b")
    expect_order(page, "C›A›D›B")
    press(page, "Enter")
    text = page.locator("#message-text")
    expect(text).to_be_focused()
    expect_status(page, "Saved")
    page.keyboard.type("There is water in the saucer. How often, then?")
    press(page, "Control+Enter")
    expect_sheet(page)

    writer = Writer()
    writer.write(1, 3)
    page.wait_for_function("() => document.querySelectorAll('[data-state=ready]').length === 2")
    letters = page.eval_on_selector_all("[data-state=ready]", "rows => rows.map(row => row.dataset.letter)")
    press(page, letters[1].lower(), letters[0].lower())
    expect_order(page, f"{letters[1]}›{letters[0]}")
    expect(submit_button(page)).to_have_attribute("aria-disabled", "true")
    press(page, "Enter")  # too early: nothing is sent
    writer.finish()
    for letter in "ABCD":
        expect_ready(page, letter)
    assert order(page).startswith(f"{letters[1]}›{letters[0]}")  # nothing moved, nothing was cleared
    press(page, *(letter.lower() for letter in "ABCD" if letter not in letters), "Enter")
    expect(text).to_be_focused()
    assert Ranking.objects.in_force().count() == 2

    press(page, "Escape", "Tab")
    while page.evaluate("document.activeElement.textContent.trim()") != "End the dialogue":
        press(page, "Tab")
    press(page, "Enter")
    expect(page.get_by_text("There is nothing more of that kind just now.")).to_be_visible()
    dialogue.refresh_from_db()
    assert dialogue.ended_at is not None
    assert list(Turn.objects.filter(dialogue=dialogue).values_list("role", flat=True)) == ["user", "assistant"] * 2


def test_numbers_ties_none_is_good_flag_strength_and_undo(visit: Visitor, project: Project) -> None:
    open_chat(project)
    seen = visit("alice")
    page = seen.go("/")
    press(page, "Enter")
    expect_sheet(page)

    press(page, "b", "1", "d", "1", "a", "4")
    expect_order(page, "B=D›A")
    assert places(page) == {"A": 4, "B": 1, "D": 1}
    expect(row(page, "B").locator("[data-tie]")).to_have_text("tie with D")
    press(page, "c")  # after all others, also where the last place was given by hand
    expect_order(page, "B=D›A›C")
    press(page, "=")  # ties with the one before
    expect_order(page, "B=D›A=C")
    before = places(page)
    press(page, "c", "2")
    assert places(page) == before | {"C": 2}
    press(page, "u")
    assert places(page) == before

    press(page, "a", "x")
    expect(row(page, "A").get_by_role("checkbox")).to_be_checked()
    expect(row(page, "A").get_by_role("combobox")).to_be_visible()
    press(page, "0")
    expect(page.get_by_role("checkbox", name="None is good")).to_be_checked()
    press(page, "u")
    expect(page.get_by_role("checkbox", name="None is good")).not_to_be_checked()

    page.get_by_role("radio", name="1 of 4, a hair").focus()
    press(page, "Space", "ArrowRight", "ArrowRight", "Enter")
    expect(page.locator("#message-text")).to_be_focused()
    ranking = Ranking.objects.get()
    assert ranking.strength == 3 and not ranking.all_bad
    assert [entry.flags for entry in ranking.entries.all() if entry.flags] == [["rule"]]

    press(page, "Escape", "u")  # takes the answer back, with its places
    expect_order(page, "B=D›A=C")
    expect(row(page, "A").get_by_role("checkbox")).to_be_checked()
    assert not Ranking.objects.in_force().exists()


def test_none_is_good_new_replies_and_the_end(visit: Visitor, project: Project) -> None:
    open_chat(project)
    seen = visit("alice")
    page = seen.go("/")
    press(page, "Enter")
    expect_sheet(page)
    press(page, "0", "Enter")
    expect(page.get_by_role("heading", name="None of them is good")).to_be_visible()
    press(page, "Enter")  # New replies
    page.locator("[data-state=waiting]").first.wait_for()
    write_all()
    expect_ready(page, "D")
    press(page, "0", "Enter")
    expect(page.get_by_text("New replies were made already.")).to_be_visible()
    press(page, "Enter")  # End the dialogue
    expect(page.get_by_text("There is nothing more of that kind just now.")).to_be_visible()
    assert [ranking.all_bad for ranking in Ranking.objects.in_force()] == [True, True]


def test_skipping_asks_for_a_reason_and_escape_gives_up(visit: Visitor, project: Project) -> None:
    open_chat(project)
    seen = visit("alice")
    page = seen.go("/")
    press(page, "Enter")
    expect_sheet(page)
    press(page, "s")
    popover = page.locator("#skip")
    expect(popover).to_be_visible()
    expect(popover.get_by_role("radio").first).to_be_focused()
    press(page, "a", "0")  # nothing behind it is pressed
    press(page, "Escape")
    expect(popover).to_be_hidden()
    assert not places(page)
    press(page, "s", "Enter")  # without a reason
    expect(popover).to_be_visible()
    assert Slot.objects.get().state == "held"
    press(page, "Escape", "s", "Space", "ArrowDown", "ArrowDown", "Enter")
    expect(page.get_by_text("There is nothing more of that kind just now.")).to_be_visible()
    assert Slot.objects.get().closed_because == "skipped: It upsets me"


def test_words_of_ones_own_are_reason_enough_to_skip(visit: Visitor, project: Project) -> None:
    open_chat(project)
    page = visit("alice").go("/")
    press(page, "Enter")
    expect_sheet(page)
    press(page, "s", "Tab")
    page.keyboard.type("I know her")
    press(page, "Enter")
    expect(page.get_by_text("There is nothing more of that kind just now.")).to_be_visible()
    assert Slot.objects.get().closed_because == "skipped: I know her"


def test_letters_are_silent_in_text_and_can_be_switched_off(visit: Visitor, project: Project) -> None:
    open_chat(project)
    seen = visit("alice")
    page = seen.go("/")
    press(page, "Enter")
    expect_sheet(page)
    press(page, "?")
    expect(page.locator("#keys")).to_be_visible()
    press(page, "Escape", "a", "b", "c", "d", "Enter")
    expect(page.locator("#message-text")).to_be_focused()
    page.keyboard.type("us?")  # undo, skip, all keys: in text they are letters
    expect(page.locator("#message-text")).to_have_value("us?")
    assert Ranking.objects.in_force().count() == 1

    make.User.objects.update(letter_keys=False)
    page.reload()
    expect(page.locator(".bar-keys").get_by_text("undo")).to_be_hidden()
    press(page, "Escape", "u", "s")
    expect(page.locator("#skip")).to_be_hidden()
    assert Ranking.objects.in_force().count() == 1


def test_rank_only_goes_from_piece_to_piece(visit: Visitor, project: Project) -> None:
    for text in ("Is my fern thirsty?", "Can tomatoes live outside?"):
        make.make_rank_work(make.make_comparison(project, text=text))
    seen = visit("alice")
    page = seen.go("/")
    press(page, "Enter")
    for text, said in (("Is my fern thirsty?", ""), ("Can tomatoes live outside?", "Saved. Next one.")):
        expect(page.get_by_text(text)).to_be_visible()
        expect_sheet(page)
        if said:
            expect_status(page, said)
            expect(page.locator("[data-status-said]")).to_have_text(said)
        press(page, "a", "b", "c", "d", "Enter")
    expect(page.get_by_text("There is nothing more of that kind just now.")).to_be_visible()
    assert Ranking.objects.count() == 2
