"""What a reply searched for and found stands below it as cards, and in the dialogue once that goes on."""

from __future__ import annotations

import pytest
from django.test import Client

from feedback.models import Candidate, Comparison, Project, Turn
from tests import make
from tests.annotate.reading import words_of

HOSTILE = "<script>alert(1)</script>"
SNIPPET = {"title": f"Ferns {HOSTILE}", "source": "care/ferns.md", "text": "A fern drinks twice a week.", "passage": 1}


def searched(reply: Candidate, *snippets: dict[str, object]) -> Candidate:
    """The same reply as if it had searched first."""
    search = [
        {"role": "search_query", "content": "fern water"},
        {"role": "search_results", "content": "Ferns (care/ferns.md)\nA fern drinks twice a week."},
    ]
    reply.turns = [*search, *reply.turns]
    reply.evidence = {"query": "fern water", "snippets": list(snippets)}
    reply.save()
    return reply


@pytest.fixture
def comparison(project: Project) -> Comparison:
    found = make.make_comparison(project)
    for reply in found.candidates.all()[:2]:
        searched(reply, SNIPPET)
    return found


def test_two_of_four_replies_show_what_they_found(as_alice: Client, comparison: Comparison) -> None:
    page = as_alice.get(f"/work/{make.make_rank_slot(comparison).pk}/")
    words = words_of(page)
    assert words.replace("“ ", "“").replace(" ”", "”").count("Searched for “fern water”, and found:") == 2
    assert words.count("A fern drinks twice a week.") == 2 and words.count("care/ferns.md") == 2
    assert all(f"Reply {number} to this." in words for number in range(4))
    assert "Search_query" not in words and HOSTILE not in page.content.decode()


def test_a_search_that_found_nothing_says_so(as_alice: Client, project: Project) -> None:
    comparison = make.make_comparison(project)
    searched(comparison.candidates.all()[0])
    page = as_alice.get(f"/work/{make.make_rank_slot(comparison).pk}/")
    assert "and found nothing." in words_of(page)


def test_the_dialogue_tells_search_from_speech(as_alice: Client, project: Project) -> None:
    comparison = make.make_comparison(project, text="How often?")
    found = f"Twice a week {HOSTILE}."
    said = [("search_query", "fern water"), ("search_results", found), ("assistant", "Twice."), ("user", "And roses?")]
    for position, (role, content) in enumerate(said, start=1):
        Turn.objects.create(dialogue=comparison.dialogue, position=position, role=role, content=content)
    Comparison.objects.update(after_position=4)
    page = as_alice.get(f"/work/{make.make_rank_slot(comparison).pk}/")
    words = words_of(page)
    assert "Searched for “" in words and "Twice a week" in words and HOSTILE not in page.content.decode()
    assert page.content.decode().count('class="turn assistant"') == 1


def test_who_rates_a_reply_sees_what_it_found(as_alice: Client, project: Project, comparison: Comparison) -> None:
    reply = next(one for one in comparison.candidates.all() if one.query)
    slot = make.make_rate_slot(make.make_scale_set(project), reply)
    words = words_of(as_alice.get(f"/work/{slot.pk}/"))
    assert reply.text in words and "A fern drinks twice a week." in words
    assert words.count("fern water") == 1  # the search stands apart from the reply


def test_an_imported_reply_shows_its_search_as_its_source_has_it() -> None:
    turns = [
        {"role": "search_query", "content": "fern"}, {"role": "search_results", "content": "Twice."},
        {"role": "assistant", "content": "Twice a week."},
    ]  # fmt: skip
    reply = Candidate(turns=turns)
    assert (reply.text, reply.query) == ("Twice a week.", "fern")
    assert reply.snippets == [{"title": "Search results", "source": "", "text": "Twice."}]
    several = Candidate(turns=[{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}])
    assert (several.text, several.query, several.snippets) == ("User: Why?\n\nAssistant: So.", "", [])
