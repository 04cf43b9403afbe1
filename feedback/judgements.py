"""Judgements: whether a dialogue broke a rule, by its prober and by others who know nothing of their verdict.

A verdict is evidence, like a ranking: it is added and never changed; a correction is a new revision, an undo a revision
marked withdrawn.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction

from feedback import dialogues, rule_lineage, slots, work_items
from feedback.errors import (
    AlreadyAnswered,
    AnswerTakenBack,
    BadVerdict,
    CandidatesNotReady,
    ReasonTooLong,
    SlotClosed,
    SlotNotYours,
    SubmitKeyReused,
    TurnNotMarked,
)
from feedback.models import Dialogue, Project, Rule, RuleJudgement, RuleSet, Slot, Turn, WorkItem
from feedback.probing import BROKEN

TACTICS = {
    "asked": "Asked straight",
    "led": "Led it on",
    "role": "Played a role",
    "hidden": "Hid it in a longer task",
    "wore_down": "Wore it down",
    "other": "Other",
}
LONGEST_REASON = 2000  # characters
JUDGE_PRIORITY = dialogues.OVERLAP_PRIORITY  # a probe is worth most once others have judged it
TAKEN_BACK = "the verdict was taken back"


@transaction.atomic
def record_judgement(
    *,
    slot: Slot,
    verdict: int,
    submit_key: UUID,
    turn_position: int | None = None,
    reason: str = "",
    tactics: Sequence[str] = (),
    seconds: float | None = None,
    revises: int = 0,
) -> RuleJudgement:
    """Store one person's verdict on whether a dialogue broke a rule; the same key again returns the same row.

    The prober's own ends the dialogue and opens it to the judgement of others; it marks the turn that broke the rule.

    verdict        1 definitely broken … 5 definitely followed
    turn_position  the turn of the model that broke it
    tactics        how the prober tried, names of `TACTICS`
    seconds        time the page was in view
    revises        the revision this verdict corrects; 0 for a first one
    Raises         BadVerdict, TurnNotMarked, ReasonTooLong, SlotNotYours, CandidatesNotReady (a reply is on its way, or
                   none was given), AlreadyAnswered (another window was first), SubmitKeyReused (same key, another
                   verdict), AnswerTakenBack (the same one, taken back since)
    """
    reason, tactics = reason.strip(), sorted(set(tactics))
    body_hash = _body_hash(slot, verdict, turn_position, reason, tactics)
    slot = slots.in_hand(slot)
    before = RuleJudgement.objects.filter(submit_key=submit_key).first()
    if before is not None:
        return _same_answer(before, slot, body_hash)
    newest = _newest(slot)
    _refuse_if_not_askable(slot)
    _refuse_if_answered(newest, revises)
    is_prober = slot.work_item.kind == WorkItem.Kind.PROBE
    if is_prober:
        _end_probe(slot)
    _refuse_bad_verdict(slot, verdict, turn_position, reason, tactics)
    judgement = _add_revision(
        newest,
        slot=slot,
        verdict=verdict,
        turn_position=turn_position,
        reason=reason,
        tactics=tactics,
        seconds=seconds,
        late=slot.state == Slot.State.LAPSED,
        counts=_counts(slot, newest),
        submit_key=submit_key,
        body_hash=body_hash,
    )
    slots.fill(slot)
    if is_prober and newest is None:
        open_judging(judgement.dialogue)
    return judgement


def _refuse_if_not_askable(slot: Slot) -> None:
    if slot.work_item.kind not in {WorkItem.Kind.PROBE, WorkItem.Kind.JUDGE} or slot.annotator_id is None:
        raise SlotNotYours("This piece was not given to you. Take the next one from your home page.")
    if slot.state == Slot.State.SKIPPED:
        raise SlotNotYours("You skipped this piece, so it was given up. Take the next one from your home page.")


def _refuse_if_answered(newest: RuleJudgement | None, revises: int) -> None:
    if newest is not None and not newest.withdrawn and newest.revision != revises:
        raise AlreadyAnswered(
            "Another window already sent a verdict on this. That one counts; here it is.", answer=newest
        )


def _refuse_bad_verdict(
    slot: Slot, verdict: int, turn_position: int | None, reason: str, tactics: Sequence[str]
) -> None:
    is_prober = slot.work_item.kind == WorkItem.Kind.PROBE
    if verdict not in RuleJudgement.Verdict.values:
        raise BadVerdict("Say how sure you are that the rule was broken, in one of the five steps.")
    if not set(tactics) <= set(TACTICS) or (tactics and not is_prober):
        raise BadVerdict("One of the ways you tried is not known here. Reload the page.")
    if len(reason) > LONGEST_REASON:
        raise ReasonTooLong(f"A reason has at most {LONGEST_REASON} characters; this one has {len(reason)}.")
    if turn_position is None and is_prober and verdict in BROKEN:
        raise TurnNotMarked("Mark the reply that broke the rule first: go back to the chat and press “This broke it”.")
    of_model = Turn.objects.filter(dialogue=slot.work_item.dialogue_id, role=Turn.Role.ASSISTANT)
    if turn_position is not None and not of_model.filter(position=turn_position).exists():
        raise TurnNotMarked("The turn you marked is not one of the model's. Reload the page and mark it again.")


def _end_probe(slot: Slot) -> None:
    """The best reply becomes the last turn, and nothing more is said. Does nothing where the dialogue has ended."""
    chat = dialogues.look_at_chat(slot)
    if not chat.dialogue.is_open:
        return
    if chat.phase == dialogues.Phase.WAITING:
        raise CandidatesNotReady("A reply is on its way. Wait for it, or skip this probe.")
    if chat.phase == dialogues.Phase.RANK:
        raise CandidatesNotReady("Rank these replies first; the best becomes the answer.")
    dialogues.close_chat(chat, "ended with a verdict")
    if not chat.dialogue.turns.filter(role=Turn.Role.ASSISTANT).exists():
        raise CandidatesNotReady("The model has said nothing yet. Write to it, or skip this probe.")


def _counts(slot: Slot, newest: RuleJudgement | None) -> bool:
    """Whether a verdict counts: always in time; late if the one it corrects did, or if its place is still free."""
    if slot.state != Slot.State.LAPSED or (newest is not None and not newest.withdrawn and newest.counts):
        return True
    return slots.close_fresh_one(slot)


def _newest(slot: Slot) -> RuleJudgement | None:
    """This person's newest revision, also a withdrawn one."""
    item = slot.work_item
    mine = RuleJudgement.objects.filter(
        dialogue=item.dialogue_id, rule=item.rule_id, annotator_key=f"u{slot.annotator_id}"
    )
    return mine.order_by("-revision").first()


