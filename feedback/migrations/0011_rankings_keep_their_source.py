from django.db import migrations, models

from feedback import append_only

TABLES = ["feedback_ranking"]


def install(apps, schema_editor):
    """On SQLite a table with a new column is a new table, without the triggers of the old one."""
    append_only.install(schema_editor.connection, TABLES)


class Migration(migrations.Migration):
    dependencies = [
        ("feedback", "0010_rule_scores"),
    ]

    operations = [
        migrations.AddField(
            model_name="ranking",
            name="source",
            field=models.JSONField(blank=True, default=dict, help_text="What an import says of it, kept as it was."),
        ),
        migrations.RunPython(install, migrations.RunPython.noop),
    ]
