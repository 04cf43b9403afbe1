import django.core.validators
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

from feedback import append_only

TABLES = ["feedback_demonstrationreview"]


def install(apps, schema_editor):
    """On SQLite a table with a new column is a new table, without the triggers of the old one."""
    append_only.install(schema_editor.connection, TABLES)


class Migration(migrations.Migration):
    dependencies = [
        ("feedback", "0016_evidence"),
    ]

    operations = [
        migrations.AddField(
            model_name="demonstrationreview",
            name="source",
            field=models.JSONField(blank=True, default=dict, help_text="What an import says of it, kept as it was."),
        ),
        migrations.AddField(
            model_name="demonstrationreview",
            name="source_import",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="demonstration_reviews",
                to="feedback.import",
            ),
        ),
        migrations.AddField(
            model_name="prompt",
            name="weight",
            field=models.FloatField(
                default=1.0,
                help_text="How often it is drawn beside the others: 2 twice as often, 0 never.",
                validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(100)],
            ),
        ),
        migrations.AlterField(
            model_name="demonstrationreview",
            name="annotator",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="demonstration_reviews",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AlterField(
            model_name="demonstrationreview",
            name="annotator_key",
            field=models.CharField(
                help_text="u<id> of a person here; the source's own name for an imported one.", max_length=120
            ),
        ),
        migrations.AlterField(
            model_name="demonstrationreview",
            name="slot",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="demonstration_reviews",
                to="feedback.slot",
            ),
        ),
        migrations.AddConstraint(
            model_name="demonstrationreview",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("annotator__isnull", False), ("slot__isnull", False), ("source_import__isnull", True)),
                    models.Q(("annotator__isnull", True), ("slot__isnull", True), ("source_import__isnull", False)),
                    _connector="OR",
                ),
                name="a_review_comes_from_a_slot_or_an_import",
            ),
        ),
        migrations.AddConstraint(
            model_name="prompt",
            constraint=models.CheckConstraint(
                condition=models.Q(("weight__gte", 0), ("weight__lte", 100)), name="a_prompt_weighs_nought_to_a_hundred"
            ),
        ),
        migrations.RunPython(install, migrations.RunPython.noop),
    ]
