"""A rule model from people's verdicts: by command, resumed after a kill with the same verdicts, measured."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from feedback.models import Dialogue, ModelVersion, Probe, Project, RuleJudgement, RuleScore, RuleSet
from rewardtrain import invariants, model_files, rule_model_run, run_figures, runs
from rewardtrain.checkpoints import folder_hash, verify
from rewardtrain.models import MetricPoint, TrainingRun
from tests import make

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
QUICK = {"epochs": 1, "dialogues_per_step": 4, "checkpoint_seconds": 0}


@pytest.fixture
def rule_set(project: Project) -> RuleSet:
    return make.make_rule_set(project, rules=2)


def probe_at(project: Project, rule_set: RuleSet, place: int, split: str, verdicts: tuple[int, ...]) -> Probe:
    """A probe of the first or second rule from a prompt of a split, with these verdicts of others."""
    probe = make.make_probe(rule_set.rules.all()[place % 2])
    prompt = make.make_prompt(project, f"{split} probe {place}", split)
    Dialogue.objects.filter(pk=probe.dialogue_id).update(prompt=prompt)
    for name, verdict in zip(("bob", "carol"), verdicts, strict=False):
        make.make_judgement(probe, name=name, verdict=verdict)
    return probe


@pytest.fixture
def judged(project: Project, rule_set: RuleSet) -> Project:
    """Twelve probes of the training split and twelve of validation; every second one broke its rule."""
    for place in range(24):
        broke = place // 2 % 2
        probe_at(project, rule_set, place, "train" if place < 12 else "validation", (1, 2) if broke else (5, 4))
    return project


def new_run(project: Project, **changes: Any) -> TrainingRun:
    return runs.queue_run(
        project=project, kind=TrainingRun.Kind.RULE_MODEL, parent=project.policy, hyperparameters=QUICK | changes,
        seed=11, ring=False,
    )  # fmt: skip


# What it learns from


def test_verdicts_in_force_are_told_by_the_split_of_their_opening(project: Project, rule_set: RuleSet) -> None:
    probe_at(project, rule_set, 0, "train", (1, 4))
    other = probe_at(project, rule_set, 1, "test", (5,))
    withdrawn = probe_at(project, rule_set, 2, "train", (1,))
    first = RuleJudgement.objects.get(dialogue=withdrawn.dialogue)
    values = {
        field.attname: getattr(first, field.attname) for field in RuleJudgement._meta.fields if field.attname != "id"
    }
    RuleJudgement.objects.create(**values | {"revision": 2, "withdrawn": True})
    make.make_judgement(make.make_probe(rule_set.rules.all()[0]))  # from no prompt: on no side of the split
    found = rule_model_run.judged_dialogues(rule_model_run.counted_judgements(new_run(project)))
    assert sorted(found) == ["test", "train"]
    (train,), (test,) = found["train"], found["test"]
    assert [(one.key, one.broken, one.weight) for one in train.judgements] == [("r1", 1.0, 1.0), ("r1", 0.25, 1.0)]
    assert train.targets()[0].broken == 0.625
    assert (train.probed, test.probed) == ("r1", "r2")
    assert test.judgements[0].wording == rule_set.rules.all()[1].wording
    assert list(test.turns) == other.dialogue.messages()


# The command


def test_the_command_trains_measures_and_registers_a_rule_model(judged: Project, tmp_path: Path) -> None:
    out, path = StringIO(), tmp_path / "trained.json"
    chosen = [f"--set={name}={value}" for name, value in QUICK.items()]
    call_command("train_rule_model", "--project", judged.slug, "--json", str(path), *chosen, stdout=out)
    (run,) = TrainingRun.objects.filter(kind="rule_model")
    version = run.produced
    assert version is not None
    assert (version.kind, version.number, run.state) == (ModelVersion.Kind.RULE, 1, "done")
    folder = model_files.models_folder() / version.location
    verify(folder)
    assert folder_hash(folder) == version.content_hash
    figures = json.loads(path.read_text())
    assert figures["model"] == version.pk
    assert figures["measured_on"] == "validation"
    assert figures["details"]["verdicts"] == 24
    assert len(figures["details"]["judgements"]) == 48
    assert version.figures["rules"][0]["key"] == "r1"
    assert version.figures["held_out_dialogues"] == 12
    assert "24 verdicts on 12 dialogues" in out.getvalue()
    assert "12 dialogues of the validation split" in out.getvalue()
    names = {one.name for one in run_figures.figures_of(run)}
    assert set(MetricPoint.objects.filter(run=run).values_list("name", flat=True)) == names
    assert not list(invariants.finished_runs_made_something())
    rule_model = load(version)
    (probabilities,) = rule_model.probabilities([[{"role": "user", "content": "hi"}]], ["Be kind.", "Be brief."])
    assert probabilities.shape == (2,)
    scores = list(RuleScore.objects.select_related("dialogue", "rule"))
    assert len(scores) == 24 and {one.model_version_id for one in scores} == {version.pk}
    for one in scores:
        (alone,) = rule_model.probabilities([one.dialogue.messages()], [one.rule.wording])
        assert one.p_broken == pytest.approx(float(alone), abs=1e-5)


def load(version: ModelVersion) -> Any:
    from rewardtrain.rule_model import RuleModel

    return RuleModel.load(model_files.models_folder() / version.location)


def test_judged_dialogues_of_the_test_split_are_what_it_is_measured_on(judged: Project, rule_set: RuleSet) -> None:
    for place in range(30, 34):
        probe_at(judged, rule_set, place, "test", (1,) if place % 4 < 2 else (5,))
    run = new_run(judged)
    runs.work_on_run(run.pk)
    run.refresh_from_db()
    assert (run.result["measured_on"], run.result["held_out_dialogues"]) == ("test", 4)
    assert [one["all"] for one in run.result["rules"]] == [None, None]  # too few of either kind


def test_with_nothing_judged_it_says_what_to_do(project: Project) -> None:
    with pytest.raises(CommandError, match="No dialogue of the training split was judged"):
        call_command("train_rule_model", "--project", project.slug, stdout=StringIO())
    assert TrainingRun.objects.get().state == "failed"


def test_what_was_held_out_nowhere_is_said(project: Project, rule_set: RuleSet) -> None:
    for place in range(4):
        probe_at(project, rule_set, place, "train", (1,) if place < 2 else (5,))
    out = StringIO()
    call_command("train_rule_model", "--project", project.slug, "--set=epochs=1", stdout=out)
    assert "Nothing was held out, so its worth is not known" in out.getvalue()


# Going on


class Killed(BaseException):
    """The process is gone: nothing it would still have done happens."""


def test_a_killed_run_ends_as_one_that_was_not_with_the_verdicts_it_began_with(
    judged: Project, rule_set: RuleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, run = new_run(judged), new_run(judged)
    runs.work_on_run(whole.pk)
    plainly = runs.Reporter.step

    def dies(self: runs.Reporter, done: int, total: int, figures: Any) -> None:
        plainly(self, done, total, figures)
        if done == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(runs.Reporter, "step", dies)
        with pytest.raises(Killed):
            runs.work_on_run(run.pk)
    probe_at(judged, rule_set, 40, "train", (1, 1))  # people go on judging
    TrainingRun.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    assert runs.work_on_run(run.pk)
    whole.refresh_from_db()
    run.refresh_from_db()
    assert run.resumed_step == 1
    assert whole.produced is not None and run.produced is not None
    assert run.produced.content_hash == whole.produced.content_hash
    assert run.result["judgements"] == whole.result["judgements"]


def test_the_command_goes_on_with_no_run_of_another_kind(judged: Project) -> None:
    run = new_run(judged)
    with pytest.raises(CommandError, match="has no run"):
        call_command("train_reward_model", "--project", judged.slug, "--resume", str(run.pk), stdout=StringIO())
