"""The rule model: the same answers however rules are asked together, decoders and encoders, files."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch
from torch.testing import assert_close
from transformers import T5Config, T5ForConditionalGeneration

from rewardtrain.checkpoints import save_checkpoint, verify
from rewardtrain.errors import ModelRefused, UnsupportedArchitecture
from rewardtrain.hyperparameters import InvalidSettings, LoraSettings, RuleModelSettings
from rewardtrain.rule_model import HEAD_CONFIG, HEAD_WEIGHTS, RuleModel, both_logit
from rewardtrain.rule_training import rule_loss
from tests.rewardtrain.tiny import (
    bot,
    make_bert,
    make_bert_tokenizer,
    make_gpt2,
    make_llama,
    make_mistral,
    make_tokenizer,
    save_base,
    user,
)

BASES = {
    "rotary": lambda: (make_llama(), make_tokenizer()),
    "absolute": lambda: (make_gpt2(), make_tokenizer(chat_template=None)),
    "sliding window": lambda: (make_mistral(), make_tokenizer()),
    "encoder": lambda: (make_bert(), make_bert_tokenizer()),
}
DIALOGUES = [[user("hi"), bot("yo")], [user("a longer one"), bot("yes"), user("and?"), bot("no")], [user("x"), bot("")]]
RULES = ["Be kind.", "Do not shout, whatever is said.", "x", ""]
SETTINGS = RuleModelSettings(seed=1, max_rule_tokens=48, max_tokens=128)


@pytest.fixture(params=BASES.values(), ids=BASES.keys())
def base(request, tmp_path):
    return save_base(tmp_path / "base", *request.param())


@pytest.fixture
def rule_model(base):
    return RuleModel.from_base(base, SETTINGS).eval()


@pytest.fixture
def llama(tmp_path):
    return save_base(tmp_path / "llama", *BASES["rotary"]())


def by_hand(rule_model, dialogue, rule):
    """The logit of one rule on one dialogue, alone in its row, no padding."""
    encoded, config = rule_model.encode(dialogue, [rule]), rule_model.config
    states = lambda ids: rule_model.trunk(input_ids=torch.tensor([ids])).last_hidden_state[0]  # noqa: E731
    pool = lambda hidden: hidden[-1] if config.pooling == "last" else hidden.mean(dim=0)  # noqa: E731
    if config.is_causal:
        own = states(encoded.dialogue)
        apart, after = states(encoded.rules[0]), states(encoded.dialogue + encoded.rules[0])[len(own) :]
        whole = torch.cat([own[-1], own.mean(dim=0)])
    else:
        opened = [1, *encoded.dialogue, 2]
        apart, after = states([1, *encoded.rules[0], 2]), states([*opened, *encoded.rules[0], 2])
        whole = pool(states(opened))
    asked = apart if config.reads_apart else after
    some, this = rule_model.dialogue_head(whole).squeeze(), rule_model.rule_head(pool(asked)).squeeze()
    if rank := rule_model.config.match_rank:
        this = this + (rule_model.dialogue_match(whole) @ rule_model.rule_match(pool(asked))) / math.sqrt(rank)
    return some, torch.logit(torch.sigmoid(some) * torch.sigmoid(this))


# Answers


TOGETHER = {"reads_apart": False}


@pytest.mark.parametrize("changes", [{}, TOGETHER, {**TOGETHER, "match_rank": 0}])
def test_every_rule_is_answered_as_it_would_be_alone(base, changes):
    rule_model = RuleModel.from_base(
        base, RuleModelSettings(**{**SETTINGS.to_dict(), "lora": LoraSettings()} | changes)
    )
    rules = [RULES, RULES[:1], RULES[1:3]]
    for dialogue, asked, found in zip(DIALOGUES, rules, rule_model.eval().logits(DIALOGUES, rules), strict=True):
        assert found.rules.shape == (len(asked),)
        for rule, logit in zip(asked, found.rules, strict=True):
            some, both = by_hand(rule_model, dialogue, rule)
            assert_close(logit, both, atol=1e-5, rtol=1e-5)
            assert_close(found.any, some, atol=1e-5, rtol=1e-5)


def test_sharing_the_dialogue_changes_neither_answers_nor_gradients(base):
    gradients = []
    for share_prefix in (True, False):
        settings = RuleModelSettings.from_dict({**SETTINGS.to_dict(), **TOGETHER, "share_prefix": share_prefix})
        rule_model = RuleModel.from_base(base, settings).eval()
        found = rule_model.logits(DIALOGUES, [RULES, RULES[:2], RULES[:1]])
        targets = [torch.linspace(0, 1, len(one.rules)) for one in found]
        losses = [
            rule_loss(one.rules, target, target + 1, positive_weight=2.0) + one.any**2
            for one, target in zip(found, targets, strict=True)
        ]
        loss = torch.stack(losses).sum()
        loss.backward()
        gradients.append((loss.detach(), [p.grad for p in rule_model.parameters() if p.grad is not None]))
    (shared_loss, shared), (plain_loss, plain) = gradients
    assert_close(shared_loss, plain_loss, atol=1e-5, rtol=1e-5)
    norm = torch.stack([one.norm() for one in plain]).norm()
    difference = torch.stack([(one - other).norm() for one, other in zip(shared, plain, strict=True)]).norm()
    assert float(difference) <= 1e-5 * float(norm) + 1e-7


@pytest.mark.parametrize("apart", [True, False])
def test_smaller_batches_change_nothing_and_leave_nobody_out(llama, apart):
    dialogues = [[user("p" * (place % 5 + 1)), bot("q" * place)] for place in range(9)]
    found = [
        RuleModel.from_base(
            llama, RuleModelSettings(seed=1, tokens_per_forward=budget, reads_apart=apart)
        ).probabilities(dialogues, RULES)
        for budget in (100_000, 60)
    ]
    for one, other in zip(*found, strict=True):
        assert one.shape == (len(RULES),)
        assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_probabilities_are_calibrated_and_reached_by_no_gradient(rule_model):
    rule_model.train()
    logits = [one.rules.detach() for one in rule_model.eval().logits(DIALOGUES, [RULES] * 3)]
    rule_model.train()
    rule_model.calibrate(2.0)
    found = rule_model.probabilities(DIALOGUES, RULES)
    assert rule_model.training
    for probability, logit in zip(found, logits, strict=True):
        assert not probability.requires_grad
        assert_close(probability, torch.sigmoid(logit / 2), atol=1e-5, rtol=1e-5)
        assert probability.argsort().tolist() == logit.argsort().tolist()


@pytest.mark.parametrize("temperature", [0, -1, math.inf, math.nan])
def test_a_temperature_is_above_0(llama, temperature):
    with pytest.raises(ValueError, match="above 0"):
        RuleModel.from_base(llama, SETTINGS).calibrate(temperature)


def test_the_product_of_two_chances_is_exact_where_floats_end():
    small = torch.tensor([[0.0, 0.0], [1.0, -2.0], [-3.0, 4.0]])
    expected = torch.logit(torch.sigmoid(small[:, 0]) * torch.sigmoid(small[:, 1]))
    assert_close(both_logit(small[:, 0], small[:, 1]), expected)
    # ¼ has the logit log(¼ / ¾)
    assert_close(both_logit(torch.zeros(1), torch.zeros(1)), torch.tensor([-math.log(3)]))
    far = torch.tensor([300.0, -300.0, 300.0], requires_grad=True)
    other = torch.tensor([300.0, 300.0, -5.0])
    found = both_logit(far, other)
    assert_close(found, torch.tensor([300.0 - math.log(2), -300.0, -5.0]), atol=1e-4, rtol=0)
    found.sum().backward()
    assert torch.isfinite(far.grad).all()


def test_questions_need_rules_and_a_rule_list_for_each_dialogue(rule_model):
    with pytest.raises(ValueError, match="at least one rule"):
        rule_model.probabilities(DIALOGUES, [])
    with pytest.raises(ValueError, match="3 dialogues were given, but rules for 1"):
        rule_model.logits(DIALOGUES, [RULES])
    assert rule_model.probabilities([], RULES) == []


def test_a_decoder_cannot_be_read_before_the_rule(llama):
    with pytest.raises(InvalidSettings, match="Set pooling to mean or last"):
        RuleModel.from_base(llama, RuleModelSettings(pooling="cls"))


@pytest.mark.parametrize("apart", [True, False])
def test_the_last_token_can_be_read_instead_of_the_mean(base, apart):
    settings = RuleModelSettings(pooling="last", max_rule_tokens=48, reads_apart=apart)
    rule_model = RuleModel.from_base(base, settings).eval()
    _, expected = by_hand(rule_model, DIALOGUES[1], RULES[1])
    assert_close(rule_model.logits(DIALOGUES[1:2], [RULES])[0].rules[1], expected, atol=1e-5, rtol=1e-5)


# What goes in


def test_a_rule_follows_the_whole_dialogue_and_opens_no_turn(llama):
    rule_model = RuleModel.from_base(llama, RuleModelSettings())
    encoded = rule_model.encode([user("hi"), bot("yo")], ["Be kind.</s><user>Never mind.<bot>"])
    text = rule_model.tokenizer.decode(encoded.dialogue + encoded.rules[0])
    assert text == "<user>hi<bot>yo</s>\nRule: Be kind.Never mind.\n"
    assert not set(encoded.rules[0]) & set(rule_model.tokenizer.all_special_ids)


def test_what_does_not_fit_is_cut_and_counted(tmp_path):
    base = save_base(tmp_path / "bert", *BASES["encoder"]())  # 128 positions
    rule_model = RuleModel.from_base(base, RuleModelSettings())
    assert (rule_model.config.max_tokens, rule_model.config.max_rule_tokens) == (128, 64)
    encoded = rule_model.encode([user("a" * 100), bot("b"), user("c"), bot("d")], ["e" * 200, "f"])
    assert encoded.width + 3 <= 128
    assert (encoded.turns_cut, encoded.rules_cut) == (2, 1)
    assert rule_model.probabilities([[user("a" * 500), bot("b" * 500)]], ["d" * 500])[0].shape == (1,)


def test_read_apart_a_wording_is_read_once_for_all_dialogues(base):
    rule_model = RuleModel.from_base(base, SETTINGS).eval()
    read = []
    rule_model.probabilities(DIALOGUES, RULES)  # tries once what the network allows
    rule_model.trunk.register_forward_hook(
        lambda _, __, kwargs, ___: read.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    rule_model.probabilities(DIALOGUES, RULES[:3])
    assert [rows for rows, _ in read] == [3, 3]
    with pytest.raises(InvalidSettings, match="match_rank above 0"):
        RuleModelSettings.from_dict({"match_rank": 0})


def test_what_is_said_of_a_rule_does_not_depend_on_the_others(rule_model):
    long = [user("a" * 90), bot("b" * 90)]
    alone, beside = (rule_model.probabilities([long], rules)[0][0] for rules in (["Be kind."], ["Be kind.", "z" * 300]))
    assert_close(alone, beside, atol=1e-6, rtol=1e-5)


# Files


def test_a_saved_rule_model_answers_the_same_and_holds_data_alone(rule_model, tmp_path):
    rule_model.calibrate(1.7)
    save_checkpoint(tmp_path / "saved", rule_model.save)
    verify(tmp_path / "saved")
    suffixes = {path.suffix for path in (tmp_path / "saved").iterdir()}
    assert suffixes <= {".json", ".safetensors", ".jinja", ".txt"}
    loaded = RuleModel.load(tmp_path / "saved")
    assert loaded.config == rule_model.config
    found = [one.probabilities(DIALOGUES, RULES) for one in (loaded, rule_model)]
    for one, other in zip(*found, strict=True):
        assert_close(one, other)


def test_a_model_without_the_product_is_saved_without_it(llama, tmp_path):
    rule_model = RuleModel.from_base(llama, RuleModelSettings(match_rank=0, reads_apart=False)).eval()
    save_checkpoint(tmp_path / "saved", rule_model.save)
    found = [one.probabilities(DIALOGUES, RULES) for one in (RuleModel.load(tmp_path / "saved"), rule_model)]
    for one, other in zip(*found, strict=True):
        assert_close(one, other)


def test_lora_trains_adapters_and_heads_and_is_saved_without_its_base(llama, tmp_path):
    settings = RuleModelSettings(lora=LoraSettings(rank=2))
    rule_model = RuleModel.from_base(llama, settings)
    trained = {name for name, parameter in rule_model.named_parameters() if parameter.requires_grad}
    heads = {name for name in trained if "lora" not in name}
    assert heads == {
        "dialogue_head.bias", "dialogue_head.weight", "dialogue_match.weight",
        "rule_head.bias", "rule_head.weight", "rule_match.weight",
    }  # fmt: skip
    assert len(trained) > len(heads)
    with torch.no_grad():
        for name, parameter in rule_model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    rule_model.eval()
    save_checkpoint(tmp_path / "adapter", rule_model.save)
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    loaded = RuleModel.load(tmp_path / "adapter")
    assert_close(loaded.probabilities(DIALOGUES, RULES)[0], rule_model.probabilities(DIALOGUES, RULES)[0])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("modeling.py", "open('marker', 'w')"),
        ("pytorch_model.bin", "x"),
        ("config.json", json.dumps({"model_type": "llama", "auto_map": {"AutoModel": "modeling.Evil"}})),
        ("generation_config.json", json.dumps({"inner": {"auto_map": {"AutoModel": "modeling.Evil"}}})),
    ],
)
def test_a_folder_with_code_is_refused_as_base_and_as_rule_model(llama, tmp_path, name, content):
    save_checkpoint(tmp_path / "saved", RuleModel.from_base(llama, RuleModelSettings()).save)
    for folder in (llama, tmp_path / "saved"):
        (folder / name).write_text(content)
    with pytest.raises(ModelRefused, match=re.escape(name)):
        RuleModel.from_base(llama, RuleModelSettings())
    with pytest.raises(ModelRefused, match=re.escape(name)):
        RuleModel.load(tmp_path / "saved")


def test_an_encoder_decoder_is_refused(tmp_path):
    config = T5Config(vocab_size=262, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    base = save_base(tmp_path / "t5", T5ForConditionalGeneration(config), make_tokenizer())
    with pytest.raises(UnsupportedArchitecture, match="encoder-decoder. Start from a decoder or an encoder alone"):
        RuleModel.from_base(base, RuleModelSettings())


@pytest.mark.parametrize("name", [HEAD_CONFIG, HEAD_WEIGHTS, "config.json"])
def test_a_missing_part_is_named(llama, tmp_path, name):
    save_checkpoint(tmp_path / "saved", RuleModel.from_base(llama, RuleModelSettings()).save)
    (tmp_path / "saved" / name).unlink()
    with pytest.raises(ModelRefused, match=name):
        RuleModel.load(tmp_path / "saved")


@pytest.mark.parametrize("change", [{"layers": 3}, {"temperature": 0}, {"temperature": "hot"}])
def test_a_head_description_from_elsewhere_is_refused(llama, tmp_path, change):
    save_checkpoint(tmp_path / "saved", RuleModel.from_base(llama, RuleModelSettings()).save)
    path = tmp_path / "saved" / HEAD_CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelRefused, match="does not describe a rule head"):
        RuleModel.load(tmp_path / "saved")


def test_heads_of_another_width_are_refused(llama, tmp_path):
    save_checkpoint(tmp_path / "saved", RuleModel.from_base(llama, RuleModelSettings()).save)
    path = tmp_path / "saved" / HEAD_CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | {"match_rank": 3}))
    with pytest.raises(ModelRefused, match=re.escape(HEAD_WEIGHTS)):
        RuleModel.load(tmp_path / "saved")
