"""Folders of files that are complete or invisible, and the check that a model folder holds data and no code.

A checkpoint is written into a hidden folder beside its place, synced to the disk, described by a manifest with the
sha256 of every file, and only then renamed into place. Whoever reads meets the old one or the new one, never half.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rewardtrain.errors import CheckpointDamaged, CheckpointError, CheckpointExists, CheckpointMissing, ModelRefused

MANIFEST = "manifest.json"
PARTIAL = ".partial-"
REPLACED = ".replaced-"
ABANDONED_AFTER_SECONDS = 24 * 3600

Writer = Callable[[Path], object]

_being_written: set[str] = set()
"""Hidden folders that this very process is writing, in whatever thread."""


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds: {file: sha256}, and the hash over all of it."""

    files: Mapping[str, str]
    folder_hash: str


# Writing


def save_checkpoint(folder: Path, files: Mapping[str, bytes] | Writer, *, replace: bool = False) -> Manifest:
    """Write a checkpoint to `folder`, complete or not at all.

    files    {name: content}, or a function that writes what it wants into the folder it is given
    replace  put it in the place of one that is there; without it, that is refused
    Raises   CheckpointExists; OSError when the disk is full or fails (the old checkpoint is untouched)
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists() and not replace:
        raise CheckpointExists(f"{folder} is there already. Choose another folder, or ask for it to be replaced.")
    partial = _hidden(folder, PARTIAL)
    _being_written.add(partial.name)
    try:
        partial.mkdir()
        _write_files(partial, files)
        manifest = _write_manifest(partial)
        _sync_everything(partial)
        _move_into_place(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        _being_written.discard(partial.name)
    return manifest


def _write_files(folder: Path, files: Mapping[str, bytes] | Writer) -> None:
    if callable(files):
        with _disk_errors():
            files(folder)
        return
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    """Within it a full disk is an OSError, whichever library met it."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        if "os error" not in str(error).lower():
            raise
        raise OSError(errno.EIO, str(error)) from error


def _write_manifest(folder: Path) -> Manifest:
    manifest = Manifest(files=(hashes := _file_hashes(folder)), folder_hash=_hash_of_hashes(hashes))
    content = {"format": 1, "folder_hash": manifest.folder_hash, "files": dict(manifest.files)}
    (folder / MANIFEST).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return manifest


def _sync_everything(folder: Path) -> None:
    """Files first, then the folders that name them, the outermost last."""
    for path in _files_in(folder):
        _sync(path)
    for inner in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        _sync(inner)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move_into_place(partial: Path, folder: Path) -> None:
    if not folder.exists():
        os.rename(partial, folder)
        _sync(folder.parent)
        return
    old = _hidden(folder, REPLACED)
    _being_written.add(old.name)
    try:
        os.rename(folder, old)
        try:
            os.rename(partial, folder)
        except BaseException:
            with contextlib.suppress(OSError):  # if this fails too, the next reader puts it back
                os.rename(old, folder)
            raise
        _sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        _being_written.discard(old.name)


def _hidden(folder: Path, kind: str) -> Path:
    """A name beside `folder` that says whose it is: host and process."""
    return folder.parent / f"{kind}{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}~{folder.name}"


# Reading


def verify(folder: Path) -> Manifest:
    """The manifest of a checkpoint whose every file is there and unchanged.

    Raises  CheckpointMissing; CheckpointDamaged, naming the first file that is not as the manifest says
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointMissing(f"There is no checkpoint {folder}.")
    recorded = _read_manifest(folder)
    found = _file_hashes(folder)
    for name in sorted(recorded.files.keys() | found.keys()):
        if name not in found:
            raise CheckpointDamaged(f"{folder / name} is missing.")
        if name not in recorded.files:
            raise CheckpointDamaged(
                f"{folder / name} does not belong to the checkpoint: its manifest does not name it."
            )
        if found[name] != recorded.files[name]:
            raise CheckpointDamaged(f"{folder / name} is not what was saved: its sha256 differs from the manifest's.")
    if _hash_of_hashes(found) != recorded.folder_hash:
        raise CheckpointDamaged(f"{folder / MANIFEST} contradicts itself.")
    return recorded


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Manifest(files=dict(content["files"]), folder_hash=str(content["folder_hash"]))
    except FileNotFoundError:
        raise CheckpointDamaged(f"{path} is missing, so {folder} was never completed.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointDamaged(f"{path} cannot be read as a manifest: {error}.") from error


def load_checkpoint(folder: Path) -> Path:
    """`folder`, once it has been verified; one that was being replaced when the machine stopped is put back first."""
    folder = Path(folder)
    _restore_replaced(folder)
    verify(folder)
    return folder


def latest_checkpoint(parent: Path) -> Path | None:
    """The last complete checkpoint in `parent` by name (so name them with padded numbers), or None."""
    if not Path(parent).is_dir():
        return None
    for folder in sorted(Path(parent).iterdir(), reverse=True):
        if folder.is_dir() and not folder.name.startswith("."):
            with contextlib.suppress(CheckpointError):
                verify(folder)
                return folder
    return None


def clean_partial(parent: Path) -> list[Path]:
    """Remove what was left half written in `parent` by processes that are gone; gives what was removed."""
    removed = []
    for path in sorted(Path(parent).glob(f"{REPLACED}*")):
        _restore_replaced(path.parent / path.name.partition("~")[2])
    for path in sorted(Path(parent).glob(".*~*")):
        if path.name.startswith((PARTIAL, REPLACED)) and _is_abandoned(path):
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path)
    return removed


def _restore_replaced(folder: Path) -> None:
    if folder.exists():
        return
    for old in sorted(folder.parent.glob(f"{REPLACED}*~{folder.name}")):
        if _is_abandoned(old):
            os.rename(old, folder)
            return


def _is_abandoned(path: Path) -> bool:
    host, pid, _ = path.name.partition("~")[0].removeprefix(PARTIAL).removeprefix(REPLACED).rsplit("-", 2)
    if path.name in _being_written:
        return False
    if host != socket.gethostname():
        return time.time() - path.stat().st_mtime > ABANDONED_AFTER_SECONDS
    return not _is_running(int(pid))


def _is_running(pid: int) -> bool:
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


# Hashes


def folder_hash(folder: Path) -> str:
    """sha256 over the names and contents of a folder's files; the manifest itself left out.

    Raises  CheckpointMissing if it is no folder
    """
    if not Path(folder).is_dir():
        raise CheckpointMissing(f"There is no folder {folder}.")
    return _hash_of_hashes(_file_hashes(Path(folder)))


def _files_in(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.rglob("*") if path.is_file())


def _file_hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): file_hash(path) for path in _files_in(folder) if path != folder / MANIFEST
    }


def file_hash(path: Path) -> str:
    """sha256 of one file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _hash_of_hashes(hashes: Mapping[str, str]) -> str:
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


