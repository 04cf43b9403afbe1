"""What the demo begins with."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from feedback import invariants, rule_sets
from feedback.models import Demonstration, Rule, Slot, User
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


def test_the_demo_has_replies_to_write_and_one_to_review_and_a_second_run_changes_nothing(
    settings: Any, tmp_path: Path
) -> None:
    settings.DATA_DIR = tmp_path
    for _ in range(2):
        call_command("seed_demo", stdout=StringIO())
        (text,) = Demonstration.objects.waiting()
        assert text.annotator is not None and text.annotator.username == "maria"
        free = Slot.objects.claimable_by(User.objects.get(username="alice"))
        assert free.filter(work_item__kind="demonstrate").count() >= 5
        assert [slot.work_item.demonstration for slot in free.filter(work_item__kind="review")] == [text]
    assert not list(invariants.violations())
