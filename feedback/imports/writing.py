"""Prepared rows into the database. On SQLite all other writers wait meanwhile, so nothing slow is done here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import connection
from django.utils import timezone

from feedback.imports.preparing import (
    CANDIDATES,
    COMPARISONS,
    DIALOGUES,
    ENTRIES,
    GROUPS,
    PROMPTS,
    RANKINGS,
    TURNS,
    Chunk,
    Spool,
)
from feedback.models import Import, Project, Prompt, PromptGroup


def write(source: Import, spool: Spool) -> None:
    """Store what was prepared; call it inside the transaction of the whole import."""
    for chunk in spool:
        _write_chunk(source, chunk)


def _write_chunk(source: Import, chunk: Chunk) -> None:
    now = connection.ops.adapt_datetimefield_value(timezone.now())
    prompts = add_openings(source.project, chunk["openings"], now)
    dialogues = DIALOGUES.insert(
        (source.project_id, source.pk, prompts[opening] if opening else None, now, now, *row)
        for opening, row in chunk["dialogues"]
    )
    TURNS.insert((dialogues[place], now, *row) for place, row in chunk["turns"])
    comparisons = COMPARISONS.insert((dialogues[place], now, *row) for place, row, _ in chunk["comparisons"])
    rankings = RANKINGS.insert(
        (comparison, source.pk, now, *row)
        for comparison, (_, _, row) in zip(comparisons, chunk["comparisons"], strict=True)
    )
    candidates = CANDIDATES.insert(
        (dialogues[place], None if compared is None else comparisons[compared], now, *row)
        for place, compared, row in chunk["candidates"]
    )
    ENTRIES.insert((rankings[compared], candidates[place], *row) for compared, place, row in chunk["entries"])


def add_openings(project: Project, openings: dict[str, Any], now: Any) -> dict[str, int]:
    """{content hash: prompt id} for openings, each stored once and put into groups as `prompts.add_prompt` does."""
    stored = _stored(project, openings)
    missing = {exact: rows for exact, rows in openings.items() if exact not in stored}
    if missing:
        groups = _groups(project, {mark: group for mark, group, _ in missing.values()})
        PROMPTS.insert(
            ((project.pk, groups[mark], now, *prompt) for mark, _, prompt in missing.values()),
            ignore_conflicts=True,  # somebody else may store the same opening at the same moment
        )
        stored |= _stored(project, missing)
    return stored


def _stored(project: Project, keys: Iterable[str]) -> dict[str, int]:
    known = Prompt.objects.filter(project=project, content_hash__in=list(keys))
    return dict(known.values_list("content_hash", "pk"))


def _groups(project: Project, groups: dict[str, list[Any]]) -> dict[str, int]:
    """{fingerprint: group id}: that of a prompt with the same opening, else one named by the fingerprint."""
    twins = Prompt.objects.filter(project=project, fingerprint__in=list(groups))
    homes = dict(twins.values_list("fingerprint", "group"))
    lone = [mark for mark in sorted(groups) if mark not in homes]
    GROUPS.insert(((project.pk, *groups[mark]) for mark in lone), ignore_conflicts=True)
    return homes | dict(PromptGroup.objects.filter(project=project, key__in=lone).values_list("key", "pk"))
