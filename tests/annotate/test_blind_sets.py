"""A blind set on the annotators' pages: nothing tells whose a reply is, or that it is one of a blind set's."""

from __future__ import annotations

import pytest
from django.db import transaction
from django.test import Client

from feedback import slots
from feedback.blind_sets import BlindReply, Contestant, ask_to_compare, ask_to_judge
from feedback.models import Dialogue, ModelVersion, Project, Slot, User
from tests import make
from tests.annotate.reading import text_of
from tests.annotate.test_blindness import blinded

TEXTS = ["Let the soil tell you.", "A small glass every morning."]


def ask(project: Project, kind: str, owners: list[Contestant], evaluation: str) -> None:
    """The same question with other owners."""
    prompt = make.make_prompt(project, "How much water?", "test")
    made_by = {"seed": owners[0].policy, "mean_logprob": -float(owners[0].policy), "token_count": owners[0].draws}
    replies = [BlindReply(owner, text, made_by) for owner, text in zip(owners, TEXTS, strict=True)]
    if kind == "rank":
        ask_to_compare(project=project, evaluation=evaluation, place=1, prompt=prompt, replies=replies)
    else:
        rule = project.rule_sets.get().rules.all()[0]
        ask_to_judge(
            project=project, evaluation=evaluation, place=1, prompt=prompt, messages=prompt.messages, rule=rule,
            reply=BlindReply(owners[0], TEXTS[0], made_by),
        )  # fmt: skip


@pytest.mark.parametrize("kind", ["rank", "judge"])
def test_pages_are_the_same_bytes_whoever_wrote_the_replies(
    project: Project, as_alice: Client, alice: User, kind: str
) -> None:
    make.make_rule_set(project)
    one, other = make.make_model(project, name="alpha"), make.make_model(project, name="omega")
    looks = []
    for owners, name in (
        ([Contestant(one.pk), Contestant(other.pk, 8)], "evaluation 1"),
        ([Contestant(other.pk, 8), Contestant(one.pk)], "evaluation 22"),
    ):
        with transaction.atomic():
            ask(project, kind, owners, name)
            slot = slots.next_slot(user=alice, project=project)
            assert slot is not None and slot.work_item.kind == kind
            Slot.objects.filter(pk=slot.pk).update(shuffle_seed=7)
            url = f"/work/{slot.pk}/"
            pages = [as_alice.get(url), as_alice.get(url, headers={"HX-Request": "true"}), as_alice.get("/")]
            pages += [as_alice.post(url + ("rank/" if kind == "rank" else "judge/")), as_alice.get("/answers/")]
            looks.append([blinded(page) for page in pages])
            transaction.set_rollback(True)
    for first, second in zip(*looks, strict=True):
        assert first == second
    assert TEXTS[0] in looks[0][0]


@pytest.mark.parametrize("kind", ["rank", "judge"])
def test_a_page_does_not_say_that_it_measures_policies(
    project: Project, as_alice: Client, alice: User, kind: str
) -> None:
    make.make_rule_set(project)
    versions = [make.make_model(project, name=name) for name in ("alpha", "omega")]
    ask(project, kind, [Contestant(version.pk) for version in versions], "evaluation 1")
    slot = slots.next_slot(user=alice, project=project)
    assert slot is not None
    page = text_of(as_alice.get(f"/work/{slot.pk}/")).lower()
    for word in ("evaluation", "policy", "alpha", "omega", "best of"):
        assert word not in page


def test_a_blind_set_can_be_ranked_and_judged_on_the_usual_pages(
    project: Project, as_alice: Client, alice: User
) -> None:
    make.make_rule_set(project)
    versions = [make.make_model(project) for _ in range(2)]
    for kind in ("rank", "judge"):
        ask(project, kind, [Contestant(version.pk) for version in versions], "evaluation 1")
    assert ModelVersion.objects.count() == 3
    home = text_of(as_alice.get("/"))
    assert "Rank replies" in home and "Judge again" in home  # though nobody probes here
    for _ in range(2):
        slot = slots.next_slot(user=alice, project=project)
        assert slot is not None
        if slot.work_item.kind == "rank":
            make.make_ranking(slot, slot.work_item.comparison)
        else:
            make.make_verdict(slot, 4)
    assert slots.next_slot(user=alice, project=project) is None
    assert as_alice.get("/answers/").status_code == 200
    assert not Dialogue.objects.filter(kind="evaluation", ended_at=None).exists()
    assert "Judge again" not in text_of(as_alice.get("/"))
