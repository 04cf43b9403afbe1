"""One URL, several answers: the whole page to a browser, to htmx the part it has room for, from the same context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import patch_vary_headers


def render_page_or_part(
    request: HttpRequest, page: str, parts: Mapping[str, str], context: dict[str, Any], *, status: int = 200
) -> HttpResponse:
    """The page, or where htmx asks the part of the element it will fill.

    parts  {id of an element: its template}; an element nobody knows gets the page
    """
    htmx = getattr(request, "htmx", None)
    template = parts.get(htmx.target or "", page) if htmx and not htmx.boosted else page
    response = render(request, template, context, status=status)
    patch_vary_headers(response, ["HX-Request", "HX-Target"])
    return response
