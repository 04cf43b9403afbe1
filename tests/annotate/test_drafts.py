"""What is typed and chosen is kept while one works, and comes back after a reload."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from feedback.models import Draft, Project, Slot
from tests import make
from tests.annotate.reading import answer, chosen, hidden, names, text_of


@pytest.fixture
def slot(project: Project, as_alice: Client) -> Slot:
    return make.make_chat(project)


def save(client: Client, slot: Slot, body: object, version: int = 0):
    return client.post(f"/work/{slot.pk}/draft/", {"version": version, "body": json.dumps(body)})


def test_places_flags_strength_and_none_is_good_come_back(as_alice: Client, slot: Slot) -> None:
    called = names(as_alice.get(f"/work/{slot.pk}/"))
    body = {f"rank-{called['A']}": "2", f"rank-{called['C']}": "1", f"flag-{called['B']}": "on", "strength": "4"}
    body |= {f"flagkind-{called['B']}": "nonsense", "all_bad": "1"}
    kept = save(as_alice, slot, body)
    assert kept.status_code == 200 and kept.json()["version"] == 1
    page = as_alice.get(f"/work/{slot.pk}/")
    html = text_of(page)
    assert chosen(page) == {"A": 2, "C": 1}
    assert f'name="flag-{called["B"]}" value="on" checked' in html and '<option value="nonsense" selected>' in html
    assert 'name="strength" value="4" aria-label="4 of 4, by far" checked' in html
    assert 'name="all_bad" value="1" form="rank" checked' in html
    assert 'data-draft-version="1"' in html and "Saved 0 s ago" in html


def test_who_types_keeps_the_piece(as_alice: Client, slot: Slot) -> None:
    soon = timezone.now() + timedelta(minutes=1)
    Slot.objects.update(lease_until=soon)
    save(as_alice, slot, {"strength": "1"})
    slot.refresh_from_db()
    assert slot.lease_until > soon + timedelta(minutes=20)


def test_a_draft_of_what_lapsed_is_kept_and_takes_nothing_back(as_alice: Client, slot: Slot) -> None:
    make.lapse(slot)
    assert save(as_alice, slot, {"strength": "1"}).status_code == 200
    slot.refresh_from_db()
    assert slot.state == "lapsed"


def test_a_message_comes_back(as_alice: Client, slot: Slot) -> None:
    as_alice.post(f"/work/{slot.pk}/rank/", answer(as_alice.get(f"/work/{slot.pk}/"), {"A": 1}))
    version = int(Draft.objects.get().version)
    save(as_alice, slot, {"message": "Half a thought </textarea><script>"}, version)
    html = text_of(as_alice.get(f"/work/{slot.pk}/"))
    assert "Half a thought &lt;/textarea&gt;&lt;script&gt;</textarea>" in html


def test_an_older_window_is_told_which_version_is_newer(as_alice: Client, slot: Slot) -> None:
    save(as_alice, slot, {"message": "one"})
    save(as_alice, slot, {"message": "two"}, version=1)
    stale = save(as_alice, slot, {"message": "old"}, version=1)
    assert stale.status_code == 409
    assert stale.json()["code"] == "stale_draft" and stale.json()["version"] == 2
    assert Draft.objects.get().body == {"message": "two"}


def test_the_same_draft_again_is_no_conflict(as_alice: Client, slot: Slot) -> None:
    save(as_alice, slot, {"message": "one"})
    assert save(as_alice, slot, {"message": "one"}).status_code == 200


def test_a_draft_that_comes_after_the_answer_changes_nothing(as_alice: Client, project: Project) -> None:
    slot = make.make_rank_slot(make.make_comparison(project, text="Is my fern thirsty?"))
    page = as_alice.get(f"/work/{slot.pk}/")
    as_alice.post(f"/work/{slot.pk}/rank/", answer(page, {"A": 1}))
    assert save(as_alice, slot, {"strength": "1"}).status_code == 409
    assert Draft.objects.get().body == {}


def test_a_window_left_open_cannot_write_over_the_turn_that_followed(as_alice: Client, slot: Slot) -> None:
    save(as_alice, slot, {"strength": "1"})
    as_alice.post(f"/work/{slot.pk}/rank/", answer(as_alice.get(f"/work/{slot.pk}/"), {"A": 1}))
    assert save(as_alice, slot, {"strength": "2"}, version=1).status_code == 409


@pytest.mark.parametrize("sent", [{"version": "x", "body": "{}"}, {"version": 0, "body": "[]"}, {"version": 0}, {}])
def test_what_is_no_draft_is_refused(as_alice: Client, slot: Slot, sent: dict[str, object]) -> None:
    refused = as_alice.post(f"/work/{slot.pk}/draft/", sent)
    assert refused.status_code == 422 and refused.json()["code"] == "bad_draft"


@pytest.mark.parametrize(
    "body",
    ['{"a": ' + "1" * 5000 + "}", "[" * 100_000, '{"a": NaN}', '{"a": [-Infinity]}', '{"a": 1e999}'],
    ids=["a number without end", "lists without end", "not a number", "minus infinity", "more than a number holds"],
)
def test_what_json_allows_and_no_database_keeps_is_refused_like_any_other_nonsense(
    as_alice: Client, slot: Slot, body: str
) -> None:
    refused = as_alice.post(f"/work/{slot.pk}/draft/", {"version": 0, "body": body})
    said = {"code": "bad_draft", "message": "This draft could not be read."}
    assert (refused.status_code, refused.json()) == (422, said)
    assert not Draft.objects.exists()


def test_a_draft_too_long_to_keep_says_so(as_alice: Client, slot: Slot) -> None:
    refused = save(as_alice, slot, {"message": "x" * 70_000})
    assert refused.status_code == 422 and "too long to keep" in refused.json()["message"]


@pytest.mark.parametrize(
    "body",
    [
        {"rank-1": "1", "rank-zzzzzzzzzzzz": "1", "flag-": "on"},
        {"strength": "9", "all_bad": "", "rank-0123456789ab": "77"},
        {"strength": ["1", "2"], "rank-0123456789ab": {"a": 1}, "message": ["a", "b"]},
    ],
)
def test_a_draft_from_a_strange_browser_breaks_no_page(as_alice: Client, slot: Slot, body: dict[str, object]) -> None:
    save(as_alice, slot, body)
    page = as_alice.get(f"/work/{slot.pk}/")
    assert page.status_code == 200 and not chosen(page)


def test_a_strangers_draft_is_not_taken(as_bob: Client, slot: Slot) -> None:
    assert save(as_bob, slot, {"message": "not mine"}).status_code == 404
    assert not Draft.objects.exists()


def test_the_draft_on_the_device_has_one_name_until_the_answer_is_given(as_alice: Client, project: Project) -> None:
    slot = make.make_chat(project, text="Is my fern thirsty?", answered=False)

    def key() -> str:
        html = text_of(as_alice.get(f"/work/{slot.pk}/"))
        return html.split('data-draft-key="')[1].split('"')[0]

    waiting = key()
    make.answer_request(slot.work_item.dialogue.generation_requests.get())
    assert key() == waiting
    page = as_alice.get(f"/work/{slot.pk}/")
    after = as_alice.post(f"/work/{slot.pk}/rank/", answer(page, {"A": 1}), follow=True)
    assert key() != waiting and hidden(after, "after_position") == "0"
