"""The optimiser does what its paper says, whichever way it goes over the weights."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from rewardtrain.optimizer import adamw, set_share


def by_hand(weight, gradients, *, lr, decay, betas=(0.9, 0.999), eps=1e-8):
    """AdamW, algorithm 2 of arXiv:1711.05101, a number at a time."""
    first = second = 0.0
    for step, gradient in enumerate(gradients, start=1):
        first = betas[0] * first + (1 - betas[0]) * gradient
        second = betas[1] * second + (1 - betas[1]) * gradient**2
        weight -= lr * decay * weight
        unbiased = (first / (1 - betas[0] ** step), second / (1 - betas[1] ** step))
        weight -= lr * unbiased[0] / (unbiased[1] ** 0.5 + eps)
    return weight


def test_steps_are_those_of_the_paper():
    weight = torch.nn.Parameter(torch.tensor([1.5]))
    optimizer = adamw([weight], learning_rate=0.1, weight_decay=0.02)
    for gradient in (0.3, -0.7, 0.1):
        weight.grad = torch.tensor([gradient])
        optimizer.step()
    assert_close(weight.item(), by_hand(1.5, (0.3, -0.7, 0.1), lr=0.1, decay=0.02), rtol=1e-5, atol=0)


def test_it_is_fused_where_the_device_has_that_and_plain_elsewhere():
    def fused(*parameters):
        return adamw(parameters, learning_rate=0.1, weight_decay=0.0).param_groups[0]["fused"]

    on_cpu, elsewhere = (torch.nn.Parameter(torch.zeros(2, device=name)) for name in ("cpu", "meta"))
    assert fused(on_cpu)
    assert not fused(elsewhere)
    assert not fused(on_cpu, elsewhere)


def test_a_parameter_may_have_a_rate_of_its_own_and_a_share_is_of_each():
    plain, quick, also_plain = (torch.nn.Parameter(torch.tensor([1.0])) for _ in range(3))
    optimizer = adamw([plain, quick, also_plain], learning_rate=0.01, weight_decay=0.0, own_rates=[(quick, 0.3)])
    moved = {id(plain): 0.0, id(quick): 0.0, id(also_plain): 0.0}
    for share in (0.5, 1.0, 0.1):  # a constant gradient moves a weight by its rate at every step
        set_share(optimizer, share)
        for parameter in (plain, quick, also_plain):
            parameter.grad = torch.ones(1)
        optimizer.step()
        for parameter in (plain, quick, also_plain):
            moved[id(parameter)] += share * (0.3 if parameter is quick else 0.01)
    for parameter in (plain, quick, also_plain):
        assert_close(1 - parameter.item(), moved[id(parameter)], rtol=1e-5, atol=0)
