"""Work and evidence in the admin: what people and models did, to be read."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.text import Truncator

from feedback.admin.asking import ask_for_demonstrations, ask_for_rankings, ask_for_ratings, ask_for_reviews
from feedback.admin.base import (
    EvidenceAdmin,
    EvidenceInline,
    age,
    short_error,
    try_again,
)
from feedback.models import (
    AuditEntry,
    Consent,
    Demonstration,
    DemonstrationReview,
    Dialogue,
    Document,
    GenerationRequest,
    Import,
    Probe,
    RankEntry,
    Ranking,
    Rating,
    Rule,
    RuleJudgement,
    RuleScore,
    RuleSet,
    Scale,
    ScaleSet,
    Snapshot,
    Turn,
)


@admin.register(GenerationRequest)
class GenerationRequestAdmin(EvidenceAdmin):
    project_path = "dialogue__project"
    list_display = ["__str__", "project", "state", age, "attempts", short_error, "model_version", "created_at"]
    list_filter = ["state", "dialogue__project"]
    list_select_related = ["dialogue__project", "model_version"]
    actions = [try_again]
    ordering = ["-pk"]

    @admin.display(description="project", ordering="dialogue__project")
    def project(self, request: GenerationRequest) -> str:
        return str(request.dialogue.project)


class TurnInline(EvidenceInline):
    model = Turn
    fields = ["position", "role", "content", "author"]


@admin.register(Dialogue)
class DialogueAdmin(EvidenceAdmin):
    list_display = ["__str__", "project", "kind", "opening", "policy", "created_at", "ended_at"]
    list_filter = ["project", "kind"]
    list_select_related = ["project", "policy", "prompt"]
    inlines = [TurnInline]
    actions = [ask_for_demonstrations, ask_for_rankings, ask_for_ratings]

    @admin.display(description="opening")
    def opening(self, dialogue: Dialogue) -> str:
        return Truncator(dialogue.prompt.opening if dialogue.prompt else "").chars(80)


class RankEntryInline(EvidenceInline):
    model = RankEntry
    fields = ["rank", "flags", "reply"]
    readonly_fields = ["reply"]

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).select_related("candidate")

    @admin.display(description="reply")
    def reply(self, entry: RankEntry) -> str:
        return entry.candidate.text


@admin.register(Ranking)
class RankingAdmin(EvidenceAdmin):
    project_path = "comparison__dialogue__project"
    list_display = ["__str__", "annotator_key", "annotator", "revision", "withdrawn", "counts", "late", "created_at"]
    list_filter = ["comparison__dialogue__project", "withdrawn", "counts", "all_bad"]
    list_select_related = ["annotator"]
    inlines = [RankEntryInline]


class RuleInline(EvidenceInline):
    model = Rule
    fields = ["position", "key", "name", "category", "theme", "wording", "is_sensitive", "probe_quota", "weight"]


@admin.register(RuleSet)
class RuleSetAdmin(EvidenceAdmin):
    """Rules are edited on their own pages, which check them, record who did it, and ask what a change means."""

    list_display = ["__str__", "project", "state", "rule_count", "published_at", "published_by", "retired_at"]
    list_filter = ["project", "state"]
    list_select_related = ["project", "published_by"]
    inlines = [RuleInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).annotate(rule_count=Count("rules"))

    @admin.display(description="rules", ordering="rule_count")
    def rule_count(self, rule_set: Any) -> int:
        return int(rule_set.rule_count)


@admin.register(Probe)
class ProbeAdmin(EvidenceAdmin):
    project_path = "dialogue__project"
    list_display = ["__str__", "rule", "dialogue", "created_at"]
    list_filter = ["dialogue__project"]
    list_select_related = ["rule", "dialogue"]


@admin.register(RuleJudgement)
class RuleJudgementAdmin(EvidenceAdmin):
    project_path = "dialogue__project"
    list_display = [
        "__str__", "rule", "verdict", "by_prober", "annotator_key", "annotator", "revision", "withdrawn", "counts",
        "created_at",
    ]  # fmt: skip
    list_filter = ["dialogue__project", "verdict", "by_prober", "withdrawn", "counts"]
    list_select_related = ["rule", "annotator"]


@admin.register(RuleScore)
class RuleScoreAdmin(EvidenceAdmin):
    project_path = "dialogue__project"
    list_display = ["__str__", "rule", "dialogue", "p_broken", "model_version", "created_at"]
    list_filter = ["dialogue__project", "model_version"]
    list_select_related = ["rule", "dialogue", "model_version"]


@admin.register(Consent)
class ConsentAdmin(EvidenceAdmin):
    list_display = ["user", "theme", "given", "project", "created_at"]
    list_filter = ["project", "theme", "given"]
    list_select_related = ["user", "project"]


class DemonstrationReviewInline(EvidenceInline):
    model = DemonstrationReview
    fk_name = "demonstration"
    fields = ["verdict", "reason", "annotator_key", "annotator", "revision", "withdrawn", "counts"]


@admin.register(Demonstration)
class DemonstrationAdmin(EvidenceAdmin):
    project_path = "dialogue__project"
    list_display = [
        "__str__", "annotator_key", "annotator", "opening_words", "pasted_share", "revision", "withdrawn", "counts",
        "created_at",
    ]  # fmt: skip
    list_filter = ["dialogue__project", "withdrawn", "counts"]
    list_select_related = ["annotator"]
    inlines = [DemonstrationReviewInline]
    actions = [ask_for_reviews]

    @admin.display(description="reply")
    def opening_words(self, demonstration: Demonstration) -> str:
        return Truncator(demonstration.content).chars(80)


class ScaleInline(EvidenceInline):
    model = Scale
    fields = ["key", "version", "name", "question", "kind", "asked_from", "asked_until"]


@admin.register(ScaleSet)
class ScaleSetAdmin(EvidenceAdmin):
    """Questions are added, reworded, opened and closed on the page of ratings; here they are read."""

    list_display = ["name", "project", "is_open", "by_program", "raters", "ready", "created_at"]
    list_filter = ["project", "is_open", "by_program"]
    list_select_related = ["project"]
    inlines = [ScaleInline]


@admin.register(Rating)
class RatingAdmin(EvidenceAdmin):
    project_path = "candidate__dialogue__project"
    list_display = [
        "__str__", "scale", "value", "implied", "annotator_key", "annotator", "revision", "withdrawn", "counts",
        "created_at",
    ]  # fmt: skip
    list_filter = ["candidate__dialogue__project", "scale__scale_set", "implied", "withdrawn", "counts"]
    list_select_related = ["scale", "annotator"]


@admin.register(Snapshot)
class SnapshotAdmin(EvidenceAdmin):
    list_display = ["__str__", "project", "kind", "state", age, short_error, "identity", "created_by", "withdrawn_at"]
    list_filter = ["project", "state", "kind"]
    list_select_related = ["project", "created_by"]
    exclude = [*Snapshot.IDS, "standing_rules"]
    actions = [try_again]

    @admin.display(description="identity")
    def identity(self, snapshot: Snapshot) -> str:
        return format_html("<code>{}</code>", snapshot.sha256[:12]) if snapshot.sha256 else ""

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).defer(*Snapshot.IDS)


@admin.register(Import)
class ImportAdmin(EvidenceAdmin):
    list_display = ["file_name", "format", "project", "created_by", "created_at"]
    list_filter = ["project", "format"]
    list_select_related = ["project", "created_by"]


@admin.register(Document)
class DocumentAdmin(EvidenceAdmin):
    list_display = ["title", "project", "source", "created_at", "removed_at"]
    list_filter = ["project"]
    list_select_related = ["project"]
    search_fields = ["title", "source"]


@admin.register(AuditEntry)
class AuditEntryAdmin(EvidenceAdmin):
    list_display = ["at", "actor", "action", "target", "project"]
    list_filter = ["action", "project"]
    list_select_related = ["actor", "project"]
    search_fields = ["action", "target"]
    date_hierarchy = "at"
