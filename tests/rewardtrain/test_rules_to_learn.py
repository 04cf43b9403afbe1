"""Rules in a round: when a rule model is learned beside the reward models, what waits for it, what is said without."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from feedback import queue
from feedback.models import Project, RuleJudgement
from rewardtrain import repeats, rounds, rules_to_learn, timeline
from rewardtrain.models import Round, TrainingRun
from tests import make
from tests.circle.probing import judge_probes
from tests.rewardtrain.test_rounds import frozen_round

pytestmark = [pytest.mark.django_db, pytest.mark.services]
MODELS = {"reward_model", "second_reward_model", "rule_model"}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """No broker is needed, and few verdicts."""
    monkeypatch.setattr(queue, "_send", lambda name, pk: None)
    monkeypatch.setattr(rules_to_learn, "FEWEST_JUDGED", 4)


@pytest.fixture
def project() -> Project:
    """Two rules, and probes of them that were judged: four of the training split, two of which broke their rule."""
    project = make.make_project()
    make.make_rule_set(project)
    judge_probes(project, training=4, validation=2)
    return project


def begun(project: Project, **parts: Any) -> Round:
    """A round that has just begun to learn."""
    turn = frozen_round(project)
    Round.objects.filter(pk=turn.pk).update(hyperparameters=parts)
    turn.refresh_from_db()
    assert rounds.advance(turn) == 1
    return turn


def kinds(turn: Round) -> set[str]:
    return {run.kind for run in turn.runs.all()}


def finish(turn: Round, *which: str, state: str = "done") -> None:
    for run in turn.runs.filter(kind__in=which):
        error = "" if state == "done" else "It broke."
        kind = "rule" if run.kind == "rule_model" else "preference"
        made = make.make_model(turn.project, kind=kind, figures={"mean_auc_all": 0.87, "measured_on": "test"})
        run.state, run.error, run.produced = state, error, made if state == "done" else None
        run.save()


# Whether


def test_rules_that_were_judged_are_learned_beside_preferences(project: Project) -> None:
    turn = begun(project, rule_model={"epochs": 2})
    assert kinds(turn) == MODELS
    assert turn.without_rules == ""
    run = turn.runs.get(kind="rule_model")
    assert (run.hyperparameters, run.parent) == ({"epochs": 2}, turn.policy_before)


def test_where_there_are_no_rules_nothing_is_said_of_them() -> None:
    turn = begun(make.make_project())
    assert (kinds(turn), turn.without_rules) == (MODELS - {"rule_model"}, "")


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"rule_model": {"use_rules": False}}, "Its settings leave rules out"),
        ({"policy": {"rule_model": 7}}, "name a rule model that was learned before (model 7)"),
    ],
)
def test_settings_may_leave_it_out(project: Project, parts: dict[str, Any], says: str) -> None:
    turn = begun(project, **parts)
    assert kinds(turn) == MODELS - {"rule_model"}
    assert says in turn.without_rules


def test_too_few_judged_dialogues_of_the_training_split_are_said(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules_to_learn, "FEWEST_JUDGED", 5)
    turn = begun(project)
    assert kinds(turn) == MODELS - {"rule_model"}
    assert turn.without_rules.startswith("4 of the 5 judged dialogues that a rule model takes are there.")


@pytest.mark.parametrize(("verdict", "missing"), [(1, "kept"), (5, "broken"), (3, "broken")])
def test_verdicts_that_all_say_the_same_teach_nothing(verdict: int, missing: str) -> None:
    project = make.make_project()
    make.make_rule_set(project)
    judge_probes(project, training=4, validation=2, verdicts=(verdict, verdict))
    assert RuleJudgement.objects.count() == 12
    assert f"Nobody judged a rule to be {missing} yet" in begun(project).without_rules


# What waits for it


def test_the_policy_waits_for_the_rule_model(project: Project) -> None:
    turn = begun(project)
    finish(turn, "reward_model", "second_reward_model")
    assert rounds.advance(turn) == 0
    finish(turn, "rule_model")
    assert rounds.advance(turn) == 1
    assert kinds(turn) == MODELS | {"policy"}


def test_a_rule_model_that_fails_ends_the_round_which_goes_on_there(project: Project) -> None:
    turn = begun(project)
    finish(turn, "rule_model", state="failed")
    rounds.advance(turn)
    turn.refresh_from_db()
    assert (turn.state, turn.error) == ("failed", "The rule model could not be trained: It broke.")
    rounds.resume_round(turn=turn, by=None)
    turn.refresh_from_db()
    assert turn.state == Round.State.REWARD_MODELS
    assert turn.runs.get(kind="rule_model").state == "queued"


def test_a_round_that_is_stopped_stops_its_rule_model(project: Project) -> None:
    turn = begun(project)
    rounds.stop_round(turn=turn, by=None, reason="Enough.")
    assert {run.state for run in turn.runs.all()} == {"cancelled"}


def test_a_repeat_takes_the_rule_model_unless_rules_are_left_out(project: Project) -> None:
    turn = begun(project)
    finish(turn, *MODELS)
    Round.objects.update(state="refused")
    for use_rules in (True, False):
        again = repeats.repeat_round(turn=turn, hyperparameters={"rule_model": {"use_rules": use_rules}})
        assert kinds(again) == (MODELS if use_rules else MODELS - {"rule_model"})
        assert again.without_rules == ("" if use_rules else rules_to_learn.SWITCHED_OFF)
        if use_rules:
            assert again.runs.get(kind="rule_model").produced == turn.runs.get(kind="rule_model").produced
        Round.objects.update(state="refused")


def repeated(turn: Round, **parts: Any) -> Round:
    """A repeat of a round that has ended."""
    Round.objects.filter(pk=turn.pk).update(state="refused")
    return repeats.repeat_round(turn=turn, hyperparameters=parts)


def learns_its_own(again: Round) -> bool:
    """Whether a repeat waits for a rule model that it queued itself."""
    run = again.runs.get(kind="rule_model")
    assert (run.state, run.parent, again.without_rules) == ("queued", again.policy_before, "")
    assert rounds.advance(again) == 0
    finish(again, "rule_model")
    return rounds.advance(again) == 1


def test_a_repeat_with_rules_of_a_round_that_left_them_out_learns_them(project: Project) -> None:
    turn = begun(project, rule_model={"use_rules": False})
    finish(turn, "reward_model", "second_reward_model")
    assert learns_its_own(repeated(turn, rule_model={"use_rules": True}))


def test_a_repeat_of_a_round_whose_rule_model_failed_learns_it_anew(project: Project) -> None:
    turn = begun(project)
    finish(turn, "reward_model", "second_reward_model")
    finish(turn, "rule_model", state="failed")
    assert learns_its_own(repeated(turn))


def test_a_repeat_that_cannot_learn_rules_says_its_own_reason(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = begun(project, rule_model={"use_rules": False})
    finish(turn, "reward_model", "second_reward_model")
    monkeypatch.setattr(rules_to_learn, "FEWEST_JUDGED", 5)
    again = repeated(turn, rule_model={"use_rules": True})
    assert kinds(again) == MODELS - {"rule_model"}
    assert again.without_rules.startswith("4 of the 5 judged dialogues")


# What is shown


def stage(turn: Round) -> tuple[str, str]:
    found = next(stage for stage in timeline.row_of(turn).stages if stage.name == "Rule model")
    return found.state, found.figure


def test_the_rule_model_is_a_stage_where_some_round_has_rules(project: Project, client: Client) -> None:
    turn = begun(project)
    assert stage(turn) == ("now", "waiting for a worker")
    finish(turn, *MODELS)
    assert stage(turn) == ("done", "AUC 0.87")
    client.force_login(make.make_member(project, "maria", "manager"))
    page = client.get(reverse("rewardtrain:rounds", args=[project.slug]))
    assert "Rule model" in page.content.decode()
    assert "<b>0.87</b> <span>AUC in the mean over rules" in page.content.decode()
    TrainingRun.objects.filter(kind="rule_model").delete()
    assert "Rule model" not in [stage.name for stage in timeline.row_of(turn).stages]


def test_the_page_says_why_there_is_none(project: Project, client: Client) -> None:
    turn = begun(project, rule_model={"use_rules": False})
    assert stage(turn) == ("todo", "none")
    client.force_login(make.make_member(project, "maria", "manager"))
    body = client.get(reverse("rewardtrain:rounds", args=[project.slug])).content.decode()
    assert "No rule model in this round. Its settings leave rules out (use_rules)." in body
