"""A manager's pages about rules: the set in figures, one rule with what broke it, and earlier versions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from feedback import disagreements, probing, rule_figures, rule_files, rule_lineage, rule_scores, rule_sets
from feedback.charts import on_axis
from feedback.errors import FeedbackError
from feedback.models import Dialogue, Project, Rule, RuleJudgement, RuleSet
from feedback.models.judgements import chance_of
from feedback.pages.access import managed_project, person
from feedback.rule_figures import RuleFigures, SetFigures
from feedback.rule_sets import RuleChange

A_PAGE = 10
SHORT_AXIS = 0.5


# The set in figures


@dataclass(frozen=True)
class Plot:
    """Where a rate, its interval and the rate before lie on the axis, in percent of its width, and all in words."""

    said: str
    low: float | None = None
    width: float | None = None
    at: float | None = None
    before: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    one: RuleFigures
    plot: Plot


@dataclass(frozen=True)
class Column:
    """A column's head: its words, and what its link sorts by."""

    word: str
    by: str
    query: str
    sorted: str = ""  # ascending, descending, or not by this one


# {name in the address: (word, what is sorted, whether the largest come first)}; what has no value comes last
ORDERS: dict[str, tuple[str, Callable[[RuleFigures], Any], bool]] = {
    "number": ("No.", lambda one: one.rule.position, False),
    "name": ("Rule", lambda one: one.rule.name.casefold(), False),
    "kind": ("Kind", lambda one: one.rule.category, False),
    "probes": ("Probes", lambda one: one.probes, False),
    "broken": ("Broken", lambda one: one.broken.value, True),
    "agreement": ("Agreement", lambda one: None if one.has_few_units else one.agreement.value, False),
    "auc": ("AUC", lambda one: one.auc, False),
}


@require_safe
def rules(request: HttpRequest, slug: str) -> HttpResponse:
    """The published rules, worst first; where there are none yet, how to begin."""
    project = managed_project(request, slug)
    draft, published = rule_sets.draft_of(project), rule_sets.published_set(project)
    context: dict[str, Any] = {"project": project, "draft": draft, "rule_set": published}
    if published is None:
        sparrow = rule_files.read_file(rule_files.DEFAULT_SETS["sparrow"])
        return render(request, "feedback/rules_none.html", context | {"offered": _by_theme(sparrow)})
    published.project = project
    found = rule_figures.figures_of(published)
    by, largest_first = order_asked(request.GET.get("by", ""))
    context |= {
        "figures": found,
        "rows": [Row(one, plot_of(one, found)) for one in in_order(found.rules, by, largest_first)],
        "columns": columns(by, largest_first),
        "ticks": [(20 * step, round(100 * axis_end(found) * step / 5)) for step in range(6)],
        "draft_changes": rule_sets.differences(draft, published).count if draft else 0,
        "trend": trend(found),
        "count_differing": len(disagreements.find(project, predictions=rule_scores.newest_scores(project)[1])),
        "policies": probing.policies_to_choose(project),
        "has_versions": project.rule_sets.filter(state=RuleSet.State.RETIRED).exists(),
    }
    return render(request, "feedback/rules.html", context)


@require_POST
def choose_policy(request: HttpRequest, slug: str) -> HttpResponse:
    """Have people probe another policy, or whichever serves."""
    project = managed_project(request, slug)
    chosen = request.POST.get("policy", "")
    policies = probing.policies_to_choose(project)
    policy = get_object_or_404(policies, pk=int(chosen)) if chosen.isdecimal() and len(chosen) < 10 else None
    try:
        probing.choose_policy(project=project, policy=policy, by=person(request))
        said = f"{policy} is probed from the next probe on." if policy else "Whichever policy serves is probed."
        messages.success(request, said.capitalize())
    except FeedbackError as err:
        messages.error(request, err.message)
    return HttpResponseRedirect(reverse("feedback:rules", args=[slug]))


def _by_theme(found: rule_files.RuleFile) -> list[tuple[str, list[str]]]:
    """(theme, names of its rules), in the order of the file."""
    themes: dict[str, list[str]] = defaultdict(list)
    for _, values in found.rules:
        themes[values["theme"]].append(values["name"])
    return list(themes.items())


