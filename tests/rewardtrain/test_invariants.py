from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from feedback import invariants
from feedback.models import ModelVersion, Project
from rewardtrain import promotions
from rewardtrain.checkpoints import folder_hash
from rewardtrain.models import Round, TrainingRun
from tests import make

pytestmark = pytest.mark.django_db


def found() -> set[str]:
    return {violation.check for violation in invariants.violations()}


@pytest.fixture
def project(tmp_path: Path, settings: Any) -> Project:
    settings.DATA_DIR = tmp_path
    folder = tmp_path / "models" / "policy"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    project = make.make_project(with_policy=False)
    version = make.make_model(project, location="policy", content_hash=folder_hash(folder), state="passed")
    promotions.promote(project=project, to_version=version, reason="The first policy.")
    return project


def test_a_healthy_project_violates_nothing(project: Project) -> None:
    assert found() == set()


def test_a_policy_that_was_set_without_a_promotion_is_found(project: Project) -> None:
    other = make.make_model(project, state="passed")
    Project.objects.filter(pk=project.pk).update(policy=other)
    assert "policies serve by promotion" in found()


def test_a_changed_file_of_the_serving_policy_is_found(project: Project, tmp_path: Path) -> None:
    (tmp_path / "models" / "policy" / "config.json").write_text('{"changed": true}')
    assert found() == {"serving models are whole"}


def test_a_missing_folder_of_the_serving_policy_is_found(project: Project) -> None:
    ModelVersion.objects.filter(pk=project.policy_id).update(location="nowhere")
    assert found() == {"serving models are whole"}


def test_a_run_that_is_done_without_a_model_is_found(project: Project) -> None:
    TrainingRun.objects.create(project=project, kind=TrainingRun.Kind.POLICY, state="done")
    TrainingRun.objects.create(project=project, kind=TrainingRun.Kind.GATE, state="done")
    assert found() == {"finished runs made something"}


def test_a_promoted_round_without_a_promotion_is_found(project: Project) -> None:
    Round.objects.create(
        project=project,
        number=1,
        state=Round.State.PROMOTED,
        policy_before=project.policy,
        policy_after=make.make_model(project),
    )
    assert found() == {"promoted rounds have their promotion"}
