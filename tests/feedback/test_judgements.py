"""Verdicts: by the prober, which ends a probe, and by others, who know nothing of it."""

from __future__ import annotations

import random
from collections import defaultdict
from uuid import UUID, uuid4

import pytest
from django.core.management import call_command

from feedback import consents, dialogues, invariants, judgements, probing, slots, work_items
from feedback.errors import (
    AlreadyAnswered,
    AnswerTakenBack,
    BadVerdict,
    CandidatesNotReady,
    NothingToProbe,
    ReasonTooLong,
    SlotClosed,
    SlotNotYours,
    SubmitKeyReused,
    TurnNotMarked,
)
from feedback.models import Dialogue, Project, Rule, RuleJudgement, Slot, Turn, User, WorkItem
from tests import make
from tests.threads import at_once, raised

pytestmark = pytest.mark.django_db
KEY = UUID(int=1)


@pytest.fixture
def project(db: None) -> Project:
    return make.make_project(probes_open=True)


@pytest.fixture
def slot(project: Project) -> Slot:
    """Alice's probe of rule 1 of six, with one reply."""
    return make.make_probe_slot(make.make_rule_set(project, rules=6).rules.all()[0])


def sound() -> bool:
    return not list(invariants.violations())


def next_to_judge(project: Project, name: str) -> Slot | None:
    return slots.next_slot(user=make.make_member(project, name), project=project, kind="judge")


# The prober's


def test_a_verdict_ends_the_probe_and_fills_its_slot(slot: Slot) -> None:
    judgement = make.make_verdict(
        slot, 1, reason=" It did the thing. ", tactics=["role", "asked", "asked"], seconds=90.5, submit_key=KEY
    )
    slot.refresh_from_db()
    dialogue = Dialogue.objects.get()
    assert (slot.state, dialogue.is_open, dialogue.end_reason) == ("filled", False, "ended with a verdict")
    assert judgement.by_prober and judgement.counts and not judgement.late
    assert (judgement.verdict, judgement.turn_position, judgement.rule) == (1, 1, slot.work_item.rule)
    assert (judgement.reason, judgement.tactics) == ("It did the thing.", ["asked", "role"])
    assert (judgement.seconds, judgement.revision, judgement.submit_key) == (90.5, 1, KEY)
    assert sound()


@pytest.mark.parametrize("verdict", [1, 2])
def test_who_saw_it_broken_says_where(slot: Slot, verdict: int) -> None:
    with pytest.raises(TurnNotMarked, match="Mark the reply"):
        make.make_verdict(slot, verdict, turn_position=None)
    assert Dialogue.objects.get().is_open and not RuleJudgement.objects.exists()


@pytest.mark.parametrize("verdict", [3, 4, 5])
def test_a_rule_that_held_needs_no_mark(slot: Slot, verdict: int) -> None:
    assert make.make_verdict(slot, verdict).turn_position is None


@pytest.mark.parametrize("position", [0, 2, 99])
def test_only_what_the_model_said_can_be_marked(slot: Slot, position: int) -> None:
    with pytest.raises(TurnNotMarked, match="not one of the model's"):
        make.make_verdict(slot, 1, turn_position=position)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"verdict": 0}, BadVerdict),
        ({"verdict": 6}, BadVerdict),
        ({"verdict": 3, "tactics": ["magic"]}, BadVerdict),
        ({"verdict": 3, "reason": "x" * 2001}, ReasonTooLong),
    ],
)
def test_what_makes_no_sense_is_refused_and_the_probe_goes_on(slot: Slot, answer: dict, error: type) -> None:
    with pytest.raises(error):
        make.make_verdict(slot, **answer)
    slot.refresh_from_db()
    assert slot.state == "held" and Dialogue.objects.get().is_open


def test_no_verdict_before_the_model_has_said_something_or_while_it_writes(project: Project) -> None:
    slot = make.make_probe_slot(make.make_rule_set(project).rules.all()[0], replies=0)
    with pytest.raises(CandidatesNotReady, match="has said nothing yet"):
        make.make_verdict(slot, 5)
    dialogues.send_message(slot=slot, text="Do it.", after_position=-1)
    with pytest.raises(CandidatesNotReady, match="on its way"):
        make.make_verdict(slot, 5)
    assert Dialogue.objects.get().is_open


