"""A manager's rounds of one project: every turn of the circle, what runs now, what waits for a decision."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.text import capfirst
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from feedback import charts
from feedback.errors import FeedbackError, ReasonNeeded
from feedback.models import ModelVersion, Project
from feedback.pages.access import managed_project, person
from feedback.pages.parts import render_page_or_part
from rewardtrain import promotions, round_settings, run_charts
from rewardtrain import rounds as verbs
from rewardtrain import timeline as timelines
from rewardtrain.forms import DecisionForm, ReasonForm, RollBackForm
from rewardtrain.gate_samples import sample_of, sorted_lines
from rewardtrain.models import Round, TrainingRun
from rewardtrain.run_figures import earlier_run, name_of
from rewardtrain.timeline import RoundRow

RUNS_BY_COMMAND = 5
PARTS = {"samples": "rewardtrain/_samples.html", "training": "rewardtrain/_live.html"}


@require_safe
def rounds_page(request: HttpRequest, slug: str, number: int | None = None) -> HttpResponse:
    """All rounds, with one of them opened: the one named, else what waits, else the newest."""
    return show_rounds(request, managed_project(request, slug), number)


def show_rounds(
    request: HttpRequest,
    project: Project,
    number: int | None = None,
    *,
    status: int = 200,
    **more: Any,
) -> HttpResponse:
    """The page, or for htmx the samples of a gate or what runs now."""
    rows = timelines.rows_of(project)
    named = _row_named(project, rows, number) if number is not None else None
    context = {"project": project, "rows": rows, "named": named, **_head(project, rows)}
    if not getattr(request, "htmx", None):
        context["by_command"] = _runs_by_command(project)
    if not _asks_for(request, "training"):
        context.update(_report(request, _report_row(rows, named)))
    if not _asks_for(request, "samples"):
        context.update(_training(rows, named))
    if _asks_for(request, "training"):
        context.update(_report_that_is_due(request, rows, context["training"]))
    opened = context.get("report_row")
    context["shown"] = opened.turn.number if opened else _whole(request.GET.get("shown"))
    return render_page_or_part(request, "rewardtrain/rounds.html", PARTS, context | more, status=status)


def _runs_by_command(project: Project) -> list[TrainingRun]:
    """The newest runs that belong to no round."""
    found = TrainingRun.objects.filter(project=project, round=None).exclude(kind__in=TrainingRun.MEASURING)
    return list(found.defer("result", "hyperparameters").order_by("-pk")[:RUNS_BY_COMMAND])


def _asks_for(request: HttpRequest, part: str) -> bool:
    htmx: Any = getattr(request, "htmx", None)
    return bool(htmx) and htmx.target == part


def _row_named(project: Project, rows: list[RoundRow], number: int) -> RoundRow:
    """The row of a round, also of one that is too old for the table; 404 when there is none."""
    shown = next((row for row in rows if row.turn.number == number), None)
    return shown or timelines.row_of(get_object_or_404(Round, project=project, number=number))


def _head(project: Project, rows: list[RoundRow]) -> dict[str, Any]:
    """The sentence on top, and whether a round can be started."""
    newest = rows[0].turn if rows else None
    fresh = verbs.new_rankings(project, since=newest)
    active = next((row for row in rows if row.is_active), None)
    return {
        "sentence": timelines.sentence(project, rows, fresh),
        "next_number": (newest.number if newest else 0) + 1,
        "cannot_start": why_no_round(project, active.turn if active else None),
        "previous": promotions.previous_policy(project),
    }


def why_no_round(project: Project, active: Round | None) -> str:
    """When a round can be started, where that is not now; empty when one can."""
    if active:
        return f"when round {active.number} has ended"
    if project.policy_id is None:
        return "when a model serves here"
    ranked = verbs.new_rankings(project, since=None)
    if ranked < verbs.FEWEST_RANKINGS:
        return f"at {verbs.FEWEST_RANKINGS} rankings; there are {ranked}"
    gate, prompts = round_settings.gate_of(project.hyperparameters), verbs.validation_prompts(project)
    if prompts < gate.needed_prompts:
        return f"at {gate.needed_prompts} validation prompts; there are {prompts}"
    return ""


def _report_row(rows: list[RoundRow], named: RoundRow | None) -> RoundRow | None:
    """Whose gate report is opened: the round named, else one that waits, else the newest that was measured."""
    if named:
        return named
    waiting = next((row for row in rows if row.waits), None)
    return waiting or next((row for row in rows if row.gate_lines), None)


def _report(request: HttpRequest, row: RoundRow | None) -> dict[str, Any]:
    """The gate report of a round, one of its samples beside it."""
    if row is None or not (row.gate_lines or row.turn.error):
        return {"report_row": None}
    turn = row.turn  # reads its report, samples and all, only here
    sample = sample_of(turn.gate_report, number=_whole(request.GET.get("sample")), by=request.GET.get("by", "")[:40])
    return {
        "report_row": row,
        "lines": sorted_lines(row.gate_lines),
        "passed": bool(turn.gate_report.get("passed")),
        "prompts": turn.gate_report.get("counts", {}).get("prompts"),
        "probes": turn.gate_report.get("counts", {}).get("probes"),
        "rule_rows": turn.gate_report.get("rules"),
        "sample": sample,
        "sample_line": next((line for line in row.gate_lines if sample and line["key"] == sample.by), None),
        "form": DecisionForm(),
    }


def _whole(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 6 else 1


def _training(rows: list[RoundRow], named: RoundRow | None) -> dict[str, Any]:
    """What runs now, or how the opened round ran: progress, charts, best paid samples, the reward model's figures."""
    row = named or next((row for row in rows if row.is_active), None)
    row = row or next((row for row in rows if row.runs or row.turn.error), None)
    if row is None:
        return {"training": None}
    run = row.current_run if row.is_active else row.runs.get(TrainingRun.Kind.POLICY) or row.current_run
    drawn = run if run and run.kind != TrainingRun.Kind.GATE else row.runs.get(TrainingRun.Kind.POLICY)
    goes_on = "" if verbs.why_not_resumed(row.turn) else timelines.goes_on(row)
    return {
        "training": row, "run": run, "goes_on": goes_on, "reward": _reward_model(row), "rules": _rule_model(row),
        **about(run, row.algorithm), **_drawn(drawn),
    }  # fmt: skip


