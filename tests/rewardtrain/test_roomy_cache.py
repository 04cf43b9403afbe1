"""A cache with room holds what one that joins old and new holds, and moves none of the old."""

from __future__ import annotations

import torch
from torch.testing import assert_close
from transformers import DynamicCache

from rewardtrain.roomy_cache import RoomyLayer, give_room
from tests.rewardtrain.tiny import make_llama, make_mistral


def filled(network, ids):
    cache = DynamicCache(config=network.config)
    with torch.no_grad():
        network.model(input_ids=ids, past_key_values=cache, use_cache=True)
    return cache


def test_it_holds_and_answers_what_a_joining_cache_does():
    network = make_llama()
    ids = torch.randint(3, 200, (3, 9), generator=torch.Generator().manual_seed(0))
    joining, roomy = (filled(network, ids[:, :4]) for _ in range(2))
    give_room(roomy, 5)
    assert all(type(layer) is RoomyLayer for layer in roomy.layers)
    start = [layer.keys.data_ptr() for layer in roomy.layers]
    kept = torch.tensor([2, 0])
    with torch.no_grad():
        for step in range(4, 9):
            rows = ids if step < 7 else ids[kept]
            if step == 7:
                assert [layer.keys.data_ptr() for layer in roomy.layers] == start
                joining.reorder_cache(kept)
                roomy.reorder_cache(kept)
            one, other = (
                network.model(input_ids=rows[:, step : step + 1], past_key_values=cache, use_cache=True)
                for cache in (joining, roomy)
            )
            assert_close(one.last_hidden_state, other.last_hidden_state)
    assert joining.get_seq_length() == roomy.get_seq_length() == 9
    for old, new in zip(joining.layers, roomy.layers, strict=True):
        assert_close(old.keys, new.keys)
        assert_close(old.values, new.values)


def test_layers_that_grow_in_their_own_way_and_other_caches_are_left_alone():
    windowed = filled(make_mistral(window=4), torch.ones(1, 6, dtype=torch.long))
    before = list(windowed.layers)
    give_room(windowed, 5)
    assert windowed.layers == before
    give_room(None, 5)
