"""A manager lets the policy learn what people wrote: a round whose policy comes from demonstrations."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from feedback.errors import FeedbackError
from feedback.models import Project
from feedback.pages.access import managed_project, person
from rewardtrain import demonstrations_to_learn, rounds
from rewardtrain.algorithms import SFT
from rewardtrain.pages.rounds import why_no_round

SETTINGS = {"policy": {"algorithm": SFT}}


@require_http_methods(["GET", "POST"])
def teach(request: HttpRequest, slug: str) -> HttpResponse:
    """Say what would be learned, and begin the round that learns it."""
    project = managed_project(request, slug)
    if request.method != "POST":
        return _ask(request, project)
    try:
        turn = rounds.start_round(project=project, by=person(request), hyperparameters=SETTINGS)
    except FeedbackError as err:
        return _ask(request, project, refused=err.message, status=err.status)
    messages.success(request, f"Round {turn.number} has begun. It goes on by itself; you may leave this page.")
    return HttpResponseRedirect(reverse("rewardtrain:rounds", args=[slug]))


def _ask(request: HttpRequest, project: Project, **about: Any) -> HttpResponse:
    """What there is now, and whether a round can begin with it."""
    status = about.pop("status", 200)
    found = demonstrations_to_learn.ready(project)
    context = {
        "project": project,
        "ready": found,
        "rankings": rounds.new_rankings(project, since=None),
        "problem": found.problem,
        "cannot_start": why_no_round(project, rounds.active_rounds().filter(project=project).first()),
        "next_number": rounds.next_number(project),
    }
    return render(request, "rewardtrain/teach.html", context | about, status=status)
