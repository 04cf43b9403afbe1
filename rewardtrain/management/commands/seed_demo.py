"""Make the plant desk, its people and its starter policy."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import transaction

from feedback import corpus, demonstrations, demonstrations_wanted, ratings_wanted, scale_files, scale_sets, slots
from feedback.exports.demonstrated import OWN_FORMAT
from feedback.imports.corpus import FORMAT as CORPUS_FORMAT
from feedback.imports.records import Choices
from feedback.imports.taking_in import import_files
from feedback.models import Demonstration, Import, Membership, Project, Prompt, ScaleSet, User
from rewardtrain.desk import seed_desk
from rewardtrain.starter.care_sheets import FOLDER, care_sheets
from rewardtrain.starter.handbook import NAME, handbook_lines

PEOPLE = (
    ("alice", "Alice", "Moreau", Membership.Role.ANNOTATOR, "annotates"),
    ("maria", "Maria", "Okafor", Membership.Role.MANAGER, "manages the project"),
    ("admin", "", "", None, "runs the installation"),
)
WRITER = "maria"
RATERS = 2  # as many people as rate here
OPENING = "Is my heavy soil good for camellias?"  # of the starter world's
REPLY = "Not as it is: camellias want acid soil that drains well. Dig in leaf mould, or grow them in a pot."


class Command(BaseCommand):
    help = "Make the plant desk with its starter policy, prompts and three sign-ins. A second run changes nothing."

    def handle(self, *args: Any, **options: Any) -> None:
        project = seed_desk(probes_open=True, demonstrations_open=True)
        lines = [line for person in PEOPLE if (line := _person(project, *person))]
        if lines:
            _keep(lines)
        _show_demonstrations(project)
        _bring_handbook(project)
        _show_corpus(project)
        _ask_for_ratings(project)
        self.stdout.write(f"{project.name}: {project.prompts.count()} prompts, {project.policy} serves.")


def _person(project: Project, username: str, first: str, last: str, role: str | None, does: str) -> str:
    """Make one account with a password of its own; the line to keep, or nothing when it is there already."""
    if User.objects.filter(username=username).exists():
        return ""
    password = secrets.token_urlsafe(9)
    if role is None:
        User.objects.create_superuser(username, password=password)
    else:
        user = User.objects.create_user(username, password=password, first_name=first, last_name=last)
        Membership.objects.create(project=project, user=user, role=role)
    return f"{username}\t{password}\t{does}"


def _show_demonstrations(project: Project) -> None:
    """A few prompts that wait for a written reply, and one reply of the manager's that waits for its review."""
    if not project.demonstrations_open:
        return
    demonstrations_wanted.keep_demonstrations_ready(project)
    author = User.objects.filter(username=WRITER, memberships__project=project).first()
    opening = [{"role": "user", "content": OPENING}]
    prompt = Prompt.objects.filter(project=project, messages=opening).first()
    if author is None or prompt is None or Demonstration.objects.filter(dialogue__project=project).exists():
        return
    item = demonstrations_wanted.ask_for_demonstrations(prompt=prompt)
    slot = slots.claim_slot(item.slots.get().pk, user=author)
    if slot is not None:
        demonstrations.record_demonstration(slot=slot, content=REPLY, submit_key=uuid4())


def _bring_handbook(project: Project) -> None:
    """Written replies that were found good, so that there is something to teach a policy from the first day."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{NAME}.jsonl"
        path.write_text("\n".join([*handbook_lines(), ""]), encoding="utf-8")
        import_files([path], file_format=OWN_FORMAT, slug=project.slug, choices=Choices(accepted=True))


@transaction.atomic
def _show_corpus(project: Project) -> None:
    """The care sheets of the desk's plants, to be searched."""
    sheets = [corpus.WholeText(*sheet) for sheet in care_sheets()]
    digest = hashlib.sha256("".join(sheet.content_hash() for sheet in sheets).encode()).hexdigest()
    source, made = Import.objects.get_or_create(
        project=project, format=CORPUS_FORMAT, sha256=digest, defaults={"file_name": FOLDER}
    )
    if made:
        corpus.add_documents(source_import=source, texts=sheets)


def _ask_for_ratings(project: Project) -> None:
    """Every set of questions that comes along, open where people answer; they are asked once there are replies."""
    if ScaleSet.objects.filter(project=project).exists():
        return
    for key, path in scale_files.DEFAULT_SETS.items():
        found = scale_files.read_file(path)
        scale_set = scale_sets.add_set(project=project, key=key, found=found, by=None)
        if not found.by_program:
            scale_sets.set_asking(scale_set=scale_set, raters=RATERS, ready=scale_set.ready, by=None)
            scale_sets.open_or_close(scale_set=scale_set, is_open=True, by=None)
    ratings_wanted.keep_ratings_ready(project)


def _keep(lines: list[str]) -> Path:
    """The sign-ins, readable by the owner alone."""
    path = Path(settings.DATA_DIR) / "sign-ins.txt"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    return path
