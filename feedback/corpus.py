"""A project's corpus in its manager's hands: documents taken in, taken out of the search, and brought back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Count, QuerySet
from django.utils import timezone

from feedback import audit
from feedback.models import Document, Import, Passage, Project, User
from feedback.passages import Cut, passages_of

WRITTEN_AT_ONCE = 500


@dataclass(frozen=True)
class WholeText:
    """A document as it comes in.

    source  where it stands: an address, or the name of a file
    """

    title: str
    source: str
    text: str

    def content_hash(self) -> str:
        """sha256 of everything it says, exactly."""
        said = [self.title, self.source, self.text]
        return hashlib.sha256(json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()

    def passages(self) -> list[Cut]:
        """What a search finds of it, in order; each under the document's title and its section's."""
        return passages_of(self.title, self.text)


@dataclass(frozen=True)
class Taken:
    """What came of documents that were to be stored."""

    documents: int = 0
    passages: int = 0
    known: int = 0  # that are here already
    brought_back: int = 0  # of these, that had been taken out


@dataclass(frozen=True)
class Size:
    """How much a search finds, and how much was taken out."""

    documents: int
    passages: int
    removed: int


@transaction.atomic
def add_documents(*, source_import: Import, texts: Iterable[WholeText]) -> Taken:
    """Store documents and their passages. One that is here already is left as it is, but found again if taken out."""
    documents = passages = known = brought_back = 0
    project = source_import.project
    for text in texts:
        document, made = Document.objects.get_or_create(
            project=project,
            content_hash=text.content_hash(),
            defaults={"title": text.title, "source": text.source, "source_import": source_import},
        )
        if not made:
            known += 1
            brought_back += Document.objects.filter(pk=document.pk).exclude(removed_at=None).update(removed_at=None)
            continue
        rows = [
            Passage(document=document, number=number, heading=cut.heading, text=cut.text)
            for number, cut in enumerate(text.passages())
        ]
        Passage.objects.bulk_create(rows, batch_size=WRITTEN_AT_ONCE)
        documents += 1
        passages += len(rows)
    return Taken(documents, passages, known, brought_back)


@transaction.atomic
def take_out(*, document: Document, by: User) -> None:
    """No search finds it any more. What replies have shown of it stays with them. Twice is once."""
    if Document.objects.filter(pk=document.pk, removed_at=None).update(removed_at=timezone.now()):
        audit.record("document.taken_out", project=document.project, actor=by, target=document)


@transaction.atomic
def bring_back(*, document: Document, by: User) -> None:
    """Searches find it again. Twice is once."""
    if Document.objects.filter(pk=document.pk).exclude(removed_at=None).update(removed_at=None):
        audit.record("document.brought_back", project=document.project, actor=by, target=document)


@transaction.atomic
def search_in(*, project: Project, evidence: str, by: User) -> None:
    """Let half of the replies that people rank search first from now on, and where; or no more."""
    project.evidence = Project.Evidence(evidence)
    project.save(update_fields=["evidence"])
    action = "project.evidence_on" if evidence else "project.evidence_off"
    audit.record(action, project=project, actor=by, target=project, evidence=evidence)


def size_of(project: Project) -> Size:
    """How large a project's corpus is."""
    documents = Document.objects.filter(project=project)
    found = documents.searched()
    return Size(
        documents=found.count(),
        passages=Passage.objects.filter(document__in=found).count(),
        removed=documents.exclude(removed_at=None).count(),
    )


def documents_of(project: Project, *, removed: bool = False) -> QuerySet[Document]:
    """A project's documents with `count` passages, the newest first: those a search finds, or those taken out."""
    documents = Document.objects.filter(project=project, removed_at__isnull=not removed)
    return documents.annotate(count=Count("passages")).order_by("-pk")
