"""The reply a person writes: from nothing or from one of the model's, kept while typing, sent, gone on from, mended."""

from __future__ import annotations

import json

import pytest
from django.test import Client

from feedback import demonstrations, demonstrations_wanted, drafts
from feedback.models import Demonstration, Project, Slot, Turn, User
from tests import make
from tests.annotate.reading import hidden, text_of, words_of

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def project(project: Project) -> Project:
    Project.objects.update(demonstrations_open=True)
    project.refresh_from_db()
    return project


@pytest.fixture
def slot(project: Project, alice: User) -> Slot:
    return make.make_write_slot(project)


def sent(page, content: str = "Water it less.", **more: object) -> dict[str, object]:
    fields = {name: hidden(page, name) for name in ("submit_key", "revises", "draft_version", "started_from", "pasted")}
    return fields | {"content": content, "seconds": "40"} | more


def open_page(client: Client, slot: Slot):
    page = client.get(f"/work/{slot.pk}/")
    assert page.status_code == 200
    return page


def test_home_counts_what_waits_and_start_takes_it(as_alice: Client, project: Project) -> None:
    demonstrations_wanted.ask_for_demonstrations(prompt=make.make_prompt(project))
    make.write(make.make_write_slot(project, name="bob", text="Another?"), "A reply of Bob's.")
    words = words_of(as_alice.get("/"))
    assert "1 Demonstrate" in words and "1 Review" in words
    words = words_of(as_alice.post(f"/next/{project.slug}/", {"kind": "demonstrate"}, follow=True))
    assert "What should the model say?" in words and "Why are my basil leaves yellow?" in words and "Person" in words


def test_home_is_silent_where_demonstrations_are_closed(as_alice: Client, project: Project) -> None:
    Project.objects.update(demonstrations_open=False)
    assert "Demonstrate" not in words_of(as_alice.get("/")) and "Review" not in words_of(as_alice.get("/"))


def test_a_reply_is_stored_and_the_next_piece_follows(as_alice: Client, project: Project, slot: Slot) -> None:
    demonstrations_wanted.ask_for_demonstrations(prompt=make.make_prompt(project, "Another?"))
    page = open_page(as_alice, slot)
    response = as_alice.post(f"/work/{slot.pk}/write/", sent(page, "Water it less.", pasted="7"))
    text = Demonstration.objects.get()
    assert (text.content, text.pasted_share, text.seconds) == ("Water it less.", 0.5, 40.0)
    assert response.url == f"/work/{Slot.objects.get(state='held').pk}/"
    assert "Saved. Next one." in words_of(as_alice.get(response.url))
    again = as_alice.post(f"/work/{slot.pk}/write/", sent(page, "Water it less."))
    assert again.status_code == 302 and Demonstration.objects.count() == 1


@pytest.mark.parametrize(("pasted", "share"), [("", None), ("x", None), ("0", 0.0), ("99", 1.0)])
def test_what_was_pasted_is_a_share_or_unknown(as_alice: Client, slot: Slot, pasted: str, share: float | None) -> None:
    as_alice.post(f"/work/{slot.pk}/write/", sent(open_page(as_alice, slot), pasted=pasted))
    assert Demonstration.objects.get().pasted_share == share


def test_an_empty_reply_is_refused_beside_the_field(as_alice: Client, slot: Slot) -> None:
    response = as_alice.post(f"/work/{slot.pk}/write/", sent(open_page(as_alice, slot), " "))
    assert response.status_code == 422 and "Write the reply first." in words_of(response)
    assert 'aria-invalid="true"' in text_of(response) and not Demonstration.objects.exists()


def test_what_is_refused_is_shown_again_as_text_and_never_as_markup(as_alice: Client, slot: Slot) -> None:
    response = as_alice.post(f"/work/{slot.pk}/write/", sent(open_page(as_alice, slot), HOSTILE, submit_key="x"))
    assert response.status_code == 422
    assert HOSTILE not in text_of(response) and "&lt;script&gt;" in text_of(response)


def test_a_part_answers_htmx_and_the_bar_comes_along(as_alice: Client, slot: Slot) -> None:
    part = as_alice.get(f"/work/{slot.pk}/", headers={"HX-Request": "true"})
    assert "<html" not in text_of(part) and "What should the model say?" in words_of(part)
    assert 'id="bar" hx-swap-oob="true"' in text_of(part)


def test_strangers_and_colleagues_find_nothing(as_bob: Client, as_charlie: Client, slot: Slot) -> None:
    for client in (as_bob, as_charlie, Client()):
        for act in ("write", "start", "say", "withdraw", "review"):
            assert client.post(f"/work/{slot.pk}/{act}/").status_code in {302, 403, 404}
    assert not Demonstration.objects.exists() and not Turn.objects.filter(position=1).exists()


def test_who_comes_back_to_the_address_is_led_to_the_page(as_alice: Client, slot: Slot) -> None:
    for act in ("write", "start", "say", "withdraw", "review"):
        assert as_alice.get(f"/work/{slot.pk}/{act}/").url == f"/work/{slot.pk}/"
        assert as_alice.put(f"/work/{slot.pk}/{act}/").status_code == 405


