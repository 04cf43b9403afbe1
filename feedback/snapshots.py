"""Snapshots: fix what is exported, write its files once, tell whether they are whole, read them for training.

A snapshot names its answers (rankings, judgements, demonstrations or ratings) by id list when it is made. What its
files say depends on those alone: no id, no clock, no path, so the same snapshot is the same bytes wherever it is
written.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from feedback import audit, queue, rule_lineage
from feedback.errors import FeedbackError, SnapshotEmpty, SnapshotUnusable
from feedback.exports import files
from feedback.exports.comparisons import ComparisonReader, Messages
from feedback.exports.demonstrated import DemonstrationReader
from feedback.exports.judged import JudgedReader
from feedback.exports.layouts import LAYOUTS
from feedback.exports.rated import RatedReader
from feedback.models import Project, PromptGroup, Snapshot, User
from feedback.snapshot_contents import FROZEN

logger = logging.getLogger(__name__)
ORIGINS = ("people", "imports")
WAIT_SECONDS = 0.5
REPORT_EVERY = 0.5  # seconds between two writes of the progress


class LeaseLost(Exception):
    """Another worker has the snapshot now; whatever this one wrote is thrown away."""


@dataclass(frozen=True)
class RankedRow:
    """One answer of a snapshot, as training reads it; the lists follow the candidates."""

    comparison_key: str
    dialogue_key: str
    split: str
    prompt: Messages
    candidates: list[dict[str, Any]]  # key, turns, model, mean_logprob, is_empty
    ranks: list[int | None]  # 1 is best, equal is a tie, None is unranked
    all_bad: bool
    strength: int | None
    flags: list[list[str]]
    shown_order: list[int]
    annotator: str  # a pseudonym
    seconds: float | None
    late: bool


@dataclass(frozen=True)
class DemonstratedRow:
    """One accepted demonstration of a snapshot, as training reads it."""

    key: str
    split: str
    prompt: Messages
    completion: Messages


def snapshots_folder() -> Path:
    """Where written snapshots lie, made when missing."""
    folder = Path(settings.DATA_DIR) / "snapshots"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def folder_of(snapshot: Snapshot) -> Path:
    """Where a written snapshot's files lie."""
    return snapshots_folder() / snapshot.folder


@transaction.atomic
def freeze(
    *,
    project: Project,
    kind: str = Snapshot.Kind.PREFERENCE,
    filters: dict[str, Any] | None = None,
    created_by: User | None = None,
    ring: bool = True,
) -> Snapshot:
    """Fix which answers a snapshot has: those in force that count, at this instant. Its files are written later.

    kind     preference: rankings; rules: verdicts on rules; demonstrations: written replies that were accepted;
             ratings: answers about single replies
    filters  {"origin": "people" or "imports", "splits": ["train", …]}; empty: everything
    ring     ask a worker to write it; False when the caller writes it itself
    Raises   SnapshotEmpty when nothing is left, ValueError for a filter nobody knows
    """
    filters = checked_filters(filters or {})
    frozen = FROZEN[Snapshot.Kind(kind)]
    kept, excluded = frozen.sort_out(project, filters)
    if not kept:
        raise SnapshotEmpty(
            f"There is nothing to export: {frozen.missing} in {project.name} matches. {frozen.remedy} first."
        )
    fixed: dict[str, Any] = {frozen.column: kept}
    if kind == Snapshot.Kind.RULES:
        fixed["standing_rules"] = standing(project)
    snapshot = Snapshot.objects.create(
        project=project,
        kind=kind,
        filters=filters,
        excluded=dict(sorted(excluded.items())),
        created_by=created_by,
        **fixed,
    )
    about = {frozen.what: len(kept)}
    audit.record("snapshot.frozen", project=project, actor=created_by, target=snapshot, **about)
    if ring:
        queue.ring(snapshot)
    return snapshot


def standing(project: Project) -> dict[str, int]:
    """{id of a rule: id of the newest published one its judgements count for}, now."""
    return {str(rule): head for rule, head in rule_lineage.heads(project).items()}


def checked_filters(filters: dict[str, Any]) -> dict[str, Any]:
    """The filters, or ValueError when one is unknown: a misspelt filter must not widen an export."""
    splits = filters.get("splits", [])
    if set(filters) - {"origin", "splits"} or filters.get("origin", ORIGINS[0]) not in ORIGINS:
        raise ValueError(f"Filters are origin (one of {', '.join(ORIGINS)}) and splits, not {filters}.")
    if not set(splits) <= set(PromptGroup.Split.values):
        raise ValueError(f"Splits are {', '.join(PromptGroup.Split.values)}, not {splits}.")
    return {**filters, "splits": sorted(splits)} if splits else dict(filters)


