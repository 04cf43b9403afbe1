"""What waits for a person, and what they did: the figures of their home page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from statistics import median
from typing import Any

from django.db.models import Exists, OuterRef, QuerySet
from django.urls import reverse
from django.utils import timezone

from feedback import blind_sets, consents, probing, slots
from feedback.models import (
    Demonstration,
    DemonstrationReview,
    Dialogue,
    Membership,
    Project,
    Ranking,
    Rating,
    RuleJudgement,
    Slot,
    User,
    WorkItem,
)
from feedback.probing import Lack
from feedback.scale_texts import MOST_SCALES

KINDS = {  # the kinds of work there are pages for, and what each asks
    WorkItem.Kind.CHAT_AND_RANK: ("Chat and rank", "Write to the model, rank its replies, write on from the best"),
    WorkItem.Kind.RANK: ("Rank replies", "A dialogue already written: which of its replies is best"),
    WorkItem.Kind.PROBE: ("Probe a rule", "Try to make the model break one named rule"),
    WorkItem.Kind.JUDGE: ("Judge again", "A dialogue somebody else had: did it break a rule"),
    WorkItem.Kind.DEMONSTRATE: ("Demonstrate", "Write the reply that the model should give"),
    WorkItem.Kind.REVIEW: ("Review", "A reply somebody else wrote: is it one the model should give"),
    WorkItem.Kind.RATE: ("Rate replies", "One reply at a time, and a few short questions about it"),
}
ANSWERS: dict[str, type[Any]] = {  # the row that each kind of work ends with
    WorkItem.Kind.CHAT_AND_RANK: Ranking,
    WorkItem.Kind.RANK: Ranking,
    WorkItem.Kind.PROBE: RuleJudgement,
    WorkItem.Kind.JUDGE: RuleJudgement,
    WorkItem.Kind.DEMONSTRATE: Demonstration,
    WorkItem.Kind.REVIEW: DemonstrationReview,
    WorkItem.Kind.RATE: Rating,
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
    none_because: str = ""
    may_need_consent: bool = False  # the page that says what may appear is worth a link


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
    """Per kind of work: how many pieces this person may take, and how long one usually takes.

    Rules are named where they are probed, written replies where there are any to write, ratings where people are asked.
    """
    judged = project.probes_open or blind_sets.asks_for_judgements(project)
    about_rules = WorkItem.ABOUT_RULES if project.probes_open else (WorkItem.Kind.JUDGE,) if judged else ()
    hidden = {*WorkItem.ABOUT_RULES} - {*about_rules}
    hidden |= set() if project.demonstrations_open else {*WorkItem.DEMONSTRATIONS}
    hidden |= set() if project.scale_sets.filter(is_open=True).exists() else {WorkItem.Kind.RATE}
    shown = [kind for kind in KINDS if kind not in hidden]
    asks = judged and bool(consents.themes(user, project))
    return [_waiting(user, project, kind, asks=asks and kind in WorkItem.ABOUT_RULES) for kind in shown]


def _waiting(user: User, project: Project, kind: WorkItem.Kind, *, asks: bool) -> Waiting:
    name, what = KINDS[kind]
    count, none_because = waiting_count(user, project, kind), ""
    if kind == WorkItem.Kind.PROBE:
        found = probing.outlook(user, project)
        count += found.count
        none_because = "" if count else found.said
    elif kind == WorkItem.Kind.JUDGE and not count:
        none_because = _why_none_to_judge(user, project)
    return Waiting(kind, name, what, count, usual_seconds(project, kind), none_because, asks)


def _why_none_to_judge(user: User, project: Project) -> str:
    """What is left may be such as they did not agree to read, or have had enough of today."""
    left = Slot.objects.claimable_if_agreed_by(user, WorkItem.Kind.JUDGE).filter(work_item__project=project)
    if not left.exists():
        return ""
    lack = Lack.ENOUGH_TODAY if left.agreed_by(user).exists() else Lack.NEEDS_CONSENT
    return probing.SAID[lack]


def waiting_count(user: User, project: Project, kind: str) -> int:
    """How many pieces of a kind this person may take; one that wants several people's answers is one piece."""
    free = slots.waiting_slots(user=user, project=project, kind=kind)
    return free.order_by().values("work_item").distinct().count()


