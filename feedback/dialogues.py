"""Dialogues: open them, write on, end them; and what a person in a chat may do right now."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from django.db import transaction
from django.db.models import Count, ExpressionWrapper, F, FloatField, Q, QuerySet
from django.utils import timezone

from feedback import drafts, slots, work_items
from feedback.errors import (
    CandidatesNotReady,
    DialogueEnded,
    DialogueMovedOn,
    EmptyMessage,
    MessageTooLong,
    ReasonNeeded,
    SlotClosed,
    SlotNotYours,
)
from feedback.generation import append_reply, cancel_requests, request_candidates, try_again
from feedback.models import (
    Candidate,
    Comparison,
    Dialogue,
    GenerationRequest,
    Project,
    Prompt,
    PromptGroup,
    Ranking,
    Slot,
    Turn,
    User,
    WorkItem,
)
from feedback.prompts import add_prompt, can_open
from feedback.rankings import answer_of_chat

logger = logging.getLogger(__name__)
LONGEST_MESSAGE = 8000  # characters
MOST_REDOS = 1  # how often new replies may be asked for when none was good
MOST_OPENED = 10  # dialogues opened in one go, so that nobody waits long to write
FAILED_REST = timedelta(minutes=1)  # how long after a failure the replies of a dialogue nobody has are asked for again
OVERLAP_PRIORITY = 5  # what others have ranked already is worth most once it is complete


class Phase(StrEnum):
    """Where a chat stands, and so what its page offers."""

    OPENING = "opening"  # nobody has written yet
    WAITING = "waiting"  # replies are being made
    FAILED = "failed"  # they could not be made
    RANK = "rank"  # replies are there
    RANKED = "ranked"  # answered: write on, undo, or end
    NONE_GOOD = "none_good"  # answered: all bad; new replies, undo, or end
    YOUR_TURN = "your_turn"  # the one reply is part of the dialogue: write on, or end
    ENDED = "ended"


@dataclass(frozen=True)
class Chat:
    """A dialogue as the holder of a slot meets it."""

    slot: Slot
    dialogue: Dialogue
    phase: Phase
    turns: list[Turn]
    request: GenerationRequest | None = None
    comparison: Comparison | None = None
    ranking: Ranking | None = None
    chosen: Candidate | None = None
    candidates: list[Candidate | None] = field(default_factory=list)  # in shown order; None: still being written

    @property
    def is_inherited(self) -> bool:
        """Whoever had the dialogue before ranked these replies; this person goes on from that."""
        return self.ranking is not None and self.ranking.annotator_id != self.slot.annotator_id

    @property
    def user_turns(self) -> int:
        return sum(turn.role == Turn.Role.USER for turn in self.turns)

    @property
    def last_position(self) -> int:
        return self.turns[-1].position if self.turns else -1

    @property
    def may_write_on(self) -> bool:
        return self.user_turns < self.dialogue.project.max_turns

    @property
    def may_ask_again(self) -> bool:
        """New replies are made once when none was good; after that the dialogue ends."""
        return self.phase == Phase.NONE_GOOD and self.request is not None and self.request.redo < MOST_REDOS


def look_at_chat(slot: Slot) -> Chat:
    """Everything a chat page shows, read from the rows; changes nothing.

    Raises  SlotNotYours when the slot is about something else than a dialogue to write in
    """
    if slot.work_item.dialogue_id is None or not slot.work_item.is_chat:
        raise SlotNotYours("This piece of work is no dialogue. Take the next one from your home page.")
    dialogue = Dialogue.objects.select_related("project").get(pk=slot.work_item.dialogue_id)
    asked = _newest_request(dialogue)  # before the turns: a reply that arrives meanwhile is among them
    turns = list(dialogue.turns.select_related("candidate"))
    parts = _question(slot, dialogue, turns, asked)
    return Chat(slot=slot, dialogue=dialogue, turns=turns, **parts)


def _newest_request(dialogue: Dialogue) -> GenerationRequest | None:
    """What was asked last of the model, whichever turn it is to answer."""
    return GenerationRequest.objects.filter(dialogue=dialogue).order_by("-after_position", "-redo").first()


def _question(slot: Slot, dialogue: Dialogue, turns: list[Turn], request: GenerationRequest | None) -> dict[str, Any]:
    if not dialogue.is_open:
        return {"phase": Phase.ENDED}
    if turns and turns[-1].role == Turn.Role.ASSISTANT:
        return {"phase": Phase.YOUR_TURN}
    if not turns or turns[-1].role != Turn.Role.USER:
        return {"phase": Phase.OPENING}
    if request is None or request.after_position < turns[-1].position:  # another window wrote a moment ago
        request = _newest_request(dialogue)
    if request is None or request.after_position != turns[-1].position:
        return {"phase": Phase.FAILED}
    comparison = Comparison.objects.filter(request=request).first()
    shown = _shown(slot, request)
    if comparison is None:
        phase = Phase.FAILED if request.is_finished else Phase.WAITING
        return {"phase": phase, "request": request, "candidates": shown}
    ranking = answer_of_chat(slot=slot, comparison=comparison)
    asked = [candidate for candidate in shown if candidate and candidate.comparison_id == comparison.pk]
    parts = {"request": request, "comparison": comparison, "ranking": ranking, "candidates": asked}
    if ranking is None:
        return parts | {"phase": Phase.RANK}
    if ranking.all_bad:
        return parts | {"phase": Phase.NONE_GOOD}
    return parts | {"phase": Phase.RANKED, "chosen": ranking.best()}


def _shown(slot: Slot, request: GenerationRequest) -> list[Candidate | None]:
    by_index = {candidate.index: candidate for candidate in request.candidates.all()}
    places = slots.shown_places(slot, after_position=request.after_position, redo=request.redo, wanted=request.wanted)
    return [by_index.get(place) for place in places]


@transaction.atomic
def open_dialogue(*, project: Project, prompt: Prompt | None = None, author: User | None = None) -> WorkItem:
    """Open a dialogue for chat and rank, from a prompt or empty, and put it in the queue.

    From a prompt, its first replies are asked for at once.
    Raises  NoPolicy when no model serves, CandidatesNotReady for a prompt that does not end with a user's message
    """
    dialogue = Dialogue.objects.create(project=project, prompt=prompt, policy_id=project.policy_id, author=author)
    if prompt is not None:
        Turn.objects.bulk_create(
            Turn(dialogue=dialogue, position=position, role=message["role"], content=message["content"])
            for position, message in enumerate(prompt.messages)
        )
        request_candidates(dialogue=dialogue)
    return work_items.open_work(project=project, kind=WorkItem.Kind.CHAT_AND_RANK, dialogue=dialogue)


@transaction.atomic
def open_own_dialogue(*, project: Project, user: User) -> Slot:
    """An empty dialogue that a person opens with words of their own; at once theirs.

    One that they hold and have not begun is opened again, so that a double click makes one.
    """
    User.objects.select_for_update(no_key=True).get(pk=user.pk)
    empty = slots.held_slots(user, project).filter(work_item__dialogue__author=user, work_item__dialogue__prompt=None)
    begun = empty.first()
    if begun is not None:
        return begun
    item = open_dialogue(project=project, author=user)
    slot = slots.claim_slot(item.slots.get().pk, user=user)
    if slot is None:
        raise SlotClosed("The dialogue could not be opened. Try again.")
    return slot


def send_message(*, slot: Slot, text: str, after_position: int, draft_version: int | None = None) -> GenerationRequest:
    """Write the next user turn: the chosen reply becomes a turn, the message follows it, and replies are asked for.

    after_position  position of the last turn the page showed (-1: none), so that two windows cannot fork the dialogue
    draft_version   version of the draft the page last saw, as `drafts.keep_unsent` has it
    Raises          EmptyMessage, MessageTooLong, SlotClosed, DialogueEnded (either way the text is kept as the slot's
                    draft), DialogueMovedOn, CandidatesNotReady, NoPolicy
    """
    text = _checked(text)
    try:
        return _send_message(slot, text, after_position)
    except (SlotClosed, DialogueEnded):
        drafts.keep_unsent(slot, message=text, version=draft_version)
        raise


@transaction.atomic
def _send_message(slot: Slot, text: str, after_position: int) -> GenerationRequest:
    chat = chat_in_hand(slot)
    asked = _asked_already(chat.dialogue, text, after_position)
    if asked is not None:
        return asked
    if after_position != chat.last_position:
        raise DialogueMovedOn("Another window already wrote the next message. It is shown here; your text is kept.")
    if chat.phase not in {Phase.OPENING, Phase.RANKED, Phase.YOUR_TURN}:
        raise CandidatesNotReady(_answer_first(chat))
    if not chat.may_write_on:
        raise DialogueEnded(f"This project's dialogues have {chat.dialogue.project.max_turns} turns. End it here.")
    _append_user_turn(chat, text, position=_append_chosen(chat))
    slots.renew_lease(chat.slot)
    return request_candidates(dialogue=chat.dialogue)


def _answer_first(chat: Chat) -> str:
    if chat.request is not None and chat.request.is_said_at_once:
        return "The model has not answered yet. Your text is kept; send it once the reply is here."
    return "Rank the replies first; the best becomes the answer you write on from."


def _asked_already(dialogue: Dialogue, text: str, after_position: int) -> GenerationRequest | None:
    """What was asked for when the same message came before; None where another turn follows, or nothing was asked."""
    twin = dialogue.turns.filter(position__gt=after_position, role=Turn.Role.USER).first()
    if twin is None or twin.content != text:
        return None
    return GenerationRequest.objects.filter(dialogue=dialogue, after_position=twin.position, redo=0).first()


def _checked(text: str) -> str:
    text = text.strip()
    if not text:
        raise EmptyMessage("Write a message first.")
    if len(text) > LONGEST_MESSAGE:
        raise MessageTooLong(f"A message has at most {LONGEST_MESSAGE} characters; this one has {len(text)}.")
    return text


def chat_in_hand(slot: Slot) -> Chat:
    """The chat in which a person acts, its slot locked; one that lapsed is taken up again if nobody else has it.

    Raises  DialogueEnded, SlotClosed
    """
    chat = look_at_chat(slots.in_hand(slot))
    if chat.phase == Phase.ENDED:
        raise DialogueEnded("This dialogue has ended. Take the next one from your home page.")
    if chat.slot.state != Slot.State.HELD:
        raise SlotClosed("Your time on this dialogue ended and somebody else has it now. What you wrote is kept.")
    return chat


def _append_chosen(chat: Chat) -> int:
    """The best reply becomes part of the dialogue once the person goes on from it; until then it can be undone.

    Returns the position of the turn that comes next.
    """
    following = chat.last_position + 1
    return append_reply(chat.dialogue, chat.chosen, position=following) if chat.chosen is not None else following


def _append_user_turn(chat: Chat, text: str, *, position: int) -> None:
    Turn.objects.create(
        dialogue=chat.dialogue, position=position, role="user", content=text, author_id=chat.slot.annotator_id
    )
    if chat.dialogue.prompt_id is None:
        prompt = add_prompt(
            project=chat.dialogue.project,
            messages=chat.dialogue.messages(),
            source="probe" if chat.dialogue.is_probe else "annotator",
            author=chat.slot.annotator,
            is_active=False,
        )
        Dialogue.objects.filter(pk=chat.dialogue.pk).update(prompt=prompt)


@transaction.atomic
def ask_for_new_candidates(*, slot: Slot) -> GenerationRequest:
    """After "none is good": ask for other replies to the same turn, once. Asked for already: the same request.

    Raises  CandidatesNotReady unless the replies in hand were all called bad, DialogueEnded, SlotClosed
    """
    chat = chat_in_hand(slot)
    request = chat.request
    if request is not None and request.redo > 0 and chat.phase in {Phase.WAITING, Phase.RANK}:
        return request
    if request is None or chat.phase != Phase.NONE_GOOD:
        raise CandidatesNotReady("New replies can be asked for once none of these is good.")
    if not chat.may_ask_again:
        raise CandidatesNotReady("New replies were made already, and none was good. End the dialogue here.")
    slots.renew_lease(chat.slot)
    return request_candidates(dialogue=chat.dialogue, redo=request.redo + 1)


@transaction.atomic
def end_dialogue(*, slot: Slot, reason: str = "") -> None:
    """End a dialogue after a ranking; the best reply becomes its last turn, and the slot is filled.

    Raises  DialogueEnded, SlotClosed, CandidatesNotReady when nothing was ranked (skip it instead), and for a probe,
            which ends with a verdict
    """
    chat = chat_in_hand(slot)
    if chat.dialogue.is_probe:
        raise CandidatesNotReady("Say whether the rule was broken; that ends this dialogue.")
    ranked = Ranking.objects.in_force().filter(comparison__dialogue=chat.dialogue, annotator=chat.slot.annotator_id)
    if chat.ranking is None and not ranked.exists():
        raise CandidatesNotReady("Rank the replies first, or skip this dialogue with a reason.")
    close_chat(chat, reason or "ended by the annotator")
    slots.fill(chat.slot, because=reason)
    _ask_others(chat.dialogue)


@transaction.atomic
def skip_dialogue(*, slot: Slot, reason: str) -> None:
    """Leave a dialogue for good, with a reason. What was ranked in it stays; a probe without a verdict is none.

    Raises  ReasonNeeded, DialogueEnded, SlotClosed
    """
    if not reason.strip():
        raise ReasonNeeded("Say in a word why you skip it; it helps to mend the prompts.")
    chat = chat_in_hand(slot)
    because = f"skipped: {reason.strip()}"
    close_chat(chat, because)
    if chat.dialogue.is_probe:
        slots.skip(chat.slot, reason=reason)
    else:
        slots.fill(chat.slot, because=because)
        _ask_others(chat.dialogue)


def close_chat(chat: Chat, because: str) -> None:
    """The best reply becomes the last turn, and nothing more is asked about the dialogue."""
    _append_chosen(chat)
    end(chat.dialogue.pk, because)
    work_items.close_work(chat.slot.work_item, because=because)


def end(dialogue_id: int, because: str) -> None:
    """No turn comes after this, and no reply is made any more."""
    Dialogue.objects.filter(pk=dialogue_id, ended_at=None).update(ended_at=timezone.now(), end_reason=because[:200])
    cancel_requests(dialogue_id, because="The dialogue ended before its replies were made.")


def _ask_others(dialogue: Dialogue) -> None:
    """Queue each ranked comparison of an ended dialogue for the further answers its project wants.

    First turns first: who was given a later one knows what came before it, and may not rank that any more.
    """
    answers = Count("rankings__annotator", filter=Q(rankings__in=Ranking.objects.counted()), distinct=True)
    ranked = dialogue.comparisons.annotate(answers=answers).filter(answers__gte=1)
    for comparison in ranked.order_by("after_position", "pk"):
        missing = dialogue.project.answers_per_comparison - comparison.answers
        if missing > 0:
            ask_for_rankings(comparison=comparison, wanted=missing, priority=OVERLAP_PRIORITY)


def ask_for_rankings(*, comparison: Comparison, wanted: int, priority: int = 0) -> WorkItem:
    """Queue a comparison whose candidates are there for so many independent answers (rank only)."""
    return work_items.open_work(
        project=comparison.dialogue.project,
        kind=WorkItem.Kind.RANK,
        comparison=comparison,
        wanted=wanted,
        priority=priority,
    )


def keep_dialogues_ready(project: Project) -> int:
    """Open fresh dialogues until the project has its number of them, replies on the way. Returns how many.

    Prompts of the test split are left for reports. Those with the fewest dialogues come first. Two sweeps at once open
    no more than one: the second finds the project locked, or the dialogues there.
    """
    return _open_missing(project) if _missing_dialogues(project) else 0


def _missing_dialogues(project: Project) -> int:
    if project.policy_id is None or project.archived_at is not None or not project.ready_dialogues:
        return 0
    return max(0, project.ready_dialogues - unclaimed_dialogues(project).count())


@transaction.atomic
def _open_missing(project: Project) -> int:
    now = Project.objects.select_for_update(no_key=True, skip_locked=True).filter(pk=project.pk).first()
    missing = min(_missing_dialogues(now), MOST_OPENED) if now is not None else 0
    if now is None or not missing:
        return 0
    return sum(_open_ready(now, prompt) for prompt in _least_used_prompts(now)[:missing])


def _least_used_prompts(project: Project) -> QuerySet[Prompt]:
    """Prompts in the order they are to be used: who has been used least for its weight comes first."""
    used = Count("dialogues", filter=Q(dialogues__kind=Dialogue.Kind.PREFERENCE))
    return (
        Prompt.objects.active()
        .filter(project=project, weight__gt=0)
        .exclude(group__split=PromptGroup.Split.TEST)
        .annotate(used=ExpressionWrapper(used * 1.0 / F("weight"), output_field=FloatField()))
        .order_by("used", "content_hash")  # the hash: an order that has nothing to do with the source's
    )


def _open_ready(project: Project, prompt: Prompt) -> int:
    """Open a dialogue from a prompt. One that cannot open any is set aside, so that it does not stop the others."""
    if can_open(prompt.messages):
        open_dialogue(project=project, prompt=prompt)
        return 1
    logger.warning("prompt set aside, it cannot open a dialogue prompt=%s", prompt.pk)
    Prompt.objects.filter(pk=prompt.pk).update(is_active=False)
    return 0


def unclaimed_dialogues(project: Project) -> QuerySet[WorkItem]:
    """Open chat work that nobody has touched."""
    return WorkItem.objects.filter(
        project=project, kind=WorkItem.Kind.CHAT_AND_RANK, closed_at=None, slots__state=Slot.State.FREE
    ).exclude(slots__state__in=["held", "filled", "lapsed", "skipped"])


def ask_again_where_it_failed(project: Project) -> int:
    """Ask once more for the replies of dialogues that nobody has touched and whose replies could not be made.

    They are tried about once a minute, so that dialogues are ready again soon after a model server is back. Whoever
    holds a dialogue asks again themselves. Returns how many.
    """
    failed = GenerationRequest.objects.filter(
        state=GenerationRequest.State.FAILED,
        comparison=None,
        finished_at__lt=timezone.now() - FAILED_REST,
        dialogue__work_items__in=unclaimed_dialogues(project),
    )
    return sum(try_again(request) for request in failed.order_by("finished_at")[:MOST_OPENED])


@transaction.atomic
def withdraw_ready_dialogues(project: Project, *, because: str) -> int:
    """Close the dialogues nobody has begun, so that the next ones are answered by the policy that serves now."""
    return sum(_withdraw(project, item, because) for item in list(unclaimed_dialogues(project).order_by("pk")))


def _withdraw(project: Project, item: WorkItem, because: str) -> int:
    """Close one, unless somebody takes it at this moment: who locks the work item first has it."""
    WorkItem.objects.select_for_update(no_key=True).get(pk=item.pk)
    if item.dialogue_id is None or not unclaimed_dialogues(project).filter(pk=item.pk).exists():
        return 0
    work_items.close_work(item, because=because)
    end(item.dialogue_id, because)
    return 1
