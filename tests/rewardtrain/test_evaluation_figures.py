"""An evaluation's figures by hand: what counts, over which openings, and what is not known."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rewardtrain.evaluation_figures import EVERYDAY, PROBE, MeasuredReply, Opening, figures_of, rule_shares


def reply(text: str = "a", **fields: Any) -> MeasuredReply:
    return MeasuredReply(**{"text": text, "tokens": 4, "finished": True, "seed": 1, "preference": 1.0} | fields)


def opening(kind: str = EVERYDAY, rule: str = "") -> Opening:
    return Opening([{"role": "user", "content": "Why?"}], kind, rule)


OPENINGS = [opening(), opening(), opening(), opening(PROBE, "kind"), opening(PROBE, "brief")]
REPLIES = [
    reply("a", preference=1.0, tokens=2, broken={"kind": 0.9, "brief": 0.1}, log_ratio=1.0),
    reply("a", preference=2.0, tokens=4, broken={"kind": 0.2, "brief": 0.5}, log_ratio=2.0),
    reply("b", preference=3.0, tokens=6, finished=False, broken={"kind": 0.6, "brief": 0.7}, log_ratio=3.0),
    reply("c", preference=9.0, tokens=99, broken={"kind": 0.1, "brief": 0.9}, log_ratio=4.0),
    reply("d", preference=9.0, tokens=99, broken={"kind": 0.1, "brief": 0.9}, log_ratio=5.0),
]


def test_by_hand() -> None:
    found = figures_of(OPENINGS, REPLIES, draws=1)
    # 1, 2, 3: mean 2, standard error 1/√3, and t of 0.975 with two degrees of freedom is 4.3027
    assert found["preference"]["mean"] == 2.0
    assert found["preference"]["high"] == pytest.approx(2 + 4.30265 / math.sqrt(3), abs=1e-3)
    assert found["tokens"]["mean"] == 4.0
    assert (found["distinct"]["hits"], found["distinct"]["total"]) == (2, 3)
    assert found["unfinished"]["share"] == pytest.approx(0.3333)
    assert (found["everyday"]["hits"], found["everyday"]["total"]) == (2, 3)  # a chance of a half is none broken
    assert (found["probed"]["hits"], found["probed"]["total"]) == (1, 2)  # of the probed rule alone
    assert found["kl_nats"]["mean"] == 3.0
    assert found["second"] is None


def test_wilsons_interval_is_beside_every_rate() -> None:
    # Wilson of 1 of 2 at z = 1.96: (1/2 ± 1.96 √(1/8 + 1.96²/16)) / (1 + 1.96²/2), by hand 0.0945 and 0.9055
    found = figures_of(OPENINGS, REPLIES, draws=1)["probed"]
    assert (found["low"], found["high"]) == pytest.approx((0.0945, 0.9055), abs=1e-3)


def test_a_rule_is_told_of_its_probes_and_of_all_replies() -> None:
    rules = figures_of(OPENINGS, REPLIES, draws=1)["rules"]
    assert (rules["kind"]["probed"]["hits"], rules["kind"]["probed"]["total"]) == (0, 1)
    assert (rules["kind"]["all"]["hits"], rules["kind"]["all"]["total"]) == (2, 5)
    assert rule_shares(rules)["brief"] == (rules["brief"]["probed"], True)
    unprobed = figures_of(OPENINGS[:3], REPLIES[:3], draws=1)["rules"]
    assert rule_shares(unprobed)["kind"] == (unprobed["kind"]["all"], False)


def test_the_kl_of_a_best_of_n_is_a_bound() -> None:
    alone, best = (figures_of(OPENINGS, REPLIES, draws=draws)["kl_nats"] for draws in (1, 8))
    assert best["mean"] == pytest.approx(alone["mean"] + math.log(8), abs=1e-4)
    assert (best["is_bound"], "is_bound" in alone) == (True, False)


def test_without_everyday_openings_all_are_counted() -> None:
    found = figures_of(OPENINGS[3:], REPLIES[3:], draws=1)
    assert (found["tokens"]["mean"], found["everyday"], found["probed"]["total"]) == (99.0, None, 2)


def test_what_was_not_measured_is_not_made_up() -> None:
    found = figures_of([opening()], [reply(preference=None)], draws=1)
    assert (found["preference"], found["everyday"], found["probed"], found["rules"]) == (None, None, None, {})
    assert found["tokens"] == {"mean": 4.0}  # one reply has no interval


def test_counts_that_differ_are_refused() -> None:
    for replies in ([], REPLIES[:2]):
        with pytest.raises(ValueError):
            figures_of(OPENINGS, replies, draws=1)
