"""A manager's rounds: what the page says of each, what runs live, and the decision about a gate."""

from __future__ import annotations

import doctest
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback.models import Membership, Project, Snapshot, User
from rewardtrain import promotions, run_charts, run_figures, timeline
from rewardtrain.models import LedgerEntry, MetricPoint, Promotion, Round, TrainingRun
from tests import make

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def htmx(target: str) -> dict[str, str]:
    return {"HTTP_HX_REQUEST": "true", "HTTP_HX_TARGET": target}


@pytest.fixture
def project() -> Project:
    return make.make_project()


@pytest.fixture
def manager(client: Client, project: Project) -> Client:
    client.force_login(make.make_member(project, "maria", "manager"))
    return client


def address(project: Project, name: str = "rounds", *args: object) -> str:
    return reverse(f"rewardtrain:{name}", args=[project.slug, *args])


def line(key: str, passed: bool, found: str = "+4%") -> dict[str, Any]:
    return {"key": key, "name": key.capitalize(), "found": found, "wanted": "within 15%", "passed": passed}


def gate(*, failed: tuple[str, ...] = ()) -> dict[str, Any]:
    samples = [
        {
            "prompt": [{"role": "user", "content": f"How deep, number {number}?"}],
            "before": {"text": "Three times as deep.", "tokens": 5},
            "after": {"text": "A lovely question! Three times as deep.", "tokens": 9 - number},
            "score_before": 0.1,
            "score_after": 0.5,
        }
        for number in (1, 2)
    ]
    lines = [line(key, key not in failed) for key in ("reward", "length", "kl")]
    return {"passed": not failed, "lines": lines, "samples": samples, "counts": {"prompts": 2}}


def add_run(turn: Round, kind: str, state: str = "done", **fields: Any) -> TrainingRun:
    running = {"lease_token": uuid4(), "lease_until": timezone.now() + timedelta(seconds=50)}
    started = timezone.now() - timedelta(minutes=10)
    ended = {"finished_at": started + timedelta(minutes=9)} if state in ("done", "failed", "cancelled") else {}
    defaults = {"project": turn.project, "round": turn, "kind": kind, "state": state, "started_at": started, **ended}
    return TrainingRun.objects.create(**defaults | (running if state == "running" else {}) | fields)


def add_round(project: Project, state: str = "decision", number: int = 1, **fields: Any) -> Round:
    """A round with the rows that stand beside it in this state."""
    project.refresh_from_db()
    snapshot = Snapshot.objects.create(
        project=project, state="done", sha256=uuid4().hex, counts={"total": {"rankings": 4812}}
    )
    turn = Round.objects.create(
        **{"project": project, "number": number, "state": state, "policy_before": project.policy, "snapshot": snapshot}
        | fields
    )
    if state == "snapshot":
        return turn
    figures = {
        "pairs": 812, "pair_accuracy": 0.72, "interval": [0.69, 0.75], "ceiling": 0.84, "agreement": 0.73,
        "length_baseline": 0.57,
    }  # fmt: skip
    scorer = make.make_model(project, "preference", figures=figures)
    add_run(turn, "reward_model", produced=scorer, steps_done=20, steps_total=20)
    add_run(turn, "second_reward_model", produced=scorer, steps_done=20, steps_total=20)
    return turn


def waiting(project: Project, *, failed: tuple[str, ...] = (), number: int = 1) -> Round:
    turn = add_round(project, number=number)
    policy = make.make_model(project, state="failed" if failed else "passed")
    add_run(turn, "policy", produced=policy, parent=turn.policy_before, steps_done=400, steps_total=400)
    add_run(turn, "gate", steps_done=2, steps_total=2)
    Round.objects.filter(pk=turn.pk).update(policy_after=policy, gate_report=gate(failed=failed))
    turn.refresh_from_db()
    return turn


