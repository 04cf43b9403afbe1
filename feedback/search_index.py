"""The full-text index over passages: FTS5 on SQLite, a column of words on PostgreSQL. The database keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

TABLE, INDEX = "feedback_passage", "feedback_passage_words"
COLUMN = "words"  # of the passages on PostgreSQL, which writes it itself
_WORDS = "setweight(to_tsvector('english', heading), 'A') || setweight(to_tsvector('english', text), 'B')"

_OLD = f"INSERT INTO {INDEX} ({INDEX}, rowid, heading, text) VALUES ('delete', OLD.id, OLD.heading, OLD.text)"
_NEW = f"INSERT INTO {INDEX} (rowid, heading, text) VALUES (NEW.id, NEW.heading, NEW.text)"
_DEEDS = {"insert": f"{_NEW};", "delete": f"{_OLD};", "update": f"{_OLD}; {_NEW};"}


def install(connection: Any) -> None:
    """Make the index, of what is there already too; does nothing where it stands."""
    _run(connection, _installing(connection.vendor))


def remove(connection: Any) -> None:
    """Drop the index."""
    _run(connection, _removing(connection.vendor))


def _run(connection: Any, statements: Iterator[str]) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def _installing(vendor: str) -> Iterator[str]:
    if vendor == "postgresql":
        yield f"ALTER TABLE {TABLE} ADD COLUMN IF NOT EXISTS {COLUMN} tsvector GENERATED ALWAYS AS ({_WORDS}) STORED"
        yield f"CREATE INDEX IF NOT EXISTS {INDEX} ON {TABLE} USING gin ({COLUMN})"
        return
    yield (
        f"CREATE VIRTUAL TABLE IF NOT EXISTS {INDEX} USING fts5(heading, text, content='{TABLE}', content_rowid='id', "
        "tokenize='porter unicode61 remove_diacritics 2')"
    )
    for event, deeds in _DEEDS.items():
        yield (f"CREATE TRIGGER IF NOT EXISTS {INDEX}_{event} AFTER {event.upper()} ON {TABLE} BEGIN {deeds} END")
    yield f"INSERT INTO {INDEX} ({INDEX}) VALUES ('rebuild')"


def _removing(vendor: str) -> Iterator[str]:
    if vendor == "postgresql":
        yield f"ALTER TABLE {TABLE} DROP COLUMN IF EXISTS {COLUMN}"
        return
    for event in _DEEDS:
        yield f"DROP TRIGGER IF EXISTS {INDEX}_{event}"
    yield f"DROP TABLE IF EXISTS {INDEX}"
