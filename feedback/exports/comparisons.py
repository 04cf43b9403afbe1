"""Comparisons with their answers, as plain values in an order and under names that depend on their content alone.

A database id or a clock never reaches a file: a comparison is named by the hash of what was asked, a candidate by its
place in it, a dialogue by its first comparison.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, TypeVar

from feedback.exports.pseudonyms import pseudonym
from feedback.models import Candidate, Comparison, Import, ModelVersion, Project, Ranking, Turn

Item = TypeVar("Item")
Messages = list[dict[str, str]]
CHUNK = 400  # rows fetched at once; also what SQLite takes as parameters without complaint
KEY_DIGITS = 24
OWN_FORMAT = "rankings"  # what `import_feedback --format` calls the lines of rankings/*.jsonl
SHOWN = ("title", "source", "text")  # of a snippet; which passage it was is this database's affair


@dataclass
class ExportedCandidate:
    """One reply: what it says and what made it."""

    candidate_id: str
    turns: Messages
    is_empty: bool
    model: str
    model_hash: str
    mean_logprob: float | None
    token_count: int | None
    finish_reason: str
    seed: int | None
    draw: int
    meta: str  # JSON text: sampling settings, the hash of what the model read, what the source says


@dataclass
class ExportedRanking:
    """One annotator's answer; the lists follow the comparison's candidates."""

    annotator_id: str
    ranks: list[int | None]
    all_bad: bool
    strength: int | None
    flags: list[list[str]]
    shown_order: list[int]  # the candidates' places in the order they were shown; empty where nobody knows
    seconds: float | None
    late: bool
    revision: int
    created_at: str | None  # None where a source gives no time


@dataclass
class ExportedComparison:
    """The question and every answer of the snapshot to it."""

    comparison_id: str
    dialogue_id: str
    turn: int
    split: str
    prompt: Messages
    candidates: list[ExportedCandidate]
    rankings: list[ExportedRanking]
    source: str  # the import's format; empty for what was collected here
    source_key: str

    def number(self, place: int) -> None:
        """Tell this comparison from others of exactly the same content."""
        self.comparison_id = f"{self.comparison_id}-{place}"
        for candidate in self.candidates:
            candidate.candidate_id = f"{self.comparison_id}.{candidate.candidate_id.rsplit('.', 1)[1]}"


def canonical(value: Any) -> str:
    """JSON in one form only: sorted keys, no blanks."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def content_key(kind: str, value: Any) -> str:
    """The first 96 bits of the sha256 of a value, as hexadecimal digits; two kinds of thing never share a key."""
    return hashlib.sha256(canonical([kind, value]).encode("utf-8", "surrogatepass")).hexdigest()[:KEY_DIGITS]


