"""How a view answers: the page or its part, to another page, and what to say there."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.utils.cache import patch_vary_headers
from django_htmx.http import HttpResponseClientRedirect

Given = ParamSpec("Given")
View = Callable[Concatenate[HttpRequest, Given], HttpResponse]


def is_from_htmx(request: HttpRequest) -> bool:
    return bool(getattr(request, "htmx", False))


def render_page_or_part(
    request: HttpRequest, page: str, part: str, context: dict[str, Any], *, status: int = 200
) -> HttpResponse:
    """The part where htmx asks for one, the page around it otherwise: one URL, one context."""
    wants_part = is_from_htmx(request) and not request.htmx.boosted  # type: ignore[attr-defined]
    response = render(request, part if wants_part else page, context, status=status)
    patch_vary_headers(response, ["HX-Request"])
    return response


def go_to(request: HttpRequest, url: str, *, saying: str = "") -> HttpResponse:
    """Send the browser to another page, whether it asked itself or through htmx.

    saying  what the status line says there
    """
    if saying:
        messages.success(request, saying, extra_tags="status")
    return HttpResponseClientRedirect(url) if is_from_htmx(request) else HttpResponseRedirect(url)


def posted(view: View[Given]) -> View[Given]:
    """Take only a POST. Who comes back to the address by GET, as after signing in again, is led to its page."""

    @wraps(view)
    def only_posted(request: HttpRequest, /, *args: Given.args, **kwargs: Given.kwargs) -> HttpResponse:
        if request.method in {"GET", "HEAD"}:
            return redirect("annotate:work", kwargs["pk"]) if "pk" in kwargs else redirect("annotate:home")
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        return view(request, *args, **kwargs)

    return only_posted