def running(project: Project, number: int = 1) -> Round:
    """A round in its PPO, at step 212 of 400, with figures and samples."""
    turn = add_round(project, "policy", number)
    run = add_run(turn, "policy", "running", parent=turn.policy_before, steps_done=212, steps_total=400)
    for name, value in (("ppo/preference", 0.62), ("ppo/kl_nats", 6.2), ("ppo/length", 68.4), ("ppo/entropy", 2.1)):
        MetricPoint.objects.bulk_create(
            MetricPoint(run=run, step=step, name=name, value=value * step / 212) for step in (1, 100, 212)
        )
    LedgerEntry.objects.bulk_create(
        LedgerEntry(
            run=run, step=step, index=0, prompt=[{"role": "user", "content": "Why?"}], response=f"Reply <b>{step}</b>",
            terms={"preference": step / 100, "length_penalty": -0.5, "malformed_penalty": 0.0}, reward=step / 100 - 0.5,
            kl_nats=0.3, token_count=9,
        )
        for step in (150, 203, 212)
    )  # fmt: skip
    return turn


def stages(project: Project) -> list[tuple[str, str]]:
    return [(stage.state, stage.figure) for stage in timeline.rows_of(project)[0].stages]


def decide(client: Client, turn: Round, decision: str, reason: str = "") -> Any:
    return client.post(address(turn.project, "decide", turn.number), {"decision": decision, "reason": reason})


# Who may see and do what


@pytest.mark.parametrize("role", ["annotator", "reviewer", None])
def test_who_does_not_manage_the_project_finds_nothing(client, project, role):
    turn = waiting(project)
    client.force_login(make.make_member(project, "alice", role) if role else make.make_user("charlie"))
    for name, args in (("rounds", ()), ("round", (1,)), ("timeline", ()), ("roll_back", ())):
        assert client.get(address(project, name, *args)).status_code == 404
    for name, args in (("start", ()), ("roll_back", ()), ("stop", (1,)), ("resume", (1,))):
        assert client.post(address(project, name, *args), {"reason": "Mine."}).status_code == 404
    assert decide(client, turn, "promote").status_code == 404
    assert not Promotion.objects.exists()


def test_a_manager_of_another_project_decides_nothing_here(client, project):
    turn = waiting(project)
    other = make.make_project("orchard")
    client.force_login(make.make_member(other, "maria", "manager"))
    assert decide(client, turn, "promote").status_code == 404
    assert client.post(address(other, "decide", 1), {"decision": "promote"}).status_code == 404
    assert client.get(address(other, "round", 1)).status_code == 404


@pytest.mark.parametrize(("name", "args"), [("start", ()), ("decide", (1,)), ("stop", (1,)), ("resume", (1,))])
def test_what_changes_something_is_not_done_by_get(manager, project, name, args):
    waiting(project)
    assert manager.get(address(project, name, *args)).status_code == 405


@pytest.mark.parametrize(("name", "args"), [("rounds", ()), ("round", (1,)), ("timeline", ())])
def test_what_only_shows_something_is_not_posted_to(manager, project, name, args):
    waiting(project)
    assert manager.post(address(project, name, *args)).status_code == 405


def test_a_round_that_is_not_there_is_not_found(manager, project):
    assert manager.get(address(project, "round", 7)).status_code == 404
    assert manager.post(address(project, "decide", 7), {"decision": "refuse"}).status_code == 404


# What it says of each round


def test_a_project_without_rounds_says_what_one_is_and_what_is_missing(manager, project):
    body = manager.get(address(project)).content.decode()
    assert "No round yet." in body
    assert "at 8 rankings; there are 0" in body
    assert 'aria-disabled="true"' in body


def test_a_round_that_waits_stands_on_top(manager, project):
    waiting(project, failed=("length",))
    page = manager.get(address(project))
    assert page.context["sentence"] == "Round 1 waits for your decision: one line of its gate failed."
    assert stages(project) == [
        ("done", "4,812 rankings"),
        ("done", "72% right"),
        ("done", "400 steps"),
        ("failed", "2 of 3 passed"),
        ("waits", "to decide"),
    ]


