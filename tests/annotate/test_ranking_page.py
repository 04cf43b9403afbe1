"""Rank only: a dialogue already written, its replies already there."""

from __future__ import annotations

import pytest
from django.test import Client

from feedback.models import Candidate, Comparison, Draft, Project, Ranking, Slot
from tests import make
from tests.annotate.reading import answer, chosen, hidden, names, replies, states, text_of, words_of

PLACES = {"A": 2, "B": 1, "C": 1, "D": 4}


@pytest.fixture
def slot(project: Project, as_alice: Client) -> Slot:
    return make.make_rank_slot(make.make_comparison(project))


@pytest.fixture
def url(slot: Slot) -> str:
    return f"/work/{slot.pk}/"


def stored_places(ranking: Ranking) -> dict[str, int]:
    """{text: rank} of a stored ranking."""
    return {entry.candidate.text: entry.rank for entry in ranking.entries.select_related("candidate")}


def test_the_page_shows_the_dialogue_and_its_replies_with_a_place_each(as_alice: Client, url: str) -> None:
    page = as_alice.get(url)
    assert "Why are my basil leaves yellow?" in words_of(page)
    assert sorted(replies(page).values()) == [f"Reply {number} to this." for number in range(4)]
    assert set(states(page).values()) == {"ready"} and not chosen(page)


def test_places_are_stored_with_ties_flags_and_strength(as_alice: Client, url: str) -> None:
    page = as_alice.get(url)
    flagged = names(page)["D"]
    sent = answer(page, PLACES, strength="3", **{f"flag-{flagged}": "on", f"flagkind-{flagged}": "unsafe"})
    as_alice.post(url + "rank/", sent)
    ranking = Ranking.objects.get()
    shown = replies(page)
    assert stored_places(ranking) == {shown["B"]: 1, shown["C"]: 1, shown["A"]: 2, shown["D"]: 3}
    assert (ranking.strength, ranking.seconds, ranking.all_bad, ranking.late) == (3, 12.5, False, False)
    assert [entry.flags for entry in ranking.entries.all() if entry.flags] == [["unsafe"]]
    assert [Candidate.objects.get(pk=pk).text for pk in ranking.shown_order] == list(shown.values())


def test_the_next_piece_comes_at_once_and_the_page_says_so(as_alice: Client, url: str, project: Project) -> None:
    make.make_rank_work(make.make_comparison(project, text="Is my fern thirsty?"))
    after = as_alice.post(url + "rank/", answer(as_alice.get(url), PLACES), follow=True)
    assert "Is my fern thirsty?" in words_of(after) and "Saved. Next one." in words_of(after)
    assert "Saved. Next one." not in words_of(as_alice.get(after.request["PATH_INFO"]))


def test_after_the_last_piece_home_says_that_there_is_no_more(as_alice: Client, url: str) -> None:
    after = as_alice.post(url + "rank/", answer(as_alice.get(url), PLACES), follow=True)
    assert "There is nothing more of that kind just now. What you did is stored." in words_of(after)


def test_none_is_good_is_an_answer_without_places(as_alice: Client, url: str) -> None:
    as_alice.post(url + "rank/", answer(as_alice.get(url), PLACES, all_bad="1"))
    ranking = Ranking.objects.get()
    assert ranking.all_bad and not ranking.ranks()


def test_the_same_form_sent_twice_is_one_answer(as_alice: Client, url: str) -> None:
    sent = answer(as_alice.get(url), PLACES)
    first, second = as_alice.post(url + "rank/", sent), as_alice.post(url + "rank/", sent)
    assert (first.status_code, second.status_code) == (302, 302)
    assert Ranking.objects.count() == 1


def test_the_same_key_with_another_answer_is_refused_and_shown(as_alice: Client, url: str) -> None:
    sent = answer(as_alice.get(url), PLACES)
    as_alice.post(url + "rank/", sent)
    again = as_alice.post(url + "rank/", sent | {"strength": "1"})
    assert again.status_code == 409 and "already sent with another answer" in words_of(again)
    assert Ranking.objects.count() == 1


