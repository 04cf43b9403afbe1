"""Requests end with their replies, with fewer and the reason, or with a reason: whatever the model, whoever dies."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from feedback import dialogues, queue
from feedback import generation as record
from feedback.errors import GenerationFailed
from feedback.invariants import violations
from feedback.models import Candidate, Comparison, GenerationRequest, ModelVersion, Turn
from rewardtrain import backends, generation
from rewardtrain.backends import GenerationJob, MadeReply
from rewardtrain.generation import generate_candidates, prompt_hash, storable
from rewardtrain.seeds import candidate_seed
from tests import make

pytestmark = [pytest.mark.django_db, pytest.mark.services]


def distinct(job: GenerationJob, draw: backends.Draw) -> str:
    return f"Reply {draw.index} of draw {draw.draw} to request {job.key}."


def requests_waiting(count: int, **fields: Any) -> list[GenerationRequest]:
    return [make.make_request(make.make_dialogue(text=f"Question {number}?"), **fields) for number in range(count)]


def texts(request: GenerationRequest) -> list[str]:
    return [candidate.text for candidate in request.candidates.order_by("index")]


def due_now(request: GenerationRequest) -> None:
    GenerationRequest.objects.filter(pk=request.pk).update(due_at=timezone.now())


def lapse(request: GenerationRequest) -> None:
    """As if its worker had been silent for too long."""
    long_ago = timezone.now() - timedelta(seconds=1)
    GenerationRequest.objects.filter(pk=request.pk).update(lease_until=long_ago)


# Made


def test_a_model_is_held_to_the_files_that_spoke(speak: Any) -> None:
    parrot = speak(distinct)
    request = make.make_request()
    generate_candidates(request.pk)
    assert parrot.held_to == {(request.model_version_id, "ab" * 32)}


def test_a_request_ends_with_k_replies_and_a_comparison_of_them(speak: Any) -> None:
    speak(distinct)
    request = make.make_request()
    assert generate_candidates(request.pk) == 1
    request.refresh_from_db()
    assert (request.state, request.fewer_because, request.error) == ("done", "", "")
    assert texts(request) == [f"Reply {index} of draw 0 to request {request.pk}." for index in range(4)]
    assert set(Comparison.objects.get(request=request).candidates.all()) == set(request.candidates.all())
    assert list(violations()) == []


def test_the_one_reply_of_a_probe_becomes_the_next_turn_and_no_comparison(speak: Any) -> None:
    slot = make.make_probe_slot(replies=0)
    request = dialogues.send_message(slot=slot, text="Do it.", after_position=-1)
    speak(distinct)
    assert generate_candidates(request.pk) == 1
    request.refresh_from_db()
    (reply,) = request.candidates.all()
    turn = slot.work_item.dialogue.turns.get(position=1)
    assert (request.state, turn.candidate, turn.content) == ("done", reply, reply.text)
    assert not Comparison.objects.exists()


def test_each_reply_records_what_made_it(speak: Any) -> None:
    speak(distinct)
    request = make.make_request()
    generate_candidates(request.pk)
    for candidate in request.candidates.all():
        assert candidate.seed == candidate_seed(request.pk, candidate.index, 0)
        assert candidate.model_version_id == request.model_version_id
        assert candidate.model_hash == "ab" * 32
        assert candidate.sampling == {"temperature": 1.0, "max_new_tokens": 64}
        assert candidate.prompt_hash == prompt_hash([{"role": "user", "content": "Why are my basil leaves yellow?"}])
        assert (candidate.mean_logprob, candidate.token_count, candidate.finish_reason) == (-1.5, 9, "stop")


def test_the_model_sees_the_dialogue_only_as_far_as_the_request_answers_it(speak: Any) -> None:
    parrot = speak(distinct)
    request = make.make_request()
    Turn.objects.create(dialogue=request.dialogue, position=1, role="assistant", content="Less water.")
    generate_candidates(request.pk)
    assert [job.messages for job in parrot.passes[0]] == [
        [{"role": "user", "content": "Why are my basil leaves yellow?"}]
    ]


def test_what_waits_beside_a_request_is_answered_with_it_in_one_batch(speak: Any) -> None:
    parrot = speak(distinct)
    waiting = requests_waiting(5)
    assert generate_candidates(waiting[3].pk) == 5
    assert [len(jobs) for jobs in parrot.passes] == [5]
    assert set(GenerationRequest.objects.values_list("state", flat=True)) == {"done"}
    assert generate_candidates(waiting[0].pk) == 0


def test_no_more_is_taken_up_at_once_than_the_limit(speak: Any, settings: Any) -> None:
    settings.GENERATION_REQUESTS_AT_ONCE = 2
    speak(distinct)
    waiting = requests_waiting(5)
    assert generate_candidates(waiting[4].pk) == 2
    done = GenerationRequest.objects.filter(state="done").values_list("pk", flat=True)
    assert set(done) == {waiting[4].pk, waiting[0].pk}


def test_requests_to_other_models_or_with_other_sampling_are_other_batches(speak: Any) -> None:
    parrot = speak(distinct)
    one, other, hotter = requests_waiting(3)
    version = make.make_model(one.dialogue.project)
    GenerationRequest.objects.filter(pk=other.pk).update(model_version=version)
    GenerationRequest.objects.filter(pk=hotter.pk).update(sampling={"temperature": 1.4})
    assert generate_candidates(one.pk) == 3
    assert sorted(job.key for jobs in parrot.passes for job in jobs) == [one.pk, other.pk, hotter.pk]
    assert [len(jobs) for jobs in parrot.passes] == [1, 1, 1]
    assert sorted(parrot.models) == sorted([one.model_version_id, one.model_version_id, version.pk])


def test_a_bell_for_nothing_does_nothing(speak: Any) -> None:
    parrot = speak(distinct)
    assert generate_candidates(4711) == 0
    assert parrot.passes == []


# Copies and empty replies


def test_a_copy_is_drawn_again_with_another_seed(speak: Any) -> None:
    def third_copies_first(job: GenerationJob, draw: backends.Draw) -> str:
        return "Water less." if draw.index == 0 or (draw.index == 2 and draw.draw < 2) else distinct(job, draw)

    parrot = speak(third_copies_first)
    request = make.make_request()
    generate_candidates(request.pk)
    third = request.candidates.get(index=2)
    assert third.text == f"Reply 2 of draw 2 to request {request.pk}."
    assert (third.draw, third.seed) == (2, candidate_seed(request.pk, 2, 2))
    assert [[draw.index for draw in jobs[0].draws] for jobs in parrot.passes] == [[0, 1, 2, 3], [2], [2]]
    request.refresh_from_db()
    assert (request.state, request.fewer_because) == ("done", "")


def test_a_reply_that_stays_a_copy_is_drawn_three_times_again_and_then_left_out(speak: Any) -> None:
    parrot = speak(lambda job, draw: "Water less." if draw.index in {1, 3} else distinct(job, draw))
    request = make.make_request()
    generate_candidates(request.pk)
    request.refresh_from_db()
    assert request.state == "done"
    assert request.candidates.count() == 3
    assert request.fewer_because == "Drawn again 3 times: 1 came out as copies of another."
    assert [jobs[0].draws[0].draw for jobs in parrot.passes] == [0, 1, 2, 3]
    assert list(violations()) == []


def test_blanks_at_the_ends_do_not_make_another_reply(speak: Any) -> None:
    speak(lambda job, draw: "Water less." + " " * draw.index)
    request = make.make_request()
    generate_candidates(request.pk)
    assert texts(request) == ["Water less."]


def test_an_empty_reply_is_drawn_again(speak: Any) -> None:
    speak(lambda job, draw: "" if draw.index == 1 and draw.draw == 0 else distinct(job, draw))
    request = make.make_request()
    generate_candidates(request.pk)
    assert request.candidates.get(index=1).draw == 1
    assert request.candidates.count() == 4


def test_a_model_with_nothing_to_say_fails_for_good_with_advice(speak: Any) -> None:
    speak(lambda job, draw: " \n")
    request = make.make_request()
    generate_candidates(request.pk)
    request.refresh_from_db()
    assert (request.state, request.attempts) == ("failed", 1)
    assert "stayed empty" in request.error
    assert list(violations()) == []


def test_at_temperature_zero_nothing_is_drawn_again(speak: Any) -> None:
    parrot = speak(lambda job, draw: "Water less.")
    request = make.make_request(sampling={"temperature": 0})
    generate_candidates(request.pk)
    request.refresh_from_db()
    assert len(parrot.passes) == 1
    assert request.fewer_because == "At temperature 0 each draw is the same: 3 came out as copies of another."


def test_text_is_stored_as_every_database_takes_it() -> None:
    assert storable(" a\x00b \ud800 ü😀\n") == "ab ? ü😀"


# Failures


def test_one_failure_leaves_the_others_of_its_batch_alone(speak: Any) -> None:
    waiting = requests_waiting(3)

    def second_fails(job: GenerationJob, draw: backends.Draw) -> str:
        if job.key == waiting[1].pk and draw.index == 2:
            raise GenerationFailed("The model lost its thread.")
        return distinct(job, draw)

    speak(second_fails)
    generate_candidates(waiting[0].pk)
    for request in waiting:
        request.refresh_from_db()
    assert [request.state for request in waiting] == ["done", "queued", "done"]
    assert waiting[1].error == "The model lost its thread."
    assert waiting[1].candidates.count() == 2
    assert waiting[1].due_at > timezone.now()


def test_the_next_attempt_makes_only_what_is_missing(speak: Any) -> None:
    failing = {"on": True}

    def fails_once(job: GenerationJob, draw: backends.Draw) -> str:
        if failing["on"] and draw.index == 2:
            raise GenerationFailed("The model lost its thread.")
        return distinct(job, draw)

    parrot = speak(fails_once)
    request = make.make_request()
    generate_candidates(request.pk)
    before = list(request.candidates.values_list("pk", "index"))
    failing["on"] = False
    due_now(request)
    generate_candidates(request.pk)
    request.refresh_from_db()
    assert [draw.index for draw in parrot.passes[1][0].draws] == [2, 3]
    assert set(before) < set(request.candidates.values_list("pk", "index"))
    assert (request.state, request.attempts, request.error) == ("done", 2, "")


def test_a_failure_that_no_second_try_can_mend_ends_at_once(speak: Any) -> None:
    def refuses(job: GenerationJob, draw: backends.Draw) -> str:
        raise GenerationFailed("No such model.", permanent=True)

    speak(refuses)
    request = make.make_request()
    generate_candidates(request.pk)
    request.refresh_from_db()
    assert (request.state, request.error, request.attempts) == ("failed", "No such model.", 1)


def test_attempts_end_and_the_last_reason_stays(speak: Any) -> None:
    def fails(job: GenerationJob, draw: backends.Draw) -> str:
        raise GenerationFailed("Busy.")

    parrot = speak(fails)
    request = make.make_request()
    for _ in range(request.max_attempts + 2):
        due_now(request)
        generate_candidates(request.pk)
    request.refresh_from_db()
    assert (request.state, request.error) == ("failed", "Busy.")
    assert len(parrot.passes) == request.max_attempts


def test_an_error_nobody_foresaw_is_a_reason_on_every_row_left(speak: Any) -> None:
    waiting = requests_waiting(2)

    def breaks(job: GenerationJob, draw: backends.Draw) -> str:
        if job.key == waiting[1].pk:
            raise ZeroDivisionError("nobody foresaw this")
        return distinct(job, draw)

    speak(breaks)
    generate_candidates(waiting[0].pk)
    for request in waiting:
        request.refresh_from_db()
    assert [request.state for request in waiting] == ["done", "queued"]
    assert waiting[1].error == "The replies could not be made: ZeroDivisionError: nobody foresaw this"


def test_a_backend_that_gives_nothing_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        def generate(self, jobs: Any, sampling: Any) -> Iterator[MadeReply]:
            return iter(())

    monkeypatch.setattr(generation, "backend_for", lambda version: Silent())
    request = make.make_request()
    generate_candidates(request.pk)
    request.refresh_from_db()
    assert (request.state, request.error) == ("queued", "The model gave none of the replies it was asked for.")


def test_a_model_that_scores_is_not_asked_to_speak() -> None:
    project = make.make_project()
    scorer = make.make_model(project, ModelVersion.Kind.PREFERENCE)
    request = make.make_request(make.make_dialogue(project), model_version=scorer)
    generate_candidates(request.pk)
    request.refresh_from_db()
    assert (request.state, request.error) == (
        "failed",
        "preference reward model 1 scores replies and cannot write them.",
    )


def test_a_failed_request_is_tried_again_by_a_persons_wish(speak: Any) -> None:
    def refuses(job: GenerationJob, draw: backends.Draw) -> str:
        raise GenerationFailed("No such model.", permanent=True)

    parrot = speak(refuses)
    request = make.make_request()
    generate_candidates(request.pk)
    parrot.speaks = distinct
    request.refresh_from_db()
    assert record.try_again(request)
    generate_candidates(request.pk)
    request.refresh_from_db()
    assert (request.state, request.candidates.count()) == ("done", 4)


# Leases


def test_another_workers_request_is_left_alone(speak: Any) -> None:
    parrot = speak(distinct)
    request = make.make_request()
    assert queue.claim(GenerationRequest, request.pk)
    assert generate_candidates(request.pk) == 0
    assert parrot.passes == []


def test_a_lapsed_request_is_taken_over_and_what_was_stored_is_kept(speak: Any) -> None:
    request = make.make_request()
    dead = queue.claim(GenerationRequest, request.pk)
    assert dead
    kept = record.store_candidate(dead, index=1, text="Made before the worker died.", seed=1)
    lapse(request)
    parrot = speak(distinct)
    generate_candidates(request.pk)
    request.refresh_from_db()
    assert [draw.index for draw in parrot.passes[0][0].draws] == [0, 2, 3]
    assert request.candidates.get(index=1) == kept
    assert (request.state, request.candidates.count(), request.attempts) == ("done", 4, 2)


@pytest.mark.parametrize(("tries", "together"), [(0, 16), (1, 16), (2, 4), (3, 1), (9, 1)])
def test_what_its_workers_did_not_finish_is_worked_on_in_ever_smaller_company(
    speak: Any, tries: int, together: int
) -> None:
    suspect, *_ = requests_waiting(20)
    GenerationRequest.objects.filter(pk=suspect.pk).update(attempts=tries)
    parrot = speak(distinct)
    assert generate_candidates(suspect.pk) == together
    assert suspect.pk in [job.key for job in parrot.passes[0]]


def test_a_suspect_is_not_taken_along_by_others(speak: Any) -> None:
    suspect, *others = requests_waiting(3)
    GenerationRequest.objects.filter(pk=suspect.pk).update(attempts=2)
    parrot = speak(distinct)
    assert generate_candidates(others[0].pk) == 2
    assert [job.key for job in parrot.passes[0]] == [request.pk for request in others]


def test_a_request_that_kills_every_worker_ends_with_that_as_its_reason() -> None:
    request = make.make_request()
    for _ in range(request.max_claims):
        assert queue.claim(GenerationRequest, request.pk)
        assert queue.give_up_on_hopeless(GenerationRequest) == 0
        lapse(request)
    assert queue.give_up_on_hopeless(GenerationRequest) == 1
    request.refresh_from_db()
    assert (request.state, "stopped 15 times" in request.error) == ("failed", True)


def test_a_request_whose_worker_died_before_the_last_step_is_only_closed(speak: Any) -> None:
    request = make.make_request()
    dead = queue.claim(GenerationRequest, request.pk)
    assert dead
    for index in range(4):
        record.store_candidate(dead, index=index, text=f"Reply {index}.", seed=index)
    lapse(request)
    parrot = speak(distinct)
    generate_candidates(request.pk)
    request.refresh_from_db()
    assert parrot.passes == []
    assert (request.state, Comparison.objects.filter(request=request).count()) == ("done", 1)


def test_a_worker_that_lost_its_lease_writes_nothing_more(speak: Any) -> None:
    """Frozen in the middle; meanwhile another one finished. What the first still makes is dropped."""
    request = make.make_request()
    parrot = speak(distinct)

    def freeze(job: GenerationJob, draw: backends.Draw) -> None:
        if draw.index == 2 and not Comparison.objects.exists():
            lapse(request)
            make.answer_request(request, [f"By the other worker, {index}." for index in range(4)])

    parrot.before_each = freeze
    generate_candidates(request.pk)
    request.refresh_from_db()
    assert request.state == "done"
    assert texts(request)[2:] == ["By the other worker, 2.", "By the other worker, 3."]
    assert Candidate.objects.filter(request=request).count() == 4
    assert list(violations()) == []


def test_a_worker_that_lost_its_lease_does_not_fail_the_request_of_its_successor(speak: Any) -> None:
    request = make.make_request()
    parrot = speak(distinct)

    def freeze(job: GenerationJob, draw: backends.Draw) -> None:
        lapse(request)
        make.answer_request(request)
        raise GenerationFailed("Too late to matter.", permanent=True)

    parrot.before_each = freeze
    generate_candidates(request.pk)
    request.refresh_from_db()
    assert (request.state, request.error) == ("done", "")


def test_the_same_bell_twice_makes_nothing_twice(speak: Any) -> None:
    parrot = speak(distinct)
    request = make.make_request()
    parrot.before_each = lambda job, draw: generate_candidates(request.pk)  # type: ignore[assignment, return-value]
    generate_candidates(request.pk)
    generate_candidates(request.pk)
    assert request.candidates.count() == 4
    assert len(parrot.passes) == 1
