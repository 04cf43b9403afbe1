"""A dialogue of several turns that one person writes: the reply they sent, what the person says next, and on."""

from __future__ import annotations

from django.db import transaction

from feedback import slots, work_items
from feedback.demonstrations import checked, dialogue_of, turns_of
from feedback.errors import DialogueEnded, DialogueMovedOn, SlotClosed
from feedback.models import Demonstration, Dialogue, Slot, Turn, User, WorkItem


@transaction.atomic
def open_next_turn(*, demonstration: Demonstration) -> Slot:
    """Go on with a dialogue from the reply its writer just sent; at once theirs. Asked for twice it is the same one.

    The first thing they write there is what the person says next.
    Raises  DialogueEnded when the project's dialogues have no more turns, SlotClosed
    """
    user, project = demonstration.annotator, demonstration.dialogue.project
    if user is None:
        raise SlotClosed("Only who wrote a reply goes on from it.")
    User.objects.select_for_update(no_key=True).get(pk=user.pk)
    begun = Turn.objects.filter(demonstration=demonstration, dialogue__author=user).values("dialogue")
    held = slots.held_slots(user, project).filter(work_item__dialogue__in=begun).first()
    if held is not None:
        return held
    turns = list(demonstration.dialogue.turns.filter(position__lte=demonstration.position))
    if sum(turn.role == Turn.Role.USER for turn in turns) >= project.max_turns:
        raise DialogueEnded("This dialogue has all the turns it may have. Your reply is stored.")
    dialogue = Dialogue.objects.create(
        project=project, kind=Dialogue.Kind.DEMONSTRATION, prompt=demonstration.dialogue.prompt, author=user
    )
    reply = Turn(
        dialogue=dialogue,
        position=demonstration.position + 1,
        role=Turn.Role.ASSISTANT,
        content=demonstration.content,
        author=user,
        demonstration=demonstration,
    )
    Turn.objects.bulk_create([*(_copied(turn, dialogue) for turn in turns), reply])
    item = work_items.open_work(project=project, kind=WorkItem.Kind.DEMONSTRATE, dialogue=dialogue)
    slot = slots.claim_slot(item.slots.get().pk, user=user)
    if slot is None:
        raise SlotClosed("The dialogue could not be opened. Try again.")
    return slot


def _copied(turn: Turn, dialogue: Dialogue) -> Turn:
    return Turn(
        dialogue=dialogue,
        position=turn.position,
        role=turn.role,
        content=turn.content,
        author_id=turn.author_id,
        demonstration_id=turn.demonstration_id,
    )


@transaction.atomic
def say_next(*, slot: Slot, text: str, after_position: int) -> Turn:
    """Write what the person says next, in a dialogue that ends with a reply; the same words again are one turn.

    after_position  position of the last turn the page showed, so that two windows cannot fork the dialogue
    Raises          EmptyMessage, MessageTooLong, SlotClosed, DialogueMovedOn
    """
    text = checked(text)
    slot = slots.in_hand(slot)
    if slot.work_item.kind != WorkItem.Kind.DEMONSTRATE or slot.state != Slot.State.HELD:
        raise SlotClosed("This piece is no longer yours. What you wrote is kept; take the next one.")
    last = turns_of(slot)[-1]
    if last.position == after_position + 1 and last.content == text:
        return last
    if last.position != after_position or last.role == Turn.Role.USER:
        raise DialogueMovedOn("Another window already wrote the next message. It is shown here; your text is kept.")
    slots.renew_lease(slot)
    return Turn.objects.create(
        dialogue=dialogue_of(slot),
        position=after_position + 1,
        role=Turn.Role.USER,
        content=text,
        author_id=slot.annotator_id,
    )
