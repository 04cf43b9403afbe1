"""Our own lines for rankings: what `export --kind preference` writes to rankings/*.jsonl, and a way in for others.

One line is one comparison with every answer to it. What was exported, imported into a fresh project and exported again
is the same bytes: what a line says and no column holds stays in the rows' sources, and exports take it from there.
docs/formats.md has every field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

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
from feedback.imports.reading import Lines, Malformed, Problems, refuse_unstorable, shown
from feedback.imports.records import ImportedCandidate, ImportedDialogue, ImportedRanking
from feedback.models import PromptGroup
from feedback.rankings import dense

LINE = {
    "comparison_id", "dialogue_id", "turn", "split", "prompt", "candidates", "rankings", "source", "source_key",
}  # fmt: skip
CANDIDATE = {
    "candidate_id", "turns", "is_empty", "model", "model_hash", "mean_logprob", "token_count", "finish_reason", "seed",
    "draw", "meta",
}  # fmt: skip
RANKING = {
    "annotator_id", "ranks", "all_bad", "strength", "flags", "shown_order", "seconds", "late", "revision", "created_at",
}  # fmt: skip
LONGEST_HASH = 64  # characters
LONGEST_REASON = 20  # characters of a finish_reason
LARGEST = 1e300  # of what a column of floating point keeps
MOST_CANDIDATES = 1000
MOST_FLAGS = 50  # on one candidate


def read(lines: Lines, problems: Problems) -> Iterator[ImportedDialogue]:
    """One dialogue with its comparison per line."""
    return read_lines(lines, problems, read_line)


def read_line(record: dict[str, Any]) -> ImportedDialogue:
    """A comparison with its answers. `comparison_id`, `turn`, `candidate_id` and `is_empty` follow from the rest."""
    refuse_strangers(record, LINE, "")
    prompt = messages_of(record, "prompt")
    if all(turn["role"] != "user" for turn in prompt):
        raise Malformed("field prompt should hold what a user said.")
    source = text_or_empty(record, "source", LONGEST_NAME)
    candidates = _candidates(record)
    answers = list_of(record, "rankings", "")
    rankings = [_ranking(one, f"rankings[{at}].", len(candidates), source) for at, one in enumerate(answers)]
    if not rankings:
        raise Malformed("field rankings should hold at least one. Leave the line out otherwise.")
    _refuse_twice(rankings)
    told = {"dialogue_id": text_or_empty(record, "dialogue_id", LONGEST_KEY)}
    return ImportedDialogue(
        key=text_or_empty(record, "source_key", LONGEST_KEY),
        turns=prompt,
        candidates=candidates,
        rankings=rankings,
        source={name: value for name, value in told.items() if value} | {"source": source},
        split=one_of(record, "split", PromptGroup.Split.values),
        notes=tuple(_notes(rankings)),
    )


def _candidates(record: dict[str, Any]) -> list[ImportedCandidate]:
    said = list_of(record, "candidates", "")
    if not 1 <= len(said) <= MOST_CANDIDATES:
        raise Malformed(f"field candidates should hold 1 to {MOST_CANDIDATES:,} replies, not {len(said):,}.")
    return [_candidate(one, f"candidates[{place}].") for place, one in enumerate(said)]


def _candidate(said: Any, path: str) -> ImportedCandidate:
    if not isinstance(said, dict):
        raise Malformed(f"field {path[:-1]} should be a reply with its turns, not {shown(said)}.")
    refuse_strangers(said, CANDIDATE, path)
    turns = messages_of(said, "turns", path)
    if not turns:
        raise Malformed(f"field {path}turns is empty. A reply without text is one turn without content.")
    meta = meta_of(said, path)
    source, sampling = (_table(meta, name, path) for name in ("source", "sampling"))
    made = {
        "sampling": sampling,
        "prompt_hash": text_or_empty(meta, "prompt_hash", LONGEST_HASH, f"{path}meta."),
        "model_hash": text_or_empty(said, "model_hash", LONGEST_HASH, path),
        "finish_reason": text_or_empty(said, "finish_reason", LONGEST_REASON, path),
        "mean_logprob": value_of(said, "mean_logprob", path, None, _is_number, "a number, or null"),
        "token_count": value_of(said, "token_count", path, None, _whole(0, 2**31), "a whole number from 0, or null"),
        "seed": value_of(said, "seed", path, None, _whole(-(2**63), 2**63), "a whole number of 64 bits, or null"),
        "draw": value_of(said, "draw", path, 0, _whole(0, 2**15), "a whole number from 0"),
    }
    told = {
        "model_name": text_or_empty(said, "model", LONGEST_KEY, path),
        "source": source,
        "meta": {name: value for name, value in meta.items() if name not in ("source", "sampling", "prompt_hash")},
    }
    return ImportedCandidate(turns, source={name: value for name, value in told.items() if value}, made=made)


def _table(meta: dict[str, Any], name: str, path: str) -> dict[str, Any]:
    value = meta.get(name, {})
    if not isinstance(value, dict):
        raise Malformed(f"field {path}meta.{name} should be an object, not {shown(value)}.")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _whole(lowest: int, above: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and lowest <= value < above


def _ranking(said: Any, path: str, count: int, source: str) -> ImportedRanking:
    """One annotator's answer; its lists follow the candidates."""
    if not isinstance(said, dict):
        raise Malformed(f"field {path[:-1]} should be one annotator's answer, not {shown(said)}.")
    refuse_strangers(said, RANKING, path)
    annotator = annotator_of(said, path)
    told = {
        "created_at": text_or_empty(said, "created_at", LONGEST_NAME, path),
        NAMES_NOBODY: annotator == source,
    }
    return ImportedRanking(
        annotator_key=annotator,
        ranks=_ranks(said, path, count),
        all_bad=value_of(said, "all_bad", path, False, is_truth, "true or false"),
        strength=value_of(said, "strength", path, None, _whole(1, 5), "1 to 4, or null"),
        flags=_flags(said, path, count),
        shown_order=_shown_order(said, path, count),
        seconds=value_of(said, "seconds", path, None, is_time, "a number from 0, or null"),
        late=value_of(said, "late", path, False, is_truth, "true or false"),
        revision=value_of(said, "revision", path, 1, is_revision, "a whole number from 1"),
        source={name: value for name, value in told.items() if value},
    )


