"""A reply rated with nothing but a keyboard, by each ready-made set; a phone; and axe on every state of the pages."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from feedback import ratings_wanted, scale_sets
from feedback.models import Project, Rating, ScaleSet, Slot
from tests import make
from tests.browser.conftest import DESK, PHONE, Visit, Visitor
from tests.browser.sheet import expect_status
from tests.browser.test_accessibility import look_at
from tests.browser.test_by_keyboard import press

pytestmark = pytest.mark.browser
TEXTS = ["Too much water is the usual reason.", "Sun.", "Wait a week.", "Water it."]
SETS = ("lamda", "instructgpt", "sparrow")


@pytest.fixture
def project(project: Project) -> Project:
    make.make_member(project, "maria", "manager")
    return project


@pytest.fixture
def sets(project: Project) -> dict[str, ScaleSet]:
    """The sets that come along, open; of each a reply in Alice's hands."""
    found = {key: make.make_scale_set(project, key) for key in SETS}
    comparison = make.make_comparison(project, texts=TEXTS)
    for scale_set in found.values():
        ratings_wanted.ask_for_ratings(candidate=comparison.candidates.all()[0], scale_set=scale_set)
    return found


def question(page: Page, words: str) -> None:
    expect(page.get_by_role("heading", name=words)).to_be_visible()
    expect(page.locator("[data-question]:visible")).to_have_count(1)


def said(scale_set: ScaleSet) -> dict[str, str]:
    rows = Rating.objects.filter(scale__scale_set=scale_set)
    return {f"{rating.scale.key}{'*' * rating.implied}": rating.value for rating in rows.select_related("scale")}


def test_each_ready_made_set_by_keyboard(visit: Visitor, sets: dict[str, ScaleSet]) -> None:
    page = visit("alice").go("/")
    press(page, "Enter")  # the one large button of home
    question(page, "Does this reply make sense here?")
    submit = page.locator("[data-submit]")
    expect(submit).to_have_attribute("aria-disabled", "true")
    press(page, "Enter")  # too early: nothing is sent
    press(page, "1", "2")
    question(page, "Could somebody come to harm by what it says?")  # what is not specific is not interesting
    expect(page.get_by_text("Interesting: No")).to_be_visible()
    press(page, "Backspace")
    question(page, "Does it belong to this dialogue, and hardly to another?")
    press(page, "3")
    question(page, "Would it make somebody curious, or catch their attention?")
    expect_status(page, "Saved")
    page.reload()
    question(page, "Would it make somebody curious, or catch their attention?")
    press(page, "2", "2", "1", "u")
    question(page, "Does it demean people, or treat a group of them unfairly?")
    press(page, "2", "2", "4")
    expect(page.get_by_role("heading", name="Your answers")).to_be_focused()
    expect(page.locator("[data-of-questions] .eggs")).to_have_attribute("aria-label", "7 of 7 questions answered")
    press(page, "Enter")

    question(page, "How good is this reply as a whole?")
    assert said(sets["lamda"]) == {
        "sensible": "yes", "specific": "maybe", "interesting": "no", "harm": "no", "unfair": "no", "misleading": "no",
        "grounded": "no_claims",
    }  # fmt: skip
    press(page, "5")
    question(page, "What of this holds?")
    press(page, "0")  # none of these goes on
    question(page, "Does it contain any of this?")
    press(page, "u", "3", "1", "Enter")  # which rules “none” out
    question(page, "Does it contain any of this?")
    press(page, "6", "7", "7", "Enter", "Enter")

    question(page, "Could what it says be true, as far as you can tell?")
    assert said(sets["instructgpt"]) == {"overall": "5", "work": "fails_task,makes_things_up", "content": "opinion"}
    press(page, "2", "4", "Enter")
    expect(page.get_by_text("There is nothing more of that kind just now.")).to_be_visible()
    assert said(sets["sparrow"]) == {"plausible": "no", "supported": "no_evidence"}
    assert all(rating.seconds is not None and rating.seconds > 0 for rating in Rating.objects.all())


