"""People's work: what wants answers, who holds it, and what they have typed so far."""

from __future__ import annotations

import secrets
from datetime import datetime
from functools import reduce
from operator import or_

from django.apps import apps
from django.conf import settings
from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Coalesce
from django.utils import timezone

from feedback.models.dialogues import Dialogue
from feedback.models.projects import Project, Prompt
from feedback.models.rules import RuleSet


def new_shuffle_seed() -> int:
    return secrets.randbelow(2**31)


def midnight() -> datetime:
    """When today began, by the server's clock."""
    return timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)


def _about_one_of(*names: str) -> Q:
    """Exactly one of these is there."""
    only = (Q(**{f"{name}__isnull": name != one for name in names}) for one in names)
    return reduce(or_, only)


class WorkItem(models.Model):
    """One unit of people's work of one kind, about exactly one thing, wanting so many answers.

    To probe and to judge are about a dialogue together with a rule, to rate about a reply and a set of questions.
    """

    class Kind(models.TextChoices):
        CHAT_AND_RANK = "chat_and_rank", "Chat and rank"
        RANK = "rank", "Rank replies"
        PROBE = "probe", "Probe a rule"
        JUDGE = "judge", "Judge again"
        DEMONSTRATE = "demonstrate", "Demonstrate"
        REVIEW = "review", "Review"
        RATE = "rate", "Rate replies"

    CHATS = ("chat_and_rank", "probe")  # the kinds in which a person writes to the model, in a dialogue they hold
    DEMONSTRATIONS = ("demonstrate", "review")  # the kinds that write a reply, or read one that a person wrote
    ABOUT_RULES = ("probe", "judge")  # the kinds that ask about one rule
    NOT_SENSITIVE = ("chat_and_rank", "rank")  # the kinds about no rule and no probed dialogue; any other may show harm

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="work_items")
    kind = models.CharField(max_length=13, choices=Kind.choices)
    dialogue = models.ForeignKey(Dialogue, null=True, blank=True, on_delete=models.PROTECT, related_name="work_items")
    comparison = models.ForeignKey(
        "feedback.Comparison", null=True, blank=True, on_delete=models.PROTECT, related_name="work_items"
    )
    candidate = models.ForeignKey(
        "feedback.Candidate", null=True, blank=True, on_delete=models.PROTECT, related_name="work_items"
    )
    prompt = models.ForeignKey(Prompt, null=True, blank=True, on_delete=models.PROTECT, related_name="work_items")
    demonstration = models.ForeignKey(
        "feedback.Demonstration",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="work_items",
        help_text="What is reviewed, or written again by who wrote it.",
    )
    rule = models.ForeignKey(
        "feedback.Rule",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="work_items",
        help_text="The rule that is probed or judged.",
    )
    scale_set = models.ForeignKey(
        "feedback.ScaleSet",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="work_items",
        help_text="The questions by which the reply is rated.",
    )
    wanted = models.PositiveSmallIntegerField(default=1, help_text="How many answers it wants.")
    added = models.PositiveSmallIntegerField(
        default=0, help_text="How many of these a manager asked for on top, where people differ."
    )
    priority = models.IntegerField(default=0, help_text="Higher comes first.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    closed_at = models.DateTimeField(null=True, blank=True, help_text="Taken out of the queue, with the reason.")
    closed_because = models.CharField(max_length=200, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=_about_one_of("dialogue", "comparison", "candidate", "prompt", "demonstration"),
                name="a_work_item_is_about_one_thing",
            ),
            models.CheckConstraint(
                condition=~Q(kind="chat_and_rank") | Q(dialogue__isnull=False, wanted=1),
                name="chat_and_rank_is_one_persons_dialogue",
            ),
            models.CheckConstraint(
                condition=~Q(kind="rank") | Q(comparison__isnull=False), name="rank_is_about_a_comparison"
            ),
            models.CheckConstraint(
                condition=Q(kind="probe", dialogue__isnull=False, rule__isnull=False, wanted=1)
                | Q(kind="judge", dialogue__isnull=False, rule__isnull=False)
                | (~Q(kind__in=["probe", "judge"]) & Q(rule__isnull=True)),
                name="probe_and_judge_are_about_a_dialogue_and_a_rule",
            ),
            models.CheckConstraint(
                condition=Q(kind="review", demonstration__isnull=False, wanted=1)
                | ~Q(kind="review") & (Q(demonstration__isnull=True) | Q(kind="demonstrate", wanted=1)),
                name="a_demonstration_is_reviewed_or_written_again_once",
            ),
            models.CheckConstraint(
                condition=Q(kind="rate", candidate__isnull=False, scale_set__isnull=False)
                | ~Q(kind="rate") & Q(scale_set__isnull=True),
                name="to_rate_is_about_a_reply_and_a_scale_set",
            ),
            models.CheckConstraint(condition=Q(wanted__gte=1), name="a_work_item_wants_an_answer"),
            models.CheckConstraint(condition=Q(added__lte=models.F("wanted")), name="added_answers_are_wanted"),
            models.UniqueConstraint(
                fields=["comparison", "kind"],
                condition=Q(comparison__isnull=False),
                name="one_work_item_per_comparison_and_kind",
            ),
            models.UniqueConstraint(
                fields=["demonstration", "kind"],
                condition=Q(demonstration__isnull=False),
                name="one_work_item_per_demonstration_and_kind",
            ),
            models.UniqueConstraint(
                fields=["dialogue", "kind"],
                condition=Q(dialogue__isnull=False, rule__isnull=True),
                name="one_work_item_per_dialogue_and_kind",
            ),
            models.UniqueConstraint(
                fields=["dialogue", "kind", "rule"],
                condition=Q(rule__isnull=False),
                name="one_work_item_per_dialogue_kind_and_rule",
            ),
            models.UniqueConstraint(
                fields=["candidate", "kind", "scale_set"],
                condition=Q(scale_set__isnull=False),
                name="one_work_item_per_reply_and_scale_set",
            ),
        ]
        # serves the search for the next best thing
        indexes = [models.Index(fields=["project", "kind", "closed_at"], name="work_item_open")]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.pk}"

    @property
    def is_chat(self) -> bool:
        """Whether its holder writes to the model, so that what they answer stays open until the dialogue goes on."""
        return self.kind in self.CHATS


