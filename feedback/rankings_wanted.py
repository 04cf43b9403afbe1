"""Comparisons that came in from elsewhere, which people are asked to rank."""

from __future__ import annotations

from django.db import transaction

from feedback.dialogues import ask_for_rankings
from feedback.errors import NotRankable
from feedback.models import Comparison, Dialogue, WorkItem

MOST_SIDE_BY_SIDE = 9  # replies that the page shows


@transaction.atomic
def ask_about_imported(*, comparison: Comparison) -> WorkItem:
    """Have as many people rank an imported comparison as the project wants for each. Asked twice it is the same item.

    Raises  NotRankable
    """
    dialogue, count = comparison.dialogue, comparison.candidates.count()
    if dialogue.kind != Dialogue.Kind.IMPORTED:
        raise NotRankable("Replies that were made here are asked about by themselves. Take an imported dialogue.")
    if dialogue.prompt is None:
        raise NotRankable("This dialogue has no opening, so nobody could say what is a good reply to it.")
    if not 2 <= count <= MOST_SIDE_BY_SIDE:
        raise NotRankable(f"People rank 2 to {MOST_SIDE_BY_SIDE} replies side by side; here are {count}.")
    return ask_for_rankings(comparison=comparison, wanted=dialogue.project.answers_per_comparison)