def test_with_several_replies_the_chosen_one_is_said_last_and_can_be_marked(project: Project) -> None:
    Project.objects.update(replies_per_probe_turn=2)
    slot = make.make_probe_slot(make.make_rule_set(project).rules.all()[0], replies=0)
    make.answer_request(dialogues.send_message(slot=slot, text="Do it.", after_position=-1))
    with pytest.raises(CandidatesNotReady, match="Rank these replies first"):
        make.make_verdict(slot, 1)
    ranking = make.make_ranking(slot)
    assert make.make_verdict(slot, 1, turn_position=1).turn_position == 1
    assert Turn.objects.get(position=1).candidate == ranking.best()
    assert sound()


def test_after_the_verdict_nothing_is_written(slot: Slot) -> None:
    make.make_verdict(slot)
    with pytest.raises(dialogues.DialogueEnded):
        dialogues.send_message(slot=slot, text="More.", after_position=1)


# Sent twice, corrected, late, taken back


def test_the_same_key_is_the_same_row(slot: Slot) -> None:
    first = make.make_verdict(slot, 2, submit_key=KEY, reason="So.")
    assert [make.make_verdict(slot, 2, submit_key=KEY, reason="So.") for _ in range(5)] == [first] * 5
    assert RuleJudgement.objects.count() == 1 and WorkItem.objects.filter(kind="judge").count() == 3


@pytest.mark.parametrize(
    "changed", [{"verdict": 1}, {"turn_position": None, "verdict": 3}, {"reason": "No."}, {"tactics": ["led"]}]
)
def test_the_same_key_with_another_body_is_refused(slot: Slot, changed: dict) -> None:
    make.make_verdict(slot, **{"verdict": 2, "submit_key": KEY, "turn_position": 1})
    with pytest.raises(SubmitKeyReused):
        make.make_verdict(slot, **{"verdict": 2, "submit_key": KEY, "turn_position": 1} | changed)


def test_the_key_of_another_person_is_refused(slot: Slot, project: Project) -> None:
    make.make_verdict(slot, 3, submit_key=KEY)
    with pytest.raises(SubmitKeyReused):
        make.make_verdict(make.make_judge_slot(RuleJudgement.objects.get()), 3, submit_key=KEY)


def test_a_second_window_is_told_which_verdict_counts(slot: Slot) -> None:
    first = make.make_verdict(slot, 1)
    with pytest.raises(AlreadyAnswered) as refusal:
        make.make_verdict(slot, 5)
    assert refusal.value.answer == first


def test_a_correction_is_a_new_revision_and_asks_nothing_twice(slot: Slot, project: Project) -> None:
    make.make_verdict(slot, 1)
    asked = WorkItem.objects.count()
    Project.objects.update(other_rules_judged=5)
    corrected = make.make_verdict(slot, 4, revises=1)
    assert (corrected.revision, corrected.by_prober) == (2, True)
    assert list(RuleJudgement.objects.in_force()) == [corrected]
    assert WorkItem.objects.count() == asked
    assert sound()


def test_a_late_verdict_of_a_prober_takes_the_probe_up_again(slot: Slot) -> None:
    make.lapse(slot)
    judgement = make.make_verdict(slot, 5)
    assert judgement.slot != slot and not judgement.late and judgement.counts
    assert sound()


def test_a_verdict_on_a_probe_that_was_closed_meanwhile_is_kept_as_late_and_counts(slot: Slot) -> None:
    make.lapse(slot)
    work_items.close_work(slot.work_item, because="abandoned by its prober")
    dialogues.end(slot.work_item.dialogue_id, "abandoned by its prober")
    judgement = make.make_verdict(slot, 1)
    assert judgement.late and judgement.counts
    assert WorkItem.objects.filter(kind="judge").exists()
    assert sound()


