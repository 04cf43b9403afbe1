"""What the demo begins with."""

from __future__ import annotations

import pytest

from feedback import rule_sets
from feedback.models import Rule
from rewardtrain.desk import seed_desk
from rewardtrain.starter.violations import rules

pytestmark = pytest.mark.django_db


def test_the_desk_has_its_dozen_rules_published_and_a_second_run_leaves_them() -> None:
    project = seed_desk()
    published = rule_sets.published_set(project)
    assert published is not None and published.number == 1
    assert [(rule.key, rule.wording) for rule in published.rules.all()] == [(one.key, one.wording) for one in rules()]
    assert [rule.key for rule in published.rules.filter(is_sensitive=True)] == ["medical", "insult", "eat", "harm"]
    assert seed_desk() == project
    assert (project.rule_sets.count(), Rule.objects.count()) == (1, 12)
