"""Chat and rank: rank, write on from the best, take back, ask anew, end."""

from __future__ import annotations

import json
import re

import pytest
from django.test import Client

from feedback import dialogues, generation, queue, slots
from feedback.drafts import LARGEST_DRAFT
from feedback.models import Comparison, Dialogue, Draft, GenerationRequest, Project, Ranking, Slot, Turn, User
from feedback.prompts import add_prompt
from tests import make
from tests.annotate.reading import answer, chosen, hidden, names, replies, states, text_of, words_of

PLACES = {"A": 2, "B": 1, "C": 3, "D": 4}


@pytest.fixture
def slot(project: Project, as_alice: Client) -> Slot:
    return make.make_chat(project)


@pytest.fixture
def url(slot: Slot) -> str:
    return f"/work/{slot.pk}/"


def rank(client: Client, url: str, places: dict[str, int] | None = None, **more: str):
    """Rank what is there; the page that follows."""
    return client.post(url + "rank/", answer(client.get(url), places or PLACES, **more), follow=True)


def write(client: Client, url: str, message: str, **headers: str):
    position = hidden(client.get(url), "after_position")
    sent = {"message": message, "after_position": position, "draft_version": hidden(client.get(url), "draft_version")}
    return client.post(url + "send/", sent, follow=True, headers=headers)


def type_in(client: Client, url: str, **typed: str) -> None:
    """What another window keeps while somebody types there."""
    version = Draft.objects.latest("pk").version
    kept = client.post(url + "draft/", {"version": version, "body": json.dumps(typed)})
    assert kept.status_code == 200


def answer_newest(texts: list[str] | None = None) -> Comparison:
    return make.answer_request(GenerationRequest.objects.latest("pk"), texts)


def fail_newest(stored: int, reason: str = "The model did not answer in 60 s.") -> None:
    request = queue.claim(GenerationRequest, GenerationRequest.objects.latest("pk").pk)
    assert request is not None
    for index in range(stored):
        generation.store_candidate(request, index=index, text=f"Reply {index}.")
    assert queue.fail(request, reason, permanent=True)


def test_a_ranked_chat_offers_to_write_on_with_the_focus_in_the_text(as_alice: Client, url: str) -> None:
    best = replies(as_alice.get(url))["B"]
    page = rank(as_alice, url)
    words = words_of(page)
    assert f"Model your 1st of 4 {best}" in words
    assert "You ranked B › A › C › D . Undo" in words and "What do you say next?" in words and "Saved" in words
    html = text_of(page)
    assert "autofocus" in html[html.index('id="message-text"') : html.index("</textarea>")]


def test_a_message_makes_the_best_reply_a_turn_and_asks_for_more(as_alice: Client, url: str, slot: Slot) -> None:
    best = replies(as_alice.get(url))["B"]
    rank(as_alice, url)
    page = write(as_alice, url, "And in winter?")
    turns = list(Turn.objects.filter(dialogue=slot.work_item.dialogue).values_list("role", "content"))
    assert turns[1:] == [("assistant", best), ("user", "And in winter?")]
    assert set(states(page).values()) == {"waiting"} and "turn 2 of 3" in words_of(page)


def test_of_tied_best_the_first_shown_goes_on(as_alice: Client, url: str) -> None:
    shown = replies(as_alice.get(url))
    page = rank(as_alice, url, {"A": 4, "B": 1, "C": 1, "D": 4})
    assert f"your tied 1st of 4 {shown['B']}" in words_of(page)


def test_past_turns_say_the_place_their_reader_gave_them(as_alice: Client, url: str) -> None:
    best = replies(as_alice.get(url))["B"]
    rank(as_alice, url)
    write(as_alice, url, "And in winter?")
    assert f"Model your 1st of 4 {best} You And in winter?" in words_of(as_alice.get(url))


def test_the_same_message_sent_twice_is_one_turn(as_alice: Client, url: str) -> None:
    rank(as_alice, url)
    sent = {"message": "And in winter?", "after_position": "0"}
    assert [as_alice.post(url + "send/", sent).status_code for _ in range(2)] == [302, 302]
    assert Turn.objects.filter(content="And in winter?").count() == 1