def test_the_rules_in_force_lie_beside_it(as_alice: Client, project: Project, slot: Slot) -> None:
    assert "The rules the reply keeps to" not in words_of(open_page(as_alice, slot))
    make.make_rule_set(project)
    words = words_of(open_page(as_alice, slot))
    assert "The rules the reply keeps to" in words and "Do not do the thing number 2." in words


def test_a_draft_is_kept_with_what_was_pasted_and_started_from(as_alice: Client, project: Project, slot: Slot) -> None:
    made = make.make_comparison(project)
    page = open_page(as_alice, slot)
    name = hidden(page, "start")
    body = {"content": "Half a th", "pasted": "4", "started_from": name}
    kept = as_alice.post(f"/work/{slot.pk}/draft/", {"version": 0, "body": json.dumps(body)})
    assert kept.json()["version"] == 1
    page = open_page(as_alice, slot)
    assert "Half a th</textarea>" in text_of(page)
    assert (hidden(page, "pasted"), hidden(page, "started_from"), hidden(page, "draft_version")) == ("4", name, "1")
    as_alice.post(f"/work/{slot.pk}/write/", sent(page, "Half a thought."))
    assert Demonstration.objects.get().edited_from in made.candidates.all()
    assert drafts.draft_of(slot).body == {}


def test_one_starts_from_a_reply_of_the_models_while_the_field_is_empty(
    as_alice: Client, project: Project, slot: Slot
) -> None:
    make.make_comparison(project, texts=["Let it dry.", "Sun.", "Wait.", "Water."])
    page = open_page(as_alice, slot)
    name = hidden(page, "start")
    refused = as_alice.post(f"/work/{slot.pk}/start/", sent(page, "My own words.", start=name))
    assert refused.status_code == 409 and "Empty the field first" in words_of(refused)
    assert "My own words.</textarea>" in text_of(refused)
    assert as_alice.post(f"/work/{slot.pk}/start/", sent(page, "", start="0" * 12)).status_code == 422
    begun = as_alice.post(f"/work/{slot.pk}/start/", sent(page, "", start=name), follow=True)
    chosen = next(one for one in demonstrations.candidates_for(slot) if one.text + "</textarea>" in text_of(begun))
    assert "You started from a reply of the model’s." in words_of(begun)
    as_alice.post(f"/work/{slot.pk}/write/", sent(begun, "Let it dry out first."))
    text = Demonstration.objects.get()
    assert text.edited_from == chosen and text.is_changed


def test_a_text_that_is_here_already_is_warned_of_and_kept_when_it_is_sent_again(
    as_alice: Client, project: Project, slot: Slot
) -> None:
    make.write(make.make_write_slot(project, name="bob", text="Another?"), "Water it less.")
    page = open_page(as_alice, slot)
    warned = as_alice.post(f"/work/{slot.pk}/write/", sent(page))
    assert warned.status_code == 409 and "This is the same as a reply" in words_of(warned)
    assert "Keep it so" in words_of(warned) and "Water it less.</textarea>" in text_of(warned)
    as_alice.post(f"/work/{slot.pk}/write/", sent(warned, keep_alike=hidden(warned, "keep_alike")))
    assert Demonstration.objects.count() == 2


def test_the_next_turn_is_said_and_then_answered(as_alice: Client, project: Project, slot: Slot) -> None:
    response = as_alice.post(f"/work/{slot.pk}/write/", sent(open_page(as_alice, slot), go_on="1"))
    following = Slot.objects.get(state="held")
    assert response.url == f"/work/{following.pk}/"
    page = as_alice.get(response.url)
    assert "What does the person say next?" in words_of(page) and "Water it less." in words_of(page)
    empty = {"content": " ", "after_position": hidden(page, "after_position"), "draft_version": "0"}
    refused = as_alice.post(f"/work/{following.pk}/say/", empty)
    assert refused.status_code == 422
    page = as_alice.post(f"/work/{following.pk}/say/", empty | {"content": "And in winter?"}, follow=True)
    assert "What should the model say?" in words_of(page) and "And in winter?" in words_of(page)
    as_alice.post(f"/work/{following.pk}/write/", sent(page, "Less still."))
    assert [text.position for text in Demonstration.objects.order_by("pk")] == [0, 2]


def test_a_dialogue_that_has_all_its_turns_is_not_gone_on_with(as_alice: Client, project: Project, slot: Slot) -> None:
    Project.objects.update(max_turns=1)
    demonstrations_wanted.ask_for_demonstrations(prompt=make.make_prompt(project, "Another?"))
    page = open_page(as_alice, slot)
    assert "write the next turn" not in words_of(page)
    response = as_alice.post(f"/work/{slot.pk}/write/", sent(page, go_on="1"), follow=True)
    assert "This dialogue has all the turns it may have. Your reply is stored." in words_of(response)


