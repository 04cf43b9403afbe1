"""Rows as a database takes them, made while nobody waits, so that writing them is short."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from django.db import connection
from django.db.models import Field, JSONField, Model

Row = Sequence[Any]


class Table:
    """The columns of a model in the order they are written: first those known late, then those known early.

    late  fields whose values are known only while writing: the rows others point to, and the time
    """

    def __init__(self, model: type[Model], *late: str) -> None:
        self.model = model
        fields = {field.name: field for field in model._meta.concrete_fields if not field.primary_key}
        self.early = [field for name, field in fields.items() if name not in late]
        self.columns = [str(field.column) for field in (*(fields[name] for name in late), *self.early)]

    def early_values(self, **values: Any) -> list[Any]:
        """What of a new row is known early, with the model's defaults, as text, numbers, truth values and None."""
        row = self.model(**values)
        return [_as_stored(field, getattr(row, field.attname)) for field in self.early]

    def place_of(self, name: str) -> int:
        """Where the value of a field stands in what `early_values` gave."""
        return [field.name for field in self.early].index(name)

    def insert(self, rows: Iterable[Row], *, ignore_conflicts: bool = False) -> list[int]:
        """Store rows and return their ids in the same order; with `ignore_conflicts`, of those that were new."""
        waiting = iter(rows)
        ids: list[int] = []
        with connection.cursor() as cursor:
            while some := list(islice(waiting, self._most_at_once)):
                cursor.execute(self._statement(len(some), ignore_conflicts), list(_flat(some)))
                ids += [pk for (pk,) in cursor.fetchall()]
        return ids

    @property
    def _most_at_once(self) -> int:
        return (connection.features.max_query_params or 10_000) // len(self.columns)

    def _statement(self, count: int, ignore_conflicts: bool) -> str:
        quote = connection.ops.quote_name
        row = f"({', '.join(['%s'] * len(self.columns))})"
        return (
            f"INSERT INTO {quote(self.model._meta.db_table)} ({', '.join(map(quote, self.columns))}) "
            f"VALUES {', '.join([row] * count)} "
            f"{'ON CONFLICT DO NOTHING ' if ignore_conflicts else ''}RETURNING {quote(str(self.model._meta.pk.column))}"
        )


def _as_stored(field: Field[Any, Any], value: Any) -> Any:
    """A value that both databases take for this column, and that JSON can carry."""
    return json.dumps(value) if isinstance(field, JSONField) else field.get_db_prep_save(value, connection)


def _flat(rows: Iterable[Row]) -> Iterator[Any]:
    for row in rows:
        yield from row