def about(run: TrainingRun | None, algorithm: str) -> dict[str, Any]:
    """How far a run is, in words. `algorithm` is what a policy's run is called."""
    if run is None:
        return {}
    left = timelines.seconds_left(run)
    return {
        "stage": capfirst({"policy": algorithm, "gate": "gate"}.get(run.kind, run.get_kind_display())),
        "left": f"about {timelines.duration(left)} left" if left is not None else "",
        "took": timelines.duration(timelines.run_seconds(run)),
        "heard_from": timelines.heard_from(run),
        "steps": timelines.steps_of(run),
    }


def _drawn(run: TrainingRun | None) -> dict[str, Any]:
    if run is None:
        return {}
    earlier = earlier_run(run)
    return {
        "drawn": run,
        "charts": run_charts.charts_of(run, earlier),
        "earlier": name_of(earlier) if earlier else "",
        "smaller": run_charts.smaller_figures(run),
        "best_paid": run_charts.best_paid(run) if run.kind == TrainingRun.Kind.POLICY else None,
    }


def _reward_model(row: RoundRow) -> dict[str, Any] | None:
    """What the reward model reports of itself, with its places on an axis from 50 %, chance, to 100 %."""
    run = row.runs.get(TrainingRun.Kind.REWARD_MODEL)
    version: ModelVersion | None = run.produced if run else None
    if version is None:
        return None
    found = version.figures
    if not found.get("pairs"):
        return {"run": run, "version": version, "figures": {}}
    low, high = found["interval"]
    places = {"low": low, "high": high, "at": found["pair_accuracy"], "bound": found.get("ceiling"),
              "before": found.get("length_baseline")}  # fmt: skip
    plot = {name: None if value is None else charts.on_axis(value, 0.5, 1) for name, value in places.items()}
    said = f"Right in {found['pair_accuracy']:.0%}, between {low:.0%} and {high:.0%} with 95 % certainty"
    return {"run": run, "version": version, "figures": found, "plot": plot | {"said": said}}


def _rule_model(row: RoundRow) -> dict[str, Any] | None:
    """What the round's rule model reports of itself; None where it made none."""
    run = row.runs.get(TrainingRun.Kind.RULE_MODEL)
    if run is None or run.produced is None:
        return None
    return {"run": run, "version": run.produced, "figures": run.produced.figures}


def _report_that_is_due(request: HttpRequest, rows: list[RoundRow], training: RoundRow | None) -> dict[str, Any]:
    """When the round that was watched has just ended, its report too; unless another one is being decided.

    `shown` is the round whose report the page shows: a reason half typed there must not be taken away.
    """
    if training is None or training.is_active:
        return {}
    shown = next((row for row in rows if str(row.turn.number) == request.GET.get("shown", "")), None)
    if shown is not None and shown.waits and shown.turn.pk != training.turn.pk:
        return {}
    return {**_report(request, training), "with_report": True}


