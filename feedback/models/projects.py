"""A body of work, who takes part in it, and what opens its dialogues."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from feedback import settings_checks

MOST_DRAWS = 16  # for one reply that is shown
MOST_WEIGHT = 100  # of a prompt: so often it may be drawn where another is drawn once

if TYPE_CHECKING:
    from feedback.models.speakers import ModelVersion


class ProjectQuerySet(models.QuerySet["Project"]):
    def open(self) -> ProjectQuerySet:
        return self.filter(archived_at=None)

    def with_member(self, user) -> ProjectQuerySet:
        """Projects a person takes part in, in any role."""
        return self.filter(memberships__user=user, memberships__is_active=True).distinct()

    def managed_by(self, user) -> ProjectQuerySet:
        """Projects a person may steer: superusers all, others where their membership says manager."""
        if user.is_superuser and user.is_active:
            return self.all()
        return self.filter(
            memberships__user=user, memberships__is_active=True, memberships__role=Membership.Role.MANAGER
        ).distinct()


def new_export_key() -> str:
    return secrets.token_hex(32)


class Project(models.Model):
    """A body of work: its guidelines, its settings, and the policy that speaks in it."""

    class Evidence(models.TextChoices):
        OFF = "", "nowhere"
        CORPUS = "corpus", "in the project's corpus"
        SERVICE = "service", "by the installation's search service"

    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=120)
    guidelines = models.TextField(blank=True, help_text="Shown to annotators beside the work. Markdown.")
    policy = models.ForeignKey(
        "feedback.ModelVersion",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        help_text="The model that serves. Changes only by a promotion.",
    )
    probed_policy = models.ForeignKey(
        "feedback.ModelVersion",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        help_text="The policy that people probe; empty: the one that serves.",
    )
    is_rehearsal = models.BooleanField(default=False, help_text="Worked by simulated annotators; never mixed in.")
    candidates_per_turn = models.PositiveSmallIntegerField(
        default=4, validators=[MinValueValidator(2), MaxValueValidator(9)], help_text="K: replies per turn, 2 to 9."
    )
    answers_per_comparison = models.PositiveSmallIntegerField(
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(20)],
        help_text="How many annotators rank the same replies (rank only).",
    )
    probes_open = models.BooleanField(
        default=False, help_text="Annotators probe the rules of the published rule set, and judge each other's probes."
    )
    replies_per_probe_turn = models.PositiveSmallIntegerField(
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(9)],
        help_text="1: a plain chat; 2 to 9: the replies are ranked as well.",
    )
    judges_per_probe = models.PositiveSmallIntegerField(
        default=2, validators=[MaxValueValidator(20)], help_text="How many others judge each probe."
    )
    other_rules_judged = models.PositiveSmallIntegerField(
        default=2,
        validators=[MaxValueValidator(20)],
        help_text="By how many further rules each probe is judged, so that rules that were kept are known.",
    )
    sensitive_per_day = models.PositiveSmallIntegerField(
        default=12, help_text="Dialogues about sensitive rules that one person may be given in a day."
    )
    demonstrations_open = models.BooleanField(
        default=False, help_text="Annotators write the replies they would want, and review each other's."
    )
    demonstrations_per_prompt = models.PositiveSmallIntegerField(
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(20)],
        help_text="How many people write a reply to the same prompt.",
    )
    ready_demonstrations = models.PositiveSmallIntegerField(
        default=6, help_text="Prompts that wait for a written reply, kept so by themselves. 0: only what is asked for."
    )
    evidence = models.CharField(
        max_length=7,
        choices=Evidence.choices,
        default=Evidence.OFF,
        blank=True,
        help_text="Half of the replies search here first, and show what they found.",
    )
    max_turns = models.PositiveSmallIntegerField(
        default=5, validators=[MinValueValidator(1), MaxValueValidator(50)], help_text="User turns per dialogue."
    )
    ready_dialogues = models.PositiveSmallIntegerField(
        default=6, help_text="Fresh dialogues whose first replies are made ahead of time."
    )
    free_dialogues = models.BooleanField(default=True, help_text="Annotators may open dialogues of their own.")
    lease_minutes = models.PositiveSmallIntegerField(default=30, validators=[MinValueValidator(1)])
    temperature = models.FloatField(default=1.0, help_text="Sampling temperature of candidates.")
    max_new_tokens = models.PositiveIntegerField(default=64, validators=[MinValueValidator(1)])
    draws_per_reply = models.PositiveSmallIntegerField(
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(MOST_DRAWS)],
        help_text="Of so many draws models choose each reply shown. 1: off; 8 takes up to 8 times as long.",
    )
    round_every = models.PositiveIntegerField(
        default=0, help_text="Start a round by itself after so many new comparisons; 0: never."
    )
    promote_at_once = models.BooleanField(default=False, help_text="A policy that passed its gate serves at once.")
    hyperparameters = models.JSONField(
        default=dict, blank=True, help_text="What differs from the defaults: reward_model, policy, gate."
    )
    export_key = models.CharField(
        max_length=64,
        default=new_export_key,
        editable=False,
        help_text="Secret from which the pseudonyms in exports are made; never leaves the database.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    archived_at = models.DateTimeField(null=True, blank=True)

    objects = ProjectQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(candidates_per_turn__gte=2, candidates_per_turn__lte=9), name="two_to_nine_candidates"
            ),
            models.CheckConstraint(condition=Q(answers_per_comparison__gte=1), name="a_comparison_wants_an_answer"),
            models.CheckConstraint(
                condition=Q(replies_per_probe_turn__gte=1, replies_per_probe_turn__lte=9),
                name="one_to_nine_replies_per_probe_turn",
            ),
            models.CheckConstraint(
                condition=Q(demonstrations_per_prompt__gte=1), name="a_prompt_wants_a_demonstration"
            ),
            models.CheckConstraint(
                condition=Q(evidence__in=["", "corpus", "service"]), name="evidence_is_sought_somewhere_known"
            ),
            models.CheckConstraint(condition=Q(temperature__gte=0), name="temperature_is_not_negative"),
            models.CheckConstraint(
                condition=Q(draws_per_reply__gte=1, draws_per_reply__lte=MOST_DRAWS),
                name="one_to_sixteen_draws_per_reply",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def policy_to_probe(self) -> ModelVersion | None:
        """The policy that people probe: the chosen one while it is in use, else the one that serves."""
        chosen = self.probed_policy
        return chosen if chosen is not None and chosen.state != chosen.State.RETIRED else self.policy

    def clean(self) -> None:
        """Refuse settings that rounds could not work with. Raises ValidationError, for the form they are written in.

        Not a probed policy that was retired since it was chosen: the one that serves is probed instead.
        """
        if found := settings_checks.problems(self.hyperparameters):
            raise ValidationError({"hyperparameters": found})

    def why_not_probed(self, policy: ModelVersion) -> str:
        """Why a model cannot be what people probe here, saying what to do; empty when it can."""
        if policy.project_id != self.pk or policy.kind != policy.Kind.POLICY:
            return "Choose a policy of this project: nothing else answers people here."
        if policy.state == policy.State.RETIRED:
            return "This policy is retired and answers nobody. Choose another one, or the one that serves."
        return ""


class Membership(models.Model):
    """A person's role in a project."""

    class Role(models.TextChoices):
        ANNOTATOR = "annotator", "Annotator"
        REVIEWER = "reviewer", "Reviewer"
        MANAGER = "manager", "Manager"

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="memberships")
    role = models.CharField(max_length=9, choices=Role.choices, default=Role.ANNOTATOR)
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "user"], name="one_membership_per_person")]

    def __str__(self) -> str:
        return f"{self.user} in {self.project} as {self.get_role_display().lower()}"


