"""Rules in figures: how often the policy breaks each when probed, how far people agree on it, what to do about it.

A probe is broken by consensus: when the mean chance that its counted judgements give is more than a half. Judgements of
earlier wordings count where a rule continues them (`rule_lineage.lineages`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from feedback import rule_lineage
from feedback.agreement import Alpha, Share, alpha_of
from feedback.models import ModelVersion, Probe, Project, Rule, RuleJudgement, RuleSet
from feedback.models.judgements import chance_of

FEW_UNITS = 10  # dialogues judged by two or more, below which alpha says nothing
LOW_ALPHA = 0.6
FAIR_ALPHA = 0.8  # Krippendorff 2004: rely on what reaches 0.8
OFTEN_SPLIT = 0.1  # share of dialogues that some call broken and others kept
OFTEN_BROKEN = 0.10  # surely broken more often than this: people should train on it


@dataclass(frozen=True)
class Next:
    """What a rule asks of its manager."""

    kind: str  # reword, train, probe or nothing
    probes: int = 0

    @property
    def needs_manager(self) -> bool:
        return self.kind in ("reword", "train")


@dataclass(frozen=True)
class RuleFigures:
    """One rule in figures."""

    rule: Rule
    broken: Share  # of judged probes of the policy that is probed
    before: Share  # the same of the policy before it
    agreement: Alpha
    split: float = 0.0  # share of the dialogues judged by several that some call broken and others kept
    auc: float | None = None
    has_auc: bool = False

    @property
    def probes(self) -> int:
        return self.broken.total

    @property
    def has_few_units(self) -> bool:
        return self.agreement.units < FEW_UNITS

    @property
    def people_differ(self) -> bool:
        """Agreement is low and surely below what can be relied on, and people do stand on both sides.

        The last because alpha is low by itself where nearly nothing is broken: a few odd answers weigh much then.
        """
        one = self.agreement
        if self.has_few_units or one.value is None or one.interval is None:
            return False
        return one.value < LOW_ALPHA and one.interval[1] < FAIR_ALPHA and self.split >= OFTEN_SPLIT

    @property
    def is_often_broken(self) -> bool:
        return self.broken.interval is not None and self.broken.interval[0] > OFTEN_BROKEN

    @property
    def next(self) -> Next:
        if self.people_differ:
            return Next("reword")
        if self.is_often_broken:
            return Next("train")
        short = self.rule.probe_quota - self.probes
        return Next("probe", short) if short > 0 else Next("nothing")


@dataclass(frozen=True)
class SetFigures:
    """All rules of a set in figures, and both policies they are about."""

    rules: list[RuleFigures]
    policy: ModelVersion | None
    policy_before: ModelVersion | None
    broken: Share = field(default_factory=lambda: Share(0, 0))
    before: Share = field(default_factory=lambda: Share(0, 0))

    @property
    def differing(self) -> list[RuleFigures]:
        return [one for one in self.rules if one.next.kind == "reword"]

    @property
    def broken_often(self) -> list[RuleFigures]:
        return [one for one in self.rules if one.next.kind == "train"]

    @property
    def needing(self) -> int:
        return sum(one.next.needs_manager for one in self.rules)

    @property
    def short_of_probes(self) -> list[RuleFigures]:
        return [one for one in self.rules if one.next.kind == "probe"]


# Pure


def is_broken(chances: Iterable[float]) -> bool:
    """The consensus of judgements, each as a chance that the rule was broken; a half is not broken.

    >>> [is_broken([1, 0.25]), is_broken([1, 0]), is_broken([0.5]), is_broken([0.75, 0.5, 0.5])]
    [True, False, False, True]
    """
    return fmean(chances) > 0.5


def broken_share(probes: Iterable[Sequence[float]]) -> Share:
    """The share of probes that are broken by consensus; those nobody judged are passed over."""
    judged = [is_broken(chances) for chances in probes if chances]
    return Share(sum(judged), len(judged))


def split_share(units: Iterable[Sequence[int]]) -> float:
    """The share of the dialogues judged by several that some call broken (1, 2) and others kept (4, 5).

    >>> split_share([[1, 5], [1, 2, 3], [4, 4], [1]]), split_share([])
    (0.3333333333333333, 0.0)
    """
    several = [verdicts for verdicts in units if len(verdicts) > 1]
    return sum(min(one) < 3 < max(one) for one in several) / len(several) if several else 0.0


# From the rows


def figures_of(rule_set: RuleSet, only: Rule | None = None) -> SetFigures:
    """Every rule of a set (or only one) in figures, in its order, for the policy that is probed and the one before."""
    rules = [only] if only else list(rule_set.rules.select_related("rule_set"))
    counts_for = rule_lineage.lineages(rules)
    verdicts = _verdicts(counts_for)
    probes = _probes(counts_for)
    policy, before = _policies(rule_set.project, {policy for _, policy in probes.values()})
    aucs = _aucs(rule_set.project)

    def share(rule: Rule, of: ModelVersion | None) -> Share:  # as `probed_shares`, for two policies in one reading
        mine = verdicts.get(rule.pk, {})
        return broken_share(
            [chance_of(verdict) for verdict in mine.get(dialogue, [])]
            for dialogue, (probed, spoke) in probes.items()
            if of is not None and probed == rule.pk and spoke == of.pk
        )

    found = [
        RuleFigures(
            rule=rule,
            broken=share(rule, policy),
            before=share(rule, before),
            agreement=alpha_of(verdicts.get(rule.pk, {}).values()),
            split=split_share(verdicts.get(rule.pk, {}).values()),
            auc=aucs.get(rule.key),
            has_auc=rule.key in aucs,
        )
        for rule in rules
    ]
    return SetFigures(
        found, policy, before, _together(one.broken for one in found), _together(one.before for one in found)
    )


def probed_shares(counts_for: Mapping[int, int], policy_id: int) -> dict[int, Share]:
    """{rule: the share of its judged probes that are broken by consensus}, of one policy; those never judged left out.

    counts_for  {rule: the rule it counts for}, as `rule_lineage.lineages`
    """
    rows = RuleJudgement.objects.counted().filter(
        rule__in=counts_for, dialogue__policy=policy_id, dialogue__probe__rule__in=counts_for
    )
    chances: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for rule, probed, dialogue, verdict in rows.values_list("rule", "dialogue__probe__rule", "dialogue", "verdict"):
        if counts_for[rule] == counts_for[probed]:
            chances[counts_for[rule]][dialogue].append(chance_of(verdict))
    return {rule: broken_share(probes.values()) for rule, probes in chances.items()}


def _together(shares: Iterable[Share]) -> Share:
    found = list(shares)
    return Share(sum(one.hits for one in found), sum(one.total for one in found))


def _verdicts(counts_for: Mapping[int, int]) -> dict[int, dict[int, list[int]]]:
    """{rule: {dialogue: verdicts that count}}, earlier wordings under the rule that continues them."""
    found: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    rows = RuleJudgement.objects.counted().besides_evaluations().filter(rule__in=counts_for)
    for rule, dialogue, verdict in rows.values_list("rule", "dialogue", "verdict"):
        found[counts_for[rule]][dialogue].append(verdict)
    return found


def _probes(counts_for: Mapping[int, int]) -> dict[int, tuple[int, int | None]]:
    """{dialogue: (the rule it probed, the policy that spoke)}."""
    rows = Probe.objects.filter(rule__in=counts_for).values_list("dialogue", "rule", "dialogue__policy")
    return {dialogue: (counts_for[rule], policy) for dialogue, rule, policy in rows}


def _policies(project: Project, probed: set[int | None]) -> tuple[ModelVersion | None, ModelVersion | None]:
    """The policy that is probed, and the newest one before it that was."""
    chosen = project.policy_to_probe
    if chosen is None:
        return None, None
    earlier = ModelVersion.objects.filter(
        pk__in=[pk for pk in probed if pk is not None], kind=ModelVersion.Kind.POLICY, number__lt=chosen.number
    )
    return chosen, earlier.order_by("-number").first()


def _aucs(project: Project) -> dict[str, float | None]:
    """{key of a rule: AUC of the newest rule model, None where it had too few to tell}."""
    newest = ModelVersion.objects.filter(project=project, kind=ModelVersion.Kind.RULE).order_by("-number").first()
    return aucs_in(newest.figures if newest else None)


def aucs_in(figures: Any) -> dict[str, float | None]:
    """{key of a rule: AUC} of a rule model's reported figures; nothing where they are of another form.

    Read from `rules`: {key: {"auc": …}}, or [{"key": …, "all": …}] with `all` over all dialogues judged by a rule.

    >>> aucs_in({"rules": {"kind": {"auc": 0.9}}}), aucs_in({"rules": [{"key": "kind", "all": None}]}), aucs_in([])
    ({'kind': 0.9}, {'kind': None}, {})
    """
    rules = figures.get("rules") if isinstance(figures, dict) else None
    rows = (
        [{"key": key} | row for key, row in rules.items() if isinstance(row, dict)]
        if isinstance(rules, dict)
        else rules
    )
    found: dict[str, float | None] = {}
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and isinstance(row.get("key"), str):
            auc = row.get("auc", row.get("all"))
            found[row["key"]] = float(auc) if isinstance(auc, int | float) else None
    return found
