"""Who serves: promoting, refusing, rolling back, and what can never serve."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, transaction

from feedback import dialogues
from feedback.errors import ReasonNeeded
from feedback.models import AuditEntry, Dialogue, GenerationRequest, ModelVersion, Project
from rewardtrain import promotions, rounds
from rewardtrain.models import MetricPoint, Promotion, Round, TrainingRun
from rewardtrain.promotions import PromotionRefused
from tests import make

pytestmark = pytest.mark.django_db
PASSED: dict[str, Any] = {
    "passed": True,
    "lines": [{"key": "length", "name": "Reply length", "found": "+4%", "wanted": "within 15%", "passed": True}],
}
FAILED: dict[str, Any] = {
    "passed": False,
    "lines": [{"key": "length", "name": "Reply length", "found": "+19%", "wanted": "within 15%", "passed": False}],
}


def waiting_round(report: dict[str, Any] = PASSED, project: Project | None = None, number: int = 1) -> Round:
    """A round that waits for a decision about the policy it made."""
    project = project or make.make_project()
    project.refresh_from_db()
    policy = make.make_model(project, state="passed" if report["passed"] else "failed")
    turn = Round.objects.create(
        project=project,
        number=number,
        state="decision",
        policy_before=project.policy,
        policy_after=policy,
        gate_report=report,
    )
    TrainingRun.objects.create(project=project, kind="policy", round=turn, produced=policy, state="done", progress=1.0)
    return turn


def promote(turn: Round, **changes: Any) -> Promotion:
    assert turn.policy_after is not None
    return promotions.promote(project=turn.project, to_version=turn.policy_after, round=turn, **changes)


def test_a_promotion_changes_the_policy_and_says_so_everywhere():
    maria = make.make_member(make.make_project(), "maria", "manager")
    turn = waiting_round()
    before = turn.project.policy
    promotion = promote(turn, by=maria)
    project = Project.objects.get()
    assert project.policy == turn.policy_after
    assert (promotion.from_version, promotion.to_version, promotion.round, promotion.by) == (
        before, turn.policy_after, turn, maria,
    )  # fmt: skip
    assert promotion.gate_report == PASSED
    before.refresh_from_db()
    assert before.state == ModelVersion.State.RETIRED
    turn.refresh_from_db()
    assert (turn.state, turn.decided_by) == ("promoted", maria)
    assert turn.decided_at is not None
    entry = AuditEntry.objects.get(action="model.promoted")
    assert (entry.actor, entry.details["promotion"]) == (maria, promotion.pk)


def test_dialogues_nobody_has_begun_are_withdrawn_so_the_new_policy_answers():
    project = make.make_project(ready_dialogues=1)
    make.make_prompt(project)
    dialogues.keep_dialogues_ready(project)
    old = Dialogue.objects.get()
    turn = waiting_round(project=project)
    promote(turn)
    old.refresh_from_db()
    assert old.ended_at is not None
    project.refresh_from_db()
    dialogues.keep_dialogues_ready(project)
    assert GenerationRequest.objects.latest("pk").model_version == turn.policy_after


def test_a_dialogue_in_somebodys_hands_goes_on():
    slot = make.make_chat()
    promote(waiting_round(project=slot.work_item.project))
    slot.refresh_from_db()
    assert slot.state == "held"
    assert slot.work_item.dialogue.is_open


def test_a_failed_gate_needs_a_typed_reason():
    turn = waiting_round(FAILED)
    with pytest.raises(ReasonNeeded):
        promote(turn, reason="   ")
    assert Project.objects.get().policy == turn.policy_before
    promotion = promote(turn, reason="The added words are wanted.")
    assert promotion.reason == "The added words are wanted."
    assert Round.objects.get().reason == "The added words are wanted."


def test_a_policy_without_a_gate_needs_a_reason():
    project = make.make_project()
    untested = make.make_model(project, state="trained")
    with pytest.raises(ReasonNeeded):
        promotions.promote(project=project, to_version=untested)
    promotions.promote(project=project, to_version=untested, reason="Brought along from elsewhere.")
    assert Project.objects.get().policy == untested


def test_a_gate_against_a_policy_that_no_longer_serves_needs_a_reason():
    project = make.make_project()
    older, newer = waiting_round(project=project), waiting_round(project=project, number=2)
    promote(newer)
    with pytest.raises(ReasonNeeded, match="no longer serves"):
        promote(older)


@pytest.mark.parametrize("kind", ["preference", "rule"])
def test_what_is_no_policy_can_not_serve(kind):
    project = make.make_project()
    scorer = make.make_model(project, kind, state="passed")
    with pytest.raises(PromotionRefused, match="no policy"):
        promotions.promote(project=project, to_version=scorer, reason="A slip.")


def test_another_projects_policy_can_not_serve():
    project, other = make.make_project(), make.make_project("orchard")
    with pytest.raises(PromotionRefused, match="no policy"):
        promotions.promote(project=project, to_version=other.policy, reason="It is better.")


def test_the_policy_that_serves_can_not_be_promoted_again():
    project = make.make_project()
    with pytest.raises(PromotionRefused, match="serves already"):
        promotions.promote(project=project, to_version=project.policy, reason="Twice.")


def test_a_round_vouches_only_for_the_policy_it_made():
    turn = waiting_round()
    stray = make.make_model(turn.project, state="passed")
    with pytest.raises(PromotionRefused, match="did not make"):
        promotions.promote(project=turn.project, to_version=stray, round=turn)


def break_metric(turn: Round) -> None:
    MetricPoint.objects.create(run=turn.runs.get(), step=3, name="ppo/kl_nats", value=float("inf"))


def break_run(turn: Round) -> None:
    turn.runs.update(state="failed", error="Loss became NaN at step 12.")


def break_found(turn: Round) -> None:
    line = {"key": "reward", "name": "Reward", "found": "+nan ± nan", "wanted": "above 0", "passed": False}
    Round.objects.filter(pk=turn.pk).update(gate_report={"passed": False, "lines": [line]})


@pytest.mark.parametrize("damage", [break_metric, break_run, break_found])
def test_a_run_without_finite_numbers_can_never_serve_whatever_the_reason(damage):
    turn = waiting_round()
    damage(turn)
    turn.refresh_from_db()
    with pytest.raises(PromotionRefused, match="finite"):
        promote(turn, reason="I trust it.")
    assert Project.objects.get().policy == turn.policy_before
    assert not Promotion.objects.exists()


def test_words_that_look_like_numbers_do_not_hold_a_policy_back():
    turn = waiting_round(PASSED | {"samples": [{"prompt": [{"role": "user", "content": "nan and inf"}]}]})
    promote(turn)
    assert Project.objects.get().policy == turn.policy_after


def test_a_round_is_decided_once():
    turn = waiting_round()
    promote(turn)
    with pytest.raises(PromotionRefused, match="does not wait"):
        promotions.refuse(round=turn, reason="Too late.")


def test_two_managers_at_the_same_moment_make_one_promotion(monkeypatch):
    """The second has read the old policy and finds another one when it writes."""
    turn, other = waiting_round(), waiting_round(number=2)
    inner = promotions._refuse_without_reason

    def somebody_is_quicker(*args: Any) -> None:
        inner(*args)
        Project.objects.update(policy=other.policy_after)

    monkeypatch.setattr(promotions, "_refuse_without_reason", somebody_is_quicker)
    with pytest.raises(PromotionRefused, match="same moment"):
        promote(turn)
    assert not Promotion.objects.exists()


def test_promoting_by_hand_closes_the_round_that_waits_for_it():
    turn = waiting_round()
    promotion = promotions.promote(project=turn.project, to_version=turn.policy_after)
    assert promotion.round == turn
    turn.refresh_from_db()
    assert turn.state == "promoted"


def at_the_gate(report: dict[str, Any] = PASSED) -> Round:
    """A round whose gate has just been measured, in a project that promotes at once."""
    turn = waiting_round(report)
    Project.objects.update(promote_at_once=True)
    Round.objects.update(state="gate", gate_report={})
    TrainingRun.objects.create(project=turn.project, kind="gate", round=turn, state="done", progress=1.0, result=report)
    turn = Round.objects.get(pk=turn.pk)
    assert rounds.advance(turn) == 1
    return Round.objects.get(pk=turn.pk)


def test_what_passed_serves_at_once_where_the_project_says_so():
    turn = at_the_gate()
    assert (turn.state, Promotion.objects.get().by) == ("promoted", None)
    assert Project.objects.get().policy == turn.policy_after


def test_what_failed_waits_for_a_person_even_there():
    turn = at_the_gate(FAILED)
    assert (turn.state, Promotion.objects.count()) == ("decision", 0)


def test_what_was_measured_against_another_policy_waits_for_a_person(monkeypatch):
    project = make.make_project()
    newer = make.make_model(project, state="passed")
    inner = promotions.promote

    def after_somebody_promoted(**asked: Any) -> Promotion:
        Project.objects.update(policy=newer)
        return inner(**asked)

    monkeypatch.setattr(promotions, "promote", after_somebody_promoted)
    turn = at_the_gate()
    assert (turn.state, Promotion.objects.count()) == ("decision", 0)
    assert Project.objects.get().policy == newer


@pytest.mark.parametrize("state", ["policy", "gate"])
def test_a_policy_whose_round_is_not_over_can_not_serve_yet(state):
    turn = waiting_round()
    made = turn.policy_after
    over = {"policy_after": None} if state == "policy" else {}  # its run is done, the round has not moved on yet
    Round.objects.update(state=state, gate_report={}, **over)
    with pytest.raises(PromotionRefused, match="Round 1, which made policy 2, is .*Wait until it has ended, or stop"):
        promotions.promote(project=turn.project, to_version=made, reason="I can not wait.")
    assert Project.objects.get().policy == turn.policy_before
    rounds.stop_round(turn=Round.objects.get(), by=None, reason="I can not wait.")
    promotions.promote(project=turn.project, to_version=made, reason="I can not wait.")
    assert Project.objects.get().policy == made


def test_refusing_never_retires_what_serves():
    turn = waiting_round()
    Project.objects.update(policy=turn.policy_after)
    promotions.refuse(round=turn, reason="It serves already.")
    turn.refresh_from_db()
    assert turn.state == "refused"
    assert turn.policy_after.state == ModelVersion.State.PASSED
    assert Project.objects.get().policy == turn.policy_after


def test_refusing_retires_the_policy_and_leaves_what_serves():
    turn = waiting_round(FAILED)
    promotions.refuse(round=turn)
    turn.refresh_from_db()
    assert turn.state == "refused"
    assert turn.policy_after.state == ModelVersion.State.RETIRED
    assert Project.objects.get().policy == turn.policy_before
    assert AuditEntry.objects.filter(action="round.refused").exists()


def test_refusing_what_passed_its_gate_needs_a_reason():
    turn = waiting_round()
    with pytest.raises(ReasonNeeded):
        promotions.refuse(round=turn)
    promotions.refuse(round=turn, reason="It sounds like an advertisement.")
    assert Round.objects.get().reason == "It sounds like an advertisement."


def test_a_roll_back_is_another_promotion_to_the_policy_before():
    turn = waiting_round()
    promote(turn)
    promotion = promotions.roll_back(project=turn.project, reason="People complain.")
    assert (promotion.from_version, promotion.to_version) == (turn.policy_after, turn.policy_before)
    assert Project.objects.get().policy == turn.policy_before
    assert Promotion.objects.count() == 2
    turn.policy_before.refresh_from_db()
    assert turn.policy_before.state == ModelVersion.State.PASSED


def test_a_second_roll_back_leads_further_back_and_not_forth():
    project = make.make_project()
    first = project.policy
    for number in (1, 2):
        promote(waiting_round(project=project, number=number))
    project.refresh_from_db()
    promotions.roll_back(project=project, reason="Once.")
    promotions.roll_back(project=project, reason="Twice.")
    assert Project.objects.get().policy == first
    with pytest.raises(PromotionRefused, match="nothing to roll back"):
        promotions.roll_back(project=project, reason="Three times.")


def test_a_policy_that_had_failed_its_gate_comes_back_as_failed():
    project = make.make_project()
    promote(waiting_round(FAILED, project), reason="All the same.")
    promote(waiting_round(project=project, number=2))
    back = promotions.roll_back(project=project, reason="The older one was liked more.")
    assert back.to_version.state == ModelVersion.State.FAILED


def test_a_roll_back_needs_a_reason():
    turn = waiting_round()
    promote(turn)
    with pytest.raises(ReasonNeeded):
        promotions.roll_back(project=turn.project, reason="")


def test_promotions_are_never_changed():
    promotion = promote(waiting_round())
    with pytest.raises(DatabaseError), transaction.atomic():
        Promotion.objects.filter(pk=promotion.pk).update(reason="rewritten")


def test_the_command_promotes_and_says_how_to_go_back():
    turn = waiting_round()
    out = StringIO()
    call_command("promote", "--model", str(turn.policy_after_id), stdout=out)
    assert "Policy 2 serves Plant desk from the next message on, in place of policy 1." in out.getvalue()
    assert "--project plant-desk --back" in out.getvalue()
    call_command("promote", "--project", "plant-desk", "--back", "--reason", "Worse.", stdout=out)
    assert Project.objects.get().policy == turn.policy_before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "999"], "no model 999"),
        (["--back", "--reason", "Worse."], "Name the project"),
        (["--project", "nowhere", "--back", "--reason", "Worse."], "Known: plant-desk"),
        (["--project", "plant-desk", "--back"], "Say why"),
    ],
)
def test_the_command_says_what_is_missing(arguments, says):
    make.make_project()
    with pytest.raises(CommandError, match=says):
        call_command("promote", *arguments)
