"""Checkpoints are complete or invisible; model folders hold data and no code."""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rewardtrain import checkpoints
from rewardtrain.checkpoints import (
    MANIFEST,
    PARTIAL,
    REPLACED,
    check_model_folder,
    clean_partial,
    file_hash,
    folder_hash,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
    verify,
)
from rewardtrain.errors import CheckpointDamaged, CheckpointError, CheckpointExists, CheckpointMissing, ModelRefused

OLD = {"weights.safetensors": b"old weights", "state/optimizer.safetensors": b"old state"}
NEW = {"weights.safetensors": b"new weights", "state/optimizer.safetensors": b"new state"}


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


# Saving and reading


def test_a_checkpoint_is_what_was_given_with_a_manifest(tmp_path):
    manifest = save_checkpoint(tmp_path / "step-1", OLD)
    assert content(tmp_path / "step-1") == OLD
    assert verify(tmp_path / "step-1") == manifest
    assert manifest.files["weights.safetensors"] == file_hash(tmp_path / "step-1" / "weights.safetensors")
    assert load_checkpoint(tmp_path / "step-1") == tmp_path / "step-1"
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


def test_a_writer_fills_the_folder_itself(tmp_path):
    save_checkpoint(tmp_path / "deep" / "step-1", lambda folder: (folder / "a.json").write_text("{}"))
    assert content(tmp_path / "deep" / "step-1") == {"a.json": b"{}"}


def test_the_hash_of_a_folder_is_of_names_and_contents_and_not_of_the_manifest(tmp_path):
    save_checkpoint(tmp_path / "a", OLD)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / MANIFEST).unlink()
    assert folder_hash(tmp_path / "a") == folder_hash(tmp_path / "b") == verify(tmp_path / "a").folder_hash
    (tmp_path / "b" / "weights.safetensors").rename(tmp_path / "b" / "other.safetensors")
    assert folder_hash(tmp_path / "a") != folder_hash(tmp_path / "b")
    with pytest.raises(CheckpointMissing):
        folder_hash(tmp_path / "c")


def test_a_checkpoint_that_is_there_is_not_overwritten_unless_asked_for(tmp_path):
    save_checkpoint(tmp_path / "a", OLD)
    with pytest.raises(CheckpointExists, match="is there already"):
        save_checkpoint(tmp_path / "a", NEW)
    assert content(tmp_path / "a") == OLD
    save_checkpoint(tmp_path / "a", NEW, replace=True)
    assert content(tmp_path / "a") == NEW
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / "weights.safetensors").write_bytes(b"x"),
            "weights.safetensors is not what was saved",
        ),
        (lambda folder: (folder / "weights.safetensors").unlink(), "weights.safetensors is missing"),
        (lambda folder: (folder / "extra.json").write_text("{}"), "extra.json does not belong"),
        (lambda folder: (folder / MANIFEST).unlink(), "manifest.json is missing, so .* never completed"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "manifest.json cannot be read"),
        (lambda folder: (folder / MANIFEST).write_text("[]"), "manifest.json cannot be read"),
        (lambda folder: (folder / MANIFEST).write_text('{"files": {}}'), "manifest.json cannot be read"),
    ],
)
def test_damage_is_noticed_and_the_file_named(tmp_path, damage, message):
    save_checkpoint(tmp_path / "a", OLD)
    damage(tmp_path / "a")
    with pytest.raises(CheckpointDamaged, match=message):
        load_checkpoint(tmp_path / "a")


def test_a_manifest_that_contradicts_itself_is_noticed(tmp_path):
    save_checkpoint(tmp_path / "a", OLD)
    manifest = json.loads((tmp_path / "a" / MANIFEST).read_text())
    (tmp_path / "a" / MANIFEST).write_text(json.dumps({**manifest, "folder_hash": "0" * 64}))
    with pytest.raises(CheckpointDamaged, match="contradicts itself"):
        verify(tmp_path / "a")


def test_nothing_there_is_said_plainly(tmp_path):
    with pytest.raises(CheckpointMissing, match="There is no checkpoint .*typo"):
        load_checkpoint(tmp_path / "typo")


def test_the_latest_complete_checkpoint_is_found_past_damaged_and_hidden_ones(tmp_path):
    assert latest_checkpoint(tmp_path / "nowhere") is None
    assert latest_checkpoint(tmp_path) is None
    for step in (1, 2, 3):
        save_checkpoint(tmp_path / f"step-{step:03}", {"step": str(step).encode()})
    (tmp_path / "step-003" / "step").write_bytes(b"torn")
    (tmp_path / f"{PARTIAL}x").mkdir()
    (tmp_path / "notes.txt").write_text("not a folder")
    assert latest_checkpoint(tmp_path) == tmp_path / "step-002"


# Faults: at every file operation of a save, an error or the end of the process


class Killed(BaseException):
    """The process is gone: nothing it would still have done happens."""


