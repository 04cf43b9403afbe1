"""Replies that people are asked to write: to which prompts and dialogues, by how many, and while a project is open.

A manager asks by hand; where a project has demonstrations open, the sweep asks for those to further prompts, and for
reviews of those that were imported.
"""

from __future__ import annotations

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet

from feedback import audit, demonstrations, work_items
from feedback.dialogues import MOST_OPENED
from feedback.errors import NotDemonstrable
from feedback.models import Demonstration, Dialogue, Project, Prompt, PromptGroup, Slot, Turn, User, WorkItem

Messages = list[dict[str, str]]


@transaction.atomic
def ask_for_demonstrations(*, prompt: Prompt, wanted: int = 0, priority: int = 0) -> WorkItem:
    """Want replies to a prompt from so many people; asked for again, no fewer than before.

    wanted  how many; as many as the project wants of each prompt where 0
    Raises  NotDemonstrable
    """
    project = prompt.project
    return _ask(prompt, prompt.messages, wanted or project.demonstrations_per_prompt, priority)


@transaction.atomic
def ask_from_dialogue(*, dialogue: Dialogue, position: int, wanted: int = 1, priority: int = 0) -> WorkItem:
    """Want replies to a dialogue so far, as it stood after the turn at `position`, from so many people.

    Raises  NotDemonstrable where that is no user's turn, and for dialogues that measure policies or may show what harms
    """
    probe = getattr(dialogue, "probe", None)
    if dialogue.kind == Dialogue.Kind.EVALUATION or (probe is not None and probe.rule.is_sensitive):
        raise NotDemonstrable(
            "This dialogue is kept apart: it measures policies, or may show what harms. Take another."
        )
    if dialogue.prompt is None:
        raise NotDemonstrable("This dialogue has no opening, so it is in no split. Take one that has.")
    return _ask(dialogue.prompt, dialogue.messages()[: position + 1], wanted, priority)


def _ask(prompt: Prompt, messages: Messages, wanted: int, priority: int) -> WorkItem:
    if not messages or messages[-1]["role"] != Turn.Role.USER:
        raise NotDemonstrable("A reply is written to what a person says. Choose a turn of the user's.")
    if prompt.split == PromptGroup.Split.TEST:
        raise NotDemonstrable("This opening is of the test split, which is for reports. Take one of another split.")
    Prompt.objects.select_for_update(no_key=True).get(pk=prompt.pk)  # asked for twice at once, it is one dialogue
    kind = WorkItem.Kind.DEMONSTRATE
    dialogue = _dialogue_of(prompt, messages) or _open_dialogue(prompt, messages)
    item = work_items.open_work(project=prompt.project, kind=kind, dialogue=dialogue, wanted=wanted, priority=priority)
    item = WorkItem.objects.select_for_update(no_key=True).get(pk=item.pk)
    work_items.want_at_least(item, wanted)
    item.refresh_from_db()
    return item


def _dialogue_of(prompt: Prompt, messages: Messages) -> Dialogue | None:
    """The dialogue in which this was asked before."""
    asked = Dialogue.objects.filter(prompt=prompt, kind=Dialogue.Kind.DEMONSTRATION, author=None)
    said = ({"role": message["role"], "content": message["content"]} for message in messages)
    wanted = list(said)
    return next((one for one in asked.prefetch_related("turns") if one.messages() == wanted), None)


def _open_dialogue(prompt: Prompt, messages: Messages) -> Dialogue:
    dialogue = Dialogue.objects.create(project=prompt.project, kind=Dialogue.Kind.DEMONSTRATION, prompt=prompt)
    Turn.objects.bulk_create(
        Turn(dialogue=dialogue, position=position, role=message["role"], content=message["content"])
        for position, message in enumerate(messages)
    )
    return dialogue


@transaction.atomic
def open_or_close(*, project: Project, is_open: bool, by: User) -> None:
    """Let people write and review demonstrations from now on, or no more. What they hold they may still send."""
    project.demonstrations_open = is_open
    project.save(update_fields=["demonstrations_open"])
    action = "project.demonstrations_opened" if is_open else "project.demonstrations_closed"
    audit.record(action, project=project, actor=by, target=project)
    keep_demonstrations_ready(project)
    keep_reviews_ready(project)


def keep_demonstrations_ready(project: Project) -> int:
    """Ask for replies to further prompts until the project has its number of them waiting. Returns how many.

    Prompts of the test split are left for reports. Two sweeps at once ask for no more than one.
    """
    return _ask_for_missing(project) if _missing(project) else 0


def _missing(project: Project) -> int:
    if not project.demonstrations_open or project.archived_at is not None:
        return 0
    free = Slot.objects.filter(work_item=OuterRef("pk"), state=Slot.State.FREE)
    waiting = WorkItem.objects.filter(
        Exists(free), project=project, kind=WorkItem.Kind.DEMONSTRATE, closed_at=None, dialogue__author=None
    )
    return max(0, project.ready_demonstrations - waiting.filter(demonstration=None).count())


@transaction.atomic
def _ask_for_missing(project: Project) -> int:
    now = Project.objects.select_for_update(no_key=True, skip_locked=True).filter(pk=project.pk).first()
    missing = min(_missing(now), MOST_OPENED) if now is not None else 0
    if now is None or not missing:
        return 0
    asked = Dialogue.objects.filter(prompt=OuterRef("pk"), kind=Dialogue.Kind.DEMONSTRATION, author=None)
    prompts = Prompt.objects.active().filter(~Exists(asked), project=now).exclude(group__split=PromptGroup.Split.TEST)
    prompts = prompts.filter(weight__gt=0).order_by("-weight", "content_hash")
    fresh = [prompt for prompt in prompts[:missing] if _ends_with_a_user(prompt.messages)]
    for prompt in fresh:
        ask_for_demonstrations(prompt=prompt)
    return len(fresh)


def _ends_with_a_user(messages: Messages) -> bool:
    return bool(messages) and messages[-1]["role"] == Turn.Role.USER


def keep_reviews_ready(project: Project) -> int:
    """Ask for reviews of imported replies until the project has its number of them waiting. Returns how many.

    Nobody is asked about all of a file at once. Two sweeps at once ask for no more than one.
    """
    return _ask_for_missing_reviews(project) if _missing_reviews(project) else 0


def _missing_reviews(project: Project) -> int:
    if not project.demonstrations_open or project.archived_at is not None:
        return 0
    free = Slot.objects.filter(work_item=OuterRef("pk"), state=Slot.State.FREE)
    waiting = WorkItem.objects.filter(
        Exists(free), project=project, kind=WorkItem.Kind.REVIEW, closed_at=None, demonstration__annotator=None
    )
    return max(0, project.ready_demonstrations - waiting.count())


@transaction.atomic
def _ask_for_missing_reviews(project: Project) -> int:
    now = Project.objects.select_for_update(no_key=True, skip_locked=True).filter(pk=project.pk).first()
    missing = min(_missing_reviews(now), MOST_OPENED) if now is not None else 0
    fresh = list(imported_unread(project)[:missing])
    for text in fresh:
        demonstrations.ask_for_review(text)
    return len(fresh)


def imported_unread(project: Project) -> QuerySet[Demonstration]:
    """Imported replies of which nobody has said anything, and is asked to."""
    asked = WorkItem.objects.filter(demonstration=OuterRef("pk"), kind=WorkItem.Kind.REVIEW)
    imported = Demonstration.objects.waiting().filter(dialogue__project=project, annotator=None)
    return imported.filter(~Exists(asked)).select_related("dialogue__project").order_by("pk")
