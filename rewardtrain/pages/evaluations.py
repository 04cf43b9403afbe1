"""A manager's evaluations: policies beside each other, what people say blindly, and reranking while serving."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db.models.fields.json import KeyTransform
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from feedback import audit, blind_sets
from feedback.errors import FeedbackError
from feedback.models import GenerationRequest, Project
from feedback.pages.access import managed_project, person
from feedback.pages.parts import render_page_or_part
from rewardtrain import evaluation_tables as tables
from rewardtrain import evaluations as verbs
from rewardtrain.forms import BlindSetForm, EvaluationForm, RerankingForm
from rewardtrain.models import TrainingRun
from rewardtrain.pages.rounds import about
from rewardtrain.reply_chooser import judges_of

SHOWN = 20
PARTS = {"evaluation-live": "rewardtrain/_evaluation_live.html"}
RECENT = 100  # requests looked at for why replies came unreranked


@require_safe
def evaluations_page(request: HttpRequest, slug: str) -> HttpResponse:
    """All evaluations, everybody's rating by people, and from how many draws replies are chosen."""
    return show_all(request, managed_project(request, slug))


def show_all(request: HttpRequest, project: Project, *, status: int = 200, **more: Any) -> HttpResponse:
    """The page; `more` are forms that were refused."""
    newest = verbs.evaluations_of(project).defer("result").annotate(counts=KeyTransform("counts", "result"))
    runs = list(newest[:SHOWN])
    policies = verbs.default_policies(project)
    judges = judges_of(project)
    usual = {"policies": policies, "draws": verbs.SPARROWS_DRAWS if judges else 1, "prompts": verbs.OPENINGS}
    context = {
        "project": project,
        "runs": [(run, _answers_in(project, run)) for run in runs],
        "ratings": tables.ratings_of(project),
        "can_start": bool(policies),
        "missing": judges.missing,
        "judges": judges,
        "unreranked": _unreranked(project),
        "start_form": EvaluationForm(project=project, initial=usual | {"probes": verbs.OPENINGS}),
        "reranking_form": RerankingForm(project=project),
    }
    return render_page_or_part(request, "rewardtrain/evaluations.html", {}, context | more, status=status)


def _answers_in(project: Project, run: TrainingRun) -> blind_sets.BlindAnswers | None:
    return blind_sets.answers_of(project, verbs.name_of(run)) if run.state == "done" else None


def _unreranked(project: Project) -> dict[str, Any] | None:
    """How many of the newest requests that wanted a choice got none, and why the last did not."""
    wanted = GenerationRequest.objects.filter(dialogue__project=project, draws__gt=1, state="done").order_by("-pk")
    reasons = list(wanted.values_list("unreranked_because", flat=True)[:RECENT])
    without = [reason for reason in reasons if reason]
    return {"count": len(without), "of": len(reasons), "because": without[0]} if without else None


@require_safe
def evaluation_page(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """One evaluation: its table, its rules, and what people said; for htmx how far it is, while it runs."""
    project = managed_project(request, slug)
    return show_one(request, project, _run(project, pk))


def _run(project: Project, pk: int) -> TrainingRun:
    return get_object_or_404(verbs.evaluations_of(project).select_related("project"), pk=pk)


def show_one(
    request: HttpRequest, project: Project, run: TrainingRun, *, status: int = 200, **more: Any
) -> HttpResponse:
    """The page; `more` is a form that was refused."""
    answers = blind_sets.answers_of(project, verbs.name_of(run))
    duels = answers.duels()
    names = tables.all_names(run, duels, answers.broken)
    counts = run.result.get("counts", {})
    can_compare = len(verbs.contestants_in(run)) > 1 and bool(counts.get("everyday"))
    asked = {"comparisons": min(30, counts.get("everyday", 0)) if can_compare else 0, "answers": 1}
    context = {
        "project": project,
        "run": run,
        "sentence": tables.sentence(run),
        "lines": tables.lines_of(run.result),
        "has_second": run.hyperparameters.get("second") is not None,
        "rules": tables.rule_lines(project, run),
        "counts": counts,
        "answers": answers,
        "duels": tables.duel_lines(duels, names),
        "judged": tables.judged_lines(answers, names),
        "blind_form": BlindSetForm(initial=asked | {"probes": min(10, counts.get("probe", 0))}),
        **about(run, ""),
    }
    return render_page_or_part(request, "rewardtrain/evaluation.html", PARTS, context | more, status=status)


@require_POST
def start(request: HttpRequest, slug: str) -> HttpResponse:
    """Queue an evaluation of the policies chosen."""
    project = managed_project(request, slug)
    form = EvaluationForm(request.POST, project=project)
    if not form.is_valid():
        return show_all(request, project, status=422, start_form=form)
    chosen = form.cleaned_data
    try:
        run = verbs.queue_evaluation(project=project, **chosen | {"policies": list(chosen["policies"])})
    except FeedbackError as err:
        return show_all(request, project, status=err.status, refused=err.message, start_form=form)
    audit.record("evaluation.started", project=project, actor=person(request), target=run)
    messages.success(request, "The evaluation waits for the training worker. You may leave this page.")
    return HttpResponseRedirect(reverse("rewardtrain:evaluation", args=[slug, run.pk]))


@require_POST
def ask(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Put a blind set of an evaluation into the annotators' queue."""
    project = managed_project(request, slug)
    run = _run(project, pk)
    form = BlindSetForm(request.POST)
    if not form.is_valid():
        return show_one(request, project, run, status=422, blind_form=form)
    try:
        asked = verbs.ask_people(run, **form.cleaned_data, by=person(request))
    except FeedbackError as err:
        return show_one(request, project, run, status=err.status, refused=err.message, blind_form=form)
    messages.success(
        request, f"People are asked to compare {asked.comparisons} times and to judge {asked.judgements} replies."
    )
    return HttpResponseRedirect(reverse("rewardtrain:evaluation", args=[slug, pk]) + "#people")


@require_POST
def close(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Ask nobody any more about an evaluation; what was answered stays."""
    project = managed_project(request, slug)
    run = _run(project, pk)
    closed = blind_sets.close(project, verbs.name_of(run), because="the manager closed the blind set")
    audit.record("evaluation.blind_set_closed", project=project, actor=person(request), target=run, closed=closed)
    messages.success(request, f"{closed} open question{'' if closed == 1 else 's'} closed. Every answer is kept.")
    return HttpResponseRedirect(reverse("rewardtrain:evaluation", args=[slug, pk]) + "#people")


@require_POST
def reranking(request: HttpRequest, slug: str) -> HttpResponse:
    """Say from how many draws each reply shown is chosen from now on."""
    project = managed_project(request, slug)
    form = RerankingForm(request.POST, project=project)
    if not form.is_valid():
        return show_all(request, project, status=422, reranking_form=form)
    Project.objects.filter(pk=project.pk).update(draws_per_reply=form.cleaned_data["draws_per_reply"])
    audit.record("project.changed", project=project, actor=person(request), target=project, fields=form.changed_data)
    messages.success(request, "It counts for replies that are asked for from now on.")
    return HttpResponseRedirect(reverse("rewardtrain:evaluations", args=[slug]))
