"""A search service: asked rightly, trusted in nothing, and its failure is the failure of the attempt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from feedback import dialogues
from feedback.errors import GenerationFailed
from feedback.models import GenerationRequest
from feedback.search import Snippet
from rewardtrain.generation import generate_candidates
from rewardtrain.search_service import ServiceSearch
from tests import make
from tests.rewardtrain.stub_server import StubServer, drips, hangs, refuses, sends, serving
from tests.rewardtrain.test_generation import due_now

FERN = {"title": "Ferns", "source": "https://plants.example.org/fern", "text": "A fern drinks twice a week."}


def found(*results: Any) -> Any:
    return sends(json.dumps({"results": list(results)}).encode())


@pytest.fixture
def service(settings: Any) -> Iterator[Any]:
    """Starts a service that behaves so, and makes it the installation's."""
    running = []

    def start(*behaviours: Any, seconds: float = 20) -> StubServer:
        context = serving(*behaviours)
        server = context.__enter__()
        running.append(context)
        settings.SEARCH_URL, settings.SEARCH_SECONDS = f"http://{server.host}/find", seconds
        return server

    yield start
    for context in running:
        context.__exit__(None, None, None)


def refusal(limit: int = 2) -> GenerationFailed:
    with pytest.raises(GenerationFailed) as failure:
        ServiceSearch().find("fern", limit)
    return failure.value


def test_it_is_asked_for_the_words_and_how_many(service: Any) -> None:
    server = service(found(FERN))
    assert ServiceSearch().find("fern water", 2) == [Snippet("Ferns", FERN["source"], FERN["text"])]
    (call,) = server.calls
    assert (call.path, call.body) == ("/find", {"query": "fern water", "limit": 2})
    assert "authorization" not in call.headers


def test_its_key_goes_along_and_one_that_is_none_does_not(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = service(found())
    monkeypatch.setenv("NESTBOX_SEARCH_API_KEY", " key-7 ")
    assert ServiceSearch().find("fern", 2) == []
    assert server.calls[0].headers["authorization"] == "Bearer key-7"
    monkeypatch.setenv("NESTBOX_SEARCH_API_KEY", "two\nlines")
    assert "holds something that is no key" in refusal().message
    assert len(server.calls) == 1


def test_no_more_is_taken_than_was_asked_for_and_long_texts_are_cut_between_sentences(service: Any) -> None:
    long = FERN | {"text": "It drinks. " * 100, "title": "F" * 400, "source": " a\n b "}
    service(found(long, FERN, FERN))
    first, second = ServiceSearch().find("fern", 2)
    assert len(first.text) <= 500 and first.text.endswith("It drinks.")
    assert (len(first.title), first.source) == (300, "a b")
    assert second.text == FERN["text"]


def test_what_a_result_leaves_out_is_left_out_and_one_without_text_is_none(service: Any) -> None:
    service(found({"text": "Only\x00 text."}, {"title": "No text"}, {"source": "s", "text": "Sourced."}))
    assert ServiceSearch().find("fern", 3) == [
        Snippet("Untitled", "", "Only text."), Snippet("s", "s", "Sourced."),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (sends(b"no json"), "is no JSON"),
        (sends(b"\xff\xfe"), "is no JSON"),
        (sends(b"[" * 100_000), "is no JSON"),
        (sends(b"[]"), "holds no list of results"),
        (sends(b'{"results": {}}'), "holds no list of results"),
        (sends(b'{"results": [7]}'), "something that is no result"),
        (sends(b"x" * (4 * 1024 * 1024 + 1)), "is larger than 4 MB"),
        (refuses(500), "The search service failed (500)."),
        (refuses(401), "refused its key (401)"),
        (refuses(302, Location="http://169.254.169.254/"), "sends us elsewhere (302); correct NESTBOX_SEARCH_URL."),
        (refuses(404, "no such index"), "It said: no such index"),
    ],
)
def test_what_goes_wrong_is_a_sentence(service: Any, behaviour: Any, said: str) -> None:
    service(behaviour)
    assert said in refusal().message


@pytest.mark.parametrize("behaviour", [hangs, drips])
def test_a_service_that_never_ends_is_given_up(service: Any, behaviour: Any) -> None:
    service(behaviour, seconds=0.4)
    assert "did not answer within 0.4 seconds" in (message := refusal().message) or "too slowly" in message


@pytest.mark.parametrize(
    "url", ["ftp://search.example.org", "http://user@search.example.org/", "http://search.example.org/?q=1", "search"]
)
def test_an_address_that_is_none_is_named(settings: Any, url: str) -> None:
    settings.SEARCH_URL = url
    failure = refusal()
    assert failure.permanent and "NESTBOX_SEARCH_URL" in failure.message


def test_an_installation_without_one_says_so(settings: Any) -> None:
    settings.SEARCH_URL = ""
    assert "has no search service" in refusal().message


@pytest.mark.django_db
@pytest.mark.services
def test_a_search_that_fails_ends_the_attempt_and_the_next_one_searches_again(speak: Any, service: Any) -> None:
    service(refuses(503), found(FERN))
    project = make.make_project(candidates_per_turn=2, evidence="service")
    prompt = make.make_prompt(project, "How often do I water a fern?")
    item = dialogues.open_dialogue(project=project, prompt=prompt)
    request = GenerationRequest.objects.get(dialogue=item.dialogue)
    speak(lambda job, draw: "fern" if job.speaker == "search_query" else f"Reply {draw.index}.")
    generate_candidates(request.pk)
    request.refresh_from_db()
    assert (request.state, request.error) == ("queued", "The search service failed (503).")
    assert not request.candidates.exists()
    due_now(request)
    generate_candidates(request.pk)
    assert [candidate.query for candidate in request.candidates.all()] == ["", "fern"]
