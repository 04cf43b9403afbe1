"""Demonstrations in a manager's hands: switched on and off."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from feedback import demonstrations_wanted
from feedback.pages.access import managed_project, person

OPENED = "Demonstrations are open. Prompts wait for annotators on their home page."
CLOSED = "Demonstrations are closed. What somebody holds they can still send."


@require_POST
def open_or_close(request: HttpRequest, slug: str) -> HttpResponse:
    """`open` is 1 or nothing."""
    project = managed_project(request, slug)
    is_open = request.POST.get("open") == "1"
    demonstrations_wanted.open_or_close(project=project, is_open=is_open, by=person(request))
    messages.success(request, OPENED if is_open else CLOSED)
    return HttpResponseRedirect(reverse("feedback:overview", args=[slug]) + "#demonstrations")
