"""Rankings and audit entries can be added, never changed or deleted."""

from django.db import migrations

from feedback import append_only

TABLES = ["feedback_ranking", "feedback_rankentry", "feedback_auditentry"]


def install(apps, schema_editor):
    append_only.install(schema_editor.connection, TABLES)


def remove(apps, schema_editor):
    append_only.remove(schema_editor.connection, TABLES)


class Migration(migrations.Migration):
    dependencies = [("feedback", "0001_initial")]
    operations = [migrations.RunPython(install, remove)]
