"""A project in figures: the pace of its people, its queue, how far they agree, its prompts. Reads rows only."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta

from django.db.models import Avg, Count, Max, Q
from django.db.models.functions import TruncDate
from django.utils import timezone

from feedback import dialogues
from feedback.agreement import Share, noise_ceiling, pair_agreement
from feedback.models import (
    GenerationRequest,
    Membership,
    ModelVersion,
    Project,
    Prompt,
    PromptGroup,
    RankEntry,
    Ranking,
    Slot,
    User,
    WorkItem,
)

PACE_DAYS = 14
MOST_SHARED = 2000  # comparisons whose answers are set beside each other, newest first
FAILURES_SHOWN = 8
STRENGTHS = {1: "a hair", 2: "a little", 3: "clearly", 4: "by far"}


@dataclass
class PersonPace:
    """One member's work: answers per day, oldest day first, and in all."""

    user: User
    role: str
    is_active: bool
    days: list[int]
    total: int = 0
    seconds: float | None = None  # mean time per answer over the days shown
    last_at: datetime | None = None
    in_hand: int = 0

    @property
    def today(self) -> int:
        return self.days[-1]

    @property
    def week(self) -> int:
        return sum(self.days[-7:])


@dataclass(frozen=True)
class Pace:
    """Answers per day of a project, and of each member."""

    dates: list[date]
    people: list[PersonPace]

    @property
    def days(self) -> list[int]:
        """Answers per day of all together."""
        return [sum(person.days[index] for person in self.people) for index in range(len(self.dates))]

    @property
    def today(self) -> int:
        return self.days[-1]

    @property
    def week(self) -> int:
        return sum(self.days[-7:])

    @property
    def total(self) -> int:
        return sum(person.total for person in self.people)

    @property
    def people_today(self) -> int:
        return sum(1 for person in self.people if person.today)

    @property
    def people_at_work(self) -> int:
        return sum(1 for person in self.people if person.in_hand)

    def by_date(self) -> list[tuple[date, int, list[int]]]:
        """(date, all answers, answers per person), newest day first."""
        rows = [(day, self.days[i], [person.days[i] for person in self.people]) for i, day in enumerate(self.dates)]
        return rows[::-1]


def pace(project: Project, today: date | None = None, days: int = PACE_DAYS) -> Pace:
    """Answers in force per day and person over the last days; whoever gave one is in it, member or not any more."""
    today = today or timezone.localdate()
    dates = [today - timedelta(days=back) for back in range(days - 1, -1, -1)]
    people = {person.user.pk: person for person in _members(project, days)}
    answers = Ranking.objects.in_force().by_people().filter(comparison__dialogue__project=project)
    _add_strangers(people, answers, days)
    for row in answers.values("annotator").annotate(n=Count("pk"), last=Max("created_at")):
        people[row["annotator"]].total, people[row["annotator"]].last_at = row["n"], row["last"]
    _add_days(people, answers, dates)
    held = Slot.objects.filter(
        work_item__project=project, state=Slot.State.HELD, lease_until__gte=timezone.now(), annotator__in=people
    )
    for pk, count in held.values_list("annotator").annotate(n=Count("pk")):
        people[pk].in_hand = count
    return Pace(dates, sorted(people.values(), key=lambda one: (-one.week, -one.total, one.user.display_name)))


def _members(project: Project, days: int) -> list[PersonPace]:
    members = Membership.objects.filter(project=project).select_related("user")
    return [
        PersonPace(member.user, member.get_role_display(), member.is_active and member.user.is_active, [0] * days)
        for member in members
    ]


def _add_strangers(people: dict[int, PersonPace], answers, days: int) -> None:
    """People whose answers are here but whose membership is not."""
    for user in User.objects.filter(pk__in=answers.values("annotator")).exclude(pk__in=people):
        people[user.pk] = PersonPace(user, "No member", False, [0] * days)


def _add_days(people: dict[int, PersonPace], answers, dates: list[date]) -> None:
    start = timezone.make_aware(datetime.combine(dates[0], time.min))
    places = {day: place for place, day in enumerate(dates)}
    spent: dict[int, list[tuple[int, float]]] = defaultdict(list)
    by_day = answers.filter(created_at__gte=start).annotate(day=TruncDate("created_at")).values("annotator", "day")
    for row in by_day.annotate(n=Count("pk"), timed=Count("seconds"), mean=Avg("seconds")):
        if row["day"] in places:
            people[row["annotator"]].days[places[row["day"]]] = row["n"]
        if row["timed"]:
            spent[row["annotator"]].append((row["timed"], row["mean"]))
    for pk, parts in spent.items():
        people[pk].seconds = sum(n * mean for n, mean in parts) / sum(n for n, _ in parts)


@dataclass(frozen=True)
class Queue:
    """What waits: for people, and for the models that answer them."""

    waiting: dict[str, int]  # free slots of open work, by kind in words
    held: int
    ready: int  # dialogues nobody has touched
    ready_wanted: int
    being_made: int  # requests for replies that wait or run
    oldest_seconds: float  # age of the oldest of them
    failed: int
    failures: list[GenerationRequest] = field(default_factory=list)

    @property
    def waiting_total(self) -> int:
        return sum(self.waiting.values())

    @property
    def more_failed(self) -> int:
        return self.failed - len(self.failures)


