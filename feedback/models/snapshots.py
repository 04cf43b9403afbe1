"""Data taken in, and data sent out."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from feedback.models.projects import Project
from feedback.models.queued import QueuedWork


class Import(models.Model):
    """One file taken in."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="imports")
    format = models.CharField(max_length=40)
    file_name = models.CharField(max_length=255)
    sha256 = models.CharField(max_length=64)
    report = models.JSONField(default=dict, help_text="Counts of what came in, and of what was unusual.")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "format", "sha256"], name="a_file_is_imported_once"),
        ]

    def __str__(self) -> str:
        return f"{self.file_name} ({self.format})"


class Snapshot(QueuedWork):
    """An immutable export: its rows are fixed by id list when it is made, its files written once and served again."""

    task_name = "feedback.write_snapshot"
    lease_seconds = 120

    class Kind(models.TextChoices):
        PREFERENCE = "preference", "preference"
        RULES = "rules", "rules"
        DEMONSTRATIONS = "demonstrations", "demonstrations"
        RATINGS = "ratings", "ratings"

    IDS = (
        "ranking_ids",
        "judgement_ids",
        "demonstration_ids",
        "rating_ids",
    )  # long lists, read where they are needed alone

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="snapshots")
    kind = models.CharField(max_length=14, choices=Kind.choices, default=Kind.PREFERENCE)
    ranking_ids = models.JSONField(default=list)
    judgement_ids = models.JSONField(default=list, blank=True)
    demonstration_ids = models.JSONField(default=list, blank=True)
    rating_ids = models.JSONField(default=list, blank=True)
    standing_rules = models.JSONField(
        default=dict, blank=True, help_text="{rule: the rule its judgements counted for when this was frozen}"
    )
    filters = models.JSONField(default=dict, blank=True)
    excluded = models.JSONField(default=dict, blank=True, help_text="{reason: how many}")
    counts = models.JSONField(default=dict, blank=True)
    manifest = models.JSONField(default=dict, blank=True)
    sha256 = models.CharField(max_length=64, blank=True, help_text="Of the JSONL files: the snapshot's identity.")
    folder = models.CharField(max_length=255, blank=True, help_text="Below DATA_DIR/snapshots.")
    withdrawn_at = models.DateTimeField(null=True, blank=True)
    withdrawn_because = models.CharField(max_length=300, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )

    class Meta(QueuedWork.Meta):
        constraints = [
            *QueuedWork.Meta.constraints,
            models.CheckConstraint(condition=~Q(state="done") | ~Q(sha256=""), name="a_written_snapshot_has_its_hash"),
        ]

    def __str__(self) -> str:
        return f"snapshot {self.pk}"