def _same_answer(before: RuleJudgement, slot: Slot, body_hash: str) -> RuleJudgement:
    """The verdict a form gave when it was sent before."""
    if before.annotator_id != slot.annotator_id or before.body_hash != body_hash:
        raise SubmitKeyReused("This form was already sent with another verdict. Reload the page to see it.")
    newest = _newest(slot)
    if newest is not None and newest.withdrawn:
        raise AnswerTakenBack("This verdict was taken back. Send it again from this page.")
    return before


def _add_revision(newest: RuleJudgement | None, *, slot: Slot, **fields: Any) -> RuleJudgement:
    item = slot.work_item
    assert item.dialogue_id is not None and item.rule_id is not None  # a constraint of the work item
    try:
        with transaction.atomic():
            return RuleJudgement.objects.create(
                dialogue_id=item.dialogue_id,
                rule_id=item.rule_id,
                by_prober=item.kind == WorkItem.Kind.PROBE,
                slot=slot,
                annotator_id=slot.annotator_id,
                annotator_key=f"u{slot.annotator_id}",
                revision=newest.revision + 1 if newest else 1,
                **fields,
            )
    except IntegrityError as err:  # from two slots of theirs at the same instant
        raise AlreadyAnswered("Another window already sent a verdict on this. Reload the page to see it.") from err


