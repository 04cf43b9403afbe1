"""A project's corpus: what a search in it finds, documents taken out and brought back, each project by itself."""

from __future__ import annotations

import pytest
from django.db import connection

from feedback import corpus, search_index
from feedback.models import AuditEntry, Document, Import, Passage, Project
from feedback.search import CorpusSearch, words_of
from tests import make

pytestmark = [pytest.mark.django_db, pytest.mark.services]

FERN = "A fern drinks twice a week and likes deep shade."
ROSE = "A rose drinks once a week and likes full sun."
MINT = "Mint drinks every second day. Mint spreads, so keep mint in a pot."


@pytest.fixture
def project() -> Project:
    found = make.make_project()
    make.make_document(found, FERN, title="Ferns", source="https://plants.example.org/fern")
    make.make_document(found, ROSE, title="Roses")
    make.make_document(found, MINT, title="Herbs")
    return found


def titles(project: Project, query: str, limit: int = 4) -> list[str]:
    return [snippet.title for snippet in CorpusSearch(project).find(query, limit)]


# What a search finds


def test_a_snippet_says_what_it_is_from_and_where_that_stands(project):
    (snippet,) = CorpusSearch(project).find("shade", 4)
    assert (snippet.title, snippet.source, snippet.text) == ("Ferns", "https://plants.example.org/fern", FERN)
    assert Passage.objects.get(pk=snippet.passage_id).text == FERN


def test_what_has_more_of_the_words_and_rarer_ones_comes_first(project):
    assert titles(project, "drinks week sun")[0] == "Roses"
    assert titles(project, "week shade")[0] == "Ferns"
    assert titles(project, "drinks mint")[0] == "Herbs"


def test_any_one_word_is_enough_and_words_nobody_wrote_do_no_harm(project):
    assert titles(project, "shade of the helicopter") == ["Ferns"]
    assert titles(project, "helicopter") == []


def test_words_are_found_in_other_forms_other_letter_case_and_in_headings(project):
    assert titles(project, "ROSES liking")[0] == "Roses"
    assert titles(project, "herb") == ["Herbs"]
    assert titles(project, "spreading") == ["Herbs"]


def test_no_more_are_found_than_are_wanted(project):
    assert len(titles(project, "drinks", limit=2)) == 2
    assert len(titles(project, "drinks")) == 3


def test_of_equals_the_one_that_came_first_is_found_first(project):
    make.make_document(project, "Zinnias last.", title="Z", source="1")
    make.make_document(project, "Zinnias last.", title="Z", source="2")
    assert [snippet.source for snippet in CorpusSearch(project).find("zinnias", 4)] == ["1", "2"]


QUERIES = [
    "", "  ", "?!…", '"', "'", "fern AND", "fern NOT rose", "NEAR(fern rose)", "heading:fern", "fer*", "(", "fern -- x",
    "fern ' OR 1=1", "f\x00ern", "\ud800", "a | b & !c <-> d", "%s %d %(x)s", "word " * 500, "wo" * 5000, "🌿", "水",
]  # fmt: skip


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_is_words_and_nothing_else_whatever_it_holds(project, query):
    CorpusSearch(project).find(query, 4)


def test_operators_are_words():
    assert words_of("fern AND -rose OR fern*") == ["fern", "and", "rose", "or"]
    assert titles(make.make_project("empty"), "fern") == []


def test_a_project_finds_its_own_documents_alone(project):
    other = make.make_project("orchard")
    make.make_document(other, "An apple likes shade.", title="Apples")
    assert titles(other, "shade") == ["Apples"]
    assert titles(project, "shade") == ["Ferns"]


# Taken out, brought back


def test_what_is_taken_out_is_not_found_and_what_is_brought_back_is(project):
    maria = make.make_member(project, "maria", "manager")
    document = Document.objects.get(title="Ferns")
    corpus.take_out(document=document, by=maria)
    corpus.take_out(document=document, by=maria)
    assert titles(project, "shade") == []
    assert corpus.size_of(project) == corpus.Size(documents=2, passages=2, removed=1)
    corpus.bring_back(document=document, by=maria)
    corpus.bring_back(document=document, by=maria)
    assert titles(project, "shade") == ["Ferns"]
    assert corpus.size_of(project) == corpus.Size(documents=3, passages=3, removed=0)
    actions = AuditEntry.objects.filter(target=f"feedback.document:{document.pk}").order_by("pk")
    assert [entry.action for entry in actions] == ["document.taken_out", "document.brought_back"]


def test_a_document_is_stored_once_and_one_taken_out_is_found_again_when_it_comes_in_again(project):
    maria = make.make_member(project, "maria", "manager")
    document = Document.objects.get(title="Ferns")
    corpus.take_out(document=document, by=maria)
    again = Import.objects.create(project=project, format="corpus", file_name="again.md", sha256="f" * 64)
    texts = [corpus.WholeText("Ferns", document.source, FERN), corpus.WholeText("Ivy", "ivy.md", "Ivy climbs.")]
    taken = corpus.add_documents(source_import=again, texts=texts)
    assert taken == corpus.Taken(documents=1, passages=1, known=1, brought_back=1)
    assert titles(project, "shade") == ["Ferns"]


# The index


def test_the_index_follows_the_rows(project):
    passage = Passage.objects.get(document__title="Ferns")
    Passage.objects.filter(pk=passage.pk).update(text="It glows in the dark.")
    assert titles(project, "shade") == []
    assert titles(project, "glow") == ["Ferns"]
    passage.delete()
    assert titles(project, "glow") == []


def test_the_index_can_be_made_anew_of_what_is_there(project):
    connection.check_constraints()  # PostgreSQL changes no table whose new rows it has not checked
    search_index.remove(connection)
    search_index.install(connection)
    search_index.install(connection)
    assert titles(project, "shade") == ["Ferns"]


def test_the_best_of_a_thousand_documents_is_found_first(project):
    taken = Import.objects.create(project=project, format="corpus", file_name="many", sha256="e" * 64)
    many = [
        corpus.WholeText(f"Plant {number}", f"{number}", f"Plant number{number} drinks every week and likes the sun.")
        for number in range(1000)
    ]
    corpus.add_documents(source_import=taken, texts=many)
    assert titles(project, "how often does plant number777 drink", limit=1) == ["Plant 777"]
