"""Questions about one reply, as data, and what people and programs answer to them."""

from __future__ import annotations

from datetime import datetime

from django.conf import settings
from django.db import models
from django.db.models import Exists, F, OuterRef, Q
from django.utils import timezone

from feedback.models.candidates import Candidate
from feedback.models.projects import Project
from feedback.models.work import Slot

NONE = "none"  # the value of flags of which none holds
BETWEEN_FLAGS = ","


class ScaleSet(models.Model):
    """Questions that are asked together about one reply, and by how many people."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="scale_sets")
    key = models.SlugField(max_length=40)
    name = models.CharField(max_length=80)
    source = models.CharField(max_length=300, blank=True, help_text="Where its questions come from.")
    by_program = models.BooleanField(default=False, help_text="A program answers, such as unit tests; nobody is asked.")
    is_open = models.BooleanField(default=False, help_text="Annotators are asked.")
    raters = models.PositiveSmallIntegerField(default=1, help_text="How many people rate the same reply.")
    ready = models.PositiveSmallIntegerField(
        default=6, help_text="Replies that wait to be rated, kept so by themselves. 0: only what is asked for."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(fields=["project", "key"], name="one_scale_set_per_key"),
            models.CheckConstraint(condition=Q(raters__gte=1, raters__lte=20), name="one_to_twenty_raters"),
            models.CheckConstraint(
                condition=Q(by_program=False) | Q(is_open=False), name="nobody_is_asked_what_a_program_answers"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class ScaleQuerySet(models.QuerySet["Scale"]):
    def asked(self) -> ScaleQuerySet:
        """The questions that are asked now, in their order."""
        return self.filter(asked_until=None).order_by("scale_set_id", "position", "pk")

    def asked_at(self, moment: datetime) -> ScaleQuerySet:
        """The questions that were asked at a moment, in the words they had then."""
        then = self.filter(Q(asked_until=None) | Q(asked_until__gt=moment), asked_from__lte=moment)
        return then.order_by("scale_set_id", "position", "pk")


class Scale(models.Model):
    """One question in one wording, and its possible values. Never changed: other words are another version.

    What was asked at a moment can so be told for good: each version knows from when and until when it was asked.
    """

    class Kind(models.TextChoices):
        CHOICE = "choice", "One of several answers"
        NUMBERS = "numbers", "A number from 1"
        FLAGS = "flags", "Whatever holds, or none of it"

    scale_set = models.ForeignKey(ScaleSet, on_delete=models.PROTECT, related_name="scales")
    key = models.CharField(max_length=40)
    version = models.PositiveIntegerField(default=1)
    position = models.PositiveSmallIntegerField(help_text="Its place among the questions of its set.")
    name = models.CharField(max_length=60)
    question = models.CharField(max_length=300)
    guidance = models.TextField(blank=True, help_text="What counts, for whoever answers.")
    kind = models.CharField(max_length=7, choices=Kind.choices)
    options = models.JSONField(
        default=list, blank=True, help_text='[{"value": "yes", "words": "Yes"}, …], of choices and flags.'
    )
    steps = models.PositiveSmallIntegerField(null=True, blank=True, help_text="Of numbers: how many.")
    low_words = models.CharField(max_length=60, blank=True, help_text="What 1 means.")
    high_words = models.CharField(max_length=60, blank=True, help_text="What the last number means.")
    asked_after = models.CharField(
        max_length=40, blank=True, help_text="Asked only where an earlier question got one of these values."
    )
    asked_values = models.JSONField(default=list, blank=True)
    implied = models.CharField(max_length=300, blank=True, help_text="The value where it is not asked.")
    positive = models.JSONField(default=list, blank=True, help_text="The values that speak for a reply.")
    positive_votes = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="A reply is called positive where so many …"
    )
    positive_raters = models.PositiveSmallIntegerField(null=True, blank=True, help_text="… of so many people say so.")
    asked_from = models.DateTimeField(default=timezone.now)
    asked_until = models.DateTimeField(null=True, blank=True, help_text="Empty: it is asked now.")

    objects = ScaleQuerySet.as_manager()

    class Meta:
        ordering = ["scale_set", "position", "version"]
        constraints = [
            models.UniqueConstraint(fields=["scale_set", "key", "version"], name="one_scale_per_version"),
            models.UniqueConstraint(
                fields=["scale_set", "key"],
                condition=Q(asked_until__isnull=True),
                name="one_version_of_a_scale_is_asked",
            ),
            models.CheckConstraint(
                condition=Q(kind="numbers", steps__isnull=False, steps__gte=2, steps__lte=9)
                | Q(kind__in=["choice", "flags"], steps__isnull=True),
                name="numbers_have_two_to_nine_steps",
            ),
            models.CheckConstraint(condition=Q(version__gte=1), name="scale_versions_start_at_one"),
            models.CheckConstraint(condition=~Q(question=""), name="a_scale_asks_something"),
            models.CheckConstraint(
                condition=Q(asked_after="", implied="") | ~Q(asked_after="") & ~Q(implied=""),
                name="what_may_not_be_asked_implies_a_value",
            ),
            models.CheckConstraint(
                condition=Q(positive_votes__isnull=True, positive_raters__isnull=True)
                | Q(
                    positive_votes__isnull=False,
                    positive_raters__isnull=False,
                    positive_votes__gte=1,
                    positive_raters__gte=F("positive_votes"),
                ),
                name="positive_votes_are_of_raters",
            ),
            models.CheckConstraint(
                condition=Q(asked_until__isnull=True) | Q(asked_until__gte=F("asked_from")),
                name="a_scale_is_asked_before_it_is_not",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name}, version {self.version}"

    @property
    def choices(self) -> list[tuple[str, str]]:
        """(value, words) of everything that can be chosen; of flags each by itself."""
        if self.kind == self.Kind.NUMBERS:
            return [(str(number), str(number)) for number in range(1, (self.steps or 0) + 1)]
        return [(option["value"], option["words"]) for option in self.options]

    def takes(self, value: str) -> bool:
        """Whether a value is one of this scale's; of flags, those that hold in the order of the scale, or none."""
        known = [one for one, _ in self.choices]
        if self.kind != self.Kind.FLAGS:
            return value in known
        held = value.split(BETWEEN_FLAGS)
        return value == NONE or held == [one for one in known if one in held]

    def in_words(self, value: str) -> str:
        """A value as people read it."""
        if self.kind == self.Kind.NUMBERS:
            return f"{value} of {self.steps}"
        words = dict(self.choices)
        return (
            ", ".join(words.get(one, one) for one in value.split(BETWEEN_FLAGS)) if value != NONE else "None of these"
        )