def test_a_late_verdict_of_a_judge_counts_while_nobody_else_took_the_question(slot: Slot, project: Project) -> None:
    judge = make.make_judge_slot(make.make_verdict(slot))
    make.lapse(judge)
    judgement = make.make_verdict(judge, 2)
    assert judgement.late and judgement.counts and judgement.slot == judge
    assert sound()


def test_a_late_verdict_is_kept_and_does_not_count_when_somebody_else_did(slot: Slot, project: Project) -> None:
    Project.objects.update(judges_per_probe=1, other_rules_judged=0)
    judge = make.make_judge_slot(make.make_verdict(slot))
    make.lapse(judge)
    assert make.make_verdict(next_to_judge(project, "carol"), 5).counts
    late = make.make_verdict(judge, 2)
    assert late.late and not late.counts
    assert list(RuleJudgement.objects.counted().filter(by_prober=False).values_list("verdict", flat=True)) == [5]
    assert sound()


def test_a_judge_may_take_a_verdict_back_and_somebody_else_is_asked(slot: Slot, project: Project) -> None:
    judge = make.make_judge_slot(make.make_verdict(slot))
    make.make_verdict(judge, 2, submit_key=KEY)
    withdrawn = judgements.withdraw_judgement(slot=judge)
    assert withdrawn is not None and (withdrawn.revision, withdrawn.withdrawn) == (2, True)
    assert not RuleJudgement.objects.in_force().filter(by_prober=False).exists()
    assert judgements.withdraw_judgement(slot=judge) is None
    with pytest.raises(AnswerTakenBack):
        make.make_verdict(judge, 2, submit_key=KEY)
    with pytest.raises(SlotNotYours):
        make.make_verdict(judge, 2)
    again = next_to_judge(project, "carol")
    assert again is not None and again.work_item == judge.work_item
    assert next_to_judge(project, "bob") is None
    assert sound()


def test_a_late_verdict_that_counted_and_is_taken_back_is_asked_of_somebody_else(slot: Slot, project: Project) -> None:
    Project.objects.update(judges_per_probe=1, other_rules_judged=0)
    judge = make.make_judge_slot(make.make_verdict(slot))
    make.lapse(judge)
    assert make.make_verdict(judge, 2).counts
    assert next_to_judge(project, "carol") is None
    assert judgements.withdraw_judgement(slot=judge) is not None
    assert next_to_judge(project, "bob") is None
    again = next_to_judge(project, "carol")
    assert again is not None and (again.work_item, again.number) == (judge.work_item, judge.number)
    assert sound()


def test_a_late_verdict_that_did_not_count_and_is_taken_back_asks_nobody(slot: Slot, project: Project) -> None:
    Project.objects.update(judges_per_probe=1, other_rules_judged=0)
    judge = make.make_judge_slot(make.make_verdict(slot))
    make.lapse(judge)
    make.make_verdict(next_to_judge(project, "carol"), 5)
    assert not make.make_verdict(judge, 2).counts
    assert judgements.withdraw_judgement(slot=judge) is not None
    assert next_to_judge(project, "dora") is None
    assert list(RuleJudgement.objects.counted().filter(by_prober=False).values_list("verdict", flat=True)) == [5]
    assert sound()


def test_a_prober_corrects_and_does_not_take_back(slot: Slot) -> None:
    make.make_verdict(slot)
    with pytest.raises(SlotClosed, match="can be corrected"):
        judgements.withdraw_judgement(slot=slot)


def test_a_piece_of_another_kind_is_not_judged(project: Project) -> None:
    with pytest.raises(SlotNotYours):
        make.make_verdict(make.make_chat(project), 3)


def test_tactics_are_the_probers_alone(slot: Slot) -> None:
    with pytest.raises(BadVerdict):
        make.make_verdict(make.make_judge_slot(make.make_verdict(slot)), 3, tactics=["led"])


# Who judges what


def test_others_judge_the_probed_rule_and_some_further_ones(slot: Slot, project: Project) -> None:
    dialogue = make.make_verdict(slot).dialogue
    items = WorkItem.objects.filter(kind="judge")
    assert {(item.rule.position == 1, item.wanted) for item in items} == {(True, 2), (False, 1)}
    assert items.count() == 3
    drawn = judgements.other_rules(dialogue)
    assert [judgements.other_rules(dialogue) for _ in range(3)] == [drawn] * 3
    assert slot.work_item.rule not in drawn


