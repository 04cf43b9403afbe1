"""What a task page shows: the dialogue on the left, the question on the right, what comes next in the bar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from django.db.models import prefetch_related_objects
from django.utils import timezone

from annotate.answers import FLAGS, Answer, answer_in_draft, answer_of, name_of
from annotate.forms import SKIP_REASONS
from annotate.questions import Answers, rate_context
from annotate.reasons import in_plain_words
from annotate.replies import Reply, Review, review_context, write_context
from annotate.sheet import FAILED, NUMBER_WORDS, WAITING, Row, order_in_words, rows, sheet
from annotate.templatetags.look import ordinal
from annotate.verdicts import Said, Verdict, turns_said, verdict_context
from feedback import drafts
from feedback.dialogues import Chat, Phase, look_at_chat
from feedback.generation import requests_ahead, waiting_seconds
from feedback.models import Comparison, GenerationRequest, Ranking, Slot, Turn, WorkItem
from feedback.rankings import ranking_in_force, shown_candidates

STRENGTHS = ((1, "a hair"), (2, "somewhat"), (3, "clearly"), (4, "by far"))
SCRIPTS = tuple(
    f"js/{name}.js" for name in ("status", "draft", "send", "elapsed", "inview", "rank", "chat-keys", "skip")
)
PROBE_SCRIPTS = (*SCRIPTS, "js/verdict.js")
WRITE_SCRIPTS = (*SCRIPTS, "js/write.js")
RATE_SCRIPTS = (*PROBE_SCRIPTS, "js/rate.js")
REVIEW_SCRIPTS = (*SCRIPTS, "js/review.js")
WHY_AFTER = 10  # seconds of waiting after which the page says why
TAKEN = "taken"  # the phase of a chat that lapsed and that somebody else has now
ASKING = frozenset({Phase.WAITING, Phase.RANK, Phase.FAILED})
MISSING = {Phase.FAILED: FAILED}


@dataclass(frozen=True)
class Refusal:
    """What was just sent and could not be taken: it is shown again as it was given."""

    answer: Answer | None = None
    message: str = ""
    skip_words: str = ""
    verdict: Verdict | None = None
    reply: Reply | None = None
    review: Review | None = None
    answers: Answers | None = None


def desk(slot: Slot, refusal: Refusal | None = None, *, at_verdict: bool = False, shown: str = "") -> dict[str, Any]:
    """The context of a task page of any kind.

    at_verdict  a prober is done with the chat, and says whether the rule was broken
    shown       position of the turn that a person just uncovered, of what may harm
    """
    draft = drafts.draft_of(slot)
    body = draft.body if draft else {}
    refusal = refusal or Refusal()
    return {
        **frame(slot),
        "skip_words": refusal.skip_words,
        "draft_version": draft.version if draft else 0,
        "saved_at": draft.saved_at if draft and draft.body else None,
        **_context_of(slot, refusal, body, at_verdict, shown),
    }


def _context_of(slot: Slot, refusal: Refusal, body: Mapping[str, Any], at_verdict: bool, shown: str) -> dict[str, Any]:
    kind = slot.work_item.kind
    if kind == WorkItem.Kind.PROBE:
        return _probe_context(slot, refusal, body, at_verdict, shown)
    if kind == WorkItem.Kind.JUDGE:
        return _judge_context(slot, refusal, body, shown)
    if kind == WorkItem.Kind.RATE:
        late = _time_is_over(slot, "What you send is stored as late; nothing is lost.")
        return rate_context(slot, refusal.answers, body, shown) | {"time_is_over": late, "scripts": RATE_SCRIPTS}
    if kind in WorkItem.DEMONSTRATIONS:
        return _reply_context(slot, refusal, body)
    build = _chat_context if kind == WorkItem.Kind.CHAT_AND_RANK else _rank_only_context
    return build(slot, refusal, body)


def frame(slot: Slot) -> dict[str, Any]:
    """What every task page needs, whatever it asks."""
    return {
        "slot": slot,
        "project": slot.work_item.project,
        "kind": slot.work_item.kind,
        "is_chat": slot.work_item.is_chat,
        "submit_key": uuid4(),
        "flags": FLAGS,
        "skip_reasons": SKIP_REASONS,
        "strengths": STRENGTHS,
        "scripts": SCRIPTS,
    }


def shown_names(slot: Slot, comparison: Comparison) -> dict[str, int]:
    """{name on this slot's page: candidate id} of a comparison's replies."""
    return {name_of(slot, candidate.pk): candidate.pk for candidate in shown_candidates(slot, comparison)}


# Chat and rank


def _chat_context(slot: Slot, refusal: Refusal, body: Mapping[str, Any]) -> dict[str, Any]:
    if slot.state == Slot.State.LAPSED and _is_taken(slot):
        return _taken_context(slot, refusal, body)
    chat = look_at_chat(slot)
    mine = None if chat.is_inherited else chat.ranking
    if mine is not None:
        prefetch_related_objects([mine], "entries")
    answer = refusal.answer or answer_in_draft(body) or answer_of(slot, _taken_back(chat))
    if chat.ranking is not None:
        answer = answer_of(slot, mine)
    shown = chat.candidates or [None] * chat.dialogue.project.candidates_per_turn
    built = rows(slot, shown, answer, MISSING.get(chat.phase, WAITING))
    is_asking = chat.phase in ASKING
    return {
        "chat": chat,
        "wanted_in_words": NUMBER_WORDS[chat.dialogue.project.candidates_per_turn],
        "phase": str(chat.phase),
        "turns": _with_past_places(chat.turns, slot),
        "comparison": chat.comparison,
        "ranking": mine,
        "chosen": chat.chosen,
        "chosen_chip": _chosen_chip(mine) if chat.chosen is not None else "",
        "last_position": chat.last_position,
        "turns_left": max(0, chat.dialogue.project.max_turns - chat.user_turns),
        "may_write": chat.phase == Phase.OPENING
        or (chat.phase in {Phase.RANKED, Phase.YOUR_TURN} and chat.may_write_on),
        "typed": refusal.message or body.get("message", ""),
        "sent_words": _sent_words(slot, refusal, mine, built),
        "draft_key": _draft_key(slot, chat, is_asking),
        "time_is_over": _time_is_over(slot, "Nobody else has it yet: go on, and it is yours again."),
        "ended_because": _ended_because(chat),
        **sheet(built, answer, fewer_because=_fewer_because(chat.comparison)),
        **_progress(chat, is_asking),
        **_waiting(chat.request if chat.phase in {Phase.WAITING, Phase.FAILED} else None),
    }


def _draft_key(slot: Slot, chat: Chat, is_asking: bool) -> str:
    """Names the draft on the reader's device: the same from the first reply that arrives to the answer."""
    redo = chat.request.redo if chat.request else 0
    return f"slot-{slot.pk}-{chat.last_position}-{redo}-{'answer' if is_asking else 'message'}"


def _chosen_chip(mine: Ranking | None) -> str:
    if mine is None:
        return ""
    tied = list(mine.ranks().values()).count(1) > 1
    return f"your {'tied ' if tied else ''}1st of {len(mine.shown_order)}"


def _taken_back(chat: Chat) -> Ranking | None:
    """The answer that was just undone: its places are shown again, to be corrected and not given anew."""
    if chat.comparison is None or chat.phase != Phase.RANK:
        return None
    mine = Ranking.objects.filter(comparison=chat.comparison, annotator=chat.slot.annotator_id)
    newest = mine.order_by("-revision").first()
    return mine.filter(revision=newest.revision - 1).first() if newest is not None and newest.withdrawn else None


def _sent_words(slot: Slot, refusal: Refusal, stored: Ranking | None, built: list[Row]) -> str:
    """The order that was sent while another answer stands: the loser sees both."""
    if refusal.answer is None or stored is None:
        return ""
    shown = [row.candidate for row in built if row.candidate is not None]
    return order_in_words(rows(slot, shown, refusal.answer), all_bad=refusal.answer.all_bad)


def _ended_because(chat: Chat) -> str:
    because = chat.dialogue.end_reason
    if chat.dialogue.is_open or not because:
        return ""
    return (
        f"You skipped it: {because.removeprefix('skipped: ')}." if because.startswith("skipped: ") else "You ended it."
    )


def _progress(chat: Chat, is_asking: bool) -> dict[str, Any]:
    """Turns of this dialogue that are ranked, and the one in hand."""
    ranked = max(0, chat.user_turns - 1) if is_asking else chat.user_turns
    return {"ranked_turns": ranked, "turn_in_hand": int(is_asking), "turn_number": max(1, chat.user_turns)}


def _fewer_because(comparison: Comparison | None) -> str:
    because = comparison.request.fewer_because if comparison is not None and comparison.request else ""
    return in_plain_words(because) if because else ""


def _waiting(request: GenerationRequest | None) -> dict[str, Any]:
    """How long the replies have been on their way, and why; or why they did not come."""
    if request is None:
        return {"waited": 0.0, "why": "", "request_failed": False, "failure": in_plain_words("")}
    return {
        "waited": waiting_seconds(request),
        "why": _why_waiting(request),
        "request_failed": request.is_finished,
        "failure": in_plain_words(request.error),
    }


def _why_waiting(request: GenerationRequest) -> str:
    if waiting_seconds(request) <= WHY_AFTER or request.is_finished:
        return ""
    ahead = requests_ahead(request)
    if ahead:
        return f"{ahead} ahead of you"
    is_queued = request.state == GenerationRequest.State.QUEUED
    return "the model is asked again" if is_queued and request.error else "waiting for the model" if is_queued else ""


# Probe


def _probe_context(
    slot: Slot, refusal: Refusal, body: Mapping[str, Any], at_verdict: bool, shown: str
) -> dict[str, Any]:
    """A chat of whose replies one may be marked; and at its end, whether the rule was broken."""
    context = _chat_context(slot, refusal, body) | verdict_context(slot, refusal.verdict, body)
    chat, phase = context["chat"], context["chat"].phase
    shown = shown or str(body.get("shown", ""))
    seen = shown == str(chat.last_position) or phase != Phase.YOUR_TURN
    spoken = _spoken(context, veiled=bool(context["warning"]) and not seen and context["judgement"] is None)
    has_answer = any(said.can_be_marked for said in spoken)
    may_end = has_answer and phase in {Phase.YOUR_TURN, Phase.RANKED, Phase.NONE_GOOD, Phase.FAILED}
    is_stored = context["judgement"] is not None
    is_late = has_answer and slot.state == Slot.State.LAPSED and not chat.dialogue.is_open
    return context | {
        "spoken": spoken,
        "shown": shown,
        "may_end": may_end and chat.dialogue.is_open,
        "at_verdict": is_stored or is_late or (may_end and (at_verdict or refusal.verdict is not None)),
        "is_single": chat.dialogue.project.replies_per_probe_turn == 1,
        "draft_key": f"slot-{slot.pk}-{chat.last_position}-probe"
        if phase not in {Phase.WAITING, Phase.RANK}
        else context["draft_key"],
        "scripts": PROBE_SCRIPTS,
    }


def _spoken(context: Mapping[str, Any], *, veiled: bool) -> list[Said]:
    """The turns with this person's places, and last the reply they chose; what is new may be veiled."""
    turns = [Said(turn.position, turn.role, turn.content, chip) for turn, chip in context["turns"]]
    if context["chosen"] is not None:
        chip = context["chosen_chip"]
        turns.append(Said(context["last_position"] + 1, Turn.Role.ASSISTANT, context["chosen"].text, chip))
    if veiled and turns:
        turns[-1] = replace(turns[-1], veiled=turns[-1].can_be_marked)
    return turns


def _judge_context(slot: Slot, refusal: Refusal, body: Mapping[str, Any], shown: str) -> dict[str, Any]:
    """A dialogue that somebody else had, and one rule. Nothing of what anybody else said about it."""
    dialogue = slot.work_item.dialogue
    assert dialogue is not None
    context = verdict_context(slot, refusal.verdict, body)
    shown = shown or str(body.get("shown", ""))
    veiled = bool(context["warning"]) and not shown and context["judgement"] is None
    return context | {
        "shown": shown,
        "phase": "judge",
        "spoken": turns_said(list(dialogue.turns.all()), veiled=veiled),
        "veiled": veiled,
        "at_verdict": True,
        "draft_key": f"slot-{slot.pk}-verdict",
        "time_is_over": _time_is_over(slot, "What you send is stored as late; nothing is lost."),
        "scripts": PROBE_SCRIPTS,
    }


# Write a reply, or review one


def _reply_context(slot: Slot, refusal: Refusal, body: Mapping[str, Any]) -> dict[str, Any]:
    """A reply that this person writes, or one that somebody else wrote and they review."""
    is_review = slot.work_item.kind == WorkItem.Kind.REVIEW
    about = review_context(slot, refusal.review, body) if is_review else write_context(slot, refusal.reply, body)
    return about | {
        "time_is_over": _time_is_over(slot, "What you send is stored as late; nothing is lost."),
        "scripts": REVIEW_SCRIPTS if is_review else WRITE_SCRIPTS,
    }


# A chat whose time was over, and that somebody else has now


def _is_taken(slot: Slot) -> bool:
    live = Slot.objects.live().filter(work_item=slot.work_item_id, number=slot.number, annotator__isnull=False)
    return live.exclude(annotator=slot.annotator_id).exists()


def _taken_context(slot: Slot, refusal: Refusal, body: Mapping[str, Any]) -> dict[str, Any]:
    """The dialogue as this person left it. A question they had open can still be answered; it is stored as late."""
    mine = [turn for turn in look_at_chat(slot).turns if slot.closed_at is None or turn.created_at <= slot.closed_at]
    open_question = _question_left_open(slot, mine[-1] if mine else None)
    context = {
        "phase": TAKEN,
        "turns": _with_past_places(mine, slot),
        "last_position": mine[-1].position if mine else -1,
        "typed": refusal.message or body.get("message", ""),
        "draft_key": f"slot-{slot.pk}-taken",
        "time_is_over": _time_is_over(slot, "Somebody else has the dialogue now. Nothing is lost."),
        "ranked_turns": sum(turn.role == Turn.Role.USER for turn in mine),
        "turn_in_hand": 0,
        "turn_number": max(1, sum(turn.role == Turn.Role.USER for turn in mine)),
    }
    if open_question is None:
        return context
    answer = refusal.answer or answer_in_draft(body) or Answer()
    return {**context, "phase": str(Phase.RANK), **_question(slot, open_question, answer)}


def _question_left_open(slot: Slot, last: Turn | None) -> Comparison | None:
    """The replies this person saw and did not rank before their time was over."""
    if last is None or last.role != Turn.Role.USER:
        return None
    asked = Comparison.objects.filter(
        dialogue=slot.work_item.dialogue_id, after_position=last.position, request__created_at__lte=slot.closed_at
    )
    newest = asked.order_by("-request__redo").first()
    answered = newest is not None and ranking_in_force(slot=slot, comparison=newest) is not None
    return None if answered else newest


def _time_is_over(slot: Slot, what_now: str) -> str:
    if slot.state != Slot.State.LAPSED or slot.closed_at is None:
        return ""
    minutes = int((timezone.now() - slot.closed_at).total_seconds() // 60)
    ago = "just now" if minutes < 1 else f"{minutes} min ago" if minutes < 60 else f"{minutes // 60} h ago"
    return f"Your time on this ended {ago}. {what_now}"


# Rank only


def _rank_only_context(slot: Slot, refusal: Refusal, body: Mapping[str, Any]) -> dict[str, Any]:
    comparison = slot.work_item.comparison
    assert comparison is not None
    ranking = ranking_in_force(slot=slot, comparison=comparison)
    answer = refusal.answer if ranking is None else None
    context = rank_context(slot, comparison, ranking, answer or (answer_in_draft(body) if ranking is None else None))
    return {
        **context,
        "draft_key": f"slot-{slot.pk}-answer",
        "sent_words": _sent_words(slot, refusal, ranking, context["rows"]),
        "time_is_over": _time_is_over(slot, "What you send is stored as late; nothing is lost."),
    }


def rank_context(
    slot: Slot, comparison: Comparison, ranking: Ranking | None, answer: Answer | None = None
) -> dict[str, Any]:
    """The question about one comparison: the dialogue up to it, and its replies as this slot shows them.

    answer  what stands on the sheet; the stored ranking when left out
    """
    turns = comparison.dialogue.turns.filter(position__lte=comparison.after_position)
    return {
        "phase": str(Phase.RANK),
        "turns": [(turn, "") for turn in turns],
        "last_position": comparison.after_position,
        "ranking": ranking,
        **_question(slot, comparison, answer or answer_of(slot, ranking)),
    }


def _question(slot: Slot, comparison: Comparison, answer: Answer) -> dict[str, Any]:
    built = rows(slot, [*shown_candidates(slot, comparison)], answer)
    return {"comparison": comparison, **sheet(built, answer, fewer_because=_fewer_because(comparison))}


# The dialogue


def _with_past_places(turns: list[Turn], slot: Slot) -> list[tuple[Turn, str]]:
    """Each turn with the place this person gave it: their own past, and nobody else's."""
    asked = [turn.candidate_id for turn in turns if turn.candidate_id]
    placed: dict[int, str] = {}
    if asked:
        mine = Ranking.objects.in_force().filter(annotator=slot.annotator_id, comparison__candidates__in=asked)
        for ranking in mine.prefetch_related("entries").distinct():
            placed |= _places_in_words(ranking)
    return [(turn, placed.get(turn.candidate_id or 0, "")) for turn in turns]


def _places_in_words(ranking: Ranking) -> dict[int, str]:
    ranks = ranking.ranks()
    given = list(ranks.values())
    of = f"of {len(ranking.shown_order)}"
    return {
        candidate: f"your {'tied ' if given.count(rank) > 1 else ''}{ordinal(rank)} {of}"
        for candidate, rank in ranks.items()
    }
