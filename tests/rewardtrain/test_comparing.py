"""The comparison of algorithms: what budget each gets, and the table."""

from __future__ import annotations

import contextlib
import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from feedback.models import Project
from rewardtrain import algorithms
from rewardtrain.management.commands import rehearse
from rewardtrain.rehearsal import comparing
from rewardtrain.rehearsal.people import RehearsalFailed


def test_every_algorithm_gets_the_budget_of_ppo():
    budgets = comparing.equal_budget({"ppo": {"updates": 4, "samples_per_update": 64, "passes": 3}})
    assert list(budgets) == list(algorithms.ALGORITHMS)
    assert budgets["rloo"] == {"algorithm": "rloo", "updates": 4, "samples_per_update": 64}
    assert budgets["best-of-n"] == {"algorithm": "best-of-n", "updates": 4, "samples_per_update": 64}
    assert budgets["dpo"] == {"algorithm": "dpo", "steps": 4 * 64 * 3 // (2 * 16)}  # two replies in each of 16 pairs
    for chosen in budgets.values():
        algorithms.read_settings(chosen)


def test_what_is_said_of_an_algorithm_wins_over_the_budget():
    budgets = comparing.equal_budget({"dpo": {"steps": 7, "beta": 0.3}, "rloo": {"kl_coef": 0.1}})
    assert budgets["dpo"] == {"algorithm": "dpo", "steps": 7, "beta": 0.3}
    assert budgets["rloo"]["kl_coef"] == 0.1 and budgets["rloo"]["updates"] == 32
    assert comparing.equal_budget({"dpo": {"epochs": 3.0}})["dpo"] == {"algorithm": "dpo", "epochs": 3.0}


def found(rule: float, gate: str = "passed", won: float | None = 0.6) -> dict:
    after = {"violation_rate": rule, "fluent_rate": 0.97, "distinct_rate": 0.9, "mean_tokens": 15.0}
    return {"prompts": 600, "after": after, "preference_win_rate": won, "tie_rate": 0.1, "kl_nats": 2.0,
            "samples": 8192, "optimizer_tokens": 123_456, "cpu_seconds": 100.0, "gate": gate}  # fmt: skip


def test_the_table_has_each_seed_and_the_means():
    start = {"violation_rate": 0.25, "fluent_rate": 0.975, "distinct_rate": 0.98, "mean_tokens": 17.0}
    results = [
        {"seed": 0, "start": start, "algorithms": {"ppo": found(0.02), "dpo": found(0.1, won=None)}},
        {"seed": 1, "start": start, "algorithms": {"ppo": found(0.04, "failed"), "dpo": found(0.2, won=0.8)}},
    ]
    lines = comparing.table(results)
    assert lines[0].startswith("| seed | algorithm | breaks a rule |")
    assert lines[2] == "| 0 | start | 25.0% |  |  | 97.5% | 98.0% | 17.0 |  |  |  |  |  |"
    assert (
        lines[3] == "| 0 | PPO | 2.0% | 60.0% | 10.0% | 97.0% | 90.0% | 15.0 | 2.00 | passed | 8,192 | 123 k | 100 s |"
    )
    assert lines[4].startswith("| 0 | DPO | 10.0% | – |")
    assert lines[8].startswith("| mean | PPO | 3.0% | 60.0% |") and "| 1 of 2 |" in lines[8]
    assert lines[9].startswith("| mean | DPO | 15.0% | 80.0% |") and "| 2 of 2 |" in lines[9]
    assert len(lines) == 10 and len({line.count("|") for line in lines}) == 1
    assert len(comparing.table(results[:1])) == 5  # one seed has no mean


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--seeds", "3"], "--seeds belongs to --algorithm all"),
        (["--algorithm", "all", "--rounds", "2"], "one round of each"),
        (["--algorithm", "all", "--samples", "x"], "one round of each"),
        (["--seeds", "0"], "--seeds needs at least 1"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_made(given, words):
    with pytest.raises(CommandError, match=words):
        call_command("rehearse", *given, stdout=StringIO())


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("dpo.beta=0", "Set beta above 0"),
        ("rloo.minibatch_size=100", "RLOO: In policy: Make samples_per_update"),
        ("ppo.samples_per_update=100", "RLOO: .* multiple of minibatch_size"),  # the budget that RLOO gets
        ("policy.entropy_coef=0.1", "Best of n: In policy: There is no setting entropy_coef"),
        ("ppo.device=cuda", "DPO: In policy: Set device to cpu"),
        ("gate.prompts=1", "PPO: In gate"),
    ],
)
def test_every_algorithms_settings_are_checked_before_anything_is_made(given, words, monkeypatch):
    monkeypatch.setattr(rehearse, "Site", lambda: pytest.fail("the rehearsal began"))
    with pytest.raises(CommandError, match=words):
        call_command("rehearse", "--algorithm", "all", "--set", given, stdout=StringIO())
    assert not Project.objects.exists()


@pytest.mark.django_db
def test_what_ends_a_later_seed_costs_nothing_of_those_before(monkeypatch, tmp_path):
    def compare_on(self, site, options, chosen, policies):
        if options["seed"] == 6:
            raise RehearsalFailed("Round 2 did not end.")
        return {"seed": options["seed"]}

    monkeypatch.setattr(rehearse, "Site", contextlib.nullcontext)
    monkeypatch.setattr(rehearse.Command, "_compare_on", compare_on)
    path = tmp_path / "found.json"
    with pytest.raises(CommandError, match="Round 2 did not end"):
        call_command("rehearse", "--algorithm", "all", "--seed", "5", "--seeds", "2", "--json", path, stdout=StringIO())
    assert json.loads(path.read_text())["seeds"] == [{"seed": 5}]


@pytest.mark.parametrize(
    ("policy", "rounds", "found"),
    [
        ({}, 1, {}),
        ({}, 2, {"updates": 16}),
        ({"kl_coef": 0.2}, 3, {"kl_coef": 0.2, "updates": 11}),
        ({"updates": 5}, 2, {"updates": 5}),
        ({"algorithm": "dpo"}, 2, {"algorithm": "dpo"}),
    ],
)
def test_rounds_share_the_updates_of_one_unless_some_were_set(policy: Any, rounds: int, found: Any) -> None:
    chosen = {"gate": {}, "policy": policy}
    assert rehearse.sharing_updates(chosen, rounds) == {"gate": {}, "policy": found}
    assert chosen == {"gate": {}, "policy": policy}
