"""A piece of work: take the next one, open one of one's own, show it, keep its draft, skip it."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from annotate.access import person, project_or_404, slot_or_404
from annotate.desk import Refusal, desk
from annotate.forms import DraftForm, ReasonForm
from annotate.parts import go_to, posted, render_page_or_part
from feedback import consents, demonstrations, dialogues, drafts, probing, slots
from feedback.errors import EmptyMessage, FeedbackError, MessageTooLong, NothingToProbe
from feedback.models import (
    Demonstration,
    DemonstrationReview,
    Project,
    Ranking,
    Rating,
    RuleJudgement,
    Slot,
    User,
    WorkItem,
)
from feedback.probing import Lack
from feedback.rankings import ranking_in_force

Answer = Ranking | RuleJudgement | Demonstration | DemonstrationReview | Rating

CHAT, RANK = WorkItem.Kind.CHAT_AND_RANK, WorkItem.Kind.RANK
PROBE, JUDGE = WorkItem.Kind.PROBE, WorkItem.Kind.JUDGE
DEMONSTRATE, REVIEW = WorkItem.Kind.DEMONSTRATE, WorkItem.Kind.REVIEW
PAGES = {
    CHAT: ("annotate/chatting.html", "annotate/_chat_part.html"),
    RANK: ("annotate/ranking.html", "annotate/_rank_part.html"),
    PROBE: ("annotate/probing.html", "annotate/_probe_part.html"),
    JUDGE: ("annotate/judging.html", "annotate/_judge_part.html"),
    DEMONSTRATE: ("annotate/demonstrating.html", "annotate/_write_part.html"),
    REVIEW: ("annotate/reviewing.html", "annotate/_review_part.html"),
    WorkItem.Kind.RATE: ("annotate/rating.html", "annotate/_rate_part.html"),
}


@posted
def next_work(request: HttpRequest, slug: str) -> HttpResponse:
    """Take the next best piece, of one kind if asked; home says so when there is none."""
    project = project_or_404(request, slug)
    kind = request.POST.get("kind", "")
    return take(request, project, kind if kind in PAGES else "")


def take(request: HttpRequest, project: Project, kind: str, *, saying: str = "") -> HttpResponse:
    """To the next piece of a kind, or of any; where there is none, home, or what must be agreed to first."""
    try:
        slot = _next(person(request), project, kind)
    except NothingToProbe as err:
        if kind == PROBE and err.because == Lack.NEEDS_CONSENT:
            return go_to(request, consent_page(project, PROBE))
        return go_to(request, reverse("annotate:home") + f"?project={project.slug}&none=1")
    return go_to(request, reverse("annotate:work", args=[slot.pk]), saying=saying)


def consent_page(project: Project, kind: str) -> str:
    return reverse("annotate:consent", args=[project.slug]) + f"?kind={kind}"


def _next(user: User, project: Project, kind: str) -> Slot:
    """Raises  NothingToProbe when nothing of the kind is left; a fresh probe is opened when nothing else waits."""
    slot = slots.next_slot(user=user, project=project, kind=kind)
    if slot is not None:
        return slot
    if kind not in {"", PROBE}:
        raise NothingToProbe("There is nothing more of that kind just now.")
    return probing.next_probe(user=user, project=project)


@posted
def own_dialogue(request: HttpRequest, slug: str) -> HttpResponse:
    """Open a dialogue with words of one's own, where the project allows it."""
    project = project_or_404(request, slug)
    if not project.free_dialogues:
        return go_to(request, reverse("annotate:home"))
    slot = dialogues.open_own_dialogue(project=project, user=person(request))
    return go_to(request, reverse("annotate:work", args=[slot.pk]))


@require_safe
def work(request: HttpRequest, pk: int) -> HttpResponse:
    """The task page of a slot, whatever its kind."""
    slot = slot_or_404(request, pk)
    if slot.state == Slot.State.SKIPPED or slot.work_item.kind not in PAGES:
        return redirect("annotate:home")
    if slot.state == Slot.State.LAPSED:
        again = Slot.objects.held_by(person(request)).filter(work_item=slot.work_item_id).first()
        if again is not None:
            return redirect("annotate:work", again.pk)
    if _is_answered(slot):
        return redirect("annotate:look_again", slot.work_item.comparison_id)
    return _render(request, slot)


