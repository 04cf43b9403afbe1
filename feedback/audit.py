"""Who did what when."""

from typing import Any

from django.db.models import Model

from feedback.models import AuditEntry, Project, User


def record(
    action: str,
    *,
    project: Project | None = None,
    actor: User | None = None,
    target: Model | None = None,
    **details: Any,
) -> AuditEntry:
    """Add one entry; call it inside the transaction of the action it records."""
    name = f"{target._meta.label_lower}:{target.pk}" if target is not None else ""
    return AuditEntry.objects.create(project=project, actor=actor, action=action, target=name, details=details)
