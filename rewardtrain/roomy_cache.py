"""Keys and values with room for the tokens still to come, so that a step of decoding copies none of the old ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):
    """A DynamicLayer that writes further tokens into space kept for them instead of joining old and new.

    `keys` and `values` are the filled parts of the buffers. For inference only: a gradient cannot go through them.
    """

    def __init__(self, layer: DynamicLayer, room: int):
        super().__init__()
        assert layer.keys is not None and layer.values is not None
        self.dtype, self.device, self.is_initialized = layer.keys.dtype, layer.keys.device, True
        self._buffers = (_with_room(layer.keys, room), _with_room(layer.values, room))
        self._show(layer.keys.shape[-2])

    def _show(self, length: int) -> None:
        self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **more: Any) -> tuple[Tensor, Tensor]:
        """Take up further tokens, (R, heads, T, D) each; gives all keys and values so far."""
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, before:after] = states
        self._show(after)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep these rows, in this order."""
        length = self.get_seq_length()
        keys, values = (buffer.index_select(0, beam_idx.to(buffer.device)) for buffer in self._buffers)
        self._buffers = (keys, values)
        self._show(length)


def give_room(cache: Any, room: int) -> None:
    """Let every layer that grows by joining take `room` further tokens in place; whatever else stays as it is."""
    if not isinstance(cache, DynamicCache):
        return
    cache.layers = [
        RoomyLayer(layer, room) if type(layer) is DynamicLayer and layer.get_seq_length() > 0 else layer
        for layer in cache.layers
    ]


def _with_room(states: Tensor, room: int) -> Tensor:
    rows, heads, length, width = states.shape
    buffer = torch.empty(rows, heads, length + room, width, dtype=states.dtype, device=states.device)
    buffer[:, :, :length] = states
    return buffer
