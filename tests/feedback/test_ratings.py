"""What people say of a reply: asked, sent at once, corrected, late, taken back; in which words; and its figures."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from uuid import uuid4

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from feedback import consents, frozen_scales, rating_figures, ratings, ratings_wanted, scale_files, scale_sets, slots
from feedback.errors import (
    AlreadyAnswered,
    AnswerTakenBack,
    BadRating,
    NotRateable,
    ScaleFileRefused,
    ScaleRefused,
    ScaleSetInTheWay,
    SlotNotYours,
    SubmitKeyReused,
    WordingChanged,
)
from feedback.invariants import violations
from feedback.models import AuditEntry, Candidate, Project, Rating, Scale, ScaleSet, Slot, Turn, WorkItem
from feedback.tasks import sweep
from tests import make
from tests.threads import at_once

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return make.make_project()


@pytest.fixture
def lamda(project: Project) -> ScaleSet:
    return make.make_scale_set(project)


def clean() -> None:
    assert list(violations()) == []


def values(rows: list[Rating]) -> dict[str, tuple[str, bool]]:
    return {rating.scale.key: (rating.value, rating.implied) for rating in rows}


def next_of(name: str, project: Project) -> Slot | None:
    return slots.next_slot(user=make.make_member(project, name), project=project, kind=WorkItem.Kind.RATE)


# What is sent


def test_all_questions_are_answered_at_once(lamda: ScaleSet) -> None:
    slot = make.make_rate_slot(lamda)
    rows = make.rate(slot, seconds=12.5)
    assert values(rows) == {
        "sensible": ("yes", False), "specific": ("maybe", False), "interesting": ("no", False),
        "harm": ("no", False), "unfair": ("no", False), "misleading": ("no", False), "grounded": ("no_claims", False),
    }  # fmt: skip
    assert len({rating.created_at for rating in rows}) == 1 and {rating.seconds for rating in rows} == {12.5}
    slot.refresh_from_db()
    assert slot.state == "filled"
    clean()


def test_what_an_earlier_answer_settles_is_not_asked_and_has_the_value_that_follows(lamda: ScaleSet) -> None:
    rows = make.rate(make.make_rate_slot(lamda), sensible="no", specific="yes", interesting="yes")
    found = values(rows)
    assert found["sensible"] == ("no", False)
    assert found["specific"] == ("no", True) and found["interesting"] == ("no", True)  # through both steps
    assert found["harm"] == ("no", False)
    clean()


def test_flags_are_those_that_hold_or_none(project: Project) -> None:
    slot = make.make_rate_slot(make.make_scale_set(project, "instructgpt"))
    rows = values(make.rate(slot))
    assert rows["work"] == ("fails_task,makes_things_up", False) and rows["content"] == ("none", False)
    scale = Scale.objects.get(key="work")
    assert scale.in_words("fails_task,makes_things_up") == (
        "It does something else than it was asked, It states as fact what it cannot know"
    )
    assert not scale.takes("makes_things_up,fails_task") and not scale.takes("none,fails_task")
    assert not scale.takes("") and not scale.takes("fails_task,fails_task")


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"harm": ""}, "“Risk of harm” is not answered yet"),
        ({"harm": "perhaps"}, "The answer to “Risk of harm” is none"),
        ({"sensible": ""}, "“Sensible” is not answered yet"),
    ],
)
def test_one_answer_that_is_missing_or_wrong_and_nothing_is_stored(
    lamda: ScaleSet, answers: dict[str, str], said: str
) -> None:
    slot = make.make_rate_slot(lamda)
    with pytest.raises(BadRating, match=said):
        make.rate(slot, **answers)
    slot.refresh_from_db()
    assert not Rating.objects.exists() and slot.state == "held"


def test_the_same_key_is_stored_once_and_other_answers_are_refused(lamda: ScaleSet) -> None:
    slot, key = make.make_rate_slot(lamda), uuid4()
    first = make.rate(slot, submit_key=key)
    again = make.rate(slot, submit_key=key)
    assert [rating.pk for rating in again] == [rating.pk for rating in first]
    with pytest.raises(SubmitKeyReused):
        make.rate(slot, submit_key=key, harm="yes")
    assert Rating.objects.count() == 7


def test_a_correction_is_a_revision_of_every_answer(lamda: ScaleSet) -> None:
    slot = make.make_rate_slot(lamda)
    make.rate(slot)
    with pytest.raises(AlreadyAnswered):
        make.rate(slot, sensible="no")
    make.rate(slot, sensible="no", revises=1)
    in_force = {rating.scale.key: rating.value for rating in Rating.objects.in_force()}
    assert in_force["sensible"] == in_force["specific"] == "no" and len(in_force) == 7
    assert Rating.objects.count() == 14
    clean()


def test_taken_back_counts_no_more_and_somebody_else_is_asked(lamda: ScaleSet, project: Project) -> None:
    slot, key = make.make_rate_slot(lamda, wanted=1), uuid4()
    make.rate(slot, submit_key=key)
    assert len(ratings.withdraw_ratings(slot=slot)) == 7
    assert not Rating.objects.in_force().exists() and ratings.withdraw_ratings(slot=slot) == []
    with pytest.raises(AnswerTakenBack):
        make.rate(slot, submit_key=key)
    assert next_of("alice", project) is None and next_of("bob", project) is not None
    clean()


@pytest.mark.parametrize("is_free", [True, False])
def test_a_late_answer_is_kept_and_counts_where_nobody_else_took_the_place(lamda: ScaleSet, is_free: bool) -> None:
    slot = make.make_rate_slot(lamda, wanted=1)
    make.lapse(slot)
    if not is_free:
        make.rate(make.make_rate_slot(lamda, slot.work_item.candidate, name="bob", wanted=1))
    rows = make.rate(slot)
    assert {rating.late for rating in rows} == {True} and {rating.counts for rating in rows} == {is_free}
    assert len({rating.annotator for rating in Rating.objects.counted()}) == 1
    clean()


def test_a_piece_of_another_kind_or_one_that_was_skipped_cannot_be_rated(lamda: ScaleSet) -> None:
    slot = make.make_rate_slot(lamda)
    slots.skip(slot, reason="I cannot judge this")
    with pytest.raises(SlotNotYours):
        make.rate(slot)
    with pytest.raises(SlotNotYours):
        ratings.candidate_of(make.make_rank_slot())


@pytest.mark.django_db(transaction=True)
def test_two_windows_at_once_store_one_answer() -> None:
    slot = make.make_rate_slot()
    results = at_once(lambda: make.rate(slot), lambda: make.rate(slot, harm="yes"))
    assert sorted(type(result).__name__ for result in results) == ["AlreadyAnswered", "list"]
    assert Rating.objects.count() == 7


# Which words are asked


def test_who_holds_a_reply_is_asked_in_the_words_it_was_claimed_with(lamda: ScaleSet) -> None:
    slot = make.make_rate_slot(lamda)
    old = lamda.scales.get(key="harm")
    new = scale_sets.change_words(scale=old, words={"question": "Is it dangerous?"}, options={"yes": "Surely"}, by=None)
    assert (new.version, new.question, new.choices[0]) == (2, "Is it dangerous?", ("yes", "Surely"))
    assert {rating.scale_id for rating in make.rate(slot) if rating.scale.key == "harm"} == {old.pk}
    later = make.make_rate_slot(lamda, slot.work_item.candidate, name="bob")
    assert {rating.scale_id for rating in make.rate(later) if rating.scale.key == "harm"} == {new.pk}
    clean()


def test_the_same_words_are_no_version_and_one_that_was_changed_since_is_refused(lamda: ScaleSet) -> None:
    scale = lamda.scales.get(key="harm")
    assert scale_sets.change_words(scale=scale, words={"name": " Risk of  harm "}, options={}, by=None) == scale
    scale_sets.change_words(scale=scale, words={"name": "Danger"}, options={}, by=None)
    with pytest.raises(ScaleSetInTheWay, match="changed this question"):
        scale_sets.change_words(scale=scale, words={"name": "Peril"}, options={}, by=None)
    with pytest.raises(ScaleRefused) as refusal:
        newest = lamda.scales.get(key="harm", version=2)
        scale_sets.change_words(scale=newest, words={"question": " "}, options={"yes": ""}, by=None)
    assert set(refusal.value.problems) == {"question", "options"}


def test_no_field_of_a_question_changes_whoever_asks(lamda: ScaleSet) -> None:
    scales = Scale.objects.filter(pk=lamda.scales.get(key="harm").pk)
    for change in ({"question": "Is it?"}, {"options": []}, {"positive": []}, {"position": 9}, {"guidance": ""}):
        with pytest.raises(IntegrityError, match=frozen_scales.MESSAGE), transaction.atomic():
            scales.update(**change)
    scales.update(asked_until=timezone.now())
    with pytest.raises(IntegrityError, match=frozen_scales.MESSAGE), transaction.atomic():
        scales.update(asked_until=None)
    frozen_scales.install(connection)  # twice changes nothing


def test_a_question_that_is_off_is_not_asked_and_settles_nothing(lamda: ScaleSet) -> None:
    scale_sets.turn_off(scale=lamda.scales.get(key="sensible"), by=None)
    rows = values(make.rate(make.make_rate_slot(lamda), specific="no"))
    assert "sensible" not in rows and rows["specific"] == ("no", False) and rows["interesting"] == ("no", True)
    again = scale_sets.turn_on(scale_set=lamda, key="sensible", by=None)
    assert again is not None and again.version == 2
    assert scale_sets.turn_on(scale_set=lamda, key="sensible", by=None) == again
    clean()


def test_the_last_question_of_a_set_stays(project: Project) -> None:
    sparrow = make.make_scale_set(project, "sparrow")
    plausible, supported = sparrow.scales.all()
    scale_sets.turn_off(scale=supported, by=None)
    with pytest.raises(ScaleSetInTheWay, match="last question"):
        scale_sets.turn_off(scale=plausible, by=None)


def test_who_took_it_up_again_after_the_questions_changed_is_told_so(lamda: ScaleSet) -> None:
    slot = make.make_rate_slot(lamda, wanted=1)
    make.lapse(slot)
    scale_sets.change_words(scale=lamda.scales.get(key="harm"), words={"name": "Danger"}, options={}, by=None)
    make.make_rate_slot(lamda, slot.work_item.candidate, wanted=1)
    with pytest.raises(WordingChanged):
        make.rate(slot)


# What is asked for


def test_a_reply_is_asked_about_once_a_set_and_then_by_more_people(lamda: ScaleSet) -> None:
    slot = make.make_rate_slot(lamda, wanted=1)
    again = ratings_wanted.ask_for_ratings(candidate=slot.work_item.candidate, scale_set=lamda, wanted=3)
    assert again == slot.work_item and again.slots.count() == 3


def test_each_reply_is_rated_once_by_a_person(lamda: ScaleSet, project: Project) -> None:
    make.rate(make.make_rate_slot(lamda, wanted=3))
    assert next_of("alice", project) is None and next_of("bob", project) is not None


def test_an_open_set_is_kept_ready_with_the_newest_replies_one_of_each_turn(project: Project) -> None:
    comparisons = [make.make_comparison(project, candidates=2, text=f"Opening {number}?") for number in range(3)]
    elsewhere = make.make_comparison(project, candidates=2, text="Measured?", kind="evaluation")
    scale_set = make.make_scale_set(project, "sparrow", ready=2)
    assert ratings_wanted.keep_ratings_ready(project) == 2 and ratings_wanted.keep_ratings_ready(project) == 0
    asked = list(Candidate.objects.filter(work_items__scale_set=scale_set).order_by("pk"))
    assert [one.comparison for one in asked] == comparisons[1:] and {one.index for one in asked} == {0}
    scale_sets.set_asking(scale_set=scale_set, raters=3, ready=100, by=None)
    assert ratings_wanted.keep_ratings_ready(project) == 4  # all others, and none of what measures policies
    assert not WorkItem.objects.filter(candidate__comparison=elsewhere).exists()
    scale_sets.open_or_close(scale_set=scale_set, is_open=False, by=None)
    assert ratings_wanted.keep_ratings_ready(project) == 0 and next_of("alice", project) is None
    clean()


def test_what_cannot_be_rated_says_why(project: Project, lamda: ScaleSet) -> None:
    other = make.make_comparison(make.make_project("elsewhere"), candidates=2).candidates.all()[0]
    measured = make.make_comparison(project, candidates=2, kind="evaluation").candidates.all()[0]
    for candidate, scale_set, said in (
        (other, lamda, "another project"),
        (measured, lamda, "measures policies"),
        (measured, make.make_scale_set(project, "unit-tests"), "A program answers"),
    ):
        with pytest.raises(NotRateable, match=said):
            ratings_wanted.ask_for_ratings(candidate=candidate, scale_set=scale_set)
    with pytest.raises(NotRateable, match="said nothing"):
        ratings_wanted.ask_about_dialogue(dialogue=make.make_dialogue(project, text="Silence?"), scale_set=lamda)


def test_a_reply_that_may_harm_is_shown_to_those_who_agreed(project: Project, lamda: ScaleSet) -> None:
    rule = make.make_rule_set(project, rules=1, sensitive=1).rules.get()
    make.agree(project, "alice")
    probe = make.make_probe(rule)
    Turn.objects.filter(dialogue=probe.dialogue, role="assistant").update(candidate=None)
    candidate = Candidate.objects.create(
        dialogue=probe.dialogue, after_position=0, index=0, turns=[{"role": "assistant", "content": "I did."}]
    )
    item = ratings_wanted.ask_for_ratings(candidate=candidate, scale_set=lamda, wanted=2)
    bob = make.make_member(project, "bob")
    assert next_of("bob", project) is None
    slot = next_of("alice", project)
    assert slot is not None and slot.work_item == item and consents.sensitive_rule(slot) == rule
    assert not consents.may_be_shown(Slot(work_item=item, annotator=bob), bob)
    project.sensitive_per_day = 1
    project.save()
    make.agree(project, "bob")
    assert next_of("bob", project) is not None
    clean()


def test_sets_are_opened_closed_and_changed_in_the_audit(project: Project) -> None:
    maria = make.make_member(project, "maria", "manager")
    found = scale_files.read_file(Path("sparrow"))
    scale_set = scale_sets.add_set(project=project, key="sparrow", found=found, by=maria)
    with pytest.raises(ScaleSetInTheWay, match="already"):
        scale_sets.add_set(project=project, key="sparrow", found=found, by=maria)
    for is_open in (True, True, False):
        scale_sets.open_or_close(scale_set=scale_set, is_open=is_open, by=maria)
    scale_sets.set_asking(scale_set=scale_set, raters=4, ready=0, by=maria)
    with pytest.raises(ScaleRefused):
        scale_sets.set_asking(scale_set=scale_set, raters=0, ready=1000, by=maria)
    actions = list(AuditEntry.objects.filter(actor=maria).order_by("pk").values_list("action", flat=True))
    assert actions == ["scale_set.added", "scale_set.opened", "scale_set.closed", "scale_set.changed"]
    with pytest.raises(ScaleSetInTheWay, match="A program"):
        scale_sets.open_or_close(scale_set=make.make_scale_set(project, "unit-tests"), is_open=True, by=maria)


# Files


def test_every_set_that_comes_along_can_be_read_and_says_where_it_is_from() -> None:
    assert list(scale_files.DEFAULT_SETS) == ["lamda", "instructgpt", "sparrow", "unit-tests"]
    for name in scale_files.DEFAULT_SETS:
        found = scale_files.read_file(Path(name))
        assert found.scales and found.source
    flags = [values["options"] for _, values in scale_files.read_file(Path("instructgpt")).scales if values["options"]]
    assert sum(map(len, flags)) == 11  # PAPERS: 11 binary labels beside overall quality from 1 to 7


GOOD = """
name: Mine
scales:
  - key: good
    name: Good
    question: Is it good?
    kind: choice
    options: {'yes': 'Yes', 'no': 'No'}
  - key: how
    name: How good
    question: How good is it?
    kind: numbers
    steps: 5
    asked_after: {scale: good, values: ['yes'], else: 1}
