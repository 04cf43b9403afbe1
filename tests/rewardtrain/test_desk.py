"""What the demo begins with."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from feedback import invariants, ratings_wanted, rule_sets
from feedback.models import Demonstration, Import, Project, Rule, ScaleSet, Slot, User
from rewardtrain import demonstrations_to_learn
from rewardtrain.desk import seed_desk
from rewardtrain.starter import oracle
from rewardtrain.starter.violations import rules
from tests import make

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


def test_the_demo_brings_a_handbook_that_a_policy_can_be_taught_from(settings: Any, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path
    for _ in range(2):
        call_command("seed_demo", stdout=StringIO())
    project = Project.objects.get()
    found = demonstrations_to_learn.ready(project)
    assert (found.learned, found.held_out, found.problem) == (60, 12, "")
    for text in Demonstration.objects.accepted():
        assert not oracle.score(text.dialogue.messages(), text.content).broken_rules
    assert Import.objects.filter(format="demonstrations").count() == 1
    assert not list(invariants.violations())


def test_the_demo_asks_to_rate_replies_by_each_ready_made_set_once_there_are_some(
    settings: Any, tmp_path: Path
) -> None:
    settings.DATA_DIR = tmp_path
    for _ in range(2):
        call_command("seed_demo", stdout=StringIO())
    sets = {found.key: (found.is_open, found.raters) for found in ScaleSet.objects.all()}
    assert sets == {"lamda": (True, 2), "instructgpt": (True, 2), "sparrow": (True, 2), "unit-tests": (False, 1)}
    project = Project.objects.get()
    make.make_comparison(project)
    assert ratings_wanted.keep_ratings_ready(project) == 3 * 4  # the replies to one turn, by three sets
    free = Slot.objects.claimable_by(User.objects.get(username="alice"), "rate")
    assert set(free.values_list("work_item__scale_set__key", flat=True)) == {"lamda", "instructgpt", "sparrow"}