# Model files are data

ADAPTER_CONFIG = "adapter_config.json"
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy", ".npz", ".h5", ".keras"}
CODE = {".py", ".pyc", ".pyo", ".pyd", ".so", ".dll", ".dylib", ".sh"}
CODE_KEYS = {"auto_map", "custom_pipelines", "auto_mapping"}
KERNEL_KEYS = {"attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation"}


def check_model_folder(folder: Path, *, needs: tuple[str, ...] | None = None) -> Path:
    """`folder`, if it can be loaded as a model without running anything that came with it.

    Refused by name: pickles (under whatever name), Python and other code, links out of the folder, and JSON that
    asks for code: `auto_map` and its like at any depth, `trust_remote_code`, attention kernels from a hub,
    weights outside the folder.

    needs   files that must be there: a network's configuration when left out, or an adapter's where one lies there
    Raises  ModelRefused, naming the file and what to do
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelRefused(f"There is no model folder {folder}.")
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise ModelRefused(f"{path} is a link that leads out of the model's folder. Copy the file itself.")
        if path.is_file():
            _check_file(path)
    for name in (network_config(folder),) if needs is None else needs:
        if not (folder / name).is_file():
            raise ModelRefused(f"{folder / name} is missing, so this is no model folder in the Hugging Face format.")
    return folder


def network_config(folder: Path) -> str:
    """The file that describes what lies in a model folder: an adapter, or a whole network."""
    return ADAPTER_CONFIG if (folder / ADAPTER_CONFIG).is_file() else "config.json"


def base_of_adapter(folder: Path) -> Path:
    """The folder of the base an adapter belongs to; relative ones start at the adapter's own folder.

    Raises  ModelRefused when it is not there
    """
    named = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path") or ""
    base = (folder / named).resolve()
    if not named or not base.is_dir():
        raise ModelRefused(
            f"{folder / ADAPTER_CONFIG} names the base {named!r}, which is no folder here. Put it there."
        )
    return base


def model_folder_hash(folder: Path) -> str:
    """sha256 over all a model is made of: its folder's files, and where they are an adapter, its base's as well.

    Raises  CheckpointMissing if it is no folder; ModelRefused when an adapter's base is not there
    """
    own = folder_hash(folder)
    if network_config(folder) != ADAPTER_CONFIG:
        return own
    return _hash_of_hashes({"adapter": own, "base": model_folder_hash(base_of_adapter(folder))})


def _check_file(path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix in CODE:
        raise ModelRefused(
            f"{path} is code. Models are loaded as data only: remove it, or use an architecture that needs none."
        )
    if suffix in PICKLES or _looks_pickled(path):
        raise ModelRefused(f"{path} may run code when it is loaded. Convert the weights to .safetensors and remove it.")
    if suffix == ".json":
        _check_json(path)


def _looks_pickled(path: Path) -> bool:
    """A pickle's first opcode, or torch's zip of one, whatever the file is called."""
    with path.open("rb") as stream:
        start = stream.read(4)
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return True
    if start == b"PK\x03\x04" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())
    return False


def _check_json(path: Path) -> None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelRefused(f"{path} is not valid JSON: {error}.") from error
    is_config = "config" in path.name
    for where, key, value in _items(content):
        if is_config and key in CODE_KEYS and value:
            raise ModelRefused(
                f"{path} asks for code that comes with the model ({where}). Models are loaded as data only."
            )
        if is_config and key == "trust_remote_code" and value:
            raise ModelRefused(f"{path} asks to trust remote code ({where}). Models are loaded as data only.")
        if is_config and key in KERNEL_KEYS and isinstance(value, str) and "/" in value:
            raise ModelRefused(f"{path} asks for compiled code from elsewhere ({where}: {value}).")
    if path.name.endswith(".index.json"):
        _check_index(path, content)


def _check_index(path: Path, content: Any) -> None:
    shards = content.get("weight_map", {}) if isinstance(content, dict) else {}
    for shard in shards.values():
        name = PurePosixPath(str(shard))
        if name.suffix != ".safetensors" or len(name.parts) != 1:
            raise ModelRefused(f"{path} names weights that are no .safetensors file of this folder: {shard}.")


def _items(content: Any, where: str = "") -> Iterator[tuple[str, str, Any]]:
    """Every key of nested JSON with where it stands: ("text_config.auto_map", "auto_map", {...})."""
    if isinstance(content, dict):
        for key, value in content.items():
            place = f"{where}.{key}" if where else str(key)
            yield place, key, value
            yield from _items(value, place)
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from _items(value, f"{where}[{number}]")
