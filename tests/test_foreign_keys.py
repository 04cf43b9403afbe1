"""Nothing that people made goes with something else: what is pointed at cannot be deleted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.apps import apps
from django.db import models
from django.db.models import ProtectedError

from tests import make


def foreign_keys() -> Iterator[models.ForeignKey]:
    """Those of our own rows. (An account's groups and permissions are tables of Django's.)"""
    for label in ("feedback", "rewardtrain"):
        for model in apps.get_app_config(label).get_models():
            yield from (field for field in model._meta.local_fields if isinstance(field, models.ForeignKey))


def test_no_foreign_key_cascades() -> None:
    fields = list(foreign_keys())
    assert len(fields) > 50
    assert [str(field) for field in fields if field.remote_field.on_delete is not models.PROTECT] == []


@pytest.mark.django_db
def test_nothing_an_answer_rests_on_can_be_deleted() -> None:
    ranking = make.make_ranking()
    comparison, slot = ranking.comparison, ranking.slot
    dialogue = comparison.dialogue
    assert slot is not None and dialogue.prompt is not None
    parents = [
        dialogue.project, dialogue.prompt.group, dialogue.prompt, dialogue.policy, dialogue, comparison.request,
        comparison, comparison.candidates.all()[0], slot.work_item, slot, slot.annotator, ranking,
    ]  # fmt: skip
    for parent in parents:
        assert parent is not None
        with pytest.raises(ProtectedError):
            parent.delete()
        with pytest.raises(ProtectedError):
            type(parent)._base_manager.filter(pk=parent.pk).delete()
