"""Prompts from a Hugging Face dataset on disk, as anybody's program saves one."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from feedback.models import Import, Prompt
from tests import make

datasets = pytest.importorskip("datasets", reason="what learning needs is not installed")
pytestmark = [pytest.mark.django_db, pytest.mark.services]
ROWS = {
    "text": ["Name a tree.", "name a  tree", "Name a bush."],
    "who": ["rosa", "max", None],
    "score": [0.5, 1.0, 2.0],
}


@pytest.fixture(autouse=True)
def own_folders(settings, tmp_path, monkeypatch) -> None:
    settings.DATA_DIR = tmp_path / "kept"
    settings.DATA_DIR.mkdir()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    make.make_project(with_policy=False)


def run(name: Path | str, **options: Any) -> str:
    out = StringIO()
    call_command("import_prompts", f"--dataset={name}", "--project=plant-desk", stdout=out, **options)
    return out.getvalue()


def test_a_dataset_that_was_saved_comes_in_once(tmp_path):
    datasets.Dataset.from_dict(ROWS).save_to_disk(tmp_path / "saved")
    told = run(tmp_path / "saved", column="text", author_column="who", source="garden set")
    assert "3 rows, 2 prompts" in told and "the same as another one: 1 (row 2)" in told
    first = Prompt.objects.order_by("pk")[0]
    assert (first.opening, first.source) == ("Name a tree.", "garden set")
    assert first.details == {"author": "rosa", "fields": {"score": 0.5}}
    datasets.Dataset.from_dict(ROWS).save_to_disk(tmp_path / "elsewhere")
    assert "imported already on" in run(tmp_path / "elsewhere", column="text", author_column="who")
    assert Import.objects.count() == 1


def test_a_split_of_several_is_named(tmp_path):
    parts = {name: datasets.Dataset.from_dict({"prompt": [f"Of {name}?"]}) for name in ("train", "extra")}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    run(tmp_path / "saved", dataset_split="extra")
    assert Prompt.objects.get().opening == "Of extra?"
    with pytest.raises(CommandError, match="has no split test; it has train, extra. Name one with --dataset-split"):
        run(tmp_path / "saved", dataset_split="test")


def test_a_folder_of_files_is_loaded_as_one_by_name_would_be(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"prompt": "Name a tree."}\n{"prompt": "Name a bush."}\n')
    assert "2 rows, 2 prompts" in run(folder)


def test_dialogues_and_a_fault_have_their_row(tmp_path):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi."}]
    datasets.Dataset.from_list([{"prompt": messages}]).save_to_disk(tmp_path / "good")
    run(tmp_path / "good")
    assert Prompt.objects.get().messages == messages
    bad = [{"prompt": messages}, {"prompt": [{"role": "robot", "content": "Hi."}]}]
    datasets.Dataset.from_list(bad).save_to_disk(tmp_path / "bad")
    with pytest.raises(CommandError, match=r"bad, row 2: field 'prompt'\[0\].role should be one of system"):
        run(tmp_path / "bad")


def test_a_dataset_that_is_not_there_says_so():
    with pytest.raises(CommandError, match="The dataset nobody/nothing-of-the-kind cannot be read"):
        run("nobody/nothing-of-the-kind")