def test_a_running_round_shows_its_step_and_what_is_still_to_come(project):
    running(project)
    row = timeline.rows_of(project)[0]
    assert [stage.state for stage in row.stages] == ["done", "done", "now", "todo", "todo"]
    assert (row.stages[2].figure, row.chip) == ("step 212 of 400", ("on", "Running"))


@pytest.mark.parametrize(
    ("state", "expected"),
    [("queued", ("now", "being written")), ("failed", ("failed", "not written"))],
)
def test_a_snapshot_is_being_written_or_could_not_be(project, state, expected):
    turn = add_round(project, "snapshot")
    Snapshot.objects.filter(pk=turn.snapshot_id).update(state=state, error="No space." if state == "failed" else "")
    assert stages(project)[0] == expected


def test_a_reward_model_counts_its_steps_and_says_which_of_two_it_is(project):
    turn = add_round(project, "reward_models")
    turn.runs.filter(kind="reward_model").update(state="queued", steps_done=0, steps_total=0, attempts=0)
    turn.runs.filter(kind="second_reward_model").update(state="queued")
    stage = timeline.rows_of(project)[0].stages[1]
    assert (stage.state, stage.figure, stage.when) == ("now", "waiting for a worker", "first of two")


def test_a_failed_run_is_slashed_and_its_reason_read_below(manager, project):
    turn = add_round(project, "policy")
    add_run(turn, "policy", "failed", error="The gradient's norm was nan.")
    Round.objects.update(state="failed", error="PPO did not finish: <b>nan</b>.", decided_at=timezone.now())
    assert stages(project)[2] == ("failed", "failed")
    body = manager.get(address(project)).content.decode()
    reason = "PPO did not finish: &lt;b&gt;nan&lt;/b&gt;."
    assert "Round 1 failed." in body
    assert body.count(reason) == 1
    assert manager.get(address(project, "round", 1)).content.decode().count(reason) == 1


def test_why_the_newest_round_failed_is_read_beside_the_report_of_another(manager, project):
    waiting(project, failed=("length",))
    add_round(project, "snapshot", number=2)
    Round.objects.filter(number=2).update(state="failed", error="There are no rankings of fresh prompts.")
    page = manager.get(address(project))
    assert page.context["report_row"].turn.number == 1
    assert page.content.decode().count("There are no rankings of fresh prompts.") == 1


def test_the_round_whose_policy_serves_can_be_rolled_back(manager, project):
    first = waiting(project)
    decide(manager, first, "promote")
    rows = timeline.rows_of(Project.objects.get())
    assert (rows[0].chip, rows[0].stages[4].figure) == (("", "Serving"), "policy 2")
    body = manager.get(address(project)).content.decode()
    assert address(project, "roll_back") in body


def test_a_policy_that_serves_no_more_says_how_long_it_did(manager, project):
    for number in (1, 2):
        decide(manager, waiting(project, number=number), "promote")
    newest, older = timeline.rows_of(Project.objects.get())
    assert newest.chip == ("", "Serving")
    assert (older.chip, older.stages[4].when) == (("", "Retired"), "0 s")


def test_serving_time_is_the_sum_of_a_policys_turns():
    hours = [(1, 0), (2, 5), (1, 6)]
    steps = [(policy, NOW + timedelta(hours=hour)) for policy, hour in hours]
    assert timeline.served_seconds(steps, NOW + timedelta(hours=10)) == {1: 9 * 3600, 2: 3600}
    assert timeline.served_seconds([], NOW) == {}


def test_when_nothing_needs_anybody_it_says_who_serves_and_what_is_new(manager, project):
    Project.objects.update(round_every=500)
    decide(manager, waiting(project), "promote")
    make.make_ranking(make.make_rank_slot(make.make_comparison(project)))
    sentence = manager.get(address(project)).context["sentence"]
    expected = "Policy 2 serves. 1 ranking is new since the last round. The next round starts by itself at 500."
    assert sentence == expected