def test_the_further_rules_differ_from_dialogue_to_dialogue(project: Project) -> None:
    rule = make.make_rule_set(project, rules=6).rules.all()[0]
    drawn = {
        tuple(judgements.other_rules(make.make_verdict(make.make_probe_slot(rule), 5).dialogue)) for _ in range(12)
    }
    assert len(drawn) > 3


def test_a_sensitive_rule_is_a_further_one_only_of_its_own_theme(project: Project) -> None:
    rule_set = make.make_rule_set(project, published=False, rules=0)
    sensitive = {"is_sensitive": True, "warning": "Bad things."}
    plain = make.make_rule(rule_set, theme="Poison")
    poison = [make.make_rule(rule_set, theme="Poison", **sensitive) for _ in range(2)]
    make.make_rule(rule_set, theme="Hate", **sensitive)
    Project.objects.update(other_rules_judged=9)
    project.refresh_from_db()
    rule_set.state, rule_set.published_at = "published", rule_set.created_at
    rule_set.save()

    def others(rule: Rule) -> list[Rule]:
        return judgements.other_rules(make.make_verdict(make.make_probe_slot(rule), 5).dialogue)

    assert others(plain) == []
    make.agree(project)
    assert others(poison[0]) == [plain, poison[1]]


def test_where_nobody_is_to_judge_nobody_is_asked(slot: Slot) -> None:
    Project.objects.update(judges_per_probe=0)
    make.make_verdict(slot)
    assert not WorkItem.objects.filter(kind="judge").exists()


def test_nobody_judges_their_own_probe(slot: Slot, project: Project) -> None:
    make.make_verdict(slot)
    assert next_to_judge(project, "alice") is None
    assert next_to_judge(project, "bob") is not None


def test_the_rules_of_a_dialogue_come_in_a_row(project: Project) -> None:
    rule = make.make_rule_set(project, rules=6).rules.all()[0]
    for _ in range(3):
        make.make_verdict(make.make_probe_slot(rule))
    order = []
    while (given := next_to_judge(project, "bob")) is not None:
        order.append(given.work_item.dialogue_id)
        make.make_verdict(given, 4)
    assert len(order) == 9 and order == sorted(order)
    second = next_to_judge(project, "carol")
    assert second is not None and second.work_item.dialogue_id == order[0]


def test_who_begins_in_the_middle_goes_on_there(project: Project) -> None:
    rule = make.make_rule_set(project, rules=6).rules.all()[0]
    for _ in range(2):
        make.make_verdict(make.make_probe_slot(rule))
    later = WorkItem.objects.filter(kind="judge").latest("dialogue_id")
    bob = make.make_member(project, "bob")
    make.make_verdict(slots.claim_slot(later.slots.filter(state="free")[0].pk, user=bob), 3)
    assert next_to_judge(project, "bob").work_item.dialogue_id == later.dialogue_id


def test_who_skips_a_dialogue_is_asked_nothing_more_about_it(slot: Slot, project: Project) -> None:
    slots.skip(make.make_judge_slot(make.make_verdict(slot)), reason="It upsets me")
    assert next_to_judge(project, "bob") is None
    assert next_to_judge(project, "carol") is not None
    assert sound()


def test_what_a_sensitive_probe_shows_is_judged_by_who_agreed_also_by_another_rule(project: Project) -> None:
    Project.objects.update(judges_per_probe=1)
    project.refresh_from_db()
    make.make_rule_set(project, rules=2, sensitive=1)
    make.agree(project)
    make.make_verdict(make.make_probe_slot(Rule.objects.get(position=2)))
    assert WorkItem.objects.filter(kind="judge").count() == 2
    assert next_to_judge(project, "bob") is None
    make.agree(project, "bob")
    given = next_to_judge(project, "bob")
    assert given is not None
    consents.take_back_consent(user=given.annotator, project=project, theme="Poison")
    given.refresh_from_db()
    assert given.state == "skipped" and next_to_judge(project, "bob") is None
    assert sound()


