"""A project small enough to turn its circle within a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from feedback.models import Project
from rewardtrain import promotions
from rewardtrain.checkpoints import folder_hash
from tests import make
from tests.circle.turning import QUICK


@pytest.fixture
def project(tmp_path: Path, settings: Any) -> Project:
    """A project whose policy is a tiny random network, with prompts on each side of the split."""
    from tests.rewardtrain import tiny

    settings.DATA_DIR = tmp_path
    project = make.make_project(with_policy=False, max_new_tokens=8, candidates_per_turn=2, hyperparameters=QUICK)
    folder = tiny.save_base(tmp_path / "models" / "tiny", tiny.make_llama(), tiny.make_tokenizer())
    version = make.make_model(project, location="tiny", content_hash=folder_hash(folder), state="passed")
    promotions.promote(project=project, to_version=version, reason="The first policy.")
    for number in range(12):
        make.make_prompt(project, f"train {number}", "train")
    for number in range(6):
        make.make_prompt(project, f"validation {number}", "validation")
    return project
