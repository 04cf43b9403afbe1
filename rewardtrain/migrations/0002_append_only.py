"""Promotions can be added, never changed or deleted."""

from django.db import migrations

from feedback import append_only


def install(apps, schema_editor):
    append_only.install(schema_editor.connection, ["rewardtrain_promotion"])


def remove(apps, schema_editor):
    append_only.remove(schema_editor.connection, ["rewardtrain_promotion"])


class Migration(migrations.Migration):
    dependencies = [("rewardtrain", "0001_initial")]
    operations = [migrations.RunPython(install, remove)]
