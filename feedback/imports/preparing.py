"""Imported dialogues made ready to be written, on disk: what takes time is done before the database is held."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

from django.conf import settings

from feedback.imports.records import (
    ImportedDemonstration,
    ImportedDialogue,
    ImportedRanking,
    ImportedReview,
    ImportedText,
)
from feedback.imports.tables import Table
from feedback.likeness import fingerprint as fingerprint_of_reply
from feedback.models import (
    Candidate,
    Comparison,
    Demonstration,
    DemonstrationReview,
    Dialogue,
    Probe,
    Prompt,
    PromptGroup,
    RankEntry,
    Ranking,
    RuleJudgement,
    Turn,
)
from feedback.prompts import content_hash, fingerprint, split_of

MOST_DIALOGUES = 500  # of one chunk
MOST_CHARACTERS = 8 * 1024 * 1024  # of one chunk, unless a single dialogue has more

GROUPS = Table(PromptGroup, "project")
PROMPTS = Table(Prompt, "project", "group", "created_at")
DIALOGUES = Table(Dialogue, "project", "source_import", "prompt", "created_at", "ended_at")
TURNS = Table(Turn, "dialogue", "created_at", "demonstration")
COMPARISONS = Table(Comparison, "dialogue", "created_at")
CANDIDATES = Table(Candidate, "dialogue", "comparison", "created_at")
RANKINGS = Table(Ranking, "comparison", "source_import", "created_at", "shown_order")
ENTRIES = Table(RankEntry, "ranking", "candidate")
DEMONSTRATIONS = Table(Demonstration, "dialogue", "source_import", "created_at", "supersedes", "edited_from")
REVIEWS = Table(DemonstrationReview, "demonstration", "source_import", "created_at", "edit")
PROBES = Table(Probe, "dialogue", "rule", "created_at")
JUDGEMENTS = Table(RuleJudgement, "dialogue", "rule", "source_import", "created_at")

Chunk = dict[str, Any]


class Spool:
    """Chunks of rows in a file without a name beside the database; memory holds one of them."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile("w+", encoding="ascii", dir=settings.DATA_DIR)  # noqa: SIM115

    def add(self, chunk: Chunk) -> None:
        self._file.write(json.dumps(chunk) + "\n")

    def __iter__(self) -> Iterator[Chunk]:
        self._file.seek(0)
        yield from map(json.loads, self._file)

    def close(self) -> None:
        self._file.close()


def prepare(dialogues: Iterable[ImportedDialogue], *, file_format: str, spool: Spool) -> None:
    """Put the rows of dialogues, and of all that belongs to them, into the spool; writes nothing to the database."""
    for records in _chunks(dialogues):
        spool.add(rows_of(records, file_format))


def _chunks(dialogues: Iterable[ImportedDialogue]) -> Iterator[list[ImportedDialogue]]:
    chunk: list[ImportedDialogue] = []
    characters = 0
    for record in dialogues:
        chunk.append(record)
        characters += record.characters
        if len(chunk) >= MOST_DIALOGUES or characters >= MOST_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def rows_of(records: list[ImportedDialogue], file_format: str) -> Chunk:
    """The rows of some dialogues as far as they are known before writing; they point to each other by their places.

    openings        {content hash: [fingerprint, key of the group, group, prompt]}
    promised        {content hash: side of the split on which it must lie}
    dialogues       [content hash of the opening or None, dialogue]
    turns           [place of the dialogue, generation and place of the demonstration it repeats or None, turn]
    comparisons     [place of the dialogue, comparison]
    candidates      [place of the dialogue, place of the comparison or None, candidate]
    rankings        [place of the comparison, places of the candidates in the order shown, ranking]
    entries         [place of the ranking, place of the candidate, entry]
    demonstrations  generations, each a list: first texts, then what took their place, and so on
                    [place of the dialogue, place in the one before or None, place of the candidate or None, text]
    reviews         [generation, place in it, place of the edit in the next one or None, review]
    probes          [place of the dialogue, mark of the rule, probe]
    judgements      [place of the dialogue, mark of the rule, judgement]
    """
    chunk: Chunk = {"openings": {}, "promised": {}, "dialogues": [], "turns": [], "comparisons": [], "candidates": []}
    chunk |= {"rankings": [], "entries": [], "demonstrations": [], "reviews": [], "probes": [], "judgements": []}
    for place, record in enumerate(records):
        chunk["dialogues"].append([_add_opening(chunk, record, file_format), _dialogue(record)])
        repeated = _add_demonstrations(chunk, place, record)
        chunk["turns"] += [
            [place, repeated.get(at), TURNS.early_values(position=at, role=turn["role"], content=turn["content"])]
            for at, turn in enumerate(record.turns)
        ]
        _add_candidates(chunk, place, record, file_format)
        _add_judgements(chunk, place, record)
    return chunk


