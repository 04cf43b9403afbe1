"""Leave a piece with a reason, and go on."""

from __future__ import annotations

import pytest
from django.test import Client

from feedback.models import Dialogue, Project, Slot
from tests import make
from tests.annotate.reading import text_of, words_of


@pytest.fixture
def slot(project: Project, as_alice: Client) -> Slot:
    return make.make_rank_slot(make.make_comparison(project))


def test_the_reasons_are_offered_and_none_is_chosen_beforehand(as_alice: Client, slot: Slot) -> None:
    html = text_of(as_alice.get(f"/work/{slot.pk}/"))
    popover = html[html.index('id="skip"') :]
    assert popover.count('name="reason"') == 4 and " checked" not in popover.split("</form>")[0]
    assert "It costs you nothing." in words_of(as_alice.get(f"/work/{slot.pk}/"))


def test_skipping_gives_the_piece_to_somebody_else_and_leads_on(as_alice: Client, slot: Slot, project: Project) -> None:
    make.make_rank_work(make.make_comparison(project, text="Is my fern thirsty?"))
    after = as_alice.post(f"/work/{slot.pk}/skip/", {"reason": "It upsets me"}, follow=True)
    slot.refresh_from_db()
    assert (slot.state, slot.closed_because) == ("skipped", "It upsets me")
    assert "Is my fern thirsty?" in words_of(after) and "Skipped. Next one." in words_of(after)


def test_words_of_ones_own_are_reason_enough(as_alice: Client, slot: Slot) -> None:
    as_alice.post(f"/work/{slot.pk}/skip/", {"words": "I know the person in it"})
    slot.refresh_from_db()
    assert slot.closed_because == "I know the person in it"


def test_without_a_reason_the_piece_stays_and_the_page_asks_for_one(as_alice: Client, slot: Slot) -> None:
    refused = as_alice.post(f"/work/{slot.pk}/skip/", {"words": "  "})
    slot.refresh_from_db()
    assert refused.status_code == 422 and "Say in a word why you skip it" in words_of(refused)
    assert slot.state == "held"


TOO_LONG = "I know the person in it" + "!" * 178


def test_words_too_long_to_store_are_said_to_be_and_stay_to_be_shortened(as_alice: Client, slot: Slot) -> None:
    refused = as_alice.post(f"/work/{slot.pk}/skip/", {"words": TOO_LONG})
    slot.refresh_from_db()
    assert refused.status_code == 422 and slot.state == "held"
    assert "A reason has at most 200 characters; this one has 201." in words_of(refused)
    assert "Say in a word why you skip it" not in words_of(refused)
    assert f'name="words" maxlength="200" autocomplete="off" value="{TOO_LONG}"' in text_of(refused)


@pytest.mark.parametrize("field", ["words", "reason"])
def test_a_dialogue_is_not_ended_with_a_reason_too_long_to_store(
    as_alice: Client, project: Project, field: str
) -> None:
    slot = make.make_chat(project)
    make.make_ranking(slot)
    refused = as_alice.post(f"/work/{slot.pk}/end/", {field: TOO_LONG})
    assert refused.status_code == 422
    assert "A reason has at most 200 characters; this one has 201." in words_of(refused)
    assert (TOO_LONG in text_of(refused)) == (field == "words")
    assert Dialogue.objects.get(pk=slot.work_item.dialogue_id).is_open


def test_words_that_are_just_short_enough_are_stored_whole(as_alice: Client, slot: Slot) -> None:
    as_alice.post(f"/work/{slot.pk}/skip/", {"words": TOO_LONG[:200]})
    slot.refresh_from_db()
    assert slot.closed_because == TOO_LONG[:200]


def test_a_skipped_dialogue_ends_and_says_why(as_alice: Client, project: Project) -> None:
    slot = make.make_chat(project, text="Is my fern thirsty?")
    as_alice.post(f"/work/{slot.pk}/skip/", {"reason": "I cannot judge this"})
    assert not Dialogue.objects.get(pk=slot.work_item.dialogue_id).is_open
    assert "You skipped it: I cannot judge this." in words_of(as_alice.get(f"/work/{slot.pk}/"))


def test_what_was_answered_cannot_be_skipped(as_alice: Client, slot: Slot) -> None:
    make.make_ranking(slot)
    refused = as_alice.post(f"/work/{slot.pk}/skip/", {"reason": "It upsets me"})
    assert refused.status_code == 409


def test_nobody_skips_for_another(as_bob: Client, slot: Slot) -> None:
    assert as_bob.post(f"/work/{slot.pk}/skip/", {"reason": "It upsets me"}).status_code == 404
