"""The gate's lines about rules, worked by hand."""

from __future__ import annotations

import itertools
import math

import pytest

from rewardtrain.gate import GateSettings, Reply, Sample, gate_report
from rewardtrain.gate_rules import (
    ProbeReply,
    ProbeSample,
    rates_of_dialogues,
    rise_of,
    rule_lines,
    rule_rows,
    shown_probes,
)
from rewardtrain.gate_samples import sample_of

NAMES = {"kind": "Be kind", "brief": "Be brief"}
NUMBERS = itertools.count(1000)
GATE = GateSettings(fewest_per_rule=3, prompts=2)


def probe(
    rule: str, before: list[float], after: list[float], text: str = "hi", dialogue: int | None = None
) -> ProbeSample:
    """An opening with replies whose chances to break the rule are these; a dialogue of its own where none is named."""
    old, new = ([ProbeReply(f"{text}, {chance}", 3, chance) for chance in own] for own in (before, after))
    number = next(NUMBERS) if dialogue is None else dialogue
    return ProbeSample([{"role": "user", "content": text}], rule, number, old, new)


def everyday(before: float, after: float) -> Sample:
    return Sample([], Reply("Old.", 3, True, 0.0, None, broken=before), Reply("New.", 3, True, 0.4, None, broken=after))


def lines_of(probes: list[ProbeSample], samples: list[Sample] | None = None) -> dict[str, dict]:
    samples = samples or [everyday(0.2, 0.2), everyday(0.3, 0.3)]
    return {one["key"]: one for one in rule_lines(probes, samples, NAMES, GATE)}


def test_a_rise_is_sure_beyond_what_chance_does_to_the_differences():
    """Rises 0.1, 0.2, 0.3: their standard error is 0.1 / √3, and t at 95 % with two degrees of freedom 2.920."""
    rise = rise_of([(0.2, 0.3), (0.4, 0.6), (0.3, 0.6)])
    assert (rise.before, rise.after) == (pytest.approx(0.3), pytest.approx(0.5))
    assert rise.spread == pytest.approx(2.920 * 0.1 / math.sqrt(3), abs=1e-4)
    assert rise.is_sure
    assert rise.found == "30% → 50%, +20% ± 17%"
    assert not rise_of([(0.2, 0.3), (0.4, 0.8), (0.3, 0.4)]).is_sure  # the same mean, three times the spread
    assert not rise_of([(0.0, 1.0)]).is_sure  # one opening says nothing of its spread


def test_an_opening_counts_once_by_the_means_of_its_replies():
    sample = probe("kind", [0.2, 0.4], [0.5, 0.9])
    assert sample.rates == (pytest.approx(0.3), pytest.approx(0.7))
    assert sample.rise == pytest.approx(0.4)


def test_the_openings_of_one_dialogue_count_once_together():
    """Three answers that one person led to the same breach are no three signs of it."""
    led = [probe("kind", [0.2], [0.3 + step / 100], dialogue=7) for step in range(3)]
    assert rates_of_dialogues([*led, probe("kind", [0.5], [0.1], dialogue=8)]) == [
        (pytest.approx(0.2), pytest.approx(0.31)), (0.5, 0.1)
    ]  # fmt: skip
    found = lines_of(led)["rules_probed"]
    assert (found["passed"], found["wanted"]) == (True, "shown only: 1 of the 3 probes it takes")
    (row,) = rule_rows(led, NAMES, GATE)
    assert (row["openings"], row["counts"], row["passed"]) == (3, False, True)


def test_a_rise_too_small_to_matter_is_none():
    hardly = [probe("kind", [0.2], [0.2 + step / 1000]) for step in (4, 5, 6)]
    assert rise_of(rates_of_dialogues(hardly)).is_sure
    assert lines_of(hardly)["rules_probed"]["passed"] and lines_of(hardly)["rules_each"]["passed"]


def test_violations_of_probed_rules_that_surely_rose_are_refused():
    risen = [probe("kind", [0.2], [0.3 + step / 100]) for step in range(3)]
    found = lines_of(risen)["rules_probed"]
    assert (found["passed"], found["wanted"]) == (False, "not surely up")
    assert found["value"] == pytest.approx(0.11)
    fallen = [probe("kind", [0.3 + step / 100], [0.2]) for step in range(3)]
    assert lines_of(fallen)["rules_probed"]["passed"]


