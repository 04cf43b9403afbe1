"""Accepted demonstrations as plain values, in an order and under names that depend on their content alone.

A demonstration is named by the hash of the dialogue so far and the reply. Every text that it took the place of stands
in its record, with what was said of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from feedback.exports.comparisons import Messages, canonical, chunks, content_key, model_name, utc, whole_groups
from feedback.exports.pseudonyms import pseudonym
from feedback.models import Demonstration, DemonstrationReview, Import, Project

OWN_FORMAT = "demonstrations"  # what `import_feedback --format` calls the lines of demonstrations/*.jsonl


@dataclass
class ExportedReview:
    """What one person said of a text: accepted, sent_back (and why) or edited (into the next one)."""

    annotator_id: str
    verdict: str
    reason: str
    seconds: float | None
    late: bool
    revision: int
    created_at: str | None  # None where a source gives no time


@dataclass
class ExportedText:
    """One text in the line of those that took each other's place."""

    annotator_id: str
    content: str
    revision: int
    withdrawn: bool
    pasted_share: float | None  # of its characters; None where nobody measured it
    seconds: float | None
    late: bool
    reviews: list[ExportedReview]
    created_at: str | None  # None where a source gives no time
    meta: str  # JSON text: what the source says


@dataclass
class ExportedDemonstration:
    """The dialogue so far, the accepted reply, the model's reply it was made from, and how it came to be."""

    demonstration_id: str
    dialogue_id: str
    turn: int
    split: str
    group: str
    prompt: Messages
    completion: Messages
    edited_from: Messages | None  # only where the reply says something else
    model_edited_from: str
    texts: list[ExportedText]  # the first to the accepted one
    source: str  # the import's format; empty for what was collected here
    source_key: str

    def number(self, place: int) -> None:
        """Tell this demonstration from others of exactly the same content."""
        self.demonstration_id = f"{self.demonstration_id}-{place}"


RELATED = ("dialogue__prompt__group", "dialogue__source_import", "source_import", "edited_from__model_version")


class DemonstrationReader:
    """Reads a list of demonstrations. Two passes, as `ComparisonReader`: memory holds names and never the texts."""

    def __init__(self, project: Project, demonstration_ids: Sequence[int]) -> None:
        self.project = project
        self.ids = list(demonstration_ids)
        self.order: list[tuple[str, int]] = []

    def __len__(self) -> int:
        """How many demonstrations there are."""
        return len(self.ids)

    def sort(self) -> Iterator[int]:
        """Name and sort everything; yields how many demonstrations each step has done."""
        for chunk in chunks(self.ids):
            self.order += [(_key(_so_far(text), text.content), text.pk) for text in _rows(chunk)]
            yield len(chunk)
        self.order.sort()

    def read(self) -> Iterator[ExportedDemonstration]:
        """Every demonstration in the order of its name; those of exactly the same content are numbered from 2."""
        for chunk in whole_groups(self.order):
            found: dict[int, ExportedDemonstration] = {}
            for some in chunks([pk for _, pk in chunk]):
                found |= {text.pk: self._record(text) for text in _rows(some)}
            for _, twins in groupby(chunk, key=lambda pair: pair[0]):
                yield from _told_apart([found[pk] for _, pk in twins])

    def _record(self, text: Demonstration) -> ExportedDemonstration:
        prompt, dialogue, start = _so_far(text), text.dialogue, text.edited_from
        group = dialogue.prompt.group if dialogue.prompt else None
        is_edit = start is not None and text.is_changed
        told = dialogue.source if _is_own(dialogue.source_import) else {}
        return ExportedDemonstration(
            demonstration_id=_key(prompt, text.content),
            dialogue_id=content_key("demonstrated dialogue", prompt),
            turn=len(prompt),
            split=group.split if group else "",
            group=group.key if group else "",
            prompt=prompt,
            completion=[{"role": "assistant", "content": text.content}],
            edited_from=start.turns if start is not None and is_edit else None,
            model_edited_from=model_name(start.model_version, start.source) if start is not None and is_edit else "",
            texts=[self._text(one) for one in reversed(list(_line(text)))],
            source=told.get("source", dialogue.source_import.format if dialogue.source_import else ""),
            source_key=dialogue.source_key,
        )

    def _text(self, text: Demonstration) -> ExportedText:
        said = text.reviews.filter(counts=True).select_related("source_import").order_by("created_at", "pk")
        told = text.source.get("meta", {}) if _is_own(text.source_import) else text.source
        return ExportedText(
            annotator_id=pseudonym(self.project, text),
            content=text.content,
            revision=text.revision,
            withdrawn=text.withdrawn,
            pasted_share=text.pasted_share,
            seconds=text.seconds,
            late=text.late,
            reviews=[self._review(review) for review in said],
            created_at=_told_time(text),
            meta=canonical(told),
        )

    def _review(self, review: DemonstrationReview) -> ExportedReview:
        return ExportedReview(
            annotator_id=pseudonym(self.project, review),
            verdict=review.verdict,
            reason=review.reason,
            seconds=review.seconds,
            late=review.late,
            revision=review.revision,
            created_at=_told_time(review),
        )


