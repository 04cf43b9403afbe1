from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("feedback", "0013_demonstrations_append_only"),
    ]

    operations = [
        migrations.AddField(
            model_name="snapshot",
            name="demonstration_ids",
            field=models.JSONField(blank=True, default=list),
        ),
        migrations.AlterField(
            model_name="snapshot",
            name="kind",
            field=models.CharField(
                choices=[("preference", "preference"), ("rules", "rules"), ("demonstrations", "demonstrations")],
                default="preference",
                max_length=14,
            ),
        ),
    ]
