"""A person probes a rule: the chat, the mark, the verdict, what may appear and what it costs to leave."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from feedback import dialogues, generation, probing, queue, work_items
from feedback.models import (
    Consent,
    Dialogue,
    Draft,
    GenerationRequest,
    ModelVersion,
    Project,
    Rule,
    RuleJudgement,
    Slot,
    User,
)
from tests import make
from tests.annotate.reading import hidden, text_of, words_of


@pytest.fixture
def project(project: Project) -> Project:
    Project.objects.update(probes_open=True)
    project.refresh_from_db()
    return project


@pytest.fixture
def rules(project: Project) -> list[Rule]:
    words = {"breaks": ["Calling it fine."], "keeps": ["Ask a vet."], "ideas": ["Ask for a gift."]}
    return list(make.make_rule_set(project, rules=3, sensitive=1, **words).rules.all())


@pytest.fixture
def slot(rules: list[Rule], alice: User) -> Slot:
    """Alice's probe, with one reply."""
    return make.make_probe_slot(rules[0])


def path(slot: Slot, act: str = "") -> str:
    return f"/work/{slot.pk}/{act}"


def verdict(client: Client, slot: Slot, value: int | str = 1, **more: object) -> dict[str, object]:
    """What the verdict's form sends."""
    page = client.get(path(slot, "?step=verdict"))
    sent = {name: hidden(page, name) for name in ("submit_key", "revises", "draft_version")}
    return sent | {"verdict": value, "turn_position": 1, "seconds": "60.5", "reason": "It did."} | more


def test_home_offers_rules_to_probe_with_a_count_and_start_opens_one(
    as_alice: Client, project: Project, rules: list[Rule]
) -> None:
    assert "120 Probe a rule" in words_of(as_alice.get("/"))  # two of three: the third is asked about first
    response = as_alice.post(f"/next/{project.slug}/", {"kind": "probe"}, follow=True)
    words = words_of(response)
    for said in ("Rule 1 · Harm · rule set 1", "Do not do the thing number 1.", "Breaks it", "Calling it fine."):
        assert said in words
    assert "Ideas for how to try" in words and "How do you begin?" in words
    assert Dialogue.objects.get().kind == "probe"


def test_a_double_click_on_start_opens_one(as_alice: Client, project: Project, rules: list[Rule]) -> None:
    urls = {as_alice.post(f"/next/{project.slug}/", {"kind": "probe"}).url for _ in range(2)}
    assert len(urls) == 1 and Dialogue.objects.count() == 1


def test_continue_takes_a_probe_when_nothing_else_waits(as_alice: Client, project: Project, rules: list[Rule]) -> None:
    assert "/work/" in as_alice.post(f"/next/{project.slug}/").url
    assert Slot.objects.get().work_item.kind == "probe"
    assert "Probe a rule · half done “Rule 1”" in words_of(as_alice.get("/"))


def test_where_rules_are_not_probed_home_does_not_name_them(as_alice: Client, project: Project) -> None:
    Project.objects.update(probes_open=False)
    assert "Probe a rule" not in words_of(as_alice.get("/"))
    assert "There is nothing more" in words_of(as_alice.post(f"/next/{project.slug}/", {"kind": "probe"}, follow=True))


def test_home_says_why_there_is_nothing_to_probe(as_alice: Client, project: Project) -> None:
    assert "No rules are published here yet." in words_of(as_alice.get("/"))


def test_the_chat_goes_message_by_message_and_each_reply_can_be_marked(as_alice: Client, slot: Slot) -> None:
    page = as_alice.get(path(slot))
    assert "I did the thing." in words_of(page) and text_of(page).count('name="turn_position"') == 1
    sent = {"message": "And now?", "after_position": hidden(page, "after_position"), "turn_position": "1"}
    assert as_alice.post(path(slot, "send/"), sent).url == path(slot)
    waiting = as_alice.get(path(slot))
    assert "Being written" in words_of(waiting) and "What do you say next?" not in words_of(waiting)
    assert 'name="turn_position"' not in text_of(waiting)
    poll = as_alice.get(path(slot, "arrivals/?phase=waiting&why="))
    assert poll.status_code in {200, 204}
    make_reply("It did it again.")
    assert as_alice.get(path(slot, "arrivals/?phase=waiting&why=")).headers["HX-Refresh"] == "true"
    page = as_alice.get(path(slot))
    assert "It did it again." in words_of(page) and text_of(page).count('name="turn_position"') == 2


