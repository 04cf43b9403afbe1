import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("feedback", "0008_reranking"),
    ]

    operations = [
        migrations.AddField(
            model_name="project",
            name="probed_policy",
            field=models.ForeignKey(
                blank=True,
                help_text="The policy that people probe; empty: the one that serves.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="feedback.modelversion",
            ),
        ),
        migrations.AddField(
            model_name="snapshot",
            name="judgement_ids",
            field=models.JSONField(blank=True, default=list),
        ),
        migrations.AddField(
            model_name="snapshot",
            name="standing_rules",
            field=models.JSONField(
                blank=True, default=dict, help_text="{rule: the rule its judgements counted for when this was frozen}"
            ),
        ),
        migrations.AddField(
            model_name="workitem",
            name="added",
            field=models.PositiveSmallIntegerField(
                default=0, help_text="How many of these a manager asked for on top, where people differ."
            ),
        ),
        migrations.AlterField(
            model_name="snapshot",
            name="kind",
            field=models.CharField(
                choices=[("preference", "preference"), ("rules", "rules")], default="preference", max_length=12
            ),
        ),
        migrations.AddConstraint(
            model_name="workitem",
            constraint=models.CheckConstraint(
                condition=models.Q(("added__lte", models.F("wanted"))), name="added_answers_are_wanted"
            ),
        ),
    ]
