"""Whose judgements count for a rule: those of its own wording, and of those that it continues."""

from __future__ import annotations

from collections.abc import Sequence

from feedback.models import Project, Rule, RuleJudgement, RuleSet
from feedback.models.judgements import RuleJudgementQuerySet


def lineage(rule: Rule) -> list[Rule]:
    """The rules whose judgements count for a rule: itself, the one it continues, and so on back."""
    found = [rule]
    while found[-1].continues is not None:
        found.append(found[-1].continues)
    return found


def lineages(rules: Sequence[Rule]) -> dict[int, int]:
    """{id of a rule: id of the one among `rules` it counts for}, for rules of one project, in one query."""
    if not rules:
        return {}
    project = rules[0].rule_set.project_id
    before = dict(Rule.objects.filter(rule_set__project=project).values_list("pk", "continues"))
    counts_for: dict[int, int] = {}
    for rule in rules:
        earlier: int | None = rule.pk
        while earlier is not None:
            counts_for[earlier] = rule.pk
            earlier = before.get(earlier)
    return counts_for


def heads(project: Project) -> dict[int, int]:
    """{id of a rule that was ever published: id of the newest one its judgements count for}."""
    frozen = Rule.objects.filter(rule_set__project=project).exclude(rule_set__state=RuleSet.State.DRAFT)
    found: dict[int, int] = {}
    for rule, continued in frozen.order_by("-rule_set__number").values_list("pk", "continues"):
        head = found.setdefault(rule, rule)
        if continued is not None:
            found[continued] = head
    return found


def judgements_of(rule: Rule) -> RuleJudgementQuerySet:
    """The judgements that count for a rule, of its own wording and of those it continues."""
    counted = RuleJudgement.objects.counted().besides_evaluations()
    return counted.filter(rule__in=[one.pk for one in lineage(rule)])
