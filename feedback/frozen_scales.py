"""The words of a question stay as they are: a trigger lets nothing happen to a scale but that it is asked no more."""

from __future__ import annotations

from typing import Any

MESSAGE = "is frozen: make another version"
TABLE = "feedback_scale"
NAME = f"{TABLE}_frozen_update"
KEPT = (
    "id", "scale_set_id", "key", "version", "position", "name", "question", "guidance", "kind", "options", "steps",
    "low_words", "high_words", "asked_after", "asked_values", "implied", "positive", "positive_votes",
    "positive_raters", "asked_from",
)  # fmt: skip


def install(connection: Any) -> None:
    """Put the trigger on, on SQLite or PostgreSQL; does nothing where it stands already."""
    same = "IS NOT DISTINCT FROM" if connection.vendor == "postgresql" else "IS"
    ends = "OLD.asked_until IS NULL AND NEW.asked_until IS NOT NULL"
    holds = " AND ".join([ends, *(f'NEW."{column}" {same} OLD."{column}"' for column in KEPT)])
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                f"CREATE OR REPLACE FUNCTION nestbox_{NAME}() RETURNS trigger AS $$ BEGIN "
                f"IF NOT ({holds}) THEN RAISE EXCEPTION '{TABLE} {MESSAGE}' "
                f"USING ERRCODE = 'integrity_constraint_violation'; END IF; RETURN NEW; END; $$ LANGUAGE plpgsql"
            )
            cursor.execute(f'DROP TRIGGER IF EXISTS "{NAME}" ON "{TABLE}"')
            cursor.execute(
                f'CREATE TRIGGER "{NAME}" BEFORE UPDATE ON "{TABLE}" FOR EACH ROW EXECUTE FUNCTION nestbox_{NAME}()'
            )
        else:
            cursor.execute(
                f'CREATE TRIGGER IF NOT EXISTS "{NAME}" BEFORE UPDATE ON "{TABLE}" '
                f"WHEN NOT ({holds}) BEGIN SELECT RAISE(ABORT, '{TABLE} {MESSAGE}'); END"
            )


def remove(connection: Any) -> None:
    """Take the trigger off."""
    on = f' ON "{TABLE}"' if connection.vendor == "postgresql" else ""
    with connection.cursor() as cursor:
        cursor.execute(f'DROP TRIGGER IF EXISTS "{NAME}"{on}')