def queue_of(project: Project) -> Queue:
    """The queue of a project as it stands."""
    open_slots = Slot.objects.filter(work_item__project=project, work_item__closed_at=None)
    free = open_slots.filter(state=Slot.State.FREE).values_list("work_item__kind").annotate(n=Count("pk"))
    requests = GenerationRequest.objects.filter(dialogue__project=project)
    moving = requests.unfinished()
    oldest = moving.order_by("created_at").first()
    failed = failed_requests(project)
    return Queue(
        waiting={WorkItem.Kind(kind).label: count for kind, count in sorted(free)},
        held=open_slots.filter(state=Slot.State.HELD).count(),
        ready=dialogues.unclaimed_dialogues(project).count(),
        ready_wanted=project.ready_dialogues,
        being_made=moving.count(),
        oldest_seconds=oldest.age_seconds if oldest else 0.0,
        failed=failed.count(),
        failures=list(failed.select_related("dialogue__prompt").order_by("-finished_at")[:FAILURES_SHOWN]),
    )


def failed_requests(project: Project):
    """Requests that ended without replies and whose dialogue still waits for them."""
    return GenerationRequest.objects.filter(
        dialogue__project=project, dialogue__ended_at=None, state="failed", comparison=None
    )


@dataclass(frozen=True)
class Agreement:
    """How often two annotators put two replies in the same order, and what follows for a model."""

    share: Share
    comparisons: int  # ranked by two or more

    @property
    def ceiling(self) -> float | None:
        """The best accuracy a reward model can show against people who agree this often."""
        return noise_ceiling(self.share.value) if self.share.value is not None else None


def agreement_of(project: Project) -> Agreement:
    """Agreement over the newest comparisons that two or more have ranked, those of evaluations left out."""
    counted = Ranking.objects.counted().besides_evaluations().filter(comparison__dialogue__project=project)
    shared = list(
        counted.values("comparison")
        .annotate(n=Count("pk"))
        .filter(n__gt=1)
        .order_by("-comparison")
        .values_list("comparison", flat=True)[:MOST_SHARED]
    )
    theirs = Ranking.objects.counted().filter(comparison__in=shared)  # by their comparisons alone: ten times as quick
    entries = RankEntry.objects.filter(ranking__in=theirs).values_list(
        "ranking__comparison", "ranking", "candidate", "rank"
    )
    answers: dict[int, dict[int, dict[int, int]]] = defaultdict(lambda: defaultdict(dict))
    for comparison, ranking, candidate, rank in entries:
        if rank is not None:
            answers[comparison][ranking][candidate] = rank
    return Agreement(pair_agreement(rankings.values() for rankings in answers.values()), len(shared))


@dataclass(frozen=True)
class Clearness:
    """How clear the best reply was, as annotators said it."""

    by_strength: list[tuple[str, int]]  # in words, and how many
    unsaid: int
    all_bad: int
    total: int


def clearness_of(project: Project) -> Clearness:
    """Counted rankings by the strength they were given, those of evaluations left out."""
    counted = Ranking.objects.counted().besides_evaluations().filter(comparison__dialogue__project=project)
    rows = counted.values("strength", "all_bad").annotate(n=Count("pk")).values_list("strength", "all_bad", "n")
    found: Counter[int | None] = Counter()
    all_bad = 0
    for said, bad, count in rows:
        if bad:
            all_bad += count
        else:
            found[said] += count
    return Clearness(
        by_strength=[(words, found[strength]) for strength, words in STRENGTHS.items()],
        unsaid=found[None],
        all_bad=all_bad,
        total=all_bad + sum(found.values()),
    )


@dataclass(frozen=True)
class PromptCount:
    """The prompts of one split."""

    split: str
    prompts: int
    groups: int
    offered: int


def prompt_counts(project: Project) -> list[PromptCount]:
    """Prompts per split: how many, in how many groups, and how many of them are offered as openings."""
    rows = (
        Prompt.objects.filter(project=project)
        .values("group__split")
        .annotate(n=Count("pk"), groups=Count("group", distinct=True), offered=Count("pk", filter=Q(is_active=True)))
    )
    found = {row["group__split"]: row for row in rows}
    empty = {"n": 0, "groups": 0, "offered": 0}
    by_split = [(split, found.get(split, empty)) for split in PromptGroup.Split.values]
    return [PromptCount(split, row["n"], row["groups"], row["offered"]) for split, row in by_split]


def policies_to_decide(project: Project) -> list[ModelVersion]:
    """Policies whose gate was measured and about which nobody has decided yet, oldest first."""
    measured = ModelVersion.objects.filter(
        project=project,
        kind=ModelVersion.Kind.POLICY,
        state__in=[ModelVersion.State.PASSED, ModelVersion.State.FAILED],
    )
    return [policy for policy in measured.order_by("number") if policy.pk != project.policy_id]
