"""Send a ranking: the same address for chat-and-rank and rank-only."""

from __future__ import annotations

from functools import partial

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from annotate.access import comparison_of_slot_or_404, slot_or_404
from annotate.answers import without_answer
from annotate.desk import Refusal, shown_names
from annotate.forms import RankingForm, complaint
from annotate.parts import go_to, posted
from annotate.views import work
from feedback import drafts, slots
from feedback.errors import BadRanks, FeedbackError
from feedback.models import Ranking, Slot
from feedback.rankings import record_ranking


@posted
def submit(request: HttpRequest, pk: int) -> HttpResponse:
    """Store an answer. Says "saved" only after the database has it; an error keeps every place that was given."""
    slot = slot_or_404(request, pk)
    form = RankingForm(request.POST)
    is_valid = form.is_valid()
    message = form.cleaned_data.get("message", "")
    version = form.cleaned_data.get("draft_version")
    try:
        if not is_valid:
            raise BadRanks(complaint(form))
        slot, ranking = _store(slot, form)
    except FeedbackError as err:
        unsent = drafts.keep_unsent(slot, message=message, version=version)
        return work.show(request, slot, error=err, refusal=Refusal(form.given(), unsent))
    _clear_draft(slot, ranking, version if slot.pk == pk else None)  # another slot, another draft
    drafts.keep_unsent(slot, message=message)  # written ahead: it waits for its turn
    return _go_on(request, slot, ranking)


def _clear_draft(slot: Slot, ranking: Ranking, version: int | None) -> None:
    names = shown_names(slot, ranking.comparison)
    drafts.clear_draft(slot, version=version, left=partial(without_answer, names=names))


def _store(slot: Slot, form: RankingForm) -> tuple[Slot, Ranking]:
    """Record the answer; in a chat whose time lapsed, after taking it up again if nobody else has."""
    comparison = comparison_of_slot_or_404(slot, form.cleaned_data["comparison"])
    if slot.state == Slot.State.LAPSED and slot.work_item.is_chat:
        slot = slots.regain(slot) or slot
    answer = form.answer(shown_names(slot, comparison))
    return slot, record_ranking(slot=slot, comparison=comparison, **answer)


def _go_on(request: HttpRequest, slot: Slot, ranking: Ranking) -> HttpResponse:
    """In a chat back to it, to write on; after a correction to the answer; else to the next piece."""
    said = work.said_of(ranking, in_time="Saved")
    if slot.work_item.is_chat:
        return work.back_to(request, slot, saying=said)
    if ranking.revision > 1:
        return go_to(request, reverse("annotate:look_again", args=[ranking.comparison_id]), saying=said)
    return work.take_next(request, slot, saying=work.said_of(ranking))
