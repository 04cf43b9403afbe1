"""Replies that people are asked to rate: which ones, by how many, and while a set of questions is open.

A manager asks by hand; where a set is open, the sweep asks about the newest replies of the policy that serves.
"""

from __future__ import annotations

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet

from feedback import work_items
from feedback.dialogues import MOST_OPENED
from feedback.errors import NotRateable
from feedback.models import Candidate, Dialogue, Project, Scale, ScaleSet, Slot, WorkItem

RATE_PRIORITY = 0
NEWEST = 2000  # replies of a policy among which is looked for some to ask about


@transaction.atomic
def ask_for_ratings(
    *, candidate: Candidate, scale_set: ScaleSet, wanted: int = 0, priority: int = RATE_PRIORITY
) -> WorkItem:
    """Want a reply rated by so many people; asked for again, by no fewer than before.

    wanted  how many; as many as the set wants where 0
    Raises  NotRateable
    """
    _refuse_if_not_rateable(candidate, scale_set)
    item = work_items.open_work(
        project=scale_set.project,
        kind=WorkItem.Kind.RATE,
        candidate=candidate,
        scale_set=scale_set,
        wanted=wanted or scale_set.raters,
        priority=priority,
    )
    item = WorkItem.objects.select_for_update(no_key=True).get(pk=item.pk)
    work_items.want_at_least(item, wanted or scale_set.raters)
    item.refresh_from_db()
    return item


def _refuse_if_not_rateable(candidate: Candidate, scale_set: ScaleSet) -> None:
    if scale_set.by_program:
        raise NotRateable("A program answers these questions, so nobody is asked. Choose another set.")
    if candidate.dialogue.project_id != scale_set.project_id:
        raise NotRateable("This reply is of another project than the questions. Choose a set of its own.")
    if candidate.is_empty:
        raise NotRateable("This reply says nothing, so there is nothing to rate.")
    if candidate.dialogue.kind == Dialogue.Kind.EVALUATION:
        raise NotRateable("This dialogue is kept apart: it measures policies. Take another.")


@transaction.atomic
def ask_about_dialogue(*, dialogue: Dialogue, scale_set: ScaleSet, wanted: int = 0) -> list[WorkItem]:
    """Want all replies of a dialogue rated, those that were not chosen too. Raises NotRateable where it has none."""
    candidates = list(dialogue.candidates.filter(is_empty=False).order_by("after_position", "index"))
    if not candidates:
        raise NotRateable("The model has said nothing in this dialogue yet. Take one with replies.")
    return [ask_for_ratings(candidate=one, scale_set=scale_set, wanted=wanted) for one in candidates]


def keep_ratings_ready(project: Project) -> int:
    """Ask about further replies until each open set has its number of them waiting. Returns how many.

    Two sweeps at once ask for no more than one.
    """
    if project.archived_at is not None or project.policy_id is None:
        return 0
    open_sets = ScaleSet.objects.filter(project=project, is_open=True)
    return sum(_ask_for_missing(scale_set) for scale_set in open_sets if _missing(scale_set))


def _missing(scale_set: ScaleSet) -> int:
    free = Slot.objects.filter(work_item=OuterRef("pk"), state=Slot.State.FREE)
    waiting = WorkItem.objects.filter(Exists(free), scale_set=scale_set, closed_at=None)
    return max(0, scale_set.ready - waiting.count()) if scale_set.is_open else 0


@transaction.atomic
def _ask_for_missing(scale_set: ScaleSet) -> int:
    now = ScaleSet.objects.select_for_update(no_key=True, skip_locked=True).filter(pk=scale_set.pk).first()
    missing = min(_missing(now), MOST_OPENED) if now is not None else 0
    if now is None or not missing or not Scale.objects.asked().filter(scale_set=now).exists():
        return 0
    fresh = list(_newest_replies(now)[:missing])
    for candidate in fresh:
        ask_for_ratings(candidate=candidate, scale_set=now)
    return len(fresh)


def _newest_replies(scale_set: ScaleSet) -> QuerySet[Candidate]:
    """Replies of the policy that serves which nobody was asked about, of its last few thousand, the newest first.

    Of the replies to one turn the first that was made comes long before the others, so that many dialogues are seen.
    """
    asked = WorkItem.objects.filter(candidate=OuterRef("pk"), scale_set=scale_set)
    of_policy = Candidate.objects.filter(
        model_version=scale_set.project.policy_id,
        dialogue__project=scale_set.project_id,
        dialogue__kind=Dialogue.Kind.PREFERENCE,
        comparison__isnull=False,
        is_empty=False,
    )
    newest = of_policy.order_by("-pk").values("pk")[:NEWEST]
    made = Candidate.objects.filter(~Exists(asked), pk__in=newest)
    return made.select_related("dialogue").order_by("index", "-pk")
