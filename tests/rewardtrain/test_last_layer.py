"""The last layer works where it is read: the same states and gradients there, nothing changed anywhere else."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from rewardtrain import last_layer
from rewardtrain.hyperparameters import LoraSettings
from rewardtrain.last_layer import reading_only
from rewardtrain.lora import add_lora
from rewardtrain.policy import trunk_of
from rewardtrain.precision import recomputed_layers
from tests.rewardtrain.tiny import make_gpt2, make_llama, make_mistral

IDS = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]])
READ = torch.tensor([[False, False, True, False, True], [True, False, False, False, False]])
MAKERS = {"rotary": make_llama, "absolute": make_gpt2, "window": make_mistral}


def states(trunk, read=None):
    if read is None:
        return trunk(input_ids=IDS, use_cache=False).last_hidden_state
    with reading_only(trunk, read):
        return trunk(input_ids=IDS, use_cache=False).last_hidden_state


def gradients(trunk, found):
    trunk.zero_grad()
    (found[READ] * torch.arange(1.0, 1 + found[READ].numel()).reshape(found[READ].shape)).sum().backward()
    return [parameter.grad.clone() for parameter in trunk.parameters()]


@pytest.mark.parametrize("kind", MAKERS)
def test_states_that_are_read_and_all_gradients_are_what_they_were(kind):
    trunk = trunk_of(MAKERS[kind]()).eval()
    whole, some = states(trunk), states(trunk, READ)
    assert_close(some[READ], whole[READ], atol=1e-6, rtol=1e-5)
    assert not torch.allclose(some[~READ], whole[~READ], atol=1e-3)  # something was saved
    for mine, theirs in zip(gradients(trunk, some), gradients(trunk, whole), strict=True):
        assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_the_feed_forward_network_sees_as_many_rows_as_are_read():
    trunk, seen = trunk_of(make_llama()).eval(), []
    states(trunk, READ)  # fitted
    parts = [*trunk.layers[-1].mlp.modules(), trunk.layers[-1].self_attn.q_proj, trunk.layers[-1].self_attn.o_proj]
    for part in parts:
        if isinstance(part, nn.Linear):
            part.register_forward_hook(lambda module, given, out: seen.append(given[0].shape[:-1].numel()))
    states(trunk, READ)
    assert seen == [3] * 5
    seen.clear()
    states(trunk)
    assert seen == [10] * 5


def test_outside_nothing_is_changed():
    trunk = trunk_of(make_llama()).eval()
    before = states(trunk)
    states(trunk, READ)
    assert torch.equal(states(trunk), before)


def test_a_copy_works_with_its_own_weights():
    trunk = trunk_of(make_llama()).eval()
    states(trunk, READ)
    other = copy.deepcopy(trunk)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    assert_close(states(other, READ)[READ], states(other)[READ], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(states(other, READ)[READ], states(trunk, READ)[READ], atol=1e-3)


def test_adapters_put_around_the_parts_afterwards_are_met_anew():
    network = make_llama()
    states(trunk_of(network), READ)
    network = add_lora(network, LoraSettings(rank=2), seed=0)
    trunk = trunk_of(network)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    assert_close(states(trunk, READ)[READ], states(trunk)[READ], atol=1e-5, rtol=1e-5)


def test_another_thread_reads_what_it_asked_for():
    trunk, found = trunk_of(make_llama()).eval(), {}
    whole = states(trunk)
    with reading_only(trunk, READ):
        thread = threading.Thread(target=lambda: found.update(all=states(trunk)))
        thread.start()
        thread.join()
    assert torch.equal(found["all"], whole)


def test_layers_that_are_computed_again_are_left_whole():
    trunk = trunk_of(make_llama()).eval()
    whole = gradients(trunk, states(trunk))
    with recomputed_layers(trunk):
        again = gradients(trunk, states(trunk, READ))
    for mine, theirs in zip(again, whole, strict=True):
        assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("dropout", "training", "saves"), [(0.1, True, False), (0.1, False, True), (0.0, True, True)])
def test_where_a_part_drops_out_the_whole_layer_is_computed(dropout, training, saves):
    trunk = trunk_of(make_gpt2(dropout=dropout)).train(training)
    torch.manual_seed(0)
    whole = states(trunk)
    torch.manual_seed(0)
    some = states(trunk, READ)
    assert torch.equal(some, whole) is not saves


class OddFeedForward(nn.Module):
    """Looks at all positions at once."""

    def forward(self, hidden):
        return hidden.mean(dim=-2, keepdim=True).expand_as(hidden)


@pytest.mark.parametrize("change", ["mlp", "no layers"])
def test_a_network_that_is_built_otherwise_is_left_whole(change):
    trunk = trunk_of(make_llama()).eval()
    if change == "mlp":
        trunk.layers[-1].mlp = OddFeedForward()
    else:
        trunk.more = nn.ModuleList([nn.Identity()])
    whole = states(trunk)
    assert torch.equal(states(trunk, READ), whole)
    assert not last_layer._can_read_some(trunk)
    assert not any(part._forward_hooks for part in trunk.modules())
