"""A person's own answers, and another look at one of them."""

from __future__ import annotations

import pytest
from django.test import Client

from feedback import dialogues
from feedback.models import Comparison, Project, Ranking, Slot
from tests import make
from tests.annotate.reading import answer, chosen, replies, states, text_of, words_of


@pytest.fixture
def slot(project: Project, as_alice: Client) -> Slot:
    return make.make_rank_slot(make.make_comparison(project))


def test_answers_are_listed_newest_first(as_alice: Client, project: Project, slot: Slot) -> None:
    make.make_ranking(slot)
    other = make.make_comparison(project, text="Is my fern thirsty?")
    make.make_ranking(make.make_rank_slot(other), other, ranks={}, all_bad=True)
    words = words_of(as_alice.get("/answers/"))
    assert "Your last 2 answers in Plant desk, newest first." in words
    assert words.index("Is my fern thirsty?") < words.index("Why are my basil leaves yellow?")
    assert "None was good" in words


def test_nobody_elses_answers_are_listed(as_alice: Client, as_bob: Client, slot: Slot) -> None:
    make.make_ranking(slot)
    assert "You have not answered anything yet" in words_of(as_bob.get("/answers/"))


def test_without_a_project_there_are_no_answers_and_no_error(as_charlie: Client) -> None:
    assert as_charlie.get("/answers/").status_code == 200


def test_another_look_shows_the_answer_and_a_correction_is_a_new_revision(as_alice: Client, slot: Slot) -> None:
    page = as_alice.get(f"/work/{slot.pk}/")
    as_alice.post(f"/work/{slot.pk}/rank/", answer(page, {"A": 1, "B": 2, "C": 3, "D": 4}, strength="1"))
    again = as_alice.get(f"/answers/{Comparison.objects.get().pk}/")
    assert chosen(again) == {"A": 1, "B": 2, "C": 3, "D": 4} and replies(again) == replies(page)
    assert "Correct" in words_of(again) and "data-draft-url" not in text_of(again)
    sent = answer(again, {"A": 4, "B": 2, "C": 3, "D": 1})
    after = as_alice.post(f"/work/{slot.pk}/rank/", sent, follow=True)
    assert chosen(after) == {"A": 4, "B": 2, "C": 3, "D": 1} and "Saved" in words_of(after)
    assert list(Ranking.objects.order_by("revision").values_list("revision", flat=True)) == [1, 2]


def test_a_correction_from_an_old_page_is_refused_and_both_are_shown(as_alice: Client, slot: Slot) -> None:
    page = as_alice.get(f"/work/{slot.pk}/")
    as_alice.post(f"/work/{slot.pk}/rank/", answer(page, {"A": 1, "B": 2, "C": 3, "D": 4}))
    one, other = (as_alice.get(f"/answers/{Comparison.objects.get().pk}/") for _ in range(2))
    as_alice.post(f"/work/{slot.pk}/rank/", answer(one, {"A": 2, "B": 1, "C": 3, "D": 4}))
    refused = as_alice.post(f"/work/{slot.pk}/rank/", answer(other, {"A": 3, "B": 2, "C": 1, "D": 4}))
    assert refused.status_code == 409 and "You had sent here: C › B › A › D." in words_of(refused)
    assert chosen(refused) == {"A": 2, "B": 1, "C": 3, "D": 4}


def test_an_answer_in_a_dialogue_is_shown_and_corrected_only_there(as_alice: Client, project: Project) -> None:
    slot = make.make_chat(project, text="Is my fern thirsty?")
    ranking = make.make_ranking(slot)
    page = as_alice.get(f"/answers/{ranking.comparison_id}/")
    words = words_of(page)
    assert "The dialogue is still yours: go on with it" in words and f'href="/work/{slot.pk}/"' in text_of(page)
    assert "1st" in words and "4th" in words and 'id="rank"' not in text_of(page)
    assert "Once you have ranked these" not in words
    dialogues.end_dialogue(slot=slot)
    words = words_of(as_alice.get(f"/answers/{ranking.comparison_id}/"))
    assert "The dialogue is over, so this answer stays as it is." in words


def test_nobody_looks_at_anothers_answer(as_bob: Client, slot: Slot) -> None:
    ranking = make.make_ranking(slot)
    assert as_bob.get(f"/answers/{ranking.comparison_id}/").status_code == 404


def test_an_answer_taken_back_is_none(as_alice: Client, project: Project) -> None:
    slot = make.make_chat(project, text="Is my fern thirsty?")
    ranking = make.make_ranking(slot)
    as_alice.post(f"/work/{slot.pk}/undo/")
    assert as_alice.get(f"/answers/{ranking.comparison_id}/").status_code == 404


def test_a_hundred_answers_cost_no_more_queries(
    as_alice: Client, project: Project, django_assert_max_num_queries
) -> None:
    for number in range(15):
        comparison = make.make_comparison(project, text=f"Question {number}?")
        make.make_ranking(make.make_rank_slot(comparison, wanted=1), comparison)
    with django_assert_max_num_queries(13):
        page = as_alice.get("/answers/")
    assert words_of(page).count("Look again") == 15
    with django_assert_max_num_queries(14):
        assert len(states(as_alice.get(f"/answers/{Comparison.objects.first().pk}/"))) == 4
