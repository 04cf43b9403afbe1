"""An exchange, and one message by one speaker."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from feedback.models.projects import Project, Prompt
from feedback.models.speakers import ModelVersion


class Dialogue(models.Model):
    """An exchange between a person and a policy (or between a source's people and theirs)."""

    class Kind(models.TextChoices):
        DEMONSTRATION = "demonstration", "demonstration"
        PREFERENCE = "preference", "preference"
        PROBE = "probe", "probe"
        EVALUATION = "evaluation", "evaluation"
        SELF_PLAY = "self_play", "self-play"
        IMPORTED = "imported", "imported"

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="dialogues")
    kind = models.CharField(max_length=13, choices=Kind.choices, default=Kind.PREFERENCE)
    prompt = models.ForeignKey(
        Prompt,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="dialogues",
        help_text="Empty until somebody wrote the first message of a dialogue of their own.",
    )
    policy = models.ForeignKey(ModelVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="dialogues")
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="dialogues"
    )
    source_import = models.ForeignKey(
        "feedback.Import", null=True, blank=True, on_delete=models.PROTECT, related_name="dialogues"
    )
    source_key = models.CharField(max_length=200, blank=True, help_text="The source's own name for it.")
    source = models.JSONField(default=dict, blank=True, help_text="What an import says of it, kept as it was.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    ended_at = models.DateTimeField(null=True, blank=True)
    end_reason = models.CharField(max_length=200, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=(Q(kind="imported") & Q(source_import__isnull=False))
                | (~Q(kind="imported") & Q(source_import__isnull=True)),
                name="imported_dialogues_name_their_import",
            ),
        ]

    def __str__(self) -> str:
        return f"dialogue {self.pk}"

    @property
    def is_open(self) -> bool:
        return self.ended_at is None

    @property
    def is_probe(self) -> bool:
        return self.kind == self.Kind.PROBE

    def messages(self) -> list[dict[str, str]]:
        """The dialogue so far as role and content, in order."""
        return [{"role": turn.role, "content": turn.content} for turn in self.turns.all()]


class Turn(models.Model):
    """One message by one speaker. Turns are added at the end and never changed."""

    class Role(models.TextChoices):
        SYSTEM = "system", "System"
        USER = "user", "User"
        ASSISTANT = "assistant", "Assistant"
        SEARCH_QUERY = "search_query", "Search query"
        SEARCH_RESULTS = "search_results", "Search results"

    SEARCH = (Role.SEARCH_QUERY, Role.SEARCH_RESULTS)  # what a reply looked for and found before it was written

    dialogue = models.ForeignKey(Dialogue, on_delete=models.PROTECT, related_name="turns")
    position = models.PositiveIntegerField(help_text="0 is the first.")
    role = models.CharField(max_length=14, choices=Role.choices)
    content = models.TextField()
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    candidate = models.ForeignKey(
        "feedback.Candidate",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="continued_as",
        help_text="The chosen reply this turn repeats.",
    )
    demonstration = models.ForeignKey(
        "feedback.Demonstration",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="continued_as",
        help_text="The demonstrated reply this turn repeats.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["dialogue", "position"], name="one_turn_per_position"),
            models.CheckConstraint(
                condition=Q(role__in=["system", "user", "assistant", "search_query", "search_results"]),
                name="role_is_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.role} {self.position} of dialogue {self.dialogue_id}"
