"""A manager's pages about ratings: which questions are asked of replies, what was answered, and in which words."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from feedback import charts, ratings_wanted, scale_files, scale_sets
from feedback.agreement import Share
from feedback.errors import FeedbackError, ScaleRefused
from feedback.forms import AskingForm, ScaleForm
from feedback.models import Project, Rating, Scale, ScaleSet, WorkItem
from feedback.pages.access import managed_project, person
from feedback.rating_figures import Figures, ValueShare, figures_of

WHAT = {
    "lamda": "Sensible, specific, interesting; three questions about harm; and whether claims can be checked.",
    "instructgpt": "How good as a whole, from 1 to 7, and eleven flags.",
    "sparrow": "Is it plausible, and does the evidence shown bear it out?",
    "unit-tests": "Whether code passes its tests; a program hands in the verdicts.",
}
CHART_HEIGHT = 24
POLICIES_SHOWN = 5


@require_safe
def ratings(request: HttpRequest, slug: str) -> HttpResponse:
    """Every set of questions with its figures, and the sets that can be added."""
    project = managed_project(request, slug)
    sets = list(ScaleSet.objects.filter(project=project))
    known = {scale_set.key for scale_set in sets}
    context = {
        "project": project,
        "sets": [_set(scale_set) for scale_set in sets],
        "offered": [
            (key, scale_files.read_file(path), WHAT[key])
            for key, path in scale_files.DEFAULT_SETS.items()
            if key not in known
        ],
        "rated": Rating.objects.counted().filter(candidate__dialogue__project=project).exists(),
    }
    return render(request, "feedback/ratings.html", context)


def _set(scale_set: ScaleSet) -> dict[str, Any]:
    figures = figures_of(scale_set)
    waiting = WorkItem.objects.filter(scale_set=scale_set, closed_at=None, slots__state="free").distinct().count()
    return {
        "set": scale_set,
        "rows": [(one, _chart(one)) for one in figures],
        "replies": max((one.replies for one in figures), default=0),
        "waiting": waiting,
        "form": AskingForm(initial={"raters": scale_set.raters, "ready": scale_set.ready}, prefix=scale_set.key),
    }


def _chart(figures: Figures) -> charts.Bars:
    """One upright bar for each value; the axis ends at the most frequent one."""
    counts = [one.share.hits for one in figures.values]
    return charts.bars(counts, [one.words for one in figures.values], height=CHART_HEIGHT, high=max([1, *counts]))


@require_POST
def add_set(request: HttpRequest, slug: str) -> HttpResponse:
    """Take a ready-made set into the project, closed."""
    project = managed_project(request, slug)
    key = request.POST.get("set", "")
    if key in scale_files.DEFAULT_SETS:
        try:
            found = scale_files.read_file(scale_files.DEFAULT_SETS[key])
            added = scale_sets.add_set(project=project, key=key, found=found, by=person(request))
            messages.success(
                request, f"{added.name} was added. Read its questions; nobody is asked before you open it."
            )
        except FeedbackError as err:
            messages.error(request, err.message)
    return _back(slug, key)


@require_POST
def change_set(request: HttpRequest, slug: str, key: str) -> HttpResponse:
    """Open or close a set, or change how many people rate a reply and how many replies are kept waiting."""
    project = managed_project(request, slug)
    scale_set = get_object_or_404(ScaleSet, project=project, key=key)
    try:
        if "open" in request.POST:
            _open_or_close(request, project, scale_set, is_open=request.POST["open"] == "1")
        else:
            form = AskingForm(request.POST, prefix=key)
            if not form.is_valid():
                raise ScaleRefused({name: str(errors[0]) for name, errors in form.errors.items()})
            scale_sets.set_asking(scale_set=scale_set, by=person(request), **form.cleaned_data)
            ratings_wanted.keep_ratings_ready(project)
            messages.success(request, "Kept. Replies that were asked about before stay as they were.")
    except FeedbackError as err:
        messages.error(request, err.message)
    return _back(slug, key)


def _open_or_close(request: HttpRequest, project: Project, scale_set: ScaleSet, *, is_open: bool) -> None:
    scale_sets.open_or_close(scale_set=scale_set, is_open=is_open, by=person(request))
    asked = ratings_wanted.keep_ratings_ready(project)
    if not is_open:
        messages.success(request, f"{scale_set.name} is closed. What somebody holds they can still send.")
    elif asked or not scale_set.ready:
        messages.success(request, f"{scale_set.name} is open. Annotators find it on their home page.")
    else:
        messages.success(
            request, f"{scale_set.name} is open. Replies to rate wait as soon as the model has written some."
        )


@require_http_methods(["GET", "HEAD", "POST"])
def scale(request: HttpRequest, slug: str, key: str, scale: str) -> HttpResponse:
    """One question: what is said of each policy, how far people agree, its versions; and other words for it."""
    project = managed_project(request, slug)
    scale_set = get_object_or_404(ScaleSet, project=project, key=key)
    found = next((one for one in figures_of(scale_set) if one.scale.key == scale), None)
    if found is None:
        return redirect("feedback:ratings", slug)
    form = ScaleForm(found.scale, request.POST if request.method == "POST" else None)
    if form.is_valid() and _changed(request, form, found.scale):
        return redirect("feedback:scale", slug, key, scale)
    context = {
        "project": project,
        "set": scale_set,
        "scale": found.scale,
        "found": found,
        "policies": found.policies[:POLICIES_SHOWN],
        "lines": _lines(found),
        "form": form,
        "after": _question_before(found.scale),
        "versions": _versions(found.scale),
    }
    return render(request, "feedback/scale.html", context, status=422 if form.errors else 200)


def _lines(found: Figures) -> list[tuple[ValueShare, float, list[Share]]]:
    """(value, its bar in percent of all answers, its share with each of the newest policies)."""
    policies = found.policies[:POLICIES_SHOWN]
    return [
        (value, 100 * (value.share.value or 0), [one.values[place].share for one in policies])
        for place, value in enumerate(found.values)
    ]


def _changed(request: HttpRequest, form: ScaleForm, asked: Scale) -> bool:
    """Whether the words could be changed; else the form says why."""
    try:
        made = scale_sets.change_words(
            scale=asked, words=form.changed_words(), options=form.changed_options(), by=person(request)
        )
    except ScaleRefused as err:
        for name, text in err.problems.items():
            form.add_error(name if name in form.fields else None, text)
        return False
    except FeedbackError as err:
        form.add_error(None, err.message)
        return False
    same = "These are the words it has." if made == asked else "From now on it is asked in these words."
    messages.success(request, same)
    return True


def _question_before(scale: Scale) -> Scale | None:
    """The question that may settle this one, as it is asked now."""
    return Scale.objects.asked().filter(scale_set=scale.scale_set, key=scale.asked_after).first()


def _versions(scale: Scale) -> list[tuple[Scale, int]]:
    """Every version of a question, the newest first, with how many answers that count each has."""
    versions = scale.scale_set.scales.filter(key=scale.key).order_by("-version")
    return [(one, Rating.objects.counted().filter(scale=one).count()) for one in versions]


@require_POST
def turn(request: HttpRequest, slug: str, key: str, scale: str) -> HttpResponse:
    """Ask a question no more, or again; `asked` is 1 or nothing."""
    project = managed_project(request, slug)
    scale_set = get_object_or_404(ScaleSet, project=project, key=key)
    try:
        if request.POST.get("asked") == "1":
            scale_sets.turn_on(scale_set=scale_set, key=scale, by=person(request))
        elif (asked := Scale.objects.asked().filter(scale_set=scale_set, key=scale).first()) is not None:
            scale_sets.turn_off(scale=asked, by=person(request))
    except FeedbackError as err:
        messages.error(request, err.message)
    return redirect("feedback:scale", slug, key, scale)


def _back(slug: str, key: str) -> HttpResponse:
    anchor = f"#set-{key}" if key in scale_files.DEFAULT_SETS or key.isascii() and key.isalnum() else ""
    return HttpResponseRedirect(reverse("feedback:ratings", args=[slug]) + anchor)
