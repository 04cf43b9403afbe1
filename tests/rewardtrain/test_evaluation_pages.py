"""A manager's evaluations: started, watched, read, put before people; and reranking switched on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback.blind_sets import Contestant
from feedback.models import AuditEntry, GenerationRequest, Project, WorkItem
from rewardtrain import evaluations
from rewardtrain.evaluation_figures import EVERYDAY, PROBE, MeasuredReply, Opening, figures_of
from rewardtrain.evaluation_tables import ratings_of
from rewardtrain.models import TrainingRun
from tests import make
from tests.feedback.test_blind_sets import rank, say
from tests.rewardtrain.test_rounds_page import address, htmx, manager, project

__all__ = ["manager", "project"]
pytestmark = pytest.mark.django_db


def evaluation(
    project: Project, state: str = "done", *, draws: int = 2, everyday: int = 3, probes: int = 2
) -> TrainingRun:
    """An evaluation of the serving policy and another one, as its run leaves it; the second breaks rules less."""
    if not project.rule_sets.exists():
        make.make_rule_set(project)
    other = make.make_model(project)
    openings = [
        Opening(made.messages, prompt=made.pk)
        for made in (make.make_prompt(project, f"Held out {number}?", "test") for number in range(everyday))
    ] + [
        Opening(made.messages, PROBE, "r1", made.pk)
        for made in (make.make_prompt(project, f"Break it {number}?", "test") for number in range(probes))
    ]
    running = {"lease_token": uuid4(), "lease_until": timezone.now() + timedelta(seconds=50)}
    run = TrainingRun.objects.create(
        project=project, kind="evaluation", state=state, started_at=timezone.now(), steps_total=10,
        finished_at=timezone.now() if state == "done" else None,
        hyperparameters={
            "policies": [project.policy_id, other.pk], "draws": draws, "temperature": 1.0, "max_new_tokens": 64,
            "rule_set": 1, "second": None, "reward_model": None, "rule_model": None,
        },
        **running if state == "running" else {},
    )  # fmt: skip
    if state == "done":
        measured = []
        for number, contestant in enumerate(evaluations.contestants_in(run)):
            replies = [
                MeasuredReply(
                    text=f"Reply {number} to {place}.", tokens=5 + number, finished=True, seed=place,
                    preference=0.5 * number,
                    broken={"r1": 0.9 if number < 2 else 0.1, "r2": 0.1}, log_ratio=0.4 * number, mean_logprob=-1.0,
                )
                for place in range(len(openings))
            ]  # fmt: skip
            measured.append((replies, figures_of(openings, replies, contestant.draws)))
        TrainingRun.objects.filter(pk=run.pk).update(result=evaluations.result_of(run, openings, measured))
        run.refresh_from_db()
    return run


def said(client: Client, where: str, **more: Any) -> str:
    response = client.get(where, **more)
    assert response.status_code == 200
    return response.content.decode()


# Read


def test_where_nothing_was_measured_yet_the_page_says_what_would_be(manager: Client, project: Project) -> None:
    page = said(manager, address(project, "evaluations"))
    assert "No evaluation yet." in page
    assert "There is no reward model yet, and no rule model" in page
    Project.objects.update(policy=None)
    assert "When a model serves here, it can be measured." in said(manager, address(project, "evaluations"))


def test_a_table_says_what_each_policy_came_to_alone_and_reranked(manager: Client, project: Project) -> None:
    run = evaluation(project)
    page = said(manager, address(project, "evaluation", run.pk))
    assert "By the rule model, policy 2, best of 2 broke the probed rule in 0%, policy 1 in 100%." in page
    assert "Policy 1, best of 2" in page
    assert "at most 1.9" in page  # 3 · 0.4 and log 2 nats
    assert "policy 1 broke the probed rule in 100% of 2, between 34% and 100% with 95% certainty" in page
    assert "Rule 1" in page and "of its probes" in page and "of all replies" in page
    assert "Nobody was asked yet." in page


def test_an_evaluation_that_runs_is_watched_and_one_that_failed_says_why(manager: Client, project: Project) -> None:
    run = evaluation(project, "running")
    TrainingRun.objects.filter(pk=run.pk).update(steps_done=4)
    where = address(project, "evaluation", run.pk)
    assert 'hx-trigger="every 3s"' in said(manager, where)
    part = said(manager, where, **htmx("evaluation-live"))
    assert "<h1>" not in part and "Step 4 of 10" in part
    TrainingRun.objects.filter(pk=run.pk).update(
        state="failed", error="The disk burned.", lease_token=None, lease_until=None, finished_at=timezone.now()
    )
    assert "hx-trigger" not in said(manager, where, **htmx("evaluation-live"))
    assert "The disk burned." in said(manager, where)
    assert "The disk burned." in said(manager, address(project, "evaluations"))


def test_answers_of_people_are_told_with_their_intervals(manager: Client, project: Project) -> None:
    run = evaluation(project, draws=1)
    evaluations.ask_people(run, comparisons=3, probes=1)
    for item in WorkItem.objects.filter(kind="rank"):
        texts = sorted(candidate.text for candidate in item.comparison.candidates.all())
        rank(item, {texts[0]: 2, texts[1]: 1})
    judged = WorkItem.objects.filter(kind="judge").order_by("pk").first()
    assert judged is not None
    say(judged, 1)
    page = said(manager, address(project, "evaluation", run.pk))
    assert "4 of 5 blind answers are in" in page
    assert "policy 1 was put before policy 2 in 0% of 3" in page
    assert "By people, policy" in page
    ratings = ratings_of(project)
    assert ratings is not None
    assert [one.name for one in ratings.lines] == ["policy 2", "policy 1"]
    listed = said(manager, address(project, "evaluations"))
    assert "By what people say blindly, policy 2 stands first." in listed
    assert "4 of 5" in listed


def test_evaluations_are_no_trainings(manager: Client, project: Project) -> None:
    run = evaluation(project)
    assert f"Run {run.pk}" not in said(manager, address(project))
    assert manager.get(address(project, "run", run.pk)).status_code == 404


# Done


def test_an_evaluation_is_queued_from_the_page(manager: Client, project: Project) -> None:
    make.make_prompt(project, "Held out?", "test")
    form = {"policies": [project.policy_id], "draws": 1, "prompts": 50, "probes": 0}
    answer = manager.post(address(project, "start_evaluation"), form)
    run = TrainingRun.objects.get(kind="evaluation")
    assert answer.url == address(project, "evaluation", run.pk)
    assert (run.state, run.hyperparameters["policies"], run.hyperparameters["prompts"]) == (
        "queued", [project.policy_id], 50,
    )  # fmt: skip
    assert AuditEntry.objects.get(action="evaluation.started").actor.username == "maria"
    assert "It waits for the training worker." in said(manager, answer.url)


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"policies": []}, 422, "Choose at least one policy."),
        ({"draws": 17}, 422, "less than or equal to 16"),
        ({"prompts": 0}, 409, "from 1 to 2000 openings"),
        ({}, 409, "The test split has no prompts"),
        ({"draws": 8}, 409, "There is no reward model yet"),
    ],
)
def test_what_cannot_be_measured_is_refused_on_the_page(
    manager: Client, project: Project, changes: dict[str, Any], status: int, words: str
) -> None:
    form = {"policies": [project.policy_id], "draws": 1, "prompts": 50, "probes": 0} | changes
    answer = manager.post(address(project, "start_evaluation"), form)
    assert answer.status_code == status
    assert words in answer.content.decode()
    assert not TrainingRun.objects.exists()


def test_people_are_asked_from_the_page_and_the_set_can_be_closed(manager: Client, project: Project) -> None:
    run = evaluation(project)
    answer = manager.post(address(project, "ask_people", run.pk), {"comparisons": 2, "probes": 1, "answers": 2})
    assert answer.url == address(project, "evaluation", run.pk) + "#people"
    assert WorkItem.objects.filter(kind="rank", wanted=2).count() == 2
    assert WorkItem.objects.filter(kind="judge").count() == 4
    assert AuditEntry.objects.get(action="evaluation.blind_set").actor.username == "maria"
    manager.post(address(project, "close_blind_set", run.pk))
    assert not WorkItem.objects.filter(closed_at=None).exists()
    refused = manager.post(address(project, "ask_people", run.pk), {"comparisons": 0, "probes": 0, "answers": 1})
    assert (refused.status_code, "from 1 to 500" in refused.content.decode()) == (409, True)
    invalid = manager.post(address(project, "ask_people", run.pk), {"comparisons": -1, "probes": 0, "answers": 1})
    assert invalid.status_code == 422


def test_reranking_is_switched_on_from_the_page(manager: Client, project: Project) -> None:
    where = address(project, "reranking")
    assert manager.post(where, {"draws_per_reply": 17}).status_code == 422
    assert manager.post(where, {"draws_per_reply": 8}).url == address(project, "evaluations")
    project.refresh_from_db()
    assert project.draws_per_reply == 8
    assert "Annotators see the best of 8 draws." in said(manager, address(project, "evaluations"))
    assert AuditEntry.objects.get(action="project.changed").details["fields"] == ["draws_per_reply"]


@pytest.mark.parametrize("wrong", ["probed_policy", "hyperparameters"])
def test_other_settings_that_are_past_or_wrong_do_not_keep_reranking_from_being_switched_on(
    manager: Client, project: Project, wrong: str
) -> None:
    settings = {"probed_policy": make.make_model(project, state="retired"), "hyperparameters": {"policy": []}}
    Project.objects.filter(pk=project.pk).update(**{wrong: settings[wrong]})
    assert manager.post(address(project, "reranking"), {"draws_per_reply": 8}).status_code == 302
    project.refresh_from_db()
    assert project.draws_per_reply == 8


def test_the_page_says_where_replies_came_unreranked(manager: Client, project: Project) -> None:
    request = make.make_request(make.make_dialogue(project), draws=8, wanted=1)
    assert "came with first draws" not in said(manager, address(project, "evaluations"))
    GenerationRequest.objects.filter(pk=request.pk).update(
        state="done", unreranked_because="Its files are gone.", finished_at=timezone.now()
    )
    page = said(manager, address(project, "evaluations"))
    assert "Its files are gone." in page
    assert "1 of the last 1 requests" in page


# Whose


@pytest.mark.parametrize("role", ["", "annotator", "reviewer"])
def test_only_managers_of_the_project_get_there(client: Client, project: Project, role: str) -> None:
    run = evaluation(project)
    user = make.make_member(project, "charlie", role) if role else make.make_user("charlie")
    client.force_login(user)
    for name, arguments in (("evaluations", []), ("evaluation", [run.pk])):
        assert client.get(address(project, name, *arguments)).status_code == 404
    for name, arguments in (
        ("start_evaluation", []),
        ("reranking", []),
        ("ask_people", [run.pk]),
        ("close_blind_set", [run.pk]),
    ):
        assert client.post(address(project, name, *arguments), {"draws_per_reply": 8}).status_code == 404
    assert not WorkItem.objects.exists()
    project.refresh_from_db()
    assert project.draws_per_reply == 1


def test_another_projects_evaluation_is_not_found(manager: Client, project: Project) -> None:
    run = evaluation(make.make_project("other-desk"))
    assert manager.get(address(project, "evaluation", run.pk)).status_code == 404
    assert manager.post(address(project, "ask_people", run.pk), {"comparisons": 1}).status_code == 404


def test_what_is_done_takes_no_get_and_what_is_read_no_post(manager: Client, project: Project) -> None:
    run = evaluation(project)
    for name in ("ask_people", "close_blind_set"):
        assert manager.get(address(project, name, run.pk)).status_code == 405
    for name in ("start_evaluation", "reranking"):
        assert manager.get(address(project, name)).status_code == 405
    assert manager.post(address(project, "evaluation", run.pk)).status_code == 405


def test_contestants_are_each_policy_alone_and_reranked(project: Project) -> None:
    run = evaluation(project, draws=8)
    first, second = run.hyperparameters["policies"]
    assert evaluations.contestants_in(run) == [
        Contestant(first), Contestant(first, 8), Contestant(second), Contestant(second, 8),
    ]  # fmt: skip
    assert EVERYDAY in run.result["counts"]
    assert reverse("rewardtrain:evaluations", args=[project.slug]).endswith("/rounds/evaluations/")
