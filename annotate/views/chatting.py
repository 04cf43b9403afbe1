"""Chat: what arrives, writing on, taking back, asking again, ending."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe
from django_htmx.http import HttpResponseClientRefresh

from annotate.access import person, slot_or_404
from annotate.desk import ASKING, Refusal, desk
from annotate.forms import MessageForm, ReasonForm
from annotate.parts import posted
from annotate.views import work
from feedback import consents, dialogues, drafts, generation, rankings, slots
from feedback.dialogues import Chat
from feedback.errors import CandidatesNotReady, DialogueMovedOn, FeedbackError, SlotClosed
from feedback.models import Slot

NO_CONTENT = 204


@require_safe
def arrivals(request: HttpRequest, pk: int) -> HttpResponse:
    """What has changed since the page was drawn: new replies in their own places, why it takes long, or nothing (204).

    seen   the places (0-based, joined by dots) that the page has already
    phase  what the page shows; when that is past, the page is drawn anew
    why    what it says beside the seconds
    """
    slot = slot_or_404(request, pk)
    if not slot.work_item.is_chat:
        return HttpResponse(status=NO_CONTENT)
    if not consents.may_be_shown(slot, person(request)):
        return HttpResponseClientRefresh()
    context = desk(slot)
    is_said = context.get("is_single", False) and context["phase"] != dialogues.Phase.WAITING
    if context["phase"] not in ASKING or "waited" not in context or is_said:
        return HttpResponseClientRefresh()
    seen = {int(place) for place in request.GET.get("seen", "").split(".") if place.isdecimal()}
    failed = context["request_failed"]
    fresh = [row for row in context["rows"] if row.place not in seen and (row.candidate is not None or failed)]
    told = request.GET.get("phase", "") == context["phase"] and request.GET.get("why", "") == context["why"]
    if told and not fresh:
        return HttpResponse(status=NO_CONTENT)
    return render(request, "annotate/_arrivals.html", context | {"fresh": fresh})


@posted
def send(request: HttpRequest, pk: int) -> HttpResponse:
    """Write the next message; the best reply becomes part of the dialogue with it."""
    slot = _taken_up_again(slot_or_404(request, pk))
    form = MessageForm(request.POST)
    is_valid = form.is_valid()
    typed = form.cleaned_data.get("message", request.POST.get("message", ""))
    version = form.cleaned_data.get("draft_version") if slot.pk == pk else None  # another slot, another draft
    try:
        if not is_valid:
            raise DialogueMovedOn("This message could not be read. Copy it, reload the page and send it again.")
        position = form.cleaned_data["after_position"]
        dialogues.send_message(slot=slot, text=typed, after_position=position, draft_version=version)
    except FeedbackError as err:
        unsent = drafts.keep_unsent(slot, message=typed, version=version)
        return work.show(request, slot, error=err, refusal=Refusal(message=unsent))
    drafts.clear_message(slot, message=typed, version=version)
    return work.back_to(request, slot)


def _taken_up_again(slot: Slot) -> Slot:
    """A dialogue whose time lapsed goes on where nobody else has taken it."""
    return (slots.regain(slot) or slot) if slot.state == Slot.State.LAPSED else slot


def _act(request: HttpRequest, pk: int, action: Callable[[Chat], object]) -> HttpResponse:
    """Do something to the chat in hand and show it anew, or show why it could not be done."""
    slot = _taken_up_again(slot_or_404(request, pk))
    try:
        chat = dialogues.look_at_chat(slot)
        if chat.dialogue.is_open and slot.state != Slot.State.HELD:
            raise SlotClosed("Your time on this dialogue ended and somebody else has it now. What you wrote is kept.")
        action(chat)
    except FeedbackError as err:
        return work.show(request, slot, error=err)
    return work.back_to(request, slot)


@posted
def undo(request: HttpRequest, pk: int) -> HttpResponse:
    """Take the ranking back, as long as the dialogue has not gone on from it."""

    def take_back(chat: Chat) -> None:
        if chat.comparison is not None:
            rankings.withdraw_ranking(slot=chat.slot, comparison=chat.comparison)

    return _act(request, pk, take_back)


@posted
def more(request: HttpRequest, pk: int) -> HttpResponse:
    """After "none is good": other replies to the same turn."""
    return _act(request, pk, lambda chat: dialogues.ask_for_new_candidates(slot=chat.slot))


@posted
def retry(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask again for replies that could not be made."""

    def ask(chat: Chat) -> None:
        if chat.request is None:
            generation.request_candidates(dialogue=chat.dialogue)
        else:
            generation.try_again(chat.request)

    return _act(request, pk, ask)


@posted
def fewer(request: HttpRequest, pk: int) -> HttpResponse:
    """Rank the replies that are there when the others could not be made."""

    def go_on(chat: Chat) -> None:
        if chat.request is None:
            raise CandidatesNotReady("There are no replies to rank. Try again, or skip this dialogue.")
        generation.rank_what_is_there(chat.request)

    return _act(request, pk, go_on)


@posted
def end(request: HttpRequest, pk: int) -> HttpResponse:
    """End the dialogue and go on to the next one."""
    slot = slot_or_404(request, pk)
    form = ReasonForm(request.POST)
    try:
        dialogues.end_dialogue(slot=slot, reason=form.reason_given())
    except FeedbackError as err:
        return work.show(request, slot, error=err, refusal=Refusal(skip_words=form.typed()))
    return work.take_next(request, slot, saying="Dialogue ended. Next one.")