def _is_answered(slot: Slot) -> bool:
    comparison = slot.work_item.comparison
    return comparison is not None and ranking_in_force(slot=slot, comparison=comparison) is not None


def show(
    request: HttpRequest, slot: Slot, *, error: FeedbackError | None = None, refusal: Refusal | None = None
) -> HttpResponse:
    """The task page as it now stands, or with what was refused and why; what was typed is shown again."""
    return _render(request, slot_or_404(request, slot.pk), error=error, refusal=refusal)


def _render(
    request: HttpRequest, slot: Slot, *, error: FeedbackError | None = None, refusal: Refusal | None = None
) -> HttpResponse:
    """The task page of a slot just read.

    What this person has not agreed to read is not shown: they are led to where it is asked.
    """
    if not consents.may_be_shown(slot, person(request)):
        return go_to(request, consent_page(slot.work_item.project, slot.work_item.kind))
    page, part = PAGES[WorkItem.Kind(slot.work_item.kind)]
    at_verdict, shown = request.GET.get("step") == "verdict", request.GET.get("shown", "")
    context = desk(slot, refusal, at_verdict=at_verdict, shown=shown)
    is_of_field = isinstance(error, EmptyMessage | MessageTooLong) and context.get("may_write", False)
    context |= {"field_error": error} if is_of_field else {"error": error}
    return render_page_or_part(request, page, part, context, status=error.status if error else 200)


@require_POST
def draft(request: HttpRequest, pk: int) -> HttpResponse:
    """Keep what is being typed, and the piece with it. Answers {"version": n} once it is kept, or why it was not."""
    slot = slot_or_404(request, pk)
    form = DraftForm(request.POST)
    if not form.is_valid():
        return JsonResponse({"code": "bad_draft", "message": "This draft could not be read."}, status=422)
    try:
        kept = drafts.save_draft(slot=slot, **form.cleaned_data)
        slots.renew_lease(slot)  # who types is at work
    except FeedbackError as err:
        newer = getattr(err, "draft", None)
        version = {"version": newer.version} if newer is not None else {}
        return JsonResponse({"code": err.code, "message": err.message, **version}, status=err.status)
    return JsonResponse({"version": kept.version, "saved_at": kept.saved_at.isoformat()})


@posted
def skip(request: HttpRequest, pk: int) -> HttpResponse:
    """Leave a piece for good, with a reason, and go on to the next one."""
    slot = slot_or_404(request, pk)
    form = ReasonForm(request.POST)
    try:
        _leave_by(slot)(slot=slot, reason=form.reason_given())
    except FeedbackError as err:
        return show(request, slot, error=err, refusal=Refusal(skip_words=form.typed()))
    return take_next(request, slot, saying="Skipped. Next one.")


def _leave_by(slot: Slot) -> Callable[..., None]:
    """How a piece of this kind is left for good."""
    if slot.work_item.is_chat:
        return dialogues.skip_dialogue
    return demonstrations.leave if slot.work_item.kind == DEMONSTRATE else slots.skip


def back_to(request: HttpRequest, slot: Slot, *, saying: str = "") -> HttpResponse:
    """After an action that worked: the task page anew, so that a reload repeats nothing."""
    return go_to(request, reverse("annotate:work", args=[slot.pk]), saying=saying)


def take_next(request: HttpRequest, slot: Slot, *, saying: str) -> HttpResponse:
    """After a piece is done: the next one of its kind, or home, which says that there is none."""
    return take(request, slot.work_item.project, slot.work_item.kind, saying=saying)


def said_of(answer: Answer, *, in_time: str = "Saved. Next one.") -> str:
    """What the status line says once an answer is stored; of a late one also whether it counts all the same."""
    if not answer.late:
        return in_time
    if answer.counts:
        return "Saved as late. Next one."
    return "Saved as late. Somebody else had this piece by then, so it does not count."
