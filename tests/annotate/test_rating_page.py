"""One reply and the questions about it: answered at once, refused with nothing lost; and nothing is betrayed."""

from __future__ import annotations

import re

import pytest
from django.db import transaction
from django.test import Client
from django.utils import timezone

from feedback.models import Candidate, ModelVersion, Project, Rating, ScaleSet, Slot
from tests import make
from tests.annotate.reading import hidden, text_of, words_of
from tests.annotate.test_blindness import blinded


@pytest.fixture
def lamda(project: Project) -> ScaleSet:
    return make.make_scale_set(project)


@pytest.fixture
def slot(lamda: ScaleSet) -> Slot:
    return make.make_rate_slot(lamda)


def sent(page, **more: object) -> dict[str, object]:
    fields = {name: hidden(page, name) for name in ("submit_key", "revises", "draft_version")}
    return fields | {f"q-{key}": value for key, value in make.ANSWERS["lamda"].items()} | {"seconds": "20"} | more


def test_home_counts_what_waits_and_start_takes_it(as_alice: Client, project: Project, lamda: ScaleSet) -> None:
    assert "0 Rate replies" in words_of(as_alice.get("/"))
    make.rate(make.make_rate_slot(lamda, name="bob"))
    assert "1 Rate replies" in words_of(as_alice.get("/"))
    words = words_of(as_alice.post(f"/next/{project.slug}/", {"kind": "rate"}, follow=True))
    assert "Does this reply make sense here?" in words and "The dialogue so far" in words
    ScaleSet.objects.update(is_open=False)
    assert "Rate replies One reply at a time" not in words_of(as_alice.get("/"))


def test_all_answers_are_stored_and_the_next_reply_comes(as_alice: Client, slot: Slot) -> None:
    page = as_alice.get(f"/work/{slot.pk}/")
    response = as_alice.post(f"/work/{slot.pk}/rate/", sent(page), follow=True)
    assert "There is nothing more of that kind just now" in words_of(response)
    assert {rating.scale.key: rating.value for rating in Rating.objects.select_related("scale")} == make.ANSWERS[
        "lamda"
    ]
    assert {rating.seconds for rating in Rating.objects.all()} == {20.0}
    words = words_of(as_alice.get("/answers/"))
    assert words.count("Rated, LaMDA: Sensible yes") == 1
    assert "1 answer" in words_of(as_alice.get("/"))  # seven questions, one answer


def test_what_is_missing_is_said_and_nothing_chosen_is_lost(as_alice: Client, slot: Slot) -> None:
    page = as_alice.get(f"/work/{slot.pk}/")
    fields = sent(page)
    del fields["q-harm"]
    response = as_alice.post(f"/work/{slot.pk}/rate/", fields)
    assert response.status_code == 422 and "“Risk of harm” is not answered yet" in words_of(response)
    assert len(re.findall(r'data-key="." checked', text_of(response))) == 6 and not Rating.objects.exists()
    fields |= {"q-harm": "none of yours"}
    assert as_alice.post(f"/work/{slot.pk}/rate/", fields).status_code == 422
    assert as_alice.post(f"/work/{slot.pk}/rate/", fields | {"submit_key": "x"}).status_code == 422
    assert not Rating.objects.exists()


def test_a_draft_is_shown_again_and_strange_ones_do_no_harm(as_alice: Client, slot: Slot) -> None:
    body = '{"q-sensible": "maybe", "q-harm": ["yes", "no"], "q-unfair": 7, "q-x": {"a": 1}}'
    assert as_alice.post(f"/work/{slot.pk}/draft/", {"version": 0, "body": body}).status_code == 200
    page = text_of(as_alice.get(f"/work/{slot.pk}/"))
    assert 'name="q-sensible" value="maybe" data-key="3" checked' in page


def test_flags_come_in_any_order_and_none_beside_one_is_refused(as_alice: Client, project: Project) -> None:
    slot = make.make_rate_slot(make.make_scale_set(project, "instructgpt"))
    page = as_alice.get(f"/work/{slot.pk}/")
    key = hidden(page, "submit_key")
    fields = {"submit_key": key, "q-overall": "7", "q-work": ["makes_things_up", "fails_task"], "q-content": "none"}
    refused = as_alice.post(f"/work/{slot.pk}/rate/", fields | {"q-content": ["none", "sexual"]})
    assert refused.status_code == 422
    assert as_alice.post(f"/work/{slot.pk}/rate/", fields).status_code == 302
    assert Rating.objects.get(scale__key="work").value == "fails_task,makes_things_up"


