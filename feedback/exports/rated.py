"""Rated replies as plain values, in an order and under names that depend on their content alone.

A reply is named by the hash of the dialogue so far and of what it says. Below it stand the questions in the very words
that were answered, and below each every answer of the snapshot.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from feedback.exports.comparisons import Messages, canonical, chunks, content_key, model_name, utc, whole_groups
from feedback.exports.pseudonyms import pseudonym
from feedback.models import Candidate, Project, Rating, Scale
from feedback.scale_texts import FIELDS

OWN_FORMAT = "ratings"  # what an import would call the lines of ratings/*.jsonl


@dataclass
class ExportedRating:
    """One answer of one person or program."""

    annotator_id: str
    program: str  # empty where a person answered
    program_version: str
    value: str
    implied: bool
    seconds: float | None  # for all questions of the set together
    late: bool
    revision: int
    created_at: str | None  # None where a source gives no time
    meta: str  # JSON text: what the source or the program says


@dataclass
class ExportedScale:
    """A question as it was asked, and what was answered to it."""

    scale_set: str
    scale: str
    version: int
    words: dict[str, Any]  # name, question, guidance, kind, values and when it is asked, as `scale_texts` has them
    ratings: list[ExportedRating]


@dataclass
class ExportedReply:
    """The dialogue so far, a reply, what made it, and what is said of it."""

    reply_id: str
    dialogue_id: str
    kind: str
    turn: int
    split: str
    group: str
    model: str
    model_hash: str
    prompt: Messages
    reply: Messages
    scales: list[ExportedScale]
    source: str  # the import's format; empty for what was collected here
    source_key: str

    def number(self, place: int) -> None:
        """Tell this reply from others of exactly the same content."""
        self.reply_id = f"{self.reply_id}-{place}"


RELATED = ("dialogue__prompt__group", "dialogue__source_import", "model_version")


class RatedReader:
    """Reads the replies that a list of ratings is about. Two passes, as `ComparisonReader`: memory holds no texts."""

    def __init__(self, project: Project, rating_ids: Sequence[int]) -> None:
        self.project = project
        self.answers: dict[int, list[int]] = defaultdict(list)
        for chunk in chunks(rating_ids):
            for pk, candidate in Rating.objects.filter(pk__in=chunk).values_list("pk", "candidate_id"):
                self.answers[candidate].append(pk)
        self.order: list[tuple[str, int]] = []

    def __len__(self) -> int:
        """How many replies there are."""
        return len(self.answers)

    def sort(self) -> Iterator[int]:
        """Name and sort everything; yields how many replies each step has done."""
        for chunk in chunks(sorted(self.answers)):
            self.order += [(_key(one), one.pk) for one in _candidates(chunk)]
            yield len(chunk)
        self.order.sort()

    def read(self) -> Iterator[ExportedReply]:
        """Every reply in the order of its name; those of exactly the same content are numbered from 2."""
        for chunk in whole_groups(self.order):
            found: dict[int, ExportedReply] = {}
            for some in chunks([pk for _, pk in chunk]):
                said = self._ratings(some)
                found |= {one.pk: self._record(one, said[one.pk]) for one in _candidates(some)}
            for _, twins in groupby(chunk, key=lambda pair: pair[0]):
                yield from _told_apart([found[pk] for _, pk in twins])

    def _ratings(self, candidates: list[int]) -> dict[int, list[Rating]]:
        found: dict[int, list[Rating]] = defaultdict(list)
        for chunk in chunks(pk for candidate in candidates for pk in self.answers[candidate]):
            for rating in Rating.objects.filter(pk__in=chunk).select_related("scale__scale_set", "source_import"):
                found[rating.candidate_id].append(rating)
        return found

    def _record(self, candidate: Candidate, said: list[Rating]) -> ExportedReply:
        dialogue = candidate.dialogue
        group = dialogue.prompt.group if dialogue.prompt else None
        return ExportedReply(
            reply_id=_key(candidate),
            dialogue_id=content_key("rated dialogue", _so_far(candidate)),
            kind=dialogue.kind,
            turn=candidate.after_position + 1,
            split=group.split if group else "",
            group=group.key if group else "",
            model=model_name(candidate.model_version, candidate.source),
            model_hash=candidate.model_hash,
            prompt=_so_far(candidate),
            reply=_reply(candidate),
            scales=self._scales(said),
            source=dialogue.source_import.format if dialogue.source_import else "",
            source_key=dialogue.source_key,
        )

    def _scales(self, said: list[Rating]) -> list[ExportedScale]:
        by_scale: dict[int, list[Rating]] = defaultdict(list)
        for rating in said:
            by_scale[rating.scale_id].append(rating)
        scales = sorted({rating.scale for rating in said}, key=_place)
        return [self._scale(scale, by_scale[scale.pk]) for scale in scales]

    def _scale(self, scale: Scale, said: list[Rating]) -> ExportedScale:
        ratings = [self._rating(rating) for rating in said]
        return ExportedScale(
            scale_set=scale.scale_set.key,
            scale=scale.key,
            version=scale.version,
            words={name: getattr(scale, name) for name in FIELDS},
            ratings=sorted(ratings, key=lambda one: (one.annotator_id, one.revision)),
        )

    def _rating(self, rating: Rating) -> ExportedRating:
        return ExportedRating(
            annotator_id=pseudonym(self.project, rating),
            program=rating.program,
            program_version=rating.program_version,
            value=rating.value,
            implied=rating.implied,
            seconds=rating.seconds,
            late=rating.late,
            revision=rating.revision,
            created_at=None if rating.source_import_id else utc(rating.created_at),
            meta=canonical(rating.source),
        )


def _place(scale: Scale) -> tuple[str, int, str, int]:
    return scale.scale_set.key, scale.position, scale.key, scale.version


def _candidates(ids: list[int]) -> list[Candidate]:
    return list(Candidate.objects.filter(pk__in=ids).select_related(*RELATED).prefetch_related("dialogue__turns"))


def _so_far(candidate: Candidate) -> Messages:
    return candidate.dialogue.messages()[: candidate.after_position + 1]


def _reply(candidate: Candidate) -> Messages:
    return [{"role": turn["role"], "content": turn["content"]} for turn in candidate.turns]


def _key(candidate: Candidate) -> str:
    return content_key("rated reply", [_so_far(candidate), _reply(candidate)])


def _told_apart(twins: list[ExportedReply]) -> list[ExportedReply]:
    """Replies of one name, in the order of what else is known of them; all but the first get a number."""
    if len(twins) > 1:
        twins.sort(key=lambda twin: canonical(asdict(twin)))
        for place, twin in enumerate(twins[1:], start=2):
            twin.number(place)
    return twins


# Rows for analysis and for trainers


def rows(reply: ExportedReply) -> list[dict[str, Any]]:
    """One row for each rating.

    Columns  prompt and completion (lists of role and content); the scale, the value, and of numbers the number; who or
             what said so; then flat side columns
    """
    about = {"source": reply.source, "source_key": reply.source_key} if reply.source else {}
    return [
        {
            "prompt": reply.prompt,
            "completion": reply.reply,
            "scale_set": scale.scale_set,
            "scale": scale.scale,
            "scale_version": scale.version,
            "question": scale.words["question"],
            "value": rating.value,
            "number": int(rating.value) if scale.words["kind"] == Scale.Kind.NUMBERS else None,
            "implied": rating.implied,
            "annotator_id": rating.annotator_id,
            "program": rating.program,
            "program_version": rating.program_version,
            "seconds": rating.seconds,
            "late": rating.late,
            "created_at": rating.created_at,
            "reply_id": reply.reply_id,
            "dialogue_id": reply.dialogue_id,
            "turn": reply.turn,
            "model": reply.model,
            "split": reply.split,
            "meta": canonical(about),
        }
        for scale in reply.scales
        for rating in scale.ratings
    ]


COUNTED = ("replies", "ratings", "implied", "by_programs", "several_raters")


def count(reply: ExportedReply, made: list[dict[str, Any]]) -> dict[str, int]:
    """What one reply adds to the counts, by the names in COUNTED."""
    return {
        "replies": 1,
        "ratings": len(made),
        "implied": sum(row["implied"] for row in made),
        "by_programs": sum(bool(row["program"]) for row in made),
        "several_raters": len({row["annotator_id"] for row in made if not row["program"]}) > 1,
    }


def schema() -> Any:
    """The columns of a row, as pyarrow types: the same in every file, whatever it happens to hold."""
    import pyarrow as pa

    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    return pa.schema(
        [
            *((name, messages) for name in ("prompt", "completion")),
            *((name, pa.string()) for name in ("scale_set", "scale")),
            ("scale_version", pa.int64()),
            *((name, pa.string()) for name in ("question", "value")),
            ("number", pa.int64()),
            ("implied", pa.bool_()),
            *((name, pa.string()) for name in ("annotator_id", "program", "program_version")),
            ("seconds", pa.float64()),
            ("late", pa.bool_()),
            *((name, pa.string()) for name in ("created_at", "reply_id", "dialogue_id")),
            ("turn", pa.int64()),
            *((name, pa.string()) for name in ("model", "split", "meta")),
        ]
    )