def order_asked(asked: str) -> tuple[str, bool]:
    """(column, largest first) of an address; the most broken first where nobody can sort by that."""
    by = asked.removeprefix("-")
    if by not in ORDERS:
        return "broken", True
    return by, ORDERS[by][2] != asked.startswith("-")


def in_order(found: list[RuleFigures], by: str, largest_first: bool) -> list[RuleFigures]:
    """Sorted; equal ones as they stand in the set, what has no value last."""
    value = ORDERS[by][1]
    known = [one for one in found if value(one) is not None]
    unknown = [one for one in found if value(one) is None]
    return sorted(known, key=value, reverse=largest_first) + unknown


def columns(by: str, largest_first: bool) -> dict[str, Column]:
    """{name: head}; the one that is sorted by leads to the order turned round."""
    found = {}
    for name, (word, _, usual) in ORDERS.items():
        is_turned = name == by and largest_first == usual
        direction = "descending" if largest_first else "ascending"
        found[name] = Column(word, name, ("-" if is_turned else "") + name, direction if name == by else "")
    return found


def axis_end(found: SetFigures) -> float:
    """A half where everything lies below it, else 1."""
    ends = [one.broken.interval[1] for one in found.rules if one.broken.interval]
    before = [one.before.value for one in found.rules if one.before.value is not None]
    return SHORT_AXIS if max([*ends, *before], default=0) <= SHORT_AXIS else 1.0


def plot_of(one: RuleFigures, found: SetFigures) -> Plot:
    end = axis_end(found)

    def place(value: float) -> float:
        return round(100 * on_axis(value, 0, end), 2)

    before = one.before.value
    said_before = f"; {found.policy_before}: {before:.0%} of {one.before.total}" if before is not None else ""
    at = None if before is None else place(before)
    if one.broken.value is None or one.broken.interval is None:
        return Plot(f"not probed yet{said_before}", before=at)
    low, high = one.broken.interval
    return Plot(
        said=(
            f"{one.broken.value:.0%} of {one.broken.total} probes broken, between {low:.0%} and {high:.0%} "
            f"with 95% certainty{said_before}"
        ),
        low=place(low),
        width=round(place(high) - place(low), 2),
        at=place(one.broken.value),
        before=at,
    )


def trend(found: SetFigures) -> str:
    """How the rate of all rules together moved since the policy before: down from 19%; empty where nothing is known."""
    now, before = found.broken.value, found.before.value
    if now is None or before is None:
        return ""
    if f"{now:.0%}" == f"{before:.0%}":
        return "as before"
    return f"{'down' if now < before else 'up'} from {before:.0%}"


# One rule


@dataclass(frozen=True)
class Chapter:
    """One version of a rule, and what it means for judgements."""

    rule: Rule
    word: str
    change: RuleChange | None = None


@dataclass
class Judged:
    """A dialogue with what people said of one rule in it."""

    dialogue: Dialogue
    judgements: list[RuleJudgement]
    is_own_probe: bool
    is_sensitive: bool
    turns: list[tuple[Any, bool]] = field(default_factory=list)  # (turn, whether most who named a turn named it)

    @property
    def is_broken(self) -> bool:
        return rule_figures.is_broken(one.broken for one in self.judgements)


@require_safe
def rule(request: HttpRequest, slug: str, key: str) -> HttpResponse:
    """One rule: its words, its figures, how it came to be, and the dialogues that broke it."""
    project = managed_project(request, slug)
    found = _newest(project, key)
    found.rule_set.project = project
    figures = rule_figures.figures_of(found.rule_set, only=found)
    shows_all = request.GET.get("show") == "all"
    broken, judged = judged_dialogues(found)
    page = Paginator(judged if shows_all else broken, A_PAGE).get_page(request.GET.get("page"))
    context = {
        "project": project, "rule": found, "one": figures.rules[0], "figures": figures,
        "chapters": history(project, key), "shows_all": shows_all, "count_broken": len(broken),
        "count_judged": len(judged), "page": page, "dialogues": read_dialogues(list(page), found),
    }  # fmt: skip
    return render(request, "feedback/rule.html", context)


