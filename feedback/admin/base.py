"""What all pages of the admin share: only own projects, nothing deleted, evidence read and never edited."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.text import Truncator

from feedback import audit, generation, queue
from feedback.models import (
    GenerationRequest,
    ModelVersion,
    Project,
)
from feedback.pages.access import person


class OwnProjects(admin.RelatedFieldListFilter):
    """A filter by project that names none but those one manages."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> Any:
        return [(project.pk, str(project)) for project in Project.objects.managed_by(request.user).order_by("name")]


class KeptAdmin(admin.ModelAdmin):
    """Rows that are never deleted here, and seen only in projects one manages."""

    project_path = "project"
    list_per_page = 50
    show_full_result_count = False

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        rows = super().get_queryset(request)
        if request.user.is_superuser:
            return rows
        mine = Project.objects.managed_by(request.user).values("pk")
        return rows.filter(**{f"{self.project_path}__in": mine})

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        """Filters by project show one's own alone."""
        filters: Any = super().get_list_filter(request)
        return [
            (one, OwnProjects) if isinstance(one, str) and one.split("__")[-1] == "project" else one for one in filters
        ]

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        mine = Project.objects.managed_by(request.user)
        if db_field.name == "project":
            kwargs["queryset"] = mine
        elif db_field.name == "parent":
            kwargs["queryset"] = ModelVersion.objects.filter(project__in=mine.values("pk"))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class EvidenceAdmin(KeptAdmin):
    """Rows that are only read here."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class EvidenceInline(admin.TabularInline):
    """Rows read beside the row they belong to."""

    extra = 0
    can_delete = False
    show_change_link = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.display(description="age", ordering="created_at")
def age(row: Any) -> str:
    """How old a row of work is, or how long it took until it ended."""
    seconds = int(row.age_seconds)
    if seconds < 60:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 3600 else f"{seconds // 3600} h {seconds % 3600 // 60} min"


@admin.display(description="error")
def short_error(row: Any) -> str:
    return Truncator(row.error).chars(90)


@admin.action(description="Try again what failed")
def try_again(modeladmin: admin.ModelAdmin, request: HttpRequest, rows: QuerySet) -> None:
    """Put failed rows back in the queue; others are left as they are."""
    again = 0
    for row in rows:
        done = generation.try_again(row) if isinstance(row, GenerationRequest) else queue.requeue(row)
        if done:
            again += 1
            audit.record("work.requeued", project=_project_of(row), actor=person(request), target=row)
    left = rows.count() - again
    modeladmin.message_user(request, f"{again} back in the queue, {left} left as they are: they had not failed.")


def _project_of(row: Any) -> Project:
    return row.dialogue.project if isinstance(row, GenerationRequest) else row.project


def is_own_location(location: str, project: Project) -> bool:
    """True for what the project carries (starter:…) and for folders of this project below the data folder's models."""
    parts = PurePosixPath(location).parts
    if location.startswith("starter:"):
        return True
    return len(parts) > 1 and parts[0] == project.slug and ".." not in parts


ELSEWHERE = "Name a folder of this project, such as {slug}/imported. Another place is named by a superuser."
