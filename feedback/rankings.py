"""Rankings: store an answer, correct it, take it back; derive preferences from it.

An answer is evidence. It is added and never changed: a correction is a new revision, an undo a revision marked
withdrawn.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any, TypeVar
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Q

from feedback import slots
from feedback.errors import (
    AlreadyAnswered,
    AnswerTakenBack,
    BadRanks,
    DialogueEnded,
    DialogueMovedOn,
    ForeignCandidate,
    NothingRanked,
    SlotClosed,
    SlotNotYours,
    SubmitKeyReused,
)
from feedback.models import Candidate, Comparison, Dialogue, RankEntry, Ranking, Slot, WorkItem

Key = TypeVar("Key", bound=Hashable)
STRENGTHS = (1, 2, 3, 4)


@transaction.atomic
def record_ranking(
    *,
    slot: Slot,
    comparison: Comparison,
    submit_key: UUID,
    ranks: Mapping[int, int],
    all_bad: bool = False,
    strength: int | None = None,
    flags: Mapping[int, Sequence[str]] | None = None,
    seconds: float | None = None,
    revises: int = 0,
) -> Ranking:
    """Store one annotator's answer to a comparison; the same key again returns the same row.

    ranks    {candidate id: rank}; 1 is best, equal ranks tie, a candidate left out is unranked; stored dense
    flags    {candidate id: [what is wrong with it]}
    seconds  time the page was in view
    revises  the revision this answer corrects; 0 for a first answer
    Raises   ForeignCandidate, BadRanks, NothingRanked, SlotNotYours, AlreadyAnswered (another window was first,
             or whoever had the chat before), DialogueMovedOn (the dialogue went on from the earlier answer),
             DialogueEnded, SubmitKeyReused (same key, another answer), AnswerTakenBack (the same one, undone since)
    """
    flags = {pk: sorted(set(names)) for pk, names in (flags or {}).items() if names}
    body_hash = _body_hash(comparison, ranks, all_bad, strength, flags)
    slot = slots.in_hand(slot)
    before = Ranking.objects.filter(submit_key=submit_key).first()
    if before is not None:
        return _same_answer(before, slot, comparison, body_hash)
    shown = shown_candidates(slot, comparison)
    _refuse_bad_ranks(ranks, flags, all_bad, strength, {candidate.pk for candidate in shown})
    newest = _newest(slot, comparison)
    _refuse_if_not_askable(slot, comparison, newest)
    _refuse_if_answered(newest, revises)
    ranking = _add_revision(
        newest,
        comparison=comparison,
        slot=slot,
        all_bad=all_bad,
        strength=strength,
        shown_order=[candidate.pk for candidate in shown],
        seconds=seconds,
        late=slot.state == Slot.State.LAPSED,
        counts=_counts(slot, newest),
        submit_key=submit_key,
        body_hash=body_hash,
    )
    _add_entries(ranking, dense(ranks), flags)
    _settle_slot(slot)
    return ranking


def shown_candidates(slot: Slot, comparison: Comparison) -> list[Candidate]:
    """The candidates of a comparison in the order this slot shows them."""
    by_index = {candidate.index: candidate for candidate in comparison.candidates.all()}
    request = comparison.request
    places = slots.shown_places(
        slot,
        after_position=comparison.after_position,
        redo=request.redo if request else 0,
        wanted=request.wanted if request else max(by_index, default=-1) + 1,
    )
    return [by_index[place] for place in places if place in by_index]


def _refuse_bad_ranks(
    ranks: Mapping[int, int], flags: Mapping[int, Sequence[str]], all_bad: bool, strength: int | None, shown: set[int]
) -> None:
    if not (set(ranks) | set(flags)) <= shown:
        raise ForeignCandidate("One of these replies does not belong to this comparison. Reload the page.")
    if any(rank < 1 or rank > len(shown) for rank in ranks.values()):
        raise BadRanks(f"Places go from 1, the best, to {len(shown)}.")
    if not ranks and not all_bad:
        raise NothingRanked("Give at least one reply a place, or say that none is good.")
    if strength is not None and strength not in STRENGTHS:
        raise BadRanks("How clear the best is goes from 1, a hair, to 4, by far.")


def _refuse_if_not_askable(slot: Slot, comparison: Comparison, newest: Ranking | None) -> None:
    """Refuse an answer to another question, or to one that this person has left behind.

    What comes after the time was over is kept all the same: it changes nothing of what the dialogue went on from.
    """
    item = slot.work_item
    covers = item.comparison_id == comparison.pk or (item.is_chat and item.dialogue_id == comparison.dialogue_id)
    if not covers or slot.annotator_id is None:
        raise SlotNotYours("This piece was not given to you. Take the next one from your home page.")
    if slot.state == Slot.State.SKIPPED:
        raise SlotNotYours("You skipped this piece, so it was given to somebody else.")
    if item.is_chat and (slot.state != Slot.State.LAPSED or _stands(newest)):
        _refuse_if_gone_on(comparison)
        _refuse_if_settled(slot, comparison)


def _refuse_if_gone_on(comparison: Comparison) -> None:
    """In a chat only the question at its end can be answered, corrected or taken back."""
    dialogue = Dialogue.objects.get(pk=comparison.dialogue_id)
    after = {"after_position": comparison.after_position}
    redo = comparison.request.redo if comparison.request else 0
    asked_again = dialogue.generation_requests.filter(**after, redo__gt=redo)
    if asked_again.exists() or dialogue.turns.filter(position__gt=comparison.after_position).exists():
        raise DialogueMovedOn("The dialogue has gone on from your earlier answer, which counts. It is shown here.")
    if not dialogue.is_open:
        raise DialogueEnded("This dialogue has ended. Take the next one from your home page.")


def _refuse_if_settled(slot: Slot, comparison: Comparison) -> None:
    """In a chat that was taken over, an answer of before that counts is neither given again nor changed."""
    settled = answer_of_chat(slot=slot, comparison=comparison)
    if settled is None or not settled.counts:
        return
    is_mine, is_taken = settled.annotator_id == slot.annotator_id, slot.state == Slot.State.LAPSED
    if is_mine and is_taken:
        raise DialogueMovedOn("Somebody else has the dialogue now and goes on from your answer, which counts.")
    if not is_mine and not is_taken:
        raise AlreadyAnswered("These replies were ranked before you took the dialogue over. Go on from the best.")


def _same_answer(before: Ranking, slot: Slot, comparison: Comparison, body_hash: str) -> Ranking:
    """The answer a form gave when it was sent before. After an undo it is stored as new only from the page as it is."""
    if before.annotator_id != slot.annotator_id or before.body_hash != body_hash:
        raise SubmitKeyReused("This form was already sent with another answer. Reload the page to see it.")
    newest = _newest(slot, comparison)
    if newest is not None and newest.withdrawn:
        _refuse_if_not_askable(slot, comparison, newest)
        raise AnswerTakenBack("This answer was taken back. Send it again from this page.")
    return before


def _stands(newest: Ranking | None) -> bool:
    return newest is not None and not newest.withdrawn


def _newest(slot: Slot, comparison: Comparison) -> Ranking | None:
    """This person's newest revision, also a withdrawn one."""
    mine = Ranking.objects.filter(comparison=comparison, annotator_key=f"u{slot.annotator_id}")
    return mine.order_by("-revision").first()


