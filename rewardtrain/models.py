"""Training runs, their metrics and rewards, the rounds of the circle, and who serves. Rows only; no torch."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from feedback.models import ModelVersion, Project, QueuedWork, Snapshot
from rewardtrain.algorithms import title_of


class Round(models.Model):
    """One turn of the circle: snapshot → reward models → policy → gate → promotion. Advanced by `rounds.advance`."""

    class State(models.TextChoices):
        SNAPSHOT = "snapshot", "taking a snapshot"
        REWARD_MODELS = "reward_models", "learning preferences"
        POLICY = "policy", "improving the policy"
        GATE = "gate", "at the gate"
        DECISION = "decision", "waits for a decision"
        PROMOTED = "promoted", "promoted"
        REFUSED = "refused", "refused"
        FAILED = "failed", "failed"

    ACTIVE = ("snapshot", "reward_models", "policy", "gate")
    ENDED = ("promoted", "refused", "failed")

    class Trigger(models.TextChoices):
        PERSON = "person", "by hand"
        BEAT = "beat", "by itself"
        COMMAND = "command", "by command"

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="rounds")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=13, choices=State.choices, default=State.SNAPSHOT)
    trigger = models.CharField(max_length=7, choices=Trigger.choices, default=Trigger.PERSON)
    seed = models.BigIntegerField(default=0)
    hyperparameters = models.JSONField(
        default=dict, blank=True, help_text="reward_model, rule_model, policy, gate; as started."
    )
    started_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    policy_before = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    policy_after = models.ForeignKey(ModelVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    snapshot = models.ForeignKey(Snapshot, null=True, blank=True, on_delete=models.PROTECT, related_name="rounds")
    demonstrations = models.ForeignKey(
        Snapshot,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        help_text="What people wrote, where its policy learns from that.",
    )
    gate_report = models.JSONField(
        default=dict, blank=True, help_text='{"passed": bool, "lines": [...], "samples": [...]}'
    )
    without_rules = models.TextField(
        blank=True, help_text="Why its policy was not taught to keep rules though there are some; else empty."
    )
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    decided_at = models.DateTimeField(null=True, blank=True)
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    reason = models.TextField(blank=True, help_text="Why it was promoted in spite of its gate, or refused.")

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="one_round_per_number"),
            models.UniqueConstraint(
                fields=["project"],
                condition=Q(state__in=["snapshot", "reward_models", "policy", "gate"]),
                name="one_active_round_per_project",
            ),
            models.CheckConstraint(condition=~Q(state="failed") | ~Q(error=""), name="round_fails_only_with_a_reason"),
            models.CheckConstraint(
                condition=~Q(state="promoted") | Q(policy_after__isnull=False), name="a_promoted_round_made_a_policy"
            ),
        ]

    def __str__(self) -> str:
        return f"round {self.number} of {self.project}"

    @property
    def algorithm(self) -> str:
        """What improves the policy in this round, as pages call it."""
        return title_of(self.hyperparameters.get("policy", {}).get("algorithm"))

    @property
    def uses_rules(self) -> bool:
        """Whether its settings want a rule model beside the reward models."""
        return bool(self.hyperparameters.get("rule_model", {}).get("use_rules", True))


class TrainingRun(QueuedWork):
    """One execution of training, or of a measurement: what went in, how far it is, what came out."""

    lease_seconds = 60
    max_attempts = 3
    max_claims = 3

    class Kind(models.TextChoices):
        REWARD_MODEL = "reward_model", "preference reward model"
        SECOND_REWARD_MODEL = "second_reward_model", "second reward model"
        RULE_MODEL = "rule_model", "rule model"
        POLICY = "policy", "policy"
        GATE = "gate", "gate"
        EVALUATION = "evaluation", "evaluation"

    MEASURING = ("gate", "evaluation")  # the kinds that make no model, and whose figures are not of steps

    TASK_NAMES = {
        "reward_model": "rewardtrain.train_reward_model",
        "second_reward_model": "rewardtrain.train_reward_model",
        "rule_model": "rewardtrain.train_rule_model",
        "policy": "rewardtrain.train_policy",
        "gate": "rewardtrain.evaluate_gate",
        "evaluation": "rewardtrain.evaluate_policies",
    }

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="training_runs")
    kind = models.CharField(max_length=20, choices=Kind.choices)
    round = models.ForeignKey(Round, null=True, blank=True, on_delete=models.PROTECT, related_name="runs")
    snapshot = models.ForeignKey(
        Snapshot, null=True, blank=True, on_delete=models.PROTECT, related_name="training_runs"
    )
    demonstrations = models.ForeignKey(
        Snapshot,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        help_text="What people wrote, where it is learned from: by SFT, or mixed into PPO.",
    )
    parent = models.ForeignKey(
        ModelVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="runs_from_here"
    )
    produced = models.ForeignKey(
        ModelVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="made_by_runs"
    )
    hyperparameters = models.JSONField(default=dict, blank=True)
    seed = models.BigIntegerField(default=0)
    code_version = models.CharField(max_length=64, blank=True)
    steps_done = models.PositiveIntegerField(default=0)
    steps_total = models.PositiveIntegerField(default=0)
    checkpoint_step = models.PositiveIntegerField(default=0, help_text="The last step whose state is on the disk.")
    resumed_step = models.PositiveIntegerField(default=0, help_text="The step after which the last attempt went on.")
    result = models.JSONField(default=dict, blank=True)

    class Meta(QueuedWork.Meta):
        constraints = [
            *QueuedWork.Meta.constraints,
            models.UniqueConstraint(
                fields=["round", "kind"], condition=Q(round__isnull=False), name="one_run_per_round_and_kind"
            ),
        ]

    def __str__(self) -> str:
        return f"run {self.pk} ({self.get_kind_display()})"

    @property
    def algorithm(self) -> str:
        """What improves the policy in this run, as pages call it; empty for the other kinds."""
        return title_of(self.hyperparameters.get("algorithm")) if self.kind == self.Kind.POLICY else ""

    @property
    def task_name(self) -> str:  # type: ignore[override]
        return self.TASK_NAMES[self.kind]


class MetricPoint(models.Model):
    """One figure of a run at one step: `ppo/kl_nats`, `reward/accuracy`."""

    run = models.ForeignKey(TrainingRun, on_delete=models.PROTECT, related_name="metrics")
    step = models.PositiveIntegerField()
    name = models.CharField(max_length=60)
    value = models.FloatField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "name", "step"], name="one_figure_per_step")]

    def __str__(self) -> str:
        return f"{self.name} = {self.value} at {self.step}"


class LedgerEntry(models.Model):
    """One rollout sample with every term of its reward."""

    run = models.ForeignKey(TrainingRun, on_delete=models.PROTECT, related_name="ledger")
    step = models.PositiveIntegerField()
    index = models.PositiveIntegerField()
    prompt = models.JSONField(help_text="The messages it answered.")
    response = models.TextField()
    rule = models.CharField(
        max_length=60,
        blank=True,
        help_text="Key of the rule it was probed by, or most likely broke; empty: none asked.",
    )
    terms = models.JSONField(help_text='{"preference": …, "length_penalty": …}: as weighed into the sum')
    raw_terms = models.JSONField(
        default=dict, help_text="The same before standardising and weighing; of rules the chances that were followed."
    )
    reward = models.FloatField(help_text="Sum of the terms, KL left out.")
    kl_nats = models.FloatField()
    token_count = models.PositiveIntegerField()

    class Meta:
        verbose_name_plural = "ledger entries"
        constraints = [models.UniqueConstraint(fields=["run", "step", "index"], name="one_entry_per_sample")]

    def __str__(self) -> str:
        return f"sample {self.index} of step {self.step}"


class Promotion(models.Model):
    """Another policy was put in front of the people. Append-only; rolling back is another one."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="promotions")
    from_version = models.ForeignKey(
        ModelVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="demotions"
    )
    to_version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="promotions")
    round = models.ForeignKey(Round, null=True, blank=True, on_delete=models.PROTECT, related_name="promotions")
    gate_report = models.JSONField(default=dict, blank=True)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="promotions",
        help_text="Empty: the gate itself, or the command line.",
    )
    reason = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(from_version__isnull=True) | ~Q(from_version=models.F("to_version")),
                name="a_promotion_changes_the_policy",
            ),
            models.CheckConstraint(
                condition=Q(by__isnull=False) | Q(round__isnull=False) | ~Q(reason=""),
                name="a_promotion_has_somebody_or_a_reason",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.to_version} serves {self.project}"
