"""Who may see what: every view finds its objects through these, so that a stranger's look is a 404."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest
from django.shortcuts import get_object_or_404

from feedback.models import Comparison, Membership, Project, Ranking, Slot, User

LARGEST_ID = 2**63 - 1  # beyond it a database has no number
LAST_PROJECT = "last_project"  # the session's key for the project a person worked in last


def person(request: HttpRequest) -> User:
    """The signed-in person; LoginRequiredMiddleware has seen to it that there is one."""
    assert isinstance(request.user, User)
    return request.user


def projects_of(user: User) -> list[Project]:
    """The open projects a person takes part in, in any role."""
    return list(Project.objects.open().with_member(user))


def project_or_404(request: HttpRequest, slug: str) -> Project:
    project = get_object_or_404(Project.objects.open().with_member(person(request)), slug=slug)
    _remember(request, project)
    return project


def current_project(request: HttpRequest, mine: list[Project] | None = None) -> Project | None:
    """The project asked for, else the one a person worked in last, else the first of theirs; None without any."""
    mine = projects_of(person(request)) if mine is None else mine
    asked = request.GET.get("project") or request.session.get(LAST_PROJECT)
    chosen = next((project for project in mine if project.slug == asked), mine[0] if mine else None)
    if chosen is not None:
        _remember(request, chosen)
    return chosen


def _remember(request: HttpRequest, project: Project) -> None:
    if request.session.get(LAST_PROJECT) != project.slug:
        request.session[LAST_PROJECT] = project.slug


def surroundings(request: HttpRequest, project: Project | None) -> dict[str, Any]:
    """What the strip above a page shows: the project, and whether the way to managing it is open."""
    managed = Project.objects.managed_by(person(request))
    return {"project": project, "is_manager": project is not None and managed.filter(pk=project.pk).exists()}


def slot_or_404(request: HttpRequest, pk: int) -> Slot:
    """A slot that was ever handed to this person, also a lapsed one: a late answer is kept."""
    slots = Slot.objects.given_to(person(request)).select_related(
        "work_item__project",
        "work_item__comparison__request",
        "work_item__comparison__dialogue",
        "work_item__rule__rule_set",
        "work_item__dialogue__probe__rule",
        "work_item__demonstration__dialogue",
        "work_item__candidate__dialogue__probe__rule",
        "work_item__scale_set",
        "annotator",
    )
    slot = get_object_or_404(slots, pk=pk)
    member = Membership.objects.filter(project=slot.work_item.project, user=person(request), is_active=True)
    if not member.exists():
        raise Http404
    return slot


def own_ranking_or_404(request: HttpRequest, comparison_pk: int) -> Ranking:
    """This person's answer to a comparison, as it stands."""
    if comparison_pk > LARGEST_ID:
        raise Http404
    mine = Ranking.objects.in_force().filter(annotator=person(request), comparison=comparison_pk)
    return get_object_or_404(
        mine.select_related("comparison__request", "comparison__dialogue", "slot__work_item__project")
    )


def comparison_of_slot_or_404(slot: Slot, pk: int) -> Comparison:
    """A comparison that this slot asks about."""
    item = slot.work_item
    asked = (
        Comparison.objects.filter(pk=item.comparison_id)
        if item.comparison_id
        else Comparison.objects.filter(dialogue=item.dialogue_id)
    )
    return get_object_or_404(asked.select_related("request"), pk=pk)