def test_two_windows_cannot_fork_a_dialogue_and_the_second_keeps_its_text(as_alice: Client, url: str) -> None:
    rank(as_alice, url)
    as_alice.post(url + "send/", {"message": "And in winter?", "after_position": "0"})
    late = as_alice.post(url + "send/", {"message": "And in <b>summer</b>?", "after_position": "0"})
    assert late.status_code == 409 and "Another window already wrote the next message." in words_of(late)
    assert "And in &lt;b&gt;summer&lt;/b&gt;?</textarea>" in text_of(late)
    assert "And in &lt;b&gt;summer&lt;/b&gt;?</textarea>" in text_of(as_alice.get(url))
    assert Turn.objects.filter(role="user").count() == 2


def test_a_message_that_repeats_the_opening_of_a_long_prompt_is_kept_and_not_sent(
    as_alice: Client, project: Project
) -> None:
    texts = [("user", "Hello"), ("assistant", "What is it?"), ("user", "Why are my basil leaves yellow?")]
    messages = [{"role": role, "content": text} for role, text in texts]
    dialogues.open_dialogue(project=project, prompt=add_prompt(project=project, messages=messages))
    slot = slots.next_slot(user=User.objects.get(username="alice"), project=project)
    assert slot is not None
    url = f"/work/{slot.pk}/"
    late = as_alice.post(url + "send/", {"message": "Hello", "after_position": "-1"})
    assert late.status_code == 409 and "Another window already wrote the next message." in words_of(late)
    answer_newest()
    assert ">Hello</textarea>" in text_of(as_alice.get(url))
    assert Turn.objects.count() == 3


def test_what_an_old_window_could_not_send_does_not_take_the_place_of_what_a_newer_one_typed(
    as_alice: Client, url: str
) -> None:
    old = hidden(rank(as_alice, url), "draft_version")
    write(as_alice, url, "And in winter?")
    type_in(as_alice, url, message="A long thought")
    late = as_alice.post(url + "send/", {"message": "foo", "after_position": "0", "draft_version": old})
    assert late.status_code == 409
    answer_newest()
    assert "A long thought\n\nfoo</textarea>" in text_of(as_alice.get(url))


def test_a_refused_message_is_shown_with_what_a_newer_window_typed(as_alice: Client, url: str) -> None:
    old = hidden(rank(as_alice, url), "draft_version")
    type_in(as_alice, url, message="A long thought")
    late = as_alice.post(url + "send/", {"message": "foo", "after_position": "7", "draft_version": old})
    assert late.status_code == 409 and "A long thought\n\nfoo</textarea>" in text_of(late)


def test_a_message_that_comes_a_second_time_leaves_what_was_typed_since(as_alice: Client, url: str) -> None:
    sent = {"message": "And in winter?", "after_position": "0"}
    sent["draft_version"] = hidden(rank(as_alice, url), "draft_version")
    as_alice.post(url + "send/", sent)
    answer_newest()
    page = as_alice.get(url)
    typed = {"message": "A long thought", f"rank-{names(page)['A']}": "3"}
    type_in(as_alice, url, **typed)
    assert as_alice.post(url + "send/", sent).status_code == 302
    assert Draft.objects.get().body == typed


def test_a_ranking_that_comes_a_second_time_leaves_what_was_typed_since(as_alice: Client, url: str) -> None:
    sent = answer(as_alice.get(url), PLACES)
    as_alice.post(url + "rank/", sent)
    type_in(as_alice, url, message="A long thought")
    assert as_alice.post(url + "rank/", sent).status_code == 302
    assert "A long thought</textarea>" in text_of(as_alice.get(url))


def test_a_ranking_that_comes_a_second_time_leaves_the_answer_to_the_next_question(as_alice: Client, url: str) -> None:
    sent = answer(as_alice.get(url), PLACES)
    as_alice.post(url + "rank/", sent)
    write(as_alice, url, "And in winter?")
    answer_newest()
    typed = {f"flagkind-{name}": "wrong" for name in names(as_alice.get(url)).values()} | {"strength": "3"}
    type_in(as_alice, url, **typed)
    assert as_alice.post(url + "rank/", sent).status_code == 302
    assert Draft.objects.get().body == typed


def test_a_ranking_from_an_old_window_ends_the_answer_another_began_and_keeps_its_message(
    as_alice: Client, url: str
) -> None:
    page = as_alice.get(url)
    begun = {f"rank-{names(page)['A']}": "3", "strength": "4", "all_bad": "1", "message": "A long thought"}
    as_alice.post(url + "draft/", {"version": 0, "body": json.dumps(begun)})
    as_alice.post(url + "rank/", answer(page, PLACES, message="foo"))
    assert Draft.objects.get().body == {"message": "A long thought\n\nfoo"}


