"""Settings: what they refuse and say, how they are stored, and the learning rate over a run."""

from __future__ import annotations

import json

import pytest

from rewardtrain.gate import GateSettings
from rewardtrain.hyperparameters import (
    InvalidSettings,
    LoraSettings,
    PpoSettings,
    RewardModelSettings,
    RuleModelSettings,
    SamplingSettings,
    learning_rate_share,
)

ALL = [SamplingSettings, LoraSettings, RewardModelSettings, RuleModelSettings, PpoSettings, GateSettings]


@pytest.mark.parametrize("kind", ALL)
def test_the_defaults_are_valid_and_survive_json(kind):
    settings = kind().validate()
    assert kind.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_nested_settings_come_back_as_settings():
    settings = PpoSettings(
        sampling=SamplingSettings(max_new_tokens=9), lora=LoraSettings(rank=4, target_modules=("q",))
    )
    again = PpoSettings.from_dict(json.loads(json.dumps(settings.to_dict())))
    assert again == settings
    assert again.sampling.max_new_tokens == 9
    assert again.lora.is_on


def test_names_left_out_keep_their_defaults_and_unknown_ones_are_named():
    assert PpoSettings.from_dict({"updates": 3}) == PpoSettings(updates=3)
    with pytest.raises(InvalidSettings, match="no setting beta; known are .*kl_coef"):
        PpoSettings.from_dict({"beta": 0.1})


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (PpoSettings, [], r"Write settings as names with values, not as \[\]"),
        (PpoSettings, None, "Write settings as names with values, not as None"),
        (PpoSettings, {"updates": "3"}, "Set updates to a whole number, not '3'"),
        (PpoSettings, {"updates": 2.5}, "Set updates to a whole number, not 2.5"),
        (PpoSettings, {"updates": True}, "Set updates to a whole number, not True"),
        (PpoSettings, {"learning_rate": [1]}, r"Set learning_rate to a number, not \[1\]"),
        (PpoSettings, {"learning_rate": None}, "Set learning_rate to a number, not None"),
        (PpoSettings, {"kl_coef": float("nan")}, "Set kl_coef to a number, not nan"),
        (PpoSettings, {"kl_coef": 10**400}, "Set kl_coef to a number, not 10000"),
        (PpoSettings, {"sampling": 3}, "Set sampling to names with values, not 3"),
        (PpoSettings, {"sampling": {"top_k": "all"}}, "Set top_k to a whole number, not 'all'"),
        (PpoSettings, {"share_prefix": 1}, "Set share_prefix to true or false, not 1"),
        (PpoSettings, {"schedule": ["linear"]}, r"Set schedule to a word, not \['linear'\]"),
        (RewardModelSettings, {"lora": {"target_modules": "q"}}, "Set target_modules to a list of names, not 'q'"),
        (GateSettings, {"prompts": "many"}, "Set prompts to a whole number, not 'many'"),
        (GateSettings, {"most_kl_nats": {}}, "Set most_kl_nats to a number, not {}"),
    ],
)
def test_a_value_of_another_kind_is_refused_with_what_belongs_there(kind, values, message):
    with pytest.raises(InvalidSettings, match=message):
        kind.from_dict(values)