def write_snapshot(snapshot_id: int) -> None:
    """Write a snapshot's files, for a worker: a second claim does nothing, a failure is kept on the row."""
    snapshot = queue.claim(Snapshot, snapshot_id)
    if snapshot is None:
        return
    with suppress(LeaseLost, FeedbackError):
        try:
            _write(snapshot)
        except (LeaseLost, FeedbackError):
            raise
        except Exception as err:  # noqa: BLE001 - a worker's outermost edge: the reason goes to the row and the log
            logger.exception("snapshot not written snapshot=%s", snapshot_id)
            queue.fail(snapshot, f"{type(err).__name__}: {err}")


def write_now(snapshot: Snapshot, progress: files.Progress = lambda share: None, timeout: float = 3600) -> Snapshot:
    """Write a snapshot in this process, or wait for the worker that is at it. Returns the written row.

    Raises  SnapshotUnusable when it could not be written
    """
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        mine = queue.claim(Snapshot, snapshot.pk)
        if mine is not None:
            _write_or_release(mine, progress)
        snapshot.refresh_from_db()
        if snapshot.is_finished:
            return _written(snapshot)
        progress(snapshot.progress)
        time.sleep(WAIT_SECONDS)
    raise SnapshotUnusable(f"The snapshot was not written within {timeout:.0f} seconds. Look at the worker's log.")


def _write_or_release(snapshot: Snapshot, progress: files.Progress) -> None:
    """Write what this process claimed; an interrupted command gives the row back at once instead of by its lease."""
    try:
        _write(snapshot, progress)
    except LeaseLost:
        return
    except BaseException as err:
        queue.fail(snapshot, f"{type(err).__name__}: {err}")
        raise


def _written(snapshot: Snapshot) -> Snapshot:
    if snapshot.state != Snapshot.State.DONE:
        raise SnapshotUnusable(f"The snapshot could not be written: {snapshot.error or snapshot.get_state_display()}")
    return snapshot


def _write(snapshot: Snapshot, progress: files.Progress = lambda share: None) -> None:
    """Write the files beside their place, move them there in one step, and mark the row done."""
    draft = _fresh_draft(snapshot)
    try:
        with queue.Heartbeat([snapshot]):
            layout, reader = LAYOUTS[snapshot.kind], _reader(snapshot)
            manifest = files.write_files(draft, layout, reader, _about(snapshot), _reporter(snapshot, progress))
            folder = f"{snapshot.project.slug}-{snapshot.kind}-{snapshot.pk}-{manifest['identity'][:12]}"
            _move_into_place(draft, folder, manifest)
        queue.finish(snapshot, manifest=manifest, counts=manifest["counts"], sha256=manifest["identity"], folder=folder)
        logger.info("snapshot written snapshot=%s", snapshot.pk)
    except FeedbackError as err:
        queue.fail(snapshot, err.message, permanent=True)
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _reader(snapshot: Snapshot) -> files.Reader:
    if snapshot.kind == Snapshot.Kind.PREFERENCE:
        return ComparisonReader(snapshot.project, snapshot.ranking_ids)
    if snapshot.kind == Snapshot.Kind.DEMONSTRATIONS:
        return DemonstrationReader(snapshot.project, snapshot.demonstration_ids)
    if snapshot.kind == Snapshot.Kind.RATINGS:
        return RatedReader(snapshot.project, snapshot.rating_ids)
    heads = {int(rule): head for rule, head in snapshot.standing_rules.items()}
    return JudgedReader(snapshot.project, snapshot.judgement_ids, heads)


def _fresh_draft(snapshot: Snapshot) -> Path:
    """An empty folder for this attempt; what attempts before it left behind when they died is cleared away."""
    for left in snapshots_folder().glob(f".draft-{snapshot.pk}-*"):
        shutil.rmtree(left, ignore_errors=True)
    draft = snapshots_folder() / f".draft-{snapshot.pk}-{snapshot.lease_token}"
    draft.mkdir(mode=0o700)
    return draft


def _about(snapshot: Snapshot) -> dict[str, Any]:
    project = snapshot.project
    return {
        "project": {"slug": project.slug, "name": project.name, "is_rehearsal": project.is_rehearsal},
        "filters": snapshot.filters,
        "excluded": snapshot.excluded,
    }


def _reporter(snapshot: Snapshot, progress: files.Progress) -> files.Progress:
    """Tells the row, every half second, and the caller how far the work is; raises LeaseLost when the row is gone."""
    last = time.monotonic()

    def report(share: float) -> None:
        nonlocal last
        progress(share)
        if time.monotonic() - last > REPORT_EVERY:
            last = time.monotonic()
            if not queue.write(snapshot, progress=min(share, 1.0)):
                raise LeaseLost

    return report


def _move_into_place(draft: Path, folder: str, manifest: dict[str, Any]) -> None:
    """One rename. What is there already is from a worker that died before it could say so: same name, same bytes."""
    home = snapshots_folder() / folder
    if home.exists() and _differing(home, manifest):
        shutil.rmtree(home)
    if not home.exists():
        draft.rename(home)
        files.fsync_folder(home.parent)


