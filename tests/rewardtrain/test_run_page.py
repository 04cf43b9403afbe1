"""The page of one training run: all its figures with the run before behind them, and the same as numbers."""

from __future__ import annotations

import doctest
import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from feedback.models import Project
from rewardtrain import run_charts, run_figures
from rewardtrain.models import LedgerEntry, MetricPoint, TrainingRun
from rewardtrain.rehearsal import measuring
from rewardtrain.starter import measure
from tests import make
from tests.rewardtrain.test_rounds_page import htmx, manager, project, running, waiting

__all__ = ["manager", "project"]
pytestmark = pytest.mark.django_db
EVERY_STEP = {
    "ppo/reward": 0.5,
    "ppo/preference": 0.62,
    "ppo/length_penalty": -0.12,
    "ppo/malformed_penalty": 0.0,
    "ppo/kl_nats": 6.2,
    "ppo/length": 68.4,
    "ppo/entropy": 2.1,
    "ppo/clip_fraction": 0.043,
    "ppo/value_loss": 0.17,
    "ppo/kl_coef": 0.15,
}


def policy_run(project: Project, number: int = 1) -> TrainingRun:
    """The PPO of a round that has ended, with three steps of every figure and a sample of each step."""
    run = waiting(project, number=number).runs.get(kind="policy")
    add_figures(run)
    return run


def add_figures(run: TrainingRun, steps: int = 3, **changes: float) -> None:
    MetricPoint.objects.bulk_create(
        MetricPoint(run=run, step=step, name=name, value=value)
        for step in range(1, steps + 1)
        for name, value in (EVERY_STEP | changes).items()
    )
    add_samples(run, ["Water it."] * steps)
    TrainingRun.objects.filter(pk=run.pk).update(steps_done=steps, steps_total=steps)
    run.refresh_from_db()


def add_samples(run: TrainingRun, replies: list[str]) -> None:
    terms = {"preference": 0.62, "malformed_penalty": 0.0, "length_penalty": -0.12}
    prompt = [{"role": "user", "content": "How often do I water my fern?"}]
    LedgerEntry.objects.bulk_create(
        LedgerEntry(
            run=run, step=step, index=0, prompt=prompt, response=reply, terms=terms, reward=0.5, kl_nats=-0.04,
            token_count=9,
        )
        for step, reply in enumerate(replies, 1)
    )  # fmt: skip


def by_command(project: Project, **fields: object) -> TrainingRun:
    return TrainingRun.objects.create(
        **{"project": project, "kind": "policy", "state": "done", "finished_at": "2026-11-21T12:00Z"} | fields
    )


def address(run: TrainingRun, name: str = "run") -> str:
    return reverse(f"rewardtrain:{name}", args=[run.project.slug, run.pk])


def titles(run: TrainingRun) -> list[str]:
    return [chart.title for chart in run_charts.charts_of(run, all_of_them=True)]


# Who may see what


@pytest.mark.parametrize("role", ["annotator", "reviewer", None])
def test_who_does_not_manage_the_project_finds_nothing(client, project, role):
    run = policy_run(project)
    client.force_login(make.make_member(project, "alice", role) if role else make.make_user("charlie"))
    assert client.get(address(run)).status_code == 404
    assert client.get(address(run, "run_ledger")).status_code == 404


def test_a_run_is_found_in_its_own_project_alone_and_the_gate_has_its_report_instead(client, project):
    run = policy_run(project)
    other = make.make_project("orchard")
    client.force_login(make.make_member(other, "maria", "manager"))
    assert client.get(reverse("rewardtrain:run", args=[other.slug, run.pk])).status_code == 404
    client.force_login(make.make_member(project, "mona", "manager"))
    assert client.get(address(run)).status_code == 200
    assert client.get(address(run.round.runs.get(kind="gate"))).status_code == 404
    assert client.post(address(run)).status_code == 405


# What is drawn


def test_all_figures_are_drawn_and_a_term_that_never_paid_is_not(manager, project):
    run = policy_run(project)
    assert titles(run) == [
        "Reward, all terms",
        "Preference reward",
        "Length penalty",
        f"KL from {run.parent}",
        "Reply length",
        "Entropy",
        "Clip fraction",
        "Value loss",
    ]
    body = manager.get(address(run)).content.decode()
    for value in ("+0.50", "+0.62", "−0.12", "6.20", "68.4", "2.10", "4.3%", "0.170"):
        assert f"<b>{value}</b>" in body


