"""What the database itself refuses of runs, rounds and promotions, whoever asks."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from feedback.models import ModelVersion, Project
from rewardtrain.models import LedgerEntry, MetricPoint, Promotion, Round, TrainingRun
from tests import make
from tests.constraints import Deed, Deeds, assert_refused

pytestmark = pytest.mark.django_db
deeds = Deeds("rewardtrain")
breaks = deeds.breaks


def test_every_constraint_has_a_test() -> None:
    assert set(deeds.by_name) == set(deeds.columns_by_name())


def policy_of(project: Project) -> ModelVersion:
    assert project.policy is not None
    return project.policy


def a_round(**fields: Any) -> Round:
    project = make.make_project()
    return Round.objects.create(**{"project": project, "number": 1, "policy_before": policy_of(project)} | fields)


def a_run(**fields: Any) -> TrainingRun:
    return TrainingRun.objects.create(**{"project": make.make_project(), "kind": "policy"} | fields)


def a_promotion(**fields: Any) -> Promotion:
    project = make.make_project()
    return Promotion.objects.create(
        **{"project": project, "to_version": policy_of(project), "reason": "It speaks well."} | fields
    )


# Rounds


@breaks("one_round_per_number")
def a_round_twice() -> None:
    a_round(state="promoted", policy_after=policy_of(make.make_project()))
    a_round()


@breaks("one_active_round_per_project")
def two_rounds_at_once() -> None:
    a_round(state="snapshot")
    a_round(state="gate", number=2)


@breaks("round_fails_only_with_a_reason")
def a_round_that_failed_without_a_reason() -> None:
    a_round(state="failed")


@breaks("a_promoted_round_made_a_policy")
def a_promoted_round_without_a_policy() -> None:
    a_round(state="promoted")


# Runs


@breaks("one_run_per_round_and_kind")
def a_run_twice_in_a_round() -> None:
    turn = a_round()
    a_run(round=turn)
    a_run(round=turn)


@breaks("one_figure_per_step")
def a_figure_twice() -> None:
    run = a_run()
    for value in (0.1, 0.2):
        MetricPoint.objects.create(run=run, step=1, name="ppo/kl_nats", value=value)


@breaks("one_entry_per_sample")
def a_sample_twice() -> None:
    run = a_run()
    for _ in range(2):
        LedgerEntry.objects.create(
            run=run, step=1, index=0, prompt=[], response="", terms={}, reward=0.0, kl_nats=0.0, token_count=0
        )


LEASED = {"lease_token": uuid4(), "lease_until": timezone.now()}


@breaks("trainingrun_is_leased_exactly_while_running")
def a_run_without_a_lease() -> None:
    a_run(state="running")


@breaks("trainingrun_is_leased_exactly_while_running")
def a_waiting_run_under_a_lease() -> None:
    a_run(**LEASED)


@breaks("trainingrun_fails_only_with_a_reason")
def a_run_that_failed_without_a_reason() -> None:
    a_run(state="failed")


@breaks("trainingrun_progress_is_a_fraction")
def a_run_that_is_further_than_its_end() -> None:
    a_run(progress=1.01)


@breaks("trainingrun_progress_is_a_fraction")
def a_run_that_is_not_yet_at_its_start() -> None:
    a_run(progress=-0.01)


@breaks("trainingrun_state_is_known")
def a_run_in_another_state() -> None:
    a_run(state="paused")


# Promotions


@breaks("a_promotion_changes_the_policy")
def a_policy_promoted_over_itself() -> None:
    a_promotion(from_version=policy_of(make.make_project()))


@breaks("a_promotion_has_somebody_or_a_reason")
def a_promotion_by_nobody_for_no_reason() -> None:
    a_promotion(reason="")


@pytest.mark.parametrize(("name", "deed"), deeds.cases())
def test_the_database_refuses(name: str, deed: Deed) -> None:
    """`the database refuses two rounds at once`, and so on, each by the constraint that says so."""
    assert_refused(name, deeds.columns_by_name()[name], deed)


# What stands beside a constraint and is allowed


def test_a_round_may_start_once_the_one_before_waits_or_has_ended() -> None:
    a_round(state="decision")
    a_round(state="snapshot", number=2)
    a_round(state="failed", number=3, error="stopped")
    other = make.make_project("another-desk")
    a_round(project=other, policy_before=policy_of(other))
    assert Round.objects.count() == 4


def test_runs_outside_a_round_may_be_of_one_kind() -> None:
    a_run()
    a_run()
    assert TrainingRun.objects.count() == 2


def test_the_first_promotion_comes_from_nothing() -> None:
    assert a_promotion().from_version is None
