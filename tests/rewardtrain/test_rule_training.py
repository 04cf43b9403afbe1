"""Training a rule model: planted breaches are learned, soft targets weigh as they should, what figures mean."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pytest
import torch
from torch.testing import assert_close

from rewardtrain import rule_training
from rewardtrain.errors import NothingToLearn, TrainingDiverged
from rewardtrain.hyperparameters import InvalidSettings, LoraSettings, RuleModelSettings
from rewardtrain.metrics import cross_entropy
from rewardtrain.rule_model import RuleModel
from rewardtrain.rule_report import measure_rules, rule_report
from rewardtrain.rule_training import (
    JudgedDialogue,
    RuleCuts,
    RuleTarget,
    RuleVerdict,
    aim_loss,
    rule_loss,
    train_rule_model,
)
from tests.rewardtrain.tiny import (
    LETTER_RULES,
    bot,
    make_bert,
    make_bert_tokenizer,
    make_gpt2,
    make_llama,
    make_tokenizer,
    planted_verdicts,
    save_base,
    user,
)

BASES = {
    "decoder": lambda: (make_llama(), make_tokenizer()),
    "decoder with dropout": lambda: (make_gpt2(dropout=0.1), make_tokenizer(chat_template=None)),
    "encoder": lambda: (make_bert(), make_bert_tokenizer()),
}
QUICK = RuleModelSettings(learning_rate=3e-3, head_learning_rate=1e-2, epochs=4, seed=5, unjudged_rules=0)
TRAIN, HELD_OUT = planted_verdicts(120, seed=1), planted_verdicts(60, seed=2, rules=3)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("bases") / "llama", *BASES["decoder"]())


def judged(*verdicts: tuple[str, float], probed: str | None = None, text: str = "a") -> JudgedDialogue:
    found = [RuleVerdict(key, LETTER_RULES[key], broken) for key, broken in verdicts]
    return JudgedDialogue([user("x"), bot(text)], found, probed)


# What is learned from


def test_several_judges_make_one_soft_target_that_weighs_as_much_as_they():
    verdicts = [
        RuleVerdict("a", "A.", 1.0), RuleVerdict("b", "B.", 0.0), RuleVerdict("a", "A.", 0.75),
        RuleVerdict("a", "A.", 0.25, weight=2.0), RuleVerdict("a", "A, put anew.", 0.5), RuleVerdict("b", "B.", 1, 0),
    ]  # fmt: skip
    assert JudgedDialogue([user("x")], verdicts).targets() == [
        RuleTarget("a", "A.", (1 + 0.75 + 2 * 0.25) / 4, 4.0),
        RuleTarget("b", "B.", 0.0, 1.0),
        RuleTarget("a", "A, put anew.", 0.5, 1.0),
    ]


def test_whether_some_rule_was_broken_is_the_probed_ones_verdict_or_the_highest():
    assert judged(("a", 0.25), ("b", 1.0), probed="a").any_broken() == 0.25
    assert judged(("a", 0.25), ("b", 1.0)).any_broken() == 1.0
    assert judged(("b", 0.75), probed="a").any_broken() == 0.75
    assert judged(probed="a").any_broken() is None


@pytest.mark.parametrize(("broken", "weight"), [(1.1, 1), (-0.1, 1), (math.nan, 1), (0.5, -1), (0.5, math.inf)])
def test_a_verdict_is_a_chance_and_has_a_weight(broken, weight):
    with pytest.raises(ValueError):
        RuleVerdict("a", "A.", broken, weight)


# The loss


def test_the_loss_of_soft_targets_by_hand():
    # p = 0.8 and 0.5; targets 0.75 and 0; weights 3 and 2
    logits = torch.tensor([math.log(4), 0.0])
    expected = -3 * (0.75 * math.log(0.8) + 0.25 * math.log(0.2)) - 2 * math.log(0.5)
    found = rule_loss(logits, torch.tensor([0.75, 0.0]), torch.tensor([3.0, 2.0]), positive_weight=1.0)
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_the_loss_of_what_a_probe_aims_at_by_hand():
    # the probed rule, p = 0.8, counts 1; another, p = 0.5, that a quarter calls broken counts ¾; a broken one nothing
    this = torch.tensor([0.0, math.log(4), 5.0])
    found = aim_loss(this, torch.tensor([0.25, 0.0, 1.0]), 1)
    assert float(found) == pytest.approx(-(math.log(0.8) + 0.75 * math.log(0.5)) / 1.75, rel=1e-6)


def test_a_dialogue_that_was_no_probe_aims_at_nothing(llama):
    rule_model = RuleModel.from_base(llama, QUICK)
    (probe, plain) = rule_training._examples(
        rule_model, [judged(("b", 0.0), ("a", 0.5), probed="a"), judged(("a", 1.0))], {}
    )
    assert (probe.probed, plain.probed) == (1, None)
    (logits,) = rule_model.logits_encoded([plain.encoded])
    assert float(rule_training._aim_loss(logits, plain)) == 0.0


def test_balance_moves_no_probability():
    # whatever a broken one counts, the loss of one target is lowest where the logit says that target
    target = torch.tensor([0.3])
    for positive_weight in (1.0, 4.0):
        logit = torch.tensor([math.log(0.3 / 0.7)], requires_grad=True)
        rule_loss(logit, target, torch.ones(1), positive_weight=positive_weight).backward()
        assert logit.grad is not None
        assert float(logit.grad) == pytest.approx(0.0, abs=1e-6)


def test_balance_makes_broken_and_followed_weigh_the_same():
    # a share of 0.2 broken: at balance 1 each counts 4
    dialogues = [judged(("a", float(place == 0)), text="b" * place) for place in range(5)]
    weights = []
    for balance in (0.0, 0.5, 1.0):
        settings = dataclasses.replace(QUICK, balance=balance)
        weights.append(rule_training._data(FakeModel(), dialogues, settings).positive_weight)
    assert weights == pytest.approx([1.0, 2.0, 4.0])


class FakeModel:
    """Encodes, and knows nothing."""

    def encode(self, turns: object, wordings: Sequence[str]) -> str:
        return "encoded"

    def encode_rule(self, wording: str) -> list[int]:
        return [1]


# Rules nobody judged


def test_unjudged_rules_are_taken_for_broken_as_often_as_judged_ones_that_were_not_probed(llama):
    dialogues = [
        judged(("a", 1.0), ("b", 0.25), probed="a"), judged(("a", 0.0), ("b", 0.75), probed="a"),
        judged(("c", 0.0), probed="c"),
    ]  # fmt: skip
    settings = dataclasses.replace(QUICK, unjudged_rules=5, unjudged_weight=0.5)
    rule_model = RuleModel.from_base(llama, settings)
    data = rule_training._data(rule_model, dialogues, settings)
    assert data.unprobed_rate == 0.5
    third = rule_training._with_unjudged(rule_model, data, 2, 0, settings)
    assert third.targets == [0.0, 0.5, 0.5]
    assert third.weights == [1.0, 0.5, 0.5]
    asked = sorted(map(tuple, third.encoded.rules[1:]))
    assert asked == sorted(tuple(rule_model.encode_rule(LETTER_RULES[key])) for key in "ab")
    first = rule_training._with_unjudged(rule_model, data, 0, 0, settings)
    assert first.weights == [1.0, 1.0, 0.5]
    left_out = dataclasses.replace(settings, unjudged_rules=0)
    data = rule_training._data(rule_model, dialogues, left_out)
    assert rule_training._with_unjudged(rule_model, data, 0, 0, left_out) is data.examples[0]


def test_other_unjudged_rules_are_drawn_at_other_steps_and_the_probed_one_never(llama):
    dialogues = [judged(("a", 1.0), probed="b"), judged(("b", 0.0)), judged(("c", 0.0)), judged(("a", 0.0))]
    settings = dataclasses.replace(QUICK, unjudged_rules=1, unjudged_weight=1.0)
    rule_model = RuleModel.from_base(llama, settings)
    data = rule_training._data(rule_model, dialogues, settings)
    assert data.examples[0].unjudged == [2]  # c; nobody judged whether b was broken, but breaking it was tried
    drawn = {
        tuple(rule_training._with_unjudged(rule_model, data, 3, step, settings).encoded.rules[1]) for step in range(20)
    }
    assert drawn == {tuple(rule_model.encode_rule(LETTER_RULES[key])) for key in "bc"}


# Learning


@pytest.mark.parametrize(("kind", "apart"), [*((kind, True) for kind in BASES), ("decoder", False), ("encoder", False)])
def test_planted_breaches_are_learned(kind, apart, tmp_path):
    base = save_base(tmp_path / "base", *BASES[kind]())
    seen = []
    settings = dataclasses.replace(QUICK, epochs=2 if kind == "decoder" else 14, reads_apart=apart)
    result = train_rule_model(TRAIN, base=base, settings=settings, on_step=seen.append, validation=HELD_OUT)
    report = measure_rules(result.rule_model, HELD_OUT)
    assert report.mean_own > 0.85
    assert report.mean_all > 0.85
    assert seen == result.history
    assert [step.step for step in seen] == list(range(1, round(15 * settings.epochs) + 1))  # 120 dialogues, 8 a step
    assert seen[-1].loss < seen[0].loss
    assert (result.dialogues, result.pairs, result.judgements) == (120, 240, 240)
    assert not result.rule_model.training


def test_dialogues_without_verdicts_are_left_out_and_cuts_counted(llama):
    long = JudgedDialogue([user("x" * 600), bot("y"), user("z"), bot("a")], [RuleVerdict("a", "A" * 200, 1.0)])
    settings = dataclasses.replace(QUICK, epochs=1)
    result = train_rule_model([judged(("a", 0.0)), judged(), long], base=llama, settings=settings)
    assert (result.dialogues, result.dialogues_without_judgements, result.steps) == (2, 1, 1)
    assert result.cuts == RuleCuts(dialogues=1, turns=2, rules=1)
    assert result.validation is None
    assert not result.is_calibrated


def weights(result):
    return torch.cat([parameter.detach().flatten() for parameter in result.rule_model.parameters()])


def test_the_same_seed_gives_the_same_weights_to_the_bit(llama):
    settings = dataclasses.replace(QUICK, epochs=1, unjudged_rules=1)
    one, again = (train_rule_model(TRAIN[:24], base=llama, settings=settings) for _ in range(2))
    other = train_rule_model(TRAIN[:24], base=llama, settings=dataclasses.replace(settings, seed=6))
    assert torch.equal(weights(one), weights(again))
    assert not torch.equal(weights(one), weights(other))


def test_smaller_passes_through_the_network_give_the_same_step(llama):
    results = [
        train_rule_model(TRAIN[:8], base=llama, settings=RuleModelSettings(epochs=1, tokens_per_forward=budget))
        for budget in (100_000, 60)
    ]
    assert results[0].steps == results[1].steps == 1
    assert results[0].history[0].loss == pytest.approx(results[1].history[0].loss, abs=1e-6)
    assert results[0].history[0].gradient_norm == pytest.approx(results[1].history[0].gradient_norm, rel=1e-4)


def test_what_a_probe_aims_at_changes_what_is_learned_where_it_is_asked_for(llama):
    losses = [
        train_rule_model(TRAIN[:8], base=llama, settings=dataclasses.replace(QUICK, epochs=1, aim_weight=weight))
        .history[0]
        .loss
        for weight in (0.0, 1.0)
    ]
    assert losses[1] > losses[0] + 0.1  # one more cross entropy, at its beginning


def test_adapters_and_mixed_precision_learn_too(llama):
    settings = dataclasses.replace(QUICK, epochs=1, lora=LoraSettings(rank=4), mixed_precision="bfloat16")
    result = train_rule_model(TRAIN[:40], base=llama, settings=settings)
    assert result.history[-1].loss < result.history[0].loss


def test_layers_computed_twice_change_nothing(llama):
    results = [
        train_rule_model(
            TRAIN[:8], base=llama, settings=dataclasses.replace(QUICK, epochs=1, gradient_checkpointing=choice)
        )
        for choice in (False, True)
    ]
    assert results[0].history[0].loss == pytest.approx(results[1].history[0].loss, abs=1e-5)
    assert results[0].history[0].gradient_norm == pytest.approx(results[1].history[0].gradient_norm, rel=1e-4)


# Stopping


def test_early_stopping_keeps_the_weights_that_said_held_out_verdicts_best(llama, monkeypatch):
    told = iter([0.7, 0.4, 0.5, 0.6])
    kept = []

    def look(rule_model, held_out, step, *_):
        if (step + 1) % 3:
            return None
        value = next(told)
        if value == 0.4:
            kept.append({name: tensor.clone() for name, tensor in rule_model.state_dict().items()})
        return value

    monkeypatch.setattr(rule_training, "_look", look)
    settings = dataclasses.replace(QUICK, epochs=10, early_stopping=True, patience=2)
    result = train_rule_model(TRAIN[:24], base=llama, settings=settings, validation=HELD_OUT[:5])
    assert (result.best_step, result.steps) == (6, 12)
    for name, tensor in result.rule_model.state_dict().items():
        assert_close(tensor, kept[0][name])


def test_held_out_verdicts_are_looked_at_every_epoch(llama):
    settings = dataclasses.replace(QUICK, epochs=2)
    result = train_rule_model(TRAIN[:24], base=llama, settings=settings, validation=HELD_OUT[:5])
    assert [step.step for step in result.history if step.validation is not None] == [3, 6]
    assert result.best_step is None


def test_a_loss_that_is_no_number_stops_the_run(llama, monkeypatch):
    monkeypatch.setattr(rule_training, "rule_loss", lambda logits, *_, **__: logits.sum() * float("nan"))
    with pytest.raises(TrainingDiverged, match="At step 1 the loss was nan .* Lower learning_rate"):
        train_rule_model(TRAIN[:8], base=llama, settings=QUICK)


def test_nothing_to_learn_and_bad_settings_are_said_before_any_work(tmp_path):
    nowhere = tmp_path / "no model"
    with pytest.raises(NothingToLearn, match="No dialogue was judged"):
        train_rule_model([judged()], base=nowhere, settings=QUICK)
    with pytest.raises(NothingToLearn, match=r"All verdicts come to the same \(a chance of 75%"):
        train_rule_model([judged(("a", 0.75)), judged(("b", 0.5), ("b", 1.0))], base=nowhere, settings=QUICK)
    with pytest.raises(InvalidSettings, match="epochs"):
        train_rule_model(TRAIN, base=nowhere, settings=RuleModelSettings(epochs=0))


# Calibration


def test_calibration_says_held_out_verdicts_better_and_keeps_their_order(llama):
    noisy = [
        dataclasses.replace(one, judgements=[dataclasses.replace(v, broken=1 - v.broken) for v in one.judgements])
        if place % 4 == 0
        else one
        for place, one in enumerate(HELD_OUT)
    ]
    result = train_rule_model(TRAIN, base=llama, settings=QUICK, validation=noisy)
    assert result.is_calibrated
    rule_model = result.rule_model
    assert rule_model.config.temperature > 1  # it was surer than its judges agree
    examples = rule_training._examples(rule_model, noisy, {})
    logits, targets, _ = rule_training._said(rule_model, examples)
    before = sum(map(cross_entropy, logits, targets)) / len(targets)
    assert result.validation < before
    calibrated = measure_rules(rule_model, HELD_OUT)
    rule_model.calibrate(1.0)
    plain = measure_rules(rule_model, HELD_OUT)
    assert [one.all for one in calibrated.rules] == [one.all for one in plain.rules]
    assert calibrated.calibration != plain.calibration


@pytest.mark.parametrize(
    "held_out",
    [[judged(("a", 0.0)), judged(("b", 0.0))] * 10, HELD_OUT[:6]],
    ids=["verdicts that are all alike", "18 verdicts"],
)
def test_what_says_too_little_calibrates_nothing(llama, held_out):
    settings = dataclasses.replace(QUICK, epochs=1)
    result = train_rule_model(TRAIN[:16], base=llama, settings=settings, validation=held_out)
    assert not result.is_calibrated
    assert result.rule_model.config.temperature == 1.0
    assert result.validation is not None


# Measuring


def test_a_report_tells_own_dialogues_from_all_and_rules_never_learned_from_the_others():
    dialogues = [
        judged(("a", 1.0), ("b", 0.0), probed="a"), judged(("a", 0.25), ("b", 0.5), probed="a"),
        judged(("a", 0.75), ("b", 1.0), probed="b"), judged(("a", 0.0), ("b", 0.0), probed="b"),
        judged(("c", 1.0), probed="c"), judged(("c", 0.0), probed="c"),
    ]  # fmt: skip
    probabilities = [[0.9, 0.2], [0.3, 0.7], [0.2, 0.6], [0.1, 0.1], [0.4], [0.4]]
    report = rule_report(dialogues, probabilities, fewest=1, unseen=["c"])
    a, b, c = report.rules
    assert (a.own, a.own_broken, a.own_followed) == (1.0, 1, 1)
    assert (a.all, a.all_broken, a.all_followed) == (0.75, 2, 2)  # 0.9 beats both, 0.2 beats 0.1 alone
    assert (b.own, b.all) == (1.0, 1.0)
    assert (b.all_broken, b.all_followed) == (1, 2)  # ½ is neither
    assert (c.own, c.all, c.is_unseen) == (0.5, 0.5, True)
    assert (report.mean_own, report.mean_all) == (1.0, 0.875)
    assert (report.unseen_own, report.unseen_all) == (0.5, 0.5)
    squares = [0.1**2, 0.2**2, 0.05**2, 0.2**2, 0.55**2, 0.4**2, 0.1**2, 0.1**2]
    assert report.calibration.brier == pytest.approx(sum(squares) / 8)
    assert sum(one.count for one in report.calibration.bins) == 8
    assert report.to_dict()["rules"][0]["wording"] == LETTER_RULES["a"]


def test_too_few_of_either_kind_give_counts_and_no_auc():
    dialogues = [judged(("a", float(place == 0)), probed="a") for place in range(8)]
    report = rule_report(dialogues, [[0.5]] * 8, fewest=2)
    assert (report.rules[0].own, report.rules[0].own_broken, report.rules[0].own_followed) == (None, 1, 7)
    assert (report.mean_own, report.mean_all, report.unseen_all) == (None, None, None)


def test_measuring_asks_the_calibrated_model_and_leaves_it_training(llama):
    rule_model = RuleModel.from_base(llama, QUICK).train()
    rule_model.calibrate(3.0)
    report = measure_rules(rule_model, HELD_OUT, fewest=1)
    assert rule_model.training
    wordings = list(LETTER_RULES.values())
    found = rule_model.probabilities([one.turns for one in HELD_OUT], wordings)
    expected = [
        [float(own[wordings.index(target.wording)]) for target in one.targets()]
        for one, own in zip(HELD_OUT, found, strict=True)
    ]
    by_hand = rule_report(HELD_OUT, expected, fewest=1)
    assert [one.all for one in report.rules] == pytest.approx([one.all for one in by_hand.rules])
    assert report.calibration.brier == pytest.approx(by_hand.calibration.brier, abs=1e-6)