def test_a_whole_number_is_a_number_too():
    assert PpoSettings.from_dict({"kl_coef": 1, "sampling": SamplingSettings(max_new_tokens=9)}).kl_coef == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (SamplingSettings(max_new_tokens=0), "Set max_new_tokens above 0"),
        (SamplingSettings(temperature=-1), "Set temperature to 0 or more"),
        (SamplingSettings(top_p=0), "Set top_p above 0 and at most 1"),
        (SamplingSettings(top_p=1.5), "Set top_p above 0 and at most 1"),
        (SamplingSettings(top_k=-2), "Set top_k to 0 or more"),
        (LoraSettings(rank=-1), "Set rank to 0 or more"),
        (LoraSettings(rank=2, alpha=0), "Set alpha above 0"),
        (LoraSettings(dropout=1.0), "Set dropout of LoRA"),
        (RewardModelSettings(epochs=0), "Set epochs above 0"),
        (RuleModelSettings(balance=1.5), "Set balance between 0 and 1"),
        (RuleModelSettings(unjudged_rules=-1), "Set unjudged_rules to 0 or more"),
        (RuleModelSettings(max_rule_tokens=512), "Set max_rule_tokens .512. below max_tokens .512."),
        (RuleModelSettings(device="tpu"), "Set device to cpu, cuda or cuda:NUMBER"),
        (RuleModelSettings(dtype="bfloat16"), "a rule model's small steps are lost"),
        (RewardModelSettings(ties="maybe"), "Set ties to one of none, half"),
        (RewardModelSettings(margin="big"), "Set margin to one of none, strength"),
        (RewardModelSettings(all_bad="yes"), "Set all_bad to one of off, on"),
        (RewardModelSettings(pooling="max"), "Set pooling to one of auto, last, mean, cls"),
        (RewardModelSettings(schedule="steps"), "Set schedule to one of constant, linear, cosine"),
        (RewardModelSettings(dtype="int8"), "Set dtype to one of"),
        (RewardModelSettings(warmup_share=2), "Set warmup_share between 0 and 1"),
        (RewardModelSettings(weight_decay=-1), "Set weight_decay to 0 or more"),
        (RewardModelSettings(max_tokens=64, max_reply_tokens=64), "Set max_reply_tokens .64. below max_tokens .64."),
        (RewardModelSettings(lora=LoraSettings(rank=-1)), "Set rank to 0 or more"),
        (PpoSettings(updates=0), "Set updates above 0"),
        (PpoSettings(samples_per_update=10, samples_per_prompt=4), "Make samples_per_update .10. a multiple"),
        (PpoSettings(samples_per_update=16, minibatch_size=32), "Set minibatch_size .32. to at most"),
        (PpoSettings(gamma=1.1), "Set gamma between 0 and 1"),
        (PpoSettings(kl_controller="loose"), "Set kl_controller to one of fixed, adaptive"),
        (PpoSettings(sampling=SamplingSettings(top_p=0.9)), "Sample PPO's replies with"),
        (PpoSettings(sampling=SamplingSettings(temperature=0)), "Sample PPO's replies with"),
        (PpoSettings(sampling=SamplingSettings(max_new_tokens=0)), "Set max_new_tokens above 0"),
        (PpoSettings(samples_per_prompt=0), "Set samples_per_prompt above 0"),
    ],
)
def test_what_cannot_work_is_refused_with_what_to_do(settings, message):
    with pytest.raises(InvalidSettings, match=message) as refused:
        settings.validate()
    assert refused.value.code == "invalid_settings"


def test_every_problem_is_named_at_once():
    with pytest.raises(InvalidSettings) as refused:
        PpoSettings(updates=0, kl_coef=-1).validate()
    assert len(refused.value.problems) == 2


def test_prompts_per_update():
    assert PpoSettings(samples_per_update=64, samples_per_prompt=4).prompts_per_update == 16


def test_the_learning_rate_warms_up_then_falls_in_a_line():
    shares = [learning_rate_share(step, 12, warmup=2, schedule="linear", final=0.1) for step in range(12)]
    assert shares[:3] == [0.5, 1.0, 1.0]
    assert shares[-1] == pytest.approx(0.1)
    steps = [before - after for before, after in zip(shares[2:], shares[3:], strict=False)]
    assert steps == pytest.approx([0.1] * 9)


def test_the_cosine_is_half_way_down_in_the_middle():
    assert learning_rate_share(5, 11, warmup=0, schedule="cosine", final=0.0) == pytest.approx(0.5)
    assert learning_rate_share(10, 11, warmup=0, schedule="cosine", final=0.2) == pytest.approx(0.2)


def test_a_constant_rate_stays_and_a_single_step_moves():
    assert learning_rate_share(7, 10, warmup=0, schedule="constant", final=0.0) == 1.0
    assert learning_rate_share(0, 1, warmup=0, schedule="linear", final=0.0) == 1.0
    assert learning_rate_share(0, 1, warmup=5, schedule="linear", final=0.0) == pytest.approx(0.2)
