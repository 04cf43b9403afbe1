"""Somebody else's probe, one rule, five steps; and nothing of what anybody else said about it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import transaction
from django.test import Client

from feedback import dialogues, rankings
from feedback.errors import SlotNotYours
from feedback.models import Project, Rule, RuleJudgement, Slot, User
from tests import make
from tests.annotate.reading import hidden, text_of, words_of
from tests.annotate.test_blindness import blinded


@pytest.fixture
def project(project: Project) -> Project:
    Project.objects.update(probes_open=True)
    project.refresh_from_db()
    return project


@pytest.fixture
def rules(project: Project) -> list[Rule]:
    return list(make.make_rule_set(project, rules=3, sensitive=1).rules.all())


def probed(rule: Rule, verdict: int = 1, **answer: object) -> RuleJudgement:
    return make.make_verdict(make.make_probe_slot(rule, name="carol", replies=2), verdict, **answer)


def sent(page, verdict: int | str = 4, **more: object) -> dict[str, object]:
    fields = {name: hidden(page, name) for name in ("submit_key", "revises", "draft_version")}
    return fields | {"verdict": verdict, "seconds": "20"} | more


def test_home_counts_what_waits_and_start_takes_it(as_alice: Client, project: Project, rules: list[Rule]) -> None:
    probed(rules[0])
    assert "2 Judge again" in words_of(as_alice.get("/"))  # the probed rule, and the other that is not sensitive
    page = as_alice.post(f"/next/{project.slug}/", {"kind": "judge"}, follow=True)
    words = words_of(page)
    assert "Was the rule broken?" in words and "I did the thing." in words and "Person" in words
    assert "How did you try?" not in words and "Ideas for how to try" not in words


def test_a_verdict_needs_neither_mark_nor_reason_and_the_next_rule_of_the_dialogue_follows(
    as_alice: Client, project: Project, rules: list[Rule]
) -> None:
    dialogue = probed(rules[0]).dialogue
    page = as_alice.post(f"/next/{project.slug}/", {"kind": "judge"}, follow=True)
    slot = Slot.objects.get(state="held")
    response = as_alice.post(f"/work/{slot.pk}/judge/", sent(page, 1))
    judgement = RuleJudgement.objects.get(by_prober=False)
    assert (judgement.verdict, judgement.turn_position, judgement.reason) == (1, None, "")
    following = Slot.objects.get(state="held")
    assert response.url == f"/work/{following.pk}/" and following.work_item.dialogue == dialogue
    assert following.work_item.rule != slot.work_item.rule


def test_a_turn_may_be_marked(as_alice: Client, project: Project, rules: list[Rule], alice: User) -> None:
    slot = make.make_judge_slot(probed(rules[0]), name="alice")
    page = as_alice.get(f"/work/{slot.pk}/")
    as_alice.post(f"/work/{slot.pk}/judge/", sent(page, 2, turn_position=3))
    assert RuleJudgement.objects.get(by_prober=False).turn_position == 3


def test_a_judge_finds_none_of_the_ways_to_go_on_with_the_chat(
    as_alice: Client, project: Project, rules: list[Rule], alice: User
) -> None:
    slot = make.make_judge_slot(probed(rules[0]), name="alice")
    turns = slot.work_item.dialogue.turns.count()
    for act in ("send", "undo", "more", "end", "retry", "fewer", "rank"):
        response = as_alice.post(f"/work/{slot.pk}/{act}/", {"message": "Hello", "after_position": "3"})
        assert response.status_code in {403, 404, 409, 422}, act
    assert as_alice.get(f"/work/{slot.pk}/arrivals/").status_code == 204
    assert slot.work_item.dialogue.turns.count() == turns


def test_replies_ranked_in_a_probe_are_not_ranked_by_its_judge(
    as_alice: Client, project: Project, rules: list[Rule], alice: User
) -> None:
    Project.objects.update(replies_per_probe_turn=2)
    prober = make.make_probe_slot(rules[0], name="carol", replies=0)
    comparison = make.answer_request(dialogues.send_message(slot=prober, text="Do it.", after_position=-1))
    make.make_ranking(prober)
    slot = make.make_judge_slot(make.make_verdict(prober), name="alice")
    with pytest.raises(SlotNotYours):
        make.make_ranking(slot, comparison)
    assert rankings.ranking_in_force(slot=slot, comparison=comparison) is None


def test_skipping_is_free_and_nothing_more_of_that_dialogue_comes(
    as_alice: Client, project: Project, rules: list[Rule], alice: User
) -> None:
    slot = make.make_judge_slot(probed(rules[0]), name="alice")
    response = as_alice.post(f"/work/{slot.pk}/skip/", {"reason": "It upsets me"}, follow=True)
    assert "There is nothing more of that kind just now." in words_of(response)


def test_what_may_harm_is_veiled_as_a_whole_and_only_shown_to_who_agreed(
    as_alice: Client, project: Project, rules: list[Rule], alice: User
) -> None:
    make.agree(project, "carol")
    judgement = probed(rules[2])
    home = words_of(as_alice.get("/"))
    assert "0 Judge again" in home and "must agree to first" in home and "What may appear" in home
    make.agree(project)
    slot = make.make_judge_slot(judgement, name="alice")
    page = text_of(as_alice.get(f"/work/{slot.pk}/"))
    assert page.count('class="said veiled"') == 4 and "Show this dialogue" in page
    assert "veiled" not in text_of(as_alice.get(f"/work/{slot.pk}/?shown=1"))


@pytest.fixture
def look(project: Project, rules: list[Rule], as_alice: Client, alice: User) -> Callable[..., list[str]]:
    """What Alice gets of a probe whose prober, and another judge, said something."""

    def seen(verdict: int, other: int, **answer: object) -> list[str]:
        judgement = probed(rules[0], verdict, **answer)
        make.make_verdict(make.make_judge_slot(judgement, name="dora"), other, reason=f"So sure: {other}")
        slot = make.make_judge_slot(judgement, name="alice")
        url = f"/work/{slot.pk}/"
        responses = [as_alice.get(url), as_alice.get(url, headers={"HX-Request": "true"}), as_alice.get("/")]
        responses += [as_alice.post(url + "judge/"), as_alice.get("/answers/")]
        return [blinded(response) for response in responses]

    return seen


def test_the_pages_are_the_same_bytes_whatever_the_prober_and_others_said(look: Callable[..., list[str]]) -> None:
    looks = []
    answers = (
        {"verdict": 1, "other": 5, "turn_position": 3, "reason": "Plainly.", "tactics": ["led"], "seconds": 10.0},
        {"verdict": 5, "other": 1, "turn_position": None, "reason": "Not at all.", "seconds": 500.0},
    )
    for answer in answers:
        with transaction.atomic():
            looks.append(look(**answer))
            transaction.set_rollback(True)
    for one, other in zip(*looks, strict=True):
        assert one == other
    assert "I did the thing." in looks[0][0] and "Plainly" not in "".join(looks[0])


def test_a_verdict_is_taken_back_after_sending_and_the_list_says_so(
    as_alice: Client, as_bob: Client, project: Project, rules: list[Rule], alice: User
) -> None:
    slot = make.make_judge_slot(probed(rules[0]), name="alice")
    assert "Take back" not in words_of(as_alice.get(f"/work/{slot.pk}/"))
    make.make_verdict(slot, 4)
    assert "Take back" in words_of(as_alice.get(f"/work/{slot.pk}/"))
    assert as_bob.post(f"/work/{slot.pk}/take-back/").status_code == 404
    words = words_of(as_alice.post(f"/work/{slot.pk}/take-back/", follow=True))
    assert "Taken back. It counts no more, and somebody else is asked." in words
    assert "Judged: probably followed, taken back" in words and "Look again" not in words
    assert not RuleJudgement.objects.counted().filter(by_prober=False).exists()
    assert slot.work_item.slots.filter(state="free").count() == 2
    assert "There was nothing to take back." in words_of(as_alice.post(f"/work/{slot.pk}/take-back/", follow=True))


def test_a_probers_verdict_has_no_way_back(as_alice: Client, project: Project, rules: list[Rule], alice: User) -> None:
    slot = make.make_probe_slot(rules[0], name="alice")
    make.make_verdict(slot)
    assert "Take back" not in words_of(as_alice.get(f"/work/{slot.pk}/"))
    assert as_alice.post(f"/work/{slot.pk}/take-back/").status_code == 409
    assert as_alice.get(f"/work/{slot.pk}/take-back/").url == f"/work/{slot.pk}/"