# the rules for whose sake what a slot shows may harm: the one that is judged, and the one its dialogue was to break
RULES_MET = ("work_item__rule", "work_item__dialogue__probe__rule", "work_item__candidate__dialogue__probe__rule")
SHOWS_SENSITIVE = reduce(or_, (Q(**{f"{rule}__is_sensitive": True}) for rule in RULES_MET))


class SlotQuerySet(models.QuerySet["Slot"]):
    def given_to(self, user) -> SlotQuerySet:
        """Every slot ever handed to a person, also lapsed ones: a late answer is kept."""
        return self.filter(annotator=user)

    def held_by(self, user, now: datetime | None = None) -> SlotQuerySet:
        return self.filter(annotator=user, state=Slot.State.HELD, lease_until__gte=now or timezone.now())

    def lapsed_by(self, now: datetime) -> SlotQuerySet:
        return self.filter(state=Slot.State.HELD, lease_until__lt=now)

    def live(self) -> SlotQuerySet:
        return self.filter(state__in=Slot.LIVE)

    def claimable_by(self, user, kind: str = "") -> SlotQuerySet:
        """Free slots of open work that a member may take.

        Nothing they hold, answered or skipped (what lapsed under them they may take up again), no reply to rank and no
        probe to judge that they have judged or asked for themselves, no dialogue that somebody else opened and has not
        begun, and nobody else's probe; no demonstration to review where a text of theirs stands. No question by a
        retired rule, besides those of a blind set. Nothing that shows what they did not agree to read, or have had
        enough of today.

        kind  of work, where only one is wanted: what cannot matter to it is left out of the question
        """
        free = self.claimable_if_agreed_by(user, kind)
        return free if kind in WorkItem.NOT_SENSITIVE else free.agreed_by(user).within_daily_cap_of(user)

    def claimable_if_agreed_by(self, user, kind: str = "") -> SlotQuerySet:
        """What a member may take, or might once they agree to read such things, and on a day with less of them."""
        touched = Slot.objects.filter(
            work_item=OuterRef("work_item"), annotator=user, state__in=["held", "filled", "skipped"]
        )
        free: SlotQuerySet = self.filter(
            ~Exists(touched),
            state=Slot.State.FREE,
            work_item__closed_at=None,
            work_item__project__archived_at=None,
            work_item__project__memberships__user=user,
            work_item__project__memberships__is_active=True,
        )
        if kind:
            free = free.filter(work_item__kind=kind)
        if kind in {"", *WorkItem.CHATS}:
            free = free._to_chat_begun_or_own(user)
        if kind in {"", WorkItem.Kind.JUDGE}:
            free = free._to_judge_still_asked()._judging_independent_of(user)
        if kind in {"", *WorkItem.DEMONSTRATIONS}:
            free = free._to_demonstrate_open_and_theirs(user)._demonstrating_independent_of(user)
        if kind in {"", WorkItem.Kind.RANK}:
            free = free._ranking_independent_of(user)
        if kind in {"", WorkItem.Kind.RATE}:
            free = free._to_rate_open(user)
        return free

    def _to_chat_begun_or_own(self, user) -> SlotQuerySet:
        """Of dialogues, those that a person opened; to chat and rank also those that have a prompt, or nobody yet."""
        anybodys = Q(work_item__dialogue__prompt__isnull=False) | Q(work_item__dialogue__author=None)
        return self.filter(
            ~Q(work_item__kind__in=WorkItem.CHATS)
            | Q(work_item__dialogue__author=user)
            | Q(work_item__kind=WorkItem.Kind.CHAT_AND_RANK) & anybodys
        )

    def _to_judge_still_asked(self) -> SlotQuerySet:
        """Without questions by a retired rule, or of a project that has closed its probes; blind sets are asked."""
        return self.filter(
            ~Q(work_item__kind=WorkItem.Kind.JUDGE)
            | Q(work_item__dialogue__kind=Dialogue.Kind.EVALUATION)
            | Q(work_item__project__probes_open=True) & ~Q(work_item__rule__rule_set__state=RuleSet.State.RETIRED)
        )

    def _to_demonstrate_open_and_theirs(self, user) -> SlotQuerySet:
        """Without demonstrations where a project has closed them, and what another person began or has to mend."""
        anybodys = Q(work_item__demonstration=None) & (
            Q(work_item__dialogue__author=None) | Q(work_item__dialogue__author=user)
        )
        to_mend = Q(work_item__kind=WorkItem.Kind.DEMONSTRATE, work_item__demonstration__annotator=user)
        to_review = Q(work_item__kind=WorkItem.Kind.REVIEW)
        return self.filter(
            ~Q(work_item__kind__in=WorkItem.DEMONSTRATIONS)
            | Q(work_item__project__demonstrations_open=True) & (anybodys | to_mend | to_review)
        )

    def _demonstrating_independent_of(self, user) -> SlotQuerySet:
        """Without reviews in a dialogue where a text of theirs stands or is written, and the other way round.

        So nobody reviews their own text, nor writes one after they have read another's.
        """
        texts = apps.get_model("feedback", "Demonstration").objects.in_force()
        # by their key, and items before slots: whoever has done much is not looked through for each free slot
        stands = texts.filter(dialogue=OuterRef("work_item__demonstration__dialogue"), annotator_key=f"u{user.pk}")
        given = Slot.objects.filter(work_item=OuterRef("pk"), annotator=user)
        writes = WorkItem.objects.filter(
            Exists(given.filter(state=Slot.State.HELD)),
            kind=WorkItem.Kind.DEMONSTRATE,
            dialogue=OuterRef("work_item__demonstration__dialogue"),
        )
        read = WorkItem.objects.filter(
            Exists(given), kind=WorkItem.Kind.REVIEW, demonstration__dialogue=OuterRef("work_item__dialogue")
        )
        return self.exclude(Exists(stands) | Exists(writes), work_item__kind=WorkItem.Kind.REVIEW).exclude(
            Exists(read), work_item__kind=WorkItem.Kind.DEMONSTRATE, work_item__demonstration=None
        )

    def _to_rate_open(self, user) -> SlotQuerySet:
        """Without replies to rate by a set that is closed, or that this person has rated by it."""
        rated = (
            apps.get_model("feedback", "Rating")
            .objects.in_force()
            .filter(
                annotator_key=f"u{user.pk}",
                candidate=OuterRef("work_item__candidate"),
                scale__scale_set=OuterRef("work_item__scale_set"),
            )
        )
        return self.exclude(Q(work_item__scale_set__is_open=False) | Exists(rated), work_item__kind=WorkItem.Kind.RATE)

    def showing_sensitive(self) -> SlotQuerySet:
        """Slots whose dialogue may show what harms: a sensitive rule is judged in it, or was probed in it."""
        return self.filter(SHOWS_SENSITIVE)

    def agreed_by(self, user) -> SlotQuerySet:
        """Without what a person did not agree to read: the themes of sensitive rules that are probed or judged."""
        for rule in RULES_MET:
            self = self.filter(
                ~Q(**{f"{rule}__is_sensitive": True})
                | Exists(
                    apps.get_model("feedback", "Consent").objects.in_force(
                        user=user,
                        project=OuterRef("work_item__project"),
                        theme=OuterRef(f"{rule}__theme"),
                        wording__contains=OuterRef(f"{rule}__warning"),
                    )
                )
            )
        return self

    def within_daily_cap_of(self, user) -> SlotQuerySet:
        """Without dialogues about sensitive rules once a person was given as many today as the project allows.

        Another rule of a dialogue they have read today is no further one.
        """
        today = (
            Slot.objects.given_today_to(user)
            .showing_sensitive()
            .annotate(read=Coalesce("work_item__dialogue", "work_item__candidate__dialogue"))
            .values_list("work_item__project", "work_item__project__sensitive_per_day", "read")
        )
        given = set(today)  # few: read once, not per slot looked at
        most = {project: cap for project, cap, _ in given}
        full = [project for project, cap in most.items() if sum(row[0] == project for row in given) >= cap]
        room = ~Q(work_item__project__in=full) & Q(work_item__project__sensitive_per_day__gt=0)
        read = [row[2] for row in given]
        is_read = Q(work_item__dialogue__in=read) | Q(work_item__candidate__dialogue__in=read)
        return self.filter(~SHOWS_SENSITIVE | room | is_read)

    def given_today_to(self, user) -> SlotQuerySet:
        """What was handed to a person since midnight, by the server's clock; what they skipped among it."""
        return self.filter(annotator=user, claimed_at__gte=midnight())

    def _judging_independent_of(self, user) -> SlotQuerySet:
        """Without probes to judge that this person made or took part in, or judges by the same rule in any version.

        Nor what comes from a dialogue they skipped: who did not want to read it is not asked again.
        """
        given = Slot.objects.filter(annotator=user, work_item__dialogue=OuterRef("work_item__dialogue"))
        in_hand = Q(state=Slot.State.HELD, work_item__rule__key=OuterRef("work_item__rule__key"))
        not_to_be_asked = given.filter(~Q(work_item__kind=WorkItem.Kind.JUDGE) | Q(state=Slot.State.SKIPPED) | in_hand)
        judged = apps.get_model("feedback", "RuleJudgement").objects.filter(
            annotator_key=f"u{user.pk}",
            dialogue=OuterRef("work_item__dialogue"),
            rule__key=OuterRef("work_item__rule__key"),
        )
        return self.exclude(
            Q(work_item__dialogue__author=user) | Exists(not_to_be_asked) | Exists(judged),
            work_item__kind=WorkItem.Kind.JUDGE,
        )

    def _ranking_independent_of(self, user) -> SlotQuerySet:
        """Without replies to rank that this person has ranked already, or in a dialogue they opened or took part in.

        Nor any from before a question they were given in the same dialogue: it told them which reply was put first.
        """
        took_part = Slot.objects.filter(work_item=OuterRef("pk"), annotator=user)
        chatted = WorkItem.objects.filter(Exists(took_part), dialogue=OuterRef("work_item__comparison__dialogue"))
        ranked = apps.get_model("feedback", "Ranking").objects.filter(
            annotator_key=f"u{user.pk}", comparison=OuterRef("work_item__comparison")
        )
        return self.exclude(
            Q(work_item__comparison__dialogue__author=user) | Exists(chatted) | _asked_later(user) | Exists(ranked),
            work_item__kind=WorkItem.Kind.RANK,
        )

    def known_to(self, user) -> SlotQuerySet:
        """Replies to rank of which this person could read in a later question how they were ranked."""
        return self.filter(_asked_later(user), work_item__kind=WorkItem.Kind.RANK)


