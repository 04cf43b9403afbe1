"""Rounds as rows: what starts, what is refused, and what one broken project does to the others. No torch."""

from __future__ import annotations

import logging
import subprocess
from typing import Any

import pytest
from django.urls import reverse

from feedback import queue
from feedback.models import Project, PromptGroup, Snapshot
from rewardtrain import rounds, runs, tasks
from rewardtrain.gate import GateSettings
from rewardtrain.models import Round
from tests import make

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """No broker is needed, and few rankings."""
    monkeypatch.setattr(queue, "_send", lambda name, pk: None)
    monkeypatch.setattr(rounds, "FEWEST_RANKINGS", 2)


def frozen_round(project: Project) -> Round:
    """A round whose snapshot has just been written."""
    snapshot = Snapshot.objects.create(project=project, state="done", sha256="ab" * 32)
    return Round.objects.create(project=project, number=1, policy_before=project.policy, snapshot=snapshot)


def ranked_project(slug: str = "plant-desk", **fields: Any) -> Project:
    """A project with as many rankings and validation prompts as a round needs."""
    project = make.make_project(slug, **fields)
    for number in range(rounds.FEWEST_RANKINGS):
        make.make_ranking(comparison=make.make_comparison(project, text=f"Question {number} of {slug}?"))
    for number in range(GateSettings().fewest_prompts):
        make.make_prompt(project, f"Held out {number} of {slug}?", "validation")
    project.refresh_from_db()
    return project


# What starts


