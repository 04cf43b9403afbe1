"""The gate: how sure a gain has to be, on how many prompts, and what t is."""

from __future__ import annotations

import math

import pytest

from rewardtrain.gate import GateSettings, Reply, Sample, gate_report, mean_and_error, signed
from rewardtrain.student_t import t_quantile


def samples(gains: list[float]) -> list[Sample]:
    """Replies that differ in nothing but their scores."""
    return [
        Sample([], Reply(f"Reply {place}.", 9, True, 0.0, None), Reply(f"Reply {place}.", 9, True, gain, None))
        for place, gain in enumerate(gains)
    ]


@pytest.mark.parametrize(
    ("freedom", "expected"),
    [(1, 6.314), (2, 2.920), (3, 2.353), (5, 2.015), (10, 1.812), (19, 1.729), (30, 1.697), (120, 1.658)],
)
def test_t_is_what_the_tables_say(freedom, expected):
    assert t_quantile(0.95, freedom) == pytest.approx(expected, abs=0.0005)


def test_t_at_other_levels_and_at_its_ends():
    assert t_quantile(0.975, 4) == pytest.approx(2.776, abs=0.0005)
    assert t_quantile(0.99, 7) == pytest.approx(2.998, abs=0.0005)
    assert t_quantile(0.5, 3) == pytest.approx(0.0, abs=1e-9)
    assert t_quantile(0.95, 5000) == pytest.approx(1.6452, abs=0.0001)
    assert t_quantile(0.95, 0) == math.inf


@pytest.mark.parametrize(("gains", "passed"), [([0.1, 0.5], False), ([0.4, 0.5], True), ([0.0, 1.0, 0.8], False)])
def test_a_gain_on_few_prompts_has_to_be_surer(gains, passed):
    """The last three have the mean 0.6 and the standard error 0.31: it is more than 1.645 of those, not 2.92."""
    report = gate_report(samples(gains), GateSettings(fewest_prompts=2))
    assert report["passed"] is passed
    assert report["counts"] == {"prompts": len(gains)}


def test_what_was_found_says_its_uncertainty():
    line = gate_report(samples([0.1, 0.5]), GateSettings(prompts=2))["lines"][0]
    assert (line["key"], line["found"]) == ("reward", "+0.30 ± 1.26")  # 6.314 · 0.2


@pytest.mark.parametrize(
    ("settings", "count"), [(GateSettings(), 19), (GateSettings(), 0), (GateSettings(prompts=6), 5)]
)
def test_too_few_prompts_are_not_measured(settings, count):
    with pytest.raises(ValueError, match=f"there are {count}. Add some to the validation split"):
        gate_report(samples([1.0] * count), settings)


def test_twenty_prompts_are_enough():
    assert gate_report(samples([1.0] * 20), GateSettings())["passed"]


def test_a_single_value_says_nothing_of_its_spread():
    assert mean_and_error([2.0]) == (2.0, math.inf)
    assert mean_and_error([1.0, 3.0]) == (2.0, 1.0)


@pytest.mark.parametrize("name", ["prompts", "fewest_prompts"])
def test_a_gate_measures_two_prompts_at_least(name):
    assert GateSettings(**{name: 1}).problems() == [f"Set {name} of the gate to at least 2 (it is 1)."]


def test_a_change_has_its_sign_and_none_where_it_is_nothing():
    assert [signed(change) for change in (0.194, -0.14, 0.004, -0.004, 1.5)] == ["+19%", "−14%", "0%", "0%", "+150%"]
