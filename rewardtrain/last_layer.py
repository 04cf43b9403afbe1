"""A decoder's last layer, computed only where its result is read: whatever it says of other positions goes nowhere.

Keys, values and attention go between tokens and stay whole. Queries, the attention's output and the feed-forward
network treat each position by itself, so they are computed at the positions that are read, and are 0 elsewhere. Of a
prompt only the last position is read, which in a network of four layers saves a fifth of its cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

POSITIONWISE = ("mlp", "q_proj", "o_proj")
"""Names that transformers gives to a layer's parts that treat each position by itself."""
_TRIED = "_nestbox_last_layer"


@dataclass(frozen=True)
class _Places:
    """Which of (B, S) positions are read, numbered through row by row."""

    rows: int
    columns: int
    flat: Tensor  # (N,)


@dataclass
class _Tried:
    """What was found of a network's last layer: its parts, and whether they can be told where to work."""

    parts: list[nn.Module]
    fits: bool


_places: ContextVar[_Places | None] = ContextVar("places", default=None)


@contextmanager
def reading_only(trunk: nn.Module, read: Tensor) -> Iterator[None]:
    """Within it the trunk's hidden states are right where `read` (B, S) is True, and anything elsewhere.

    A network whose layers are built in another way, or are computed again for their gradients, is left whole.
    """
    if not _can_read_some(trunk):
        yield
        return
    flat = read.flatten().nonzero().squeeze(1)
    token = _places.set(_Places(read.shape[0], read.shape[1], flat))
    try:
        yield
    finally:
        _places.reset(token)


class _Taken(torch.autograd.Function):
    """Rows of a matrix, each at most once: their gradient is put back row by row without adding anything up."""

    @staticmethod
    def forward(context: Any, whole: Tensor, places: Tensor) -> Tensor:
        context.save_for_backward(places)
        context.rows = len(whole)
        return whole.index_select(0, places)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        (places,) = context.saved_tensors
        whole = gradient.new_zeros(context.rows, gradient.shape[1])
        return whole.index_copy_(0, places, gradient), None


def _narrow(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
    places = _places.get()
    if places is None:
        return None
    hidden, *more = given
    return (_Taken.apply(hidden.flatten(0, 1), places.flat), *more)


def _widen(module: nn.Module, given: tuple[Any, ...], out: Tensor) -> Tensor | None:
    places = _places.get()
    if places is None:
        return None
    whole = out.new_zeros(places.rows * places.columns, out.shape[-1])
    return whole.index_copy(0, places.flat, out).view(places.rows, places.columns, -1)


def _can_read_some(trunk: nn.Module) -> bool:
    """True if the last layer's parts can be told where to work; prepared and tried when they are met first."""
    if any(getattr(module, "is_recomputed", False) for module in trunk.modules()):
        return False  # what is computed again later must come out alike
    if trunk.training and any(getattr(module, "gradient_checkpointing", False) for module in trunk.modules()):
        return False
    parts = _positionwise_parts(trunk)
    if trunk.training and any(_drops_out(part) for part in parts):
        return False  # fewer random numbers would be drawn, so that the rest would be dropped otherwise
    tried: _Tried | None = getattr(trunk, _TRIED, None)
    if (
        tried is None
        or len(tried.parts) != len(parts)
        or any(a is not b for a, b in zip(tried.parts, parts, strict=True))
    ):
        _unhook(tried.parts if tried is not None else [])  # adapters were put around them meanwhile
        tried = _Tried(parts, bool(parts) and _hooked_reads_alike(trunk, parts))
        setattr(trunk, _TRIED, tried)
    return tried.fits


def _drops_out(part: nn.Module) -> bool:
    return any(isinstance(module, nn.Dropout) and module.p > 0 for module in part.modules())


def _hooked_reads_alike(trunk: nn.Module, parts: list[nn.Module]) -> bool:
    """Fit the hooks; taken off again if the states that are read are not what they were."""
    whole = _states(trunk, None)
    for part in parts:
        part.register_forward_pre_hook(_narrow)
        part.register_forward_hook(_widen)
    read = torch.tensor([1, 3], device=whole.device)
    try:
        some = _states(trunk, _Places(1, 4, read))
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):  # built in a way that hooks do not fit
        some = None
    if some is not None and torch.allclose(whole[read], some[read], rtol=1e-2, atol=1e-2 * float(whole.abs().max())):
        return True
    _unhook(parts)
    return False


def _unhook(parts: list[nn.Module]) -> None:
    for part in parts:
        for hooks, own in ((part._forward_pre_hooks, _narrow), (part._forward_hooks, _widen)):
            for key in [key for key, hook in hooks.items() if hook is own]:
                del hooks[key]


@torch.no_grad()
def _states(trunk: nn.Module, places: _Places | None) -> Tensor:
    """(4, H) of four tokens."""
    was_training = trunk.training
    trunk.eval()
    token = _places.set(places)
    try:
        ids = torch.tensor([[1, 2, 3, 2]], device=next(trunk.parameters()).device)
        return trunk(input_ids=ids, use_cache=False).last_hidden_state[0]
    finally:
        _places.reset(token)
        trunk.train(was_training)


def _positionwise_parts(trunk: nn.Module) -> list[nn.Module]:
    """The last layer's parts of these names; none where the layers are not one plain list."""
    layers = [module for module in trunk.children() if isinstance(module, nn.ModuleList) and len(module)]
    if len(layers) != 1:
        return []
    return [part for name, part in layers[0][-1].named_modules() if name.split(".")[-1] in POSITIONWISE]