def test_a_round_keeps_the_projects_settings_and_what_differs_this_time():
    project = ranked_project(
        hyperparameters={"policy": {"updates": 3, "reward_model": 7}, "reward_model": {"base": "x"}}
    )
    turn = rounds.start_round(project=project, hyperparameters={"policy": {"updates": 4}, "gate": {"prompts": 30}})
    assert turn.hyperparameters == {
        "policy": {"updates": 4, "reward_model": 7},
        "reward_model": {"base": "x"},
        "gate": {"prompts": 30},
    }


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ([], "Write the settings of rounds in parts: reward_model, rule_model, policy, gate."),
        ({"policy": []}, "Write policy as names with values."),
        ({"ppo": {}}, "There is no part ppo; known are reward_model, rule_model, policy, gate."),
        ({"policy": {"updates": 0}}, "In policy: Set updates above 0"),
        ({"policy": {"updates": "3"}}, "In policy: Set updates to a whole number, not '3'."),
        ({"policy": {"reward_model": "best"}}, "In policy: Set reward_model to a whole number, not 'best'."),
        ({"rule_model": {"use_rules": 1}}, "In rule_model: Set use_rules to true or false, not 1."),
        ({"rule_model": {"epochs": 0}}, "In rule_model: Set epochs above 0"),
        ({"policy": {"probe_share": 2.0}}, "In policy: Set probe_share between 0 and 1"),
        ({"policy": {"sampling": [1]}}, r"In policy: Set sampling to names with values, not \[1\]."),
        ({"reward_model": {"base": 3}}, "In reward_model: Set base to a word, not 3."),
        ({"gate": {"most_lenght_change": 1}}, "In gate: There is no setting most_lenght_change"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_runs(settings, says):
    project = ranked_project(hyperparameters=settings)
    with pytest.raises(rounds.RoundRefused, match=f"cannot work with these settings. {says}"):
        rounds.start_round(project=project)
    assert not Round.objects.exists()
    assert not Snapshot.objects.exists()


def test_every_part_that_cannot_work_is_named():
    project = ranked_project(hyperparameters={"policy": {"updates": 0}, "gate": {"prompts": 1}})
    with pytest.raises(rounds.RoundRefused, match="In policy: .* In gate: "):
        rounds.start_round(project=project)


def test_a_project_that_draws_without_chance_cannot_run_ppo_unless_its_settings_say_how():
    project = ranked_project(temperature=0)
    with pytest.raises(rounds.RoundRefused, match="a temperature above 0"):
        rounds.start_round(project=project)
    rounds.start_round(project=project, hyperparameters={"policy": {"sampling": {"temperature": 1.0}}})


def leave_prompts(project: Project, most: int) -> None:
    """All but so many prompts lie in the test split."""
    kept = PromptGroup.objects.filter(project=project, split="validation")[:most].values_list("pk", flat=True)
    groups = PromptGroup.objects.filter(project=project, split="validation").exclude(pk__in=list(kept))
    groups.update(split="test")


@pytest.mark.parametrize(
    ("gate", "needed"), [({}, 20), ({"prompts": 6}, 6), ({"fewest_prompts": 5}, 5), ({"fewest_prompts": 400}, 160)]
)
def test_a_round_is_not_begun_with_fewer_prompts_than_its_gate_needs(gate, needed):
    project = ranked_project(hyperparameters={"gate": gate})
    leave_prompts(project, min(20, needed) - 1)
    with pytest.raises(rounds.RoundRefused, match=f"at least {needed} validation prompts; there are") as refused:
        rounds.start_round(project=project)
    assert "Add some to the validation split" in refused.value.message
    assert not Round.objects.exists()
    if needed < 20:
        make.make_prompt(project, "One more, held out?", "validation")
        rounds.start_round(project=project)


def test_the_page_says_how_many_prompts_are_missing(client):
    project = ranked_project()
    client.force_login(make.make_member(project, "maria", "manager"))
    page = reverse("rewardtrain:rounds", args=[project.slug])
    assert client.get(page).context["cannot_start"] == ""
    leave_prompts(project, 6)
    assert client.get(page).context["cannot_start"] == "at 20 validation prompts; there are 6"
    Project.objects.update(hyperparameters={"gate": {"prompts": 6}})
    assert client.get(page).context["cannot_start"] == ""
    Project.objects.update(hyperparameters=[])
    assert client.get(page).status_code == 200


def test_a_manager_is_told_on_the_page(client):
    project = ranked_project(hyperparameters={"policy": []})
    client.force_login(make.make_member(project, "maria", "manager"))
    page = client.post(reverse("rewardtrain:start", args=[project.slug]))
    assert page.status_code == 409
    assert "Write policy as names with values." in page.content.decode()


# The beat


def test_the_beat_starts_what_is_due_and_says_why_it_does_not(caplog):
    ranked_project(round_every=2)
    ranked_project("second-desk", round_every=2, hyperparameters={"policy": []})
    ranked_project("third-desk", round_every=3)
    with caplog.at_level(logging.INFO):
        tasks.advance_rounds()
        tasks.advance_rounds()
    assert [(turn.project.slug, turn.trigger) for turn in Round.objects.all()] == [("plant-desk", "beat")]
    assert "reason=A round cannot work with these settings. Write policy as names with values." in caplog.text


def test_what_goes_wrong_in_one_project_or_round_leaves_the_others_alone(monkeypatch, caplog):
    broken, sound = ranked_project("first-desk", round_every=2), ranked_project("second-desk", round_every=2)
    stuck, moving = frozen_round(make.make_project("third-desk")), frozen_round(make.make_project("fourth-desk"))
    starts, steps = rounds.start_round, rounds._after_snapshot

    def start_some(*, project: Project, **asked: Any) -> Round:
        if project == broken:
            raise TypeError("this one is broken")
        return starts(project=project, **asked)

    def step_some(turn: Round) -> bool:
        if turn == stuck:
            raise TypeError("this one is stuck")
        return steps(turn)

    monkeypatch.setattr(rounds, "start_round", start_some)
    monkeypatch.setattr(rounds, "_after_snapshot", step_some)
    tasks.advance_rounds()
    assert Round.objects.filter(project=sound).exists()
    moving.refresh_from_db()
    assert moving.state == "reward_models"
    assert f"could not start a round project={broken.pk}" in caplog.text
    assert f"could not advance round={stuck.pk}" in caplog.text


# What runs


def test_the_runs_of_a_round_say_which_code_they_were_made_by(monkeypatch):
    monkeypatch.setattr(runs, "code_version", lambda: "0123456789ab")
    turn = frozen_round(make.make_project())
    assert rounds.advance(turn) == 1
    assert {run.code_version for run in turn.runs.all()} == {"0123456789ab"}


def test_a_git_that_hangs_leaves_the_version_empty(monkeypatch):
    def hangs(*args: Any, **kwargs: Any) -> None:
        raise subprocess.TimeoutExpired("git", 5)

    monkeypatch.setattr(subprocess, "run", hangs)
    assert runs.code_version() == ""
