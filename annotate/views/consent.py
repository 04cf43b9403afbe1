"""What may appear, said before anything of it does; agreeing, and stopping at any time."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from annotate.access import person, project_or_404, surroundings
from annotate.parts import go_to
from annotate.views import work
from feedback import consents
from feedback.errors import FeedbackError
from feedback.models import Project

KINDS = {work.PROBE, work.JUDGE}


@require_http_methods(["GET", "HEAD", "POST"])
def consent(request: HttpRequest, slug: str) -> HttpResponse:
    """Every theme of the project, and what this person said to it; a POST says something else to one of them."""
    project = project_or_404(request, slug)
    error = None
    if request.method == "POST":
        try:
            return _decide(request, project)
        except FeedbackError as err:
            error = err
    context = {
        **surroundings(request, project),
        "themes": consents.themes(person(request), project),
        "kind": request.GET.get("kind") or request.POST.get("kind", ""),
        "promise": consents.PROMISE,
        "error": error,
    }
    return render(request, "annotate/consent.html", context, status=error.status if error else 200)


def _decide(request: HttpRequest, project: Project) -> HttpResponse:
    user, theme = person(request), request.POST.get("about", "")
    if request.POST.get("answer") != "agree":
        consents.take_back_consent(user=user, project=project, theme=theme)
        home = reverse("annotate:home") + f"?project={project.slug}"
        return go_to(request, home, saying="You get none of these. It costs you nothing.")
    consents.give_consent(user=user, project=project, theme=theme, wording=request.POST.get("wording", ""))
    kind = request.POST.get("kind", "")
    return work.take(request, project, kind if kind in KINDS else "")