def test_a_refused_ranking_is_shown_with_the_message_a_newer_window_typed(as_alice: Client, url: str) -> None:
    page = as_alice.get(url)
    as_alice.post(url + "draft/", {"version": 0, "body": '{"message": "A long thought"}'})
    refused = as_alice.post(url + "rank/", answer(page, {}, message="foo"))
    assert refused.status_code == 422 and "A long thought\n\nfoo</textarea>" in text_of(refused)


def test_text_kept_while_ranking_is_there_to_be_sent_afterwards(as_alice: Client, url: str) -> None:
    rank(as_alice, url)
    as_alice.post(url + "send/", {"message": "And in winter?", "after_position": "0"})
    as_alice.post(url + "send/", {"message": "And in summer?", "after_position": "0"})
    answer_newest()
    page = as_alice.get(url)
    assert "It is kept until you have ranked these." in words_of(page)
    after = as_alice.post(url + "rank/", answer(page, PLACES, message="And in summer, then?"), follow=True)
    assert "And in summer, then?</textarea>" in text_of(after)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [("   ", "Write a message first."), ("x" * 8001, "A message has at most 8000 characters; this one has 8001.")],
)
def test_a_message_that_cannot_be_sent_is_shown_again_with_the_reason_under_it(
    as_alice: Client, url: str, message: str, complaint: str
) -> None:
    rank(as_alice, url)
    refused = write(as_alice, url, message)
    html = text_of(refused)
    assert refused.status_code == 422
    assert 'aria-invalid="true" aria-describedby="message-error"' in html
    assert complaint in html[html.index('id="message-error"') :] and f">{message}</textarea>" in html


def test_a_message_of_absurd_length_is_refused_and_not_thrown_away(as_alice: Client, url: str) -> None:
    rank(as_alice, url)
    refused = write(as_alice, url, "y" * 200_000)
    assert refused.status_code == 422 and "y" * 200_000 in text_of(refused)
    assert len(Draft.objects.get().body["message"]) < LARGEST_DRAFT


def test_a_refused_message_is_a_part_for_htmx_with_bar_and_progress(as_alice: Client, url: str) -> None:
    rank(as_alice, url)
    part = write(as_alice, url, " ", **{"HX-Request": "true"})
    html = text_of(part)
    assert part.status_code == 422 and "<html" not in html
    assert 'id="bar" hx-swap-oob="true"' in html and 'id="progress" hx-swap-oob="true"' in html


def test_without_a_serving_model_the_message_stays(as_alice: Client, url: str) -> None:
    rank(as_alice, url)
    Project.objects.update(policy=None)
    refused = write(as_alice, url, "And in winter?")
    assert refused.status_code == 409 and "No model serves in this project yet." in words_of(refused)
    assert "And in winter?</textarea>" in text_of(refused)


def test_undo_gives_the_places_back_to_be_corrected(as_alice: Client, url: str) -> None:
    called = names(as_alice.get(url))
    rank(as_alice, url, strength="2", **{f"flag-{called['D']}": "on", f"flagkind-{called['D']}": "wrong"})
    page = as_alice.post(url + "undo/", follow=True)
    assert chosen(page) == PLACES
    assert f'name="flag-{called["D"]}" value="on" checked' in text_of(page)
    rank(as_alice, url, {"A": 1, "B": 2, "C": 3, "D": 4})
    assert Ranking.objects.in_force().count() == 1 and Ranking.objects.count() == 3


def test_a_form_sent_again_after_undo_is_not_called_saved_and_keeps_what_was_typed(
    as_alice: Client, url: str, slot: Slot
) -> None:
    sent = answer(as_alice.get(url), PLACES, strength="3", message="And in win")
    as_alice.post(url + "rank/", sent)
    as_alice.post(url + "undo/")
    again = as_alice.post(url + "rank/", sent)
    assert again.status_code == 409
    assert "This answer was taken back. Send it again from this page." in words_of(again)
    assert chosen(again) == PLACES
    assert hidden(again, "submit_key") != sent["submit_key"]
    assert Draft.objects.get(slot=slot).body["message"] == "And in win"
    assert not Ranking.objects.in_force().exists()
    after = as_alice.post(url + "rank/", answer(again, PLACES), follow=True)
    assert "Saved" in words_of(after) and Ranking.objects.in_force().count() == 1


