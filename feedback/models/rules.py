"""What the model is to keep to: numbered versions of a project's rules."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from feedback.models.projects import Project


class RuleSet(models.Model):
    """A numbered version of a project's rules. A draft is edited, a published one is frozen, a retired one is past.

    Triggers in the database hold this (`feedback.frozen_rules`).
    """

    class State(models.TextChoices):
        DRAFT = "draft", "draft"
        PUBLISHED = "published", "published"
        RETIRED = "retired", "retired"

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="rule_sets")
    number = models.PositiveIntegerField(help_text="Counts up per project; 1 is the first.")
    state = models.CharField(max_length=9, choices=State.choices, default=State.DRAFT)
    note = models.TextField(blank=True, help_text="Why it changed, for those who come after.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    published_at = models.DateTimeField(null=True, blank=True)
    published_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["project", "number"]
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="one_rule_set_per_number"),
            models.UniqueConstraint(fields=["project"], condition=Q(state="draft"), name="one_draft_per_project"),
            models.UniqueConstraint(
                fields=["project"], condition=Q(state="published"), name="one_published_rule_set_per_project"
            ),
            models.CheckConstraint(
                condition=Q(state="draft", published_at__isnull=True, retired_at__isnull=True)
                | Q(state="published", published_at__isnull=False, retired_at__isnull=True)
                | Q(state="retired", published_at__isnull=False, retired_at__isnull=False),
                name="a_rule_set_says_since_when",
            ),
            models.CheckConstraint(condition=Q(number__gte=1), name="rule_sets_start_at_one"),
        ]

    def __str__(self) -> str:
        return f"rule set {self.number}"

    @property
    def is_draft(self) -> bool:
        return self.state == self.State.DRAFT


class Rule(models.Model):
    """One rule in one version of a rule set. What is judged is this wording and no other."""

    class Category(models.TextChoices):
        HARM = "harm", "Harm"
        CORRECT = "correct", "Correct"
        HELPFUL = "helpful", "Helpful"

    rule_set = models.ForeignKey(RuleSet, on_delete=models.PROTECT, related_name="rules")
    key = models.SlugField(max_length=60, help_text="The same in every version, so that its history can be followed.")
    position = models.PositiveSmallIntegerField(help_text="Its number in the set, from 1.")
    name = models.CharField(max_length=80)
    category = models.CharField(max_length=7, choices=Category.choices)
    theme = models.CharField(max_length=60, blank=True, help_text="Finer than the category: hate and harassment, …")
    wording = models.TextField(help_text="One plain sentence that stands alone; annotators and models read it.")
    breaks = models.JSONField(default=list, blank=True, help_text="Examples that break it, as texts.")
    keeps = models.JSONField(default=list, blank=True, help_text="Examples that look like it and do not.")
    ideas = models.JSONField(default=list, blank=True, help_text="How one might try to have it broken; offered only.")
    is_sensitive = models.BooleanField(default=False, help_text="Probing it may show what harms: consent is asked.")
    warning = models.CharField(
        max_length=200, blank=True, help_text="What may appear while it is probed, said before: wrong medical advice."
    )
    probe_quota = models.PositiveIntegerField(default=60, help_text="How many probes of it are wanted for a policy.")
    weight = models.FloatField(
        default=1.0, validators=[MinValueValidator(0)], help_text="Of this rule among all in the reward."
    )
    continues = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="continued_by",
        help_text="The rule of the version before whose judgements count for this one as well.",
    )

    class Meta:
        ordering = ["rule_set", "position"]
        constraints = [
            models.UniqueConstraint(fields=["rule_set", "key"], name="one_rule_per_key"),
            models.CheckConstraint(condition=Q(category__in=["harm", "correct", "helpful"]), name="category_is_known"),
            models.CheckConstraint(condition=Q(weight__gte=0), name="weight_is_not_negative"),
            models.CheckConstraint(condition=~Q(wording="") & ~Q(name=""), name="a_rule_has_words"),
            models.CheckConstraint(
                condition=Q(is_sensitive=False) | ~Q(warning=""), name="a_sensitive_rule_says_what_may_appear"
            ),
        ]

    def __str__(self) -> str:
        return self.name
