"""Evidence from a search service of the operator's choice, instead of the project's corpus.

It is asked by POST {"query": "…", "limit": 2}, with its key as a bearer's where there is one, and answers
{"results": [{"title": "…", "source": "…", "text": "…"}]}, best first. Nothing it sends is trusted.
"""

from __future__ import annotations

import json
import os
from typing import Any

from django.conf import settings

from feedback.errors import GenerationFailed
from feedback.models.corpus import LONGEST_SOURCE, LONGEST_TITLE
from feedback.passages import passages_of
from feedback.search import Snippet
from rewardtrain.backends.calls import Server, post
from rewardtrain.backends.outbound import search_service

KEY_VARIABLE = "NESTBOX_SEARCH_API_KEY"


class ServiceSearch:
    """The search of `feedback.search.Search` by a service."""

    def find(self, query: str, limit: int) -> list[Snippet]:
        """At most `limit` of what the service found, each text cut to its first passage.

        Raises  GenerationFailed when none is set, it cannot be reached, or its answer is of another form
        """
        if not settings.SEARCH_URL:
            raise GenerationFailed(
                "This installation has no search service. An operator sets NESTBOX_SEARCH_URL, or a manager lets "
                "replies search the corpus.",
                permanent=True,
            )
        server = Server("search service", "NESTBOX_SEARCH_URL", settings.SEARCH_SECONDS)
        content = post(server, search_service(), {"query": query, "limit": limit}, _key())
        return [snippet for one in _results(content)[:limit] if (snippet := _snippet(one)) is not None]


def _key() -> str:
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if key and not (key.isascii() and key.isprintable()):
        raise GenerationFailed(f"{KEY_VARIABLE} holds something that is no key.", permanent=True)
    return key


def _results(content: bytes) -> list[Any]:
    try:
        found = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as err:
        raise GenerationFailed("The search service's answer is no JSON.") from err
    results = found.get("results") if isinstance(found, dict) else None
    if not isinstance(results, list):
        raise GenerationFailed("The search service's answer holds no list of results.")
    return results


def _snippet(result: Any) -> Snippet | None:
    """What a person can be shown of a result; None where it has no text."""
    if not isinstance(result, dict):
        raise GenerationFailed("The search service's answer holds something that is no result.")
    title, source, text = (_plain(result.get(name)) for name in ("title", "source", "text"))
    passages = passages_of("", text)
    if not passages:
        return None
    source = " ".join(source.split())[:LONGEST_SOURCE]
    return Snippet(" ".join(title.split())[:LONGEST_TITLE] or source or "Untitled", source, passages[0].text)


def _plain(value: Any) -> str:
    """Text that both databases can keep; empty where there is none."""
    return value.replace("\x00", "").encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else ""
