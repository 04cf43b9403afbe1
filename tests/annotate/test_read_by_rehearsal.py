"""A rehearsal's simulated people read these same pages; what they look for must be there."""

from __future__ import annotations

from django.test import Client

from feedback.models import Project
from rewardtrain.rehearsal.pages import read_page
from tests import make
from tests.annotate.reading import text_of


def test_they_find_replies_forms_and_turns(as_alice: Client, project: Project) -> None:
    slot = make.make_chat(project)
    url = f"/work/{slot.pk}/"
    sheet = read_page(text_of(as_alice.get(url)), url)
    assert sorted(reply.text for reply in sheet.replies) == [f"Reply {number} to this." for number in range(4)]
    assert sheet.turns == [{"role": "user", "content": "Why are my basil leaves yellow?"}]
    sent = {name: sheet.forms["rank"].values[name] for name in ("submit_key", "comparison", "revises")}
    ranks = {f"rank-{reply.candidate}": str(place) for place, reply in enumerate(sheet.replies, start=1)}
    after = as_alice.post(sheet.forms["rank"].action, sent | ranks, follow=True)
    composer = read_page(text_of(after), url)
    assert [turn["role"] for turn in composer.turns] == ["user", "assistant"]
    assert composer.forms["message"].action == url + "send/" and composer.forms["end"].action == url + "end/"
    assert composer.forms["message"].values["after_position"] == "0"


def test_a_complete_dialogue_offers_them_only_its_end(as_alice: Client, project: Project) -> None:
    Project.objects.update(max_turns=1)
    slot = make.make_chat(project)
    make.make_ranking(slot)
    page = read_page(text_of(as_alice.get(f"/work/{slot.pk}/")))
    assert "message" not in page.forms and page.forms["end"].action