@require_safe
def timeline(request: HttpRequest, slug: str) -> HttpResponse:
    """The newest rounds in short: a part of the overview. A browser that asks itself is shown the page."""
    project = managed_project(request, slug)
    if not getattr(request, "htmx", None):
        return HttpResponseRedirect(reverse("rewardtrain:rounds", args=[slug]))
    rows = timelines.rows_of(project, most=5)
    context = {"project": project, "rows": rows, **_head(project, rows)}
    return render(request, "rewardtrain/_timeline.html", context)


@require_POST
def start(request: HttpRequest, slug: str) -> HttpResponse:
    """Start a turn of the circle with what is ranked now."""
    project = managed_project(request, slug)
    try:
        turn = verbs.start_round(project=project, by=person(request))
    except FeedbackError as err:
        return show_rounds(request, project, status=err.status, refused=err.message)
    messages.success(request, f"Round {turn.number} has begun. It goes on by itself; you may leave this page.")
    return HttpResponseRedirect(reverse("rewardtrain:rounds", args=[slug]))


@require_POST
def stop(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Stop a round that runs; what serves stays."""
    project = managed_project(request, slug)
    turn = get_object_or_404(Round, project=project, number=number)
    form = ReasonForm(request.POST)
    if not form.is_valid():
        return show_rounds(request, project, status=422, stop_form=form)
    try:
        verbs.stop_round(turn=turn, by=person(request), reason=form.cleaned_data["reason"])
    except FeedbackError as err:
        return show_rounds(request, project, status=err.status, refused=err.message)
    messages.success(request, f"Round {number} was stopped. What serves has not changed.")
    return HttpResponseRedirect(reverse("rewardtrain:rounds", args=[slug]))


@require_POST
def resume(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Let a round that failed or was stopped go on where it was."""
    project = managed_project(request, slug)
    turn = get_object_or_404(Round.objects.select_related("project", "snapshot"), project=project, number=number)
    try:
        verbs.resume_round(turn=turn, by=person(request))
    except FeedbackError as err:
        return show_rounds(request, project, number, status=err.status, refused=err.message)
    messages.success(request, f"Round {number} goes on. You may leave this page.")
    return HttpResponseRedirect(reverse("rewardtrain:rounds", args=[slug]))


@require_POST
def decide(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Promote the policy of a round that waits, or refuse it."""
    project = managed_project(request, slug)
    turn = get_object_or_404(Round.objects.select_related("policy_after"), project=project, number=number)
    form = DecisionForm(request.POST)
    if form.is_valid():
        try:
            return _decided(request, project, turn, **form.cleaned_data)
        except ReasonNeeded as err:
            form.add_error("reason", err.message)
        except FeedbackError as err:
            return show_rounds(request, project, number, status=err.status, refused=err.message, form=form)
    return show_rounds(request, project, number, status=422, form=form)


def _decided(request: HttpRequest, project: Project, turn: Round, decision: str, reason: str) -> HttpResponse:
    if decision == "refuse":
        promotions.refuse(round=turn, by=person(request), reason=reason)
        messages.success(request, f"Round {turn.number} was refused. {capfirst(str(project.policy))} goes on serving.")
    else:
        if turn.policy_after is None:
            raise Http404
        promotions.promote(project=project, to_version=turn.policy_after, round=turn, by=person(request), reason=reason)
        messages.success(request, f"{capfirst(str(turn.policy_after))} serves from the next message on.")
    return HttpResponseRedirect(reverse("rewardtrain:rounds", args=[project.slug]))


@require_http_methods(["GET", "POST"])
def roll_back(request: HttpRequest, slug: str) -> HttpResponse:
    """Ask once, with a reason, before the policy before serves again. What is done is what was asked, or nothing."""
    project = managed_project(request, slug)
    form = RollBackForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            promotion = promotions.roll_back(
                project=project, by=person(request), reason=form.cleaned_data["reason"], asked=form.asked
            )
        except FeedbackError as err:
            return _ask(request, project, form, refused=err.message, status=err.status)
        messages.success(request, f"{capfirst(str(promotion.to_version))} serves again, from the next message on.")
        return HttpResponseRedirect(reverse("rewardtrain:rounds", args=[slug]))
    return _ask(request, project, form, status=422 if form.errors else 200)


def _ask(request: HttpRequest, project: Project, form: RollBackForm, *, status: int, refused: str = "") -> HttpResponse:
    """The question, about the policies as they are now."""
    project.refresh_from_db(fields=["policy"])
    previous = promotions.previous_policy(project)
    context = {"project": project, "previous": previous, "form": form, "refused": refused}
    return render(request, "rewardtrain/roll_back.html", context, status=status)
