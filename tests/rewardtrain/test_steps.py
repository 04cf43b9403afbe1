"""Steps over a fixed set of examples: their order, their pace, and when they end."""

from __future__ import annotations

import math

import pytest
import torch

from rewardtrain.errors import TrainingDiverged
from rewardtrain.hyperparameters import RewardModelSettings
from rewardtrain.optimizer import adamw
from rewardtrain.steps import data_order, pace, update


def test_every_epoch_takes_every_example_once_in_an_order_of_its_own():
    order = data_order(10, 4, epochs=2, seed=0)
    flat = [place for step in order for place in step]
    assert [len(step) for step in order] == [4, 4, 4, 4, 4]
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10))
    assert flat[:10] != flat[10:]
    assert order == data_order(10, 4, epochs=2, seed=0) != data_order(10, 4, epochs=2, seed=1)


def test_a_part_of_an_epoch_takes_a_part_of_the_examples():
    assert [len(step) for step in data_order(10, 4, epochs=0.5, seed=0)] == [4, 1]
    assert [len(step) for step in data_order(10, 4, epochs=0.01, seed=0)] == [1]
    assert len(data_order(6, 1, epochs=0.2, seed=0)) == 1  # 1.2 examples are one, and so is the number of steps


def one_weight() -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
    weight = torch.nn.Parameter(torch.ones(1))
    return weight, adamw([weight], learning_rate=0.1, weight_decay=0.0)


def test_the_pace_warms_up_and_falls():
    _, optimizer = one_weight()
    settings = RewardModelSettings(warmup_share=0.2, schedule="linear", final_learning_rate_share=0.0)
    assert [pace(optimizer, step, 10, settings) for step in (0, 1, 2, 9)] == [0.5, 1.0, 1.0, 0.0]
    assert optimizer.param_groups[0]["lr"] == 0.0


def test_an_update_tells_the_norm_before_the_cut_and_forgets_the_gradient():
    weight, optimizer = one_weight()
    weight.grad = torch.tensor([3.0])
    assert update(optimizer, [weight], max_grad_norm=1.0, loss=0.5, step=0) == 3.0
    assert weight.item() == pytest.approx(0.9)  # Adam's first step is the learning rate
    assert weight.grad is None


@pytest.mark.parametrize(("loss", "gradient"), [(math.nan, 1.0), (1.0, math.inf)])
def test_nothing_is_updated_by_what_is_no_number(loss, gradient):
    weight, optimizer = one_weight()
    weight.grad = torch.tensor([gradient])
    with pytest.raises(TrainingDiverged, match="At step 3 .* Lower learning_rate"):
        update(optimizer, [weight], max_grad_norm=1.0, loss=loss, step=2)
    assert weight.item() == 1.0