def make_reply(text: str) -> None:
    claimed = queue.claim(GenerationRequest, GenerationRequest.objects.latest("pk").pk)
    assert claimed is not None
    generation.store_candidate(claimed, index=0, text=text)
    generation.complete_request(claimed)


def test_a_reply_that_failed_can_be_asked_for_again(as_alice: Client, slot: Slot) -> None:
    dialogues.send_message(slot=slot, text="More.", after_position=1)
    claimed = queue.claim(GenerationRequest, GenerationRequest.objects.latest("pk").pk)
    assert claimed is not None and queue.fail(claimed, "policy-alpha at 10.0.0.1 is gone", permanent=True)
    page = as_alice.get(path(slot))
    assert "Try again" in words_of(page) and "policy-alpha" not in text_of(page)
    assert as_alice.get(path(slot, "arrivals/?phase=waiting&why=")).headers["HX-Refresh"] == "true"
    as_alice.post(path(slot, "retry/"))
    assert GenerationRequest.objects.latest("pk").state == "queued"


def test_the_end_of_the_chat_keeps_what_was_typed_and_marked_without_a_script(as_alice: Client, slot: Slot) -> None:
    page = as_alice.get(path(slot))
    sent = {"message": "Half a thought", "turn_position": "1", "draft_version": hidden(page, "draft_version")}
    response = as_alice.post(path(slot, "verdict/"), sent)
    assert response.url == path(slot, "?step=verdict")
    page = as_alice.get(response.url)
    assert "Was the rule broken?" in words_of(page)
    assert 'value="1" form="verdict" checked' in text_of(page) and hidden(page, "message") == "Half a thought"
    back = verdict(as_alice, slot) | {"message": "Half a thought", "back": "1"}
    assert as_alice.post(path(slot, "verdict/"), back).url == path(slot)
    page = as_alice.get(path(slot))
    assert "Half a thought</textarea>" in text_of(page) and hidden(page, "reason") == "It did."


def test_a_draft_another_window_saved_since_is_not_overwritten_by_the_end(as_alice: Client, slot: Slot) -> None:
    as_alice.post(path(slot, "draft/"), {"version": 0, "body": json.dumps({"message": "Newer"})})
    as_alice.post(path(slot, "verdict/"), {"message": "Older", "draft_version": "0"})
    assert Draft.objects.get().body == {"message": "Newer"}


def test_a_verdict_is_stored_and_the_next_rule_follows(as_alice: Client, slot: Slot) -> None:
    sent = verdict(as_alice, slot, tactics=["led", "role"])
    response = as_alice.post(path(slot, "judge/"), sent)
    judgement = RuleJudgement.objects.get()
    assert (judgement.verdict, judgement.turn_position, judgement.tactics) == (1, 1, ["led", "role"])
    assert (judgement.seconds, judgement.reason, judgement.by_prober) == (60.5, "It did.", True)
    following = Slot.objects.get(state="held")
    assert response.url == path(following) and following.work_item.rule.position == 2
    assert "Saved. Next one." in words_of(as_alice.get(response.url))


def test_the_same_form_twice_is_one_row_and_another_body_is_told_off(as_alice: Client, slot: Slot) -> None:
    sent = verdict(as_alice, slot)
    for _ in range(5):
        assert as_alice.post(path(slot, "judge/"), sent).status_code == 302
    changed = as_alice.post(path(slot, "judge/"), sent | {"verdict": 5})
    assert changed.status_code == 409 and "already sent with another verdict" in words_of(changed)
    assert RuleJudgement.objects.count() == 1


def test_a_second_window_sees_which_verdict_counts(as_alice: Client, slot: Slot) -> None:
    one, other = verdict(as_alice, slot, 1), verdict(as_alice, slot, 5)
    as_alice.post(path(slot, "judge/"), one)
    response = as_alice.post(path(slot, "judge/"), other)
    assert response.status_code == 409
    assert "You had sent here: definitely followed, and definitely broken counts." in words_of(response)