def test_a_rating_is_corrected_and_taken_back_by_keyboard(visit: Visitor, sets: dict[str, ScaleSet]) -> None:
    slot = make.make_rate_slot(sets["lamda"])
    make.rate(slot)
    page = visit("alice").go(f"/work/{slot.pk}/")
    expect(page.get_by_role("heading", name="Your answers")).to_be_visible()
    page.get_by_role("button", name="Sensible: Yes").focus()
    press(page, "Enter")
    question(page, "Does this reply make sense here?")
    press(page, "2")
    expect(page.get_by_text("Specific: No")).to_be_visible()
    press(page, "Enter")
    expect_status(page, "Saved")
    in_force = {rating.scale.key: rating.value for rating in Rating.objects.in_force().select_related("scale")}
    assert in_force["sensible"] == in_force["interesting"] == "no"
    page.get_by_role("button", name="Take back").focus()
    press(page, "Enter")
    expect(page.get_by_role("heading", name="My answers")).to_be_visible()
    assert not Rating.objects.in_force().exists()


def test_who_uses_the_arrow_keys_reads_every_answer_before_going_on(visit: Visitor, sets: dict[str, ScaleSet]) -> None:
    slot = make.make_rate_slot(sets["sparrow"])
    page = visit("alice").go(f"/work/{slot.pk}/")
    question(page, "Could what it says be true")
    page.get_by_role("radio", name="Yes").focus()
    press(page, "Space", "ArrowDown", "ArrowDown")
    expect(page.get_by_role("radio", name="Maybe")).to_be_checked()
    question(page, "Could what it says be true")
    press(page, "Enter")
    question(page, "Does the evidence that was shown with it bear it out?")


def test_letters_and_numbers_are_silent_where_they_are_switched_off(visit: Visitor, sets: dict[str, ScaleSet]) -> None:
    slot = make.make_rate_slot(sets["lamda"])
    make.User.objects.update(letter_keys=False)
    page = visit("alice").go(f"/work/{slot.pk}/")
    question(page, "Does this reply make sense here?")
    press(page, "1", "2", "u", "s")
    expect(page.get_by_role("radio", checked=True)).to_have_count(0)
    expect(page.locator("#skip")).to_be_hidden()


def test_on_a_phone_a_touch_answers_and_goes_on(visit: Visitor, sets: dict[str, ScaleSet]) -> None:
    slot = make.make_rate_slot(sets["sparrow"])
    page = visit("alice", PHONE).go(f"/work/{slot.pk}/")
    page.locator("[data-question]:visible label", has_text="Maybe").tap()
    question(page, "Does the evidence that was shown with it bear it out?")
    page.get_by_role("button", name="Back").tap()
    question(page, "Could what it says be true")
    page.locator("[data-question]:visible label", has_text="Yes").tap()
    page.locator("[data-question]:visible label", has_text="None was shown").tap()
    page.get_by_role("button", name="Submit").tap()
    expect(page).not_to_have_url(re.compile(f"/work/{slot.pk}/"))
    assert {(r.scale.key, r.value) for r in Rating.objects.select_related("scale")} == {
        ("plausible", "yes"), ("supported", "no_evidence"),
    }  # fmt: skip


def test_without_a_script_every_question_is_there_and_is_sent(visit: Visitor, sets: dict[str, ScaleSet]) -> None:
    slot = make.make_rate_slot(sets["sparrow"])
    page = visit("alice", java_script_enabled=False).go(f"/work/{slot.pk}/")
    page.locator("label", has_text="Yes").first.click()
    page.locator("label", has_text="None was shown").click()
    page.get_by_role("button", name="Submit").click()
    expect(page).not_to_have_url(re.compile(f"/work/{slot.pk}/"))
    assert Rating.objects.count() == 2