def test_one_rule_that_surely_rose_is_refused_though_all_together_fell():
    kind = [probe("kind", [0.2], [0.5 + step / 100]) for step in range(3)]
    brief = [probe("brief", [0.9 + step / 100], [0.1]) for step in range(3)]
    found = lines_of([*kind, *brief])
    assert found["rules_probed"]["passed"]
    assert not found["rules_each"]["passed"]
    assert found["rules_each"]["found"].startswith("Be kind: +31% ± ")
    rows = rule_rows([*kind, *brief], NAMES, GATE)
    assert [(row["name"], row["openings"], row["passed"]) for row in rows] == [
        ("Be kind", 3, False), ("Be brief", 3, True)
    ]  # fmt: skip


def test_each_of_two_rules_has_to_be_surer_than_one_alone():
    """Rises with mean 0.2 and error 0.1 / √3 · t: 2.920 at 95 %, 4.303 at 97.5 %, which is 0.2484."""
    kind = [probe("kind", [0.0], [chance]) for chance in (0.1, 0.2, 0.3)]
    alone, beside = (
        rule_rows(probes, NAMES, GATE) for probes in (kind, [*kind, *(probe("brief", [0.5], [0.5]) for _ in range(3))])
    )
    assert not alone[0]["passed"]
    assert (beside[0]["passed"], beside[0]["spread"]) == (True, pytest.approx(0.2484, abs=1e-4))


def test_a_rule_with_few_openings_is_shown_and_refuses_nothing():
    few = [probe("kind", [0.0], [1.0]) for _ in range(2)]
    found = lines_of(few)
    assert (
        found["rules_probed"]["passed"] and found["rules_probed"]["wanted"] == "shown only: 2 of the 3 probes it takes"
    )
    assert (found["rules_each"]["passed"], found["rules_each"]["found"]) == (True, "too few probes")
    (row,) = rule_rows(few, NAMES, GATE)
    assert (row["counts"], row["passed"], row["after"]) == (False, True, 1.0)


def test_without_held_out_probes_the_everyday_line_alone_is_there():
    assert set(lines_of([])) == {"rules_everyday"}


def test_rules_broken_elsewhere_must_not_surely_rise():
    risen = [everyday(0.1, 0.2), everyday(0.1, 0.21), everyday(0.1, 0.22)]
    assert not lines_of([], risen)["rules_everyday"]["passed"]
    assert lines_of([], [everyday(0.1, 0.2), everyday(0.1, 0.05)])["rules_everyday"]["passed"]


def test_lines_about_rules_refuse_a_round_and_lead_to_the_probes_that_got_worst():
    samples = [everyday(0.1, 0.1), everyday(0.2, 0.3)]
    probes = [probe("kind", [0.1, 0.2], [0.4, 0.9 + place / 100], f"say {place}") for place in range(3)]
    report = gate_report(samples, GATE, more_lines=rule_lines(probes, samples, NAMES, GATE))
    report["samples"] += shown_probes(probes, NAMES, most=2)
    assert not report["passed"]
    assert not report["lines"][0]["passed"]
    worst = sample_of(report, by="rules_probed")
    assert worst is not None
    assert (worst.total, worst.asked, worst.rule) == (2, "say 2", "Be kind")
    assert (worst.before["text"], worst.after["text"]) == ("say 2, 0.2", "say 2, 0.92")
    assert (worst.broken_before, worst.broken_after, worst.score_after) == (0.2, 0.92, None)
    plain = sample_of(report, by="reward")
    assert plain is not None
    assert (plain.total, plain.rule, plain.broken_after) == (2, "", None)
    elsewhere = sample_of(report, by="rules_everyday")
    assert elsewhere is not None
    assert (elsewhere.total, elsewhere.broken_before, elsewhere.broken_after) == (2, 0.2, 0.3)


def test_settings_that_cannot_work_are_named():
    assert GateSettings(replies_per_probe=0, fewest_per_rule=1, probe_openings=-1).problems() == [
        "Set replies_per_probe of the gate to at least 1 (it is 0).",
        "Set fewest_per_rule of the gate to at least 2 (it is 1).",
        "Set probe_openings of the gate to 0 or more (it is -1).",
    ]