def chunks(items: Iterable[Item], size: int = 0) -> Iterator[list[Item]]:
    """The items in lists of at most `size`, or CHUNK.

    >>> list(chunks("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    chunk: list[Item] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == (size or CHUNK):
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def whole_groups(order: Iterable[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    """Sorted (name, id) in lists of about CHUNK that never part those of one name."""
    batch: list[tuple[str, int]] = []
    for _, twins in groupby(order, key=lambda pair: pair[0]):
        batch += twins
        if len(batch) >= CHUNK:
            yield batch
            batch = []
    if batch:
        yield batch


class ComparisonReader:
    """Reads the comparisons that a list of rankings answers.

    Two passes: the first names every comparison by its content and sorts, the second reads them again in that order,
    a chunk at a time, so that memory holds the names and never the texts.
    """

    def __init__(self, project: Project, ranking_ids: Sequence[int]) -> None:
        self.project = project
        self.answers: dict[int, list[int]] = defaultdict(list)
        for chunk in chunks(ranking_ids):
            for pk, comparison in Ranking.objects.filter(pk__in=chunk).values_list("pk", "comparison_id"):
                self.answers[comparison].append(pk)
        self.order: list[tuple[str, int]] = []

    def __len__(self) -> int:
        """How many comparisons there are."""
        return len(self.answers)

    def sort(self) -> Iterator[int]:
        """Name and sort everything; yields how many comparisons each step has done."""
        for chunk in chunks(sorted(self.answers)):
            content = _Content(chunk)
            self.order += [(content.key(comparison), comparison.pk) for comparison in content.comparisons]
            yield len(chunk)
        self.order.sort()

    def read(self) -> Iterator[ExportedComparison]:
        """Every comparison in the order of its key; those of exactly the same content are numbered from 2."""
        for chunk in whole_groups(self.order):
            found = self._records([pk for _, pk in chunk])
            for _, twins in groupby(chunk, key=lambda pair: pair[0]):
                yield from _told_apart([found[pk] for _, pk in twins])

    def _records(self, ids: list[int]) -> dict[int, ExportedComparison]:
        content = _Content(ids)
        rankings = self._rankings(ids)
        names = content.dialogue_keys()
        return {
            comparison.pk: self._record(comparison, content, names[comparison.dialogue_id], rankings[comparison.pk])
            for comparison in content.comparisons
        }

    def _rankings(self, ids: list[int]) -> dict[int, list[Ranking]]:
        found: dict[int, list[Ranking]] = defaultdict(list)
        for chunk in chunks(pk for comparison in ids for pk in self.answers[comparison]):
            rows = Ranking.objects.filter(pk__in=chunk).select_related("source_import").prefetch_related("entries")
            for ranking in rows:
                found[ranking.comparison_id].append(ranking)
        return found

    def _record(
        self, comparison: Comparison, content: _Content, dialogue_id: str, rankings: list[Ranking]
    ) -> ExportedComparison:
        key = content.key(comparison)
        candidates = content.candidates[comparison.pk]
        source = comparison.dialogue.source_import
        answers = [_exported_ranking(self.project, ranking, candidates) for ranking in rankings]
        told = comparison.dialogue.source if _is_own(source) else {}
        return ExportedComparison(
            comparison_id=key,
            dialogue_id=told.get("dialogue_id") or dialogue_id,
            turn=comparison.after_position + 1,
            split=comparison.dialogue.prompt.group.split if comparison.dialogue.prompt else "",
            prompt=content.prompt(comparison),
            candidates=[_exported_candidate(key, candidate, told_by_us=_is_own(source)) for candidate in candidates],
            rankings=sorted(answers, key=lambda answer: (answer.annotator_id, answer.revision)),
            source=told.get("source", source.format if source else ""),
            source_key=comparison.source_key,
        )


class _Content:
    """A chunk of comparisons with the texts of their dialogues and candidates."""

    def __init__(self, ids: Sequence[int]) -> None:
        related = ("dialogue__prompt__group", "dialogue__source_import")
        self.comparisons = list(Comparison.objects.filter(pk__in=ids).select_related(*related).order_by("pk"))
        self.candidates: dict[int, list[Candidate]] = defaultdict(list)
        rows = Candidate.objects.filter(comparison__in=ids).select_related("model_version").order_by("index")
        for candidate in rows:
            self.candidates[candidate.comparison_id].append(candidate)  # type: ignore[index]
        self.turns: dict[int, list[tuple[int, str, str]]] = defaultdict(list)
        dialogues = {comparison.dialogue_id for comparison in self.comparisons}
        said = Turn.objects.filter(dialogue__in=dialogues).order_by("dialogue_id", "position")
        for dialogue, position, role, text in said.values_list("dialogue_id", "position", "role", "content"):
            self.turns[dialogue].append((position, role, text))

    def prompt(self, comparison: Comparison) -> Messages:
        """The dialogue as far as the comparison's replies answer it."""
        turns = self.turns[comparison.dialogue_id]
        return [
            {"role": role, "content": text} for position, role, text in turns if position <= comparison.after_position
        ]

    def key(self, comparison: Comparison) -> str:
        """The comparison's name: the hash of its prompt and its candidates in the order they were made."""
        turns = [candidate.turns for candidate in self.candidates[comparison.pk]]
        return content_key("comparison", [self.prompt(comparison), turns])

    def dialogue_keys(self) -> dict[int, str]:
        """{dialogue id: name}: that of the dialogue's first comparison, which stays when the dialogue goes on."""
        ids = {comparison.dialogue_id for comparison in self.comparisons}
        firsts: dict[int, int] = {}
        questions = Comparison.objects.filter(dialogue__in=ids).order_by(
            "dialogue_id", "after_position", "request__redo"
        )
        for dialogue, pk in questions.values_list("dialogue_id", "pk"):
            firsts.setdefault(dialogue, pk)
        here = {comparison.pk: comparison for comparison in self.comparisons}
        elsewhere = (
            _Content([pk for pk in firsts.values() if pk not in here]) if set(firsts.values()) - set(here) else None
        )
        keys = {first.dialogue_id: self.key(first) for pk, first in here.items() if firsts[first.dialogue_id] == pk}
        if elsewhere is not None:
            keys |= {first.dialogue_id: elsewhere.key(first) for first in elsewhere.comparisons}
        return {dialogue: content_key("dialogue", key) for dialogue, key in keys.items()}


