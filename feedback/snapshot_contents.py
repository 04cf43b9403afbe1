"""What a snapshot of each kind holds: the answers that stay, and why the others are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Exists, F, OuterRef, QuerySet, Value

from feedback.models import Demonstration, Dialogue, Project, Ranking, Rating, RuleJudgement, Snapshot, Turn

Filters = Mapping[str, Any]  # as `snapshots.checked_filters` gives them
SortedOut = tuple[list[int], Counter[str]]  # (ids that stay, {reason: how many were left out})


def _rankings_sorted_out(project: Project, filters: Filters) -> SortedOut:
    """What stays of rankings; each of these reads in one statement, and so at one instant."""
    newer = Ranking.objects.filter(
        comparison=OuterRef("comparison"), annotator_key=OuterRef("annotator_key"), revision__gt=OuterRef("revision")
    )
    rows = Ranking.objects.filter(comparison__dialogue__project=project).order_by("pk")
    facts = rows.annotate(
        corrected=Exists(newer),
        kind=F("comparison__dialogue__kind"),
        prompt=F("comparison__dialogue__prompt"),
        split=F("comparison__dialogue__prompt__group__split"),
    )
    columns = ("pk", "corrected", "withdrawn", "counts", "source_import", "kind", "prompt", "split")
    return _sifted(facts.values_list(*columns, named=True), lambda fact: _why_left_out(fact, filters))


def _judgements_sorted_out(project: Project, filters: Filters) -> SortedOut:
    """As `_rankings_sorted_out`, of verdicts on rules."""
    newer = RuleJudgement.objects.filter(
        dialogue=OuterRef("dialogue"),
        rule=OuterRef("rule"),
        annotator_key=OuterRef("annotator_key"),
        revision__gt=OuterRef("revision"),
    )
    replies = Turn.objects.filter(dialogue=OuterRef("dialogue"), role=Turn.Role.ASSISTANT)
    facts = (
        RuleJudgement.objects.filter(dialogue__project=project)
        .order_by("pk")
        .annotate(
            corrected=Exists(newer),
            has_reply=Exists(replies),
            prompt=F("dialogue__prompt"),
            kind=F("dialogue__kind"),
            split=F("dialogue__prompt__group__split"),
        )
    )
    columns = ("pk", "corrected", "withdrawn", "counts", "source_import", "prompt", "split", "has_reply", "kind")
    return _sifted(
        facts.values_list(*columns, named=True),
        lambda fact: _why_not_learned_from(fact) or _why_left_out(fact, filters),
    )


def _why_not_learned_from(fact: Any) -> str:
    """Why a verdict's dialogue is in no snapshot; empty when it may be."""
    if fact.kind == Dialogue.Kind.EVALUATION:
        return "its dialogue is kept for evaluation"
    if fact.prompt is None:
        return "its dialogue has no opening"
    return "" if fact.has_reply else "the model says nothing in its dialogue"


def _why_left_out(fact: Any, filters: Filters) -> str:
    """Why an answer is not exported; empty when it is."""
    if fact.corrected:
        return "corrected or taken back later by the same annotator"
    if fact.withdrawn:
        return "taken back by its annotator"
    if not fact.counts:
        return "sent too late, after somebody else had taken the slot"
    if fact.kind == Dialogue.Kind.EVALUATION:
        return "it was asked to measure policies, not to teach one"
    if fact.prompt is None:
        return "its replies share no opening"
    if filters.get("origin", "") == ("people" if fact.source_import else "imports"):
        return "its origin was filtered out"
    if filters.get("splits") and fact.split not in filters["splits"]:
        return "its split was filtered out"
    return ""


