"""Prepared rows into the database. On SQLite all other writers wait meanwhile, so nothing slow is done here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import connection
from django.utils import timezone

from feedback.errors import ImportRefused
from feedback.imports.preparing import (
    CANDIDATES,
    COMPARISONS,
    DEMONSTRATIONS,
    DIALOGUES,
    ENTRIES,
    GROUPS,
    JUDGEMENTS,
    PROBES,
    PROMPTS,
    RANKINGS,
    REVIEWS,
    TURNS,
    Chunk,
    Spool,
)
from feedback.models import Import, Project, Prompt, PromptGroup


def write(source: Import, spool: Spool, rules: Mapping[str, int]) -> None:
    """Store what was prepared; call it inside the transaction of the whole import.

    rules   {mark of a rule: its id}
    Raises  ImportRefused where somebody judges a dialogue by one rule under two names, or what must lie on one side of
            the split lies on another
    """
    for chunk in spool:
        _write_chunk(source, chunk, rules)


def _write_chunk(source: Import, chunk: Chunk, rules: Mapping[str, int]) -> None:
    now = connection.ops.adapt_datetimefield_value(timezone.now())
    prompts = add_openings(source.project, chunk["openings"], now)
    _refuse_broken_promise(chunk["promised"], prompts)
    dialogues = DIALOGUES.insert(
        (source.project_id, source.pk, prompts[opening] if opening else None, now, now, *row)
        for opening, row in chunk["dialogues"]
    )
    comparisons = COMPARISONS.insert((dialogues[place], now, *row) for place, row in chunk["comparisons"])
    candidates = CANDIDATES.insert(
        (dialogues[place], None if compared is None else comparisons[compared], now, *row)
        for place, compared, row in chunk["candidates"]
    )
    texts = _write_texts(source, chunk, dialogues, candidates, now)
    TURNS.insert(
        (dialogues[place], now, texts[said[0]][said[1]] if said else None, *row) for place, said, row in chunk["turns"]
    )
    rankings = RANKINGS.insert(
        (comparisons[compared], source.pk, now, json.dumps([candidates[place] for place in shown]), *row)
        for compared, shown, row in chunk["rankings"]
    )
    ENTRIES.insert((rankings[ranking], candidates[place], *row) for ranking, place, row in chunk["entries"])
    PROBES.insert((dialogues[place], rules[mark], now, *row) for place, mark, row in chunk["probes"])
    _refuse_two_names(chunk, rules)
    JUDGEMENTS.insert((dialogues[place], rules[mark], source.pk, now, *row) for place, mark, row in chunk["judgements"])


def _refuse_broken_promise(promised: dict[str, str], prompts: dict[str, int]) -> None:
    """What authors ask to keep on one side of the split is not taken in where it lies on another already."""
    there = Prompt.objects.filter(pk__in=[prompts[exact] for exact in promised])
    sides = dict(there.values_list("content_hash", "group__split"))
    if broken := next((exact for exact, side in promised.items() if sides[exact] != side), None):
        raise ImportRefused(
            f"The authors ask that these openings lie in {promised[broken]}, and here some lie in {sides[broken]} "
            "already, from an earlier import. Import into another project. Nothing was imported."
        )


def _write_texts(
    source: Import, chunk: Chunk, dialogues: list[int], candidates: list[int], now: Any
) -> list[list[int]]:
    """Written replies and what was said of them. Returns  the ids of each generation"""
    ids: list[list[int]] = []
    for generation in chunk["demonstrations"]:
        rows = (
            (
                dialogues[place],
                source.pk,
                now,
                None if before is None else ids[-1][before],
                None if start is None else candidates[start],
                *row,
            )
            for place, before, start, row in generation
        )
        ids.append(DEMONSTRATIONS.insert(list(rows)))
    REVIEWS.insert(
        (ids[at][place], source.pk, now, None if edit is None else ids[at + 1][edit], *row)
        for at, place, edit, row in chunk["reviews"]
    )
    return ids


def _refuse_two_names(chunk: Chunk, rules: Mapping[str, int]) -> None:
    """A file may call a rule by its key and by its wording, but not where somebody's verdict would be there twice."""
    who, which = (JUDGEMENTS.place_of(name) for name in ("annotator_key", "revision"))
    given: dict[tuple[int, int, str, int], str] = {}
    for place, mark, row in chunk["judgements"]:
        before = given.setdefault((place, rules[mark], row[who], row[which]), mark)
        if before != mark:
            raise ImportRefused(
                f"Annotator {row[who]!r} judges a dialogue by {_named(before)} and by {_named(mark)}, which are one "
                "rule here. Leave one of the two verdicts out. Nothing was imported."
            )


def _named(mark: str) -> str:
    key, _, wording = mark.partition("|")
    words = f"the wording “{wording[:60]}”"
    return f"“{key}” with {words}" if key and wording else f"“{key}”" if key else words


def add_openings(project: Project, openings: dict[str, Any], now: Any) -> dict[str, int]:
    """{content hash: prompt id} for openings, each stored once and put into groups as `prompts.add_prompt` does."""
    stored = _stored(project, openings)
    missing = {exact: rows for exact, rows in openings.items() if exact not in stored}
    if missing:
        homes: dict[str, tuple[str, list[Any]]] = {}
        for mark, key, group, _ in missing.values():
            homes.setdefault(mark, (key, group))
        groups = _groups(project, homes)
        PROMPTS.insert(
            ((project.pk, groups[mark], now, *prompt) for mark, _, _, prompt in missing.values()),
            ignore_conflicts=True,  # somebody else may store the same opening at the same moment
        )
        stored |= _stored(project, missing)
    return stored


def _stored(project: Project, keys: Iterable[str]) -> dict[str, int]:
    known = Prompt.objects.filter(project=project, content_hash__in=list(keys))
    return dict(known.values_list("content_hash", "pk"))


def _groups(project: Project, homes: dict[str, tuple[str, list[Any]]]) -> dict[str, int]:
    """{fingerprint: group id}: that of a prompt with the same opening, else the one its source or fingerprint names.

    homes  {fingerprint: (key of the group, the group's row)}
    """
    twins = Prompt.objects.filter(project=project, fingerprint__in=list(homes))
    known = dict(twins.values_list("fingerprint", "group"))
    lone = {mark: home for mark, home in homes.items() if mark not in known}
    rows = dict(reversed(list(lone.values())))  # of one key the first row that names it
    GROUPS.insert(((project.pk, *rows[key]) for key in sorted(rows)), ignore_conflicts=True)
    by_key = dict(PromptGroup.objects.filter(project=project, key__in=list(rows)).values_list("key", "pk"))
    return known | {mark: by_key[key] for mark, (key, _) in lone.items()}