def _told_apart(twins: list[ExportedComparison]) -> list[ExportedComparison]:
    """Comparisons of one key, in the order of what was answered to them; all but the first get a number."""
    if len(twins) > 1:
        twins.sort(key=lambda twin: canonical(asdict(twin)))
        for place, twin in enumerate(twins[1:], start=2):
            twin.number(place)
    return twins


def _is_own(source: Import | None) -> bool:
    """Whether something came in as lines that an export had written."""
    return source is not None and source.format == OWN_FORMAT


def _exported_candidate(comparison_id: str, candidate: Candidate, *, told_by_us: bool) -> ExportedCandidate:
    """A candidate; of one that an export wrote before, what its source said then."""
    told = candidate.source if told_by_us else {"source": candidate.source}
    meta = {"sampling": candidate.sampling, "prompt_hash": candidate.prompt_hash, "source": told.get("source")}
    meta |= {"evidence": [{name: one[name] for name in SHOWN} for one in candidate.evidence.get("snippets", [])]}
    meta |= told.get("meta", {})
    return ExportedCandidate(
        candidate_id=f"{comparison_id}.{candidate.index}",
        turns=[{"role": turn["role"], "content": turn["content"]} for turn in candidate.turns],
        is_empty=candidate.is_empty,
        model=model_name(candidate.model_version, candidate.source),
        model_hash=candidate.model_hash,
        mean_logprob=candidate.mean_logprob,
        token_count=candidate.token_count,
        finish_reason=candidate.finish_reason,
        seed=candidate.seed,
        draw=candidate.draw,
        meta=canonical({key: value for key, value in meta.items() if value}),
    )


def model_name(model: ModelVersion | None, source: dict[str, Any]) -> str:
    """What wrote a reply, by its number in the project or by the name a source gives; empty where nobody knows."""
    return f"{model.kind}-{model.number}" if model else str(source.get("model_name") or "")


def _exported_ranking(project: Project, ranking: Ranking, candidates: list[Candidate]) -> ExportedRanking:
    entries = {entry.candidate_id: entry for entry in ranking.entries.all()}
    places = {candidate.pk: place for place, candidate in enumerate(candidates)}
    asked = [entries.get(candidate.pk) for candidate in candidates]
    return ExportedRanking(
        annotator_id=pseudonym(project, ranking),
        ranks=[entry.rank if entry else None for entry in asked],
        all_bad=ranking.all_bad,
        strength=ranking.strength,
        flags=[sorted(entry.flags) if entry else [] for entry in asked],
        shown_order=[places[pk] for pk in ranking.shown_order if pk in places],
        seconds=ranking.seconds,
        late=ranking.late,
        revision=ranking.revision,
        created_at=_told_time(ranking) if ranking.source_import_id else utc(ranking.created_at),
    )


def _told_time(ranking: Ranking) -> str | None:
    """When an imported answer was given, where it came in as a line that says so."""
    return ranking.source.get("created_at") if _is_own(ranking.source_import) else None


def utc(moment: datetime) -> str:
    """A moment as the files have it."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
