"""A manager's pages about the corpus: its documents, what a search in it finds, taking one out and bringing it back."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from feedback import corpus as documents
from feedback.models import Document, Project
from feedback.pages.access import managed_project, person
from feedback.pages.parts import render_page_or_part
from feedback.search import CorpusSearch

A_PAGE = 50
SHOWN = 6  # of what a search finds
LONGEST_QUERY = 300
SAID = {
    Project.Evidence.CORPUS: "From now on half of the replies search here first, and show people what they found.",
    Project.Evidence.SERVICE: "From now on half of the replies ask the search service first, and show what it found.",
    Project.Evidence.OFF: "Replies search no more. What earlier ones found stays with them.",
}


def _services() -> list[str]:
    """What else than the corpus can be searched in this installation."""
    return [Project.Evidence.SERVICE] if settings.SEARCH_URL else []


@require_safe
def corpus(request: HttpRequest, slug: str) -> HttpResponse:
    """The documents, newest first, and above them a search as the policy would make it; for htmx what it found alone.

    `removed` lists what was taken out; `q` searches; `page`.
    """
    project = managed_project(request, slug)
    words = " ".join(request.GET.get("q", "").split())[:LONGEST_QUERY]
    context = {
        "project": project,
        "words": words,
        "found": CorpusSearch(project).find(words, SHOWN) if words else [],
        "size": documents.size_of(project),
        "has_service": bool(_services()),
    }
    removed = request.GET.get("removed") == "1"
    page = Paginator(documents.documents_of(project, removed=removed), A_PAGE).get_page(request.GET.get("page"))
    context |= {"removed": removed, "page": page}
    return render_page_or_part(request, "feedback/corpus.html", {"found": "feedback/_found.html"}, context)


@require_POST
def search_here(request: HttpRequest, slug: str) -> HttpResponse:
    """`evidence` is where replies search: `corpus`, `service` where there is one, or nothing."""
    project = managed_project(request, slug)
    wanted = request.POST.get("evidence", "")
    known = [Project.Evidence.CORPUS, *_services()]
    evidence = Project.Evidence(wanted) if wanted in known else Project.Evidence.OFF
    documents.search_in(project=project, evidence=evidence, by=person(request))
    messages.success(request, SAID[evidence])
    return HttpResponseRedirect(reverse("feedback:corpus", args=[slug]))


@require_safe
def document(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """A document as a search sees it: its passages, in order."""
    project = managed_project(request, slug)
    found = get_object_or_404(Document.objects.select_related("source_import"), pk=pk, project=project)
    page = Paginator(found.passages.all(), A_PAGE).get_page(request.GET.get("page"))
    return render(request, "feedback/document.html", {"project": project, "document": found, "page": page})


@require_POST
def keep(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """`keep` is 1 to have a document found again, nothing to take it out."""
    project = managed_project(request, slug)
    found = get_object_or_404(Document, pk=pk, project=project)
    if request.POST.get("keep") == "1":
        documents.bring_back(document=found, by=person(request))
        messages.success(request, f"Searches find {found.title} again.")
    else:
        documents.take_out(document=found, by=person(request))
        messages.success(request, f"No search finds {found.title} any more. What replies have shown of it stays.")
    return HttpResponseRedirect(reverse("feedback:document", args=[slug, pk]))