def test_a_sent_reply_can_be_corrected_and_taken_back_until_somebody_reads_it(as_alice: Client, slot: Slot) -> None:
    as_alice.post(f"/work/{slot.pk}/write/", sent(open_page(as_alice, slot)))
    page = open_page(as_alice, slot)
    assert "until then you can correct it or take it back" in words_of(page) and "Take back" in words_of(page)
    as_alice.post(f"/work/{slot.pk}/write/", sent(page, "Water it less, and turn it."))
    assert Demonstration.objects.in_force().get().content == "Water it less, and turn it."
    words = words_of(as_alice.post(f"/work/{slot.pk}/withdraw/", follow=True))
    assert "Taken back. Somebody else is asked for it." in words and "Wrote a reply, taken back" in words
    assert "There was nothing to take back." in words_of(as_alice.post(f"/work/{slot.pk}/withdraw/", follow=True))


def test_who_sends_from_a_second_window_sees_both_texts_and_one_that_was_read_meanwhile_loses_none(
    as_alice: Client, project: Project, slot: Slot
) -> None:
    page = open_page(as_alice, slot)
    as_alice.post(f"/work/{slot.pk}/write/", sent(page))
    other = sent(page, "From another window.", submit_key="9b2f0c1e-4b1f-4f3e-9a55-0d8f3a1c2b77")
    refused = as_alice.post(f"/work/{slot.pk}/write/", other)
    assert refused.status_code == 409 and "From another window.</textarea>" in text_of(refused)
    assert "What you sent before Water it less." in words_of(refused)
    make.make_review_slot(Demonstration.objects.get())
    refused = as_alice.post(f"/work/{slot.pk}/write/", other | {"revises": "1"})
    assert refused.status_code == 409 and "can not be changed any more" in words_of(refused)
    assert "You had written this" in words_of(refused) and "From another window." in words_of(refused)
    assert Demonstration.objects.get().content == "Water it less."


def test_what_became_of_a_reply_is_told_and_it_is_closed_then(as_alice: Client, project: Project, slot: Slot) -> None:
    text = make.write(slot)
    reviewing = make.make_review_slot(text)
    page = open_page(as_alice, slot)
    assert "textarea" not in text_of(page) and "Take back" not in words_of(page)
    make.review(reviewing)
    assert "Somebody read it and accepted it." in words_of(open_page(as_alice, slot))
    assert "Wrote a reply, accepted" in words_of(as_alice.get("/answers/"))
    assert as_alice.post(f"/work/{slot.pk}/withdraw/").status_code == 409


def test_what_was_sent_back_comes_with_its_reason_and_the_text(as_alice: Client, project: Project, slot: Slot) -> None:
    make.review(make.make_review_slot(make.write(slot)), "sent_back", reason=f"Say how often. {HOSTILE}")
    assert "1 Demonstrate" in words_of(as_alice.get("/"))
    page = as_alice.post(f"/next/{project.slug}/", {"kind": "demonstrate"}, follow=True)
    again = Slot.objects.get(state="held")
    assert "Sent back by a reviewer: Say how often." in words_of(page) and HOSTILE not in text_of(page)
    assert "Water it less.</textarea>" in text_of(page) and "write the next turn" not in words_of(page)
    response = as_alice.post(f"/work/{again.pk}/write/", sent(page, "Water it twice a week."))
    assert response.status_code == 302
    assert Demonstration.objects.in_force().get().content == "Water it twice a week."


def test_skipping_needs_a_reason_and_leaves_it_to_another(as_alice: Client, as_bob: Client, slot: Slot) -> None:
    assert as_alice.post(f"/work/{slot.pk}/skip/").status_code == 422
    as_alice.post(f"/work/{slot.pk}/skip/", {"reason": "I cannot judge this"})
    assert "1 Demonstrate" in words_of(as_bob.get("/")) and "0 Demonstrate" in words_of(as_alice.get("/"))


def test_a_late_reply_is_kept_and_told_so(as_alice: Client, project: Project, slot: Slot) -> None:
    demonstrations_wanted.ask_for_demonstrations(prompt=make.make_prompt(project, "Another?"))
    page = open_page(as_alice, slot)
    make.lapse(slot)
    assert "What you send is stored as late" in words_of(open_page(as_alice, slot))
    response = as_alice.post(f"/work/{slot.pk}/write/", sent(page), follow=True)
    assert "Saved as late." in words_of(response) and Demonstration.objects.get().late


def test_other_ways_of_answering_do_nothing_here(as_alice: Client, slot: Slot) -> None:
    for act in ("send", "undo", "more", "end", "retry", "fewer", "rank", "judge", "review"):
        response = as_alice.post(f"/work/{slot.pk}/{act}/", {"message": "Hello", "after_position": "0"})
        assert response.status_code in {403, 404, 409, 422}, act
    assert as_alice.get(f"/work/{slot.pk}/arrivals/").status_code == 204
    assert slot.work_item.dialogue.turns.count() == 1