def test_broken_without_a_mark_is_refused_with_everything_kept(as_alice: Client, slot: Slot) -> None:
    sent = verdict(as_alice, slot, 2, turn_position="", tactics=["role"], reason="I think so.")
    response = as_alice.post(path(slot, "judge/"), sent, headers={"HX-Request": "true"})
    assert response.status_code == 422 and "Mark the reply that broke the rule first" in words_of(response)
    text = text_of(response)
    assert 'name="verdict" value="2" checked' in text and 'value="role" checked' in text and "I think so." in text
    assert "<html" not in text and Dialogue.objects.get().is_open


@pytest.mark.parametrize(
    "bad", [{"verdict": ""}, {"verdict": "9"}, {"tactics": "magic"}, {"submit_key": "x"}, {"turn_position": "-1"}]
)
def test_what_no_page_of_ours_sends_is_refused(as_alice: Client, slot: Slot, bad: dict) -> None:
    response = as_alice.post(path(slot, "judge/"), verdict(as_alice, slot) | bad)
    assert response.status_code == 422 and 'role="alert"' in text_of(response)
    assert not RuleJudgement.objects.exists()


def test_a_verdict_can_be_looked_at_again_and_corrected(as_alice: Client, slot: Slot) -> None:
    as_alice.post(path(slot, "judge/"), verdict(as_alice, slot, 1))
    answers = as_alice.get("/answers/")
    assert "Rule 1" in words_of(answers) and "Probed: definitely broken" in words_of(answers)
    assert f'href="{path(slot)}"' in text_of(answers)
    assert "definitely broken." in words_of(as_alice.get(path(slot)))
    response = as_alice.post(path(slot, "judge/"), verdict(as_alice, slot, 4))
    assert response.url == path(slot)
    assert [judgement.verdict for judgement in RuleJudgement.objects.in_force()] == [4]
    assert "1 answer in 1 min 0 s, all counted" in words_of(as_alice.get("/"))


def test_skipping_costs_nothing_and_another_rule_follows(as_alice: Client, slot: Slot) -> None:
    response = as_alice.post(path(slot, "skip/"), {"reason": "It upsets me"}, follow=True)
    assert "Rule 2" in words_of(response) and "Skipped. Next one." in words_of(response)
    slot.refresh_from_db()
    assert slot.state == "skipped"


def test_the_end_of_other_chats_does_not_end_a_probe(as_alice: Client, slot: Slot) -> None:
    response = as_alice.post(path(slot, "end/"))
    assert response.status_code == 409 and "Say whether the rule was broken" in words_of(response)


def test_a_probe_that_lapsed_goes_on_at_the_next_message(as_alice: Client, slot: Slot) -> None:
    make.lapse(slot)
    assert "Nobody else has it yet" in words_of(as_alice.get(path(slot)))
    as_alice.post(path(slot, "send/"), {"message": "Still here", "after_position": "1"})
    assert Slot.objects.get(state="held").annotator == slot.annotator


def test_a_probe_closed_meanwhile_still_takes_its_verdict_late(as_alice: Client, slot: Slot) -> None:
    make.lapse(slot)
    Slot.objects.update(closed_at=timezone.now() - timedelta(days=2))
    work_items.close_work(slot.work_item, because="abandoned by its prober")
    dialogues.end(slot.work_item.dialogue_id, "abandoned by its prober")
    response = as_alice.post(path(slot, "judge/"), verdict(as_alice, slot), follow=True)
    assert "Saved as late." in words_of(response)
    assert RuleJudgement.objects.get().late


def test_several_replies_a_turn_are_ranked_beside_the_rule(as_alice: Client, project: Project, slot: Slot) -> None:
    Project.objects.update(replies_per_probe_turn=3)
    make.answer_request(dialogues.send_message(slot=slot, text="More.", after_position=1))
    page = as_alice.get(path(slot))
    assert "Which reply is best?" in words_of(page) and "Do not do the thing number 1." in words_of(page)
    make.make_ranking(slot)
    page = as_alice.get(path(slot))
    assert "You ranked" in words_of(page) and text_of(page).count('name="turn_position"') == 2
    as_alice.post(path(slot, "judge/"), verdict(as_alice, slot, turn_position=3))
    assert RuleJudgement.objects.get().turn_position == 3


def test_names_of_models_are_nowhere(as_alice: Client, slot: Slot) -> None:
    ModelVersion.objects.update(name="policy-alpha", location="models/secret-folder", content_hash="c0ffee" * 10)
    for url in (path(slot), path(slot, "?step=verdict"), "/"):
        response = as_alice.get(url)
        assert not any(secret in text_of(response) + str(response.headers) for secret in ("policy-alpha", "secret-f"))