def damaged_files(snapshot: Snapshot) -> list[str]:
    """Names of a written snapshot's files that are missing or differ from its manifest; empty when all are whole."""
    return _differing(folder_of(snapshot), snapshot.manifest)


def _differing(folder: Path, manifest: dict[str, Any]) -> list[str]:
    names = [name for name, described in manifest["files"].items() if not _is_whole(folder / name, described["sha256"])]
    there = folder / files.MANIFEST
    if not there.is_file() or there.read_bytes() != files.manifest_bytes(manifest):
        names.append(files.MANIFEST)
    return sorted(names)


def _is_whole(path: Path, sha256: str) -> bool:
    return path.is_file() and files.file_sha256(path) == sha256


@transaction.atomic
def withdraw(snapshot: Snapshot, *, because: str, by: User | None = None) -> None:
    """Take a snapshot out of use for good; its row and its files stay, nobody is given them any more."""
    withdrawn = Snapshot.objects.filter(pk=snapshot.pk, withdrawn_at=None).update(
        withdrawn_at=timezone.now(), withdrawn_because=because[:300]
    )
    if withdrawn:
        audit.record("snapshot.withdrawn", project=snapshot.project, actor=by, target=snapshot, because=because)
    snapshot.refresh_from_db()


def require_usable(snapshot: Snapshot) -> Path:
    """The folder of a snapshot whose files are all there and as they were written.

    Raises  SnapshotUnusable, saying what to do
    """
    if snapshot.withdrawn_at is not None:
        raise SnapshotUnusable(f"This snapshot was withdrawn: {snapshot.withdrawn_because}. Freeze a new one.")
    if snapshot.state != Snapshot.State.DONE:
        raise SnapshotUnusable(
            f"This snapshot is not written ({snapshot.get_state_display()}). {snapshot.error}".strip()
        )
    damaged = damaged_files(snapshot)
    if damaged:
        raise SnapshotUnusable(
            f"Files of this snapshot are missing or changed: {', '.join(damaged)}. Freeze a new one."
        )
    return folder_of(snapshot)


def usable_snapshots(project: Project) -> QuerySet[Snapshot]:
    """Written snapshots that were not withdrawn, newest first."""
    return Snapshot.objects.filter(project=project, state=Snapshot.State.DONE, withdrawn_at=None).order_by("-pk")


def snapshot_rows(snapshot: Snapshot, splits: tuple[str, ...] = files.SPLITS) -> Iterator[RankedRow]:
    """Every answer of a written snapshot, in the order of its files, one file line in memory at a time.

    Raises  SnapshotUnusable when it is not written, was withdrawn, or its files are not what they were
    """
    if snapshot.kind != Snapshot.Kind.PREFERENCE:
        raise SnapshotUnusable(f"This snapshot holds {snapshot.kind}, not rankings. Freeze one of kind preference.")
    folder = require_usable(snapshot)
    for split in splits:
        with (folder / "rankings" / f"{split}.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                yield from _ranked_rows(json.loads(line))


def _ranked_rows(comparison: dict[str, Any]) -> Iterator[RankedRow]:
    kept = ("turns", "model", "mean_logprob", "is_empty")
    candidates = [
        {"key": one["candidate_id"], **{name: one[name] for name in kept}} for one in comparison["candidates"]
    ]
    for answer in comparison["rankings"]:
        yield RankedRow(
            comparison_key=comparison["comparison_id"],
            dialogue_key=comparison["dialogue_id"],
            split=comparison["split"],
            prompt=comparison["prompt"],
            candidates=candidates,
            ranks=answer["ranks"],
            all_bad=answer["all_bad"],
            strength=answer["strength"],
            flags=answer["flags"],
            shown_order=answer["shown_order"],
            annotator=answer["annotator_id"],
            seconds=answer["seconds"],
            late=answer["late"],
        )


def demonstrated_rows(snapshot: Snapshot, splits: tuple[str, ...] = files.SPLITS) -> Iterator[DemonstratedRow]:
    """Every demonstration of a written snapshot, in the order of its files, one line in memory at a time.

    Raises  SnapshotUnusable when it holds something else, is not written, was withdrawn, or its files have changed
    """
    if snapshot.kind != Snapshot.Kind.DEMONSTRATIONS:
        raise SnapshotUnusable(
            f"This snapshot holds {snapshot.kind}, not demonstrations. Freeze one of kind demonstrations."
        )
    folder = require_usable(snapshot)
    for split in splits:
        with (folder / LAYOUTS[snapshot.kind].folder / f"{split}.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                one = json.loads(line)
                yield DemonstratedRow(one["demonstration_id"], one["split"], one["prompt"], one["completion"])
