"""A published rule is frozen and a rule set only goes from draft to published to retired: triggers hold it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MESSAGE = "is frozen: change a draft"
RULE, RULE_SET = "feedback_rule", "feedback_ruleset"

# What a published rule set may still become: retired, in every other field the same.
_RETIRES = (
    "OLD.state = 'published' AND NEW.state = 'retired' AND NEW.number = OLD.number "
    "AND NEW.project_id = OLD.project_id AND NEW.published_at = OLD.published_at AND NEW.note = OLD.note"
)
_OF_DRAFT = "(SELECT state FROM feedback_ruleset WHERE id = {row}.rule_set_id) = 'draft'"
# (table, event): what must hold
_HOLDS = {
    (RULE, "insert"): _OF_DRAFT.format(row="NEW"),
    (RULE, "update"): f"{_OF_DRAFT.format(row='OLD')} AND {_OF_DRAFT.format(row='NEW')}",
    (RULE, "delete"): _OF_DRAFT.format(row="OLD"),
    (RULE_SET, "insert"): "NEW.state = 'draft'",
    (RULE_SET, "update"): f"(OLD.state = 'draft' AND NEW.state IN ('draft', 'published')) OR ({_RETIRES})",
    (RULE_SET, "delete"): "OLD.state = 'draft'",
}
TABLES = [RULE, RULE_SET]


def install(connection: Any) -> None:
    """Put the triggers on, on SQLite or PostgreSQL; does nothing where they stand already."""
    with connection.cursor() as cursor:
        for statement in _statements(connection.vendor):
            cursor.execute(statement)


def remove(connection: Any) -> None:
    """Take the triggers off."""
    with connection.cursor() as cursor:
        for table, event in _HOLDS:
            on = f' ON "{table}"' if connection.vendor == "postgresql" else ""
            cursor.execute(f'DROP TRIGGER IF EXISTS "{table}_frozen_{event}"{on}')
        if connection.vendor == "postgresql":
            for table in TABLES:
                cursor.execute(f'DROP TRIGGER IF EXISTS "{table}_frozen_truncate" ON "{table}"')


def _statements(vendor: str) -> Iterator[str]:
    if vendor == "postgresql":
        yield from _truncate_statements()
    for (table, event), holds in _HOLDS.items():
        name = f"{table}_frozen_{event}"
        if vendor == "postgresql":
            given = "OLD" if event == "delete" else "NEW"
            yield (
                f"CREATE OR REPLACE FUNCTION nestbox_{name}() RETURNS trigger AS $$ BEGIN "
                f"IF NOT COALESCE({holds}, FALSE) THEN RAISE EXCEPTION '{table} {MESSAGE}' "
                f"USING ERRCODE = 'integrity_constraint_violation'; END IF; RETURN {given}; END; $$ LANGUAGE plpgsql"
            )
            yield f'DROP TRIGGER IF EXISTS "{name}" ON "{table}"'
            yield (
                f'CREATE TRIGGER "{name}" BEFORE {event.upper()} ON "{table}" '
                f"FOR EACH ROW EXECUTE FUNCTION nestbox_{name}()"
            )
        else:
            yield (
                f'CREATE TRIGGER IF NOT EXISTS "{name}" BEFORE {event.upper()} ON "{table}" '
                f"WHEN NOT COALESCE(({holds}), 0) BEGIN SELECT RAISE(ABORT, '{table} {MESSAGE}'); END"
            )


def _truncate_statements() -> Iterator[str]:
    yield (
        "CREATE OR REPLACE FUNCTION nestbox_refuse_truncate() RETURNS trigger AS $$ BEGIN "
        f"RAISE EXCEPTION '% {MESSAGE}', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation'; "
        "END; $$ LANGUAGE plpgsql"
    )
    for table in TABLES:
        yield f'DROP TRIGGER IF EXISTS "{table}_frozen_truncate" ON "{table}"'
        yield (
            f'CREATE TRIGGER "{table}_frozen_truncate" BEFORE TRUNCATE ON "{table}" '
            "FOR EACH STATEMENT EXECUTE FUNCTION nestbox_refuse_truncate()"
        )
