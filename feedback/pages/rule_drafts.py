"""A manager's pages about the draft of a rule set: edit it, compare it with what is published, publish, discard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from django_htmx.http import HttpResponseClientRedirect

from feedback import rule_files, rule_lineage, rule_sets
from feedback.errors import DecisionMissing, FeedbackError, RuleRefused
from feedback.forms import PublishForm, RuleForm
from feedback.models import Rule, RuleSet
from feedback.pages.access import managed_project, person
from feedback.pages.parts import render_page_or_part
from feedback.rule_sets import DECISIONS, Differences, RuleChange

DISCARD_WORD = "discard"


@dataclass(frozen=True)
class Asked:
    """A changed rule on the compare page: what was chosen for it, and how many judgements that is about."""

    change: RuleChange
    judgements: int
    chosen: str = ""
    is_missing: bool = False


def with_draft(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Give a view the draft of a project its visitor manages, in place of the project's slug.

    Where there is none (any more), the visitor is told so on the page of the rules.
    """

    @wraps(view)
    def found(request: HttpRequest, slug: str, **rest: Any) -> HttpResponse:
        project = managed_project(request, slug)
        draft = rule_sets.draft_of(project)
        if draft is None:
            messages.info(request, "There is no draft any more: it was published or discarded, or nobody opened one.")
            where = reverse("feedback:rules", args=[slug])
            is_htmx = getattr(request, "htmx", None)
            return HttpResponseClientRedirect(where) if is_htmx else HttpResponseRedirect(where)
        draft.project = project
        return view(request, draft, **rest)

    return found


@require_POST
def open_draft(request: HttpRequest, slug: str) -> HttpResponse:
    """Begin the next version: from what is published, from a set that comes along, or from nothing."""
    project = managed_project(request, slug)
    start = request.POST.get("start", "")
    try:
        if start in rule_files.DEFAULT_SETS:
            found = rule_files.read_file(rule_files.DEFAULT_SETS[start])
            rule_files.take_in(project=project, found=found, by=person(request), source=start)
        else:
            rule_sets.open_draft(project=project, by=person(request))
    except FeedbackError as err:
        messages.error(request, err.message)
    return redirect("feedback:rule_draft", slug)


@require_safe
@with_draft
def draft(request: HttpRequest, found: RuleSet) -> HttpResponse:
    """The draft as a list to edit."""
    return _show(request, found)


def _show(request: HttpRequest, found: RuleSet) -> HttpResponse:
    published = rule_sets.published_set(found.project)
    changes = rule_sets.differences(found, published)
    states = {rule.key: "new" for rule in changes.added if published}
    states |= {change.after.key: "changed" for change in changes.changed}
    rows = [(rule, states.get(rule.key, ""), rule_sets.fingerprint_of_rule(rule)) for rule in found.rules.all()]
    context = {
        "project": found.project, "draft": found, "published": published, "changes": changes, "rows": rows,
    }  # fmt: skip
    parts = {"draft-rules": "feedback/_draft_rules.html"}
    return render_page_or_part(request, "feedback/rule_draft.html", parts, context)


@require_http_methods(["GET", "HEAD", "POST"])
@with_draft
def add_rule(request: HttpRequest, found: RuleSet) -> HttpResponse:
    """Write a further rule."""
    form = RuleForm.empty(request.POST if request.method == "POST" else None)
    if form.is_valid():
        try:
            rule = rule_sets.add_rule(draft=found, by=person(request), **form.values())
            messages.success(request, f"“{rule.name}” was added to the draft.")
            return redirect("feedback:rule_draft", found.project.slug)
        except FeedbackError as err:
            _say(form, err)
    return _show_form(request, found, form, None)


@require_http_methods(["GET", "HEAD", "POST"])
@with_draft
def edit_rule(request: HttpRequest, found: RuleSet, key: str) -> HttpResponse:
    """Change a rule of the draft; what was typed is kept when it is refused."""
    rule = get_object_or_404(Rule, rule_set=found, key=key)
    form = RuleForm.of(rule, request.POST if request.method == "POST" else None)
    if form.is_valid():
        try:
            seen = request.POST.get("seen", "")
            rule_sets.edit_rule(rule=rule, by=person(request), seen=seen, **form.values())
            return HttpResponseRedirect(reverse("feedback:rule_draft", args=[found.project.slug]) + f"#rule-{rule.key}")
        except FeedbackError as err:
            _say(form, err)
    return _show_form(request, found, form, rule)


def _say(form: RuleForm, err: FeedbackError) -> None:
    """What the domain refused, beside the field it is about or on top."""
    if isinstance(err, RuleRefused):
        for name, text in err.problems.items():
            form.add_error(name, text)
    else:
        form.add_error(None, err.message)


