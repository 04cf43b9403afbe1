"""Rehearsals side by side: seeds pooled, differences with their intervals, and the picture."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from feedback.agreement import Share
from tests.benchmarks.rehearsals import (
    BOTH,
    ORDER,
    PREFERENCES_ALONE,
    RERANKED,
    START,
    TRAINED,
    comparisons,
    difference,
    picture,
    pooled,
    runs,
    table,
)

BROKEN = {START: 0.4, RERANKED: 0.2, TRAINED: 0.05, BOTH: 0.01}
PREFERRED = {START: None, RERANKED: 0.6, TRAINED: 0.75, BOTH: 0.8}


def rehearsal(seed: int, *, with_rules: bool = True) -> dict[str, Any]:
    found: dict[str, Any] = {
        "seed": seed, "prompts": 400, "probes": 300, "preference_win_rate": 0.7, "tie_rate": 0.25, "kl_nats": 1.5,
        "before": {"violation_rate_probed": 0.4, "violation_rate": 0.05, "fluent_rate": 0.97, "mean_tokens": 17.0},
        "after": {"violation_rate_probed": 0.1, "violation_rate": 0.01, "fluent_rate": 0.96, "mean_tokens": 18.0},
        "gate_passed": True, "cpu_seconds": 900.0,
    }  # fmt: skip
    if with_rules:
        found["rule_model"] = {"own_auc": 0.93, "mean_auc": 0.9, "held_out_rule_auc": None}
        found["variants"] = [
            {
                "name": name, "violation_rate_probed": BROKEN[name], "preference_rate": PREFERRED[name],
                "tie_rate": 1.0 if name == START else 0.5, "probes": 300, "prompts": 400,
            }
            for name in ORDER
        ]  # fmt: skip
    return found


def test_seeds_are_pooled_and_ties_set_aside() -> None:
    found = pooled([rehearsal(0), rehearsal(1)]) | pooled([rehearsal(0, with_rules=False)])
    assert (found[TRAINED].broken, found[TRAINED].preferred) == (Share(30, 600), Share(300, 400))
    assert (found[START].broken, found[START].preferred) == (Share(240, 600), Share(400, 800))
    alone = found[PREFERENCES_ALONE]
    assert (alone.broken, alone.preferred) == (Share(30, 300), Share(210, 300))


def test_the_interval_of_a_difference_is_newcombes() -> None:
    """His example (a) of method 10: 56 of 70 and 48 of 80 differ by 0.2, 0.0524 to 0.3339."""
    gap, low, high = difference(Share(56, 70), Share(48, 80))
    assert (gap, low, high) == (pytest.approx(0.2), pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))


def test_tables_say_what_both_are_worth() -> None:
    both = [rehearsal(0), rehearsal(1)], [rehearsal(1, with_rules=False)]
    lines = table(*both)
    assert "| 0 | trained and reranked | 1.0% | 80.0% |" in lines
    assert "| **all** | starter | 40.0% (36.2% to 44.0%) |  |" in lines
    assert [line.split("|")[2].strip() for line in runs(*both)[2:]] == ["yes", "yes", "no"]
    said = comparisons(pooled(both[0]) | pooled(both[1]))
    assert said[0].startswith("- trained and reranked beside trained with rules: breaks the probed rule -4.0 points (")
    assert len(said) == 4


def test_the_picture_is_xml_with_a_mark_for_every_variant() -> None:
    drawn = ElementTree.fromstring(picture([rehearsal(0)], [rehearsal(0, with_rules=False)]))
    dots = [one for one in drawn.iter("{http://www.w3.org/2000/svg}circle") if one.get("class") == "dot"]
    heights = [float(one.get("cy", "")) for one in dots]
    assert len(dots) == 5
    assert heights[:4] == sorted(heights[:4])  # fewer broken rules lie lower, so further down the page