def test_the_second_of_two_windows_sees_both_answers(as_alice: Client, url: str) -> None:
    one, other = as_alice.get(url), as_alice.get(url)
    as_alice.post(url + "rank/", answer(one, {"A": 1, "B": 2, "C": 3, "D": 4}))
    late = as_alice.post(url + "rank/", answer(other, {"A": 4, "B": 3, "C": 2, "D": 1}))
    assert late.status_code == 409
    assert "That one counts; here it is. You had sent here: D › C › B › A." in words_of(late)
    assert chosen(late) == {"A": 1, "B": 2, "C": 3, "D": 4}
    assert Ranking.objects.count() == 1


@pytest.mark.parametrize(
    ("places", "more", "complaint"),
    [
        ({}, {}, "Give at least one reply a place, or say that none is good."),
        ({"A": 1, "B": 9}, {}, "Places go from 1, the best, to 4."),
        ({"A": 1}, {"strength": "7"}, "could not be read"),
        ({"A": 1}, {"submit_key": "no key"}, "could not be read"),
        ({"A": 1}, {"revises": "9" * 30}, "less than or equal to"),
        ({"A": 1}, {"comparison": ""}, "Not all replies are here."),
    ],
)
def test_a_refused_answer_says_why_and_keeps_what_was_given(
    as_alice: Client, url: str, places: dict[str, int], more: dict[str, str], complaint: str
) -> None:
    refused = as_alice.post(url + "rank/", answer(as_alice.get(url), places) | more)
    assert refused.status_code == 422 and complaint in words_of(refused)
    assert chosen(refused) == {letter: place for letter, place in places.items() if place <= 4}
    assert not Ranking.objects.exists()


def test_the_focus_goes_to_what_says_why(as_alice: Client, url: str) -> None:
    html = text_of(as_alice.post(url + "rank/", answer(as_alice.get(url), {})))
    notice = html[html.index("data-refused") - 120 : html.index("data-refused")]
    assert 'role="alert"' in notice and "autofocus" in notice and 'tabindex="-1"' in notice
    assert html.index("data-refused") < html.index('id="rank"')


def test_a_refused_answer_is_a_part_for_htmx_with_bar_and_focus(as_alice: Client, url: str) -> None:
    sent = answer(as_alice.get(url), {"A": 3})
    part = as_alice.post(url + "rank/", sent | {"comparison": ""}, headers={"HX-Request": "true"})
    html = text_of(part)
    assert part.status_code == 422 and "<html" not in html and chosen(part) == {"A": 3}
    assert 'id="bar" hx-swap-oob="true"' in html and "HX-Request" in part["Vary"]


def test_htmx_is_told_where_to_go_once_the_answer_is_stored(as_alice: Client, url: str) -> None:
    response = as_alice.post(url + "rank/", answer(as_alice.get(url), PLACES), headers={"HX-Request": "true"})
    assert response.status_code == 200 and response["HX-Redirect"].startswith("/")
    assert Ranking.objects.count() == 1


@pytest.mark.parametrize("seconds", ["", "nan", "-5", "1e300", "inf", "a while"])
def test_no_answer_is_lost_for_a_strange_clock(as_alice: Client, url: str, seconds: str) -> None:
    as_alice.post(url + "rank/", answer(as_alice.get(url), PLACES) | {"seconds": seconds})
    stored = Ranking.objects.get().seconds
    assert stored is None or 0 <= stored <= 24 * 3600


def test_replies_of_another_comparison_are_refused(as_alice: Client, url: str, project: Project) -> None:
    sent = answer(as_alice.get(url), PLACES) | {"rank-0123456789ab": "1"}
    refused = as_alice.post(url + "rank/", sent)
    assert refused.status_code == 422 and "does not belong to this comparison" in words_of(refused)


