"""A manager's pages about the corpus: who may see them, the documents, a search, taken out and brought back."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from feedback.models import AuditEntry, Document, Project
from tests import make

pytestmark = [pytest.mark.django_db, pytest.mark.services]


@pytest.fixture
def project() -> Project:
    return make.make_project()


@pytest.fixture
def manager(client: Client, project: Project) -> Client:
    client.force_login(make.make_member(project, "maria", "manager"))
    return client


def address(project: Project, name: str = "corpus", *args: object) -> str:
    return reverse(f"feedback:{name}", args=[project.slug, *args])


def text_of(client: Client, path: str, **headers: str) -> str:
    return " ".join(client.get(path, headers=headers).content.decode().split())


@pytest.mark.parametrize("role", ["annotator", "reviewer", "elsewhere", None])
def test_who_does_not_manage_the_project_finds_nothing(client, project, role):
    document = make.make_document(project)
    person = make.make_user("charlie")
    if role == "elsewhere":
        make.make_member(make.make_project("orchard"), "charlie", "manager")
    elif role:
        make.make_member(project, "charlie", role)
    client.force_login(person)
    for path in (address(project), address(project, "document", document.pk)):
        assert client.get(path).status_code == 404
    assert client.post(address(project, "keep_document", document.pk)).status_code == 404
    assert client.post(address(project, "search_corpus"), {"evidence": "corpus"}).status_code == 404
    assert Document.objects.searched().exists()


def test_an_empty_corpus_says_how_documents_come_in(manager, project):
    page = text_of(manager, address(project))
    assert "No documents yet." in page
    assert "manage.py import_corpus --project plant-desk FILE…" in page
    assert 'type="search"' not in page


def test_the_documents_are_listed_with_their_passages(manager, project):
    make.make_document(project, "# Shade\nA fern.\n\n# Sun\nNo fern.", title="Ferns", source="https://a.example.org/f")
    page = text_of(manager, address(project))
    assert "1 document in 2 passages" in page
    assert "Ferns" in page and "https://a.example.org/f" in page


def test_a_search_shows_what_it_finds_and_htmx_gets_that_alone(manager, project):
    make.make_document(project, "A fern drinks twice a week.", title="Ferns", source="f")
    page = text_of(manager, address(project) + "?q=drinking")
    assert "1 passage, best first." in page and "A fern drinks twice a week." in page
    assert 'value="drinking"' in page
    part = text_of(manager, address(project) + "?q=drinking", **{"HX-Request": "true", "HX-Target": "found"})
    assert "A fern drinks twice a week." in part and "<html" not in part and "<form" not in part
    assert "No passage has any of these words." in text_of(manager, address(project) + "?q=helicopter")


def test_what_documents_say_is_text_and_nothing_else(manager, project):
    hostile = "<script>alert(1)</script>"
    document = make.make_document(project, f"fern {hostile}", title=f"T{hostile}", source=f"s{hostile}")
    for path in (address(project) + "?q=fern", address(project, "document", document.pk)):
        page = text_of(manager, path)
        assert hostile not in page and "&lt;script&gt;alert(1)" in page


def test_a_document_is_taken_out_listed_apart_and_brought_back(manager, project):
    document = make.make_document(project, "A fern drinks.", title="Ferns")
    page = manager.post(address(project, "keep_document", document.pk), follow=True).content.decode()
    assert "No search finds Ferns any more." in page and "Bring it back" in page
    assert "Every document was taken out." in text_of(manager, address(project))
    make.make_document(project, "A rose drinks.", title="Roses")
    assert "1 taken out" in text_of(manager, address(project))
    assert "Ferns" in text_of(manager, address(project) + "?removed=1")
    page = manager.post(address(project, "keep_document", document.pk), {"keep": "1"}, follow=True).content.decode()
    assert "Searches find Ferns again." in page and "Take it out" in page
    assert "Nothing was taken out." in text_of(manager, address(project) + "?removed=1")


def test_what_is_not_there_or_not_here_is_not_found(manager, project):
    stray = make.make_document(make.make_project("orchard"))
    for pk in (stray.pk, 10**9):
        assert manager.get(address(project, "document", pk)).status_code == 404
        assert manager.post(address(project, "keep_document", pk)).status_code == 404
    assert manager.get(address(project, "keep_document", stray.pk)).status_code == 405


def test_many_documents_come_page_by_page(manager, project):
    for number in range(51):
        make.make_document(project, f"Number {number}.", title=f"Document {number}.")
    assert "Page 1 of 2" in text_of(manager, address(project))
    assert "Document 0." in text_of(manager, address(project) + "?page=2")
    assert "Document 0." in text_of(manager, address(project) + "?page=99")


def test_a_search_service_is_offered_where_there_is_one_and_nowhere_else(manager, project, settings):
    assert "search service" not in text_of(manager, address(project))
    manager.post(address(project, "search_corpus"), {"evidence": "service"})
    project.refresh_from_db()
    assert project.evidence == ""
    settings.SEARCH_URL = "https://search.example.org/find"
    assert "Let replies ask the search service" in text_of(manager, address(project))
    page = manager.post(address(project, "search_corpus"), {"evidence": "service"}, follow=True).content.decode()
    assert "ask the search service first, and not this corpus" in page and "Let replies search no more" in page
    project.refresh_from_db()
    assert project.evidence == "service"


def test_replies_are_let_search_and_let_search_no_more(manager, project):
    assert "Let replies search here" not in text_of(manager, address(project))
    make.make_document(project)
    page = text_of(manager, address(project))
    assert "Replies do not search here yet." in page and "Only a policy that has learned to search" in page
    page = manager.post(address(project, "search_corpus"), {"evidence": "corpus"}, follow=True).content.decode()
    assert "half of the replies search here first" in page and "Let replies search no more" in page
    project.refresh_from_db()
    assert project.evidence == "corpus"
    manager.post(address(project, "search_corpus"))
    project.refresh_from_db()
    assert project.evidence == ""
    actions = AuditEntry.objects.filter(project=project, action__startswith="project.evidence").order_by("pk")
    assert [entry.action for entry in actions] == ["project.evidence_on", "project.evidence_off"]
