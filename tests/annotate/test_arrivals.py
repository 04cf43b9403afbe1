"""While replies are written: each comes into its own row, and the page says why it takes long."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from feedback import generation, queue
from feedback.models import Comparison, GenerationRequest, Project, Slot
from tests import make
from tests.annotate.reading import names, states, text_of, words_of


@pytest.fixture
def slot(project: Project, as_alice: Client) -> Slot:
    return make.make_chat(project, answered=False)


def claimed(slot: Slot) -> GenerationRequest:
    request = queue.claim(GenerationRequest, GenerationRequest.objects.get(dialogue=slot.work_item.dialogue).pk)
    assert request is not None
    return request


def polled_at(page) -> str:
    """The address the page asks next, or nothing."""
    found = re.search(r'id="arrivals"[^>]*hx-get="([^"]+)"', text_of(page))
    return found.group(1).replace("&amp;", "&") if found else ""


def ask(client: Client, page):
    return client.get(polled_at(page), headers={"HX-Request": "true"})


def test_nothing_new_is_no_content(as_alice: Client, slot: Slot) -> None:
    page = as_alice.get(f"/work/{slot.pk}/")
    assert set(states(page).values()) == {"waiting"}
    assert ask(as_alice, page).status_code == 204


def test_a_reply_comes_into_the_row_it_was_given_and_no_other_row_is_sent(as_alice: Client, slot: Slot) -> None:
    page = as_alice.get(f"/work/{slot.pk}/")
    generation.store_candidate(claimed(slot), index=2, text="The third that was made.")
    part = ask(as_alice, page)
    html = text_of(part)
    (letter,) = states(part)
    assert f'id="reply-{letter}"' in html and 'hx-swap-oob="true"' in html and "The third that was made." in html
    assert names(part)[letter] == names(as_alice.get(f"/work/{slot.pk}/"))[letter]
    assert ask(as_alice, part).status_code == 204  # it tells what the page has now


def test_the_order_of_rows_is_fixed_before_the_first_reply_exists(as_alice: Client, slot: Slot) -> None:
    request = claimed(slot)
    places = []
    for index in (3, 0, 2, 1):
        page = as_alice.get(f"/work/{slot.pk}/")
        generation.store_candidate(request, index=index, text=f"Made as {index}.")
        places.append(next(iter(states(ask(as_alice, page)))))
    assert sorted(places) == ["A", "B", "C", "D"]


def test_once_all_are_there_the_sheet_can_be_sent_and_asks_no_more(as_alice: Client, slot: Slot) -> None:
    page = as_alice.get(f"/work/{slot.pk}/")
    make.answer_request(GenerationRequest.objects.get())
    part = ask(as_alice, page)
    assert sorted(states(part)) == ["A", "B", "C", "D"] and not polled_at(part)
    assert f'id="comparison-field" value="{Comparison.objects.get().pk}"' in text_of(part)


def test_a_failure_comes_with_its_buttons_and_asks_no_more(as_alice: Client, slot: Slot) -> None:
    page = as_alice.get(f"/work/{slot.pk}/")
    request = claimed(slot)
    for index in (0, 1, 2):
        generation.store_candidate(request, index=index, text=f"Reply {index}.")
    queue.fail(request, "The model did not answer in 60 s.", permanent=True)
    part = ask(as_alice, page)
    assert sorted(states(part).values()) == ["failed", "ready", "ready", "ready"] and not polled_at(part)
    assert "Try again Rank the other three" in words_of(part)
    assert 'id="retry"' in text_of(page) and 'id="fewer"' in text_of(page)  # the forms its buttons press


def test_after_a_while_the_page_says_how_many_are_ahead(as_alice: Client, slot: Slot, project: Project) -> None:
    mine = GenerationRequest.objects.get()
    page = as_alice.get(f"/work/{slot.pk}/")
    for number in range(3):
        make.make_request(
            make.make_dialogue(project, text=f"Before {number}?"), created_at=timezone.now() - timedelta(60)
        )
    assert ask(as_alice, page).status_code == 204  # not in the first ten seconds
    GenerationRequest.objects.filter(pk=mine.pk).update(created_at=timezone.now() - timedelta(seconds=11))
    part = ask(as_alice, page)
    assert re.findall(r'id="why-[A-D]" hx-swap-oob="true"> · 3 ahead of you<', text_of(part)) and not states(part)
    assert ask(as_alice, part).status_code == 204
    assert "3 ahead of you" in words_of(as_alice.get(f"/work/{slot.pk}/"))


def test_with_nobody_ahead_it_says_that_the_model_is_awaited_or_asked_again(as_alice: Client, slot: Slot) -> None:
    GenerationRequest.objects.update(created_at=timezone.now() - timedelta(seconds=11))
    assert "· waiting for the model" in words_of(as_alice.get(f"/work/{slot.pk}/"))
    queue.fail(claimed(slot), "The model server is busy (429). It will be asked again.")
    words = words_of(as_alice.get(f"/work/{slot.pk}/"))
    assert "· the model is asked again" in words and "429" not in words


def test_a_page_that_was_left_behind_is_drawn_anew(as_alice: Client, slot: Slot) -> None:
    page = as_alice.get(f"/work/{slot.pk}/")
    comparison = make.answer_request(GenerationRequest.objects.get())
    make.make_ranking(slot, comparison)
    assert ask(as_alice, page)["HX-Refresh"] == "true"


def test_what_a_page_says_it_has_is_not_trusted(as_alice: Client, slot: Slot) -> None:
    for seen in ("²", "0.x.-1", "9" * 400, "%00", "0" * 3000):
        assert as_alice.get(f"/work/{slot.pk}/arrivals/?phase=waiting&why=&seen={seen}").status_code == 204


def test_rank_only_has_nothing_to_wait_for(as_alice: Client, project: Project) -> None:
    slot = make.make_rank_slot(make.make_comparison(project, text="Is my fern thirsty?"))
    assert as_alice.get(f"/work/{slot.pk}/arrivals/").status_code == 204


def test_without_a_script_the_page_loads_itself_again_while_it_waits(as_alice: Client, slot: Slot) -> None:
    assert "<noscript><meta http-equiv" in text_of(as_alice.get(f"/work/{slot.pk}/"))


def test_asking_costs_few_queries(as_alice: Client, slot: Slot, django_assert_max_num_queries) -> None:
    page = as_alice.get(f"/work/{slot.pk}/")
    with django_assert_max_num_queries(16):
        ask(as_alice, page)
