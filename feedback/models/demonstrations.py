"""Replies that people write to show how it is done, and what others say of them."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from feedback.models.candidates import Candidate
from feedback.models.dialogues import Dialogue
from feedback.models.work import Slot


class DemonstrationQuerySet(models.QuerySet["Demonstration"]):
    def newest(self) -> DemonstrationQuerySet:
        """Those that nothing has taken the place of, also one that its writer took back."""
        return self.filter(~Exists(Demonstration.objects.filter(supersedes=OuterRef("pk"))))

    def in_force(self) -> DemonstrationQuerySet:
        """Those that nothing has taken the place of and nobody took back."""
        return self.newest().filter(withdrawn=False)

    def counted(self) -> DemonstrationQuerySet:
        """In force and not a late one that lost its slot."""
        return self.in_force().filter(counts=True)

    def by_people(self) -> DemonstrationQuerySet:
        return self.filter(annotator__isnull=False)

    def with_verdict(self, *verdicts: str) -> DemonstrationQuerySet:
        """Those of which a review that stands and counts says one of these."""
        said = DemonstrationReview.objects.counted().filter(demonstration=OuterRef("pk"), verdict__in=verdicts)
        return self.filter(Exists(said))

    def accepted(self) -> DemonstrationQuerySet:
        """In force, and somebody else found them good."""
        return self.counted().with_verdict(DemonstrationReview.Verdict.ACCEPTED)

    def sent_back(self) -> DemonstrationQuerySet:
        """In force, and to be written again by who wrote them."""
        return self.counted().with_verdict(DemonstrationReview.Verdict.SENT_BACK)

    def waiting(self) -> DemonstrationQuerySet:
        """In force, and nobody has said anything of them yet."""
        said = DemonstrationReview.objects.counted().filter(demonstration=OuterRef("pk"))
        return self.counted().filter(~Exists(said))


class Demonstration(models.Model):
    """The reply that a person would want from the model, to a dialogue so far. Never changed.

    What its writer sends next, and what a reviewer makes of it, are demonstrations of their own that supersede it.
    """

    dialogue = models.ForeignKey(Dialogue, on_delete=models.PROTECT, related_name="demonstrations")
    position = models.PositiveIntegerField(help_text="Position of the turn it answers.")
    content = models.TextField()
    fingerprint = models.CharField(max_length=64, help_text="Of the content, letter case and blanks aside.")
    edited_from = models.ForeignKey(
        Candidate,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="demonstrations",
        help_text="The model's reply it was made from; empty: written from nothing.",
    )
    supersedes = models.OneToOneField(
        "self",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="superseded_by",
        help_text="What it takes the place of: the writer's own earlier one, or the one a reviewer edited.",
    )
    slot = models.ForeignKey(Slot, null=True, blank=True, on_delete=models.PROTECT, related_name="demonstrations")
    annotator = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="demonstrations"
    )
    source_import = models.ForeignKey(
        "feedback.Import", null=True, blank=True, on_delete=models.PROTECT, related_name="demonstrations"
    )
    annotator_key = models.CharField(
        max_length=120, help_text="u<id> of a person here; the source's own name for an imported one."
    )
    source = models.JSONField(default=dict, blank=True, help_text="What an import says of it, kept as it was.")
    revision = models.PositiveIntegerField(default=1)
    withdrawn = models.BooleanField(default=False)
    pasted_share = models.FloatField(
        null=True, blank=True, help_text="0 to 1, of its characters; empty: not measured. A signal, not a verdict."
    )
    seconds = models.FloatField(null=True, blank=True, help_text="Time the page was in view.")
    late = models.BooleanField(default=False, help_text="Sent after the lease lapsed.")
    counts = models.BooleanField(default=True, help_text="False for a late one whose slot somebody else took.")
    submit_key = models.UUIDField(null=True, blank=True, unique=True)
    body_hash = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = DemonstrationQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["dialogue", "position", "annotator_key", "revision"], name="one_demonstration_per_revision"
            ),
            models.CheckConstraint(
                condition=Q(slot__isnull=False, annotator__isnull=False, source_import__isnull=True)
                | Q(slot__isnull=True, annotator__isnull=True, source_import__isnull=False),
                name="a_demonstration_comes_from_a_slot_or_an_import",
            ),
            models.CheckConstraint(condition=~Q(content=""), name="a_demonstration_says_something"),
            models.CheckConstraint(condition=Q(revision__gte=1), name="demonstration_revisions_start_at_one"),
            models.CheckConstraint(
                condition=Q(revision=1) | Q(supersedes__isnull=False) | Q(counts=False),
                name="a_later_demonstration_supersedes",
            ),
            models.CheckConstraint(
                condition=Q(pasted_share__isnull=True) | Q(pasted_share__gte=0, pasted_share__lte=1),
                name="pasted_share_is_nought_to_one",
            ),
            models.CheckConstraint(
                condition=Q(seconds__isnull=True) | Q(seconds__gte=0), name="demonstration_seconds_are_not_negative"
            ),
            models.CheckConstraint(
                condition=Q(late=True) | Q(counts=True), name="only_late_demonstrations_may_not_count"
            ),
        ]
        # serves the warning that a text is here already
        indexes = [models.Index(fields=["fingerprint"], name="demonstration_by_text")]

    def __str__(self) -> str:
        return f"demonstration {self.pk}"

    @property
    def is_changed(self) -> bool:
        """Whether it says something else than the reply it was made from: then it is preferred to that."""
        return self.edited_from is not None and self.content.strip() != self.edited_from.text.strip()


class DemonstrationReviewQuerySet(models.QuerySet["DemonstrationReview"]):
    def by_people(self) -> DemonstrationReviewQuerySet:
        return self.filter(annotator__isnull=False)

    def in_force(self) -> DemonstrationReviewQuerySet:
        """The newest revision of each review, unless that revision withdrew it."""
        newer = DemonstrationReview.objects.filter(
            demonstration=OuterRef("demonstration"),
            annotator_key=OuterRef("annotator_key"),
            revision__gt=OuterRef("revision"),
        )
        return self.filter(~Exists(newer), withdrawn=False)

    def counted(self) -> DemonstrationReviewQuerySet:
        """In force and not a late one that lost its slot."""
        return self.in_force().filter(counts=True)


class DemonstrationReview(models.Model):
    """What somebody else says of a demonstration: good as it is, to be written again and why, or better so."""

    class Verdict(models.TextChoices):
        ACCEPTED = "accepted", "Accepted"
        SENT_BACK = "sent_back", "Sent back"
        EDITED = "edited", "Edited"

    demonstration = models.ForeignKey(Demonstration, on_delete=models.PROTECT, related_name="reviews")
    verdict = models.CharField(max_length=9, choices=Verdict.choices)
    reason = models.TextField(blank=True, help_text="Why it was sent back, in the reviewer's own words.")
    edit = models.OneToOneField(
        Demonstration,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="made_by_review",
        help_text="What the reviewer made of it.",
    )
    slot = models.ForeignKey(
        Slot, null=True, blank=True, on_delete=models.PROTECT, related_name="demonstration_reviews"
    )
    annotator = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="demonstration_reviews",
    )
    source_import = models.ForeignKey(
        "feedback.Import", null=True, blank=True, on_delete=models.PROTECT, related_name="demonstration_reviews"
    )
    annotator_key = models.CharField(
        max_length=120, help_text="u<id> of a person here; the source's own name for an imported one."
    )
    source = models.JSONField(default=dict, blank=True, help_text="What an import says of it, kept as it was.")
    revision = models.PositiveIntegerField(default=1)
    withdrawn = models.BooleanField(default=False)
    seconds = models.FloatField(null=True, blank=True, help_text="Time the page was in view.")
    late = models.BooleanField(default=False, help_text="Sent after the lease lapsed.")
    counts = models.BooleanField(default=True, help_text="False for a late one whose slot somebody else took.")
    submit_key = models.UUIDField(null=True, blank=True, unique=True)
    body_hash = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = DemonstrationReviewQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["demonstration", "annotator_key", "revision"], name="one_review_per_revision"
            ),
            models.CheckConstraint(
                condition=Q(verdict__in=["accepted", "sent_back", "edited"]), name="review_verdict_is_known"
            ),
            models.CheckConstraint(
                condition=~Q(verdict="sent_back") | ~Q(reason=""), name="what_is_sent_back_has_a_reason"
            ),
            models.CheckConstraint(
                condition=Q(verdict="edited", edit__isnull=False) | ~Q(verdict="edited") & Q(edit__isnull=True),
                name="an_edit_is_there_where_it_was_edited",
            ),
            models.CheckConstraint(
                condition=Q(slot__isnull=False, annotator__isnull=False, source_import__isnull=True)
                | Q(slot__isnull=True, annotator__isnull=True, source_import__isnull=False),
                name="a_review_comes_from_a_slot_or_an_import",
            ),
            models.CheckConstraint(condition=Q(revision__gte=1), name="review_revisions_start_at_one"),
            models.CheckConstraint(
                condition=Q(seconds__isnull=True) | Q(seconds__gte=0), name="review_seconds_are_not_negative"
            ),
            models.CheckConstraint(condition=Q(late=True) | Q(counts=True), name="only_late_reviews_may_not_count"),
        ]

    def __str__(self) -> str:
        return f"review {self.pk}"