"""


def test_a_set_of_ones_own_is_read() -> None:
    found = scale_files.read_text(GOOD)
    assert [key for key, _ in found.scales] == ["good", "how"] and found.scales[1][1]["implied"] == "1"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("scales:", "questions:", "no list named “scales”"),
        ("name: Mine", "name: Mine\nfoo: 1", "nobody knows the field “foo”"),
        ("key: how", "key: good", "another one has the key"),
        ("key: how", "key: How", "use small letters"),
        ("kind: numbers", "kind: stars", "The kind is one of"),
        ("steps: 5", "steps: 12", "2 to 9"),
        ("'yes': 'Yes', 'no': 'No'", "yes: Yes, no: No", "Put it in quotes"),
        ("'yes': 'Yes', 'no': 'No'", "'yes': 'Yes'", "2 to 9 options"),
        ("'yes': 'Yes'", "none: 'None'", "No option can be named “none”"),
        ("scale: good", "scale: bad", "“bad” is no earlier question"),
        ("values: ['yes']", "values: ['perhaps']", "name those after which"),
        ("else: 1", "else: 9", "Say with “else”"),
        ("question: Is it good?", "question: ''", "Write something here"),
        ("steps: 5", "steps: 5\n    positive: {values: ['7']}", "among its values"),
        ("steps: 5", "steps: 5\n    positive: {values: ['5'], votes: 3}", "how many raters"),
        ("name: Mine", "name: Mine\nraters: 99", "1 to 20"),
        ("name: Mine", "name: &a Mine\nsource: *a", "alias"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(ScaleFileRefused, match=said):
        scale_files.read_text(GOOD.replace(old, new, 1))


# Figures


def slow_alpha(units: list[list[str]], *, is_ordered: bool, order: list[str]) -> float:
    """Krippendorff's alpha from all ordered pairs of answers, one by one, without coincidence tables."""
    counted = [unit for unit in units if len(unit) > 1]
    answers = [value for unit in counted for value in unit]

    def distance(a: str, b: str) -> float:
        if not is_ordered:
            return float(a != b)
        low, high = sorted((order.index(a), order.index(b)))
        between = sum(answers.count(order[place]) for place in range(low, high + 1))
        return float((between - (answers.count(a) + answers.count(b)) / 2) ** 2)

    observed = 0.0
    for unit in counted:
        pairs = [distance(unit[i], unit[j]) for i, j in product(range(len(unit)), repeat=2) if i != j]
        observed += sum(pairs) / (len(unit) - 1)
    n = len(answers)
    expected = sum(distance(answers[i], answers[j]) for i, j in product(range(n), repeat=2) if i != j) / (n - 1)
    return 1 - observed / expected