def test_another_comparison_cannot_be_named(as_alice: Client, url: str, project: Project) -> None:
    other = make.make_comparison(project, text="Another?")
    sent = answer(as_alice.get(url), PLACES) | {"comparison": str(other.pk)}
    assert as_alice.post(url + "rank/", sent).status_code == 404


def test_a_late_answer_counts_while_nobody_else_has_the_piece(as_alice: Client, slot: Slot, url: str) -> None:
    page = as_alice.get(url)
    make.lapse(slot)
    assert "Your time on this ended just now. What you send is stored as late; nothing is lost." in words_of(
        as_alice.get(url)
    )
    as_alice.post(url + "rank/", answer(page, PLACES))
    ranking = Ranking.objects.get()
    assert ranking.late and ranking.counts


def test_a_late_answer_is_kept_when_somebody_else_has_the_piece(
    as_alice: Client, slot: Slot, url: str, project: Project
) -> None:
    make.make_rank_work(make.make_comparison(project, text="Is my fern thirsty?"))
    make.make_ranking(make.make_rank_slot(slot.work_item.comparison, name="bob"), slot.work_item.comparison)
    page = as_alice.get(url)
    make.lapse(slot)
    fresh = Slot.objects.get(work_item=slot.work_item, state="free")
    assert make.slots.claim_slot(fresh.pk, user=make.make_member(project, "dora")) is not None
    after = as_alice.post(url + "rank/", answer(page, PLACES), follow=True)
    ranking = Ranking.objects.get(annotator__username="alice")
    assert ranking.late and not ranking.counts
    assert "Saved as late. Somebody else had this piece by then, so it does not count." in words_of(after)


def test_an_answered_piece_leads_to_another_look_at_it(as_alice: Client, url: str) -> None:
    as_alice.post(url + "rank/", answer(as_alice.get(url), PLACES))
    assert as_alice.get(url).url == f"/answers/{Comparison.objects.get().pk}/"


def test_a_skipped_piece_leads_home(as_alice: Client, slot: Slot, url: str) -> None:
    make.slots.skip(slot, reason="no")
    assert as_alice.get(url).url == "/"


def test_fewer_replies_than_wanted_say_why_in_plain_words(as_alice: Client, slot: Slot, url: str) -> None:
    request = slot.work_item.comparison.request
    request.fewer_because = (
        "The model server refused the request (400). Model llama-900b at http://10.0.0.7 is unknown."
    )
    request.save()
    words = words_of(as_alice.get(url))
    assert "There are four replies here. The model could not answer." in words and "llama" not in words


def test_an_empty_reply_says_that_it_is_empty(as_alice: Client, project: Project) -> None:
    slot = make.make_rank_slot(make.make_comparison(project, texts=["", "Water it."]))
    assert "This reply is empty." in words_of(as_alice.get(f"/work/{slot.pk}/"))


def test_the_draft_is_emptied_by_the_answer(as_alice: Client, slot: Slot, url: str) -> None:
    as_alice.post(url + "draft/", {"version": 0, "body": '{"strength": "2"}'})
    as_alice.post(url + "rank/", answer(as_alice.get(url), PLACES))
    assert Draft.objects.get(slot=slot).body == {}


def test_the_key_of_a_form_is_new_on_each_page(as_alice: Client, url: str) -> None:
    assert hidden(as_alice.get(url), "submit_key") != hidden(as_alice.get(url), "submit_key")


@pytest.mark.parametrize("replies_shown", [2, 9])
def test_the_page_asks_the_database_no_more_for_more_replies(
    as_alice: Client, project: Project, replies_shown: int, django_assert_max_num_queries
) -> None:
    slot = make.make_rank_slot(make.make_comparison(project, candidates=replies_shown))
    with django_assert_max_num_queries(16):
        page = as_alice.get(f"/work/{slot.pk}/")
    assert len(replies(page)) == replies_shown