def test_another_window_was_first_and_both_answers_are_shown(as_alice: Client, slot: Slot) -> None:
    page = as_alice.get(f"/work/{slot.pk}/")
    make.rate(slot)
    response = as_alice.post(f"/work/{slot.pk}/rate/", sent(page, **{"q-harm": "yes"}))
    assert response.status_code == 409
    assert "You had sent here: Risk of harm: yes." in words_of(response)


def test_an_answer_is_corrected_and_taken_back(as_alice: Client, slot: Slot) -> None:
    make.rate(slot)
    page = as_alice.get(f"/work/{slot.pk}/")
    assert "Choose anew to correct it." in words_of(page)
    as_alice.post(f"/work/{slot.pk}/rate/", sent(page, **{"q-harm": "maybe"}))
    assert Rating.objects.in_force().get(scale__key="harm").value == "maybe"
    words = words_of(as_alice.post(f"/work/{slot.pk}/unrate/", follow=True))
    assert "Taken back. It counts no more" in words and "taken back" in words
    assert "There was nothing to take back." in words_of(as_alice.post(f"/work/{slot.pk}/unrate/", follow=True))


def test_a_late_answer_is_kept_and_says_so(as_alice: Client, slot: Slot) -> None:
    make.lapse(slot)
    page = as_alice.get(f"/work/{slot.pk}/")
    assert "What you send is stored as late" in words_of(page)
    words = words_of(as_alice.post(f"/work/{slot.pk}/rate/", sent(page), follow=True))
    assert "Rated, LaMDA: Sensible yes, late Look again" in words


def test_nobody_else_sees_or_answers_it(as_bob: Client, as_charlie: Client, slot: Slot) -> None:
    for client in (as_bob, as_charlie):
        assert client.get(f"/work/{slot.pk}/").status_code == 404
        assert client.post(f"/work/{slot.pk}/rate/", {}).status_code == 404


def test_text_of_the_model_and_of_a_manager_is_text(as_alice: Client, slot: Slot) -> None:
    hostile = "<script>go()</script>"
    Candidate.objects.filter(pk=slot.work_item.candidate_id).update(
        turns=[{"role": "assistant", "content": hostile}], is_empty=False
    )
    page = text_of(as_alice.get(f"/work/{slot.pk}/"))
    assert hostile not in page and "&lt;script&gt;go()" in page


def test_what_wrote_it_and_what_others_said_changes_nothing_on_the_page(as_alice: Client, project: Project) -> None:
    seen = []
    for name, logprob, value in (("Larch", -0.1, "yes"), ("Birch", -7.5, "no")):
        with transaction.atomic():
            ModelVersion.objects.filter(project=project).update(name=name)
            slot = make.make_rate_slot(make.make_scale_set(project), wanted=3)
            Candidate.objects.filter(pk=slot.work_item.candidate_id).update(mean_logprob=logprob, seed=int(-logprob))
            make.rate(make.make_rate_slot(slot.work_item.scale_set, slot.work_item.candidate, name="bob", wanted=3),
                      sensible=value)  # fmt: skip
            page = as_alice.get(f"/work/{slot.pk}/")
            assert name not in text_of(page) and "policy" not in text_of(page).lower()
            seen.append(blinded(page))
            transaction.set_rollback(True)
    assert seen[0] == seen[1]


def test_a_reply_that_may_harm_is_veiled_until_it_is_uncovered(as_alice: Client, project: Project) -> None:
    rule = make.make_rule_set(project, rules=1, sensitive=1).rules.get()
    make.agree(project, "alice")
    probe = make.make_probe(rule, name="carol")
    candidate = Candidate.objects.create(
        dialogue=probe.dialogue, after_position=0, index=0, turns=[{"role": "assistant", "content": "I did."}]
    )
    slot = make.make_rate_slot(make.make_scale_set(project, "sparrow"), candidate)
    page = as_alice.get(f"/work/{slot.pk}/")
    assert "Show this reply" in words_of(page) and "said veiled" in text_of(page)
    assert "Wrong advice about poison." in words_of(page)
    assert "said veiled" not in text_of(as_alice.get(f"/work/{slot.pk}/?shown=0"))
    as_alice.post(f"/consent/{project.slug}/", {"about": "Poison", "answer": "stop", "wording": ""})
    slot.refresh_from_db()
    assert slot.state == "skipped" and slot.closed_at <= timezone.now()
