"""Where a model's files lie, and the hash that says they are still the same. No torch here.

A location is `starter:policy` (what the project carries), an absolute folder, or a folder in DATA_DIR/models.
"""

from __future__ import annotations

from pathlib import Path

from django.conf import settings

from feedback.models import ModelVersion
from rewardtrain import checkpoints
from rewardtrain.errors import ModelRefused

STARTER_SCHEME = "starter:"
STARTER_LOCATION = f"{STARTER_SCHEME}policy"
STARTER_FOLDER = Path(__file__).resolve().parent / "starter"


def models_folder() -> Path:
    """Where the models that runs produce are kept."""
    return Path(settings.DATA_DIR) / "models"


def folder_at(location: str) -> Path:
    """The folder a location names.

    Raises  ModelRefused when a relative location would leave its place
    """
    root = models_folder()
    if location.startswith(STARTER_SCHEME):
        root, location = STARTER_FOLDER, location.removeprefix(STARTER_SCHEME)
    elif Path(location).is_absolute():
        return Path(location)
    folder = root / location
    if not location or not folder.resolve().is_relative_to(root.resolve()):
        raise ModelRefused(f"The location {location!r} is not a folder of its own within {root}.")
    return folder


def model_folder(version: ModelVersion) -> Path:
    """The folder with the weights of a model that is run here.

    Raises  ModelRefused when a server runs it, or its location leads elsewhere
    """
    if version.backend != ModelVersion.Backend.TRANSFORMERS:
        raise ModelRefused(f"{version} is run by a server, so it has no files here.")
    return folder_at(version.location)


def model_hash(location: str) -> str:
    """sha256 over the files at a location (and an adapter's base), as kept in ModelVersion.content_hash."""
    return checkpoints.model_folder_hash(folder_at(location))


def verified_folder(version: ModelVersion) -> tuple[Path, str]:
    """The folder of a model and its hash, once its files are found to be data only and the same as recorded.

    Raises  ModelRefused, naming the file or the hash that differs
    """
    folder = checkpoints.check_model_folder(model_folder(version))
    found = checkpoints.model_folder_hash(folder)
    if version.content_hash and found != version.content_hash:
        raise ModelRefused(
            f"The files of {version} in {folder} are not those it was made with: their hash is {found[:12]}…, "
            f"recorded is {version.content_hash[:12]}…. Put the files back, or register these as a new model."
        )
    return folder, found


def hold_to(version: ModelVersion, found: str) -> None:
    """Hold a model that is run here, and was registered without a hash, to the one it is found with first."""
    if version.backend == ModelVersion.Backend.TRANSFORMERS and not version.content_hash:
        ModelVersion.objects.filter(pk=version.pk, content_hash="").update(content_hash=found)
        version.content_hash = found
