"""Home: what waits, what is half done, what was done."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from annotate import progress
from annotate.access import current_project, person, project_or_404, projects_of, surroundings
from annotate.parts import render_page_or_part
from feedback.models import Project, User

LAST_ANSWERS = 5


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """The next best thing on top, every kind of waiting work below, the day and the last answers beside."""
    user = person(request)
    mine = projects_of(user)
    project = current_project(request, mine)
    if project is None:
        return render(request, "annotate/no_project.html", {"managed": Project.objects.open().managed_by(user)})
    context = {**surroundings(request, project), "projects": mine, "none_left": "none" in request.GET}
    return render_page_or_part(
        request, "annotate/home.html", "annotate/_waiting.html", context | _work(user, project) | _done(user, project)
    )


def _work(user: User, project: Project) -> dict[str, Any]:
    waiting = progress.waiting_work(user, project)
    half_done = progress.in_hand(user, project)
    return {
        "waiting": waiting,
        "total": sum(kind.count for kind in waiting) + (half_done is not None),
        "half_done": half_done,
        "half_done_opening": progress.opening_of(half_done) if half_done else "",
        "minutes_left": progress.minutes_left(half_done) if half_done else 0,
        "managers": progress.managers_of(project),
    }


def _done(user: User, project: Project) -> dict[str, Any]:
    return {
        "today": progress.today_of(user, project),
        "week": progress.week_of(user, project),
        "answers": progress.own_answers(user, project, LAST_ANSWERS),
    }


@require_safe
def guidelines(request: HttpRequest, slug: str) -> HttpResponse:
    """How to judge here, in the manager's words."""
    project = project_or_404(request, slug)
    return render(request, "annotate/guidelines.html", surroundings(request, project))
