"""Rows that are evidence are never changed or deleted: triggers in the database refuse it, whoever asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from feedback import frozen_rules

MESSAGE = "is append-only"
EVENTS = {"sqlite": ("update", "delete"), "postgresql": ("update", "delete", "truncate")}  # what is refused, by vendor


def install(connection: Any, tables: list[str]) -> None:
    """Put the triggers on tables, on SQLite or PostgreSQL; does nothing where they stand already."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(_POSTGRES_FUNCTION)
        for table in tables:
            for statement in _statements(connection.vendor, table):
                cursor.execute(statement)


def remove(connection: Any, tables: list[str]) -> None:
    with connection.cursor() as cursor:
        for table in tables:
            on = f' ON "{table}"' if connection.vendor == "postgresql" else ""
            for event in EVENTS[connection.vendor]:
                cursor.execute(f'DROP TRIGGER IF EXISTS "{table}_no_{event}"{on}')


def guarded_tables() -> list[str]:
    """The tables whose rows may only be added."""
    from django.apps import apps

    labels = (
        "feedback.Ranking", "feedback.RankEntry", "feedback.RuleJudgement", "feedback.RuleScore", "feedback.Probe",
        "feedback.Consent", "feedback.Demonstration", "feedback.DemonstrationReview", "feedback.Rating",
        "feedback.AuditEntry", "rewardtrain.Promotion",
    )  # fmt: skip
    return [apps.get_model(label)._meta.db_table for label in labels]


@contextmanager
def suspended(connection: Any) -> Iterator[None]:
    """Lift the guards for a block, those of published rules too: for emptying a test database, and nothing else."""
    known = set(connection.introspection.table_names())
    tables = [table for table in guarded_tables() if table in known]
    has_rules = known.issuperset(frozen_rules.TABLES)
    remove(connection, tables)
    if has_rules:
        frozen_rules.remove(connection)
    try:
        yield
    finally:
        install(connection, tables)
        if has_rules:
            frozen_rules.install(connection)


def _statements(vendor: str, table: str) -> Iterator[str]:
    for event in EVENTS[vendor]:
        trigger = f'"{table}_no_{event}"'
        if vendor == "postgresql":
            yield f'DROP TRIGGER IF EXISTS {trigger} ON "{table}"'
            yield (
                f'CREATE TRIGGER {trigger} BEFORE {event.upper()} ON "{table}" '
                f"FOR EACH {'STATEMENT' if event == 'truncate' else 'ROW'} EXECUTE FUNCTION nestbox_refuse_change()"
            )
        else:
            yield (
                f'CREATE TRIGGER IF NOT EXISTS {trigger} BEFORE {event.upper()} ON "{table}" '
                f"BEGIN SELECT RAISE(ABORT, '{table} {MESSAGE}'); END"
            )


_POSTGRES_FUNCTION = f"""
CREATE OR REPLACE FUNCTION nestbox_refuse_change() RETURNS trigger AS $$
BEGIN
    RAISE EXCEPTION '% {MESSAGE}', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END;
$$ LANGUAGE plpgsql
"""
