"""Demonstrations and what others say of them can be added, never changed."""

from typing import Any

from django.db import migrations

from feedback import append_only

TABLES = ["feedback_demonstration", "feedback_demonstrationreview"]


def install(apps: Any, schema_editor: Any) -> None:
    append_only.install(schema_editor.connection, TABLES)


def remove(apps: Any, schema_editor: Any) -> None:
    append_only.remove(schema_editor.connection, TABLES)


class Migration(migrations.Migration):
    dependencies = [("feedback", "0012_demonstrations")]
    operations = [migrations.RunPython(install, remove)]
