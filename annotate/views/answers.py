"""A person's own answers, and another look at one of them."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from annotate.access import current_project, own_ranking_or_404, person, surroundings
from annotate.desk import frame, rank_context
from annotate.progress import own_answers
from feedback.models import WorkItem


@require_safe
def answers(request: HttpRequest) -> HttpResponse:
    """Their last hundred answers in the project they work in, newest first."""
    project = current_project(request)
    given = own_answers(person(request), project) if project is not None else []
    return render(request, "annotate/answers.html", {**surroundings(request, project), "answers": given})


@require_safe
def look_again(request: HttpRequest, pk: int) -> HttpResponse:
    """One answer as it was given. A rank-only answer may be corrected: the correction is a new revision."""
    ranking = own_ranking_or_404(request, pk)
    slot = ranking.slot
    assert slot is not None
    context = {
        **frame(slot),
        **rank_context(slot, ranking.comparison, ranking),
        "answered_at": ranking.created_at,
        "may_correct": slot.work_item.kind == WorkItem.Kind.RANK,
    }
    return render(request, "annotate/look_again.html", context)
