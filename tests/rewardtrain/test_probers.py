"""Simulated probers and judges before the real pages; what the model says is put there by the test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import httpx2
import pytest
from django.core import signals
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections

from feedback import generation, queue
from feedback.models import GenerationRequest, Project, RuleJudgement, User
from rewardtrain import desk
from rewardtrain.desk import seed_desk
from rewardtrain.rehearsal import probed, probers, staging
from rewardtrain.rehearsal.people import Person, RehearsalFailed, Share
from rewardtrain.rehearsal.probed import Provocation
from rewardtrain.rehearsal.probers import Provocations
from rewardtrain.starter.annotators import ERRS, Annotator
from rewardtrain.starter.openings import openings
from rewardtrain.starter.violations import rules
from tests import make

BREAKS = {rule.key: rule.breaks[0] for rule in rules()}


def test_a_verdict_errs_in_one_case_of_seven_and_is_mostly_definite() -> None:
    annotator = Annotator(3)
    said = [annotator.verdict(True) for _ in range(4000)]
    assert abs(sum(verdict > 3 for verdict in said) / 4000 - ERRS * 0.9) < 0.02
    assert abs(said.count(3) / 4000 - 0.10) < 0.02
    assert said.count(1) > said.count(2) > said.count(3)
    assert sum(annotator.verdict(False) < 3 for _ in range(4000)) < 4000 / 6


def test_probers_never_write_a_test_opening_and_none_twice_before_all() -> None:
    provocations = Provocations(seed=1)
    of_training = {one.text for one in openings() if one.rule == "brand" and one.split == "train"}
    written = [provocations.take("brand") for _ in range(len(of_training))]
    assert set(written) == of_training
    assert provocations.take("brand") in of_training
    asked = {one.prompt[0]["content"] for one in probed.provocations()}
    assert len(asked) > 300 and not asked & {one.text for one in openings() if one.split != "test"}


def test_the_rate_counts_the_probed_rule_alone() -> None:
    prompt = [{"role": "user", "content": "Where do I buy a fern?"}]
    asked = [Provocation(prompt, "brand"), Provocation(prompt, "brand"), Provocation(prompt, "human")]
    assert probed.violation_rate(asked, [BREAKS["brand"], BREAKS["insult"], "Water it."]) == pytest.approx(1 / 3)


# Before the pages


@pytest.fixture
def project(db: None, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(desk, "openings", lambda: openings()[:30])
    return seed_desk(slug="rehearsal-1", name="Rehearsal 1", provoking=False, **staging.PROBE_SETTINGS)


@pytest.fixture
def come_in(project: Project) -> Iterator[Callable[[str], Person]]:
    """Somebody who sits at the pages, in this process, and with this test's connection to the database."""
    seated: list[Person] = []
    signals.request_started.disconnect(close_old_connections)
    signals.request_finished.disconnect(close_old_connections)

    def sit_down(name: str) -> Person:
        make.make_member(project, name)
        user = User.objects.get(username=name)
        user.set_password("for this test")
        user.save()
        person = Person("http://testserver", name, "for this test", seed=len(seated), project=project.slug)
        person.browser.close()
        transport = httpx2.WSGITransport(app=get_wsgi_application())
        person.browser = httpx2.Client(transport=transport, base_url="http://testserver", follow_redirects=True)
        person.sign_in()
        seated.append(person)
        return person

    yield sit_down
    signals.request_started.connect(close_old_connections)
    signals.request_finished.connect(close_old_connections)
    for person in seated:
        person.close()


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A model that breaks the rule it is asked about whenever somebody waits for it; what it said, in order."""
    said: list[str] = []

    def speak(seconds: float) -> None:
        for request in GenerationRequest.objects.filter(state="queued"):
            claimed = queue.claim(GenerationRequest, request.pk)
            assert claimed is not None
            said.append(BREAKS[request.dialogue.probe.rule.key])
            generation.store_candidate(claimed, index=0, text=said[-1])
            generation.complete_request(claimed)

    monkeypatch.setattr(probers.time, "sleep", speak)
    return said


def test_they_probe_what_they_are_given_and_judge_what_others_probed(
    project: Project, come_in: Callable[[str], Person], model: list[str]
) -> None:
    alice, bob, stop = come_in("alice"), come_in("bob"), threading.Event()
    wanted = Share(3)
    probers.probe(alice, Provocations(0), wanted, stop)
    assert wanted.done == 3
    own = RuleJudgement.objects.filter(by_prober=True)
    assert own.count() == 3 and set(own.values_list("annotator__username", flat=True)) == {"alice"}
    assert {judgement.rule_id for judgement in own} == {judgement.dialogue.probe.rule_id for judgement in own}
    assert all((judgement.turn_position is not None) == (judgement.verdict <= 2) for judgement in own)
    assert any(judgement.verdict <= 2 for judgement in own)
    probers.judge(bob, Share(100), stop)
    by_others = RuleJudgement.objects.filter(by_prober=False)
    assert set(by_others.values_list("annotator__username", flat=True)) == {"bob"}
    assert by_others.values("dialogue").distinct().count() == 3
    assert by_others.count() > 6  # by the probed rule, and by others that the reply kept


def test_more_probes_than_the_rules_want_are_refused_before_anybody_works(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "openings", lambda: openings()[:30])
    with pytest.raises(RehearsalFailed, match="want 720 probes of a policy at most"):
        staging.Stage.build(annotators=1, wanted=staging.Wanted(10, 361, rounds=2), seed=0, hyperparameters={})
    assert not Project.objects.exists()


def test_provoking_openings_are_not_offered_where_probers_bring_them(project: Project) -> None:
    kinds = set(project.prompts.values_list("details__kind", flat=True))
    assert kinds == {"everyday"}


def test_a_rule_they_do_not_know_stops_them_by_name(project: Project, come_in: Callable[[str], Person]) -> None:
    page = come_in("alice").next(probers.PROBE)
    page.wording = "Never rhyme."
    with pytest.raises(RehearsalFailed, match=r"do not know: Never rhyme\."):
        probers.rule_asked_about(page)
