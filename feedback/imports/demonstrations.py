"""Our own lines for demonstrations: what `export --kind demonstrations` writes, and a way in for others.

One line is one reply that was written to be imitated, with every text it took and what was said of each. What was
exported, imported into a fresh project and exported again is the same bytes. docs/formats.md has every field.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from feedback.exports.demonstrated import OWN_FORMAT
from feedback.exports.pseudonyms import NAMES_NOBODY
from feedback.imports.fields import (
    LONGEST_KEY,
    LONGEST_NAME,
    annotator_of,
    is_revision,
    is_time,
    is_truth,
    list_of,
    messages_of,
    meta_of,
    one_of,
    read_lines,
    refuse_strangers,
    text_or_empty,
    value_of,
)
from feedback.imports.reading import Lines, Malformed, Problems, shown, text_field
from feedback.imports.records import (
    ImportedCandidate,
    ImportedDemonstration,
    ImportedDialogue,
    ImportedReview,
    ImportedText,
    Messages,
)
from feedback.models import DemonstrationReview, PromptGroup

LINE = {
    "demonstration_id", "dialogue_id", "turn", "split", "group", "prompt", "completion", "edited_from",
    "model_edited_from", "texts", "source", "source_key",
}  # fmt: skip
ALONE = {"annotator_id", "meta"}  # of a line without texts: of the one text that its completion is
TEXT = {
    "annotator_id", "content", "revision", "withdrawn", "pasted_share", "seconds", "late", "reviews", "created_at",
    "meta",
}  # fmt: skip
REVIEW = {"annotator_id", "verdict", "reason", "seconds", "late", "revision", "created_at"}
Verdict = DemonstrationReview.Verdict


def read(lines: Lines, problems: Problems) -> Iterator[ImportedDialogue]:
    """One dialogue with a reply to it per line."""
    return read_lines(lines, problems, read_line)


def read_line(record: dict[str, Any]) -> ImportedDialogue:
    """The dialogue so far and the reply. `demonstration_id`, `dialogue_id` and `turn` follow from the rest."""
    refuse_strangers(record, LINE if record.get("texts") is not None else LINE | ALONE, "")
    prompt = messages_of(record, "prompt")
    if not prompt or prompt[-1]["role"] != "user":
        raise Malformed("field prompt should end with what a user said, as the reply answers that.")
    source = text_or_empty(record, "source", LONGEST_NAME)
    texts = _texts(record, source)
    start = _start(record)
    return ImportedDialogue(
        key=text_or_empty(record, "source_key", LONGEST_KEY),
        turns=prompt,
        candidates=start,
        demonstrations=[ImportedDemonstration(len(prompt) - 1, texts, edited_from=0 if start else None)],
        source={"source": source} if "source" in record else {},
        group=text_or_empty(record, "group", LONGEST_KEY),
        split=one_of(record, "split", PromptGroup.Split.values),
        notes=("replies that took several texts, all kept",) if len(texts) > 1 else (),
    )


def _start(record: dict[str, Any]) -> list[ImportedCandidate]:
    """The model's reply that it was made from, or none."""
    model_name = text_or_empty(record, "model_edited_from", LONGEST_KEY)
    if record.get("edited_from") is None:
        return []
    turns = messages_of(record, "edited_from")
    if not turns:
        raise Malformed("field edited_from is empty. Write null where a reply was made from nothing.")
    return [ImportedCandidate(turns, is_compared=False, source={"model_name": model_name} if model_name else {})]


def _texts(record: dict[str, Any], source: str) -> list[ImportedText]:
    """Every text of the reply, the last of which stands; of a line without them its completion alone."""
    completion = messages_of(record, "completion") if record.get("completion") is not None else None
    if completion is not None and [message["role"] for message in completion] != ["assistant"]:
        raise Malformed("field completion should be one message of the assistant.")
    if record.get("texts") is None:
        if completion is None:
            raise Malformed("field completion is missing. Is this the format you named?")
        return [_only_text(record, completion, source)]
    said = list_of(record, "texts", "")
    texts = [_text(one, f"texts[{at}].", source) for at, one in enumerate(said)]
    if not texts or texts[-1].withdrawn:
        raise Malformed("field texts should end with the text that stands. Leave the line out otherwise.")
    if completion is not None and completion[0]["content"] != texts[-1].content:
        raise Malformed("field completion says something else than the last of texts. Leave it out, or mend it.")
    _refuse_disorder(texts)
    return texts


