"""Verdicts: a prober says that they are at the end, and anybody says whether the rule was broken."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from annotate.access import slot_or_404
from annotate.desk import Refusal
from annotate.forms import VerdictForm, complaint
from annotate.parts import go_to, posted
from annotate.verdicts import as_draft
from annotate.views import work
from feedback import drafts
from feedback.errors import BadVerdict, FeedbackError
from feedback.judgements import record_judgement, withdraw_judgement
from feedback.models import Slot

TAKEN_BACK = "Taken back. It counts no more, and somebody else is asked."


@posted
def verdict(request: HttpRequest, pk: int) -> HttpResponse:
    """From the chat to the verdict, or back; what was typed and marked so far goes along as the slot's draft."""
    slot = slot_or_404(request, pk)
    form = VerdictForm(request.POST)
    form.is_valid()
    try:
        _keep(slot, form)
    except FeedbackError as err:
        return work.show(request, slot, error=err)
    step = "" if "back" in request.POST else "?step=verdict"
    return go_to(request, reverse("annotate:work", args=[slot.pk]) + step)


def _keep(slot: Slot, form: VerdictForm) -> None:
    """Over the draft the page last saw; what another window has saved since stays as it is."""
    stored = drafts.draft_of(slot)
    version = form.cleaned_data.get("draft_version") or 0
    if stored is None or stored.version == version:
        read = form.cleaned_data.get
        body = as_draft(form.given(), message=read("message", ""), shown=read("shown", ""))
        drafts.save_draft(slot=slot, body=body, version=version)


@posted
def judge(request: HttpRequest, pk: int) -> HttpResponse:
    """Store a verdict. Says "saved" only after the database has it; an error keeps all that was given."""
    slot = slot_or_404(request, pk)
    form = VerdictForm(request.POST)
    is_valid = form.is_valid()
    try:
        if not is_valid:
            raise BadVerdict(complaint(form))
        judgement = record_judgement(slot=slot, **form.answer())
    except FeedbackError as err:
        return work.show(request, slot, error=err, refusal=Refusal(verdict=form.given()))
    drafts.clear_draft(slot, version=form.cleaned_data.get("draft_version"), left=lambda body: {})
    if judgement.revision > 1:
        return work.back_to(request, slot, saying="Saved")
    return work.take_next(request, slot, saying=work.said_of(judgement))


@posted
def take_back(request: HttpRequest, pk: int) -> HttpResponse:
    """Withdraw a verdict that was sent; it stays in the person's list, as taken back."""
    slot = slot_or_404(request, pk)
    try:
        taken = withdraw_judgement(slot=slot)
    except FeedbackError as err:
        return work.show(request, slot, error=err)
    return go_to(
        request, reverse("annotate:answers"), saying=TAKEN_BACK if taken else "There was nothing to take back."
    )
