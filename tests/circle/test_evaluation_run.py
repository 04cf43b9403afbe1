"""An evaluation from row to report: by command, alone and reranked, the same after a kill, and put before people."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from feedback import blind_sets
from feedback.blind_sets import Contestant, answers_of
from feedback.invariants import violations
from feedback.models import AuditEntry, Candidate, Dialogue, Project, WorkItem
from rewardtrain import evaluation, evaluations, invariants, runs
from rewardtrain.checkpoints import folder_hash
from rewardtrain.evaluations import ask_people, default_policies, openings_of, queue_evaluation
from rewardtrain.hyperparameters import RewardModelSettings, RuleModelSettings
from rewardtrain.models import TrainingRun
from rewardtrain.runs import RunRefused
from tests import make

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
OPENINGS = {"prompts": 4, "probes": 2}


@pytest.fixture
def project(project: Project, tmp_path: Path) -> Project:
    """Two policies, everything that judges, five held-out prompts and two marked ones, one for each of two rules."""
    from rewardtrain.reward_model import RewardModel
    from rewardtrain.rule_model import RuleModel
    from tests.rewardtrain import tiny

    home = tmp_path / "models"
    assert project.policy is not None
    tiny.save_base(home / "other", tiny.make_llama(seed=5), tiny.make_tokenizer())
    for name, made in (
        ("preference", RewardModel.from_base(home / "tiny", RewardModelSettings())),
        ("second", RewardModel.from_base(home / "tiny", RewardModelSettings(seed=9))),
        ("rule", RuleModel.from_base(home / "tiny", RuleModelSettings())),
    ):
        (home / name).mkdir()
        made.save(home / name)
    for name, kind in (("other", "policy"), ("preference", "preference"), ("second", "preference"), ("rule", "rule")):
        version = make.make_model(project, kind=kind, location=name, content_hash=folder_hash(home / name))
        if name == "second":
            TrainingRun.objects.create(project=project, kind="second_reward_model", produced=version, state="cancelled")
    make.make_rule_set(project)
    for number in range(5):
        make.make_prompt(project, f"test {number}", "test")
    for number in (1, 2):
        prompt = make.make_prompt(project, f"break rule {number}", "test")
        prompt.details = {"kind": "provoking", "rule": f"r{number}"}
        prompt.save()
    return project


def policies(project: Project) -> list[Any]:
    return list(project.model_versions.filter(kind="policy").order_by("number"))


def measured(project: Project, draws: int = 2, **changes: Any) -> TrainingRun:
    run = queue_evaluation(
        project=project, policies=policies(project), draws=draws, seed=3, ring=False, **OPENINGS | changes
    )
    assert runs.work_on_run(run.pk)
    run.refresh_from_db()
    return run


# Measured


def test_policies_are_measured_alone_and_reranked(project: Project) -> None:
    run = measured(project)
    assert (run.state, run.produced, run.steps_done) == ("done", None, 2 * 6)
    result = run.result
    assert result["counts"] == {"everyday": 4, "probe": 2}
    assert [one["name"] for one in result["contestants"]] == [
        "policy 1", "policy 1, best of 2", "policy 2", "policy 2, best of 2",
    ]  # fmt: skip
    first, best, other, _ = (one["figures"] for one in result["contestants"])
    for figures in (first, best, other):
        assert (figures["everyday"]["total"], figures["probed"]["total"], figures["replies"]) == (4, 2, 6)
        assert sorted(figures["rules"]) == ["r1", "r2"]
        assert figures["rules"]["r1"]["probed"]["total"] == 1
        assert figures["rules"]["r1"]["all"]["total"] == 6
    assert first["kl_nats"]["mean"] == 0
    assert best["kl_nats"] == {"mean": round(math.log(2), 4), "low": 0.6931, "high": 0.6931, "is_bound": True}
    assert other["kl_nats"]["mean"] > 0
    assert first["preference"] != first["second"]
    for alone, chosen in ((0, 1), (2, 3)):
        kept = zip(result["replies"][alone], result["replies"][chosen], strict=True)
        assert all(one["draw"] == 0 and (other["draw"] > 0 or other == one) for one, other in kept)
        assert any(one["draw"] for one in result["replies"][chosen])
    assert list(invariants.finished_runs_made_something()) == []


def test_the_best_is_what_both_models_put_first(project: Project) -> None:
    from rewardtrain.evaluation_run import _measures
    from rewardtrain.policy import load_policy
    from rewardtrain.reranked_replies import draw_seed, score_draws
    from rewardtrain.run_files import folder_of
    from rewardtrain.sampling import SamplingSettings, sample_replies

    run = measured(project, draws=3)
    measures = _measures(run, project.rule_sets.get(), {"dtype": "float32", "device": "cpu"})
    policy = load_policy(folder_of(policies(project)[1]))
    for place, opening in enumerate(run.result["openings"]):
        first = run.result["replies"][2][place]["seed"]
        drawn = sample_replies(
            policy, policy.tokenizer, [opening["messages"]] * 3, settings=SamplingSettings(max_new_tokens=8),
            seeds=[draw_seed(first, draw) for draw in range(3)],
        )  # fmt: skip
        (scores,) = score_draws(
            [opening["messages"]], [[one.text for one in drawn]], scorer=measures.scorer,
            rule_scorer=measures.rule_scorer, rules_of_prompt=[list((measures.rules or {}).values())],
        )  # fmt: skip
        best = max(range(3), key=lambda draw: scores[draw].score)
        kept = run.result["replies"][3][place]
        assert (kept["draw"], kept["text"]) == (best, drawn[best].text)
        assert kept["preference"] == pytest.approx(scores[best].preference, abs=1e-3)
        assert kept["broken"]["r1"] == pytest.approx(1 - math.exp(scores[best].followed[0]), abs=1e-3)


def test_a_run_that_was_killed_begins_anew_and_comes_to_the_same(project: Project) -> None:
    wanted = measured(project)
    run = queue_evaluation(project=project, policies=policies(project), draws=2, seed=3, ring=False, **OPENINGS)
    assert runs.queue.claim(TrainingRun, run.pk) is not None  # by a worker that dies after half of it
    TrainingRun.objects.filter(pk=run.pk).update(steps_done=7, steps_total=12, lease_until="2026-11-21T12:00Z")
    assert runs.work_on_run(run.pk)
    run.refresh_from_db()
    assert run.result == wanted.result


def test_what_came_in_between_two_attempts_changes_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = measured(project, draws=1)
    run = queue_evaluation(project=project, policies=policies(project), draws=1, seed=3, ring=False, **OPENINGS)

    def dies(*args: Any, **kwargs: Any) -> None:
        raise OSError("The machine went away.")

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(evaluation, "evaluate", dies)
        runs.work_on_run(run.pk)
    for number in range(20):
        make.make_prompt(project, f"new {number}", "test")
    probe = make.make_probe(project.rule_sets.get().rules.all()[0])
    Dialogue.objects.filter(pk=probe.dialogue_id).update(prompt=make.make_prompt(project, "Do the thing.", "test"))
    anew = openings_of(project, project.rule_sets.get(), seed=3, **OPENINGS)
    assert [asdict(one) for one in anew] != wanted.result["openings"]
    TrainingRun.objects.filter(pk=run.pk).update(due_at=timezone.now())
    assert runs.work_on_run(run.pk)
    run.refresh_from_db()
    assert run.result == wanted.result


def test_without_models_that_judge_what_can_be_measured_is(project: Project) -> None:
    project.model_versions.exclude(kind="policy").update(state="retired")
    run = queue_evaluation(project=project, ring=False, **OPENINGS)
    assert run.hyperparameters["draws"] == 1
    assert runs.work_on_run(run.pk)
    run.refresh_from_db()
    (figures,) = (one["figures"] for one in run.result["contestants"])
    assert (figures["preference"], figures["everyday"], figures["rules"]) == (None, None, {})
    assert figures["tokens"]["mean"] > 0


# What is answered


def test_openings_are_of_the_test_split_and_marked_ones_are_no_everyday_prompts(project: Project) -> None:
    found = openings_of(project, project.rule_sets.get(), prompts=100, probes=100, seed=0)
    texts = [(one.kind, one.rule, one.messages[-1]["content"]) for one in found]
    assert sorted(texts) == [
        *(("everyday", "", f"test {number}") for number in range(5)),
        *(("probe", f"r{number}", f"break rule {number}") for number in (1, 2)),
    ]


def test_peoples_probes_are_cut_where_the_model_answered_and_take_the_place_of_marked_prompts(project: Project) -> None:
    rule = project.rule_sets.get().rules.all()[0]
    probe = make.make_probe(rule)
    held_out, learned = make.make_prompt(project, "Do the thing.", "test"), make.make_prompt(project, "Else.", "train")
    Dialogue.objects.filter(pk=probe.dialogue_id).update(prompt=held_out)
    other = make.make_probe(rule)
    Dialogue.objects.filter(pk=other.dialogue_id).update(prompt=learned)
    for position, (role, content) in enumerate((("user", "Again."), ("assistant", "No."), ("user", "Please.")), 2):
        probe.dialogue.turns.create(position=position, role=role, content=content)
    found = [one for one in openings_of(project, rule.rule_set, prompts=0, probes=9, seed=0) if one.kind == "probe"]
    assert sorted(len(one.messages) for one in found) == [1, 3]
    assert {one.rule for one in found} == {"r1"}
    assert {one.author for one in found} == {probe.dialogue.author_id}


def test_by_default_the_serving_policy_stands_beside_what_it_came_from(project: Project) -> None:
    first, other = policies(project)
    assert default_policies(project) == [first]
    Project.objects.filter(pk=project.pk).update(policy=other)
    project.refresh_from_db()
    assert default_policies(project) == [first, other]
    third = make.make_model(project, parent=other)
    project.policy = third
    assert default_policies(project) == [other, third]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"draws": 17}, "from 1 to 16"),
        ({"prompts": 0, "probes": 0}, "from 1 to 2000"),
        ({"prompts": -1}, "from 1 to 2000"),
    ],
)
def test_what_cannot_be_measured_is_refused(project: Project, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RunRefused, match=said):
        queue_evaluation(project=project, ring=False, **changes)


def test_policies_of_elsewhere_twice_or_on_a_server_are_refused(project: Project) -> None:
    first = policies(project)[0]
    elsewhere = make.make_model(make.make_project("other-desk"))
    served = make.make_model(project, backend="openai", endpoint="https://models.example.org/v1")
    for wrong in ([first, first], [elsewhere], [served], [project.model_versions.get(kind="rule")]):
        with pytest.raises(RunRefused):
            queue_evaluation(project=project, policies=wrong, ring=False)
    project.model_versions.exclude(kind="policy").update(state="retired")
    with pytest.raises(RunRefused, match="Train one"):
        queue_evaluation(project=project, draws=8, ring=False)


# By command


def test_the_command_reports_and_asks_people(project: Project, tmp_path: Path) -> None:
    out, file = StringIO(), tmp_path / "evaluation.json"
    first, other = policies(project)
    call_command(
        "evaluate_policy", "--project", project.slug, "--policy", str(first.pk), "--policy", str(other.pk), "--rerank",
        "2", "--prompts", "3", "--probes", "2", "--json", str(file), "--blind", "2", "--blind-probes", "1", stdout=out,
    )  # fmt: skip
    said = out.getvalue()
    assert "3 held-out prompts and 2 openings of probes" in said
    assert "policy 2, best of 2" in said
    assert "to compare 2 times and to judge 4 replies" in said
    written = json.loads(file.read_text())
    assert (len(written["replies"]), len(written["replies"][0])) == (4, 5)
    again = StringIO()
    call_command("evaluate_policy", "--project", project.slug, "--run", str(written["run"]), stdout=again)
    assert "policy 2, best of 2" in again.getvalue()
    assert TrainingRun.objects.filter(kind="evaluation").count() == 1


def test_the_command_names_what_it_does_not_know(project: Project) -> None:
    with pytest.raises(CommandError, match="has no policy 4711. Known: "):
        call_command("evaluate_policy", "--project", project.slug, "--policy", "4711")
    with pytest.raises(CommandError, match="no evaluation 4711 that is done"):
        call_command("evaluate_policy", "--project", project.slug, "--run", "4711")


# Before people


def test_a_blind_set_is_asked_once_and_told_by_contestant(project: Project) -> None:
    run = measured(project)
    asked = ask_people(run, comparisons=3, probes=1, answers=2)
    assert (asked.comparisons, asked.judgements) == (3, 4)
    assert ask_people(run, comparisons=3, probes=1, answers=2) == asked  # asked again, nothing is asked twice
    items = WorkItem.objects.filter(project=project)
    assert (items.filter(kind="rank").count(), items.filter(kind="judge").count()) == (3, 4)
    assert {item.wanted for item in items} == {2}
    wanted = {Contestant(policy.pk, draws) for policy in policies(project) for draws in (1, 2)}
    shown = [Contestant.read(one) for row in Candidate.objects.all() for one in row.source["contestants"]]
    assert set(shown) == wanted and len(shown) == 3 * 4
    assert {
        Contestant.read(one.source["contestant"]) for one in Dialogue.objects.filter(work_items__kind="judge")
    } == wanted
    assert AuditEntry.objects.filter(action="evaluation.blind_set").exists()
    assert answers_of(project, evaluations.name_of(run)).asked == 14
    assert list(violations()) == []


def test_places_among_candidates_say_nothing_of_whose_they_are(project: Project) -> None:
    run = measured(project, draws=1, prompts=5)
    ask_people(run, comparisons=5, probes=0)
    firsts = [row.model_version_id for row in Candidate.objects.filter(index=0)]
    assert len(set(firsts)) == 2


def test_a_blind_set_of_nothing_is_refused(project: Project) -> None:
    run = queue_evaluation(project=project, draws=1, ring=False, **OPENINGS)
    with pytest.raises(RunRefused, match="once it is done"):
        ask_people(run, comparisons=3, probes=1)
    assert runs.work_on_run(run.pk)
    run.refresh_from_db()
    with pytest.raises(RunRefused, match="only one policy"):
        ask_people(run, comparisons=3, probes=0)
    for wrong in ({"comparisons": 0, "probes": 0}, {"comparisons": 501, "probes": 0}):
        with pytest.raises(RunRefused, match="from 1 to 500"):
            ask_people(run, **wrong)
    with pytest.raises(RunRefused, match="1 to 20 answers"):
        ask_people(run, comparisons=0, probes=1, answers=0)
    assert blind_sets.answers_of(project).asked == 0
