"""A project's own corpus: documents, their passages, and the index that finds them."""

from typing import Any

import django.db.models.deletion
import django.db.models.functions.text
import django.db.models.lookups
import django.utils.timezone
from django.db import migrations, models

from feedback import search_index


def install_index(apps: Any, schema_editor: Any) -> None:
    search_index.install(schema_editor.connection)


def remove_index(apps: Any, schema_editor: Any) -> None:
    search_index.remove(schema_editor.connection)


class Migration(migrations.Migration):
    dependencies = [
        ("feedback", "0014_snapshots_of_demonstrations"),
    ]

    operations = [
        migrations.CreateModel(
            name="Document",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("title", models.CharField(max_length=300)),
                (
                    "source",
                    models.CharField(help_text="Where it stands: an address, or a file's name.", max_length=500),
                ),
                ("content_hash", models.CharField(help_text="Of title, source and text, exactly.", max_length=64)),
                ("removed_at", models.DateTimeField(blank=True, help_text="Since when no search finds it.", null=True)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="documents", to="feedback.project"
                    ),
                ),
                (
                    "source_import",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="documents", to="feedback.import"
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Passage",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.PositiveIntegerField(help_text="Its place in the document; 0 is the first.")),
                ("heading", models.CharField(help_text="The document's title, and the section's.", max_length=300)),
                ("text", models.TextField()),
                (
                    "document",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="passages", to="feedback.document"
                    ),
                ),
            ],
            options={
                "ordering": ["number"],
            },
        ),
        migrations.AddConstraint(
            model_name="document",
            constraint=models.UniqueConstraint(fields=("project", "content_hash"), name="a_document_is_stored_once"),
        ),
        migrations.AddConstraint(
            model_name="document",
            constraint=models.CheckConstraint(
                condition=models.Q(("title", ""), _negated=True), name="a_document_has_a_title"
            ),
        ),
        migrations.AddConstraint(
            model_name="document",
            constraint=models.CheckConstraint(
                condition=models.Q(("source", ""), _negated=True), name="a_document_has_a_source"
            ),
        ),
        migrations.AddConstraint(
            model_name="passage",
            constraint=models.UniqueConstraint(fields=("document", "number"), name="one_passage_per_number"),
        ),
        migrations.AddConstraint(
            model_name="passage",
            constraint=models.CheckConstraint(
                condition=models.Q(("text", ""), _negated=True), name="a_passage_says_something"
            ),
        ),
        migrations.AddConstraint(
            model_name="passage",
            constraint=models.CheckConstraint(
                condition=django.db.models.lookups.LessThanOrEqual(django.db.models.functions.text.Length("text"), 500),
                name="a_passage_can_be_read_at_a_glance",
            ),
        ),
        migrations.RunPython(install_index, remove_index),
    ]