def test_time_left_goes_by_the_pace_so_far(project):
    run = running(project).runs.get(kind="policy")
    TrainingRun.objects.filter(pk=run.pk).update(started_at=timezone.now() - timedelta(seconds=424))
    run.refresh_from_db()
    assert timeline.seconds_left(run) == pytest.approx(2 * 188, abs=2)
    run.steps_done = 0
    assert timeline.seconds_left(run) is None


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(timeline).failed == 0


# What runs now


def test_a_running_round_shows_its_progress_its_figures_and_is_fetched_again(manager, project):
    running(project)
    body = manager.get(address(project)).content.decode()
    assert '<progress class="track" value="212" max="400"' in body
    assert "<b>+0.62</b>" in body
    assert "dashed: gate at 12" in body
    assert 'hx-trigger="every 3s"' in body


def test_nothing_is_fetched_again_when_nothing_runs(manager, project):
    waiting(project)
    assert "hx-trigger" not in manager.get(address(project)).content.decode()


def test_htmx_is_given_what_runs_with_the_table_and_the_sentence_beside_it(manager, project):
    running(project)
    part = manager.get(address(project) + "?shown=1", **htmx("training"))
    body = part.content.decode()
    assert "<html" not in body
    assert body.strip().startswith("<section")
    for beside in ('id="rounds-table"', 'id="rounds-head"'):
        assert body.count(beside) == 1
    assert body.count('hx-swap-oob="true"') == 2
    assert "HX-Target" in part["Vary"]


def test_a_round_that_has_just_ended_brings_its_report_and_is_left_alone(manager, project):
    waiting(project)
    body = manager.get(address(project) + "?shown=0", **htmx("training")).content.decode()
    assert 'id="report"' in body
    assert "hx-trigger" not in body
    assert '<div id="stop" hx-swap-oob="true"></div>' in body


def test_a_reason_half_typed_for_another_round_is_not_taken_away(manager, project):
    waiting(project, failed=("length",))
    turn = running(project, number=2)
    Round.objects.filter(pk=turn.pk).update(state="failed", error="It was stopped.")
    body = manager.get(address(project, "round", 2) + "?shown=1", **htmx("training")).content.decode()
    assert 'id="report"' not in body


def test_the_best_paid_samples_are_of_the_last_steps_and_their_text_stays_text(manager, project):
    run = running(project).runs.get(kind="policy")
    paid = run_charts.best_paid(run)
    assert [one.response for one in paid.samples] == ["Reply <b>212</b>", "Reply <b>203</b>"]
    assert paid.names == ["Pref.", "Length"]
    assert (paid.samples[0].terms, paid.samples[0].reward) == (["+2.1", "−0.5"], "+1.6")
    assert "Reply &lt;b&gt;212&lt;/b&gt;" in manager.get(address(project)).content.decode()


def test_the_round_before_is_drawn_behind(project):
    older = waiting(project)
    MetricPoint.objects.create(run=older.runs.get(kind="policy"), step=9, name="ppo/kl_nats", value=3.0)
    run = running(project, number=2).runs.get(kind="policy")
    earlier = run_figures.earlier_run(run)
    assert earlier.round == older
    kl = next(chart for chart in run_charts.charts_of(run, earlier) if chart.unit == "nats")
    assert kl.before == [(9, 3.0)]
    assert (kl.low, kl.bound, kl.value, kl.steps) == (0, 12, "6.20", 400)


def test_the_bound_on_length_goes_by_the_length_at_the_start(project):
    turn = running(project)
    turn.hyperparameters = {"gate": {"most_length_change": 0.5}}
    turn.save()
    run = turn.runs.get(kind="policy")
    MetricPoint.objects.filter(name="ppo/length", step=1).update(value=40)
    length = next(chart for chart in run_charts.charts_of(run) if chart.unit == "tokens")
    assert (length.bound, length.bound_name) == (60, "gate near 60")


