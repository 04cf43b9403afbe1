"""Replies: asked for once, stored under a lease, and made into a question."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from feedback import dialogues, generation, queue
from feedback.errors import CandidatesNotReady, DialogueEnded, NoPolicy
from feedback.invariants import violations
from feedback.models import Candidate, Comparison, Dialogue, GenerationRequest, Project
from tests import make
from tests.threads import at_once, raised

pytestmark = pytest.mark.django_db


def claimed(request: GenerationRequest | None = None) -> GenerationRequest:
    row = queue.claim(GenerationRequest, (request or make.make_request()).pk)
    assert row is not None
    return row


def failed_with(count: int, *, error: str = "The model server is gone.") -> GenerationRequest:
    """A request that failed for good after so many replies."""
    request = claimed()
    for index in range(count):
        generation.store_candidate(request, index=index, text=f"Reply {index}.")
    assert queue.fail(request, error, permanent=True)
    request.refresh_from_db()
    return request


# Asking


def test_a_request_says_who_speaks_how_many_are_wanted_and_how() -> None:
    project = make.make_project(candidates_per_turn=3, temperature=0.7, max_new_tokens=40)
    request = generation.request_candidates(dialogue=make.make_dialogue(project))
    assert (request.model_version, request.wanted, request.after_position) == (project.policy, 3, 0)
    assert request.sampling == {"temperature": 0.7, "max_new_tokens": 40}
    assert (request.state, request.redo) == ("queued", 0)
    assert str(request) == f"request {request.pk}"


def test_the_policy_that_serves_now_is_asked_whatever_the_page_knew() -> None:
    dialogue = make.make_dialogue()
    better = make.make_model(dialogue.project)
    Project.objects.update(policy=better)
    assert generation.request_candidates(dialogue=dialogue).model_version == better


def test_the_same_request_twice_is_one_row_and_one_bell(django_capture_on_commit_callbacks: Any) -> None:
    dialogue = make.make_dialogue()
    with django_capture_on_commit_callbacks() as callbacks:
        first = generation.request_candidates(dialogue=dialogue)
        assert generation.request_candidates(dialogue=dialogue) == first
    assert len(callbacks) == 1


def test_other_replies_to_the_same_turn_are_another_request() -> None:
    dialogue = make.make_dialogue()
    first = generation.request_candidates(dialogue=dialogue)
    assert generation.request_candidates(dialogue=dialogue, redo=1) != first


def test_without_a_policy_nothing_is_asked_for() -> None:
    with pytest.raises(NoPolicy):
        make.make_request(make.make_dialogue(make.make_project(with_policy=False)))


def test_an_ended_dialogue_gets_no_more_replies() -> None:
    dialogue = make.make_dialogue()
    Dialogue.objects.update(ended_at=timezone.now())
    with pytest.raises(DialogueEnded):
        generation.request_candidates(dialogue=dialogue)


def test_only_a_message_is_replied_to() -> None:
    empty = Dialogue.objects.create(project=make.make_project())
    answered = make.make_dialogue()
    answered.turns.create(position=1, role="assistant", content="Overwatering.")
    for dialogue in (empty, answered):
        with pytest.raises(CandidatesNotReady):
            generation.request_candidates(dialogue=dialogue)


@pytest.mark.django_db(transaction=True)
def test_requests_made_at_once_are_one() -> None:
    dialogue = make.make_dialogue()
    got = at_once(*[lambda: generation.request_candidates(dialogue=dialogue)] * 4)
    raised(got)
    assert len({request.pk for request in got}) == GenerationRequest.objects.count() == 1


# Storing


def test_a_candidate_says_what_made_it() -> None:
    request = claimed()
    made_by = {
        "sampling": {"temperature": 1.0}, "seed": 7, "draw": 1, "prompt_hash": "p", "model_hash": "m",
        "mean_logprob": -1.5, "token_count": 9, "finish_reason": "stop",
    }  # fmt: skip
    candidate = generation.store_candidate(request, index=2, text="Water it less.", **made_by)
    assert candidate is not None
    stored = Candidate.objects.values().get()
    assert {name: stored[name] for name in made_by} == made_by
    assert (candidate.dialogue, candidate.after_position, candidate.index) == (request.dialogue, 0, 2)
    assert candidate.model_version == request.model_version
    assert (candidate.text, candidate.is_empty, candidate.comparison) == ("Water it less.", False, None)
    assert str(candidate) == f"candidate {candidate.pk}"


def test_an_empty_reply_is_kept_and_marked() -> None:
    candidate = generation.store_candidate(claimed(), index=0, text=" \n")
    assert candidate is not None and candidate.is_empty and candidate.text == " \n"


def test_a_reply_of_several_turns_is_shown_with_its_speakers() -> None:
    turns = [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Why?"}]
    assert Candidate(turns=turns).text == "Assistant: Yes.\n\nUser: Why?"


def test_storing_renews_the_lease() -> None:
    request = claimed()
    GenerationRequest.objects.update(lease_until=timezone.now() + timedelta(seconds=1))
    generation.store_candidate(request, index=0, text="Reply.")
    assert GenerationRequest.objects.get().lease_until > timezone.now() + timedelta(seconds=20)


def test_what_was_stored_before_stands() -> None:
    first = claimed()
    kept = generation.store_candidate(first, index=0, text="Made first.")
    GenerationRequest.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    second = claimed(first)
    assert generation.store_candidate(second, index=0, text="Made again.") == kept
    assert Candidate.objects.get().text == "Made first."


def test_a_worker_without_the_lease_stores_nothing() -> None:
    first = claimed()
    GenerationRequest.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    claimed(first)
    assert generation.store_candidate(first, index=0, text="Too late.") is None
    assert generation.store_candidate(make.make_request(make.make_dialogue(text="New?")), index=0, text="No.") is None
    assert not Candidate.objects.exists()


# Completing


def test_a_complete_request_is_a_question() -> None:
    make.make_comparison(candidates=3)
    comparison, request = Comparison.objects.get(), GenerationRequest.objects.get()
    assert comparison.request == request
    assert (request.state, request.fewer_because) == ("done", "")
    assert (comparison.dialogue, comparison.after_position) == (request.dialogue, request.after_position)
    assert [candidate.index for candidate in comparison.candidates.all()] == [0, 1, 2]
    assert str(comparison) == f"comparison {comparison.pk}"


def test_an_incomplete_request_is_not_completed_without_a_reason() -> None:
    request = claimed()
    generation.store_candidate(request, index=0, text="Reply.")
    with pytest.raises(CandidatesNotReady, match="1 of 4"):
        generation.complete_request(request)
    assert GenerationRequest.objects.get().state == "running"


def test_fewer_replies_are_a_question_with_the_reason_beside() -> None:
    comparison = make.make_comparison(texts=["The same.", "Another."])
    assert GenerationRequest.objects.get().fewer_because == "redrawing gave equal texts"
    assert comparison.candidates.count() == 2
    assert list(violations()) == []


def test_a_worker_without_the_lease_completes_nothing() -> None:
    first = claimed()
    for index in range(4):
        generation.store_candidate(first, index=index, text=f"Reply {index}.")
    GenerationRequest.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    second = claimed(first)
    assert generation.complete_request(first) is None
    assert not Comparison.objects.exists()
    comparison = generation.complete_request(second)
    assert comparison is not None and comparison.candidates.count() == 4
    assert generation.compare(second) == comparison


# Going on with what is there


def test_a_person_may_rank_what_a_failed_request_did_make() -> None:
    request = failed_with(2)
    comparison = generation.rank_what_is_there(request)
    assert comparison.candidates.count() == 2
    request.refresh_from_db()
    assert (request.state, request.fewer_because) == ("failed", "The model server is gone.")
    assert generation.rank_what_is_there(request) == comparison
    assert list(violations()) == []


def test_replies_still_being_made_are_waited_for() -> None:
    request = claimed()
    for index in range(3):
        generation.store_candidate(request, index=index, text=f"Reply {index}.")
    with pytest.raises(CandidatesNotReady, match="still"):
        generation.rank_what_is_there(request)


@pytest.mark.parametrize("count", [0, 1])
def test_one_reply_alone_is_no_question(count: int) -> None:
    with pytest.raises(CandidatesNotReady, match="two"):
        generation.rank_what_is_there(failed_with(count))


def test_a_long_error_is_cut_to_the_reason() -> None:
    request = failed_with(2, error="e" * 1000)
    generation.rank_what_is_there(request)
    assert GenerationRequest.objects.get().fewer_because == "e" * 300


# Trying again


def test_trying_again_asks_the_policy_that_serves_now() -> None:
    request = failed_with(0)
    better = make.make_model(request.dialogue.project)
    Project.objects.update(policy=better)
    assert generation.try_again(request)
    request.refresh_from_db()
    assert (request.state, request.attempts, request.model_version) == ("queued", 0, better)


def test_with_some_replies_there_the_same_policy_makes_the_others() -> None:
    request = failed_with(1)
    Project.objects.update(policy=make.make_model(request.dialogue.project))
    assert generation.try_again(request)
    assert GenerationRequest.objects.get().model_version == request.model_version


def test_trying_again_without_a_policy_keeps_the_old_one() -> None:
    request = failed_with(0)
    Project.objects.update(policy=None)
    assert generation.try_again(request)
    assert GenerationRequest.objects.get().model_version == request.model_version


def test_what_has_not_failed_is_not_tried_again() -> None:
    assert not generation.try_again(make.make_request())


def test_what_somebody_went_on_with_is_not_tried_again() -> None:
    """Or replies would come to a question that is asked already."""
    request = failed_with(2)
    generation.rank_what_is_there(request)
    assert not generation.try_again(request)


def test_for_a_dialogue_that_ended_nothing_is_tried_again() -> None:
    request = failed_with(2)
    Dialogue.objects.update(ended_at=timezone.now())
    assert not generation.try_again(request)


@pytest.mark.django_db(transaction=True)
def test_going_on_and_trying_again_at_once_do_one_of_both() -> None:
    for number in range(6):
        request = claimed(make.make_request(make.make_dialogue(text=f"Question {number}")))
        for index in range(2):
            generation.store_candidate(request, index=index, text=f"Reply {index}.")
        queue.fail(request, "gone", permanent=True)
        got = at_once(
            lambda request=request: generation.rank_what_is_there(request),
            lambda request=request: generation.try_again(request),
        )
        errors = raised(got, CandidatesNotReady)
        request.refresh_from_db()
        asked = Comparison.objects.filter(request=request).exists()
        assert (asked, request.state) == ((True, "failed") if not errors else (False, "queued"))
        assert got[1] is not asked


# Stopping


def test_what_is_being_made_for_a_dialogue_can_be_stopped() -> None:
    waiting, done = make.make_request(), make.make_comparison(text="Another?").request
    running = claimed(make.make_request(make.make_dialogue(text="A third?")))
    assert done is not None
    for request in (waiting, running, done):
        generation.cancel_requests(request.dialogue_id, because="It ended.")
        request.refresh_from_db()
    assert (waiting.state, running.state, done.state) == ("cancelled", "cancelled", "done")
    assert (waiting.error, running.error, done.error) == ("It ended.", "It ended.", "")
    assert waiting.finished_at is not None and running.lease_token is None


def test_a_worker_at_it_finds_its_lease_gone() -> None:
    request = claimed()
    generation.cancel_requests(request.dialogue_id, because="It ended.")
    assert generation.store_candidate(request, index=0, text="Too late.") is None
    assert not queue.fail(request, "why")


# Waiting


def test_the_page_knows_how_many_wait_in_front() -> None:
    first, second, third = (make.make_request(make.make_dialogue(text=f"{number}?")) for number in range(3))
    assert [generation.requests_ahead(request) for request in (first, second, third)] == [0, 1, 2]
    assert queue.finish(claimed(first))
    assert generation.requests_ahead(third) == 1


def test_waiting_is_counted_from_the_request() -> None:
    request = make.make_request(created_at=timezone.now() - timedelta(seconds=30))
    assert generation.waiting_seconds(request) == pytest.approx(30, abs=2)


def test_every_prompted_dialogue_asks_for_its_first_replies() -> None:
    item = dialogues.open_dialogue(project=make.make_project(), prompt=make.make_prompt(make.make_project()))
    assert item.dialogue is not None and item.dialogue.generation_requests.get().after_position == 0
