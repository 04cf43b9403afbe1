"""What waits for a person, and what they did: the figures of their home page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from statistics import median

from django.db.models import QuerySet
from django.utils import timezone

from feedback import slots
from feedback.models import Dialogue, Membership, Project, Ranking, Slot, User, WorkItem

KINDS = {  # the kinds of work there are pages for, and what each asks
    WorkItem.Kind.CHAT_AND_RANK: ("Chat and rank", "Write to the model, rank its replies, write on from the best"),
    WorkItem.Kind.RANK: ("Rank replies", "A dialogue already written: which of its replies is best"),
}
RECENT = 200  # answers that say how long one usually takes


@dataclass(frozen=True)
class Waiting:
    """One kind of work as it waits for a person."""

    kind: str
    name: str
    what: str
    count: int
    usual_seconds: float | None


@dataclass(frozen=True)
class Day:
    """A day of this week as an egg: answers given, today, or still to come."""

    date: date
    answers: int
    is_today: bool

    @property
    def state(self) -> str:
        if self.answers:
            return "now" if self.is_today else "done"
        return "todo"


def waiting_work(user: User, project: Project) -> list[Waiting]:
    """Per kind of work: how many pieces this person may take, and how long one usually takes."""
    return [
        Waiting(
            kind=kind,
            name=name,
            what=what,
            count=waiting_count(user, project, kind),
            usual_seconds=usual_seconds(project, kind),
        )
        for kind, (name, what) in KINDS.items()
    ]


def waiting_count(user: User, project: Project, kind: str) -> int:
    """How many pieces of a kind this person may take; one that wants several people's answers is one piece."""
    free = slots.waiting_slots(user=user, project=project, kind=kind)
    return free.order_by().values("work_item").distinct().count()


def usual_seconds(project: Project, kind: str) -> float | None:
    """The median time one ranking took lately; None before there are a few."""
    given = Ranking.objects.filter(
        slot__work_item__project=project, slot__work_item__kind=kind, seconds__gt=0, withdrawn=False
    )
    lately = [seconds or 0.0 for seconds in given.order_by("-pk").values_list("seconds", flat=True)[:RECENT]]
    return median(lately) if len(lately) >= 3 else None


@dataclass(frozen=True)
class Given:
    """An answer a person gave, as their own list shows it."""

    comparison_id: int
    opening: str
    at: datetime
    words: str


@dataclass(frozen=True)
class Today:
    """What a person did since midnight."""

    answers: int
    seconds: float
    not_counted: int


def own_answers(user: User, project: Project, most: int = 100) -> list[Given]:
    """A person's answers in force, newest first."""
    mine = Ranking.objects.in_force().filter(annotator=user, comparison__dialogue__project=project)
    newest = mine.select_related("comparison__dialogue__prompt").prefetch_related("entries").order_by("-pk")[:most]
    return [
        Given(
            comparison_id=ranking.comparison_id,
            opening=_opening(ranking.comparison.dialogue),
            at=ranking.created_at,
            words=_in_words(ranking),
        )
        for ranking in newest
    ]


def _in_words(ranking: Ranking) -> str:
    """What was answered: "Ranked, 1 tie", and whether it came late."""
    places = list(ranking.ranks().values())
    ties = len(places) - len(set(places))
    said = ["None was good" if ranking.all_bad else "Ranked"]
    said += [f"{ties} tie{'s' if ties > 1 else ''}"] * bool(ties)
    said += ["late" if ranking.counts else "late, not counted"] * ranking.late
    return ", ".join(said)


def today_of(user: User, project: Project) -> Today:
    start = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    given = list(_answered_since(user, project, start).values_list("seconds", "counts"))
    return Today(
        answers=len(given),
        seconds=sum(seconds or 0.0 for seconds, _ in given),
        not_counted=sum(not counts for _, counts in given),
    )


def week_of(user: User, project: Project) -> list[Day]:
    """The days of this week, Monday first. No streaks: a day without work is a day without work."""
    today = timezone.localdate()
    monday = today - timedelta(days=today.weekday())
    start = timezone.make_aware(datetime.combine(monday, datetime.min.time()))
    when = [
        timezone.localtime(at).date()
        for at in _answered_since(user, project, start).values_list("created_at", flat=True)
    ]
    days = [monday + timedelta(days=offset) for offset in range(7)]
    return [Day(date=day, answers=when.count(day), is_today=day == today) for day in days]


def _answered_since(user: User, project: Project, start: datetime) -> QuerySet[Ranking]:
    return Ranking.objects.in_force().filter(
        annotator=user, comparison__dialogue__project=project, created_at__gte=start
    )


def in_hand(user: User, project: Project) -> Slot | None:
    """The piece a person left half done, oldest first."""
    return (
        slots.held_slots(user, project)
        .select_related("work_item__dialogue__prompt", "work_item__comparison__dialogue__prompt", "draft")
        .first()
    )


def managers_of(project: Project) -> list[User]:
    """Whom to ask."""
    members = project.memberships.filter(role=Membership.Role.MANAGER, is_active=True).select_related("user")
    return [member.user for member in members]


def opening_of(slot: Slot) -> str:
    """The first words of the dialogue a slot is about; empty where nobody has written yet."""
    item = slot.work_item
    dialogue = item.dialogue or (item.comparison.dialogue if item.comparison else None)
    return _opening(dialogue) if dialogue is not None else ""


def _opening(dialogue: Dialogue) -> str:
    return dialogue.prompt.opening if dialogue.prompt is not None else ""


def minutes_left(slot: Slot) -> int:
    """Whole minutes until a held slot lapses, at least one."""
    if slot.lease_until is None:
        return 0
    return max(1, round((slot.lease_until - timezone.now()).total_seconds() / 60))