class FaultyDisk:
    """Counts the operations that touch the disk; from number `at` on each one fails."""

    names = ("fsync", "rename", "mkdir", "open", "close", "rmdir", "unlink")

    def __init__(self, monkeypatch, at: int | None, kind: str):
        self.at, self.kind, self.count, self.failed = at, kind, 0, False
        for name in self.names:
            monkeypatch.setattr(os, name, self.faulty(getattr(os, name)))
        monkeypatch.setattr(io, "open", self.faulty(io.open))
        monkeypatch.setattr(builtins, "open", self.faulty(builtins.open))
        monkeypatch.setattr(shutil, "rmtree", self.faulty(shutil.rmtree, cleans=True))

    def faulty(self, operation, cleans: bool = False):
        def perform(*args, **kwargs):
            if self.at is None:
                return operation(*args, **kwargs)
            self.count += 1
            if self.kind == "killed" and self.failed:
                raise Killed
            if self.count == self.at and not (cleans and self.kind == "error"):
                self.failed = True
                raise Killed if self.kind == "killed" else OSError(errno.ENOSPC, "No space left on device")
            return operation(*args, **kwargs)

        return perform


def attempt(folder: Path, at: int | None, kind: str) -> int:
    """Save NEW over OLD with the disk failing at operation `at`; how many operations there were."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        disk = FaultyDisk(monkeypatch, at, kind)
        try:
            save_checkpoint(folder, NEW, replace=True)
        except (OSError, Killed):
            assert disk.failed
        finally:
            disk.at = None
        return disk.count


def operations_of_a_save(folder: Path) -> int:
    save_checkpoint(folder, OLD)
    return attempt(folder, 10_000, "error")


@pytest.mark.parametrize("kind", ["error", "killed"])
def test_at_whatever_operation_a_save_fails_one_whole_checkpoint_is_there(tmp_path, kind):
    count = operations_of_a_save(tmp_path / "counting" / "current")
    assert count > 15
    outcomes = set()
    for at in range(1, count + 1):
        folder = tmp_path / f"{at:03}" / "current"
        save_checkpoint(folder, OLD)
        attempt(folder, at, kind)
        found = content(load_checkpoint(folder))
        assert found in (OLD, NEW), f"operation {at}"
        outcomes.add(found == NEW)
        clean_partial(folder.parent)
        assert [path.name for path in folder.parent.iterdir()] == ["current"], f"operation {at}"
    assert outcomes == {True, False}


def test_an_error_before_the_rename_leaves_nothing_behind(tmp_path):
    def full_disk(folder: Path) -> None:
        (folder / "half.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    save_checkpoint(tmp_path / "a", OLD)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path / "b", full_disk)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert content(tmp_path / "a") == OLD


def test_a_killed_process_leaves_the_old_checkpoint_and_its_rest_is_cleaned(tmp_path):
    save_checkpoint(tmp_path / "a", OLD)
    code = (
        "import os, pathlib\nfrom rewardtrain.checkpoints import save_checkpoint\n"
        "def write(folder):\n    (folder / 'half').write_bytes(b'x')\n    os.kill(os.getpid(), 9)\n"
        f"save_checkpoint(pathlib.Path({str(tmp_path / 'a')!r}), write, replace=True)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert len(list(tmp_path.glob(f"{PARTIAL}*"))) == 1
    assert content(load_checkpoint(tmp_path / "a")) == OLD
    assert len(clean_partial(tmp_path)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def hidden(tmp_path: Path, kind: str, host: str, pid: int, name: str = "a") -> Path:
    folder = tmp_path / f"{kind}{host}-{pid}-0abc~{name}"
    folder.mkdir()
    return folder


def test_what_a_living_process_or_another_machine_is_writing_stays(tmp_path):
    here = checkpoints.socket.gethostname()
    living = hidden(tmp_path, PARTIAL, here, os.getppid())
    roots = hidden(tmp_path, PARTIAL, here, 1)
    elsewhere = hidden(tmp_path, PARTIAL, "other-host", 4)
    old = hidden(tmp_path, PARTIAL, "other-host", 5)
    os.utime(old, (0, 0))
    assert clean_partial(tmp_path) == [old]
    assert living.exists()
    assert roots.exists()
    assert elsewhere.exists()


def test_another_thread_leaves_alone_what_this_process_is_writing(tmp_path):
    found = []

    def write(folder: Path) -> None:
        (folder / "half").write_bytes(b"x")
        found.append(clean_partial(tmp_path))

    save_checkpoint(tmp_path / "a", write)
    assert found == [[]]
    assert content(tmp_path / "a") == {"half": b"x"}


def test_a_checkpoint_being_replaced_by_a_living_process_is_not_taken_from_it(tmp_path):
    hidden(tmp_path, REPLACED, checkpoints.socket.gethostname(), os.getppid())
    with pytest.raises(CheckpointMissing):
        load_checkpoint(tmp_path / "a")


# Model folders


def model_folder(tmp_path: Path, **files: str | bytes) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    everything = {"config.json": '{"model_type": "llama"}', "model.safetensors": b"\x08\0\0\0\0\0\0\0{}      ", **files}
    for name, value in everything.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value.encode() if isinstance(value, str) else value)
    return folder


def test_a_folder_of_data_is_accepted(tmp_path):
    folder = model_folder(
        tmp_path,
        **{
            "tokenizer.json": '{"model": {"vocab": {"auto_map": 1, "trust_remote_code": 2}}}',
            "tokenizer_config.json": '{"auto_map": null, "trust_remote_code": false}',
            "model.safetensors.index.json": '{"weight_map": {"a": "model.safetensors"}}',
            "README.md": "# A model",
            "spiece.model": b"\x0a\x0e\x0a\x05<unk>",
        },
    )
    assert check_model_folder(folder) == folder


class Marker:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def zipped_pickle(payload: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
    return stream.getvalue()


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin",
        "weights.pt",
        "weights.PTH",
        "tokens.pkl",
        "last.ckpt",
        "deep/state.joblib",
        "x.npy",
        "x.h5",
    ],
)
def test_pickles_are_refused_by_name(tmp_path, name):
    folder = model_folder(tmp_path, **{name: b"anything"})
    with pytest.raises(ModelRefused, match=f"{name} may run code .* Convert the weights"):
        check_model_folder(folder)


@pytest.mark.parametrize("disguise", ["vocab.txt", "weights.safetensors", "spiece.model", "notes"])
@pytest.mark.parametrize("pack", [bytes, zipped_pickle], ids=["pickle", "zip"])
def test_pickles_are_refused_under_any_name(tmp_path, disguise, pack):
    marker = tmp_path / "marker"
    folder = model_folder(tmp_path, **{disguise: pack(pickle.dumps(Marker(marker)))})
    with pytest.raises(ModelRefused, match=f"{disguise} may run code"):
        check_model_folder(folder)
    assert not marker.exists()


def test_a_zip_of_texts_is_no_pickle(tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("readme.txt", "hello")
    check_model_folder(model_folder(tmp_path, **{"extra.zip": stream.getvalue(), "odd.dat": b"PK\x03\x04 no zip"}))


@pytest.mark.parametrize("name", ["modeling_evil.py", "deep/tokenization.py", "kernel.so", "setup.sh"])
def test_code_is_refused_by_name(tmp_path, name):
    with pytest.raises(ModelRefused, match=f"{name} is code"):
        check_model_folder(model_folder(tmp_path, **{name: "print('hello')"}))


@pytest.mark.parametrize(
    ("name", "value", "where"),
    [
        ("config.json", {"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
        ("config.json", {"text_config": {"auto_map": {"AutoModel": "evil.Model"}}}, "text_config.auto_map"),
        ("config.json", {"parts": [{"deep": {"auto_map": {"A": "b"}}}]}, r"parts\[0\].deep.auto_map"),
        ("config.json", {"custom_pipelines": {"x": {"impl": "evil.Pipe"}}}, "custom_pipelines"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}}, "auto_map"),
        ("processor_config.json", {"trust_remote_code": True}, "trust_remote_code"),
        ("adapter_config.json", {"auto_mapping": {"parent_library": "evil"}}, "auto_mapping"),
        ("config.json", {"_attn_implementation": "somebody/kernel"}, "_attn_implementation: somebody/kernel"),
        ("deep/config.json", {"auto_map": {"AutoModel": "hub/repo--evil.Model"}}, "auto_map"),
    ],
)
def test_configurations_that_ask_for_code_are_refused_with_file_and_place(tmp_path, name, value, where):
    folder = model_folder(tmp_path, **{name: json.dumps(value)})
    with pytest.raises(ModelRefused, match=f"{name} asks .*{where}"):
        check_model_folder(folder)


@pytest.mark.parametrize("shard", ["../elsewhere.safetensors", "weights.bin", "/etc/x.safetensors"])
def test_an_index_that_names_other_weights_is_refused(tmp_path, shard):
    index = json.dumps({"weight_map": {"a": shard}})
    with pytest.raises(ModelRefused, match="index.json names weights"):
        check_model_folder(model_folder(tmp_path, **{"model.safetensors.index.json": index}))


def test_an_index_without_weights_names_none(tmp_path):
    check_model_folder(model_folder(tmp_path, **{"model.safetensors.index.json": "[]"}))


def test_broken_json_links_outward_and_missing_files_are_refused(tmp_path):
    folder = model_folder(tmp_path, **{"broken.json": "{"})
    with pytest.raises(ModelRefused, match="broken.json is not valid JSON"):
        check_model_folder(folder)
    (folder / "broken.json").unlink()
    (folder / "inside.txt").symlink_to(folder / "config.json")
    check_model_folder(folder)
    (folder / "outside.txt").symlink_to("/etc/hostname")
    with pytest.raises(ModelRefused, match="outside.txt is a link"):
        check_model_folder(folder)
    (folder / "outside.txt").unlink()
    (folder / "inside.txt").unlink()
    (folder / "config.json").unlink()
    with pytest.raises(ModelRefused, match="config.json is missing"):
        check_model_folder(folder)
    with pytest.raises(ModelRefused, match="There is no model folder"):
        check_model_folder(tmp_path / "nowhere")


def test_refusals_carry_a_code_and_a_message():
    assert ModelRefused("x").code == "model_refused"
    assert issubclass(CheckpointDamaged, CheckpointError)
    assert CheckpointDamaged("torn").message == "torn"
