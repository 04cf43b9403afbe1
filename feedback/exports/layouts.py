"""What each kind of snapshot has in its files: which rows, which columns, what is counted, what the card says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from feedback.exports import demonstrated, judged, rated
from feedback.exports.comparisons import ExportedComparison
from feedback.exports.preferences import pair_schema, preference_rows, tied_pairs


@dataclass(frozen=True)
class Layout:
    """One kind of snapshot.

    folder      of the files that hold every answer as it was given
    rows        the rows for trainers that one record gives
    row_counts  the counts that are of such rows
    counted     the names of all counts, in their order
    """

    kind: str
    folder: str
    rows: Callable[[Any], Iterable[dict[str, Any]]]
    row_counts: tuple[str, ...]
    schema: Callable[[], Any]
    count: Callable[[Any, list[dict[str, Any]]], dict[str, int]]
    counted: tuple[str, ...]

    def row_count(self, counts: dict[str, int]) -> int:
        """How many rows for trainers some counts stand for."""
        return sum(counts.get(name, 0) for name in self.row_counts)


def _count_comparison(comparison: ExportedComparison, rows: list[dict[str, Any]]) -> dict[str, int]:
    return {
        "comparisons": 1,
        "candidates": len(comparison.candidates),
        "empty_candidates": sum(candidate.is_empty for candidate in comparison.candidates),
        "rankings": len(comparison.rankings),
        "all_bad": sum(ranking.all_bad for ranking in comparison.rankings),
        "pairs": len(rows),
        "tied_pairs": sum(map(tied_pairs, comparison.rankings)),
    }


LAYOUTS = {
    "preference": Layout(
        kind="preference",
        folder="rankings",
        rows=preference_rows,
        row_counts=("pairs",),
        schema=pair_schema,
        count=_count_comparison,
        counted=("comparisons", "candidates", "empty_candidates", "rankings", "all_bad", "pairs", "tied_pairs"),
    ),
    "rules": Layout(
        kind="rules",
        folder="judgements",
        rows=judged.unpaired_rows,
        row_counts=("broken", "kept"),
        schema=judged.unpaired_schema,
        count=judged.count,
        counted=judged.COUNTED,
    ),
    "demonstrations": Layout(
        kind="demonstrations",
        folder="demonstrations",
        rows=demonstrated.rows,
        row_counts=("demonstrations",),
        schema=demonstrated.schema,
        count=demonstrated.count,
        counted=demonstrated.COUNTED,
    ),
    "ratings": Layout(
        kind="ratings",
        folder="ratings",
        rows=rated.rows,
        row_counts=("ratings",),
        schema=rated.schema,
        count=rated.count,
        counted=rated.COUNTED,
    ),
}
