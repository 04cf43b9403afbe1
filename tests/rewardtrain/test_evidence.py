"""Replies that search first: what they look for, what they find, how both reach the policy, people and the record."""

from __future__ import annotations

from typing import Any

import pytest

from feedback import corpus, dialogues
from feedback import generation as record
from feedback.errors import GenerationFailed
from feedback.invariants import violations
from feedback.models import Dialogue, GenerationRequest, Project
from feedback.search import CorpusSearch, Snippet
from rewardtrain import backends
from rewardtrain.backends import GenerationJob
from rewardtrain.evidence import Evidence, gather, query_sampling, query_seed
from rewardtrain.generation import generate_candidates, prompt_hash
from rewardtrain.seeds import candidate_seed
from tests import make

pytestmark = [pytest.mark.django_db, pytest.mark.services]

FERN = "A fern drinks twice a week."


@pytest.fixture
def project() -> Project:
    found = make.make_project(candidates_per_turn=4, evidence="corpus")
    make.make_document(found, FERN, title="Ferns", source="care/ferns.md")
    make.make_document(found, "A rose drinks once a week.", title="Roses", source="care/roses.md")
    return found


def answers(job: GenerationJob, draw: backends.Draw) -> str:
    """Looks for ferns, and says what it read."""
    if job.speaker == "search_query":
        return "how often does a fern drink\nand a second line"
    read = job.messages[-1]["content"] if job.messages[-1]["role"] == "search_results" else "nothing"
    return f"Reply {draw.index}, having read {read[:5]}."


def asked(project: Project, text: str = "How often do I water a fern?") -> GenerationRequest:
    item = dialogues.open_dialogue(project=project, prompt=make.make_prompt(project, text))
    return GenerationRequest.objects.get(dialogue=item.dialogue)


# Of four replies two


def test_half_of_the_replies_search_first_and_the_policy_reads_what_was_found(project: Project, speak: Any) -> None:
    parrot, request = speak(answers), asked(project)
    generate_candidates(request.pk)
    plain, searched = list(request.candidates.all())[:2], list(request.candidates.all())[2:]
    assert [candidate.text for candidate in plain] == [f"Reply {index}, having read nothi." for index in (0, 1)]
    assert [candidate.text for candidate in searched] == [f"Reply {index}, having read Ferns." for index in (2, 3)]
    assert all(candidate.evidence == {} and len(candidate.turns) == 1 for candidate in plain)
    for candidate in searched:
        assert candidate.query == "how often does a fern drink"
        assert candidate.snippets[0] == {
            "title": "Ferns", "source": "care/ferns.md", "text": FERN, "passage": candidate.snippets[0]["passage"],
        }  # fmt: skip
        assert [turn["role"] for turn in candidate.turns] == ["search_query", "search_results", "assistant"]
    queries, replies = parrot.passes
    assert [(job.speaker, len(job.draws)) for job in queries] == [("search_query", 2)]
    assert [len(job.draws) for job in replies] == [2, 1, 1]
    assert not list(violations())


def test_with_evidence_off_nothing_searches(project: Project, speak: Any) -> None:
    Project.objects.update(evidence="")
    parrot, request = speak(answers), asked(project)
    generate_candidates(request.pk)
    assert len(parrot.passes) == 1 and request.searching == 0
    assert all(candidate.evidence == {} for candidate in request.candidates.all())


def test_of_an_odd_number_the_smaller_half_searches_and_a_single_reply_does_not(project: Project) -> None:
    Project.objects.update(candidates_per_turn=5)
    assert asked(project).searching == 2
    rule = make.make_rule_set(project, rules=1).rules.get()
    probe = make.make_probe(rule, ended=False)
    dialogue = Dialogue.objects.get(pk=probe.dialogue_id)
    dialogue.turns.create(position=dialogue.turns.count(), role="user", content="And now?")
    assert record.request_candidates(dialogue=dialogue).searching == 0


def test_who_has_nothing_to_look_for_answers_without_and_who_finds_nothing_says_so(
    project: Project, speak: Any
) -> None:
    def says(job: GenerationJob, draw: backends.Draw) -> str:
        if job.speaker == "search_query":
            return " \n " if draw.index == 2 else "helicopters"
        return f"Reply {draw.index} to {job.messages[-1]['content']}"

    speak(says)
    request = asked(project)
    generate_candidates(request.pk)
    _, _, without, empty = request.candidates.all()
    assert (without.evidence, len(without.turns)) == ({}, 1)
    assert (empty.query, empty.snippets) == ("helicopters", [])
    assert empty.text == "Reply 3 to Nothing was found."


