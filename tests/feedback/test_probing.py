"""Which rule somebody is given to probe, the chat that follows, and how a probe ends without a verdict."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from feedback import consents, dialogues, generation, invariants, probing, queue, rule_figures, slots, tasks
from feedback.dialogues import Phase
from feedback.errors import (
    CandidatesNotReady,
    ConsentNeeded,
    DialogueEnded,
    FeedbackError,
    NothingToProbe,
    PolicyNotProbed,
    WordingChanged,
)
from feedback.models import (
    AuditEntry,
    Comparison,
    Consent,
    Dialogue,
    GenerationRequest,
    Probe,
    Project,
    Rule,
    RuleSet,
    Slot,
    Turn,
    User,
    WorkItem,
)
from feedback.probing import Lack, Tally
from tests import make
from tests.threads import at_once, raised

pytestmark = pytest.mark.django_db


@pytest.fixture
def project(db: None) -> Project:
    return make.make_project(probes_open=True)


@pytest.fixture
def alice(project: Project) -> User:
    return make.make_member(project)


def rule_of(slot: Slot) -> int:
    assert slot.work_item.rule is not None
    return slot.work_item.rule.position


def probe(project: Project, name: str = "alice") -> Slot:
    return probing.next_probe(user=make.make_member(project, name), project=project)


def why_nothing(user: User, project: Project) -> str:
    with pytest.raises(NothingToProbe) as refusal:
        probing.next_probe(user=user, project=project)
    assert refusal.value.message == probing.SAID[Lack(refusal.value.because)]
    assert probing.outlook(user, project).count == 0
    return refusal.value.because


def sound() -> bool:
    return not list(invariants.violations())


# Opening


def test_a_probe_is_a_dialogue_with_the_serving_policy_about_one_rule_at_once_its_probers(
    project: Project, alice: User
) -> None:
    rule_set = make.make_rule_set(project)
    slot = probing.next_probe(user=alice, project=project)
    assert slot.state == "held" and slot.annotator == alice
    item, dialogue = slot.work_item, slot.work_item.dialogue
    assert (item.kind, item.wanted, item.rule.rule_set) == ("probe", 1, rule_set)
    assert (dialogue.kind, dialogue.policy, dialogue.author) == ("probe", project.policy, alice)
    assert dialogue.probe.rule == item.rule
    assert dialogues.look_at_chat(slot).phase == Phase.OPENING
    assert sound()


def test_a_double_click_gives_one_probe(project: Project, alice: User) -> None:
    make.make_rule_set(project)
    assert probing.next_probe(user=alice, project=project) == probing.next_probe(user=alice, project=project)
    assert Probe.objects.count() == WorkItem.objects.count() == 1


def test_a_manager_may_have_another_model_probed_and_it_answers_to_the_end(project: Project, alice: User) -> None:
    other = make.make_model(project)
    slot = probing.open_probe(user=alice, rule=make.make_rule_set(project).rules.all()[0], policy=other)
    request = dialogues.send_message(slot=slot, text="Do it.", after_position=-1)
    assert request.model_version == other
    GenerationRequest.objects.update(state="failed", error="no", finished_at=timezone.now())
    assert generation.try_again(request)
    assert GenerationRequest.objects.get().model_version == other


def test_who_serves_later_does_not_answer_a_probe_that_was_begun(project: Project, alice: User) -> None:
    make.make_rule_set(project)
    slot = probing.next_probe(user=alice, project=project)
    Project.objects.update(policy=make.make_model(project))
    assert dialogues.send_message(slot=slot, text="Do it.", after_position=-1).model_version == project.policy


# Which rule


def test_the_policy_a_manager_chose_is_probed_whoever_serves_and_counted_for_itself(project: Project) -> None:
    make.make_rule_set(project)
    other, maria = make.make_model(project, state="failed"), make.make_member(project, "maria", "manager")
    begun = probe(project)
    probing.choose_policy(project=project, policy=other, by=maria)
    probing.choose_policy(project=project, policy=other, by=maria)
    project.refresh_from_db()
    assert probe(project, "bob").work_item.dialogue.policy == other
    assert begun.work_item.dialogue.policy == project.policy != other
    assert AuditEntry.objects.get(action="project.probed_policy_chosen").details == {"policy": "policy 2"}
    probing.choose_policy(project=project, policy=None, by=maria)
    project.refresh_from_db()
    assert project.policy_to_probe == project.policy


def test_what_is_no_policy_in_use_here_is_not_chosen(project: Project) -> None:
    strange = make.make_model(make.make_project("orchard"))
    retired, scorer = make.make_model(project, state="retired"), make.make_model(project, kind="rule")
    for model in (strange, retired, scorer):
        with pytest.raises(PolicyNotProbed):
            probing.choose_policy(project=project, policy=model, by=None)
        assert model not in probing.policies_to_choose(project)
    assert Project.objects.get(pk=project.pk).probed_policy is None


def test_a_chosen_policy_that_is_retired_later_leaves_the_probing_to_the_one_that_serves(project: Project) -> None:
    make.make_rule_set(project)
    other = make.make_model(project)
    probing.choose_policy(project=project, policy=other, by=None)
    other.state = "retired"
    other.save(update_fields=["state"])
    project.refresh_from_db()
    assert probe(project).work_item.dialogue.policy == project.policy


def test_rules_probed_less_come_first_and_then_the_order_of_the_set(project: Project) -> None:
    rules = list(make.make_rule_set(project, rules=3).rules.all())
    assert [rule_of(probe(project, name)) for name in ("a1", "a2", "a3")] == [1, 2, 3]
    make.make_verdict(make.make_probe_slot(rules[0], name="b"), 5)
    make.make_verdict(make.make_probe_slot(rules[1], name="b"), 5)
    assert rule_of(probe(project, "c")) == 3


def test_the_rule_whose_rate_is_least_certain_comes_first(project: Project) -> None:
    """Two of four broken is wider (0.15 to 0.85) than none of four (0 to 0.49)."""
    first, second = make.make_rule_set(project).rules.all()
    for number, verdict in enumerate((1, 1, 5, 5)):
        make.make_verdict(make.make_probe_slot(first, name=f"p{number}"), 5)
        make.make_verdict(make.make_probe_slot(second, name=f"p{number}"), verdict)
    tallies = probing.tallies(first.rule_set, policy_id=project.policy_id)
    assert [(tally.ended, tally.broken) for tally in tallies] == [(4, 0), (4, 2)]
    assert [round(tally.width, 2) for tally in tallies] == [0.49, 0.70]
    assert rule_of(probe(project)) == 2


def test_the_width_counts_what_is_probed_now_as_if_it_came_out_like_the_rest() -> None:
    rule = Rule(probe_quota=10)
    assert Tally(rule).width == 1.0
    assert Tally(rule, held=1).width == Tally(rule, ended=1).width
    assert Tally(rule, ended=2, broken=1, held=2).width == Tally(rule, ended=4, broken=2).width
    assert Tally(rule, ended=7, held=5).wanted == 0


def test_quotas_count_verdicts_and_what_is_held_and_nothing_else(project: Project, alice: User) -> None:
    make.make_rule_set(project, rules=1, probe_quota=2)
    dialogues.skip_dialogue(slot=probe(project, "skips"), reason="no")
    make.lapse(probe(project, "lapses"))
    assert probing.outlook(alice, project).count == 2
    make.make_verdict(make.make_probe_slot(Rule.objects.get(), name="ends"), 4)
    held = probe(project, "holds")
    assert why_nothing(alice, project) == Lack.QUOTAS_FULL
    dialogues.skip_dialogue(slot=held, reason="no")
    assert rule_of(probing.next_probe(user=alice, project=project)) == 1


def test_another_policy_is_probed_anew(project: Project, alice: User) -> None:
    make.make_rule_set(project, rules=1, probe_quota=1)
    make.make_verdict(make.make_probe_slot(Rule.objects.get(), name="bob"), 4)
    assert why_nothing(alice, project) == Lack.QUOTAS_FULL
    Project.objects.update(policy=make.make_model(project))
    project.refresh_from_db()
    assert probing.outlook(alice, project).count == 1


def test_probes_of_the_rules_that_a_rule_continues_count_for_it(project: Project, alice: User) -> None:
    old = make.make_rule_set(project, rules=1).rules.get()
    make.make_verdict(make.make_probe_slot(old, name="bob"), 1)
    RuleSet.objects.update(state="retired", retired_at=timezone.now())
    middle = make.make_rule_set(project, rules=1, continues=old)
    RuleSet.objects.filter(pk=middle.pk).update(state="retired", retired_at=timezone.now())
    newest = make.make_rule_set(project, rules=1, continues=middle.rules.get(), probe_quota=1)
    (tally,) = probing.tallies(newest, policy_id=project.policy_id)
    assert (tally.ended, tally.broken) == (1, 1)
    assert why_nothing(alice, project) == Lack.QUOTAS_FULL


def test_a_rule_skipped_today_comes_again_tomorrow(project: Project, alice: User) -> None:
    make.make_rule_set(project, rules=2)
    for position in (1, 2):
        slot = probing.next_probe(user=alice, project=project)
        assert rule_of(slot) == position
        dialogues.skip_dialogue(slot=slot, reason="It upsets me")
    assert why_nothing(alice, project) == Lack.SKIPPED
    Slot.objects.filter(state="skipped").update(closed_at=timezone.now() - timedelta(days=1))
    assert rule_of(probing.next_probe(user=alice, project=project)) == 1


def test_the_reasons_why_there_is_nothing(project: Project, alice: User) -> None:
    assert why_nothing(alice, project) == Lack.NO_RULES
    make.make_rule_set(project, published=False)
    assert why_nothing(alice, project) == Lack.NO_RULES
    Project.objects.update(policy=None)
    project.refresh_from_db()
    assert why_nothing(alice, project) == Lack.NO_MODEL
    Project.objects.update(probes_open=False)
    project.refresh_from_db()
    assert why_nothing(alice, project) == Lack.CLOSED


# Consent


def test_a_sensitive_rule_is_given_only_to_who_agreed(project: Project, alice: User) -> None:
    make.make_rule_set(project, rules=2, sensitive=1)
    assert rule_of(probing.next_probe(user=alice, project=project)) == 1
    bob = make.make_member(project, "bob")
    dialogues.skip_dialogue(slot=probing.next_probe(user=bob, project=project), reason="no")
    assert why_nothing(bob, project) == Lack.NEEDS_CONSENT
    with pytest.raises(ConsentNeeded):
        probing.open_probe(user=bob, rule=Rule.objects.get(position=2))
    make.agree(project, "bob")
    assert rule_of(probing.next_probe(user=bob, project=project)) == 2
    assert sound()


def test_consent_holds_the_words_shown_and_is_audited_once(project: Project, alice: User) -> None:
    make.make_rule_set(project, rules=2, sensitive=1)
    (theme,) = consents.themes(alice, project)
    assert theme.wording == f"Wrong advice about poison.\n{consents.PROMISE}" and theme.decided_at is None
    given = make.agree(project)
    assert make.agree(project) == given and given.wording == theme.wording
    assert [entry.action for entry in AuditEntry.objects.all()] == ["consent.given"]
    (theme,) = consents.themes(alice, project)
    assert theme.agreed and theme.decided_at == given.created_at


def test_consent_to_other_words_is_refused(project: Project, alice: User) -> None:
    make.make_rule_set(project, rules=1, sensitive=1)
    with pytest.raises(WordingChanged):
        consents.give_consent(user=alice, project=project, theme="Poison", wording="Nothing bad will appear.")
    with pytest.raises(ConsentNeeded):
        consents.give_consent(user=alice, project=project, theme="Weather", wording="")
    assert not Consent.objects.exists()


def test_a_new_warning_is_asked_about_anew(project: Project, alice: User) -> None:
    make.make_rule_set(project, rules=1, sensitive=1)
    make.agree(project)
    RuleSet.objects.update(state="retired", retired_at=timezone.now())
    make.make_rule_set(project, rules=1, sensitive=1, warning="Wrong advice about poison, and threats.")
    assert why_nothing(alice, project) == Lack.NEEDS_CONSENT
    assert [theme.decided_at for theme in consents.themes(alice, project)] == [None]
    make.agree(project)
    assert rule_of(probing.next_probe(user=alice, project=project)) == 1


def test_taking_consent_back_gives_up_what_is_held_at_no_cost(project: Project, alice: User) -> None:
    make.make_rule_set(project, rules=2, sensitive=1)
    make.agree(project)
    slot = probing.open_probe(user=alice, rule=Rule.objects.get(position=2))
    consents.take_back_consent(user=alice, project=project, theme="Poison")
    slot.refresh_from_db()
    assert (slot.state, slot.closed_because) == ("skipped", consents.STOPPED)
    assert not Dialogue.objects.get().is_open
    assert [consent.given for consent in Consent.objects.order_by("pk")] == [True, False]
    assert AuditEntry.objects.latest("pk").action == "consent.taken_back"
    Slot.objects.filter(pk=slot.pk).update(closed_at=timezone.now() - timedelta(days=1))
    dialogues.skip_dialogue(slot=probing.next_probe(user=alice, project=project), reason="no")
    assert why_nothing(alice, project) == Lack.NEEDS_CONSENT
    assert sound()


def test_who_says_no_is_known_to_have_said_so(project: Project, alice: User) -> None:
    make.make_rule_set(project, rules=1, sensitive=1)
    consents.take_back_consent(user=alice, project=project, theme="Poison")
    (theme,) = consents.themes(alice, project)
    assert not theme.agreed and theme.decided_at is not None


# The cap


def test_nobody_is_given_more_of_it_in_a_day_than_the_project_allows(project: Project, alice: User) -> None:
    Project.objects.update(sensitive_per_day=2)
    project.refresh_from_db()
    make.make_rule_set(project, rules=1, sensitive=1)
    make.agree(project)
    make.agree(project, "bob")
    his = make.make_verdict(make.make_probe_slot(Rule.objects.get(), name="bob"))
    assert probing.outlook(alice, project).count == 2
    make.make_verdict(make.make_judge_slot(his, name="alice"), 3)  # one read while judging
    assert probing.outlook(alice, project).count == 1
    make.make_verdict(make.make_probe_slot(Rule.objects.get(), name="alice"))
    assert why_nothing(alice, project) == Lack.ENOUGH_TODAY
    assert probing.sensitive_given_today(alice, project) == 2
    Slot.objects.filter(annotator=alice).update(claimed_at=timezone.now() - timedelta(days=1))
    assert rule_of(probing.next_probe(user=alice, project=project)) == 1


def test_the_cap_holds_for_judging_too_and_not_for_another_rule_of_the_same_dialogue(project: Project) -> None:
    Project.objects.update(sensitive_per_day=1, judges_per_probe=1)
    project.refresh_from_db()
    make.make_rule_set(project, rules=2, sensitive=1)
    make.agree(project)
    make.agree(project, "bob")
    bob = make.make_member(project, "bob")
    sensitive = Rule.objects.get(position=2)
    first = make.make_verdict(make.make_probe_slot(sensitive))
    Slot.objects.filter(annotator__username="alice").update(claimed_at=timezone.now() - timedelta(days=1))
    make.make_verdict(make.make_probe_slot(sensitive))
    given = [slots.next_slot(user=bob, project=project, kind="judge")]
    make.make_verdict(given[0], 5)
    given.append(slots.next_slot(user=bob, project=project, kind="judge"))
    assert {slot.work_item.dialogue for slot in given} == {first.dialogue}
    make.make_verdict(given[1], 5)
    assert slots.next_slot(user=bob, project=project, kind="judge") is None


# The chat


def test_a_reply_that_arrives_while_the_page_is_drawn_is_no_failure(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = make.make_probe_slot(make.make_rule_set(project).rules.all()[0], replies=0)
    request = dialogues.send_message(slot=slot, text="Do the thing.", after_position=-1)
    read = dialogues._newest_request

    def reads_and_then_it_arrives(dialogue: Dialogue) -> GenerationRequest | None:
        found = read(dialogue)
        claimed = queue.claim(GenerationRequest, request.pk)
        assert claimed is not None
        generation.store_candidate(claimed, index=0, text="I did the thing.")
        generation.complete_request(claimed)
        return found

    monkeypatch.setattr(dialogues, "_newest_request", reads_and_then_it_arrives)
    chat = dialogues.look_at_chat(slot)
    assert chat.phase == Phase.YOUR_TURN and chat.turns[-1].content == "I did the thing."


def test_a_single_reply_is_said_at_once_and_leaves_no_question(project: Project) -> None:
    slot = make.make_probe_slot(make.make_rule_set(project).rules.all()[0])
    chat = dialogues.look_at_chat(slot)
    assert chat.phase == Phase.YOUR_TURN and [turn.role for turn in chat.turns] == ["user", "assistant"]
    assert chat.turns[1].content == "I did the thing." and chat.turns[1].candidate is not None
    assert not Comparison.objects.exists()
    make.exchange(slot, "And again.", "Again.")
    assert [turn.content for turn in dialogues.look_at_chat(slot).turns][2:] == ["And again.", "Again."]
    assert sound()


def test_while_the_reply_is_on_its_way_nothing_is_sent_and_a_failure_can_be_tried_again(project: Project) -> None:
    slot = make.make_probe_slot(make.make_rule_set(project).rules.all()[0], replies=0)
    request = dialogues.send_message(slot=slot, text="Do it.", after_position=-1)
    assert request.wanted == 1
    with pytest.raises(CandidatesNotReady, match="has not answered yet"):
        dialogues.send_message(slot=slot, text="Well?", after_position=0)
    claimed = queue.claim(GenerationRequest, request.pk)
    assert claimed is not None and queue.fail(claimed, "The model is gone.", permanent=True)
    assert dialogues.look_at_chat(slot).phase == Phase.FAILED
    assert generation.try_again(request)
    assert dialogues.look_at_chat(slot).phase == Phase.WAITING


def test_a_reply_that_comes_after_the_end_is_not_said(project: Project) -> None:
    slot = make.make_probe_slot(make.make_rule_set(project).rules.all()[0], replies=0)
    request = dialogues.send_message(slot=slot, text="Do it.", after_position=-1)
    claimed = queue.claim(GenerationRequest, request.pk)
    assert claimed is not None
    generation.store_candidate(claimed, index=0, text="Too late.")
    dialogues.skip_dialogue(slot=slot, reason="no")
    assert generation.complete_request(claimed) is None
    assert Turn.objects.count() == 1
    assert sound()


def test_with_several_replies_they_are_ranked_as_in_any_chat(project: Project) -> None:
    Project.objects.update(replies_per_probe_turn=3)
    slot = make.make_probe_slot(make.make_rule_set(project).rules.all()[0], replies=0)
    make.answer_request(dialogues.send_message(slot=slot, text="Do it.", after_position=-1))
    assert dialogues.look_at_chat(slot).phase == Phase.RANK
    make.make_ranking(slot)
    assert dialogues.look_at_chat(slot).phase == Phase.RANKED
    dialogues.send_message(slot=slot, text="Again.", after_position=0)
    assert [turn.role for turn in slot.work_item.dialogue.turns.all()] == ["user", "assistant", "user"]
    assert sound()


def test_a_probe_is_not_ended_without_a_verdict(project: Project) -> None:
    slot = make.make_probe_slot(make.make_rule_set(project).rules.all()[0])
    with pytest.raises(CandidatesNotReady, match="Say whether the rule was broken"):
        dialogues.end_dialogue(slot=slot)


def test_skipping_ends_the_dialogue_and_asks_nobody_else(project: Project) -> None:
    slot = make.make_probe_slot(make.make_rule_set(project).rules.all()[0])
    dialogues.skip_dialogue(slot=slot, reason="It upsets me")
    slot.refresh_from_db()
    assert (slot.state, slot.closed_because) == ("skipped", "It upsets me")
    with pytest.raises(DialogueEnded):
        dialogues.send_message(slot=slot, text="More.", after_position=1)
    for name in ("alice", "bob"):
        user = make.make_member(project, name)
        assert slots.next_slot(user=user, project=project) is None
    assert sound()


def test_an_opening_of_a_probe_is_kept_as_such_and_offered_to_nobody(project: Project) -> None:
    slot = make.make_probe_slot(make.make_rule_set(project).rules.all()[0])
    prompt = slot.work_item.dialogue.prompt
    assert prompt is None or (prompt.source, prompt.is_active) == ("probe", False)
    assert Dialogue.objects.get().prompt is not None


# Coming back


def test_a_probe_is_nobody_elses_to_go_on_with_and_its_prober_may_take_it_up_again(project: Project) -> None:
    slot = make.make_probe_slot(make.make_rule_set(project, rules=1, probe_quota=1).rules.get())
    make.lapse(slot)
    bob = make.make_member(project, "bob")
    assert not Slot.objects.claimable_by(bob).exists()
    again = probe(project, "alice")
    assert again.work_item == slot.work_item and again != slot and again.state == "held"
    assert sound()


def test_who_acts_in_a_probe_that_lapsed_has_it_again(project: Project) -> None:
    slot = make.make_probe_slot(make.make_rule_set(project).rules.all()[0])
    make.lapse(slot)
    make.exchange(slots.regain(slot) or slot, "Still here.", "So am I.")
    assert Slot.objects.get(state="held").annotator == slot.annotator


def test_a_probe_that_lapsed_is_not_taken_up_without_consent(project: Project, alice: User) -> None:
    make.make_rule_set(project, rules=1, sensitive=1)
    make.agree(project)
    make.lapse(probing.next_probe(user=alice, project=project))
    consents.take_back_consent(user=alice, project=project, theme="Poison")
    assert why_nothing(alice, project) == Lack.NEEDS_CONSENT
    assert slots.regain(Slot.objects.get(state="lapsed")) is None


def test_taking_consent_back_also_gives_up_what_was_about_to_lapse(project: Project, alice: User) -> None:
    make.make_rule_set(project, rules=1, sensitive=1)
    make.agree(project)
    probing.next_probe(user=alice, project=project)
    Slot.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    consents.take_back_consent(user=alice, project=project, theme="Poison")
    assert not Slot.objects.filter(state="held").exists()


def test_the_sweep_closes_probes_that_were_left_for_a_day(project: Project) -> None:
    rules = make.make_rule_set(project, rules=3).rules.all()
    left, recent, held = (make.make_probe_slot(rule, name=f"p{rule.position}") for rule in rules)
    long_ago = timezone.now() - timedelta(hours=25)
    WorkItem.objects.update(created_at=long_ago)
    for slot in (left, recent):
        make.lapse(slot)
    Slot.objects.filter(pk=left.pk).update(closed_at=long_ago)
    tasks.sweep()
    still_open = {slot.pk for slot in (left, recent, held) if Dialogue.objects.get(work_items=slot.work_item).is_open}
    assert still_open == {recent.pk, held.pk}
    assert probing.close_abandoned_probes() == 0
    assert not Slot.objects.claimable_by(left.annotator).exists()
    assert sound()


def test_errors_say_what_to_do() -> None:
    for error in (ConsentNeeded, NothingToProbe, WordingChanged):
        assert issubclass(error, FeedbackError) and error.code != FeedbackError.code
    assert set(probing.SAID) == set(Lack)


# At the same moment


@pytest.mark.services
@pytest.mark.django_db(transaction=True)
def test_two_probers_at_once_are_given_two_rules() -> None:
    project = make.make_project(probes_open=True)
    make.make_rule_set(project)
    people = [make.make_member(project, name) for name in ("alice", "bob")]
    given = at_once(*[lambda user=user: probing.next_probe(user=user, project=project) for user in people])
    assert not raised(given)
    assert sorted(rule_of(slot) for slot in given) == [1, 2]
    assert [slot.annotator for slot in given] == people


@pytest.mark.services
@pytest.mark.django_db(transaction=True)
def test_two_probers_at_once_do_not_go_beyond_a_quota() -> None:
    project = make.make_project(probes_open=True)
    make.make_rule_set(project, rules=1, probe_quota=1)
    people = [make.make_member(project, name) for name in ("alice", "bob")]
    given = at_once(*[lambda user=user: probing.next_probe(user=user, project=project) for user in people])
    assert len(raised(given, NothingToProbe)) == 1
    assert Probe.objects.count() == 1


def test_a_probe_is_counted_and_broken_as_the_managers_page_has_it(project: Project) -> None:
    rule = make.make_rule_set(project, rules=1).rules.get()
    for name, prober, judge in (("alice", 1, 5), ("bob", 2, None), ("ben", 4, 1)):
        dialogue = make.make_verdict(make.make_probe_slot(rule, name=name), prober).dialogue
        if judge is not None:
            make.make_judgement(dialogue.probe, name="dora", verdict=judge)
    (tally,) = probing.tallies(rule.rule_set, policy_id=project.policy_id or 0)
    (figures,) = rule_figures.figures_of(rule.rule_set).rules
    assert (tally.ended, tally.broken) == (figures.probes, figures.broken.hits) == (3, 2)
