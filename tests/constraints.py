"""A test per constraint: each named constraint has at least one deed that breaks it and that the database refuses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

import pytest
from django.apps import apps
from django.db import IntegrityError, connection, models, transaction

Deed = Callable[[], object]


class Deeds:
    """What must be refused, by the name of the constraint that refuses it; unique fields go by table and column."""

    def __init__(self, app_label: str) -> None:
        self.app_label = app_label
        self.by_name: dict[str, list[Deed]] = defaultdict(list)

    def breaks(self, name: str) -> Callable[[Deed], Deed]:
        """Note that a function does what the constraint `name` must refuse."""

        def note(deed: Deed) -> Deed:
            self.by_name[name].append(deed)
            return deed

        return note

    def cases(self) -> list[object]:
        """(name, deed) for `parametrize`."""
        return [
            pytest.param(name, deed, id=f"{name}-{deed.__name__}")
            for name, deeds in self.by_name.items()
            for deed in deeds
        ]

    def columns_by_name(self) -> dict[str, list[str]]:
        """{constraint: the columns it makes unique}; an empty list for a check."""
        return dict(_constraints_of(self.app_label))


def _constraints_of(app_label: str) -> Iterator[tuple[str, list[str]]]:
    for model in apps.get_app_config(app_label).get_models():
        for constraint in model._meta.constraints:
            fields = getattr(constraint, "fields", ())
            yield constraint.name, [_column(model, name) for name in fields]
        for field in model._meta.local_fields:
            if field.unique and not field.primary_key:
                yield _column(model, field.name), [_column(model, field.name)]


def _column(model: type[models.Model], field_name: str) -> str:
    return f"{model._meta.db_table}.{model._meta.get_field(field_name).column}"


def assert_refused(name: str, columns: list[str], deed: Deed) -> None:
    """The database refuses the deed, and by this very constraint."""
    with pytest.raises(IntegrityError) as refusal, transaction.atomic():
        deed()
    said = str(refusal.value)
    if not columns:
        assert name in said
    elif connection.vendor == "sqlite":
        assert sorted(said.removeprefix("UNIQUE constraint failed: ").split(", ")) == sorted(columns)
    else:
        assert "unique constraint" in said and name.rpartition(".")[2] in said
