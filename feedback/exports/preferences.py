"""Preferences derived from rankings: the rows TRL's trainers read.

A ranking of K replies becomes a row for every pair it tells apart. Ties, unranked replies and "none is good" without
places give none; they stay in the rankings beside.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from feedback.exports.comparisons import ExportedComparison, ExportedRanking, canonical
from feedback.rankings import preference_pairs

# Touvron et al. 2023, arXiv:2307.09288, table 27, "margin small", from "negligibly better" to "significantly better"
MARGINS = {1: 0.0, 2: 1 / 3, 3: 2 / 3, 4: 1.0}


def margin(strength: int | None, rank_chosen: int) -> float:
    """How far apart the scores of a pair should be at least.

    The strength an annotator gave says how clear the best reply is, so it speaks of pairs with the best in them; other
    pairs, and answers without a strength, have no margin.
    """
    return MARGINS[strength] if strength is not None and rank_chosen == 1 else 0.0


def ranked_pairs(ranking: ExportedRanking) -> list[tuple[int, int]]:
    """(place of the chosen, place of the rejected) for every pair of candidates the ranking tells apart."""
    return preference_pairs({place: rank for place, rank in enumerate(ranking.ranks) if rank is not None})


def agreement(comparison: ExportedComparison, chosen: int, rejected: int) -> float | None:
    """The share of annotators who put a pair this way round, of those who told it apart; None for a single one."""
    orders = [pair for ranking in comparison.rankings for pair in ranked_pairs(ranking)]
    same, other = orders.count((chosen, rejected)), orders.count((rejected, chosen))
    return same / (same + other) if same + other > 1 else None


def preference_rows(comparison: ExportedComparison) -> Iterator[dict[str, Any]]:
    """The rows of one comparison: annotator by annotator, pair by pair.

    Columns  prompt, chosen, rejected (lists of role and content), margin, then flat side columns
    """
    for ranking in comparison.rankings:
        for chosen, rejected in sorted(ranked_pairs(ranking)):
            yield _row(comparison, ranking, chosen, rejected)


def _row(comparison: ExportedComparison, ranking: ExportedRanking, chosen: int, rejected: int) -> dict[str, Any]:
    better, worse = comparison.candidates[chosen], comparison.candidates[rejected]
    rank_chosen, rank_rejected = ranking.ranks[chosen], ranking.ranks[rejected]
    assert rank_chosen is not None and rank_rejected is not None  # what ranked_pairs promises
    return {
        "prompt": comparison.prompt,
        "chosen": better.turns,
        "rejected": worse.turns,
        "margin": margin(ranking.strength, rank_chosen),
        "comparison_id": comparison.comparison_id,
        "dialogue_id": comparison.dialogue_id,
        "turn": comparison.turn,
        "annotator_id": ranking.annotator_id,
        "model_chosen": better.model,
        "model_rejected": worse.model,
        "created_at": ranking.created_at,
        "split": comparison.split,
        "agreement": agreement(comparison, chosen, rejected),
        "candidates": len(comparison.candidates),
        "rank_chosen": rank_chosen,
        "rank_rejected": rank_rejected,
        "strength": ranking.strength,
        "meta": canonical(_meta(comparison, ranking, chosen, rejected)),
    }


def _meta(comparison: ExportedComparison, ranking: ExportedRanking, chosen: int, rejected: int) -> dict[str, Any]:
    meta = {
        "source": comparison.source,
        "source_key": comparison.source_key,
        "flags_chosen": ranking.flags[chosen],
        "flags_rejected": ranking.flags[rejected],
        "empty_chosen": comparison.candidates[chosen].is_empty,
        "empty_rejected": comparison.candidates[rejected].is_empty,
        "all_bad": ranking.all_bad,
    }
    return {key: value for key, value in meta.items() if value}


def tied_pairs(ranking: ExportedRanking) -> int:
    """How many pairs of candidates share a place."""
    ranks = [rank for rank in ranking.ranks if rank is not None]
    return len(ranks) * (len(ranks) - 1) // 2 - len(ranked_pairs(ranking))


def pair_schema() -> Any:
    """The columns of a pair, as pyarrow types: the same in every file, whatever it happens to hold."""
    import pyarrow as pa

    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    texts = ("comparison_id", "dialogue_id")
    return pa.schema(
        [
            *((name, messages) for name in ("prompt", "chosen", "rejected")),
            ("margin", pa.float64()),
            *((name, pa.string()) for name in texts),
            ("turn", pa.int64()),
            *(
                (name, pa.string())
                for name in ("annotator_id", "model_chosen", "model_rejected", "created_at", "split")
            ),
            ("agreement", pa.float64()),
            *((name, pa.int64()) for name in ("candidates", "rank_chosen", "rank_rejected", "strength")),
            ("meta", pa.string()),
        ]
    )
