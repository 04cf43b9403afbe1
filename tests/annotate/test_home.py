"""Home: what waits, what is half done, what was done."""

from __future__ import annotations

import pytest
from django.test import Client

from feedback.models import Project, Slot, User, WorkItem
from tests import make
from tests.annotate.reading import text_of, words_of


def test_home_says_what_waits_by_kind(as_alice: Client, project: Project) -> None:
    make.make_rank_work(make.make_comparison(project, text="One?"), wanted=3)
    make.make_rank_work(make.make_comparison(project, text="Two?"), wanted=1)
    words = words_of(as_alice.get("/"))
    assert "2 pieces wait for you." in words
    assert "2 Rank replies" in words and "0 Chat and rank" in words


def test_a_piece_that_wants_three_answers_waits_once(as_alice: Client, project: Project) -> None:
    make.make_rank_work(make.make_comparison(project), wanted=3)
    assert "1 piece waits for you." in words_of(as_alice.get("/"))


def test_what_is_half_done_comes_first_with_its_draft(as_alice: Client, project: Project) -> None:
    slot = make.make_chat(project, text="Why are my basil leaves yellow?")
    as_alice.post(f"/work/{slot.pk}/draft/", {"version": 0, "body": '{"message": "and"}'})
    home = as_alice.get("/")
    assert "“Why are my basil leaves yellow?”" in words_of(home)
    assert "One of them you left half done." in words_of(home)
    assert "Your draft from" in words_of(home) and f'href="/work/{slot.pk}/"' in text_of(home)


def test_continue_is_the_one_thing_that_enter_presses(as_alice: Client, project: Project) -> None:
    make.make_rank_work(make.make_comparison(project))
    assert text_of(as_alice.get("/")).count("data-enter") == 1


def test_an_empty_home_says_when_more_comes_and_whom_to_ask(as_alice: Client, project: Project) -> None:
    make.make_member(project, "maria", role="manager")
    words = words_of(as_alice.get("/"))
    assert "Nothing waits for you just now." in words and "ask Maria" in words


def test_somebody_in_no_project_is_told_what_to_do(as_charlie: Client) -> None:
    assert "You are in no project yet" in words_of(as_charlie.get("/"))


def test_a_manager_finds_the_way_to_managing_and_an_annotator_does_not(as_alice: Client, as_maria: Client) -> None:
    assert "Manage" in words_of(as_maria.get("/"))
    assert "Manage" not in words_of(as_alice.get("/"))


def test_the_day_counts_answers_and_says_which_came_too_late(as_alice: Client, project: Project) -> None:
    slot = make.make_rank_slot(make.make_comparison(project), wanted=1)
    make.make_ranking(slot, seconds=90.0)
    words = words_of(as_alice.get("/"))
    assert "1 answer in 1 min 30 s, all counted" in words


def test_a_late_answer_that_does_not_count_is_not_called_counted(as_alice: Client, project: Project) -> None:
    slot = make.make_rank_slot(make.make_comparison(project), wanted=1)
    make.lapse(slot)
    bob = make.make_member(project, "bob")
    fresh = Slot.objects.get(work_item=slot.work_item, state="free")
    assert make.slots.claim_slot(fresh.pk, user=bob) is not None
    make.make_ranking(slot)
    words = words_of(as_alice.get("/"))
    assert "1 came too late to count" in words and "Ranked, late, not counted" in words


def test_last_answers_name_their_ties(as_alice: Client, project: Project) -> None:
    comparison = make.make_comparison(project, candidates=4)
    make.make_ranking(make.make_rank_slot(comparison), comparison, ranks=make.ranks_by_index(comparison, [1, 1, 2, 3]))
    assert "Ranked, 1 tie" in words_of(as_alice.get("/"))


def test_htmx_gets_the_list_alone_and_caches_keep_them_apart(as_alice: Client, project: Project) -> None:
    part = as_alice.get("/", headers={"HX-Request": "true"})
    page = as_alice.get("/")
    assert "<html" not in text_of(part) and 'class="waiting"' in text_of(part)
    assert "<html" in text_of(page)
    assert "HX-Request" in part["Vary"] and "HX-Request" in page["Vary"]


def test_start_takes_a_piece_of_the_kind_asked_for(as_alice: Client, project: Project) -> None:
    make.make_chat(project, name="bob")
    item = make.make_rank_work(make.make_comparison(project))
    response = as_alice.post(f"/next/{project.slug}/", {"kind": "rank"})
    slot = Slot.objects.get(work_item=item, state="held")
    assert response.url == f"/work/{slot.pk}/"


def test_an_unknown_kind_is_any_kind(as_alice: Client, project: Project) -> None:
    make.make_rank_work(make.make_comparison(project))
    assert as_alice.post(f"/next/{project.slug}/", {"kind": "'; drop"}).url.startswith("/work/")


def test_nothing_left_leads_home_and_says_so(as_alice: Client, project: Project) -> None:
    response = as_alice.post(f"/next/{project.slug}/", {"kind": "rank"}, follow=True)
    assert "There is nothing more of that kind just now." in words_of(response)


def test_a_dialogue_of_ones_own_opens_empty(as_alice: Client, project: Project) -> None:
    response = as_alice.post(f"/own/{project.slug}/", follow=True)
    assert "What do you ask first?" in words_of(response)
    assert WorkItem.objects.get().dialogue.author.username == "alice"


def test_where_own_dialogues_are_not_wanted_none_is_opened(as_alice: Client, project: Project) -> None:
    Project.objects.update(free_dialogues=False)
    assert as_alice.post(f"/own/{project.slug}/").url == "/"
    assert not WorkItem.objects.exists()
    assert "A dialogue of your own" not in words_of(as_alice.get("/"))


def test_the_project_last_worked_in_is_shown_again(as_alice: Client, project: Project, alice: User) -> None:
    other = make.make_project("zebra-desk")
    make.make_member(other, "alice")
    as_alice.get("/?project=zebra-desk")
    assert 'action="/own/zebra-desk/"' in text_of(as_alice.get("/"))
    assert "Zebra desk" in words_of(as_alice.get("/")) and "Plant desk" in words_of(as_alice.get("/"))


def test_guidelines_are_rendered_without_links_or_raw_markup(as_alice: Client, project: Project) -> None:
    Project.objects.update(guidelines="**Best first.**\n\n<script>alert(1)</script> [x](javascript:alert(1))")
    html = text_of(as_alice.get(f"/guidelines/{project.slug}/"))
    article = html[html.index("<article") : html.index("</article>")]
    assert "<strong>Best first.</strong>" in article
    assert "<script" not in article and "<a " not in article


@pytest.mark.parametrize("pieces", [1, 12])
def test_home_asks_the_database_no_more_for_more_work(
    as_alice: Client, project: Project, pieces: int, django_assert_max_num_queries
) -> None:
    for number in range(pieces):
        comparison = make.make_comparison(project, text=f"Question {number}?")
        make.make_ranking(make.make_rank_slot(comparison, wanted=1), comparison)
    for number in range(pieces):
        make.make_rank_work(make.make_comparison(project, text=f"Open {number}?"))
    as_alice.get("/")
    with django_assert_max_num_queries(20):
        as_alice.get("/")