def _only_text(record: dict[str, Any], completion: Messages, source: str) -> ImportedText:
    named = record.get("annotator_id") is not None
    annotator = annotator_of(record, "") if named else source or OWN_FORMAT
    told = {"meta": meta_of(record, ""), NAMES_NOBODY: annotator == source}
    content = _content(completion[0], "completion[0].")
    return ImportedText(annotator, content, source={name: value for name, value in told.items() if value})


def _content(said: dict[str, Any], path: str) -> str:
    content = text_field(said, "content", path)
    if not content.strip():
        raise Malformed(f"field {path}content is empty. A written reply says something: leave the line out otherwise.")
    return content


def _text(said: Any, path: str, source: str) -> ImportedText:
    if not isinstance(said, dict):
        raise Malformed(f"field {path[:-1]} should be a text with its reviews, not {shown(said)}.")
    refuse_strangers(said, TEXT, path)
    annotator = annotator_of(said, path)
    told = _told(said, path, annotator, source) | {"meta": meta_of(said, path)}
    reviews = list_of(said, "reviews", path) if said.get("reviews") is not None else []
    return ImportedText(
        annotator_key=annotator,
        content=_content(said, path),
        withdrawn=value_of(said, "withdrawn", path, False, is_truth, "true or false"),
        pasted_share=value_of(said, "pasted_share", path, None, _is_share, "a number from 0 to 1, or null"),
        reviews=[_review(one, f"{path}reviews[{at}].", source) for at, one in enumerate(reviews)],
        source={name: value for name, value in told.items() if value},
        **_circumstances(said, path),
    )


def _review(said: Any, path: str, source: str) -> ImportedReview:
    if not isinstance(said, dict):
        raise Malformed(f"field {path[:-1]} should be what one person said of the text, not {shown(said)}.")
    refuse_strangers(said, REVIEW, path)
    annotator = annotator_of(said, path)
    verdict, reason = text_field(said, "verdict", path), text_or_empty(said, "reason", None, path)
    if verdict not in Verdict.values:
        raise Malformed(f"field {path}verdict should be one of {', '.join(Verdict.values)}, not {shown(verdict)}.")
    if verdict == Verdict.SENT_BACK and not reason:
        raise Malformed(f"field {path}reason is missing: what is sent back has one.")
    told = _told(said, path, annotator, source)
    return ImportedReview(
        annotator_key=annotator,
        verdict=verdict,
        reason=reason,
        source={name: value for name, value in told.items() if value},
        **_circumstances(said, path),
    )


def _told(said: dict[str, Any], path: str, annotator: str, source: str) -> dict[str, Any]:
    """What no column holds."""
    created_at = text_or_empty(said, "created_at", LONGEST_NAME, path)
    return {"created_at": created_at, NAMES_NOBODY: annotator == source}


def _circumstances(said: dict[str, Any], path: str) -> dict[str, Any]:
    return {
        "seconds": value_of(said, "seconds", path, None, is_time, "a number from 0, or null"),
        "late": value_of(said, "late", path, False, is_truth, "true or false"),
        "revision": value_of(said, "revision", path, 1, is_revision, "a whole number from 1"),
    }


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _refuse_disorder(texts: list[ImportedText]) -> None:
    """Raises Malformed where texts, or reviews, cannot have followed each other as the line says."""
    if texts[0].revision != 1:
        raise Malformed("field texts[0].revision should be 1, as nothing stands before it.")
    _refuse_twice([(text.annotator_key, text.revision) for text in texts], "texts")
    for at, text in enumerate(texts):
        path = f"texts[{at}].reviews"
        _refuse_twice([(one.annotator_key, one.revision) for one in text.reviews], path)
        edited = sum(one.verdict == Verdict.EDITED for one in text.reviews)
        if edited > 1 or (edited and at == len(texts) - 1):
            raise Malformed(f"field {path} says that the text was edited, and the edit does not follow it, or twice.")
        own = any(one.annotator_key == text.annotator_key for one in text.reviews if not one.source.get(NAMES_NOBODY))
        if own and text.annotator_key != OWN_FORMAT:
            raise Malformed(f"field {path} has a review by who wrote the text. Leave that one out.")


def _refuse_twice(given: list[tuple[str, int]], path: str) -> None:
    if twin := next((one for one in given if given.count(one) > 1), None):
        raise Malformed(f"field {path} has revision {twin[1]} of {shown(twin[0])} twice. Number theirs from 1.")