def test_one_term_alone_is_not_summed(project):
    run = waiting(project).runs.get(kind="policy")
    add_figures(run, **{"ppo/length_penalty": 0.0})
    assert titles(run)[:2] == ["Preference reward", f"KL from {run.parent}"]


def test_at_a_glance_a_round_leaves_the_optimisers_own_figures_to_the_run(manager, project):
    run = policy_run(project)
    glance = [chart.title for chart in run_charts.charts_of(run)]
    assert set(titles(run)) - set(glance) == {"Clip fraction", "Value loss"}
    body = manager.get(reverse("rewardtrain:rounds", args=[project.slug])).content.decode()
    assert f'href="{address(run)}"' in body
    assert f'href="{address(run.round.runs.get(kind="reward_model"))}"' in body


def test_the_round_before_is_behind_every_line_and_said_in_words(manager, project):
    older = policy_run(project)
    MetricPoint.objects.filter(run=older, name="ppo/clip_fraction", step=3).update(value=0.25)
    run = policy_run(project, 2)
    body = manager.get(address(run)).content.decode()
    assert len(re.findall(r'<polyline class="before"', body)) == len(titles(run)) == 8
    assert "<title>4.3% at step 1, 4.3% at step 3. Round 1: 4.3% to 25.0%.</title>" in body
    assert f'<a href="{address(older)}">round 1</a>' in body


def test_a_run_by_command_has_the_last_of_its_kind_behind_it_and_a_ledger(manager, project):
    policy_run(project)
    TrainingRun.objects.filter(kind="policy").update(state="failed", error="Stopped.")
    older, failed = by_command(project), by_command(project, state="failed", error="It exploded <b>.")
    run = by_command(project)
    assert run_figures.earlier_run(run) == older
    add_figures(run)
    body = manager.get(address(run)).content.decode()
    assert f"Run {run.pk}: PPO" in body
    assert "gate" not in body
    assert f'href="{address(run, "run_ledger")}"' in body
    assert "Water it." in manager.get(address(run, "run_ledger")).content.decode()
    assert "It exploded &lt;b&gt;." in manager.get(address(failed)).content.decode()


def test_runs_by_command_are_listed_below_the_rounds(manager, project):
    policy_run(project)
    page = reverse("rewardtrain:rounds", args=[project.slug])
    assert "Runs by command" not in manager.get(page).content.decode()
    run = by_command(project)
    assert f'href="{address(run)}"' in manager.get(page).content.decode()


def test_a_reward_model_has_its_own_figures(manager, project):
    run = waiting(project).runs.get(kind="reward_model")
    names = {
        "reward/loss": 0.69,
        "reward/pair_accuracy": 0.5,
        "reward/learning_rate": 3e-5,
        "reward/gradient_norm": 2.0,
    }
    MetricPoint.objects.bulk_create(
        MetricPoint(run=run, step=1, name=name, value=value) for name, value in names.items()
    )
    assert titles(run) == ["Loss", "Training pairs in order", "Learning rate", "Norm of the gradient"]
    body = manager.get(address(run)).content.decode()
    assert "<b>3.0e−05</b>" in body
    assert "Best paid" not in body


def test_a_rule_model_has_its_own_figures(manager, project):
    run = by_command(project, kind="rule_model")
    names = {"rule/loss": 1.2, "rule/rule_loss": 0.6, "rule/held_out": 0.65, "rule/learning_rate": 1e-4}
    MetricPoint.objects.bulk_create(
        MetricPoint(run=run, step=1, name=name, value=value) for name, value in names.items()
    )
    assert titles(run) == ["Loss", "Loss of rules alone", "Held-out verdicts, cross entropy", "Learning rate"]
    body = manager.get(address(run)).content.decode()
    assert f"Run {run.pk}: Rule model" in body
    assert "<b>0.650</b>" in body


# As numbers


def test_the_table_has_the_same_figures_newest_step_first(project):
    table = run_charts.table_of(policy_run(project))
    assert table.heads == ["Reward", "Pref.", "Length", "KL, nats", "Tokens", "Entropy", "Clipped", "Value loss"]
    assert [step for step, _ in table.rows] == [3, 2, 1]
    assert table.rows[0][1] == ["+0.50", "+0.62", "−0.12", "6.20", "68.4", "2.10", "4.3%", "0.170"]
    assert table.every == 1


def test_a_figure_that_a_step_lacks_stays_empty(project):
    run = policy_run(project)
    MetricPoint.objects.filter(run=run, step=2, name="ppo/kl_nats").delete()
    assert [values[3] for _, values in run_charts.table_of(run).rows] == ["6.20", "", "6.20"]