def _demonstrations_sorted_out(project: Project, filters: Filters) -> SortedOut:
    """As `_rankings_sorted_out`, of written replies."""
    here = Demonstration.objects.filter(dialogue__project=project)
    repeated = Turn.objects.filter(
        dialogue=OuterRef("dialogue"), position__lt=OuterRef("position"), demonstration__isnull=False
    )
    facts = here.order_by("pk").annotate(
        later=Exists(Demonstration.objects.filter(supersedes=OuterRef("pk"))),
        accepted=Exists(here.accepted().filter(pk=OuterRef("pk"))),
        sent_back=Exists(here.sent_back().filter(pk=OuterRef("pk"))),
        is_unfounded=Exists(repeated.exclude(demonstration__in=here.accepted().values("pk"))),
        prompt=F("dialogue__prompt"),
        kind=F("dialogue__kind"),
        split=F("dialogue__prompt__group__split"),
        corrected=Value(False),
    )
    columns = ("pk", "later", "accepted", "sent_back", "is_unfounded", "corrected", "withdrawn", "counts",
               "source_import", "kind", "prompt", "split")  # fmt: skip
    return _sifted(
        facts.values_list(*columns, named=True), lambda fact: _why_not_shown(fact) or _why_left_out(fact, filters)
    )


def _why_not_shown(fact: Any) -> str:
    """Why a written reply is nothing to learn from; empty where it is, or where that is said of any answer."""
    if fact.later:
        return "another text took its place, by its writer or a reviewer"
    if fact.withdrawn or not fact.counts:
        return ""
    if fact.sent_back:
        return "sent back by a reviewer"
    if not fact.accepted:
        return "nobody has accepted it yet"
    return "it goes on from a reply that is not accepted" if fact.is_unfounded else ""


def _ratings_sorted_out(project: Project, filters: Filters) -> SortedOut:
    """As `_rankings_sorted_out`, of answers about single replies."""
    newer = Rating.objects.filter(
        candidate=OuterRef("candidate"),
        scale=OuterRef("scale"),
        annotator_key=OuterRef("annotator_key"),
        revision__gt=OuterRef("revision"),
    )
    facts = (
        Rating.objects.filter(candidate__dialogue__project=project)
        .order_by("pk")
        .annotate(
            corrected=Exists(newer),
            prompt=F("candidate__dialogue__prompt"),
            kind=F("candidate__dialogue__kind"),
            split=F("candidate__dialogue__prompt__group__split"),
        )
    )
    columns = ("pk", "corrected", "withdrawn", "counts", "source_import", "program", "prompt", "kind", "split")
    return _sifted(
        facts.values_list(*columns, named=True),
        lambda fact: _why_left_out(fact, filters) or _why_no_programs(fact, filters),
    )


def _why_no_programs(fact: Any, filters: Filters) -> str:
    """Why a program's answer is left out: it is neither a person's nor imported."""
    return "its origin was filtered out" if fact.program and filters.get("origin") else ""


def _sifted(facts: QuerySet, why_not: Callable[[Any], str]) -> SortedOut:
    """What there is no reason against, and how often each reason was met."""
    kept: list[int] = []
    excluded: Counter[str] = Counter()
    for fact in facts.iterator(chunk_size=5000):
        if reason := why_not(fact):
            excluded[reason] += 1
        else:
            kept.append(fact.pk)
    return kept, excluded


@dataclass(frozen=True)
class Frozen:
    """How one kind of snapshot finds what it holds, and what it says where there is nothing."""

    sort_out: Callable[[Project, Filters], SortedOut]
    column: str
    what: str
    missing: str
    remedy: str


FROZEN = {
    Snapshot.Kind.PREFERENCE: Frozen(
        _rankings_sorted_out, "ranking_ids", "rankings", "no ranking in force", "Rank some"
    ),
    Snapshot.Kind.RULES: Frozen(
        _judgements_sorted_out, "judgement_ids", "judgements", "no verdict on a rule in force", "Judge some dialogues"
    ),
    Snapshot.Kind.DEMONSTRATIONS: Frozen(
        _demonstrations_sorted_out,
        "demonstration_ids",
        "demonstrations",
        "no accepted demonstration",
        "Write some, and have others review them",
    ),  # fmt: skip
    Snapshot.Kind.RATINGS: Frozen(_ratings_sorted_out, "rating_ids", "ratings", "no rating in force", "Rate some"),
}
