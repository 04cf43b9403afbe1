"""Who may see what: every address, met by a stranger, by nobody, and by the wrong method."""

from __future__ import annotations

import hashlib

import pytest
from django.apps import apps
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import get_resolver

from annotate import urls
from feedback.models import Membership, Project, Slot
from tests import make
from tests.annotate.reading import words_of

READ = ["/", "/guidelines/{slug}/", "/settings/", "/work/{slot}/", "/work/{slot}/arrivals/", "/answers/"]
READ += ["/answers/{comparison}/", "/consent/{slug}/"]
BOTH = ["/settings/", "/consent/{slug}/"]  # read, and where something is said
WORK_ACTS = ["rank", "skip", "send", "undo", "more", "end", "retry", "fewer", "verdict", "judge", "take-back"]
WORK_ACTS += ["write", "start", "say", "withdraw", "review", "rate", "unrate"]
ACTS = ["/next/{slug}/", "/own/{slug}/", *(f"/work/{{slot}}/{act}/" for act in WORK_ACTS)]
DRAFT = "/work/{slot}/draft/"


@pytest.fixture
def places(project: Project, as_alice: Client) -> dict[str, object]:
    """Of Alice: a chat she ranked, so that every address has something to show."""
    slot = make.make_chat(project)
    ranking = make.make_ranking(slot)
    return {"slug": project.slug, "slot": slot.pk, "comparison": ranking.comparison_id}


def fingerprint() -> dict[str, str]:
    """{table: hash of its rows}, sessions left out: they note the page that was read last."""
    models = [model for model in apps.get_models() if model is not Session]
    return {
        model._meta.label: hashlib.sha256(repr(sorted(model.objects.values_list())).encode()).hexdigest()
        for model in models
        if hasattr(model, "objects")
    }


def test_every_address_of_this_app_is_tried_here() -> None:
    tried = {
        route.format(slug="<slug:slug>", slot="<int:pk>", comparison="<int:pk>") for route in [*READ, *ACTS, DRAFT]
    }
    assert {f"/{pattern.pattern}" for pattern in urls.urlpatterns} == tried
    assert get_resolver().resolve("/").app_name == "annotate"


@pytest.mark.parametrize("route", [*READ, *ACTS, DRAFT])
def test_who_is_not_signed_in_is_asked_to(places: dict[str, object], route: str) -> None:
    url = route.format(**places)
    for response in (Client().get(url), Client().post(url)):
        assert response.status_code == 302 and response.url == f"/sign-in/?next={url}"


@pytest.mark.parametrize("route", [route for route in [*READ, *ACTS, DRAFT] if "{" in route])
@pytest.mark.parametrize("who", ["as_charlie", "as_bob"])
def test_a_stranger_finds_nothing(
    places: dict[str, object], route: str, who: str, request: pytest.FixtureRequest
) -> None:
    client = request.getfixturevalue(who)
    if who == "as_bob" and "{slug}" in route:
        return  # a member of the project may enter it; only the slots and answers of others are closed to him
    before = fingerprint()
    url = route.format(**places)
    assert client.post(url).status_code in {404, 405}
    if route in READ:
        assert client.get(url).status_code == 404
    assert fingerprint() == before


def test_who_left_the_project_finds_its_work_closed(as_alice: Client, places: dict[str, object]) -> None:
    Membership.objects.filter(user__username="alice").update(is_active=False)
    for route in READ[3:5]:
        assert as_alice.get(route.format(**places)).status_code == 404
    assert "You are in no project yet" in words_of(as_alice.get("/"))


@pytest.mark.parametrize("route", READ)
def test_reading_changes_no_row(as_alice: Client, places: dict[str, object], route: str) -> None:
    before = fingerprint()
    response = as_alice.get(route.format(**places))
    assert response.status_code in {200, 204}
    as_alice.get(route.format(**places), headers={"HX-Request": "true"})
    assert fingerprint() == before


@pytest.mark.parametrize("route", ACTS)
def test_a_get_where_something_is_done_does_nothing_and_leads_back(
    as_alice: Client, places: dict[str, object], route: str
) -> None:
    before = fingerprint()
    url = route.format(**places)
    home = f"/work/{places['slot']}/" if "{slot}" in route else "/"
    assert as_alice.get(url).url == home and as_alice.head(url).url == home
    assert fingerprint() == before


@pytest.mark.parametrize("route", [route for route in READ if route not in BOTH])
@pytest.mark.parametrize("method", ["post", "put", "delete"])
def test_what_is_read_takes_no_other_method(
    as_alice: Client, places: dict[str, object], route: str, method: str
) -> None:
    assert getattr(as_alice, method)(route.format(**places)).status_code == 405


@pytest.mark.parametrize("route", [*ACTS, DRAFT])
@pytest.mark.parametrize("method", ["put", "patch", "delete"])
def test_what_is_done_takes_no_other_method(
    as_alice: Client, places: dict[str, object], route: str, method: str
) -> None:
    assert getattr(as_alice, method)(route.format(**places)).status_code == 405


@pytest.mark.parametrize("route", [*ACTS, DRAFT, *BOTH])
def test_nothing_is_done_without_the_token_of_a_page(as_alice: Client, places: dict[str, object], route: str) -> None:
    careful = Client(enforce_csrf_checks=True)
    careful.force_login(Slot.objects.get(pk=places["slot"]).annotator)
    before = fingerprint()
    refused = careful.post(route.format(**places), {"theme": "dark", "reason": "no", "message": "no"})
    assert refused.status_code == 403 and "Nothing was changed" in words_of(refused)
    assert fingerprint() == before


@pytest.mark.parametrize("url", ["/", "/sign-in/", "/nothing-here/", "/work/999999/", "/settings/"])
def test_every_answer_carries_the_policy_for_what_a_page_may_load(as_alice: Client, url: str) -> None:
    policy = as_alice.get(url)["Content-Security-Policy"]
    assert "'unsafe-inline'" not in policy and "'unsafe-eval'" not in policy
    for directive in ("default-src 'none'", "connect-src 'self'", "form-action 'self'", "frame-ancestors 'none'"):
        assert directive in policy


@pytest.mark.parametrize("url", ["/work/0/", "/work/99999999999999999999/", "/answers/99999999999999999999/"])
def test_numbers_that_no_row_has_are_not_found(as_alice: Client, url: str) -> None:
    assert as_alice.get(url).status_code == 404


def test_what_a_signed_in_person_reads_is_kept_nowhere(as_alice: Client, client: Client, project: Project) -> None:
    slot = make.make_chat(project)
    for path in ("/", f"/work/{slot.pk}/", "/answers/"):
        assert as_alice.get(path)["Cache-Control"] == "private, no-store"
    assert not as_alice.post(f"/work/{slot.pk}/skip/", {}).has_header("Cache-Control")
