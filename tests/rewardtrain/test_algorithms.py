"""Which algorithm settings name, and what each refuses."""

from __future__ import annotations

import pytest

from rewardtrain import algorithms, round_settings
from rewardtrain.algorithms import BestOfNSettings, DpoSettings, RlooSettings
from rewardtrain.hyperparameters import InvalidSettings, PpoSettings


@pytest.mark.parametrize("kind", [RlooSettings, DpoSettings, BestOfNSettings])
def test_defaults_are_valid_and_survive_being_stored(kind):
    assert kind.from_dict(kind().to_dict()) == kind()
    kind().as_drawn().validate()


def test_settings_are_those_of_the_algorithm_they_name():
    assert isinstance(algorithms.read_settings({}), PpoSettings)
    found = algorithms.read_settings({"algorithm": "dpo", "beta": 0.3})
    assert isinstance(found, DpoSettings) and found.beta == 0.3
    assert isinstance(algorithms.read_settings({"algorithm": "best-of-n"}), BestOfNSettings)
    with pytest.raises(InvalidSettings, match="There is no setting beta"):
        algorithms.read_settings({"algorithm": "rloo", "beta": 0.3})
    with pytest.raises(InvalidSettings, match="ppo, rloo, dpo, best-of-n"):
        algorithms.read_settings({"algorithm": "grpo"})


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        (RlooSettings, {"samples_per_prompt": 1}, "samples_per_prompt to 2 or more"),
        (RlooSettings, {"samples_per_update": 250}, "multiple of samples_per_prompt"),
        (RlooSettings, {"minibatch_size": 48}, "samples_per_update .256. a multiple of minibatch_size"),
        (RlooSettings, {"samples_per_forward": 48}, "minibatch_size .64. a multiple of samples_per_forward"),
        (RlooSettings, {"sampling": {"top_k": 5}}, "top_k 0"),
        (RlooSettings, {"lora": {"rank": 2, "target_modules": ["lm_head"]}}, "Take lm_head out"),
        (DpoSettings, {"beta": 0.0}, "beta above 0"),
        (DpoSettings, {"pairs_per_forward": 5}, "multiple of pairs_per_forward"),
        (DpoSettings, {"schedule": "step"}, "schedule to one of"),
        (BestOfNSettings, {"samples_per_prompt": 1}, "best of one"),
        (BestOfNSettings, {"learning_rate": -1.0}, "learning_rate above 0"),
        (BestOfNSettings, {"lora": {"rank": -1}}, "rank to 0 or more"),
    ],
)
def test_what_cannot_work_is_refused_with_what_to_do(kind, values, words):
    with pytest.raises(InvalidSettings, match=words):
        kind.from_dict(values)


def test_an_update_of_rloo_is_so_many_optimiser_steps():
    assert RlooSettings(samples_per_update=256, minibatch_size=64, passes=2).steps_per_update == 8


def test_drawing_is_set_as_for_ppo():
    settings = RlooSettings(updates=3, samples_per_update=12, samples_per_prompt=3, kl_coef=0.7, reward_clip=2.0)
    drawn = settings.as_drawn()
    assert (drawn.updates, drawn.prompts_per_update, drawn.kl_coef, drawn.reward_clip) == (3, 4, 0.7, 2.0)
    assert BestOfNSettings(tokens_per_forward=77).as_drawn().tokens_per_forward == 77


PROJECT = {"policy": {"updates": 45, "kl_coef": 0.2, "lora": {"rank": 4}, "reward_model": 7}, "gate": {"prompts": 9}}


def test_another_algorithm_leaves_out_what_was_set_for_the_one_before():
    assert round_settings.merged(PROJECT, {"policy": {"algorithm": "dpo", "beta": 0.2}}) == {
        "policy": {"algorithm": "dpo", "beta": 0.2, "lora": {"rank": 4}, "reward_model": 7}, "gate": {"prompts": 9}
    }  # fmt: skip
    same = round_settings.merged(PROJECT, {"policy": {"algorithm": "ppo", "updates": 2}})
    assert same["policy"] == {**PROJECT["policy"], "algorithm": "ppo", "updates": 2}
    dpo = {"policy": {"algorithm": "dpo", "beta": 0.2}}
    assert round_settings.merged(dpo, {"policy": {"epochs": 1.0}})["policy"] == {**dpo["policy"], "epochs": 1.0}
    assert round_settings.merged(dpo, {"policy": {"algorithm": "ppo"}})["policy"] == {"algorithm": "ppo"}


@pytest.mark.parametrize("algorithm", ["rloo", "dpo", "best-of-n"])
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("device", "cuda:1", "Set device to cpu .it is cuda:1.: .* runs on the CPU alone, in float32 and one process"),
        ("dtype", "bfloat16", "Set dtype to float32"),
        ("mixed_precision", "bfloat16", "Set mixed_precision to off"),
        ("processes", 4, "Set processes to 1 .it is 4."),
    ],
)
def test_what_only_ppo_can_compute_is_refused_by_the_others(algorithm, name, value, words):
    project = {"policy": {"lora": {"rank": 4}, name: value}}
    chosen = round_settings.merged(project, {"policy": {"algorithm": algorithm}})
    with pytest.raises(InvalidSettings, match=words):
        round_settings.check(chosen)
    with pytest.raises(InvalidSettings, match=words):
        algorithms.read_settings({"algorithm": algorithm, name: value})
    usual = {"policy": {"algorithm": algorithm, name: algorithms.COMPUTING[name]}}  # what the message says to set
    round_settings.check(round_settings.merged(project, usual))
    round_settings.check(round_settings.merged(project, {"policy": {"algorithm": "ppo"}}))


def test_how_the_others_compute_is_how_ppo_does_unless_told_otherwise():
    assert all(getattr(PpoSettings(), name) == usual for name, usual in algorithms.COMPUTING.items())


def test_a_projects_settings_may_name_an_algorithm_and_are_checked_as_its_own():
    assert round_settings.problems({"policy": {"algorithm": "best-of-n", "samples_per_prompt": 4}}) == []
    (said,) = round_settings.problems({"policy": {"algorithm": "best-of-n", "kl_coef": 0.1}})
    assert said.startswith("In policy: There is no setting kl_coef")
    assert round_settings.problems({"policy": {"algorithm": ["dpo"]}}) == [
        "In policy: Set algorithm to one of ppo, rloo, dpo, best-of-n, sft (it is ['dpo'])."
    ]


def test_only_what_saves_its_state_can_be_resumed():
    assert [name for name in algorithms.ALGORITHMS if not algorithms.why_not_resumable({"algorithm": name})] == [
        "ppo", "best-of-n"
    ]  # fmt: skip
    assert algorithms.why_not_resumable({}) == ""
    assert algorithms.why_not_resumable({"algorithm": "dpo"}).startswith("DPO saves no state")
    assert algorithms.why_not_resumable({"algorithm": "sft"}).startswith("SFT saves no state")


def test_how_algorithms_are_called():
    assert [algorithms.title_of(name) for name in (None, "", "dpo", "sft")] == ["PPO", "PPO", "DPO", "SFT"]