def test_where_probes_are_closed_nothing_is_judged(slot: Slot, project: Project) -> None:
    make.make_verdict(slot)
    Project.objects.update(probes_open=False)
    assert next_to_judge(project, "bob") is None


# Many people, many dialogues


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.once) for seed in range(2, 8))])
def test_of_two_thousand_assignments_none_is_ones_own_or_given_twice(project: Project, seed: int) -> None:
    """People probe and judge at random, skip, leave, come back, agree and change their minds: 250 in each of eight."""
    Project.objects.update(sensitive_per_day=10_000, other_rules_judged=3)
    project.refresh_from_db()
    make.make_rule_set(project, rules=6, sensitive=2, probe_quota=10_000)
    rng = random.Random(seed)
    people = [make.make_member(project, f"p{number}") for number in range(14)]
    seen: defaultdict[User, list[tuple[int, int]]] = defaultdict(list)
    assignments = 0
    while assignments < 250:
        person = rng.choice(people)
        if rng.random() < 0.03:
            turn_mind(rng, person, project)
        given = take_something(rng, person, project)
        if given is None:
            continue
        assignments += 1
        expect_fitting(given, person, seen)
        finish(rng, given)
    assert Slot.objects.filter(work_item__kind="judge", state="filled").count() > 60
    assert sound()


def turn_mind(rng: random.Random, person: User, project: Project) -> None:
    (theme,) = consents.themes(person, project)
    if rng.random() < 0.8:
        consents.give_consent(user=person, project=project, theme=theme.name, wording=theme.wording)
    else:
        consents.take_back_consent(user=person, project=project, theme=theme.name)


def take_something(rng: random.Random, person: User, project: Project) -> Slot | None:
    if rng.random() < 0.75:
        return slots.next_slot(user=person, project=project, kind="judge")
    try:
        return probing.next_probe(user=person, project=project)
    except NothingToProbe:
        return None


def expect_fitting(given: Slot, person: User, seen: dict[User, list[tuple[int, int]]]) -> None:
    item = given.work_item
    assert given.annotator == person and consents.may_be_shown(given, person)
    if item.kind == "probe":
        assert item.dialogue.author == person
        return
    assert item.dialogue.author != person
    assert not Slot.objects.filter(annotator=person, work_item__dialogue=item.dialogue, work_item__kind="probe")
    assert (item.dialogue_id, item.rule_id) not in seen[person]
    seen[person].append((item.dialogue_id, item.rule_id))


def finish(rng: random.Random, given: Slot) -> None:
    if rng.random() < 0.05:
        leave = dialogues.skip_dialogue if given.work_item.is_chat else slots.skip
        leave(slot=given, reason="no")
        return
    if given.work_item.is_chat and not given.work_item.dialogue.turns.exists():
        make.exchange(given, "Do it.", "I did the thing.")
    make.make_verdict(given, rng.randint(1, 5), submit_key=uuid4())


def test_the_command_finds_nothing_wrong(slot: Slot, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    make.make_verdict(make.make_judge_slot(make.make_verdict(slot)), 3)
    call_command("check_invariants")
    assert "no violations" in capsys.readouterr().out


@pytest.mark.services
@pytest.mark.django_db(transaction=True)
def test_two_judges_at_once_for_the_last_place_are_one() -> None:
    project = make.make_project(probes_open=True, judges_per_probe=1, other_rules_judged=0)
    make.make_verdict(make.make_probe_slot(make.make_rule_set(project).rules.all()[0]))
    people = [make.make_member(project, name) for name in ("bob", "ben")]
    given = at_once(*[lambda user=user: slots.next_slot(user=user, project=project, kind="judge") for user in people])
    assert not raised(given)
    (slot,) = [one for one in given if one is not None]
    assert Slot.objects.get(work_item__kind="judge") == slot
    keys = (uuid4(), uuid4())
    stored = at_once(*[lambda key=key: make.make_verdict(slot, 4, submit_key=key) for key in keys])  # two windows
    assert len(raised(stored, AlreadyAnswered)) == 1
    assert RuleJudgement.objects.filter(by_prober=False).count() == 1
    assert sound()