def _show_form(request: HttpRequest, found: RuleSet, form: RuleForm, rule: Rule | None) -> HttpResponse:
    if wrong := next((name for name in form.fields if name in form.errors), None):
        form.fields[wrong].widget.attrs["autofocus"] = True
    published = rule_sets.published_set(found.project)
    before = published.rules.filter(key=rule.key).first() if published and rule else None
    context = {
        "project": found.project, "draft": found, "form": form, "rule": rule, "before": before,
        "seen": rule_sets.fingerprint_of_rule(rule) if rule else "",
    }  # fmt: skip
    return render(request, "feedback/rule_form.html", context, status=422 if form.errors else 200)


@require_POST
@with_draft
def change_order(request: HttpRequest, found: RuleSet, key: str) -> HttpResponse:
    """Move a rule of the draft one place up or down."""
    rule = get_object_or_404(Rule, rule_set=found, key=key)
    steps = {"up": -1, "down": 1}.get(request.POST.get("to", ""), 0)
    return _do(request, found, lambda: rule_sets.move_rule(rule=rule, steps=steps, by=person(request)), key)


@require_POST
@with_draft
def remove_rule(request: HttpRequest, found: RuleSet, key: str) -> HttpResponse:
    """Take a rule out of the draft; a published one can be brought back."""
    rule = get_object_or_404(Rule, rule_set=found, key=key)
    seen = request.POST.get("seen", "")
    return _do(request, found, lambda: rule_sets.remove_rule(rule=rule, by=person(request), seen=seen))


@require_POST
@with_draft
def bring_back(request: HttpRequest, found: RuleSet, key: str) -> HttpResponse:
    """Put a published rule that was removed back into the draft."""
    return _do(request, found, lambda: rule_sets.bring_back(draft=found, key=key, by=person(request)), key)


def _do(request: HttpRequest, found: RuleSet, deed: Any, key: str = "") -> HttpResponse:
    """Do something to the draft, then show it: htmx gets the list, a browser is sent back to where it was."""
    try:
        deed()
    except FeedbackError as err:
        messages.error(request, err.message)
    if getattr(request, "htmx", None):
        return _show(request, found)
    where = reverse("feedback:rule_draft", args=[found.project.slug])
    return HttpResponseRedirect(f"{where}#rule-{key}" if key else where)


@require_http_methods(["GET", "HEAD", "POST"])
@with_draft
def compare(request: HttpRequest, found: RuleSet) -> HttpResponse:
    """What the draft changes, and by POST its publication."""
    posted = request.method == "POST"
    form = PublishForm(request.POST if posted else None, initial={"note": found.note})
    missing: list[str] = []
    if posted and form.is_valid():
        try:
            rule_sets.publish(draft=found, by=person(request), decisions=form.decisions(), **form.cleaned_data)
            messages.success(request, f"Rule set {found.number} is published and frozen.")
            return redirect("feedback:rules", found.project.slug)
        except DecisionMissing as err:
            form.add_error(None, err.message)
            missing = err.keys
        except FeedbackError as err:
            form.add_error(None, err.message)
    published = rule_sets.published_set(found.project)
    changes = rule_sets.differences(found, published)
    chosen = form.decisions() if posted else {}
    context = {
        "project": found.project, "draft": found, "published": published, "changes": changes, "form": form,
        "asked": _asked(changes, chosen, missing), "decisions": DECISIONS, "seen": rule_sets.fingerprint(found),
    }  # fmt: skip
    return render(request, "feedback/rule_compare.html", context, status=422 if form.errors else 200)


def _asked(changes: Differences, chosen: dict[str, str], missing: list[str]) -> list[Asked]:
    return [
        Asked(
            change,
            rule_lineage.judgements_of(change.before).count() if change.asks else 0,
            chosen.get(change.after.key, ""),
            change.after.key in missing,
        )
        for change in changes.changed
    ]


@require_http_methods(["GET", "HEAD", "POST"])
@with_draft
def discard(request: HttpRequest, found: RuleSet) -> HttpResponse:
    """Ask for a word, then delete the draft."""
    refused = ""
    if request.method == "POST":
        if request.POST.get("word", "").strip().casefold() == DISCARD_WORD:
            try:
                rule_sets.discard_draft(draft=found, by=person(request), seen=request.POST.get("seen", ""))
                messages.success(request, f"Draft {found.number} was discarded. What is published stays.")
                return redirect("feedback:rules", found.project.slug)
            except FeedbackError as err:
                refused = err.message
        else:
            refused = f"Type the word {DISCARD_WORD}, so that it does not happen by accident."
    published = rule_sets.published_set(found.project)
    context = {
        "project": found.project,
        "draft": found,
        "published": published,
        "changes": rule_sets.differences(found, published),
        "refused": refused,
        "word": DISCARD_WORD,
        "seen": rule_sets.fingerprint(found),
    }
    return render(request, "feedback/rule_discard.html", context, status=422 if refused else 200)