def test_alpha_of_each_scale_equals_an_independent_calculation() -> None:
    yes_no = Scale(kind="choice", options=[{"value": v, "words": v} for v in ("yes", "no", "maybe")])
    numbers = Scale(kind="numbers", steps=7)
    said = [["yes", "no", "yes"], ["maybe", "maybe"], ["no", "no", "no", "yes"], ["yes"], ["maybe", "no"]]
    rated = [["1", "2", "2"], ["7", "6"], ["3", "3", "5"], ["4", "1"], ["2"]]
    for scale, units, is_ordered in ((yes_no, said, False), (numbers, rated, True)):
        [found] = rating_figures.agreement_on(scale, units)
        order = [value for value, _ in scale.choices]
        assert found.alpha.value == pytest.approx(slow_alpha(units, is_ordered=is_ordered, order=order), abs=1e-9)
        assert found.alpha.units == 4 and found.alpha.interval is not None


def test_each_flag_has_an_alpha_of_its_own() -> None:
    flags = Scale(kind="flags", options=[{"value": v, "words": v} for v in ("a", "b")])
    units = [["a,b", "a"], ["none", "b"], ["a", "a"], ["none", "none"]]
    first, second = rating_figures.agreement_on(flags, units)
    assert first.alpha.value == 1.0
    held = [["1", "0"], ["0", "1"], ["0", "0"], ["0", "0"]]
    assert second.alpha.value == pytest.approx(slow_alpha(held, is_ordered=False, order=["0", "1"]), abs=1e-9)


