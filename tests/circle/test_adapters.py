"""The circle with adapters: a second turn starts from the first one's, and a reward model shares the policy's base."""

from __future__ import annotations

import json
import logging
from io import StringIO

import pytest
from django.core.management import call_command

from feedback import invariants
from feedback.models import Project
from rewardtrain import model_files, policy, promotions, rounds, runs, shared_base
from rewardtrain.checkpoints import ADAPTER_CONFIG
from rewardtrain.models import MetricPoint, Round, TrainingRun
from tests.circle.test_resuming import finished, killed_at, new_run
from tests.circle.turning import PPO, QUICK, rank_everything, turn_here

pytestmark = [pytest.mark.django_db, pytest.mark.slow, pytest.mark.once]

LORA = {"lora": {"rank": 2}}
CHOSEN = {
    "reward_model": {**QUICK["reward_model"], **LORA},
    "policy": {**QUICK["policy"], **LORA, "learning_rate": 3e-2},  # so far that the base would be another policy
}


def one_round(project: Project) -> Round:
    turn = turn_here(rounds.start_round(project=project, hyperparameters=CHOSEN))
    assert turn.state == Round.State.DECISION, turn.error
    promotions.promote(project=project, to_version=turn.policy_after, round=turn, reason="To see it serve.")
    project.refresh_from_db()
    return turn


def kl_of_first_update(turn: Round) -> float:
    return MetricPoint.objects.get(run=turn.runs.get(kind="policy"), name="ppo/kl_nats", step=1).value


def test_a_second_round_starts_from_the_first_ones_adapter_and_is_held_to_it(project, caplog):
    caplog.set_level(logging.INFO)
    rank_everything(project)
    for turn in (one_round(project), one_round(project)):
        folder, found = model_files.verified_folder(turn.policy_after)
        assert (folder / ADAPTER_CONFIG).is_file()
        assert found == turn.policy_after.content_hash
        assert kl_of_first_update(turn) == pytest.approx(0, abs=1e-4)
    assert caplog.text.count("shares the policy's base") == 2  # in each round, whatever its policy started from
    assert turn.policy_before.parent is not None
    assert turn.gate_report["counts"] == {"prompts": 6}
    assert list(invariants.violations()) == []


def learn_rewards_as_an_adapter(project: Project) -> None:
    rank_everything(project)
    call_command("train_reward_model", "--project", project.slug, "--set", "lora.rank=2", stdout=StringIO())


def test_commands_with_adapters_load_their_base_once_and_give_the_policy_of_two_networks(project, monkeypatch, caplog):
    learn_rewards_as_an_adapter(project)
    chosen = [f"--set={name}={json.dumps(value)}" for name, value in {**PPO, **LORA}.items()]

    def trained() -> str:
        call_command("train_policy", "--project", project.slug, "--seed", "7", *chosen, stdout=StringIO())
        made = TrainingRun.objects.filter(kind="policy").latest("pk").produced
        assert made is not None
        files = {path.name for path in model_files.model_folder(made).rglob("*")}
        assert not any("reward" in name for name in files), files
        return made.content_hash

    with caplog.at_level(logging.INFO):
        shared = trained()
        assert "shares the policy's base" in caplog.text
        monkeypatch.setattr(shared_base, "why_apart", lambda *_: "to compare")
        assert trained() == shared
        assert "network of its own: to compare" in caplog.text


def test_a_killed_run_on_a_shared_base_ends_with_the_same_policy(project, monkeypatch):
    learn_rewards_as_an_adapter(project)
    whole, killed = (new_run(project, "policy", **LORA) for _ in range(2))
    assert runs.work_on_run(whole.pk)
    killed_at(killed, 3, monkeypatch)
    assert runs.work_on_run(killed.pk)
    assert finished(killed).resumed_step == 2
    assert killed.produced.content_hash == finished(whole).produced.content_hash


def test_a_round_of_adapters_in_bfloat16_with_layers_computed_twice(project, monkeypatch):
    rank_everything(project)
    loaded = []  # from here on: what answered people's requests was loaded before
    plainly = policy.load_policy
    monkeypatch.setattr(policy, "load_policy", lambda *args, **more: loaded.append(more) or plainly(*args, **more))
    saving = {"dtype": "bfloat16", "mixed_precision": "bfloat16", "gradient_checkpointing": True}
    chosen = {part: {**values, **saving} for part, values in CHOSEN.items()}
    turn = turn_here(rounds.start_round(project=project, hyperparameters=chosen))
    assert turn.state == Round.State.DECISION, turn.error
    assert loaded == [{"dtype": "bfloat16", "device": "cpu"}] * 2  # the gate's two policies, as PPO had its base
