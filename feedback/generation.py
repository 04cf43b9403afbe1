"""Replies: ask for them, store them as they are made, and turn them into a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction
from django.utils import timezone

from feedback import queue
from feedback.errors import CandidatesNotReady, DialogueEnded, NoPolicy
from feedback.models import Candidate, Comparison, Dialogue, GenerationRequest, ModelVersion, Project, Turn

FEWEST_TO_COMPARE = 2


@transaction.atomic
def request_candidates(*, dialogue: Dialogue, redo: int = 0) -> GenerationRequest:
    """Ask for the project's K replies to a dialogue as it stands. The row is the contract; the queue is only a bell.

    A probe is answered from end to end by the policy it was opened for, with as many replies as probes have here.
    The same request twice (a double click, two windows) is one row.
    Raises  NoPolicy when no model serves in the project, DialogueEnded, CandidatesNotReady when no user's message is
            there to answer
    """
    dialogue = Dialogue.objects.select_related("project__policy", "policy").get(pk=dialogue.pk)
    project = dialogue.project
    if not dialogue.is_open:
        raise DialogueEnded("This dialogue has ended. Take the next one from your home page.")
    policy = _who_answers(dialogue)
    if policy is None:
        raise NoPolicy("No model serves in this project yet. A manager sets one in the project's admin page.")
    request, made = GenerationRequest.objects.get_or_create(
        dialogue=dialogue,
        after_position=_position_to_answer(dialogue),
        redo=redo,
        defaults={
            "model_version": policy,
            "wanted": project.replies_per_probe_turn if dialogue.is_probe else project.candidates_per_turn,
            "sampling": {"temperature": project.temperature, "max_new_tokens": project.max_new_tokens},
            "draws": project.draws_per_reply,
            "searching": _searching(project, dialogue),
        },
    )
    if made:
        queue.ring(request)
    return request


def _searching(project: Project, dialogue: Dialogue) -> int:
    """How many replies search first: half of those that are ranked. A probe's single reply never does."""
    wanted = project.replies_per_probe_turn if dialogue.is_probe else project.candidates_per_turn
    return wanted // 2 if project.evidence else 0


def _who_answers(dialogue: Dialogue) -> ModelVersion | None:
    return dialogue.policy if dialogue.is_probe else dialogue.project.policy


def _position_to_answer(dialogue: Dialogue) -> int:
    last = dialogue.turns.order_by("-position").first()
    if last is None or last.role != Turn.Role.USER:
        raise CandidatesNotReady("Replies are made to a message. Write one first.")
    return last.position


@transaction.atomic
def store_candidate(
    request: GenerationRequest,
    *,
    index: int,
    text: str,
    searched: Sequence[Mapping[str, str]] = (),
    **made_by: Any,
) -> Candidate | None:
    """Store one reply while the request's lease is still this worker's; None when it is not.

    A worker that takes over finds what its predecessor stored and makes only what is missing.
    searched  the turns in which it searched before it answered; `evidence` in made_by is what it then shows
    made_by   evidence, sampling, seed, draw, reranking, prompt_hash, model_hash, mean_logprob, token_count,
              finish_reason
    """
    if not queue.renew(request):
        return None
    candidate, _ = Candidate.objects.get_or_create(
        request=request,
        index=index,
        defaults={
            "dialogue_id": request.dialogue_id,
            "after_position": request.after_position,
            "model_version_id": request.model_version_id,
            "turns": [*searched, {"role": "assistant", "content": text}],
            "is_empty": not text.strip(),
            **made_by,
        },
    )
    return candidate


@transaction.atomic
def complete_request(
    request: GenerationRequest, *, fewer_because: str = "", unreranked_because: str = ""
) -> Comparison | None:
    """Mark a request done and make the question out of its candidates, in one step.

    unreranked_because  why replies are not the best of several draws although the project wants that

    None when the lease is lost; and for a reply that stands alone: it is no question, it is the dialogue's next turn.
    """
    count = request.candidates.count()
    if count < request.wanted and not fewer_because:
        raise CandidatesNotReady(f"Only {count} of {request.wanted} replies are there and no reason says why.")
    if request.is_said_at_once:
        Dialogue.objects.select_for_update(no_key=True).get(pk=request.dialogue_id)  # not while somebody ends it
    if not queue.finish(request, fewer_because=fewer_because, unreranked_because=unreranked_because[:300]):
        return None
    if request.is_said_at_once:
        append_reply(request.dialogue, request.candidates.get(), position=request.after_position + 1)
        return None
    return compare(request)


def append_reply(dialogue: Dialogue, reply: Candidate, *, position: int) -> int:
    """Make a reply part of its dialogue, word for word. Returns the position of the turn that comes next."""
    said = [
        Turn(dialogue=dialogue, position=place, role=turn["role"], content=turn["content"], candidate=reply)
        for place, turn in enumerate(reply.turns, start=position)
    ]
    Turn.objects.bulk_create(said)
    return position + len(said)


@transaction.atomic
def rank_what_is_there(request: GenerationRequest) -> Comparison:
    """Go on with the replies a failed request did make: a person's choice.

    Raises  CandidatesNotReady while replies are still being made, or when fewer than two are there
    """
    request = _locked(request)
    if not request.is_finished:
        raise CandidatesNotReady("The other replies are still being written. Wait for them, or skip this dialogue.")
    if request.candidates.count() < FEWEST_TO_COMPARE:
        raise CandidatesNotReady("There are not two replies to compare. Try again, or skip this dialogue.")
    GenerationRequest.objects.filter(pk=request.pk, fewer_because="").update(fewer_because=request.error[:300])
    return compare(request)


def _locked(request: GenerationRequest) -> GenerationRequest:
    """The request as it is now; it stays so until the transaction ends."""
    return GenerationRequest.objects.select_for_update(no_key=True).get(pk=request.pk)


def compare(request: GenerationRequest) -> Comparison:
    """The comparison of a request's candidates; the same row when it exists."""
    comparison, made = Comparison.objects.get_or_create(
        request=request,
        defaults={"dialogue_id": request.dialogue_id, "after_position": request.after_position},
    )
    if made:
        request.candidates.update(comparison=comparison)
    return comparison


@transaction.atomic
def try_again(request: GenerationRequest) -> bool:
    """Put a failed request back in the queue, by a person's wish; now with the policy that serves now, save in a probe.

    False when it has not failed, or when somebody went on with the replies that are there.
    """
    request = _locked(request)
    if Comparison.objects.filter(request=request).exists() or not request.dialogue.is_open:
        return False
    policy = _who_answers(request.dialogue)
    if policy and not request.candidates.exists():
        GenerationRequest.objects.filter(pk=request.pk, state="failed").update(model_version=policy)
    return queue.requeue(request)


def cancel_requests(dialogue_id: int, *, because: str) -> int:
    """Stop what is still being made for a dialogue; a worker that is at it finds its lease gone. Returns how many."""
    unfinished = GenerationRequest.objects.filter(dialogue=dialogue_id).unfinished()
    return unfinished.update(
        state="cancelled", error=because, lease_token=None, lease_until=None, finished_at=timezone.now()
    )


def requests_ahead(request: GenerationRequest) -> int:
    """How many requests wait in front of this one."""
    return (
        GenerationRequest.objects.unfinished().filter(created_at__lt=request.created_at).exclude(pk=request.pk).count()
    )


def waiting_seconds(request: GenerationRequest) -> float:
    return (timezone.now() - request.created_at).total_seconds()