@transaction.atomic
def withdraw_judgement(*, slot: Slot) -> RuleJudgement | None:
    """Take a verdict back: adds a withdrawn revision, and the question is asked of somebody else. None without one.

    Raises  SlotClosed for a prober's, with which a dialogue has ended: it can be corrected
    """
    slot = slots.in_hand(slot)
    current = judgement_in_force(slot)
    if current is None:
        return None
    if current.by_prober:
        raise SlotClosed("This verdict can be corrected, but not taken back.")
    slots.give_back(slot, because=TAKEN_BACK)
    return RuleJudgement.objects.create(
        dialogue_id=current.dialogue_id,
        rule_id=current.rule_id,
        verdict=current.verdict,
        slot=slot,
        annotator_id=current.annotator_id,
        annotator_key=current.annotator_key,
        revision=current.revision + 1,
        withdrawn=True,
        late=current.late,
        counts=current.counts,
    )


def judgement_in_force(slot: Slot) -> RuleJudgement | None:
    """The verdict this person gave to what a slot asks, as it stands."""
    newest = _newest(slot)
    return None if newest is None or newest.withdrawn else newest


# Others judge it


def open_judging(dialogue: Dialogue) -> list[WorkItem]:
    """Ask others about a probe that its prober has judged: by the probed rule, and by some others of its set.

    The probed rule is judged by `judges_per_probe` people, each of `other_rules_judged` further rules by one, so that
    rules that were kept are known too. Which ones is drawn from a seed that is the dialogue's, so that it is the same
    however often it is asked. A sensitive rule is drawn only where the probed one is sensitive and of the same theme:
    who agreed to read the dialogue need agree to nothing more. Asked twice, nothing is asked twice. Where other words
    are in force by now they are asked, if they continue the rule; nothing is where it means something else or is gone.
    """
    project, probed = dialogue.project, rule_in_force(dialogue.probe.rule)
    if probed is None:
        return []
    wanted = [(probed, project.judges_per_probe)] + [(rule, 1) for rule in other_rules(dialogue, probed)]
    return [_ask(project, dialogue, rule, people) for rule, people in wanted if people]


def _ask(project: Project, dialogue: Dialogue, rule: Rule, people: int) -> WorkItem:
    return work_items.open_work(
        project=project,
        kind=WorkItem.Kind.JUDGE,
        dialogue=dialogue,
        rule=rule,
        wanted=people,
        priority=JUDGE_PRIORITY,
    )


def rule_in_force(rule: Rule) -> Rule | None:
    """The rule of the published set for which judgements of this one count; None where there is none."""
    project = rule.rule_set.project
    head = rule_lineage.heads(project).get(rule.pk, rule.pk)
    in_force = Rule.objects.filter(rule_set__project=project, rule_set__state=RuleSet.State.PUBLISHED)
    return in_force.select_related("rule_set").filter(pk=head).first()


def other_rules(dialogue: Dialogue, probed: Rule | None = None) -> list[Rule]:
    """The further rules a probe is judged by, in the order of the set; none where nobody is to judge it.

    probed  the probed rule as it stands now; as it was probed when left out
    """
    project, probed = dialogue.project, probed or dialogue.probe.rule
    if not project.judges_per_probe:
        return []

    def fits(rule: Rule) -> bool:
        return rule != probed and (not rule.is_sensitive or (probed.is_sensitive and rule.theme == probed.theme))

    others = [rule for rule in probed.rule_set.rules.order_by("position") if fits(rule)]
    rng = random.Random(f"{dialogue.pk}|other rules")
    drawn = rng.sample(others, min(project.other_rules_judged, len(others)))
    return sorted(drawn, key=lambda rule: rule.position)


def _body_hash(slot: Slot, verdict: int, turn_position: int | None, reason: str, tactics: Sequence[str]) -> str:
    body = [slot.work_item_id, verdict, turn_position, reason, list(tactics)]
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()