class PromptGroup(models.Model):
    """What must stay on one side of the split. A prompt has no split of its own, so a group cannot be torn apart."""

    class Split(models.TextChoices):
        TRAIN = "train", "train"
        VALIDATION = "validation", "validation"
        TEST = "test", "test"

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="prompt_groups")
    key = models.CharField(max_length=200)
    split = models.CharField(max_length=10, choices=Split.choices)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "key"], name="one_group_per_key"),
            models.CheckConstraint(condition=Q(split__in=["train", "validation", "test"]), name="split_is_known"),
        ]

    def __str__(self) -> str:
        return f"{self.key} ({self.split})"


class PromptQuerySet(models.QuerySet["Prompt"]):
    def of_split(self, split: str) -> PromptQuerySet:
        return self.filter(group__split=split)

    def active(self) -> PromptQuerySet:
        return self.filter(is_active=True)


class Prompt(models.Model):
    """What opens a dialogue: its first messages, where they come from, and their group."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="prompts")
    group = models.ForeignKey(PromptGroup, on_delete=models.PROTECT, related_name="prompts")
    messages = models.JSONField(help_text='[{"role": "user", "content": "…"}], ending with a user message')
    fingerprint = models.CharField(max_length=64, help_text="Of the opening: system and first user turn, normalised.")
    content_hash = models.CharField(max_length=64, help_text="Of all messages, exactly.")
    source = models.CharField(max_length=80, blank=True)
    details = models.JSONField(default=dict, blank=True, help_text="What the source says of it, kept as it was.")
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="prompts"
    )
    is_active = models.BooleanField(default=True, help_text="Offered to annotators as an opening.")
    weight = models.FloatField(
        default=1.0,
        validators=[MinValueValidator(0), MaxValueValidator(MOST_WEIGHT)],
        help_text="How often it is drawn beside the others: 2 twice as often, 0 never.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = PromptQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "content_hash"], name="a_prompt_is_stored_once"),
            models.CheckConstraint(
                condition=Q(weight__gte=0, weight__lte=MOST_WEIGHT), name="a_prompt_weighs_nought_to_a_hundred"
            ),
        ]
        indexes = [models.Index(fields=["project", "fingerprint"], name="prompt_by_opening")]  # serves add_prompt

    def __str__(self) -> str:
        return self.opening[:80]

    @property
    def split(self) -> str:
        return self.group.split

    @property
    def opening(self) -> str:
        """The first user message."""
        return next((message["content"] for message in self.messages if message["role"] == "user"), "")
