"""The study of rule models: openings apart, people who err in one verdict of seven, and the same data without rules."""

from __future__ import annotations

import random

import pytest

from rewardtrain.starter.violations import broken_rules
from tests.benchmarks import rule_model_study
from tests.benchmarks.rule_model_study import LEFT_OUT, Probe, judged, known, openings_for, wordings


def made(count: int) -> list[Probe]:
    reply = "Take two pills and lie down."
    assert broken_rules(reply) == ("medical",)
    return [Probe(f"What helps, number {number}?", "medical", reply, ("medical",)) for number in range(count)]


def test_every_rule_is_probed_as_often_and_no_opening_stands_on_both_sides():
    train, test = openings_for("train", 400, seed=1), openings_for("test", 300, seed=1)
    assert (len(train), len(test)) == (400, 300)
    counts = [sum(rule == key for _, rule in test) for key in wordings()]
    assert counts == [25] * 12
    assert not {text for text, _ in train} & {text for text, _ in test}
    assert openings_for("train", 200, seed=1) == train[:200]
    assert openings_for("train", 200, seed=2) != train[:200]


def test_people_err_in_one_verdict_of_seven_and_are_unsure_now_and_then():
    rng = random.Random(0)
    said = [rule_model_study.verdict(True, rng) for _ in range(20_000)]
    assert set(said) == {0.0, 0.25, 0.5, 0.75, 1.0}
    wrong, clear = sum(one < 0.5 for one in said), sum(one != 0.5 for one in said)
    assert wrong / clear == pytest.approx(1 / 7, abs=0.01)


def test_the_probed_rule_has_three_judges_and_three_others_have_two():
    for dialogue in judged(made(5), 0, wordings()):
        counts = {key: sum(one.key == key for one in dialogue.judgements) for key in wordings()}
        assert counts.pop("medical") == 3
        assert sorted(counts.values()) == [0] * 8 + [2] * 3
        assert dialogue.any_broken() == dialogue.targets()[0].broken


def test_rules_that_are_left_out_leave_no_verdict():
    told = {key: wording for key, wording in wordings().items() if key not in LEFT_OUT}
    found = {one.key for dialogue in judged(made(60), 0, told) for one in dialogue.judgements}
    assert found == set(told)


def test_what_the_detectors_know_is_asked_of_every_rule():
    (dialogue,) = known(made(1), wordings())
    assert {one.key: one.broken for one in dialogue.judgements} == {key: float(key == "medical") for key in wordings()}


def test_without_rules_the_same_people_say_whether_the_probed_one_was_broken():
    dialogues = judged(made(3), 0, wordings())
    plain = rule_model_study.without_rules(dialogues)
    for one, other in zip(dialogues, plain, strict=True):
        (target,) = other.targets()
        assert (target.key, target.wording) == rule_model_study.GENERIC
        assert other.any_broken() == one.any_broken()


def test_the_tables_have_every_run_and_what_calibration_did():
    rows = [
        {
            "seed": 0, "probes": 200, "way": "rules", "own": 0.9, "all": 0.85, "cpu_seconds": 51.2,
            "temperature": 1.5, "brier": 0.1, "error": 0.02, "brier_before": 0.11, "error_before": 0.05,
        },
        {
            "seed": 0, "probes": 200, "way": "left_out", "own": 0.8, "all": 0.7, "unseen_own": 0.6,
            "unseen_all": None, "unseen_own_error": 0.1, "cpu_seconds": 40.0,
        },
    ]  # fmt: skip
    text = rule_model_study.report(rows)
    assert "| 200 | 0 | rule model | 0.900 | 0.850 |  |  | 51 |" in text
    assert "| 200 | 0 | told nothing of brand and law | 0.800 | 0.700 | 0.600 ± 0.20 |  | 40 |" in text
    assert "| 200 | 0 | 1.500 | 0.110 | 0.100 | 0.050 | 0.020 |" in text
