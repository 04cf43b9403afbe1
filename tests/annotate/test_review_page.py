"""A reply somebody else wrote: accepted, sent back with a reason, or edited; and nothing of what anybody said of it."""

from __future__ import annotations

import pytest
from django.db import transaction
from django.test import Client

from feedback.models import Demonstration, DemonstrationReview, Project, Slot, User
from tests import make
from tests.annotate.reading import hidden, text_of, words_of
from tests.annotate.test_blindness import blinded


@pytest.fixture
def project(project: Project) -> Project:
    Project.objects.update(demonstrations_open=True)
    project.refresh_from_db()
    return project


@pytest.fixture
def slot(project: Project, alice: User) -> Slot:
    return make.make_review_slot(make.write(make.make_write_slot(project, name="bob")), name="alice")


def sent(page, verdict: str = "accepted", **more: object) -> dict[str, object]:
    fields = {name: hidden(page, name) for name in ("submit_key", "revises", "draft_version")}
    return fields | {"verdict": verdict, "seconds": "9", "content": "Water it less."} | more


def test_the_page_shows_the_text_the_dialogue_and_no_name(as_alice: Client, slot: Slot) -> None:
    words = words_of(as_alice.get(f"/work/{slot.pk}/"))
    assert "Should the model say this?" in words and "Water it less." in words and "Why are my basil" in words
    assert "Somebody wrote" in words and "Bob" not in words
    part = as_alice.get(f"/work/{slot.pk}/", headers={"HX-Request": "true"})
    assert "<html" not in text_of(part) and 'id="bar" hx-swap-oob="true"' in text_of(part)


def test_accepting_stores_it_and_the_next_piece_follows(as_alice: Client, project: Project, slot: Slot) -> None:
    make.write(make.make_write_slot(project, name="bob", text="Another?"), "Something else.")
    response = as_alice.post(f"/work/{slot.pk}/review/", sent(as_alice.get(f"/work/{slot.pk}/")))
    review = DemonstrationReview.objects.get()
    assert (review.verdict, review.reason, review.edit, review.seconds) == ("accepted", "", None, 9.0)
    assert response.url == f"/work/{Slot.objects.get(state='held').pk}/"
    assert "Reviewed: accepted" in words_of(as_alice.get("/answers/"))


def test_sending_back_needs_a_reason(as_alice: Client, slot: Slot) -> None:
    page = as_alice.get(f"/work/{slot.pk}/")
    refused = as_alice.post(f"/work/{slot.pk}/review/", sent(page, "sent_back"))
    assert refused.status_code == 422 and "Say what is to change" in words_of(refused)
    as_alice.post(f"/work/{slot.pk}/review/", sent(refused, "sent_back", reason="Say how often."))
    assert DemonstrationReview.objects.get().reason == "Say how often."
    assert Demonstration.objects.sent_back().count() == 1


def test_an_edit_is_the_reviewers_own_text(as_alice: Client, slot: Slot) -> None:
    page = as_alice.get(f"/work/{slot.pk}/")
    refused = as_alice.post(f"/work/{slot.pk}/review/", sent(page, "edited"))
    assert refused.status_code == 422 and "You have changed nothing." in words_of(refused)
    as_alice.post(f"/work/{slot.pk}/review/", sent(refused, "edited", content="Water it less often."))
    edit = Demonstration.objects.waiting().get()
    assert (edit.content, edit.annotator.username) == ("Water it less often.", "alice")
    answers = words_of(as_alice.get("/answers/"))
    assert "Reviewed: edited" in answers and "Wrote a reply" not in answers
    page = as_alice.get(f"/work/{slot.pk}/")
    assert "stays as it is" in words_of(page) and "textarea" not in text_of(page)


@pytest.mark.parametrize("verdict", ["", "fine"])
def test_nothing_and_something_else_are_refused(as_alice: Client, slot: Slot, verdict: str) -> None:
    assert (
        as_alice.post(f"/work/{slot.pk}/review/", sent(as_alice.get(f"/work/{slot.pk}/"), verdict)).status_code == 422
    )
    assert not DemonstrationReview.objects.exists()


def test_a_review_is_corrected_while_its_writer_is_not_at_it(as_alice: Client, slot: Slot) -> None:
    as_alice.post(f"/work/{slot.pk}/review/", sent(as_alice.get(f"/work/{slot.pk}/"), "sent_back", reason="No."))
    page = as_alice.get(f"/work/{slot.pk}/")
    assert "You said" in words_of(page) and "Correct" in words_of(page)
    as_alice.post(f"/work/{slot.pk}/review/", sent(page))
    assert Demonstration.objects.accepted().count() == 1


def test_its_writer_and_strangers_do_not_find_it(as_bob: Client, as_charlie: Client, slot: Slot) -> None:
    for client in (as_bob, as_charlie, Client()):
        assert client.post(f"/work/{slot.pk}/review/", {"verdict": "accepted"}).status_code in {302, 404}
    assert not DemonstrationReview.objects.exists() and "0 Review" in words_of(as_bob.get("/"))


def test_a_text_that_was_written_elsewhere_too_is_told(as_alice: Client, project: Project, slot: Slot) -> None:
    assert "written elsewhere" not in words_of(as_alice.get(f"/work/{slot.pk}/"))
    make.write(make.make_write_slot(project, name="carol", text="Another?"), "water it less", keep_alike=True)
    assert "The same text was written elsewhere in this project." in words_of(as_alice.get(f"/work/{slot.pk}/"))


def test_what_was_typed_is_kept_as_a_draft(as_alice: Client, slot: Slot) -> None:
    body = '{"verdict": "sent_back", "reason": "Half a re", "content": "Water"}'
    as_alice.post(f"/work/{slot.pk}/draft/", {"version": 0, "body": body})
    page = text_of(as_alice.get(f"/work/{slot.pk}/"))
    assert "Half a re</textarea>" in page and "Water</textarea>" in page
    assert 'value="sent_back" data-key="b" checked' in page


def test_the_pages_are_the_same_bytes_whatever_others_said(as_alice: Client, project: Project, alice: User) -> None:
    looks = []
    for verdict, pasted in (("accepted", 0.0), ("sent_back", 1.0)):
        with transaction.atomic():
            text = make.write(make.make_write_slot(project, name="bob"), pasted_share=pasted, seconds=pasted * 500)
            late = make.make_review_slot(text, name="dora")
            make.lapse(late)
            slot = make.make_review_slot(text, name="alice")
            make.review(late, verdict, reason="Plainly.")
            looks.append([blinded(as_alice.get(f"/work/{slot.pk}/")), blinded(as_alice.get("/answers/"))])
            transaction.set_rollback(True)
    assert looks[0] == looks[1] and "Water it less." in looks[0][0]