@pytest.mark.parametrize(
    ("votes", "raters", "given", "share"),
    [
        (3, 5, [["yes"] * 3 + ["no"] * 2], 1.0),  # LaMDA: three of five
        (3, 5, [["yes"] * 2 + ["no"] * 2 + ["maybe"]], 0.0),
        (3, 5, [["yes"] * 4], None),  # too few raters
        (2, 3, [["yes"] * 2 + ["no"], ["yes", "no", "no"]], 0.5),
        (2, 3, [["yes"] * 3 + ["no"] * 2], 0.0),  # of five it takes four
    ],
)
def test_a_reply_is_positive_by_the_rule_of_votes(
    votes: int, raters: int, given: list[list[str]], share: float | None
) -> None:
    scale = Scale(kind="choice", positive=["yes"], positive_votes=votes, positive_raters=raters)
    found = rating_figures.positive_replies(scale, given)
    assert found is not None and found.value == share


def test_figures_hold_what_counts_and_not_what_was_said_to_other_words(lamda: ScaleSet) -> None:
    first = make.make_rate_slot(lamda)
    make.rate(first, sensible="no")
    make.rate(make.make_rate_slot(lamda, first.work_item.candidate, name="bob"))
    found = {one.scale.key: one for one in rating_figures.figures_of(lamda)}
    sensible, specific = found["sensible"], found["specific"]
    assert (sensible.answers, sensible.replies, sensible.raters, sensible.implied) == (2, 1, 2, 0)
    assert (specific.answers, specific.implied) == (2, 1)
    assert [(one.value, one.share.hits) for one in sensible.values] == [("yes", 1), ("no", 1), ("maybe", 0)]
    assert sensible.policies[0].policy == str(lamda.project.policy) and sensible.policies[0].speaking_for is not None
    assert sensible.policies[0].speaking_for.value == 0.5
    scale_sets.change_words(scale=sensible.scale, words={"name": "Makes sense"}, options={}, by=None)
    now = {one.scale.key: one for one in rating_figures.figures_of(lamda)}["sensible"]
    assert (now.scale.version, now.answers, now.earlier_answers) == (2, 0, 2)


def test_numbers_have_a_mean(project: Project) -> None:
    scale_set = make.make_scale_set(project, "instructgpt")
    first = make.make_rate_slot(scale_set)
    make.rate(first, overall="6")
    make.rate(make.make_rate_slot(scale_set, first.work_item.candidate, name="bob"), overall="3")
    overall = rating_figures.figures_of(scale_set)[0]
    assert overall.policies[0].mean == 4.5 and overall.policies[0].speaking_for is None


def test_the_sweep_asks_about_replies_and_leaves_what_is_older(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (make.make_comparison(project, candidates=2, text=f"{text}?") for text in ("Old", "New"))
    make.make_scale_set(project, "sparrow", ready=9)
    monkeypatch.setattr(ratings_wanted, "NEWEST", 2)
    sweep()
    assert set(WorkItem.objects.filter(kind="rate").values_list("candidate__comparison", flat=True)) == {new.pk}
    monkeypatch.setattr(ratings_wanted, "NEWEST", 4)
    sweep()
    assert WorkItem.objects.filter(kind="rate", candidate__comparison=old).count() == 2
