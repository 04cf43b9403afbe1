"""Dialogues meant to break a rule, whether they did, and who agreed to read such things."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from feedback.models.dialogues import Dialogue
from feedback.models.projects import Project
from feedback.models.rules import Rule
from feedback.models.speakers import ModelVersion
from feedback.models.work import Slot


def chance_of(verdict: int) -> float:
    """A verdict of five steps as a chance that the rule was broken.

    >>> [chance_of(verdict) for verdict in (1, 2, 3, 4, 5)]
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    return (5 - verdict) / 4


class Probe(models.Model):
    """A dialogue that is meant to break one rule, in the wording its prober saw. Never changed."""

    dialogue = models.OneToOneField(Dialogue, on_delete=models.PROTECT, related_name="probe")
    rule = models.ForeignKey(Rule, on_delete=models.PROTECT, related_name="probes")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        return f"probe {self.pk}"


class RuleJudgementQuerySet(models.QuerySet["RuleJudgement"]):
    def newest(self) -> RuleJudgementQuerySet:
        """The newest revision of each answer, also one that withdrew it."""
        newer = RuleJudgement.objects.filter(
            dialogue=OuterRef("dialogue"),
            rule=OuterRef("rule"),
            annotator_key=OuterRef("annotator_key"),
            revision__gt=OuterRef("revision"),
        )
        return self.filter(~Exists(newer))

    def in_force(self) -> RuleJudgementQuerySet:
        """The newest revision of each answer, unless that revision withdrew it."""
        return self.newest().filter(withdrawn=False)

    def counted(self) -> RuleJudgementQuerySet:
        """In force and not a late answer that lost its slot."""
        return self.in_force().filter(counts=True)

    def besides_evaluations(self) -> RuleJudgementQuerySet:
        """Without verdicts that measure policies: nothing is learned from them, and no rule's figures hold them."""
        return self.exclude(dialogue__kind=Dialogue.Kind.EVALUATION)

    def by_people(self) -> RuleJudgementQuerySet:
        return self.filter(annotator__isnull=False)


class RuleJudgement(models.Model):
    """One person's verdict on whether a dialogue broke a rule. A correction is a new revision, an undo a withdrawn one.

    A verdict of the prober is told from those of others: they judged without knowing it.
    """

    class Verdict(models.IntegerChoices):
        DEFINITELY_BROKEN = 1, "Definitely broken"
        PROBABLY_BROKEN = 2, "Probably broken"
        UNSURE = 3, "Unsure"
        PROBABLY_FOLLOWED = 4, "Probably followed"
        DEFINITELY_FOLLOWED = 5, "Definitely followed"

    dialogue = models.ForeignKey(Dialogue, on_delete=models.PROTECT, related_name="judgements")
    rule = models.ForeignKey(Rule, on_delete=models.PROTECT, related_name="judgements")
    verdict = models.PositiveSmallIntegerField(choices=Verdict.choices)
    turn_position = models.PositiveIntegerField(null=True, blank=True, help_text="The turn that broke it.")
    reason = models.TextField(blank=True, help_text="Why, in the judge's own words.")
    by_prober = models.BooleanField(default=False)
    tactics = models.JSONField(default=list, blank=True, help_text="How the prober tried, as names.")
    slot = models.ForeignKey(Slot, null=True, blank=True, on_delete=models.PROTECT, related_name="judgements")
    annotator = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="judgements"
    )
    source_import = models.ForeignKey(
        "feedback.Import", null=True, blank=True, on_delete=models.PROTECT, related_name="judgements"
    )
    annotator_key = models.CharField(
        max_length=120, help_text="u<id> of a person here; the source's own name for an imported one."
    )
    source = models.JSONField(default=dict, blank=True, help_text="What an import says of it, kept as it was.")
    revision = models.PositiveIntegerField(default=1)
    withdrawn = models.BooleanField(default=False)
    seconds = models.FloatField(null=True, blank=True, help_text="Time the page was in view.")
    late = models.BooleanField(default=False, help_text="Sent after the lease lapsed.")
    counts = models.BooleanField(default=True, help_text="False for a late answer whose slot somebody else took.")
    submit_key = models.UUIDField(null=True, blank=True, unique=True)
    body_hash = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = RuleJudgementQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["dialogue", "rule", "annotator_key", "revision"], name="one_judgement_per_revision"
            ),
            models.CheckConstraint(condition=Q(verdict__gte=1, verdict__lte=5), name="verdict_is_one_to_five"),
            models.CheckConstraint(
                condition=Q(slot__isnull=False, annotator__isnull=False, source_import__isnull=True)
                | Q(slot__isnull=True, annotator__isnull=True, source_import__isnull=False),
                name="a_judgement_comes_from_a_slot_or_an_import",
            ),
            models.CheckConstraint(condition=Q(revision__gte=1), name="judgement_revisions_start_at_one"),
            models.CheckConstraint(
                condition=Q(seconds__isnull=True) | Q(seconds__gte=0), name="judgement_seconds_are_not_negative"
            ),
            models.CheckConstraint(condition=Q(late=True) | Q(counts=True), name="only_late_judgements_may_not_count"),
        ]
        # serves rates and agreement of a rule
        indexes = [models.Index(fields=["rule", "by_prober"], name="judgement_of_rule")]

    def __str__(self) -> str:
        return f"judgement {self.pk}"

    @property
    def broken(self) -> float:
        """The verdict as a chance that the rule was broken: 1, 0.75, 0.5, 0.25, 0."""
        return chance_of(self.verdict)


class RuleScore(models.Model):
    """How likely a rule model holds it that a dialogue broke a rule, in the wording it was asked by. Never changed."""

    dialogue = models.ForeignKey(Dialogue, on_delete=models.PROTECT, related_name="rule_scores")
    rule = models.ForeignKey(Rule, on_delete=models.PROTECT, related_name="rule_scores")
    model_version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="rule_scores")
    p_broken = models.FloatField(help_text="A calibrated chance, 0 to 1.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["model_version", "dialogue", "rule"], name="one_score_per_model_dialogue_and_rule"
            ),
            models.CheckConstraint(condition=Q(p_broken__gte=0, p_broken__lte=1), name="a_rule_score_is_a_chance"),
        ]

    def __str__(self) -> str:
        return f"score {self.pk}"


class ConsentQuerySet(models.QuerySet["Consent"]):
    def in_force(self, **about: Any) -> ConsentQuerySet:
        """What is agreed to now: the newest of a person, project and theme, unless it took the consent back."""
        later = Consent.objects.filter(
            user=OuterRef("user"), project=OuterRef("project"), theme=OuterRef("theme"), pk__gt=OuterRef("pk")
        )
        return self.filter(~Exists(later), given=True, **about)


class Consent(models.Model):
    """Somebody agreed to read what probing a theme may show, or took that back. The newest one holds."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="consents")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="consents")
    theme = models.CharField(max_length=60, help_text="Of the sensitive rules it is about.")
    wording = models.TextField(help_text="What they were told may appear, word for word.")
    given = models.BooleanField()
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = ConsentQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=["user", "project", "theme"], name="consent_of_person")]  # serves probing

    def __str__(self) -> str:
        return f"{self.user} {'agreed' if self.given else 'took back'}: {self.theme}"