def usual_seconds(project: Project, kind: str) -> float | None:
    """The median time one answer took lately; None before there are a few."""
    answers: QuerySet[Any] = ANSWERS[kind].objects.all()
    given = answers.filter(slot__work_item__project=project, slot__work_item__kind=kind, seconds__gt=0, withdrawn=False)
    lately = [seconds or 0.0 for seconds in given.order_by("-pk").values_list("seconds", flat=True)[:RECENT]]
    return median(lately) if len(lately) >= 3 else None


@dataclass(frozen=True)
class Given:
    """An answer a person gave, as their own list shows it; without an address where it was taken back."""

    url: str
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
    """A person's answers, newest first; of rankings those in force, of verdicts also what they took back."""
    given = [
        *_own_rankings(user, project, most),
        *_own_judgements(user, project, most),
        *_own_demonstrations(user, project, most),
        *_own_reviews(user, project, most),
        *_own_ratings(user, project, most),
    ]
    return sorted(given, key=lambda answer: answer.at, reverse=True)[:most]


def _own_rankings(user: User, project: Project, most: int) -> Iterator[Given]:
    mine = Ranking.objects.in_force().filter(annotator=user, comparison__dialogue__project=project)
    newest = mine.select_related("comparison__dialogue__prompt").prefetch_related("entries").order_by("-pk")[:most]
    for ranking in newest:
        url = reverse("annotate:look_again", args=[ranking.comparison_id])
        yield Given(url, _opening(ranking.comparison.dialogue), ranking.created_at, _in_words(ranking))


def _own_judgements(user: User, project: Project, most: int) -> Iterator[Given]:
    mine = RuleJudgement.objects.newest().filter(annotator=user, dialogue__project=project)
    for judgement in mine.select_related("rule").order_by("-pk")[:most]:
        said = [f"{'Probed' if judgement.by_prober else 'Judged'}: {judgement.get_verdict_display().lower()}"]
        said += ["late" if judgement.counts else "late, not counted"] * judgement.late
        said += ["taken back"] * judgement.withdrawn
        url = "" if judgement.withdrawn else reverse("annotate:work", args=[judgement.slot_id])
        yield Given(url, judgement.rule.name, judgement.created_at, ", ".join(said))


def _own_demonstrations(user: User, project: Project, most: int) -> Iterator[Given]:
    """The texts a person wrote, each chain of corrections once; an edit stands among their reviews."""
    mine = Demonstration.objects.filter(annotator=user, dialogue__project=project, made_by_review=None)
    newest = mine.exclude(superseded_by__annotator=user).select_related("dialogue__prompt", "superseded_by")
    told = newest.annotate(
        is_accepted=Exists(Demonstration.objects.accepted().filter(pk=OuterRef("pk"))),
        is_sent_back=Exists(Demonstration.objects.sent_back().filter(pk=OuterRef("pk"))),
    )
    for text in told.order_by("-pk")[:most]:
        said = ["Wrote a reply"]
        said += ["late" if text.counts else "late, not counted"] * text.late
        said += ["accepted"] * text.is_accepted + ["sent back"] * text.is_sent_back
        said += ["edited by a reviewer"] * hasattr(text, "superseded_by") + ["taken back"] * text.withdrawn
        url = "" if text.withdrawn else reverse("annotate:work", args=[text.slot_id])
        yield Given(url, _opening(text.dialogue), text.created_at, ", ".join(said))


def _own_reviews(user: User, project: Project, most: int) -> Iterator[Given]:
    mine = DemonstrationReview.objects.in_force().filter(annotator=user, demonstration__dialogue__project=project)
    for review in mine.select_related("demonstration__dialogue__prompt").order_by("-pk")[:most]:
        said = [f"Reviewed: {review.get_verdict_display().lower()}"]
        said += ["late" if review.counts else "late, not counted"] * review.late
        opening = _opening(review.demonstration.dialogue)
        yield Given(reverse("annotate:work", args=[review.slot_id]), opening, review.created_at, ", ".join(said))