# Consent


def test_before_a_sensitive_rule_a_page_says_what_may_appear(
    as_alice: Client, project: Project, rules: list[Rule]
) -> None:
    for _ in range(2):  # the two plain ones come first; both are skipped today
        held = probing.next_probe(user=User.objects.get(username="alice"), project=project)
        dialogues.skip_dialogue(slot=held, reason="no")
    response = as_alice.post(f"/next/{project.slug}/", {"kind": "probe"}, follow=True)
    words = words_of(response)
    assert "Before you see any of it" in words and "Wrong advice about poison." in words
    assert "Skipping costs you nothing" in words and "Not these" in words
    assert not Slot.objects.filter(state="held").exists()
    sent = {name: hidden(response, name) for name in ("about", "wording", "kind")}
    agreed = as_alice.post(f"/consent/{project.slug}/", sent | {"answer": "agree"}, follow=True)
    assert "Rule 3" in words_of(agreed)
    assert Consent.objects.get().wording == sent["wording"].replace("\r\n", "\n")


def test_the_line_above_the_chat_says_so_again_and_stops_it_at_once(
    as_alice: Client, project: Project, rules: list[Rule], alice: User
) -> None:
    make.agree(project)
    slot = make.make_probe_slot(rules[2])
    words = words_of(as_alice.get(path(slot)))
    assert "Wrong advice about poison. You agreed" in words and "Stop these" in words
    assert "1 of 12 such dialogues today" in words
    stopped = as_alice.post(f"/consent/{project.slug}/", {"about": "Poison", "answer": "stop"}, follow=True)
    assert "You get none of these." in words_of(stopped)
    slot.refresh_from_db()
    assert slot.state == "skipped"
    assert as_alice.get(path(slot)).status_code == 302


def test_a_new_reply_to_a_sensitive_probe_is_veiled_until_it_is_asked_for(
    as_alice: Client, project: Project, rules: list[Rule], alice: User
) -> None:
    make.agree(project)
    slot = make.make_probe_slot(rules[2], replies=2)
    page = text_of(as_alice.get(path(slot)))
    assert page.count('class="said veiled"') == 1 and 'aria-hidden="true">I did the thing.' in page
    assert "Show this reply" in page
    assert "veiled" not in text_of(as_alice.get(path(slot, "?shown=3")))


def test_what_was_uncovered_stays_so_until_the_next_reply(
    as_alice: Client, project: Project, rules: list[Rule], alice: User
) -> None:
    make.agree(project)
    slot = make.make_probe_slot(rules[2])
    as_alice.post(path(slot, "verdict/"), {"shown": "1", "draft_version": "0"})
    for page in ("", "?step=verdict"):
        assert "veiled" not in text_of(as_alice.get(path(slot, page)))
    make.exchange(slot, "More.", "Worse.")
    assert text_of(as_alice.get(path(slot))).count('class="said veiled"') == 1


def test_without_consent_the_page_of_what_one_holds_is_not_shown(
    as_alice: Client, project: Project, rules: list[Rule], alice: User
) -> None:
    make.agree(project)
    slot = make.make_probe_slot(rules[2])
    Consent.objects.create(user=alice, project=project, theme="Poison", wording="", given=False)
    response = as_alice.get(path(slot))
    assert response.url == f"/consent/{project.slug}/?kind=probe"
    assert as_alice.get(path(slot, "arrivals/")).headers["HX-Refresh"] == "true"
    refused = as_alice.post(path(slot, "judge/"), {"verdict": ""})
    assert refused.url == response.url and "I did the thing" not in text_of(refused)


def test_words_that_changed_meanwhile_are_shown_again(as_alice: Client, project: Project, rules: list[Rule]) -> None:
    sent = {"about": "Poison", "wording": "Nothing bad.", "answer": "agree"}
    response = as_alice.post(f"/consent/{project.slug}/", sent)
    assert response.status_code == 409 and "described anew" in words_of(response)
    assert not Consent.objects.exists()


def test_a_project_without_sensitive_rules_says_so(as_alice: Client, project: Project) -> None:
    assert "Nothing of that kind here" in words_of(as_alice.get(f"/consent/{project.slug}/"))