def test_a_line_far_below_its_bound_is_drawn_without_it(project):
    run = running(project).runs.get(kind="policy")
    MetricPoint.objects.filter(name="ppo/kl_nats", step=212).update(value=1.3)
    kl = next(chart for chart in run_charts.charts_of(run) if chart.title.startswith("KL"))
    assert (kl.value, kl.unit, kl.bound, kl.high) == ("1.30", "of 12 nats", None, 3)


def test_settings_nobody_can_read_do_not_break_the_page(manager, project):
    turn = running(project)
    turn.hyperparameters = {"gate": {"most_lenght_change": 1}}
    turn.save()
    assert manager.get(address(project)).status_code == 200


def test_the_reward_model_stands_beside_its_ceiling_with_its_interval(manager, project):
    running(project)
    body = manager.get(address(project)).content.decode()
    assert "between 69% and 75%" in body
    assert "84%, the most anybody can be right where people agree in 73%" in body
    assert "the longer reply wins, 57%" in body


def test_a_reward_model_without_held_out_pairs_says_so(manager, project):
    turn = running(project)
    scorer = turn.runs.get(kind="reward_model").produced
    type(scorer).objects.filter(pk=scorer.pk).update(figures={"pairs": 0})
    assert "Not measured" in manager.get(address(project)).content.decode()


# The gate


def test_failed_lines_come_first_with_the_samples_behind_them(manager, project):
    waiting(project, failed=("length",))
    page = manager.get(address(project))
    assert [found["key"] for found in page.context["lines"]] == ["length", "reward", "kl"]
    body = page.content.decode()
    assert "<mark>A lovely question!</mark> Three times as deep." in body
    assert "Length, as a reader meets it" in body


def test_the_report_says_on_how_many_prompts_it_rests(manager, project):
    turn = waiting(project)
    assert "which serves now; measured on 2 prompts</p>" in manager.get(address(project)).content.decode()
    Round.objects.filter(pk=turn.pk).update(gate_report=gate() | {"counts": {}})
    assert "measured on" not in manager.get(address(project)).content.decode()


def test_the_next_sample_comes_alone_where_htmx_asks_for_it(manager, project):
    turn = waiting(project)
    part = manager.get(address(project, "round", turn.number) + "?sample=2&by=length", **htmx("samples"))
    assert part.context["sample"].number == 2
    assert part.content.decode().strip().startswith('<div class="samples"')


def test_a_round_that_failed_before_its_gate_shows_no_samples(manager, project):
    stopped(project)
    for asked in ("?by=length", "?by=reward&sample=2"):
        page = manager.get(address(project, "round", 1) + asked)
        assert (page.status_code, page.context["sample"]) == (200, None)


@pytest.mark.parametrize("asked", ["?sample=x", "?sample=-1", "?sample=99999999999", "?by=<script>", "?sample="])
def test_a_sample_nobody_has_is_the_nearest_there_is(manager, project, asked):
    waiting(project)
    page = manager.get(address(project) + asked)
    assert page.status_code == 200
    assert page.context["sample"].number in (1, 2)
    assert "<script>" not in page.content.decode().split("<main", 1)[1]


def test_hostile_replies_and_prompts_stay_text(manager, project):
    turn = waiting(project)
    hostile = "<img src=x onerror=alert(1)>"
    sample = gate()["samples"][0] | {"prompt": [{"role": "user", "content": hostile}]}
    sample |= {"before": {"text": hostile, "tokens": 1}, "after": {"text": hostile + " new", "tokens": 2}}
    lines = [line("length", False, found=hostile) | {"name": hostile, "wanted": hostile}]
    Round.objects.filter(pk=turn.pk).update(gate_report={"passed": False, "lines": lines, "samples": [sample]})
    body = manager.get(address(project)).content.decode()
    assert "<img" not in body
    assert body.count("&lt;img src=x onerror=alert(1)&gt;") >= 5


