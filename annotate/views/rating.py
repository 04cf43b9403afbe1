"""Ratings: all that a person says of one reply is sent at once, and can be corrected or taken back."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from annotate.access import slot_or_404
from annotate.desk import Refusal
from annotate.forms import RateForm, complaint
from annotate.parts import go_to, posted
from annotate.views import work
from feedback import drafts, ratings
from feedback.errors import BadRating, FeedbackError

TAKEN_BACK = "Taken back. It counts no more, and somebody else is asked."


@posted
def rate(request: HttpRequest, pk: int) -> HttpResponse:
    """Store what is said of a reply. Says "saved" only after the database has it; an error keeps all that was given."""
    slot = slot_or_404(request, pk)
    form = RateForm(request.POST)
    is_valid = form.is_valid()
    try:
        if not is_valid:
            raise BadRating(complaint(form))
        stored = ratings.record_ratings(slot=slot, answers=form.in_order(ratings.questions_of(slot)), **form.about())
    except FeedbackError as err:
        return work.show(request, slot, error=err, refusal=Refusal(answers=form.given()))
    drafts.clear_draft(slot, version=form.cleaned_data.get("draft_version"), left=lambda body: {})
    if stored[0].revision > 1:
        return work.back_to(request, slot, saying="Saved")
    return work.take_next(request, slot, saying=work.said_of(stored[0]))


@posted
def take_back(request: HttpRequest, pk: int) -> HttpResponse:
    """Withdraw what was said of a reply; it stays in the person's list, as taken back."""
    slot = slot_or_404(request, pk)
    try:
        taken = ratings.withdraw_ratings(slot=slot)
    except FeedbackError as err:
        return work.show(request, slot, error=err)
    return go_to(
        request, reverse("annotate:answers"), saying=TAKEN_BACK if taken else "There was nothing to take back."
    )