class RatingQuerySet(models.QuerySet["Rating"]):
    def newest(self) -> RatingQuerySet:
        """The newest revision of each answer, also one that withdrew it."""
        newer = Rating.objects.filter(
            candidate=OuterRef("candidate"),
            scale=OuterRef("scale"),
            annotator_key=OuterRef("annotator_key"),
            revision__gt=OuterRef("revision"),
        )
        return self.filter(~Exists(newer))

    def in_force(self) -> RatingQuerySet:
        """The newest revision of each answer, unless that revision withdrew it."""
        return self.newest().filter(withdrawn=False)

    def counted(self) -> RatingQuerySet:
        """In force and not a late answer that lost its slot."""
        return self.in_force().filter(counts=True)

    def by_people(self) -> RatingQuerySet:
        return self.filter(annotator__isnull=False)


class Rating(models.Model):
    """One value that one person or program gives a reply on one scale. Never changed.

    All that a person says of a reply in one set is sent at once: one submit key, and a rating for each question, those
    not asked with the value that follows.
    """

    candidate = models.ForeignKey(Candidate, on_delete=models.PROTECT, related_name="ratings")
    scale = models.ForeignKey(Scale, on_delete=models.PROTECT, related_name="ratings")
    value = models.CharField(max_length=300, help_text="Of flags those that hold, with commas between, or none.")
    implied = models.BooleanField(default=False, help_text="It was not asked: the value follows from an earlier one.")
    slot = models.ForeignKey(Slot, null=True, blank=True, on_delete=models.PROTECT, related_name="ratings")
    annotator = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="ratings"
    )
    source_import = models.ForeignKey(
        "feedback.Import", null=True, blank=True, on_delete=models.PROTECT, related_name="ratings"
    )
    program = models.CharField(max_length=60, blank=True, help_text="The program that says so.")
    program_version = models.CharField(max_length=60, blank=True)
    annotator_key = models.CharField(
        max_length=130, help_text="u<id> of a person here; the source's own name for an imported one; program/version."
    )
    source = models.JSONField(default=dict, blank=True, help_text="What an import or a program says of it.")
    revision = models.PositiveIntegerField(default=1)
    withdrawn = models.BooleanField(default=False)
    seconds = models.FloatField(
        null=True, blank=True, help_text="Time the page was in view, for all questions about the reply together."
    )
    late = models.BooleanField(default=False, help_text="Sent after the lease lapsed.")
    counts = models.BooleanField(default=True, help_text="False for a late answer whose slot somebody else took.")
    submit_key = models.UUIDField(null=True, blank=True)
    body_hash = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = RatingQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["candidate", "scale", "annotator_key", "revision"], name="one_rating_per_revision"
            ),
            models.UniqueConstraint(fields=["submit_key", "scale"], name="one_rating_per_submit_and_scale"),
            models.CheckConstraint(
                condition=Q(slot__isnull=False, annotator__isnull=False, source_import__isnull=True, program="")
                | Q(slot__isnull=True, annotator__isnull=True, source_import__isnull=False, program="")
                | Q(slot__isnull=True, annotator__isnull=True, source_import__isnull=True) & ~Q(program=""),
                name="a_rating_comes_from_a_slot_an_import_or_a_program",
            ),
            models.CheckConstraint(condition=~Q(value=""), name="a_rating_says_something"),
            models.CheckConstraint(condition=Q(revision__gte=1), name="rating_revisions_start_at_one"),
            models.CheckConstraint(
                condition=Q(seconds__isnull=True) | Q(seconds__gte=0), name="rating_seconds_are_not_negative"
            ),
            models.CheckConstraint(condition=Q(late=True) | Q(counts=True), name="only_late_ratings_may_not_count"),
        ]
        # serves the figures of a scale
        indexes = [models.Index(fields=["scale", "value"], name="rating_of_scale")]

    def __str__(self) -> str:
        return f"rating {self.pk}"