def _refuse_if_answered(newest: Ranking | None, revises: int) -> None:
    if newest is not None and not newest.withdrawn and newest.revision != revises:
        raise AlreadyAnswered(
            "Another window already sent an answer to this. That one counts; here it is.", answer=newest
        )


def _add_revision(newest: Ranking | None, *, comparison: Comparison, slot: Slot, **fields: Any) -> Ranking:
    try:
        with transaction.atomic():
            return Ranking.objects.create(
                comparison=comparison,
                slot=slot,
                annotator_id=slot.annotator_id,
                annotator_key=f"u{slot.annotator_id}",
                revision=newest.revision + 1 if newest else 1,
                **fields,
            )
    except IntegrityError as err:  # from two slots of theirs at the same instant
        raise AlreadyAnswered("Another window already sent an answer to this. Reload the page to see it.") from err


def _add_entries(ranking: Ranking, ranks: Mapping[int, int], flags: Mapping[int, Sequence[str]]) -> None:
    RankEntry.objects.bulk_create(
        RankEntry(ranking=ranking, candidate_id=pk, rank=ranks.get(pk), flags=list(flags.get(pk, [])))
        for pk in sorted(set(ranks) | set(flags))
    )


def _counts(slot: Slot, newest: Ranking | None) -> bool:
    """Whether an answer counts: always in time; late if the answer it corrects did, or if its place is still free."""
    if slot.state != Slot.State.LAPSED or (newest is not None and _stands(newest) and newest.counts):
        return True
    return slot.work_item.kind == WorkItem.Kind.RANK and slots.close_fresh_one(slot)


