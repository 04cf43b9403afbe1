"""Rules in figures: what counts as broken, for which policy, and what follows."""

from __future__ import annotations

import doctest

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from feedback import rule_figures, rule_sets
from feedback.agreement import Alpha, Share
from feedback.models import Project, Rule, RuleJudgement, RuleSet
from feedback.rule_figures import RuleFigures, figures_of
from tests import make


def test_the_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(rule_figures).failed == 0


def judged(rule: Rule, *verdicts: int) -> None:
    """A probe of a rule by the policy that serves, and what people said of it."""
    probe = make.make_probe(rule)
    for name, verdict in zip(("bob", "ben"), verdicts, strict=False):
        make.make_judgement(probe, name=name, verdict=verdict)


@pytest.fixture
def project(db: None) -> Project:
    return make.make_project()


@pytest.fixture
def rules(project: Project) -> RuleSet:
    return make.make_rule_set(project)


def first(rule_set: RuleSet) -> RuleFigures:
    return figures_of(RuleSet.objects.select_related("project__policy").get(pk=rule_set.pk)).rules[0]


def test_a_probe_is_broken_by_what_people_say_together(rules) -> None:
    rule = rules.rules.get(key="r1")
    for verdicts in ((1,), (1, 4), (1, 5), (3,), (5, 5), (2, 3), ()):
        judged(rule, *verdicts)
    # broken: (1) 1, (1, 4) .625, (2, 3) .625; kept: (1, 5) .5, (3) .5, (5, 5) 0; the last was judged by nobody
    found = figures_of(rules)
    assert (found.rules[0].broken, found.rules[1].broken) == (Share(3, 6), Share(0, 0))
    assert (found.broken, found.before) == (Share(3, 6), Share(0, 0))


def test_answers_about_other_rules_count_for_agreement_alone(rules) -> None:
    probe = make.make_probe(rules.rules.get(key="r1"))
    other = make.make_probe(rules.rules.get(key="r2"), name="alice")
    first_said = make.make_judgement(probe, verdict=1)
    RuleJudgement.objects.create(
        dialogue=other.dialogue, rule=probe.rule, verdict=1, slot=first_said.slot, annotator=first_said.annotator,
        annotator_key="u0",
    )  # fmt: skip
    assert first(rules).broken == Share(1, 1)
    assert first(rules).agreement.units == 0


def test_each_policy_has_its_own_rate_and_the_one_before_is_the_newest_probed(project, rules) -> None:
    rule = rules.rules.get(key="r1")
    judged(rule, 1)
    for number, verdicts in ((2, (1, 5)), (3, ()), (4, (5,))):
        project.policy = make.make_model(project, state="passed")
        project.save()
        rule.rule_set.project.refresh_from_db()
        for verdict in verdicts:
            judged(rule, verdict)
        assert project.policy.number == number
    found = figures_of(RuleSet.objects.get(pk=rules.pk))
    assert (found.policy.number, found.policy_before.number) == (4, 2)
    assert (found.rules[0].broken, found.rules[0].before) == (Share(0, 1), Share(1, 2))


def test_earlier_wordings_count_where_a_rule_continues_them(project, rules) -> None:
    judged(rules.rules.get(key="r1"), 1, 1)
    judged(rules.rules.get(key="r2"), 1)
    draft = rule_sets.open_draft(project=project, by=None)
    rule_sets.edit_rule(rule=draft.rules.get(key="r2"), by=None, wording="Something else.")
    rule_sets.publish(draft=draft, by=None, decisions={"r2": "stale"})
    judged(draft.rules.get(key="r1"), 5)
    assert [one.broken for one in figures_of(draft).rules] == [Share(1, 2), Share(0, 0)]


def test_without_a_policy_nothing_is_said_of_one(project, rules) -> None:
    project.policy = None
    project.save()
    found = figures_of(RuleSet.objects.get(pk=rules.pk))
    assert (found.policy, found.policy_before, found.rules[0].broken) == (None, None, Share(0, 0))


def test_the_newest_rule_models_auc_is_shown_and_too_few_is_told_from_nothing(project, rules) -> None:
    make.make_model(project, kind="rule", figures={"rules": {"r1": {"auc": 0.5}}})
    make.make_model(project, kind="rule", figures={"rules": {"r1": {"auc": None}}})
    assert [(one.auc, one.has_auc) for one in figures_of(rules).rules] == [(None, True), (None, False)]
    make.make_model(project, kind="rule", figures={"rules": {"r1": {"auc": 0.91}, "r2": {"auc": 1}}})
    assert [one.auc for one in figures_of(rules).rules] == [0.91, 1.0]
    listed = [{"key": "r1", "own": 0.2, "all": 0.8}, {"key": "r2", "own": None, "all": None}, "r3", {"all": 1}]
    make.make_model(project, kind="rule", figures={"rules": listed})
    assert [(one.auc, one.has_auc) for one in figures_of(rules).rules] == [(0.8, True), (None, True)]
    for figures in ({}, {"rules": []}, {"rules": {"r1": 3}}, []):
        make.make_model(project, kind="rule", figures=figures)
        assert [one.auc for one in figures_of(rules).rules] == [None, None]


@pytest.mark.parametrize(
    ("broken", "agreement", "kind"),
    [
        (Share(14, 60), Alpha(0.83, (0.7, 0.9), 60), "train"),  # Wilson's lower end: 14 %
        (Share(9, 60), Alpha(0.83, (0.7, 0.9), 60), "nothing"),  # 8 %
        (Share(15, 52), Alpha(0.41, (0.2, 0.6), 52), "reword"),
        (Share(0, 60), Alpha(0.41, (0.2, 0.85), 60), "nothing"),
        (Share(0, 60), Alpha(0.1, (-0.2, 0.3), 9), "nothing"),
        (Share(0, 60), Alpha(None, None, 60, is_alike=True), "nothing"),
        (Share(0, 31), Alpha(0.9, (0.8, 1.0), 31), "probe"),
        (Share(0, 0), Alpha(None, None, 0), "probe"),
    ],
)
def test_what_a_rule_asks_for(broken: Share, agreement: Alpha, kind: str) -> None:
    found = RuleFigures(Rule(probe_quota=60), broken, Share(0, 0), agreement, split=0.2).next
    assert (found.kind, found.probes) == (kind, 60 - broken.total if kind == "probe" else 0)
    assert found.needs_manager == (kind in ("reword", "train"))


def test_odd_answers_about_what_is_hardly_ever_broken_ask_for_no_rewording() -> None:
    rare = RuleFigures(Rule(probe_quota=60), Share(1, 60), Share(0, 0), Alpha(0.2, (0.0, 0.4), 60), split=0.05)
    assert rare.next.kind == "nothing"


def test_more_rules_ask_no_more_of_the_database(project) -> None:
    rule_set = make.make_rule_set(project, rules=9)
    for rule in rule_set.rules.all():
        judged(rule, 1, 4)
    with CaptureQueriesContext(
        connection,
    ) as asked:
        figures_of(rule_set)
    assert len(asked) <= 8
