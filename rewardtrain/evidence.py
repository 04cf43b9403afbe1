"""Replies that search first: the words a policy would look for, what is found, and both as turns before its answer.

No torch here. Sparrow shows two of four replies so (arXiv:2209.14375, section 2.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from feedback.models import Project, Turn
from feedback.search import CorpusSearch, Search, Snippet
from rewardtrain.search_service import ServiceSearch
from rewardtrain.seeds import stable_seed

SNIPPETS = 2  # that a reply is shown, and shows
QUERY_TOKENS = 32
LONGEST_QUERY = 200  # characters
NOTHING_FOUND = "Nothing was found."


@dataclass(frozen=True)
class Evidence:
    """What a reply looked for and found. Without words to look for it did not search."""

    query: str = ""
    snippets: tuple[Snippet, ...] = ()

    def turns(self) -> list[dict[str, str]]:
        """The search as the policy reads it before it answers; none where it did not search."""
        if not self.query:
            return []
        found = "\n\n".join(f"{one.title} ({one.source})\n{one.text}" for one in self.snippets)
        return [
            {"role": str(Turn.Role.SEARCH_QUERY), "content": self.query},
            {"role": str(Turn.Role.SEARCH_RESULTS), "content": found or NOTHING_FOUND},
        ]

    def as_json(self) -> dict[str, Any]:
        """The same as a candidate keeps it; empty where it did not search."""
        snippets = [
            {"title": one.title, "source": one.source, "text": one.text, "passage": one.passage_id}
            for one in self.snippets
        ]
        return {"query": self.query, "snippets": snippets} if self.query else {}


def search_of(project: Project) -> Search | None:
    """Where a project's replies look for evidence; None where they do not."""
    if project.evidence == Project.Evidence.SERVICE:
        return ServiceSearch()
    return CorpusSearch(project) if project.evidence == Project.Evidence.CORPUS else None


def gather(search: Search, said: str) -> Evidence:
    """What is found by the words a policy wrote: its first line that says something.

    Raises  GenerationFailed when the search itself fails
    """
    lines = (" ".join(line.split()) for line in said.splitlines())
    query = next((line for line in lines if line), "")[:LONGEST_QUERY].strip()
    return Evidence(query, tuple(search.find(query, SNIPPETS))) if query else Evidence()


def query_seed(reply_seed: int) -> int:
    """The seed of the words that the reply of this seed looks for."""
    return stable_seed("search query", reply_seed)


def query_sampling(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """How a query is drawn: as replies are, but short."""
    return {**sampling, "max_new_tokens": min(QUERY_TOKENS, int(sampling.get("max_new_tokens", QUERY_TOKENS)))}
