"""Who may see a manager's pages: every view finds its project through here, so that a stranger's look is a 404."""

from __future__ import annotations

from django.http import HttpRequest
from django.shortcuts import get_object_or_404

from feedback.models import Project, User


def person(request: HttpRequest) -> User:
    """The signed-in person; LoginRequiredMiddleware has seen to it that there is one."""
    assert isinstance(request.user, User)
    return request.user


def managed_project(request: HttpRequest, slug: str) -> Project:
    """A project this person manages, its policies read with it; 404 for everybody else."""
    return get_object_or_404(
        Project.objects.managed_by(person(request)).select_related("policy", "probed_policy"), slug=slug
    )
