"""A manager's overview of one project: on top what needs them, below pace, queue, agreement, prompts, snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.text import capfirst
from django.views.decorators.http import require_POST, require_safe

from feedback import charts, demonstrations, figures, generation
from feedback.models import GenerationRequest, Membership, Project, Rating, RuleJudgement, ScaleSet, Snapshot
from feedback.pages.access import managed_project
from feedback.pages.parts import render_page_or_part

SNAPSHOTS_SHOWN = 6
FEW_PAIRS = 30  # below so many pairs an agreement says nothing yet
POOR_AGREEMENT = 0.65


@dataclass(frozen=True)
class Need:
    """Something that waits for the manager, and where to see to it."""

    text: str
    url: str


@dataclass(frozen=True)
class Step:
    """One of the first things a fresh project wants."""

    title: str
    text: str
    is_done: bool
    url: str = ""
    action: str = ""


@require_safe
def overview(request: HttpRequest, slug: str) -> HttpResponse:
    """The whole page, or for htmx its queue alone."""
    project = managed_project(request, slug)
    if getattr(request, "htmx", None) and request.htmx.target == "queue":  # type: ignore[attr-defined]
        return _queue_part(request, project)
    judged = RuleJudgement.objects.filter(dialogue__project=project).exists()
    rated = _rated(project)
    context: dict[str, Any] = {"project": project, "snapshots": _snapshots(project), "judged": judged, "rated": rated}
    context |= _figures(project)
    context["steps"] = first_steps(project, context["pace"].total, context["prompts"])
    context["needs"] = needs_of(project, context)
    return render_page_or_part(request, "feedback/overview.html", {}, context)


def _figures(project: Project) -> dict[str, Any]:
    pace = figures.pace(project)
    agreement = figures.agreement_of(project)
    return {
        "pace": pace,
        "pace_chart": charts.bars(pace.days, [f"{day.day}" for day in pace.dates]),
        "people": [(one, charts.bars(one.days, height=24, high=_most_a_day(pace))) for one in pace.people],
        "queue": figures.queue_of(project),
        "agreement": agreement,
        "agreement_plot": _agreement_plot(agreement),
        "few_pairs": agreement.share.total < FEW_PAIRS,
        "clearness": figures.clearness_of(project),
        "prompts": figures.prompt_counts(project),
        "written": demonstrations.counts_of(project),
    }


def _rated(project: Project) -> dict[str, Any]:
    """How many answers about single replies count, and which sets of questions are open; empty without any."""
    sets = list(ScaleSet.objects.filter(project=project))
    counted = Rating.objects.counted().filter(candidate__dialogue__project=project)
    if not sets:
        return {}
    replies, answers = counted.values("candidate").distinct().count(), counted.count()
    return {"replies": replies, "answers": answers, "open": [one for one in sets if one.is_open]}


def _most_a_day(pace: figures.Pace) -> float:
    """One scale for everybody's bars, so that they can be compared."""
    return max([1, *(count for person in pace.people for count in person.days)])


def _agreement_plot(agreement: figures.Agreement) -> dict[str, Any] | None:
    """Where agreement and its interval lie on an axis from 50 %, which is chance, to 100 %; and the same in words."""
    share = agreement.share
    if share.value is None or share.interval is None:
        return None
    low, high = (charts.on_axis(end, 0.5, 1) for end in share.interval)
    sure = f"between {share.interval[0]:.0%} and {share.interval[1]:.0%} with 95 % certainty"
    return {
        "low": low,
        "high": high,
        "at": charts.on_axis(share.value, 0.5, 1),
        "said": f"Agreement {share.value:.0%}, {sure}",
    }


def _snapshots(project: Project) -> list[Snapshot]:
    newest = Snapshot.objects.filter(project=project).select_related("created_by").defer(*Snapshot.IDS, "manifest")
    return list(newest.order_by("-pk")[:SNAPSHOTS_SHOWN])


def needs_of(project: Project, found: dict[str, Any]) -> list[Need]:
    """What waits for the manager, the most pressing first. Empty: nothing."""
    queue, agreement = found["queue"], found["agreement"]
    rounds = reverse("rewardtrain:rounds", args=[project.slug])
    needs = []
    if project.policy is None:
        needs.append(Need("No model serves here, so nobody gets a reply", "#first-steps"))
    if queue.failed:
        count = "One request" if queue.failed == 1 else f"{queue.failed} requests"
        needs.append(Need(f"{count} for replies failed", "#queue"))
    for policy in figures.policies_to_decide(project):
        needs.append(Need(f"{capfirst(str(policy))} waits for your decision", rounds))
    if project.policy and not queue.waiting_total and not queue.being_made:
        needs.append(Need("Nothing waits for annotators", "#queue"))
    if any(snapshot.state == "failed" for snapshot in found["snapshots"][:1]):
        needs.append(Need("The last snapshot could not be written", "#snapshots"))
    interval = agreement.share.interval
    if interval and agreement.share.total >= FEW_PAIRS and interval[1] < POOR_AGREEMENT:
        needs.append(Need("People often disagree, so the guidelines may be unclear", "#agreement"))
    return needs


def first_steps(project: Project, answers: int, prompts: list[figures.PromptCount]) -> list[Step]:
    """What a fresh project wants before people can work in it; empty once all is there."""
    change = reverse("admin:feedback_project_change", args=[project.pk])
    annotators = project.memberships.filter(role=Membership.Role.ANNOTATOR, is_active=True).exists()
    steps = [
        Step(
            "A model that answers",
            "Register weights or a server, then promote it with a reason.",
            project.policy is not None,
            reverse("admin:feedback_modelversion_add"),
            "Register a model",
        ),
        Step(
            "Prompts that open dialogues",
            "Import a file with manage.py import_feedback, or write some.",
            any(one.prompts for one in prompts),
            reverse("admin:feedback_prompt_add"),
            "Write a prompt",
        ),
        Step(
            "Guidelines that say how to judge",
            "What makes one reply better than another here.",
            bool(project.guidelines.strip()),
            change,
            "Write the guidelines",
        ),
        Step("Annotators who rank", "Add people to the project.", annotators, change, "Add annotators"),
        Step("Their first answers", "Work appears on their home page by itself.", answers > 0),
    ]
    return [] if all(step.is_done for step in steps) else steps


def _queue_part(request: HttpRequest, project: Project) -> HttpResponse:
    context = {"project": project, "queue": figures.queue_of(project)}
    return render_page_or_part(request, "feedback/_queue.html", {"queue": "feedback/_queue.html"}, context)


@require_POST
def try_again(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Put one failed request for replies back in the queue."""
    project = managed_project(request, slug)
    failed = get_object_or_404(GenerationRequest, pk=pk, dialogue__project=project)
    again = generation.try_again(failed)
    if getattr(request, "htmx", None):
        return _queue_part(request, project)
    if again:
        messages.success(request, "Back in the queue. Its replies come within seconds when a worker runs.")
    else:
        messages.info(request, f"Nothing to try again: this request is {failed.get_state_display()}.")
    return HttpResponseRedirect(reverse("feedback:overview", args=[slug]) + "#queue")
