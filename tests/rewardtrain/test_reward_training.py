"""Training a reward model: planted preferences are learned, runs repeat, divergence stops."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from rewardtrain import reward_training
from rewardtrain.errors import NothingToLearn, TrainingDiverged
from rewardtrain.hyperparameters import InvalidSettings, RewardModelSettings
from rewardtrain.metrics import ScoredPair
from rewardtrain.reward_model import Cuts, RewardModel
from rewardtrain.reward_training import (
    RankedComparison,
    reward_model_accuracy,
    score_pairs,
    train_reward_model,
)
from tests.rewardtrain.tiny import (
    bot,
    make_bert,
    make_bert_tokenizer,
    make_gpt2,
    make_llama,
    make_tokenizer,
    planted,
    save_base,
    user,
)

BASES = {
    "decoder": lambda: (make_llama(), make_tokenizer()),
    "decoder with dropout": lambda: (make_gpt2(dropout=0.1), make_tokenizer(chat_template=None)),
    "encoder": lambda: (make_bert(), make_bert_tokenizer()),
}
QUICK = RewardModelSettings(learning_rate=3e-3, epochs=3, seed=5)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("bases") / "llama", *BASES["decoder"]())


TRAIN, HELD_OUT = planted(120, seed=1), planted(60, seed=2)


# Learning


@pytest.mark.parametrize("kind", BASES)
def test_planted_preferences_are_learned(kind, tmp_path):
    base = save_base(tmp_path / "base", *BASES[kind]())
    before = reward_model_accuracy(RewardModel.from_base(base, QUICK).eval(), HELD_OUT)
    seen = []
    settings = RewardModelSettings(learning_rate=3e-3, epochs=6 if "dropout" in kind else 3, seed=5)
    result = train_reward_model(TRAIN, base=base, settings=settings, on_step=seen.append, validation=HELD_OUT)
    after = reward_model_accuracy(result.reward_model, HELD_OUT)
    assert before.value < 0.75 < 0.85 < after.value
    assert result.validation == after
    assert seen == result.history
    assert [step.step for step in seen] == list(range(1, round(15 * settings.epochs) + 1))  # 120 comparisons, 8 a step
    assert seen[-1].loss < seen[0].loss
    assert seen[-1].to_dict()["pair_accuracy"] == seen[-1].pair_accuracy
    assert not result.reward_model.training


def test_what_was_trained_on_is_counted(llama):
    silent = [RankedComparison([user("x")], [[bot("a")], [bot("b")]], ranks) for ranks in ([1, None], [1, 1])]
    long = RankedComparison([user("x" * 600), bot("y"), user("z")], [[bot("a")], [bot("b" * 400)]], [1, 2])
    settings = RewardModelSettings(epochs=1, ties="none", comparisons_per_step=2)
    result = train_reward_model([*TRAIN[:1], *silent, long], base=llama, settings=settings)
    assert (result.comparisons, result.comparisons_without_pairs, result.steps) == (2, 2, 1)
    assert result.pairs == len(TRAIN[0].pairs(settings)) + 1
    assert result.cuts == Cuts(dialogues=1, turns=2, replies=1)
    assert result.validation is None


def test_options_change_what_a_ranking_says():
    comparison = RankedComparison([user("x")], [[bot("a")], [bot("b")], [bot("c")]], [1, 1, 2], strength=4)
    assert len(comparison.pairs(RewardModelSettings(ties="none"))) == 2
    assert len(comparison.pairs(RewardModelSettings(ties="half"))) == 3
    assert {pair.margin for pair in comparison.pairs(RewardModelSettings(ties="none", margin="strength"))} == {1.0}
    assert len(comparison.pairs(RewardModelSettings(ties="none", all_bad="on"))) == 4


def test_all_bad_replies_sink_below_zero_when_that_is_asked_for(llama):
    def pairs(letter: str, ranks: list[int | None], all_bad: bool) -> list[RankedComparison]:
        texts = [(f"{letter}{n}", f"{letter * 2}{n}") for n in range(20)]
        return [RankedComparison([user("x")], [[bot(a)], [bot(b)]], ranks, all_bad=all_bad) for a, b in texts]

    comparisons = pairs("b", [None, None], all_bad=True) + pairs("a", [1, 1], all_bad=False)
    settings = RewardModelSettings(learning_rate=3e-3, epochs=6, all_bad="on")
    reward_model = train_reward_model(comparisons, base=llama, settings=settings).reward_model
    with torch.no_grad():
        low, high = reward_model.scores([[user("x")]] * 2, [["b50", "bb60"], ["a50", "aa60"]])
    assert float(low.max()) < 0 < float(high.min())


# The same again


def weights(result):
    return torch.cat([parameter.detach().flatten() for parameter in result.reward_model.parameters()])


def test_the_same_seed_gives_the_same_weights_to_the_bit(llama):
    short = TRAIN[:24]
    one, again = (train_reward_model(short, base=llama, settings=QUICK) for _ in range(2))
    other = train_reward_model(short, base=llama, settings=RewardModelSettings(learning_rate=3e-3, epochs=3, seed=6))
    assert torch.equal(weights(one), weights(again))
    assert not torch.equal(weights(one), weights(other))


def test_smaller_passes_through_the_network_give_the_same_step(llama):
    results = [
        train_reward_model(TRAIN[:8], base=llama, settings=RewardModelSettings(epochs=1, tokens_per_forward=budget))
        for budget in (100_000, 60)
    ]
    assert results[0].steps == results[1].steps == 1
    assert results[0].history[0].loss == pytest.approx(results[1].history[0].loss, abs=1e-6)
    assert results[0].history[0].gradient_norm == pytest.approx(results[1].history[0].gradient_norm, rel=1e-4)


# Stopping


def test_early_stopping_keeps_the_best_weights(llama, monkeypatch):
    told = iter([0.6, 0.8, 0.7, 0.7])
    kept = []
    original = reward_training._look

    def look(reward_model, held_out, step, steps, count, settings, team):
        if original(reward_model, [], step, steps, count, settings, team) is None and (step + 1) % 3:
            return None
        value = next(told)
        if value == 0.8:
            kept.append({name: tensor.clone() for name, tensor in reward_model.state_dict().items()})
        return value

    monkeypatch.setattr(reward_training, "_look", look)
    settings = RewardModelSettings(epochs=10, early_stopping=True, patience=2, seed=1)
    result = train_reward_model(TRAIN[:24], base=llama, settings=settings, validation=HELD_OUT[:5])
    assert (result.best_step, result.steps) == (6, 12)
    for name, tensor in result.reward_model.state_dict().items():
        assert_close(tensor, kept[0][name])


def test_without_early_stopping_the_validation_set_is_only_looked_at(llama):
    settings = RewardModelSettings(epochs=2, comparisons_per_step=8, evaluations_per_epoch=1)
    result = train_reward_model(TRAIN[:24], base=llama, settings=settings, validation=HELD_OUT[:5])
    assert [step.step for step in result.history if step.validation is not None] == [3, 6]
    assert result.best_step is None


def test_a_loss_that_is_no_number_stops_the_run(llama, monkeypatch):
    monkeypatch.setattr(reward_training, "comparison_loss", lambda scores, pairs: scores.sum() * float("nan"))
    with pytest.raises(TrainingDiverged, match="At step 1 the loss was nan .* Lower learning_rate"):
        train_reward_model(TRAIN[:8], base=llama, settings=QUICK)


def test_nothing_to_learn_and_bad_settings_are_said_before_any_work(llama):
    tie = RankedComparison([user("x")], [[bot("a")], [bot("b")]], [None, None])
    with pytest.raises(NothingToLearn, match="No comparison ranks one reply above another"):
        train_reward_model([tie], base=llama, settings=QUICK)
    with pytest.raises(InvalidSettings, match="epochs"):
        train_reward_model(TRAIN, base=llama, settings=RewardModelSettings(epochs=0))


def test_each_candidate_has_a_rank():
    with pytest.raises(ValueError, match="2 candidates, but 1 ranks"):
        RankedComparison([user("x")], [[bot("a")], [bot("b")]], [1])


# Measuring


def test_scored_pairs_carry_lengths_and_the_strength_of_the_best(llama):
    reward_model = RewardModel.from_base(llama, QUICK).train()
    candidates = [[bot("aaa")], [bot("b")], [bot("cc")], [bot("d")]]
    comparison = RankedComparison([user("x")], candidates, [2, 1, 2, None], strength=3)
    with torch.no_grad():
        scores = reward_model.eval().scores([comparison.prompt], [comparison.candidates])[0].tolist()
    reward_model.train()
    pairs = score_pairs(reward_model, [comparison])
    assert pairs == [
        ScoredPair(scores[1], scores[0], 1, 3, 3, comparison=0),
        ScoredPair(scores[1], scores[2], 1, 2, 3, comparison=0),
    ]
    assert reward_model.training
    third = RankedComparison([user("x")], [[bot("a")], [bot("b")], [bot("c")]], [1, 2, 3], strength=3)
    assert [pair.strength for pair in score_pairs(reward_model, [third])] == [3, 3, None]
    unranked = RankedComparison([user("x")], [[bot("a")], [bot("b")]], [None, None])
    assert score_pairs(reward_model, [unranked]) == []


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_mixed_precision_learns_the_same_and_keeps_weights_whole(kind, tmp_path):
    base = save_base(tmp_path / "base", *BASES[kind]())
    whole, mixed = (
        train_reward_model(TRAIN[:40], base=base, settings=dataclasses.replace(QUICK, mixed_precision=choice, epochs=1))
        for choice in ("off", "bfloat16")
    )
    assert {tensor.dtype for tensor in mixed.reward_model.state_dict().values()} == {torch.float32}
    losses = [[step.loss for step in result.history] for result in (whole, mixed)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], abs=0.05)