# The decision


def test_what_passed_is_promoted_by_its_main_button(manager, project):
    turn = waiting(project)
    body = manager.get(address(project)).content.decode()
    assert '<button class="button main" name="decision" value="promote">' in body
    assert decide(manager, turn, "promote").status_code == 302
    assert Project.objects.get().policy == turn.policy_after
    assert Promotion.objects.get().by.username == "maria"


def test_what_failed_is_refused_by_its_main_button_and_needs_no_reason(manager, project):
    turn = waiting(project, failed=("length",))
    body = manager.get(address(project)).content.decode()
    assert '<button class="button main" name="decision" value="refuse">' in body
    assert decide(manager, turn, "refuse").status_code == 302
    turn.refresh_from_db()
    assert (turn.state, turn.decided_by.username) == ("refused", "maria")
    assert Project.objects.get().policy == turn.policy_before


def test_promoting_what_failed_needs_a_typed_reason_and_keeps_what_was_typed(manager, project):
    turn = waiting(project, failed=("length",))
    page = decide(manager, turn, "promote", "  ")
    assert page.status_code == 422
    assert "has not passed its gate. Say why" in page.content.decode()
    assert 'aria-invalid="true"' in page.content.decode()
    assert Project.objects.get().policy == turn.policy_before
    assert decide(manager, turn, "promote", "The added words are wanted.").status_code == 302
    assert Promotion.objects.get().reason == "The added words are wanted."


def test_refusing_what_passed_needs_a_reason(manager, project):
    turn = waiting(project)
    assert decide(manager, turn, "refuse").status_code == 422
    assert decide(manager, turn, "refuse", "It sounds like an advertisement.").status_code == 302


@pytest.mark.parametrize(("decision", "reason"), [("delete", ""), ("", ""), ("promote", "x" * 2001)])
def test_a_decision_nobody_offers_is_refused_beside_the_form(manager, project, decision, reason):
    turn = waiting(project)
    assert decide(manager, turn, decision, reason).status_code == 422
    turn.refresh_from_db()
    assert turn.state == "decision"


def test_a_second_decision_is_told_of_the_first(manager, project):
    turn = waiting(project)
    decide(manager, turn, "promote")
    page = decide(manager, turn, "refuse", "Too late.")
    assert page.status_code == 409
    assert "does not wait for a decision" in page.content.decode()


def test_who_decided_and_why_is_read_afterwards(manager, project):
    turn = waiting(project)
    decide(manager, turn, "refuse", "It <i>sells</i>.")
    body = manager.get(address(project, "round", 1)).content.decode()
    assert "by Maria: “It &lt;i&gt;sells&lt;/i&gt;.”" in body
    assert 'id="decision"' not in body


# Start, stop, roll back


def test_a_round_is_started_in_the_managers_name(manager, project, monkeypatch):
    asked = []

    def start_round(*, project: Project, by: User) -> Round:
        asked.append((project, by.username))
        return add_round(project, "snapshot")

    monkeypatch.setattr("rewardtrain.rounds.start_round", start_round)
    page = manager.post(address(project, "start"), follow=True)
    assert asked == [(project, "maria")]
    assert "Round 1 has begun" in page.content.decode()


def test_a_round_that_can_not_start_says_why(manager, project):
    page = manager.post(address(project, "start"))
    assert page.status_code == 409
    assert "a round needs at least 8" in page.content.decode()