def _own_ratings(user: User, project: Project, most: int) -> Iterator[Given]:
    """What a person said of replies, each reply and set of questions once."""
    mine = Rating.objects.newest().filter(annotator=user, candidate__dialogue__project=project)
    newest = mine.order_by("-created_at", "slot", "scale__position")
    told: dict[int | None, list[Rating]] = {}
    for rating in newest.select_related("scale__scale_set", "candidate__dialogue__prompt")[: most * MOST_SCALES]:
        told.setdefault(rating.slot_id, []).append(rating)
    for rows in list(told.values())[:most]:
        first = rows[0]
        said = [f"Rated, {first.scale.scale_set.name}: {first.scale.name} {first.scale.in_words(first.value).lower()}"]
        said += ["late" if first.counts else "late, not counted"] * first.late + ["taken back"] * first.withdrawn
        url = "" if first.withdrawn else reverse("annotate:work", args=[first.slot_id])
        yield Given(url, _opening(first.candidate.dialogue), first.created_at, ", ".join(said))


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
    given = _answered_since(user, project, start)
    return Today(
        answers=len(given),
        seconds=sum(seconds or 0.0 for _, seconds, _ in given),
        not_counted=sum(not counts for _, _, counts in given),
    )


def week_of(user: User, project: Project) -> list[Day]:
    """The days of this week, Monday first. No streaks: a day without work is a day without work."""
    today = timezone.localdate()
    monday = today - timedelta(days=today.weekday())
    start = timezone.make_aware(datetime.combine(monday, datetime.min.time()))
    when = [timezone.localtime(at).date() for at, _, _ in _answered_since(user, project, start)]
    days = [monday + timedelta(days=offset) for offset in range(7)]
    return [Day(date=day, answers=when.count(day), is_today=day == today) for day in days]


def _answered_since(user: User, project: Project, start: datetime) -> list[tuple[datetime, float | None, bool]]:
    """When, how long, and whether it counts, of every answer in force."""
    columns = ("created_at", "seconds", "counts")
    mine = {"annotator": user, "created_at__gte": start}
    ranked = Ranking.objects.in_force().filter(comparison__dialogue__project=project, **mine)
    judged = RuleJudgement.objects.in_force().filter(dialogue__project=project, **mine)
    written = Demonstration.objects.filter(withdrawn=False, dialogue__project=project, **mine)
    written = written.exclude(superseded_by__annotator=user).filter(made_by_review=None)
    reviewed = DemonstrationReview.objects.in_force().filter(demonstration__dialogue__project=project, **mine)
    rated = Rating.objects.in_force().filter(candidate__dialogue__project=project, **mine)
    once = rated.values_list(*columns).distinct()  # all answers about a reply are of one instant
    given = [rows.values_list(*columns) for rows in (judged, written, reviewed)]
    return list(ranked.values_list(*columns).union(*given, once, all=True))


def in_hand(user: User, project: Project) -> Slot | None:
    """The piece a person left half done, oldest first."""
    return (
        slots.held_slots(user, project)
        .select_related(
            "work_item__dialogue__prompt",
            "work_item__demonstration__dialogue__prompt",
            "work_item__comparison__dialogue__prompt",
            "work_item__candidate__dialogue__prompt",
            "work_item__rule",
            "draft",
        )
        .first()
    )


def managers_of(project: Project) -> list[User]:
    """Whom to ask."""
    members = project.memberships.filter(role=Membership.Role.MANAGER, is_active=True).select_related("user")
    return [member.user for member in members]


def opening_of(slot: Slot) -> str:
    """The first words of the dialogue a slot is about, or the rule's name; empty where nobody has written yet."""
    item = slot.work_item
    if item.rule is not None:
        return item.rule.name
    about = item.comparison or item.demonstration or item.candidate
    dialogue = item.dialogue or (about.dialogue if about else None)
    return _opening(dialogue) if dialogue is not None else ""


def _opening(dialogue: Dialogue) -> str:
    return dialogue.prompt.opening if dialogue.prompt is not None else ""


def minutes_left(slot: Slot) -> int:
    """Whole minutes until a held slot lapses, at least one."""
    if slot.lease_until is None:
        return 0
    return max(1, round((slot.lease_until - timezone.now()).total_seconds() / 60))
