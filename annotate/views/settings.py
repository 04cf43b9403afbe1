"""How a person wants their pages: light or dark, one-letter keys or not."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from annotate.access import current_project, person, surroundings
from annotate.forms import SettingsForm


@require_http_methods(["GET", "HEAD", "POST"])
def settings(request: HttpRequest) -> HttpResponse:
    """The page; and where the menu under a person's name sends a change that acts at once, without a word."""
    form = SettingsForm(request.POST or None, instance=person(request))
    if request.method == "POST" and form.is_valid():
        form.save()
        if "from_page" in request.POST:
            messages.success(request, "Your settings are kept.")
        return redirect("annotate:settings")
    context = {**surroundings(request, current_project(request)), "form": form}
    return render(request, "annotate/settings.html", context, status=422 if form.errors else 200)
