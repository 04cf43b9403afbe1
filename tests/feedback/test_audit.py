"""Who did what when."""

from __future__ import annotations

import pytest
from django.db import transaction

from feedback import audit
from feedback.models import AuditEntry
from tests import make

pytestmark = pytest.mark.django_db


def test_an_entry_says_who_did_what_to_what() -> None:
    project = make.make_project()
    maria = make.make_member(project, "maria", "manager")
    entry = audit.record("model.promoted", project=project, actor=maria, target=project.policy, reason="better")
    assert (entry.project, entry.actor, entry.action) == (project, maria, "model.promoted")
    assert project.policy is not None
    assert entry.target == f"feedback.modelversion:{project.policy.pk}"
    assert entry.details == {"reason": "better"}
    assert str(entry) == f"model.promoted {entry.target}"


def test_what_the_machine_did_names_nobody() -> None:
    entry = audit.record("sweep.started")
    assert (entry.actor, entry.project, entry.target, entry.details) == (None, None, "", {})


def test_the_newest_entry_comes_first() -> None:
    first, second = audit.record("a.a"), audit.record("b.b")
    assert list(AuditEntry.objects.all()) == [second, first]


def test_an_action_that_was_rolled_back_leaves_no_entry() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        audit.record("project.archived")
        raise ZeroDivisionError
    assert not AuditEntry.objects.exists()