def _ranks(said: dict[str, Any], path: str, count: int) -> list[int | None]:
    ranks = list_of(said, "ranks", path)
    if len(ranks) != count or not all(rank is None or (type(rank) is int and rank >= 1) for rank in ranks):
        raise Malformed(
            f"field {path}ranks should hold a rank from 1, or null, for each of the {count} candidates, not "
            f"{shown(ranks)}."
        )
    given = {place: rank for place, rank in enumerate(ranks) if rank is not None}
    if dense(given) != given:
        raise Malformed(f"field {path}ranks leaves a place out: use 1, 2, … without gaps, equal ones for a tie.")
    return ranks


def _flags(said: dict[str, Any], path: str, count: int) -> list[list[str]]:
    """What is wrong with each candidate; may be left out."""
    flags = said.get("flags") or [[] for _ in range(count)]
    if not isinstance(flags, list) or len(flags) != count or not all(map(_are_words, flags)):
        raise Malformed(
            f"field {path}flags should hold a list of at most {MOST_FLAGS} words for each of the {count} candidates, "
            f"not {shown(flags)}."
        )
    for word in (word for words in flags for word in words):
        refuse_unstorable(word, f"field {path}flags")
    return [sorted(set(words)) for words in flags]


def _are_words(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MOST_FLAGS and all(isinstance(one, str) for one in value)


def _shown_order(said: dict[str, Any], path: str, count: int) -> list[int]:
    order = said.get("shown_order") or []
    is_fit = isinstance(order, list) and all(type(place) is int and 0 <= place < count for place in order)
    if not is_fit or len(set(order)) != len(order):
        raise Malformed(
            f"field {path}shown_order should hold places of candidates, the first is 0, each once, not {shown(order)}."
        )
    return order


def _refuse_twice(rankings: list[ImportedRanking]) -> None:
    given = [(one.annotator_key, one.revision) for one in rankings]
    if twin := next((one for one in given if given.count(one) > 1), None):
        raise Malformed(f"annotator {shown(twin[0])} answers twice. Leave one answer out.")


def _notes(rankings: list[ImportedRanking]) -> Iterator[str]:
    if len({tuple(one.ranks) for one in rankings}) > 1:
        yield "comparisons on which the annotators differ, all kept"
    yield from ("answers that call all bad" for one in rankings if one.all_bad)
