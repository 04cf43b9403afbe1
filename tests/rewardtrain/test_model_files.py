"""Where models lie, and the hash that says they are still the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewardtrain import model_files
from rewardtrain.checkpoints import folder_hash, model_folder_hash
from rewardtrain.errors import CheckpointMissing, ModelRefused
from rewardtrain.hyperparameters import LoraSettings
from rewardtrain.policy import load_policy_with_value
from tests import make
from tests.rewardtrain.tiny import make_llama, make_tokenizer, save_base


@pytest.fixture
def adapter(tmp_path: Path, settings) -> Path:
    """The folder of an adapter on the base beside it, in the data folder."""
    settings.DATA_DIR = tmp_path
    base = save_base(tmp_path / "models" / "base", make_llama(), make_tokenizer())
    load_policy_with_value(base, lora=LoraSettings(rank=1)).save(tmp_path / "models" / "adapter")
    return tmp_path / "models" / "adapter"


def test_a_whole_models_hash_is_that_of_its_folder(adapter):
    base = adapter.with_name("base")
    assert model_folder_hash(base) == folder_hash(base)
    with pytest.raises(CheckpointMissing):
        model_folder_hash(base / "nowhere")


@pytest.mark.django_db
def test_an_adapter_is_a_model_and_its_base_is_part_of_it(adapter):
    project = make.make_project()
    version = make.make_model(project, location="adapter", content_hash=model_files.model_hash("adapter"))
    assert model_files.verified_folder(version) == (adapter, version.content_hash)
    save_base(adapter.with_name("base"), make_llama(seed=1), make_tokenizer())  # somebody puts another one there
    with pytest.raises(ModelRefused, match="not those it was made with"):
        model_files.verified_folder(version)


@pytest.mark.django_db
def test_a_model_that_came_without_a_hash_is_held_to_the_one_it_is_found_with_first(adapter):
    version = make.make_model(make.make_project(), location="adapter", content_hash="")
    _, found = model_files.verified_folder(version)
    model_files.hold_to(version, found)
    model_files.hold_to(version, "another one")
    version.refresh_from_db()
    assert version.content_hash == found
    (adapter / "note.txt").write_text("Somebody was here.")
    with pytest.raises(ModelRefused, match="not those it was made with"):
        model_files.verified_folder(version)


@pytest.mark.django_db
def test_a_server_is_held_to_no_hash(adapter):
    version = make.make_model(make.make_project(), backend="openai", endpoint="https://models.example.org/v1")
    model_files.hold_to(version, "what it said of itself")
    version.refresh_from_db()
    assert version.content_hash == ""


@pytest.mark.django_db
def test_a_folder_with_neither_a_network_nor_an_adapter_is_refused(adapter):
    version = make.make_model(make.make_project(), location="adapter", content_hash="")
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(ModelRefused, match="config.json is missing"):
        model_files.verified_folder(version)
