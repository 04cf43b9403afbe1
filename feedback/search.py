"""Find passages of a project's corpus by words: by SQLite's FTS5, or PostgreSQL's full-text search.

One word is enough to be found; what has more of them, and rarer ones, comes first. Words are stemmed as in English.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from django.db import connection

from feedback.models import Passage, Project
from feedback.search_index import COLUMN, INDEX, TABLE

MOST_WORDS = 32  # of a query that are looked for
MOST_FOUND = 20


@dataclass(frozen=True)
class Snippet:
    """What a search found, as a person is shown it: at most 500 characters, what it is from and where that stands."""

    title: str
    source: str
    text: str
    passage_id: int | None = None  # of the project's own corpus


class Search(Protocol):
    """Something that can be searched."""

    def find(self, query: str, limit: int) -> list[Snippet]:
        """The best passages for a query, best first. None where nothing fits, or the query has no words."""


def words_of(query: str) -> list[str]:
    """The words of a query, each once, in their order.

    >>> words_of('How often -- "does" a Fern (or AND) need water?')
    ['how', 'often', 'does', 'a', 'fern', 'or', 'and', 'need', 'water']
    """
    folded = unicodedata.normalize("NFKC", query).casefold()
    return list(dict.fromkeys(re.findall(r"[^\W_]+", folded)))[:MOST_WORDS]


@dataclass(frozen=True)
class CorpusSearch:
    """The search in what a project took in itself."""

    project: Project

    def find(self, query: str, limit: int = 4) -> list[Snippet]:
        """At most `limit` snippets, and never more than 20."""
        words = words_of(query)
        if not words:
            return []
        look = _look_in_postgres if connection.vendor == "postgresql" else _look_in_sqlite
        ids = look(self.project.pk, words, min(limit, MOST_FOUND))
        found = Passage.objects.select_related("document").in_bulk(ids)
        return [_snippet(found[pk]) for pk in ids if pk in found]


def _snippet(passage: Passage) -> Snippet:
    return Snippet(passage.heading, passage.document.source, passage.text, passage.pk)


_FOUND = f"""
    FROM {TABLE} passage JOIN feedback_document document
    ON document.id = passage.document_id AND document.project_id = %s AND document.removed_at IS NULL
"""


def _look_in_sqlite(project_id: int, words: Sequence[str], limit: int) -> list[int]:
    """By BM25, a heading's words twice as heavy. In quotation marks a word is nothing but a word to FTS5."""
    either = " OR ".join(f'"{word}"' for word in words)
    return _first_column(
        f"SELECT passage.id {_FOUND} JOIN {INDEX} ON {INDEX}.rowid = passage.id "
        f"WHERE {INDEX} MATCH %s ORDER BY bm25({INDEX}, 2.0, 1.0), passage.id LIMIT %s",
        [project_id, either, limit],
    )


def _look_in_postgres(project_id: int, words: Sequence[str], limit: int) -> list[int]:
    """By how rare the words are that a passage has; among equals by how often and how near each other they stand."""
    weights = _weights_in_postgres(project_id, words)
    if not weights:
        return []
    either = " || ".join([_WORD] * len(weights))
    weight = " + ".join([f"CASE WHEN {COLUMN} @@ {_WORD} THEN %s::float ELSE 0 END"] * len(weights))
    return _first_column(
        f"SELECT passage.id {_FOUND} WHERE {COLUMN} @@ ({either}) "
        f"ORDER BY ({weight}) DESC, ts_rank_cd({COLUMN}, ({either})) DESC, passage.id LIMIT %s",
        [project_id, *weights, *(part for pair in weights.items() for part in pair), *weights, limit],
    )


_WORD = "plainto_tsquery('english', %s)"


def _weights_in_postgres(project_id: int, words: Sequence[str]) -> Mapping[str, float]:
    """How much each word tells, as in BM25: log(1 + (N - n + 0.5) / (n + 0.5)), n of N passages having it.

    Words that no passage has are left out, and with them those that the language counts as none.
    """
    having = ", ".join([f"(SELECT count(*) {_FOUND} WHERE {COLUMN} @@ {_WORD})"] * len(words))
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT (SELECT count(*) {_FOUND}), {having}",
            [project_id, *(part for word in words for part in (project_id, word))],
        )
        total, *counts = cursor.fetchone()
    return {
        word: math.log(1 + (total - count + 0.5) / (count + 0.5))
        for word, count in zip(words, counts, strict=True)
        if count
    }


def _first_column(statement: str, values: Sequence[str | int | float]) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return [pk for (pk,) in cursor.fetchall()]
