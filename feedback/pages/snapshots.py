"""Snapshots in a manager's hands: freeze one, take its files along."""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.http import content_disposition_header
from django.views.decorators.http import require_POST, require_safe

from feedback import audit, snapshots
from feedback.errors import FeedbackError
from feedback.exports.archive import zipped
from feedback.models import Snapshot
from feedback.pages.access import managed_project, person


@require_POST
def make(request: HttpRequest, slug: str) -> HttpResponse:
    """Freeze the rankings, verdicts on rules, demonstrations or ratings that count now; a worker writes the files."""
    project = managed_project(request, slug)
    kind = request.POST.get("kind", Snapshot.Kind.PREFERENCE)
    if kind not in Snapshot.Kind.values:
        raise Http404("No such kind of snapshot.")
    try:
        snapshots.freeze(project=project, kind=kind, created_by=person(request))
        messages.success(request, "Snapshot taken. Its files are written in the background.")
    except FeedbackError as err:
        messages.error(request, err.message)
    return _back(slug)


@require_safe
def download(request: HttpRequest, slug: str, pk: int) -> HttpResponseBase:
    """All files of a snapshot as one ZIP file; one that cannot be used says why on the overview."""
    project = managed_project(request, slug)
    snapshot = get_object_or_404(Snapshot.objects.defer(*Snapshot.IDS), pk=pk, project=project)
    try:
        folder = snapshots.require_usable(snapshot)
    except FeedbackError as err:
        messages.error(request, err.message)
        return _back(slug)
    if request.method == "GET":
        audit.record("snapshot.downloaded", project=project, actor=person(request), target=snapshot)
    name = f"{project.slug}-{snapshot.kind}-{snapshot.sha256[:12]}"
    headers = {"Content-Disposition": content_disposition_header(as_attachment=True, filename=f"{name}.zip")}
    return StreamingHttpResponse(zipped(folder, name=name), content_type="application/zip", headers=headers)


def _back(slug: str) -> HttpResponse:
    return HttpResponseRedirect(reverse("feedback:overview", args=[slug]) + "#snapshots")