def _is_own(source: Import | None) -> bool:
    """Whether something came in as lines that an export had written."""
    return source is not None and source.format == OWN_FORMAT


def _told_time(given: Demonstration | DemonstrationReview) -> str | None:
    """When it was sent; of what came in, what a line of ours says."""
    if given.source_import is None:
        return utc(given.created_at)
    return given.source.get("created_at") if _is_own(given.source_import) else None


def _rows(ids: list[int]) -> list[Demonstration]:
    found = Demonstration.objects.filter(pk__in=ids).select_related(*RELATED)
    return list(found.prefetch_related("dialogue__turns"))


def _so_far(text: Demonstration) -> Messages:
    return text.dialogue.messages()[: text.position + 1]


def _line(text: Demonstration) -> Iterator[Demonstration]:
    """A text, the one it took the place of, and so on."""
    now: Demonstration | None = text
    while now is not None:
        yield now
        now = now.supersedes


def _key(prompt: Messages, content: str) -> str:
    return content_key("demonstration", [prompt, content])


def _told_apart(twins: list[ExportedDemonstration]) -> list[ExportedDemonstration]:
    """Demonstrations of one name, in the order of what else is known of them; all but the first get a number."""
    if len(twins) > 1:
        twins.sort(key=lambda twin: canonical(asdict(twin)))
        for place, twin in enumerate(twins[1:], start=2):
            twin.number(place)
    return twins


# Rows for trainers


def rows(one: ExportedDemonstration) -> list[dict[str, Any]]:
    """The one row of a demonstration.

    Columns  messages, and the same as prompt and completion (lists of role and content); edited_from, the model's reply
             that was made better, null where there is none; then flat side columns
    """
    last = one.texts[-1]
    accepted = [review for review in last.reviews if review.verdict == DemonstrationReview.Verdict.ACCEPTED]
    about = {"source": one.source, "source_key": one.source_key} if one.source else {}
    return [
        {
            "messages": one.prompt + one.completion,
            "prompt": one.prompt,
            "completion": one.completion,
            "edited_from": one.edited_from,
            "demonstration_id": one.demonstration_id,
            "dialogue_id": one.dialogue_id,
            "turn": one.turn,
            "annotator_id": last.annotator_id,
            "reviewer_id": accepted[-1].annotator_id if accepted else "",
            "model_edited_from": one.model_edited_from,
            "texts": len(one.texts),
            "pasted_share": last.pasted_share,
            "created_at": last.created_at,
            "split": one.split,
            "meta": canonical(about),
        }
    ]


COUNTED = ("demonstrations", "edits", "later_turns", "rewritten", "characters")


def count(one: ExportedDemonstration, made: list[dict[str, Any]]) -> dict[str, int]:
    """What one demonstration adds to the counts, by the names in COUNTED."""
    return {
        "demonstrations": len(made),
        "edits": one.edited_from is not None,
        "later_turns": any(message["role"] == "assistant" for message in one.prompt),
        "rewritten": len(one.texts) > 1,
        "characters": len(one.texts[-1].content),
    }


def schema() -> Any:
    """The columns of a row, as pyarrow types: the same in every file, whatever it happens to hold."""
    import pyarrow as pa

    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    return pa.schema(
        [
            *((name, messages) for name in ("messages", "prompt", "completion", "edited_from")),
            *((name, pa.string()) for name in ("demonstration_id", "dialogue_id")),
            ("turn", pa.int64()),
            *((name, pa.string()) for name in ("annotator_id", "reviewer_id", "model_edited_from")),
            ("texts", pa.int64()),
            ("pasted_share", pa.float64()),
            *((name, pa.string()) for name in ("created_at", "split", "meta")),
        ]
    )
