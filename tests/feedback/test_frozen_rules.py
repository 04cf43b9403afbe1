"""A published rule cannot be changed, whoever asks and however; a rule set goes one way only."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from feedback import frozen_rules
from feedback.models import Rule, RuleSet, WorkItem
from tests import make

pytestmark = pytest.mark.django_db


def refused(act: Callable[[], object], match: str = frozen_rules.MESSAGE) -> None:
    with pytest.raises(IntegrityError, match=match), transaction.atomic():
        act()


def run(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


@pytest.fixture(params=["published", "retired"])
def frozen(request: pytest.FixtureRequest) -> RuleSet:
    rule_set = make.make_rule_set()
    if request.param == "retired":
        RuleSet.objects.filter(pk=rule_set.pk).update(state="retired", retired_at=timezone.now())
        rule_set.refresh_from_db()
    return rule_set


CHANGES: list[dict[str, object]] = [
    {"wording": "Another one."},
    {"name": "Another"},
    {"key": "another"},
    {"breaks": ["This."]},
    {"is_sensitive": True, "warning": "Blood."},
    {"weight": 2.0},
    {"probe_quota": 1},
    {"position": 9},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_no_field_of_a_frozen_rule_changes(frozen: RuleSet, change: dict[str, object]) -> None:
    rule = frozen.rules.all()[0]
    before = Rule.objects.values().get(pk=rule.pk)
    refused(lambda: Rule.objects.filter(pk=rule.pk).update(**change))
    for name, value in change.items():
        setattr(rule, name, value)
    refused(rule.save)
    assert Rule.objects.values().get(pk=rule.pk) == before


def test_no_rule_joins_or_leaves_a_frozen_set(frozen: RuleSet) -> None:
    refused(lambda: make.make_rule(frozen, key="late"))
    refused(lambda: frozen.rules.all()[0:1].get().delete())
    refused(lambda: run(f"DELETE FROM feedback_rule WHERE rule_set_id = {frozen.pk}"))
    draft = make.make_rule_set(frozen.project, published=False)
    refused(lambda: draft.rules.update(rule_set=frozen))
    refused(lambda: frozen.rules.update(rule_set=draft))
    assert frozen.rules.count() == 2


def test_a_frozen_set_is_not_deleted_and_not_opened_again(frozen: RuleSet) -> None:
    sets = RuleSet.objects.filter(pk=frozen.pk)
    refused(lambda: sets.update(state="draft", published_at=None, retired_at=None))
    refused(lambda: sets.update(number=9))
    refused(lambda: sets.update(note="It was never so."))
    refused(lambda: run(f"DELETE FROM feedback_ruleset WHERE id = {frozen.pk}"))
    if connection.vendor == "postgresql":
        connection.check_constraints()
        refused(lambda: run("TRUNCATE feedback_ruleset CASCADE"))
        refused(lambda: run("TRUNCATE feedback_rule CASCADE"))
    assert sets.exists()


def test_a_rule_set_begins_as_a_draft_and_a_retired_one_stays_retired() -> None:
    project = make.make_project()
    now = timezone.now()
    refused(lambda: RuleSet.objects.create(project=project, number=1, state="published", published_at=now))
    rule_set = make.make_rule_set(project)
    sets = RuleSet.objects.filter(pk=rule_set.pk)
    assert sets.update(state="retired", retired_at=now) == 1
    refused(lambda: sets.update(state="published", retired_at=None))


def test_a_draft_is_edited_freely() -> None:
    draft = make.make_rule_set(published=False)
    assert draft.rules.update(wording="Better words.") == 2
    make.make_rule(draft, key="third")
    draft.rules.filter(key="r1").delete()
    assert [rule.key for rule in draft.rules.all()] == ["r2", "third"]
    draft.rules.all().delete()
    draft.delete()
    assert not RuleSet.objects.exists()


def test_a_project_has_one_draft_and_one_published_set() -> None:
    project = make.make_project()
    make.make_rule_set(project)
    refused(lambda: make.make_rule_set(project), match="(?i)unique")
    make.make_rule_set(project, published=False)
    refused(lambda: make.make_rule_set(project, published=False), match="(?i)unique")


def test_the_guard_can_be_installed_twice_and_lifted() -> None:
    frozen_rules.install(connection)
    rule_set = make.make_rule_set()
    refused(lambda: rule_set.rules.update(name="Another"))
    frozen_rules.remove(connection)
    assert rule_set.rules.update(name="Another") == 2
    frozen_rules.install(connection)
    refused(lambda: rule_set.rules.update(name="A third"))


# What constraints refuse


def test_probe_and_judge_are_about_a_dialogue_and_a_rule() -> None:
    probe = make.make_probe()
    project, dialogue, rule = probe.dialogue.project, probe.dialogue, probe.rule

    def work(**fields: object) -> Callable[[], object]:
        return lambda: WorkItem.objects.create(project=project, **fields)

    both = {"dialogue": dialogue, "rule": rule}
    for kind in ("probe", "judge"):
        refused(work(kind=kind, dialogue=dialogue), match="(?i)check")
        refused(work(kind=kind, rule=rule), match="(?i)check")
    refused(work(kind="probe", wanted=2, **both), match="(?i)check")
    refused(work(kind="chat_and_rank", **both), match="(?i)check")
    WorkItem.objects.create(project=project, kind="judge", **both)
    refused(work(kind="judge", **both), match="(?i)unique")
    WorkItem.objects.create(project=project, kind="judge", dialogue=dialogue, rule=rule.rule_set.rules.all()[1])


@pytest.mark.parametrize("wrong", [{"verdict": 0}, {"verdict": 6}, {"seconds": -1.0}, {"counts": False}])
def test_a_judgement_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    refused(lambda: make.make_judgement(**wrong), match="(?i)check")


def test_a_judgement_has_one_revision_of_a_number() -> None:
    judgement = make.make_judgement()
    judgement.pk = None
    refused(lambda: judgement.save(force_insert=True), match="(?i)unique")


def test_a_sensitive_rule_says_what_may_appear() -> None:
    draft = make.make_rule_set(published=False)
    refused(lambda: draft.rules.update(is_sensitive=True), match="(?i)check")
    assert draft.rules.update(is_sensitive=True, warning="Wrong medical advice.") == 2


def test_a_verdict_is_a_chance() -> None:
    assert [make.RuleJudgement(verdict=verdict).broken for verdict in (1, 2, 3, 4, 5)] == [1, 0.75, 0.5, 0.25, 0]
