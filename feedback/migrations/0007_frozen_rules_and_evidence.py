"""Judgements, probes and consents can be added, never changed; a published rule stays as it is."""

from typing import Any

from django.db import migrations

from feedback import append_only, frozen_rules

TABLES = ["feedback_rulejudgement", "feedback_probe", "feedback_consent"]


def install(apps: Any, schema_editor: Any) -> None:
    append_only.install(schema_editor.connection, TABLES)
    frozen_rules.install(schema_editor.connection)


def remove(apps: Any, schema_editor: Any) -> None:
    frozen_rules.remove(schema_editor.connection)
    append_only.remove(schema_editor.connection, TABLES)


class Migration(migrations.Migration):
    dependencies = [("feedback", "0006_rules_and_judgements")]
    operations = [migrations.RunPython(install, remove)]
