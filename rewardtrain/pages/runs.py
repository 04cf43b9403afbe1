"""One training run: every figure of its steps with the run before behind it, and the same as numbers."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.http import require_safe

from feedback.models import Project
from feedback.pages.access import managed_project
from feedback.pages.parts import render_page_or_part
from rewardtrain import run_charts
from rewardtrain.algorithms import title_of
from rewardtrain.models import TrainingRun
from rewardtrain.pages.rounds import about
from rewardtrain.run_figures import earlier_run, name_of

PARTS = {"run-charts": "rewardtrain/_run_charts.html"}


@require_safe
def run_page(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """A run's charts and table; for htmx the charts alone, while it runs."""
    project = managed_project(request, slug)
    run = get_object_or_404(_runs(project), pk=pk)
    earlier = earlier_run(run)
    context = {
        "project": project,
        "run": run,
        "name": name_of(run),
        "earlier": earlier,
        "earlier_name": name_of(earlier) if earlier else "",
        "charts": run_charts.charts_of(run, earlier, all_of_them=True),
        **about(run, title_of(run.hyperparameters.get("algorithm"))),
        **_addresses(run),
    }
    if not getattr(request, "htmx", None):
        context["table"] = run_charts.table_of(run)
        context["best_paid"] = run_charts.best_paid(run) if run.kind == TrainingRun.Kind.POLICY else None
    return render_page_or_part(request, "rewardtrain/run.html", PARTS, context)


def _runs(project: Project) -> Any:
    """What has figures of steps: measurements have reports instead."""
    found = TrainingRun.objects.filter(project=project).exclude(kind__in=TrainingRun.MEASURING)
    return found.select_related("project", "round", "parent", "produced")


def _addresses(run: TrainingRun) -> dict[str, str]:
    """Where the page leads: to the run's round, or to all rounds; and to its ledger."""
    slug = run.project.slug
    if run.round is None:
        return {
            "back": reverse("rewardtrain:rounds", args=[slug]),
            "ledger": reverse("rewardtrain:run_ledger", args=[slug, run.pk]),
        }
    number = run.round.number
    return {
        "back": reverse("rewardtrain:round", args=[slug, number]),
        "ledger": reverse("rewardtrain:ledger", args=[slug, number]),
    }
