"""Projects that were there when export keys came were all given the same one; each gets its own."""

from typing import Any

from django.db import migrations

from feedback.models.projects import new_export_key


def give_own_keys(apps: Any, schema_editor: Any) -> None:
    Project = apps.get_model("feedback", "Project")
    seen: set[str] = set()
    for project in Project.objects.order_by("pk"):
        if project.export_key in seen:
            Project.objects.filter(pk=project.pk).update(export_key=new_export_key())
        seen.add(project.export_key)


class Migration(migrations.Migration):
    dependencies = [
        ("feedback", "0004_slot_of_item_and_person"),
    ]

    operations = [migrations.RunPython(give_own_keys, migrations.RunPython.noop)]