def test_a_manager_adds_opens_and_rewords_a_set_by_keyboard(visit: Visitor, project: Project) -> None:
    make.make_comparison(project, texts=TEXTS)
    page = visit("maria").go(f"/projects/{project.slug}/ratings/")
    expect(page.get_by_text("No questions yet.")).to_be_visible()
    page.get_by_role("button", name="Add Sparrow").focus()
    press(page, "Enter")
    page.get_by_role("button", name="Open Sparrow").focus()
    press(page, "Enter")
    expect(page.get_by_text("Sparrow is open. Annotators find it on their home page.")).to_be_visible()
    page.get_by_role("link", name="Plausible", exact=True).focus()
    press(page, "Enter")
    page.get_by_label("Question").fill("Is it likely?")
    press(page, "Enter")
    expect(page.get_by_text("From now on it is asked in these words.")).to_be_visible()
    hers = visit("alice").go("/")
    hers.get_by_role("button", name="Start: Rate replies").focus()
    press(hers, "Enter")
    question(hers, "Is it likely?")


@pytest.fixture
def states(project: Project, sets: dict[str, ScaleSet]) -> dict[str, str]:
    """{state: path} of the pages on which replies are rated, as Alice meets them."""
    found = {}

    def piece(state: str, key: str, text: str) -> Slot:
        comparison = make.make_comparison(project, texts=TEXTS, text=text)
        slot = make.make_rate_slot(sets[key], comparison.candidates.all()[0])
        found[state] = f"/work/{slot.pk}/"
        return slot

    for number, key in enumerate(SETS):
        piece(key, key, f"Set {number}?")
    make.rate(piece("rated", "lamda", "Rated?"))
    make.lapse(piece("late", "sparrow", "Late?"))
    return found | {"home": "/", "answers": "/answers/"}


@pytest.fixture(params=[DESK, PHONE], ids=["desk", "phone"])
def seen(request: pytest.FixtureRequest, visit: Visitor, project: Project) -> Iterator[Visit]:
    yield visit("alice", request.param)


@pytest.mark.once
def test_axe_finds_nothing_where_replies_are_rated(seen: Visit, states: dict[str, str]) -> None:
    found = []
    for state, path in states.items():
        found += look_at(seen.go(path), state)
    page = seen.go(states["lamda"])
    for keys, state in (("12", "settled"), ("2224", "all answered")):
        press(page, *keys)
        found += look_at(page, f"lamda, {state}")
    page = seen.go(states["instructgpt"])
    press(page, "4", "2", "4")
    found += look_at(page, "flags")
    assert not found, "\n".join(found)


@pytest.mark.once
@pytest.mark.parametrize("device", [DESK, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing_on_the_managers_pages(
    visit: Visitor, project: Project, sets: dict[str, ScaleSet], device: dict
) -> None:
    for number in range(11):
        comparison = make.make_comparison(project, texts=TEXTS, text=f"Opening {number}?")
        for place, name in enumerate(("bob", "carol")):
            slot = make.make_rate_slot(sets["instructgpt"], comparison.candidates.all()[0], name=name)
            make.rate(slot, overall=str(1 + (number + place) % 7))
    scale_sets.turn_off(scale=sets["lamda"].scales.get(key="harm"), by=None)
    make.make_scale_set(project, "unit-tests")
    maria = visit("maria", device)
    found = []
    for path in ("", "instructgpt/overall/", "instructgpt/work/", "lamda/specific/", "lamda/harm/"):
        found += look_at(maria.go(f"/projects/{project.slug}/ratings/{path}"), path)
    found += look_at(maria.go(f"/projects/{project.slug}/"), "overview")
    assert not found, "\n".join(found)


def test_the_answers_stay_in_their_place_from_question_to_question(visit: Visitor, sets: dict[str, ScaleSet]) -> None:
    slot = make.make_rate_slot(sets["lamda"])
    page = visit("alice").go(f"/work/{slot.pk}/")
    places = []
    for key in "1112":
        box = page.locator("[data-question]:visible .pick").first.bounding_box()
        assert box is not None
        places.append(box["y"])
        press(page, key)
    assert len(set(places)) == 1, places
