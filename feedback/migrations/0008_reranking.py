"""How many draws a reply is chosen from, how it was chosen, and why it was not."""

import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("feedback", "0007_frozen_rules_and_evidence"),
    ]

    operations = [
        migrations.AddField(
            model_name="candidate",
            name="reranking",
            field=models.JSONField(
                blank=True,
                default=dict,
                help_text="How it was chosen from several draws, by which models, with what scores. Empty: it was not.",
            ),
        ),
        migrations.AddField(
            model_name="generationrequest",
            name="draws",
            field=models.PositiveSmallIntegerField(
                default=1, help_text="How many replies are drawn for each one shown."
            ),
        ),
        migrations.AddField(
            model_name="generationrequest",
            name="unreranked_because",
            field=models.CharField(
                blank=True, help_text="Why the first draw was shown and not the best of several.", max_length=300
            ),
        ),
        migrations.AddField(
            model_name="project",
            name="draws_per_reply",
            field=models.PositiveSmallIntegerField(
                default=1,
                help_text="Of so many draws models choose each reply shown. 1: off; 8 takes up to 8 times as long.",
                validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(16)],
            ),
        ),
        migrations.AlterField(
            model_name="candidate",
            name="draw",
            field=models.PositiveSmallIntegerField(
                default=0,
                help_text="Which draw it was: 0 the first; later ones were drawn to choose from, or to replace a copy.",
            ),
        ),
        migrations.AddConstraint(
            model_name="generationrequest",
            constraint=models.CheckConstraint(
                condition=models.Q(("draws__gte", 1), ("draws__lte", 16)), name="one_to_sixteen_draws_for_each"
            ),
        ),
        migrations.AddConstraint(
            model_name="project",
            constraint=models.CheckConstraint(
                condition=models.Q(("draws_per_reply__gte", 1), ("draws_per_reply__lte", 16)),
                name="one_to_sixteen_draws_per_reply",
            ),
        ),
    ]
