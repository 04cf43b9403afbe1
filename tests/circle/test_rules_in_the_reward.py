"""A policy is paid for keeping rules as well: which prompts, what is kept, what a killed run goes on with."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from feedback import invariants, rule_sets
from feedback.models import ModelVersion, Project, RuleSet, Turn
from rewardtrain import model_files, rounds, rules_to_learn, run_charts, runs
from rewardtrain.begun import Begun
from rewardtrain.checkpoints import folder_hash
from rewardtrain.hyperparameters import RewardModelSettings, RuleModelSettings
from rewardtrain.models import LedgerEntry, MetricPoint, TrainingRun
from rewardtrain.probe_openings import openings_at, probe_cuts, rules_in_force
from rewardtrain.reward_model import RewardModel
from rewardtrain.rule_model import RuleModel
from tests import make
from tests.circle import test_algorithms as alternatives
from tests.circle import test_resuming as resuming
from tests.circle.probing import judge_probes, probe_at
from tests.circle.turning import rank_everything, turn_here

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


@pytest.fixture
def learned(project: Project) -> Project:
    """The project with a reward and a rule model, and probes of its rules, one of which counts for nothing."""
    rule_set = make.make_rule_set(project, rules=2, published=False)
    make.make_rule(rule_set, key="r3", weight=0)
    rule_sets.publish(draft=rule_set, by=None)
    for place in range(24):
        probe_at(project, place, "train" if place < 12 else "validation")
    save_model(project, "preference", RewardModel.from_base(base_of(project), RewardModelSettings(seed=1)))
    save_model(project, "rule", RuleModel.from_base(base_of(project), RuleModelSettings(seed=1)))
    return project


def base_of(project: Project) -> Path:
    assert project.policy is not None
    return model_files.model_folder(project.policy)


def save_model(project: Project, kind: str, model: Any) -> ModelVersion:
    """A model that has learned nothing is enough to be paid by."""
    version = make.make_model(project, kind=kind)
    folder = model_files.models_folder() / version.location
    folder.mkdir()
    model.save(folder)
    ModelVersion.objects.filter(pk=version.pk).update(content_hash=folder_hash(folder))
    version.refresh_from_db()
    return version


def new_run(project: Project, **changes: Any) -> TrainingRun:
    return resuming.new_run(project, "policy", **{"updates": 2} | changes)


def samples(run: TrainingRun) -> list[LedgerEntry]:
    return list(LedgerEntry.objects.filter(run=run).order_by("step", "index"))


# Which openings


def test_openings_are_what_the_model_answered_in_probes_of_rules_in_force_on_that_side(learned: Project) -> None:
    rules = rules_in_force(learned)
    assert [rule.key for rule in rules] == ["r1", "r2"]
    found = openings_at(probe_cuts(learned, "train", rules))
    assert [(one.rule, one[-1]["content"]) for one in found[:2]] == [("r1", "Do 0."), ("r2", "Do 1.")]
    assert len(found) == 12
    longer = probe_at(learned, 0, "train").dialogue  # says again what another said, and goes on
    for position, (role, text) in enumerate((("user", "More."), ("assistant", "There."), ("user", "Unheard.")), 2):
        Turn.objects.create(dialogue=longer, position=position, role=role, content=text)
    probe_at(learned, 2, "train", key="r3")
    probe_at(learned, 50, "test")
    found = openings_at(probe_cuts(learned, "train", rules))
    assert len(found) == 13
    assert [turn["content"] for turn in found[-1]] == ["Do 0.", "I did 0.", "More."]


# PPO


def test_ppo_is_paid_by_rules_beside_the_preference_and_half_its_prompts_probe(learned: Project) -> None:
    run = new_run(learned)
    assert runs.work_on_run(run.pk)
    run.refresh_from_db()
    entries = samples(run)
    assert all(abs(sum(entry.terms.values()) - entry.reward) < 1e-4 for entry in entries)
    assert all("rules" in entry.terms for entry in entries)
    probes = [entry for entry in entries if "rules_probed" in entry.raw_terms]
    assert len(probes) == len(entries) / 2 == 8
    assert all(entry.prompt[-1]["content"].startswith("Do ") and entry.rule in {"r1", "r2"} for entry in probes)
    everyday = [entry for entry in entries if entry not in probes]
    assert all({"rules_mean", "rules_lowest"} <= set(entry.raw_terms) for entry in everyday)
    assert not any(entry.prompt[-1]["content"].startswith("Do ") for entry in everyday)
    scale = run.result["scale"]["rules"]
    assert scale["of_probes"] and scale["std"] >= 0.1
    for entry in entries:
        chances = entry.raw_terms
        mean = scale["probes"] if "rules_probed" in chances else scale["everyday"]
        value = chances.get("rules_probed", chances.get("rules_mean", 0) + chances.get("rules_lowest", 0))
        assert entry.terms["rules"] == pytest.approx((value - mean) / scale["std"], abs=1e-4)
    version = learned.model_versions.get(kind="rule")
    assert (run.result["rule_model"], run.result["probe_openings"]) == (version.pk, 12)
    names = set(MetricPoint.objects.filter(run=run).values_list("name", flat=True))
    assert {"ppo/rules", "ppo/rules_probed", "ppo/rules_mean", "ppo/rules_lowest"} <= names
    assert "Probed rule followed" in {chart.title for chart in run_charts.charts_of(run)}


def test_a_killed_run_goes_on_with_the_rules_openings_and_scale_it_began_with(
    learned: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = new_run(learned, updates=4), new_run(learned, updates=4)
    assert runs.work_on_run(whole.pk)
    resuming.killed_at(killed, 3, monkeypatch)
    probe_at(learned, 60, "train")
    draft = rule_sets.open_draft(project=learned, by=None)
    rule_sets.remove_rule(rule=draft.rules.get(key="r1"), by=None)
    rule_sets.publish(draft=draft, by=None)
    save_model(learned, "rule", RuleModel.from_base(base_of(learned), RuleModelSettings(seed=2)))
    assert runs.work_on_run(killed.pk)
    whole, killed = resuming.finished(whole), resuming.finished(killed)
    assert killed.resumed_step == 2
    assert killed.produced.content_hash == whole.produced.content_hash
    assert resuming.ledger(killed) == resuming.ledger(whole)
    assert killed.result["scale"] == whole.result["scale"]


def test_without_weight_rules_pay_nothing_and_the_prompts_are_the_same(learned: Project) -> None:
    paid, unpaid = new_run(learned), new_run(learned, rule_weight=0.0)
    runs.work_on_run(paid.pk)
    runs.work_on_run(unpaid.pk)
    unpaid.refresh_from_db()
    assert unpaid.result["rule_model"] is None
    assert "rules" not in unpaid.result["scale"]
    assert [entry.prompt for entry in samples(unpaid)] == [entry.prompt for entry in samples(paid)]
    assert {entry.rule for entry in samples(unpaid)} == {""}
    assert not any("rules" in entry.terms for entry in samples(unpaid))
    everyday = new_run(learned, rule_weight=0.0, probe_share=0.0)
    assert Begun.of(everyday).probe_cuts == []


def test_the_rule_model_is_the_one_named_else_the_newest_and_none_without_rules_in_force(learned: Project) -> None:
    first = learned.model_versions.get(kind="rule")
    newer = make.make_model(learned, kind="rule")
    assert Begun.of(new_run(learned)).rule_model == newer
    assert Begun.of(new_run(learned, rule_model=first.pk)).rule_model == first
    RuleSet.objects.filter(project=learned, state="published").update(state="retired", retired_at="2026-11-21T12:00Z")
    assert Begun.of(new_run(learned)).rule_model is None
    with pytest.raises(CommandError, match="no rule is published"):
        call_command("train_policy", "--project", learned.slug, "--rule-model", str(first.pk), stdout=StringIO())


# A round


def test_a_round_learns_rules_pays_for_them_and_asks_about_them_at_its_gate(
    project: Project, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules_to_learn, "FEWEST_JUDGED", 8)
    make.make_rule_set(project)
    judge_probes(project, training=8, validation=4)
    rank_everything(project)
    project.hyperparameters |= {"rule_model": {"epochs": 1}}
    project.save()
    turn = turn_here(rounds.start_round(project=project))
    assert turn.state == "decision", turn.error
    assert {run.kind for run in turn.runs.all()} == set(TrainingRun.Kind.values) - {TrainingRun.Kind.EVALUATION}
    made = turn.runs.get(kind="rule_model").produced
    assert turn.runs.get(kind="policy").result["rule_model"] == made.pk
    report = turn.gate_report
    assert report["counts"] == {"prompts": 6, "probes": 4}
    keys = {line["key"] for line in report["lines"]}
    assert {"rules_probed", "rules_each", "rules_everyday"} <= keys
    assert [row["openings"] for row in report["rules"]] == [2, 2]
    assert sum("rule" in sample for sample in report["samples"]) == 4
    client.force_login(make.make_member(project, "maria", "manager"))
    page = client.get(reverse("rewardtrain:round", args=[project.slug, 1]), {"by": "rules_probed"}).content.decode()
    assert "measured on 6 prompts and 4 openings of probes" in page
    assert "Each probed rule: 2" in page
    assert "It probes “Rule " in page
    ledger = client.get(reverse("rewardtrain:ledger", args=[project.slug, 1]), {"by": "-rules"})
    paid = [one.entry.terms["rules"] for one in ledger.context["samples"]]
    assert paid == sorted(paid)
    assert "Probes “Rule " in ledger.content.decode()
    assert list(invariants.violations()) == []


# The others


@pytest.mark.parametrize("algorithm", ["rloo", "best-of-n"])
def test_what_else_learns_from_replies_is_paid_alike(algorithm: str, learned: Project) -> None:
    run = alternatives.new_run(learned, algorithm)
    assert runs.work_on_run(run.pk)
    entries = samples(run)
    assert {("rules_probed" in entry.raw_terms, "rules" in entry.terms) for entry in entries} == {
        (True, True), (False, True)
    }  # fmt: skip
    assert MetricPoint.objects.filter(run=run, name="ppo/rules_probed").count() == 2


def test_dpo_draws_nothing_to_be_paid_and_asks_about_no_rule(learned: Project) -> None:
    begun = Begun.of(alternatives.new_run(learned, "dpo"))
    assert (begun.rule_model, begun.probe_cuts) == (None, [])