def test_undo_ends_when_the_next_turn_is_sent(as_alice: Client, url: str) -> None:
    rank(as_alice, url)
    write(as_alice, url, "And in winter?")
    assert "data-undo" not in text_of(as_alice.get(url))
    as_alice.post(url + "undo/")
    assert Ranking.objects.in_force().count() == 1


def test_undo_keeps_the_message_that_was_begun(as_alice: Client, url: str, slot: Slot) -> None:
    rank(as_alice, url)
    version = Draft.objects.get(slot=slot).version
    as_alice.post(url + "draft/", {"version": version, "body": '{"message": "And in win"}'})
    page = as_alice.post(url + "undo/", follow=True)
    assert "And in win</textarea>" in text_of(page)


def test_after_none_is_good_new_replies_come_once_and_then_the_end(as_alice: Client, url: str) -> None:
    page = rank(as_alice, url, all_bad="1")
    assert "None of them is good" in words_of(page) and "New replies" in words_of(page)
    page = as_alice.post(url + "more/", follow=True)
    assert set(states(page).values()) == {"waiting"}
    answer_newest(["Other 0.", "Other 1.", "Other 2.", "Other 3."])
    page = rank(as_alice, url, all_bad="1")
    words = words_of(page)
    assert "New replies were made already." in words and 'form="more"' not in text_of(page)
    assert "End the dialogue" in words
    assert as_alice.post(url + "more/").status_code == 409


def test_ending_leads_to_the_next_dialogue_and_says_so(as_alice: Client, url: str, project: Project) -> None:
    item = dialogues.open_dialogue(project=project, prompt=make.make_prompt(project, "Is my fern thirsty?"))
    rank(as_alice, url)
    page = as_alice.post(url + "end/", follow=True)
    assert "Is my fern thirsty?" in words_of(page) and "Dialogue ended. Next one." in words_of(page)
    assert Slot.objects.get(work_item=item).annotator.username == "alice"
    assert Dialogue.objects.get(prompt__messages__0__content="Why are my basil leaves yellow?").ended_at is not None


def test_an_ended_dialogue_shows_how_it_ended_and_leads_on(as_alice: Client, url: str) -> None:
    rank(as_alice, url)
    as_alice.post(url + "end/")
    words = words_of(as_alice.get(url))
    assert "This dialogue has ended You ended it. What you ranked in it is stored." in words
    assert "Next dialogue" in words


def test_nothing_ranked_cannot_be_ended(as_alice: Client, url: str) -> None:
    refused = as_alice.post(url + "end/")
    assert refused.status_code == 409 and "skip this dialogue with a reason" in words_of(refused)


def test_a_message_to_an_ended_dialogue_is_kept_to_be_copied(as_alice: Client, url: str) -> None:
    rank(as_alice, url)
    as_alice.post(url + "end/")
    refused = as_alice.post(url + "send/", {"message": "One more thing", "after_position": "0"})
    assert refused.status_code == 409 and "readonly>One more thing</textarea>" in text_of(refused)
    assert "readonly>One more thing</textarea>" in text_of(as_alice.get(url))


def test_the_last_turn_says_that_the_dialogue_is_complete(as_alice: Client, url: str) -> None:
    for message in ("And in winter?", "And in summer?"):
        rank(as_alice, url)
        write(as_alice, url, message)
        answer_newest()
    page = rank(as_alice, url)
    assert "This dialogue is complete" in words_of(page) and "It has its 3 turns." in words_of(page)
    assert 'id="message-text"' not in text_of(page)


# Replies that did not come


def test_a_failure_says_why_and_offers_what_can_be_done(as_alice: Client, project: Project) -> None:
    slot = make.make_chat(project, answered=False)
    fail_newest(stored=3)
    page = as_alice.get(f"/work/{slot.pk}/")
    words = words_of(page)
    assert sorted(states(page).values()) == ["failed", "ready", "ready", "ready"]
    assert "The model did not answer in 60 s. Try again Rank the other three Skip this dialogue" in words


def test_when_no_reply_came_it_is_said_once(as_alice: Client, project: Project) -> None:
    slot = make.make_chat(project, answered=False)
    fail_newest(stored=0)
    words = words_of(as_alice.get(f"/work/{slot.pk}/"))
    assert words.count("The model did not answer in 60 s.") == 1 and "Rank the other" not in words
    assert words.count("This one did not come either.") == 3


