"""Written replies: start from one of the model's, say what the person says next, send, take back; and review."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from annotate.access import slot_or_404
from annotate.desk import Refusal
from annotate.forms import ReplyForm, ReviewForm, SayForm, complaint
from annotate.parts import go_to, posted
from annotate.replies import starts_of
from annotate.views import work
from feedback import demonstration_reviews, demonstration_turns, demonstrations, drafts
from feedback.errors import AlikeAlready, BadVerdict, DialogueEnded, DialogueMovedOn, FeedbackError, ForeignCandidate
from feedback.models import Candidate, Demonstration, Slot

TAKEN_BACK = "Taken back. Somebody else is asked for it."


@posted
def write(request: HttpRequest, pk: int) -> HttpResponse:
    """Store a reply. Says "saved" only after the database has it; an error keeps all that was written."""
    slot = slot_or_404(request, pk)
    form = ReplyForm(request.POST)
    is_valid = form.is_valid()
    try:
        if not is_valid:
            raise BadVerdict(complaint(form))
        text = demonstrations.record_demonstration(slot=slot, edited_from=_start(slot, form), **form.answer())
    except FeedbackError as err:
        given = form.given(is_alike=isinstance(err, AlikeAlready))
        return work.show(request, slot, error=err, refusal=Refusal(reply=given))
    drafts.clear_draft(slot, version=form.cleaned_data.get("draft_version"), left=lambda body: {})
    return _go_on(request, slot, text)


def _start(slot: Slot, form: ReplyForm) -> Candidate | None:
    """The model's reply a text was made from, by the name its page gave it; that of one's earlier text goes along."""
    name = form.cleaned_data["started_from"]
    before = demonstrations.newest_of(slot)
    kept = before.edited_from if before is not None else None
    if not name or kept is not None:
        return kept
    starts = starts_of(slot)
    if name not in starts:
        raise ForeignCandidate("The reply you started from does not belong here. Reload the page.")
    return starts[name]


def _go_on(request: HttpRequest, slot: Slot, text: Demonstration) -> HttpResponse:
    """To the next turn of the dialogue where that was asked for, after a correction back to it, else the next piece."""
    if "go_on" in request.POST and text.counts:
        try:
            following = demonstration_turns.open_next_turn(demonstration=text)
        except DialogueEnded as err:
            return work.take_next(request, slot, saying=err.message)
        return work.back_to(request, following, saying="Saved")
    if text.revision > 1 and slot.work_item.demonstration is None:
        return work.back_to(request, slot, saying="Saved")
    return work.take_next(request, slot, saying=work.said_of(text))


@posted
def start(request: HttpRequest, pk: int) -> HttpResponse:
    """Put one of the model's replies into the empty field, as the draft; what somebody wrote is never replaced."""
    slot = slot_or_404(request, pk)
    form = ReplyForm(request.POST)
    form.is_valid()
    try:
        begun = starts_of(slot).get(request.POST.get("start", ""))
        if begun is None:
            raise ForeignCandidate("This reply does not belong here. Reload the page.")
        if form.typed().strip():
            raise DialogueMovedOn("You have written something already. Empty the field first, then start from a reply.")
        body = {"content": begun.text, "started_from": request.POST["start"]}
        drafts.save_draft(slot=slot, body=body, version=form.cleaned_data.get("draft_version") or 0)
    except FeedbackError as err:
        return work.show(request, slot, error=err, refusal=Refusal(reply=form.given()))
    return work.back_to(request, slot)


@posted
def say(request: HttpRequest, pk: int) -> HttpResponse:
    """Write what the person says next, in a dialogue that one goes on with."""
    slot = slot_or_404(request, pk)
    form = SayForm(request.POST)
    is_valid = form.is_valid()
    try:
        if not is_valid:
            raise DialogueMovedOn("This message could not be read. Copy it, reload the page and send it again.")
        demonstration_turns.say_next(
            slot=slot, text=form.cleaned_data["content"], after_position=form.cleaned_data["after_position"]
        )
    except FeedbackError as err:
        return work.show(request, slot, error=err, refusal=Refusal(reply=form.given()))
    drafts.clear_draft(slot, version=form.cleaned_data.get("draft_version"), left=lambda body: {})
    return work.back_to(request, slot)


@posted
def withdraw(request: HttpRequest, pk: int) -> HttpResponse:
    """Take back a reply that nobody has read yet."""
    slot = slot_or_404(request, pk)
    try:
        taken = demonstrations.withdraw_demonstration(slot=slot)
    except FeedbackError as err:
        return work.show(request, slot, error=err)
    return go_to(
        request, reverse("annotate:answers"), saying=TAKEN_BACK if taken else "There was nothing to take back."
    )


@posted
def review(request: HttpRequest, pk: int) -> HttpResponse:
    """Store what somebody says of another person's reply."""
    slot = slot_or_404(request, pk)
    form = ReviewForm(request.POST)
    is_valid = form.is_valid()
    try:
        if not is_valid:
            raise BadVerdict(complaint(form))
        stored = demonstration_reviews.record_review(slot=slot, **form.answer())
    except FeedbackError as err:
        return work.show(request, slot, error=err, refusal=Refusal(review=form.given()))
    drafts.clear_draft(slot, version=form.cleaned_data.get("draft_version"), left=lambda body: {})
    if stored.revision > 1:
        return work.back_to(request, slot, saying="Saved")
    return work.take_next(request, slot, saying=work.said_of(stored))