def test_a_running_round_is_stopped_with_a_reason(manager, project):
    turn = running(project)
    assert manager.post(address(project, "stop", 1), {"reason": " "}).status_code == 422
    manager.post(address(project, "stop", 1), {"reason": "Wrong prompts."})
    turn.refresh_from_db()
    assert (turn.state, turn.error) == ("failed", "Stopped by hand: Wrong prompts.")
    assert not TrainingRun.objects.unfinished().exists()
    assert timeline.rows_of(project)[0].chip == ("harm", "Stopped")


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({}, "from where it was saved last. What serves"),
        ({"algorithm": "best-of-n"}, "from where it was saved last. What serves"),
        ({"algorithm": "rloo"}, "from where it was saved last; RLOO saves nothing on the way and would begin anew."),
        ({"algorithm": "dpo"}, "from where it was saved last; DPO saves nothing on the way and would begin anew."),
    ],
)
def test_whoever_stops_a_round_is_told_what_is_lost(manager, project, policy, said):
    turn = running(project)
    Round.objects.filter(pk=turn.pk).update(hyperparameters={"policy": policy})
    assert said in manager.get(address(project)).content.decode()


def test_what_has_ended_can_not_be_stopped(manager, project):
    waiting(project)
    assert manager.post(address(project, "stop", 1), {"reason": "Late."}).status_code == 409


def stopped(project: Project, number: int = 1) -> Round:
    """A round whose PPO was stopped at step 212, saved at step 200."""
    turn = running(project, number)
    over = {"lease_token": None, "lease_until": None, "finished_at": timezone.now()}
    turn.runs.filter(kind="policy").update(state="cancelled", checkpoint_step=200, **over)
    Round.objects.filter(pk=turn.pk).update(state="failed", error="Stopped by hand: The GPU is needed.")
    turn.refresh_from_db()
    return turn


def test_a_round_that_was_stopped_can_go_on(manager, project):
    turn = stopped(project)
    page = manager.get(address(project)).content.decode()
    assert "Go on with round 1" in page
    assert "PPO goes on after step 200." in page
    page = manager.post(address(project, "resume", 1), follow=True).content.decode()
    assert "Round 1 goes on." in page
    assert "Go on with round 1" not in page
    turn.refresh_from_db()
    assert (turn.state, turn.runs.get(kind="policy").state) == ("policy", "queued")


def test_a_round_goes_on_only_where_that_makes_sense(manager, project):
    stopped(project)
    policy = make.make_model(project, state="passed")
    promotions.promote(project=project, to_version=policy, reason="Better.")
    assert "Go on with round" not in manager.get(address(project)).content.decode()
    page = manager.post(address(project, "resume", 1))
    assert page.status_code == 409
    assert "Another policy serves by now" in page.content.decode()
    assert manager.post(address(project, "resume", 9)).status_code == 404


def test_what_began_anew_and_what_did_not_begin_is_said(project):
    turn = stopped(project)
    turn.runs.filter(kind="policy").update(checkpoint_step=0)
    assert "begins anew" in timeline.goes_on(timeline.row_of(turn))
    turn.runs.filter(kind="policy").update(state="done")
    assert timeline.goes_on(timeline.row_of(turn)) == "It goes on where it was."
    turn.runs.filter(kind="reward_model").update(state="failed", error="It broke.", checkpoint_step=7)
    assert "the preference reward model goes on after step 7." in timeline.goes_on(timeline.row_of(turn))
    Round.objects.filter(pk=turn.pk).update(state="refused")
    assert timeline.goes_on(timeline.row_of(turn)) == ""


def test_a_run_says_where_it_was_saved_and_why_it_waits(manager, project):
    turn = running(project)
    run = turn.runs.get(kind="policy")
    run.checkpoint_step, run.error = 200, "The disk was full."
    run.save()
    page = manager.get(address(project)).content.decode()
    assert "Saved at step 200;" in page
    assert "It went on after: The disk was full." in page
    TrainingRun.objects.filter(pk=run.pk).update(state="queued", lease_token=None, lease_until=None)
    assert "It waits, and tries again by itself: The disk was full." in manager.get(address(project)).content.decode()