def test_a_reason_names_no_model_and_no_server(as_alice: Client, project: Project) -> None:
    slot = make.make_chat(project, answered=False)
    fail_newest(stored=1, reason="The files of policy 7 cannot be loaded. /models/llama-9 at http://10.0.0.7:8000")
    words = words_of(as_alice.get(f"/work/{slot.pk}/"))
    assert "The model could not answer. A manager sees why." in words
    assert not any(secret in words for secret in ("policy 7", "llama", "10.0.0.7"))


def test_try_again_waits_anew(as_alice: Client, project: Project) -> None:
    slot = make.make_chat(project, answered=False)
    fail_newest(stored=2)
    page = as_alice.post(f"/work/{slot.pk}/retry/", follow=True)
    assert sorted(states(page).values()) == ["ready", "ready", "waiting", "waiting"]


def test_the_replies_that_came_can_be_ranked_by_themselves(as_alice: Client, project: Project) -> None:
    slot = make.make_chat(project, answered=False)
    fail_newest(stored=3)
    page = as_alice.post(f"/work/{slot.pk}/fewer/", follow=True)
    assert set(states(page).values()) == {"ready"} and len(states(page)) == 3
    assert "There are three replies here. The model did not answer in 60 s." in words_of(page)
    rank(as_alice, f"/work/{slot.pk}/", {"A": 1, "B": 2, "C": 3})
    assert Ranking.objects.count() == 1


def test_an_answer_before_all_is_there_is_refused_with_its_places(as_alice: Client, project: Project) -> None:
    slot = make.make_chat(project, answered=False)
    fail_newest(stored=2)
    page = as_alice.get(f"/work/{slot.pk}/")
    ready = [letter for letter, state in states(page).items() if state == "ready"]
    refused = as_alice.post(f"/work/{slot.pk}/rank/", answer(page, {ready[0]: 1, ready[1]: 2}))
    assert refused.status_code == 422 and "Not all replies are here." in words_of(refused)
    assert chosen(refused) == {ready[0]: 1, ready[1]: 2}


def test_one_reply_is_nothing_to_rank(as_alice: Client, project: Project) -> None:
    slot = make.make_chat(project, answered=False)
    fail_newest(stored=1)
    refused = as_alice.post(f"/work/{slot.pk}/fewer/")
    assert refused.status_code == 409 and "There are not two replies to compare." in words_of(refused)


def test_a_dialogue_whose_request_was_never_made_can_be_asked_for(as_alice: Client, slot: Slot, url: str) -> None:
    dialogue = slot.work_item.dialogue
    Turn.objects.create(dialogue=dialogue, position=1, role="user", content="Anybody?")
    assert set(states(as_alice.get(url)).values()) == {"failed"}
    assert as_alice.post(url + "fewer/").status_code == 409
    page = as_alice.post(url + "retry/", follow=True)
    assert set(states(page).values()) == {"waiting"}


# Time that was over


def taken_by_bob(slot: Slot) -> Slot:
    make.lapse(slot)
    fresh = Slot.objects.get(work_item=slot.work_item, state="free")
    other = slots.claim_slot(fresh.pk, user=make.make_member(slot.work_item.project, "bob"))
    assert other is not None
    return other


def test_a_lapsed_dialogue_goes_on_where_nobody_else_has_it(as_alice: Client, slot: Slot, url: str) -> None:
    make.lapse(slot)
    assert "Nobody else has it yet: go on, and it is yours again." in words_of(as_alice.get(url))
    rank(as_alice, url)
    ranking = Ranking.objects.get()
    assert not ranking.late and ranking.slot.state == "held" and ranking.slot_id != slot.pk
    assert as_alice.get(url).url == f"/work/{ranking.slot_id}/"


def test_a_draft_still_fits_after_a_lapsed_dialogue_is_taken_up_again(as_alice: Client, slot: Slot, url: str) -> None:
    called = names(as_alice.get(url))
    as_alice.post(url + "draft/", {"version": 0, "body": json.dumps({f"rank-{called['A']}": "3"})})
    make.lapse(slot)
    again = slots.next_slot(user=slot.annotator, project=slot.work_item.project)
    assert again is not None and again.pk != slot.pk
    assert chosen(as_alice.get(f"/work/{again.pk}/")) == {"A": 3}