# The record


def test_a_searched_reply_can_be_made_again_from_its_record(project: Project, speak: Any) -> None:
    speak(answers)
    request = asked(project)
    generate_candidates(request.pk)
    candidate = request.candidates.get(index=3)
    assert candidate.seed == candidate_seed(request.pk, 3, 0)
    assert candidate.prompt_hash == prompt_hash([*request.dialogue.messages(), *candidate.turns[:-1]])


def test_the_chosen_reply_goes_on_in_the_dialogue_with_what_it_found(project: Project, speak: Any) -> None:
    speak(answers)
    request = asked(project)
    generate_candidates(request.pk)
    candidate = request.candidates.get(index=2)
    after = record.append_reply(request.dialogue, candidate, position=1)
    roles = list(request.dialogue.turns.values_list("role", flat=True))
    assert (after, roles) == (4, ["user", "search_query", "search_results", "assistant"])
    assert not [found for found in violations() if "candidate" in str(found)]


def test_what_was_found_stays_with_the_reply_when_the_document_is_taken_out(project: Project, speak: Any) -> None:
    speak(answers)
    request = asked(project)
    generate_candidates(request.pk)
    for document in project.documents.all():
        corpus.take_out(document=document, by=make.make_member(project, "maria", "manager"))
    assert request.candidates.get(index=2).snippets[0]["text"] == FERN


# Draws and failures


def test_each_draw_looks_for_its_own_words_and_a_copy_searches_anew(project: Project, speak: Any) -> None:
    seeds: list[int] = []

    def says(job: GenerationJob, draw: backends.Draw) -> str:
        if job.speaker == "search_query":
            seeds.append(draw.seed)
            return "fern"
        return "The same." if draw.index == 3 and draw.draw == 0 or draw.index == 2 else f"Reply {draw.index}."

    speak(says)
    request = asked(project)
    generate_candidates(request.pk)
    wanted = [candidate_seed(request.pk, index, draw) for index, draw in ((2, 0), (3, 0), (3, 1))]
    assert seeds == [query_seed(seed) for seed in wanted]
    assert request.candidates.get(index=3).draw == 1


def test_a_query_that_cannot_be_written_is_the_requests_failure(project: Project, speak: Any) -> None:
    def fails(job: GenerationJob, draw: backends.Draw) -> str:
        if job.speaker == "search_query":
            raise GenerationFailed("No words.", permanent=True)
        return f"Reply {draw.index}."

    speak(fails)
    request = asked(project)
    generate_candidates(request.pk)
    request.refresh_from_db()
    assert (request.state, request.error) == ("failed", "No words.")


def test_the_next_attempt_searches_only_for_what_is_missing(project: Project, speak: Any) -> None:
    request = asked(project)
    speak(answers)
    generate_candidates(request.pk)
    stored = request.candidates.get(index=2)
    assert stored.evidence
    parrot = speak(answers)
    generate_candidates(request.pk)
    assert parrot.passes == []


# What is found


def test_a_query_is_the_first_line_that_says_something_and_short(project: Project) -> None:
    search = CorpusSearch(project)
    assert gather(search, "\n  fern   water \nrose").query == "fern water"
    assert len(gather(search, "fern " * 100).query) <= 200
    assert gather(search, " \n\t") == Evidence()


def test_the_policy_reads_titles_sources_and_texts() -> None:
    found = Evidence("fern", (Snippet("Ferns", "f.md", FERN, 1), Snippet("Roses", "r.md", "Sun.", 2)))
    assert found.turns() == [
        {"role": "search_query", "content": "fern"},
        {"role": "search_results", "content": f"Ferns (f.md)\n{FERN}\n\nRoses (r.md)\nSun."},
    ]


def test_queries_are_drawn_as_replies_are_but_short() -> None:
    assert query_sampling({"temperature": 0.7, "max_new_tokens": 64}) == {"temperature": 0.7, "max_new_tokens": 32}
    assert query_sampling({"temperature": 0.7, "max_new_tokens": 8})["max_new_tokens"] == 8