def test_of_many_steps_one_in_so_many_stands_in_the_table_and_the_last_always(project):
    run = waiting(project).runs.get(kind="policy")
    add_figures(run, steps=11)
    table = run_charts.table_of(run, most=4)
    assert (table.every, [step for step, _ in table.rows]) == (3, [11, 8, 5, 2])


def test_rloo_clips_replies_and_ppo_tokens(project):
    ppo, rloo = policy_run(project), waiting(project, number=2).runs.get(kind="policy")
    MetricPoint.objects.create(run=rloo, step=3, name="rloo/clip_fraction", value=0.25)
    TrainingRun.objects.filter(pk=rloo.pk).update(steps_done=3)
    rloo.refresh_from_db()
    units = [[one.unit for one in run_charts.charts_of(run, all_of_them=True) if one.title == "Clip fraction"]
             for run in (ppo, rloo)]  # fmt: skip
    assert units == [["of tokens"], ["of replies"]]
    assert run_charts.charts_of(rloo) == []
    assert run_charts.smaller_figures(rloo) == [("replies clipped", "25%")]


# While it runs


def test_while_it_runs_its_charts_are_fetched_again_and_the_table_is_not(manager, project):
    run = running(project).runs.get(kind="policy")
    assert 'hx-trigger="every 3s"' in manager.get(address(run)).content.decode()
    part = manager.get(address(run), **htmx("run-charts")).content.decode()
    assert part.strip().startswith("<section")
    assert "Step 212 of 400" in part
    assert "Step by step" not in part
    TrainingRun.objects.filter(pk=run.pk).update(
        state="done", lease_token=None, lease_until=None, finished_at=run.started_at
    )
    assert "hx-trigger" not in manager.get(address(run), **htmx("run-charts")).content.decode()


def test_a_run_that_has_not_begun_says_so(manager, project):
    run = by_command(project, state="queued", finished_at=None)
    body = manager.get(address(run)).content.decode()
    assert "No step is done yet." in body
    assert "Step by step" not in body
    assert "It waits for a worker." in body and "It runs." not in body


def test_it_asks_no_more_of_the_database_when_there_are_more_steps(manager, project):
    policy_run(project)
    run = waiting(project, number=2).runs.get(kind="policy")
    add_figures(run)
    manager.get(address(run))
    with CaptureQueriesContext(connection) as few:
        manager.get(address(run))
    MetricPoint.objects.bulk_create(
        MetricPoint(run=run, step=step, name=name, value=1.0) for step in range(4, 300) for name in EVERY_STEP
    )
    with CaptureQueriesContext(connection) as many:
        manager.get(address(run))
    assert len(many) == len(few) <= 12


# What breaks a rule


def test_a_rehearsal_notes_which_share_of_each_step_breaks_a_rule(manager, project):
    run = policy_run(project)
    LedgerEntry.objects.filter(run=run).delete()
    breaks, keeps = "I am a gardener from Lyon.", "Water it once a week."
    add_samples(run, [breaks, keeps, keeps, breaks])
    prompt = LedgerEntry.objects.filter(run=run).first().prompt
    assert [measure.figures([(prompt, text)]).violation_rate for text in (breaks, keeps)] == [1.0, 0.0]
    assert "Breaks a rule" not in titles(run)
    measuring.judge_steps(run)
    judged = run.metrics.filter(name=run_figures.VIOLATIONS)
    assert list(judged.order_by("step").values_list("step", "value")) == [(1, 1.0), (2, 0.0), (3, 0.0)]
    TrainingRun.objects.filter(pk=run.pk).update(steps_done=4)
    run.refresh_from_db()
    measuring.judge_steps(run)
    assert (judged.count(), judged.get(step=4).value) == (4, 1.0)
    body = manager.get(address(run)).content.decode()
    assert "Breaks a rule: as the rehearsal judges it; training never sees this" in body


# In the terminal


def test_the_terminal_knows_every_figure_and_where_the_run_before_ended(project):
    run = policy_run(project)
    lines = run_figures.terminal_lines("policy", run)
    assert set(EVERY_STEP) - {"ppo/kl_coef"} <= set(lines)
    assert (lines["ppo/kl_nats"].before, lines["ppo/kl_nats"].is_optional) == (6.2, False)
    assert lines["ppo/length_penalty"].is_optional
    assert {line.before for line in run_figures.terminal_lines("policy", None).values()} == {None}
    assert "reward/loss" in run_figures.terminal_lines("reward_model", None)


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(run_figures).failed == 0