def _asked_later(user) -> Exists:
    """Whether somebody was ever given a question about a later turn of the same dialogue."""
    given = Slot.objects.filter(work_item=OuterRef("pk"), annotator=user)
    later = WorkItem.objects.filter(
        Exists(given),
        comparison__dialogue=OuterRef("work_item__comparison__dialogue"),
        comparison__after_position__gt=OuterRef("work_item__comparison__after_position"),
    )
    return Exists(later)


class Slot(models.Model):
    """One wanted answer to a work item, held by one person for a while."""

    class State(models.TextChoices):
        FREE = "free", "free"
        HELD = "held", "held"
        FILLED = "filled", "filled"
        LAPSED = "lapsed", "lapsed"
        SKIPPED = "skipped", "skipped"

    LIVE = ("free", "held", "filled")  # the states that count against what a work item wants

    work_item = models.ForeignKey(WorkItem, on_delete=models.PROTECT, related_name="slots")
    number = models.PositiveSmallIntegerField(help_text="1 to as many as the work item wants.")
    state = models.CharField(max_length=7, choices=State.choices, default=State.FREE)
    annotator = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="slots"
    )
    lease_token = models.UUIDField(null=True, blank=True, editable=False)
    lease_until = models.DateTimeField(null=True, blank=True)
    shuffle_seed = models.BigIntegerField(default=new_shuffle_seed, editable=False)
    claimed_at = models.DateTimeField(null=True, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)
    closed_because = models.CharField(max_length=200, blank=True, help_text="Why it was skipped or ended.")

    objects = SlotQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["work_item", "number"],
                condition=Q(state__in=["free", "held", "filled"]),
                name="one_live_slot_per_number",
            ),
            models.UniqueConstraint(
                fields=["work_item", "annotator"],
                condition=Q(state__in=["free", "held", "filled"], annotator__isnull=False),
                name="one_live_slot_per_annotator",
            ),
            models.CheckConstraint(
                condition=Q(state="free", annotator__isnull=True, lease_until__isnull=True, lease_token__isnull=True)
                | Q(state="held", annotator__isnull=False, lease_until__isnull=False, lease_token__isnull=False)
                | Q(state__in=["filled", "lapsed", "skipped"], annotator__isnull=False, closed_at__isnull=False),
                name="a_slot_is_free_or_somebodys",
            ),
            models.CheckConstraint(condition=Q(number__gte=1), name="slot_numbers_start_at_one"),
        ]
        indexes = [
            models.Index(fields=["state", "lease_until"], name="slot_lapsing"),  # serves lapse_slots
            models.Index(fields=["annotator", "state"], name="slot_of_person"),  # serves home
            models.Index(fields=["work_item", "annotator"], name="slot_of_item_and_person"),  # serves claimable_by
        ]

    def __str__(self) -> str:
        return f"slot {self.number} of work item {self.work_item_id}"


class Draft(models.Model):
    """What a person has typed and not yet sent. Kept when the lease lapses."""

    slot = models.OneToOneField(Slot, on_delete=models.PROTECT, related_name="draft")
    body = models.JSONField(default=dict)
    version = models.PositiveIntegerField(default=1)
    saved_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"draft of slot {self.slot_id}"
