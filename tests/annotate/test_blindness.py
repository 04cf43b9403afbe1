"""Before the answer is in, nothing on the page says what wrote a reply, what it scored, or what others think of it.

Two sites are built alike but for what is hidden; their pages must be the same bytes, but for what each page draws anew.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass

import pytest
from django.db import transaction
from django.test import Client

from feedback import slots
from feedback.models import Candidate, Comparison, GenerationRequest, ModelVersion, Project, Slot, User
from tests import make
from tests.annotate.reading import names, text_of

TEXTS = ["Let the soil tell you.", "A small glass every morning.", "When the surface is dry.", "Once a week."]
DRAWN_ANEW = (  # and so left out of the comparison
    (r'name="csrfmiddlewaretoken" value="\w+"', "TOKEN"),
    (r'"X-CSRFToken": "\w+"', "TOKEN"),
    (r'nonce="[\w+/=-]+"', "NONCE"),
    (r'name="submit_key" value="[\w-]+"', "KEY"),
    (r'data-candidate="[0-9a-f]{12}"', "NAME"),
    (r'name="(rank|flag|flagkind)-[0-9a-f]{12}"', r"\1 NAME"),
    (r'Saved \d+ s ago|data-saved-ago="\d+"', "AGO"),
    (r"/(work|answers)/\d+/|slot-\d+|id=\"comparison-field\" value=\"\d+\"", "ROW"),  # the same question is another row
)


def blinded(response) -> str:
    text = text_of(response)
    for pattern, instead in DRAWN_ANEW:
        text = re.sub(pattern, instead, text)
    headers = {
        name: value for name, value in response.items() if name not in {"Content-Security-Policy", "Content-Length"}
    }
    return text + repr(sorted(headers.items()))


@dataclass
class Hidden:
    """What an annotator must not learn."""

    model_name: str
    logprobs: list[float]
    made_in_order: list[int]  # which text was stored first
    others_like: int


def prepare(project: Project, hidden: Hidden) -> Comparison:
    """The question as `hidden` has it; only what is hidden differs from one call to the next."""
    ModelVersion.objects.filter(project=project).update(
        name=hidden.model_name, figures={"accuracy": hidden.logprobs[0]}
    )
    comparison = make.make_comparison(project, texts=["x"] * 4)
    Candidate.objects.filter(comparison=comparison).delete()
    for index in hidden.made_in_order:  # the id tells the order, the index the place
        Candidate.objects.create(
            dialogue=comparison.dialogue,
            request=comparison.request,
            comparison=comparison,
            after_position=0,
            index=index,
            turns=[{"role": "assistant", "content": TEXTS[index]}],
            model_version=project.policy,
            mean_logprob=hidden.logprobs[index],
            seed=hash(hidden.model_name) % 1000,
            token_count=int(10 - hidden.logprobs[index]),
            model_hash=hidden.model_name * 3,
            finish_reason="stop",
        )
    places = [(index - hidden.others_like) % 4 + 1 for index in range(4)]
    bob = make.make_rank_slot(comparison, name="bob", wanted=3)
    make.make_ranking(bob, comparison, ranks=make.ranks_by_index(comparison, places), strength=4, seconds=77.0)
    return comparison


ONE = Hidden("policy-alpha", [-0.1, -0.9, -2.0, -3.0], [0, 1, 2, 3], others_like=0)
OTHER = Hidden("reference-omega", [-3.5, -0.2, -0.1, -1.0], [3, 1, 0, 2], others_like=2)


@pytest.fixture
def seen(project: Project, as_alice: Client, alice: User):
    """What Alice gets of a question with something hidden: page, part, refusal, arrivals and home."""

    def look(hidden: Hidden) -> list[str]:
        comparison = prepare(project, hidden)
        slot = slots.next_slot(user=alice, project=project, kind="rank")
        assert slot is not None and slot.work_item.comparison_id == comparison.pk
        Slot.objects.filter(pk=slot.pk).update(shuffle_seed=7)
        url = f"/work/{slot.pk}/"
        responses = [as_alice.get(url), as_alice.get(url, headers={"HX-Request": "true"}), as_alice.get("/")]
        responses += [as_alice.post(url + "rank/"), as_alice.get(url + "arrivals/"), as_alice.get("/answers/")]
        return [blinded(response) for response in responses]

    return look


def test_pages_are_the_same_bytes_whatever_is_hidden(seen) -> None:
    looks = []
    for hidden in (ONE, OTHER):
        with transaction.atomic():
            looks.append(seen(hidden))
            transaction.set_rollback(True)
    for one, other in zip(*looks, strict=True):
        assert one == other
    assert "Let the soil tell you." in looks[0][0]


def test_pages_that_wait_for_replies_are_the_same_whatever_writes_them(project: Project, as_alice: Client) -> None:
    looks = []
    for hidden in (ONE, OTHER):
        with transaction.atomic():
            ModelVersion.objects.filter(project=project).update(name=hidden.model_name)
            slot = make.make_chat(project, answered=False)
            request = GenerationRequest.objects.get()
            request.sampling = {"temperature": hidden.logprobs[0]}
            request.save()
            make.answer_request(request, TEXTS)
            Slot.objects.filter(pk=slot.pk).update(shuffle_seed=7)
            looks.append([blinded(as_alice.get(f"/work/{slot.pk}/")), blinded(as_alice.get("/"))])
            transaction.set_rollback(True)
    assert [re.sub(r"/work/\d+/|slot-\d+", "SLOT", text) for text in looks[0]] == [
        re.sub(r"/work/\d+/|slot-\d+", "SLOT", text) for text in looks[1]
    ]


def test_names_of_replies_differ_between_two_people_and_say_nothing_of_the_order_made(
    project: Project, as_alice: Client, as_bob: Client
) -> None:
    comparison = make.make_comparison(project, texts=TEXTS)
    one, other = make.make_rank_slot(comparison, name="alice"), make.make_rank_slot(comparison, name="bob")
    hers, his = names(as_alice.get(f"/work/{one.pk}/")), names(as_bob.get(f"/work/{other.pk}/"))
    assert not set(hers.values()) & set(his.values())
    assert all(re.fullmatch(r"[0-9a-f]{12}", name) for name in hers.values())
    assert str(comparison.candidates.first().pk) not in hers.values()


def test_each_reply_stands_in_each_place_equally_often(project: Project, alice: User) -> None:
    """Chi-square over 400 slots and four places: under 16.27 is p > 0.001 for three degrees of freedom."""
    rng = random.Random(5)
    places = Counter(
        slots.shown_places(Slot(shuffle_seed=rng.randrange(2**31)), after_position=0, redo=0, wanted=4).index(0)
        for _ in range(400)
    )
    assert sum((places[place] - 100) ** 2 / 100 for place in range(4)) < 16.27


def test_names_of_models_are_nowhere_on_an_annotators_pages(project: Project, as_alice: Client) -> None:
    ModelVersion.objects.update(name="policy-alpha", location="models/secret-folder", content_hash="c0ffee" * 10)
    slot = make.make_chat(project)
    ranking = make.make_ranking(slot)
    for url in ("/", f"/work/{slot.pk}/", "/answers/", f"/answers/{ranking.comparison_id}/"):
        html = text_of(as_alice.get(url))
        assert not any(secret in html for secret in ("policy-alpha", "secret-folder", "c0ffee", "logprob"))
