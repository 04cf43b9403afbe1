"""Migrations that change what is there already."""

from __future__ import annotations

from importlib import import_module

import pytest
from django.apps import apps

from feedback.models import Project
from tests import make


@pytest.mark.django_db
def test_projects_that_were_given_the_same_export_key_get_their_own():
    for number in range(3):
        make.make_project(f"desk-{number}")
    Project.objects.update(export_key="ab" * 32)
    apart = make.make_project("desk-apart")
    import_module("feedback.migrations.0005_a_key_of_each_projects_own").give_own_keys(apps, None)
    keys = list(Project.objects.order_by("pk").values_list("export_key", flat=True))
    assert len(set(keys)) == 4
    assert keys[0] == "ab" * 32  # whose exports stay as they were
    assert keys[3] == apart.export_key
    assert all(len(bytes.fromhex(key)) == 32 for key in keys)
