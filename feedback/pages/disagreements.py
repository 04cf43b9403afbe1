"""A manager's page about where people differ: the dialogues, and whether one is sent for another judgement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from feedback import disagreements, rule_scores, rule_sets
from feedback.disagreements import DECIDED, WHO, Asked, Disagreement
from feedback.errors import FeedbackError
from feedback.models import Dialogue, Rule, RuleSet
from feedback.pages.access import managed_project, person
from feedback.pages.rules import A_PAGE, Judged, read_dialogues


@dataclass(frozen=True)
class Differing:
    """A dialogue on which people differ, with all they said of it, and what is asked about it now."""

    one: Disagreement
    judged: Judged
    asked: Asked


@require_safe
def differing(request: HttpRequest, slug: str) -> HttpResponse:
    """The dialogues on which people differ, furthest apart first; by rule, outcome and who differs."""
    project = managed_project(request, slug)
    published = rule_sets.published_set(project)
    rules = list(published.rules.all()) if published else []
    rule_key = request.GET.get("rule", "")
    rule_key = rule_key if rule_key in {rule.key for rule in rules} else ""
    decided = request.GET.get("decided", "")
    decided = decided if decided in DECIDED else ""
    rule_model, said = rule_scores.newest_scores(project)
    who = request.GET.get("who", "")
    who = who if who in WHO and rule_model is not None else ""
    found = disagreements.find(project, rule_key=rule_key, decided=decided, who=who, predictions=said)
    page = Paginator(found, A_PAGE).get_page(request.GET.get("page"))
    context: dict[str, Any] = {
        "project": project, "rules": rules, "rule_key": rule_key, "decided": decided, "choices": DECIDED,
        "count": len(found), "page": page, "rows": _rows(list(page)), "is_filtered": bool(rule_key or decided or who),
        "query": urlencode({"rule": rule_key, "decided": decided, "who": who}), "rule_set": published,
        "rule_model": rule_model, "who": who, "whose": WHO,
    }  # fmt: skip
    return render(request, "feedback/rule_disagreements.html", context)


def _rows(found: list[Disagreement]) -> list[Differing]:
    asked = disagreements.asked_about(found)
    by_rule = {one.rule.pk: one.rule for one in found}
    judged = {
        pk: {one.dialogue.pk: one for one in read_dialogues([d.dialogue_id for d in found if d.rule.pk == pk], rule)}
        for pk, rule in by_rule.items()
    }
    return [
        Differing(one, judged[one.rule.pk][one.dialogue_id], asked.get((one.dialogue_id, one.rule.pk), Asked()))
        for one in found
    ]


@require_POST
def ask_again(request: HttpRequest, slug: str, pk: int, key: str) -> HttpResponse:
    """Send a dialogue for another judgement, or take that back while nobody has claimed it."""
    project = managed_project(request, slug)
    besides_evaluations = Dialogue.objects.exclude(kind=Dialogue.Kind.EVALUATION)
    dialogue = get_object_or_404(besides_evaluations, pk=pk, project=project)
    rules = Rule.objects.select_related("rule_set__project")
    rule = get_object_or_404(rules, rule_set__project=project, rule_set__state=RuleSet.State.PUBLISHED, key=key)
    try:
        if "undo" in request.POST:
            disagreements.undo_asking(dialogue=dialogue, rule=rule, by=person(request))
            messages.success(request, "Nobody more is asked about it.")
        else:
            disagreements.ask_again(dialogue=dialogue, rule=rule, by=person(request))
            messages.success(request, _sent(project.probes_open))
    except FeedbackError as err:
        messages.error(request, err.message)
    return HttpResponseRedirect(_back(request, slug))


def _sent(probes_open: bool) -> str:
    closed = "" if probes_open else " Probing is closed in the settings, so nobody is asked before it opens."
    return f"One more person is asked, who has not judged it.{closed}"


def _back(request: HttpRequest, slug: str) -> str:
    """To the page as it was filtered; only words this page knows are taken over."""
    page = request.POST.get("page", "")
    kept = {name: request.POST.get(name, "") for name in ("rule", "decided", "who")}
    kept |= {"page": page} if page.isdecimal() else {}
    return reverse("feedback:rule_disagreements", args=[slug]) + "?" + urlencode(kept)
