"""A project's own corpus: documents that replies may be supported by, cut into passages that a search can find."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Length
from django.db.models.lookups import LessThanOrEqual
from django.utils import timezone

from feedback.models.projects import Project

LONGEST_PASSAGE = 500  # characters, which is what a reader sees of it
LONGEST_TITLE = 300
LONGEST_SOURCE = 500


class DocumentQuerySet(models.QuerySet["Document"]):
    def searched(self) -> DocumentQuerySet:
        """Those that a search can find: not taken out."""
        return self.filter(removed_at=None)


class Document(models.Model):
    """A text that came in as a whole. It is taken out of the search, and brought back, but never deleted."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="documents")
    title = models.CharField(max_length=LONGEST_TITLE)
    source = models.CharField(max_length=LONGEST_SOURCE, help_text="Where it stands: an address, or a file's name.")
    content_hash = models.CharField(max_length=64, help_text="Of title, source and text, exactly.")
    source_import = models.ForeignKey("feedback.Import", on_delete=models.PROTECT, related_name="documents")
    removed_at = models.DateTimeField(null=True, blank=True, help_text="Since when no search finds it.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = DocumentQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "content_hash"], name="a_document_is_stored_once"),
            models.CheckConstraint(condition=~Q(title=""), name="a_document_has_a_title"),
            models.CheckConstraint(condition=~Q(source=""), name="a_document_has_a_source"),
        ]

    def __str__(self) -> str:
        return self.title


class Passage(models.Model):
    """A piece of a document, short enough to be read beside a reply. What a search finds."""

    document = models.ForeignKey(Document, on_delete=models.PROTECT, related_name="passages")
    number = models.PositiveIntegerField(help_text="Its place in the document; 0 is the first.")
    heading = models.CharField(max_length=LONGEST_TITLE, help_text="The document's title, and the section's.")
    text = models.TextField()

    class Meta:
        ordering = ["number"]
        constraints = [
            models.UniqueConstraint(fields=["document", "number"], name="one_passage_per_number"),
            models.CheckConstraint(condition=~Q(text=""), name="a_passage_says_something"),
            models.CheckConstraint(
                condition=LessThanOrEqual(Length("text"), LONGEST_PASSAGE), name="a_passage_can_be_read_at_a_glance"
            ),
        ]

    def __str__(self) -> str:
        return f"passage {self.number} of document {self.document_id}"