def test_who_lost_a_dialogue_sees_it_as_they_left_it_and_not_what_came_after(
    as_alice: Client, as_bob: Client, slot: Slot, url: str
) -> None:
    rank(as_alice, url)
    as_alice.post(url + "draft/", {"version": Draft.objects.get().version, "body": '{"message": "My half message"}'})
    other = taken_by_bob(slot)
    write(as_bob, f"/work/{other.pk}/", "Bob's own words")
    page = as_alice.get(url)
    words = words_of(page)
    assert "Somebody else has this dialogue now" in words and "Next dialogue" in words
    assert "readonly>My half message</textarea>" in text_of(page)
    assert "Bob" not in words and "Why are my basil leaves yellow?" in words


def test_who_takes_a_dialogue_over_goes_on_from_the_best_and_learns_no_places(
    as_alice: Client, as_bob: Client, slot: Slot, url: str
) -> None:
    best = replies(as_alice.get(url))["B"]
    rank(as_alice, url)
    other = f"/work/{taken_by_bob(slot).pk}/"
    page = as_bob.get(other)
    words = words_of(page)
    assert f"Model {best}" in words and "Whoever had this dialogue before you ranked the replies." in words
    assert "You ranked" not in words and "1st of 4" not in words and "data-undo" not in text_of(page)
    assert "End the dialogue" in words
    after = write(as_bob, other, "And in winter?")
    assert "And in winter?" in words_of(after) and Ranking.objects.count() == 1


def test_who_takes_a_dialogue_over_in_which_none_was_good_is_told_so(
    as_alice: Client, as_bob: Client, slot: Slot, url: str
) -> None:
    rank(as_alice, url, all_bad="1")
    page = as_bob.get(f"/work/{taken_by_bob(slot).pk}/")
    words = words_of(page)
    assert "Whoever had this dialogue before you said so." in words and "New replies" in words
    assert "data-undo" not in text_of(page) and not re.search(r"\b[123](st|nd|rd)\b", words)


def test_a_message_to_a_dialogue_somebody_else_has_is_kept(as_alice: Client, slot: Slot, url: str) -> None:
    rank(as_alice, url)
    taken_by_bob(slot)
    refused = as_alice.post(url + "send/", {"message": "What I had written", "after_position": "0"})
    assert refused.status_code == 409 and "somebody else has it now" in words_of(refused)
    assert "readonly>What I had written</textarea>" in text_of(refused)
    assert "readonly>What I had written</textarea>" in text_of(as_alice.get(url))


def test_the_question_one_had_open_can_still_be_answered_and_is_stored_as_late(
    as_alice: Client, slot: Slot, url: str
) -> None:
    taken_by_bob(slot)
    page = as_alice.get(url)
    assert set(states(page).values()) == {"ready"} and "Nothing is lost." in words_of(page)
    after = as_alice.post(url + "rank/", answer(page, PLACES), follow=True)
    ranking = Ranking.objects.get(annotator__username="alice")
    assert ranking.late and not ranking.counts
    assert "Saved as late." in words_of(after) and "Somebody else has this dialogue now" in words_of(after)


@pytest.mark.parametrize("act", ["undo", "more", "retry", "fewer", "end"])
def test_who_lost_a_dialogue_cannot_act_in_it(as_alice: Client, slot: Slot, url: str, act: str) -> None:
    taken_by_bob(slot)
    before = list(GenerationRequest.objects.values_list("pk", "state"))
    refused = as_alice.post(f"{url}{act}/")
    assert refused.status_code == 409 and "somebody else has it now" in words_of(refused)
    assert list(GenerationRequest.objects.values_list("pk", "state")) == before
    assert not Ranking.objects.exists() and Dialogue.objects.get().is_open


@pytest.mark.parametrize("act", ["send", "undo", "more", "retry", "fewer", "end"])
def test_what_only_a_chat_knows_is_refused_elsewhere(as_alice: Client, project: Project, act: str) -> None:
    slot = make.make_rank_slot(make.make_comparison(project))
    response = as_alice.post(f"/work/{slot.pk}/{act}/", {"message": "Hello", "after_position": "0"})
    assert response.status_code == 403 and "This piece of work is no dialogue." in words_of(response)


def test_a_chat_asks_the_database_no_more_for_longer_dialogues(
    as_alice: Client, slot: Slot, url: str, django_assert_max_num_queries
) -> None:
    Project.objects.update(max_turns=9)
    for number in range(4):
        rank(as_alice, url)
        write(as_alice, url, f"And then? {number}")
        answer_newest()
    with django_assert_max_num_queries(26):
        as_alice.get(url)
