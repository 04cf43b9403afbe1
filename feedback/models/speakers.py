"""Anything that speaks or scores."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone

from feedback.models.projects import Project


class ModelVersion(models.Model):
    """A policy or a reward model: where its weights or its endpoint are, what it came from, how it fared."""

    class Kind(models.TextChoices):
        POLICY = "policy", "policy"
        PREFERENCE = "preference", "preference reward model"
        RULE = "rule", "rule model"

    class Backend(models.TextChoices):
        TRANSFORMERS = "transformers", "weights, run by the worker"
        OPENAI = "openai", "an OpenAI-compatible server"

    class State(models.TextChoices):
        TRAINED = "trained", "trained"
        PASSED = "passed", "passed the gate"
        FAILED = "failed", "failed the gate"
        RETIRED = "retired", "retired"

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="model_versions")
    kind = models.CharField(max_length=10, choices=Kind.choices)
    number = models.PositiveIntegerField(help_text="Counts up per project and kind; policy 1 is the first.")
    name = models.CharField(max_length=120, blank=True)
    backend = models.CharField(max_length=12, choices=Backend.choices, default=Backend.TRANSFORMERS)
    location = models.CharField(
        max_length=500, help_text="A folder (relative ones lie in DATA_DIR/models), or the server's model name."
    )
    endpoint = models.URLField(blank=True, help_text="https://host/v1 of an OpenAI-compatible server.")
    key_variable = models.CharField(
        max_length=60, blank=True, help_text="Name of the environment variable that holds the endpoint's key."
    )
    content_hash = models.CharField(max_length=64, blank=True, help_text="sha256 over the folder's files.")
    parent = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="children")
    state = models.CharField(max_length=8, choices=State.choices, default=State.TRAINED)
    figures = models.JSONField(default=dict, blank=True, help_text="Reported figures: accuracy, ceiling, …")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["project", "kind", "number"]
        constraints = [
            models.UniqueConstraint(fields=["project", "kind", "number"], name="one_model_per_number"),
            models.CheckConstraint(
                condition=~Q(backend="openai") | ~Q(endpoint=""), name="a_served_model_has_an_endpoint"
            ),
            models.CheckConstraint(
                condition=Q(kind__in=["policy", "preference", "rule"])
                & Q(state__in=["trained", "passed", "failed", "retired"])
                & Q(backend__in=["transformers", "openai"]),
                name="model_kind_state_backend_are_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.number}"