def _newest(project: Project, key: str) -> Rule:
    """The rule in force under this key, or the last that was; 404 where there never was one."""
    known = Rule.objects.filter(rule_set__project=project, key=key).exclude(rule_set__state=RuleSet.State.DRAFT)
    found = known.select_related("rule_set").order_by("-rule_set__number").first()
    if found is None:
        raise Http404("No such rule.")
    return found


def history(project: Project, key: str) -> list[Chapter]:
    """Every version in which a rule is new or reads otherwise than before, newest first."""
    rows = Rule.objects.filter(rule_set__project=project, key=key).exclude(rule_set__state=RuleSet.State.DRAFT)
    versions = list(rows.select_related("rule_set__published_by").order_by("rule_set__number"))
    chapters = []
    for place, version in enumerate(versions):
        before = versions[place - 1] if place else None
        if before is None or before.rule_set.number + 1 < version.rule_set.number and not version.continues_id:
            chapters.append(Chapter(version, "New"))
            continue
        change = rule_sets.change_between(before, version)
        if change is not None:
            chapters.append(Chapter(version, _means(version, change), change))
    return chapters[::-1]


def _means(version: Rule, change: RuleChange) -> str:
    if not change.asks:
        return "Same words"
    return "Wording only, earlier judgements count" if version.continues_id else "Another meaning, judged anew"


def judged_dialogues(rule: Rule) -> tuple[list[int], list[int]]:
    """(those that broke a rule by consensus, all that were judged by it), as ids, newest first."""
    chances: dict[int, list[float]] = defaultdict(list)
    for dialogue, verdict in rule_lineage.judgements_of(rule).values_list("dialogue", "verdict"):
        chances[dialogue].append(chance_of(verdict))
    judged = sorted(chances, reverse=True)
    return [pk for pk in judged if rule_figures.is_broken(chances[pk])], judged


def read_dialogues(ids: list[int], rule: Rule) -> list[Judged]:
    """Dialogues with their turns and what people said of a rule in them, in this order."""
    lineage = [one.pk for one in rule_lineage.lineage(rule)]
    rows = Dialogue.objects.filter(pk__in=ids).select_related("policy", "probe__rule").prefetch_related("turns")
    by_pk = {dialogue.pk: dialogue for dialogue in rows}
    said: dict[int, list[RuleJudgement]] = defaultdict(list)
    judgements = RuleJudgement.objects.counted().filter(rule__in=lineage, dialogue__in=by_pk)
    for judgement in judgements.select_related("annotator").order_by("-by_prober", "pk"):
        said[judgement.dialogue_id].append(judgement)
    return [_judged(by_pk[pk], said[pk], lineage, rule.is_sensitive) for pk in ids]


def _judged(dialogue: Dialogue, judgements: list[RuleJudgement], lineage: list[int], is_sensitive: bool) -> Judged:
    probe = getattr(dialogue, "probe", None)
    found = Judged(
        dialogue,
        judgements,
        is_own_probe=bool(probe and probe.rule_id in lineage),
        is_sensitive=is_sensitive or bool(probe and probe.rule.is_sensitive),
    )
    named = [one.turn_position for one in judgements if one.turn_position is not None]
    most = max(set(named), key=named.count, default=None)
    found.turns = [(turn, turn.position == most and found.is_broken) for turn in dialogue.turns.all()]
    return found


# Versions


@require_safe
def versions(request: HttpRequest, slug: str) -> HttpResponse:
    """Every version of a project's rules, newest first, and why each came to be."""
    project = managed_project(request, slug)
    found = project.rule_sets.select_related("published_by", "created_by").prefetch_related("rules")
    return render(request, "feedback/rule_versions.html", {"project": project, "versions": found.order_by("-number")})


@require_safe
def version(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """One version as it was published, and what it changed."""
    project = managed_project(request, slug)
    published = RuleSet.objects.exclude(state=RuleSet.State.DRAFT).select_related("published_by")
    found = get_object_or_404(published, project=project, number=number)
    before = published.filter(project=project, number__lt=number).order_by("-number").first()
    context = {
        "project": project,
        "rule_set": found,
        "rules": found.rules.all(),
        "before": before,
        "changes": rule_sets.differences(found, before) if before else None,
    }
    return render(request, "feedback/rule_version.html", context)