def _settle_slot(slot: Slot) -> None:
    if slot.work_item.kind == WorkItem.Kind.RANK:
        slots.fill(slot)
    else:
        slots.renew_lease(slot)


@transaction.atomic
def withdraw_ranking(*, slot: Slot, comparison: Comparison) -> Ranking | None:
    """In a chat, take an answer back while the dialogue has not gone on: adds a withdrawn revision.

    None when there is no answer. An answer outside a chat is corrected instead, so that its question stays answered.
    Raises  DialogueMovedOn, DialogueEnded, SlotNotYours
    """
    slot = slots.in_hand(slot)
    current = ranking_in_force(slot=slot, comparison=comparison)
    if current is None:
        return None
    _refuse_if_not_askable(slot, comparison, current)
    if not slot.work_item.is_chat:
        raise SlotClosed("This answer can be corrected, but not taken back.")
    slots.renew_lease(slot)
    return Ranking.objects.create(
        comparison=comparison,
        slot=slot,
        annotator_id=slot.annotator_id,
        annotator_key=current.annotator_key,
        revision=current.revision + 1,
        withdrawn=True,
        all_bad=current.all_bad,
        strength=current.strength,
        shown_order=current.shown_order,
        late=current.late,
        counts=current.counts,
    )


def ranking_in_force(*, slot: Slot, comparison: Comparison) -> Ranking | None:
    """This person's answer to a comparison as it stands."""
    return Ranking.objects.in_force().filter(comparison=comparison, annotator=slot.annotator_id).first()


def answer_of_chat(*, slot: Slot, comparison: Comparison) -> Ranking | None:
    """The answer a chat goes on from: the one that counts, whichever of its holders gave it; else this person's own."""
    in_force = Ranking.objects.in_force().filter(comparison=comparison)
    of_chat = in_force.filter(Q(annotator=slot.annotator_id) | Q(slot__work_item=slot.work_item_id, counts=True))
    return of_chat.order_by("-counts", "pk").first()


def dense(ranks: Mapping[Key, int]) -> dict[Key, int]:
    """Ranks without gaps: 1 for the best, equal stays equal.

    >>> dense({"a": 1, "b": 3, "c": 1})
    {'a': 1, 'b': 2, 'c': 1}
    """
    places = {rank: place for place, rank in enumerate(sorted(set(ranks.values())), start=1)}
    return {key: places[rank] for key, rank in ranks.items()}


def preference_pairs(ranks: Mapping[Key, int]) -> list[tuple[Key, Key]]:
    """(chosen, rejected) for every pair the ranks tell apart; ties give none.

    >>> preference_pairs({"a": 1, "b": 2, "c": 2})
    [('a', 'b'), ('a', 'c')]
    """
    pairs = []
    for one, other in combinations(ranks, 2):
        if ranks[one] != ranks[other]:
            pairs.append((one, other) if ranks[one] < ranks[other] else (other, one))
    return pairs


def _body_hash(
    comparison: Comparison,
    ranks: Mapping[int, int],
    all_bad: bool,
    strength: int | None,
    flags: Mapping[int, Sequence[str]],
) -> str:
    body = [comparison.pk, sorted(ranks.items()), all_bad, strength, sorted((pk, list(f)) for pk, f in flags.items())]
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()
