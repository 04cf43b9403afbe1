"""Asking people to write, rank, rate and review replies, from the lists of what can be asked about."""

from __future__ import annotations

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from feedback import audit, demonstrations, demonstrations_wanted, rankings_wanted, ratings_wanted
from feedback.errors import FeedbackError
from feedback.models import Comparison, Dialogue, Project, Prompt, ScaleSet, Turn, WorkItem
from feedback.pages.access import person


@admin.action(description="Ask people to write the reply")
def ask_for_demonstrations(modeladmin: admin.ModelAdmin, request: HttpRequest, rows: QuerySet) -> None:
    """Of prompts, and of dialogues as they stood after the last thing a person said; what cannot be asked is told."""
    asked, refused = 0, set()
    for row in rows:
        try:
            item = _ask(row)
        except FeedbackError as err:
            refused.add(err.message)
        else:
            asked += 1
            audit.record("demonstration.asked", project=item.project, actor=person(request), target=item)
    closed = asked and not all(row.project.demonstrations_open for row in rows)
    later = " Demonstrations are closed; they are asked once you open them on the overview." if closed else ""
    modeladmin.message_user(request, f"Asked for {asked}.{later}")
    for why in sorted(refused):
        modeladmin.message_user(request, why, messages.WARNING)


def _ask(row: Prompt | Dialogue) -> WorkItem:
    if isinstance(row, Prompt):
        return demonstrations_wanted.ask_for_demonstrations(prompt=row)
    last = row.turns.filter(role=Turn.Role.USER).last()
    return demonstrations_wanted.ask_from_dialogue(dialogue=row, position=last.position if last is not None else -1)


@admin.action(description="Ask people to rank the replies")
def ask_for_rankings(modeladmin: admin.ModelAdmin, request: HttpRequest, rows: QuerySet) -> None:
    """Of imported dialogues whose replies wait beside each other; what cannot be asked is told."""
    asked, refused = 0, set()
    for comparison in Comparison.objects.filter(dialogue__in=rows).select_related("dialogue__project"):
        try:
            item = rankings_wanted.ask_about_imported(comparison=comparison)
        except FeedbackError as err:
            refused.add(err.message)
        else:
            asked += 1
            audit.record("ranking.asked", project=item.project, actor=person(request), target=item)
    modeladmin.message_user(request, f"Asked for {asked}.")
    for why in sorted(refused):
        modeladmin.message_user(request, why, messages.WARNING)


@admin.action(description="Ask people to review the reply")
def ask_for_reviews(modeladmin: admin.ModelAdmin, request: HttpRequest, rows: QuerySet) -> None:
    """Of imported replies that nobody has read; what people here wrote is asked about by itself."""
    asked = 0
    for project in Project.objects.filter(dialogues__demonstrations__in=rows).distinct():
        for text in demonstrations_wanted.imported_unread(project).filter(pk__in=rows.values("pk")):
            item = demonstrations.ask_for_review(text)
            audit.record("demonstration.review_asked", project=project, actor=person(request), target=item)
            asked += 1
    modeladmin.message_user(request, f"Asked for {asked}. Others are reviewed, asked about, or not imported.")


@admin.action(description="Ask people to rate the replies")
def ask_for_ratings(modeladmin: admin.ModelAdmin, request: HttpRequest, rows: QuerySet) -> None:
    """Of dialogues all replies, by every set of questions that is open; what cannot be asked is told."""
    asked, refused = 0, set()
    for row in rows:
        open_sets = list(ScaleSet.objects.filter(project=row.project_id, is_open=True))
        if not open_sets:
            refused.add(f"{row.project} has no questions open. Open a set under Ratings first.")
        for scale_set in open_sets:
            try:
                items = ratings_wanted.ask_about_dialogue(dialogue=row, scale_set=scale_set)
            except FeedbackError as err:
                refused.add(err.message)
            else:
                asked += len(items)
                audit.record("ratings.asked", project=row.project, actor=person(request), target=row, asked=len(items))
    modeladmin.message_user(request, f"Asked for {asked}.")
    for why in sorted(refused):
        modeladmin.message_user(request, why, messages.WARNING)