def test_time_left_counts_from_where_a_run_went_on(project):
    run = running(project).runs.get(kind="policy")  # ten minutes at work, at step 212 of 400
    whole = timeline.seconds_left(run)
    run.resumed_step = 112
    assert timeline.seconds_left(run) == pytest.approx(whole * 2.12, rel=0.01)
    run.resumed_step = 212
    assert timeline.seconds_left(run) is None


def test_rolling_back_asks_once_and_wants_a_reason(manager, project):
    turn = waiting(project)
    decide(manager, turn, "promote")
    assert "Roll back to policy 1?" in manager.get(address(project, "roll_back")).content.decode()
    assert roll_back(manager, project, reason="").status_code == 422
    assert Project.objects.get().policy == turn.policy_after
    page = roll_back(manager, project, follow=True)
    assert "Policy 1 serves again" in page.content.decode()
    assert Project.objects.get().policy == turn.policy_before


def asked(client: Client, project: Project) -> dict[str, str]:
    """The hidden fields of the page that asks."""
    body = client.get(address(project, "roll_back")).content.decode()
    return dict(re.findall(r'<input type="hidden" name="(serving|previous)" value="(\d*)">', body))


def roll_back(client: Client, project: Project, reason: str = "People complain.", **more: Any) -> Any:
    return client.post(address(project, "roll_back"), asked(client, project) | {"reason": reason}, **more)


def test_the_same_form_sent_twice_goes_one_step_back(manager, project):
    for number in (1, 2):
        decide(manager, waiting(project, number=number), "promote")
    answer = asked(manager, project) | {"reason": "People complain."}
    assert manager.post(address(project, "roll_back"), answer).status_code == 302
    page = manager.post(address(project, "roll_back"), answer)
    assert page.status_code == 409
    assert "Another policy serves since this page was opened." in page.content.decode()
    assert "Roll back to policy 1?" in page.content.decode()
    assert str(Project.objects.get().policy) == "policy 2"


@pytest.mark.parametrize(("changes", "status"), [({"previous": ""}, 409), ({"serving": "x"}, 422)])
def test_a_roll_back_that_does_not_say_what_was_asked_is_refused(manager, project, changes, status):
    turn = waiting(project)
    decide(manager, turn, "promote")
    answer = asked(manager, project) | {"reason": "People complain."} | changes
    page = manager.post(address(project, "roll_back"), answer)
    assert page.status_code == status
    assert Project.objects.get().policy == turn.policy_after


def test_the_first_policy_has_nothing_behind_it(manager, project):
    assert "nothing to roll back to" in manager.get(address(project, "roll_back")).content.decode()
    page = manager.post(address(project, "roll_back"), {"reason": "Away with it."})
    assert page.status_code == 409


# The part for the overview


def test_the_overview_fetches_the_newest_rounds_by_the_name_of_their_address(manager, project):
    turn = waiting(project)
    assert f'hx-get="{address(project, "timeline")}"' in manager.get(
        reverse("feedback:overview", args=[project.slug])
    ).content.decode()  # fmt: skip
    part = manager.get(address(project, "timeline"), **htmx("rounds")).content.decode()
    assert "<html" not in part
    assert f"Round {turn.number}" in part
    assert "waits for your decision" in part


def test_a_browser_that_asks_for_the_part_is_shown_the_page(manager, project):
    assert manager.get(address(project, "timeline")).url == address(project)


def test_the_page_asks_no_more_of_the_database_when_there_are_more_rounds(
    manager, project, django_assert_max_num_queries
):
    for number in range(1, 6):
        promotions.refuse(round=waiting(project, number=number), reason="Not yet.")
    running(project, number=6)
    with django_assert_max_num_queries(30):
        manager.get(address(project))
    with django_assert_max_num_queries(26):
        manager.get(address(project) + "?shown=5", **htmx("training"))


def test_a_manager_who_was_switched_off_finds_nothing(manager, project):
    Membership.objects.update(is_active=False)
    assert manager.get(address(project)).status_code == 404
