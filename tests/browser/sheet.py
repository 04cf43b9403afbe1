"""What a person sees on the ranking sheet."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect


def order(page: Page) -> str:
    """The order sentence without blanks: A=C›D›B."""
    return "".join((page.locator("[data-order]").inner_text()).split())


def row(page: Page, letter: str) -> Locator:
    return page.locator(f"#reply-{letter}")


def places(page: Page) -> dict[str, int]:
    """{letter: place} of the places that are chosen."""
    found = page.eval_on_selector_all(
        "[data-candidate]",
        "rows => rows.map(row => [row.dataset.letter, Number(row.querySelector('[type=radio]:checked')?.value || 0)])",
    )
    return {letter: place for letter, place in found if place}


def expect_order(page: Page, sentence: str) -> None:
    """Wait until the order sentence reads so, blanks left out."""
    page.wait_for_function(
        "words => document.querySelector('[data-order]')?.innerText.replace(/\\s/g, '').startsWith(words)", arg=sentence
    )


def expect_sheet(page: Page) -> None:
    """Wait until the sheet is there and its keys listen."""
    page.wait_for_selector("form[data-rank]")
    page.wait_for_selector("[data-submit][aria-disabled]")


def submit_button(page: Page) -> Locator:
    return page.locator("[data-submit]")


def expect_ready(page: Page, letter: str) -> None:
    expect(row(page, letter)).to_have_attribute("data-state", "ready")


def expect_status(page: Page, words: str) -> None:
    expect(page.locator("[data-status-text]")).to_contain_text(words)