def _add_opening(chunk: Chunk, record: ImportedDialogue, file_format: str) -> str | None:
    """The content hash of a dialogue's opening. Whoever imports looks at it first: it is not offered to annotators."""
    opening = record.opening()
    if not opening:
        return None
    exact = content_hash(opening)
    if exact not in chunk["openings"]:
        mark = fingerprint(opening)
        key = record.group or mark
        group = GROUPS.early_values(key=key, split=record.split or split_of(key))
        prompt = PROMPTS.early_values(
            messages=opening, fingerprint=mark, content_hash=exact, source=file_format, is_active=False
        )
        chunk["openings"][exact] = [mark, key, group, prompt]
    if record.is_promised:
        chunk["promised"][exact] = record.split
    return exact


def _dialogue(record: ImportedDialogue) -> list[Any]:
    return DIALOGUES.early_values(
        kind=Dialogue.Kind.IMPORTED, source_key=record.key, source=record.source, end_reason="imported"
    )


def _add_demonstrations(chunk: Chunk, place: int, record: ImportedDialogue) -> dict[int, list[int]]:
    """The texts of a dialogue whose candidates follow.

    Returns  {position of a turn: generation and place of the demonstration that it repeats}
    """
    repeated = {}
    for one in record.demonstrations:
        stands = _add_texts(chunk, place, one)
        said = record.turns[one.position + 1 : one.position + 2]
        if said == [{"role": "assistant", "content": one.texts[-1].content}]:
            repeated[one.position + 1] = stands
    return repeated


def _add_texts(chunk: Chunk, place: int, one: ImportedDemonstration) -> list[int]:
    """The texts of a demonstration, one in each generation. Returns  generation and place of the one that stands"""
    generations = chunk["demonstrations"]
    generations += [[] for _ in range(len(one.texts) - len(generations))]
    places = [len(generations[at]) for at in range(len(one.texts))]
    start = None if one.edited_from is None else len(chunk["candidates"]) + one.edited_from
    for at, text in enumerate(one.texts):
        is_last = at == len(one.texts) - 1
        row = [place, places[at - 1] if at else None, start if is_last else None, _text(text, one.position)]
        generations[at].append(row)
        for review in text.reviews:
            edit = places[at + 1] if review.verdict == DemonstrationReview.Verdict.EDITED else None
            chunk["reviews"].append([at, places[at], edit, _review(review)])
    return [len(one.texts) - 1, places[-1]]


def _text(text: ImportedText, position: int) -> list[Any]:
    return DEMONSTRATIONS.early_values(
        position=position,
        content=text.content,
        fingerprint=fingerprint_of_reply(text.content),
        annotator_key=text.annotator_key,
        revision=text.revision,
        withdrawn=text.withdrawn,
        pasted_share=text.pasted_share,
        seconds=text.seconds,
        late=text.late,
        source=text.source,
    )


def _review(review: ImportedReview) -> list[Any]:
    return REVIEWS.early_values(
        annotator_key=review.annotator_key,
        verdict=review.verdict,
        reason=review.reason,
        seconds=review.seconds,
        late=review.late,
        revision=review.revision,
        source=review.source,
    )


def _add_candidates(chunk: Chunk, place: int, record: ImportedDialogue, file_format: str) -> None:
    last = max(len(record.turns) - 1, 0)  # the turn the candidates answer; 0 where they share no turn at all
    compared = len(chunk["comparisons"])
    if record.has_comparison:
        chunk["comparisons"].append([place, COMPARISONS.early_values(after_position=last, source_key=record.key)])
        for answer in record.answers(file_format):
            _add_ranking(chunk, compared, answer)
    for index, candidate in enumerate(record.candidates):
        row = CANDIDATES.early_values(
            after_position=last,
            index=index,
            turns=candidate.turns,
            is_empty=candidate.is_empty,
            source=candidate.source,
            **candidate.made,
        )
        chunk["candidates"].append([place, compared if candidate.is_compared else None, row])


def _add_ranking(chunk: Chunk, compared: int, answer: ImportedRanking) -> None:
    """An answer to a comparison whose candidates follow."""
    first = len(chunk["candidates"])
    row = RANKINGS.early_values(
        annotator_key=answer.annotator_key,
        all_bad=answer.all_bad,
        strength=answer.strength,
        seconds=answer.seconds,
        late=answer.late,
        revision=answer.revision,
        source=answer.source,
    )
    for index, rank in enumerate(answer.ranks):
        flags = answer.flags[index] if answer.flags else []
        if rank is not None or flags:
            entry = ENTRIES.early_values(rank=rank, flags=flags)
            chunk["entries"].append([len(chunk["rankings"]), first + index, entry])
    chunk["rankings"].append([compared, [first + index for index in answer.shown_order], row])


def _add_judgements(chunk: Chunk, place: int, record: ImportedDialogue) -> None:
    if record.probed is not None:
        chunk["probes"].append([place, record.probed.mark, PROBES.early_values()])
    for judgement in record.judgements:
        row = JUDGEMENTS.early_values(
            annotator_key=judgement.annotator_key,
            verdict=judgement.verdict,
            turn_position=judgement.turn_position,
            reason=judgement.reason,
            by_prober=judgement.by_prober,
            tactics=judgement.tactics,
            seconds=judgement.seconds,
            late=judgement.late,
            revision=judgement.revision,
            source=judgement.source,
        )
        chunk["judgements"].append([place, judgement.rule.mark, row])
