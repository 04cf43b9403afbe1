"""What a rule model says of judged dialogues is kept with it; it can be added, never changed."""

from typing import Any

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

from feedback import append_only

TABLES = ["feedback_rulescore"]


def install(apps: Any, schema_editor: Any) -> None:
    append_only.install(schema_editor.connection, TABLES)


def remove(apps: Any, schema_editor: Any) -> None:
    append_only.remove(schema_editor.connection, TABLES)


class Migration(migrations.Migration):
    dependencies = [("feedback", "0009_rules_exported_probed_and_asked_again")]
    operations = [
        migrations.CreateModel(
            name="RuleScore",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("p_broken", models.FloatField(help_text="A calibrated chance, 0 to 1.")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "dialogue",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="rule_scores", to="feedback.dialogue"
                    ),
                ),
                (
                    "model_version",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="rule_scores",
                        to="feedback.modelversion",
                    ),
                ),
                (
                    "rule",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="rule_scores", to="feedback.rule"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("model_version", "dialogue", "rule"), name="one_score_per_model_dialogue_and_rule"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("p_broken__gte", 0), ("p_broken__lte", 1)), name="a_rule_score_is_a_chance"
                    ),
                ],
            },
        ),
        migrations.RunPython(install, remove),
    ]
