"""Imported dialogues as rows, many at a time."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from django.utils import timezone

from feedback.imports.records import ImportedDialogue, Messages
from feedback.models import (
    Candidate,
    Comparison,
    Dialogue,
    Import,
    Project,
    Prompt,
    PromptGroup,
    RankEntry,
    Ranking,
    Turn,
)
from feedback.prompts import content_hash, fingerprint, split_of

AT_ONCE = 500  # dialogues in memory


def write_dialogues(source: Import, dialogues: Iterable[ImportedDialogue]) -> None:
    """Store dialogues with all that belongs to them; call it inside the transaction of the whole import."""
    waiting = iter(dialogues)
    while chunk := list(islice(waiting, AT_ONCE)):
        _write_chunk(source, chunk)


def _write_chunk(source: Import, records: list[ImportedDialogue]) -> None:
    openings = [record.opening() for record in records]
    prompts = add_openings(source.project, [opening for opening in openings if opening], source=source.format)
    now = timezone.now()
    dialogues = Dialogue.objects.bulk_create(
        Dialogue(
            project=source.project,
            kind=Dialogue.Kind.IMPORTED,
            prompt=prompts[content_hash(opening)] if opening else None,
            source_import=source,
            source_key=record.key,
            source=record.source,
            ended_at=now,
            end_reason="imported",
        )
        for record, opening in zip(records, openings, strict=True)
    )
    pairs = list(zip(records, dialogues, strict=True))
    Turn.objects.bulk_create(
        Turn(dialogue=dialogue, position=position, role=turn["role"], content=turn["content"])
        for record, dialogue in pairs
        for position, turn in enumerate(record.turns)
    )
    _write_candidates(source, pairs)


def _write_candidates(source: Import, pairs: list[tuple[ImportedDialogue, Dialogue]]) -> None:
    compared = [(record, dialogue) for record, dialogue in pairs if record.has_comparison]
    comparisons = Comparison.objects.bulk_create(
        Comparison(dialogue=dialogue, after_position=_last_position(record), source_key=record.key)
        for record, dialogue in compared
    )
    of_dialogue = {comparison.dialogue_id: comparison for comparison in comparisons}
    known = [candidate for record, _ in pairs for candidate in record.candidates]
    candidates = Candidate.objects.bulk_create(
        Candidate(
            dialogue=dialogue,
            after_position=_last_position(record),
            comparison=of_dialogue[dialogue.pk] if candidate.is_compared else None,
            index=index,
            turns=candidate.turns,
            is_empty=candidate.is_empty,
            source=candidate.source,
        )
        for record, dialogue in pairs
        for index, candidate in enumerate(record.candidates)
    )
    rankings = Ranking.objects.bulk_create(
        Ranking(comparison=comparison, source_import=source, annotator_key=source.format) for comparison in comparisons
    )
    of_comparison = {ranking.comparison_id: ranking for ranking in rankings}
    RankEntry.objects.bulk_create(
        RankEntry(ranking=of_comparison[row.comparison_id], candidate=row, rank=candidate.rank)
        for candidate, row in zip(known, candidates, strict=True)
        if row.comparison_id is not None and candidate.rank is not None
    )


def _last_position(record: ImportedDialogue) -> int:
    """Position of the turn the candidates answer; 0 where they share no turn at all."""
    return max(len(record.turns) - 1, 0)


def add_openings(project: Project, openings: list[Messages], *, source: str) -> dict[str, Prompt]:
    """{content hash: prompt} for openings, each stored once and put into groups as `prompts.add_prompt` does.

    They are not offered to annotators: what a stranger's file holds is looked at first.
    """
    wanted = {content_hash(opening): opening for opening in openings}
    missing = {key: opening for key, opening in wanted.items() if key not in _stored(project, wanted)}
    if missing:
        prints = {key: fingerprint(opening) for key, opening in missing.items()}
        homes = _groups(project, sorted(set(prints.values())))
        Prompt.objects.bulk_create(
            [
                Prompt(
                    project=project,
                    group=homes[prints[key]],
                    messages=opening,
                    fingerprint=prints[key],
                    content_hash=key,
                    source=source,
                    is_active=False,
                )
                for key, opening in missing.items()
            ],
            ignore_conflicts=True,  # somebody else may store the same opening at the same moment
        )
    return _stored(project, wanted)


def _stored(project: Project, keys: Iterable[str]) -> dict[str, Prompt]:
    return {prompt.content_hash: prompt for prompt in Prompt.objects.filter(project=project, content_hash__in=keys)}


def _groups(project: Project, prints: list[str]) -> dict[str, PromptGroup]:
    """{fingerprint: group}: that of a prompt with the same opening, else one named by the fingerprint."""
    twins = Prompt.objects.filter(project=project, fingerprint__in=prints).select_related("group")
    homes = {twin.fingerprint: twin.group for twin in twins}
    lone = [mark for mark in prints if mark not in homes]
    PromptGroup.objects.bulk_create(
        [PromptGroup(project=project, key=mark, split=split_of(mark)) for mark in lone], ignore_conflicts=True
    )
    return homes | {group.key: group for group in PromptGroup.objects.filter(project=project, key__in=lone)}
