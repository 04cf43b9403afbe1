"""Run a decoder over prompts and their replies, each prompt encoded once however many replies it has.

The prompt's keys and values are computed once, repeated for its replies, and gradients flow back through the
repetition. Where a network's cache cannot be repeated, each reply is encoded together with its prompt instead; the
result is the same, and the reason is logged once.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from rewardtrain.last_layer import reading_only

logger = logging.getLogger(__name__)

Ids = Sequence[int]
PADDING_WORTH_A_FORWARD = 256  # tokens: what a forward costs beside its tokens is that of some hundred more


@dataclass
class EncodedPrompts:
    """Prompts that went through the network."""

    last: Tensor  # (P, H) hidden state at each prompt's last token
    mask: Tensor  # (P, S) bool, True on real prompt tokens
    cache: DynamicCache | Any
    mean: Tensor | None = None  # (P, H) over each prompt's tokens, where that was asked for


@dataclass
class ReplyStates:
    """Hidden states at replies. `before` predicts a reply's first token, `states[:, t]` stands at its token t."""

    before: Tensor  # (R, H) hidden state at the last token of each reply's prompt
    states: Tensor  # (R, T, H)
    mask: Tensor  # (R, T) bool, True on real reply tokens, which stand at the left
    prompt_means: Tensor | None = None  # (P, H) mean over each prompt's tokens, where that was asked for

    @property
    def predicting(self) -> Tensor:
        """(R, T, H) the state before each reply token, which predicts it."""
        return torch.cat([self.before.unsqueeze(1), self.states[:, :-1]], dim=1)


def pad_rows(rows: Sequence[Ids], pad_id: int, *, side: str = "right", device: Any = None) -> tuple[Tensor, Tensor]:
    """Ragged rows as (ids, mask), both (rows, longest); mask is bool, True on real tokens."""
    width = max((len(row) for row in rows), default=0)
    padded, mask = [], []
    for row in rows:
        fill, real = [pad_id] * (width - len(row)), [True] * len(row)
        blank = [False] * len(fill)
        padded.append([*fill, *row] if side == "left" else [*row, *fill])
        mask.append([*blank, *real] if side == "left" else [*real, *blank])
    return (
        torch.tensor(padded, dtype=torch.long, device=device).reshape(len(rows), width),
        torch.tensor(mask, dtype=torch.bool, device=device).reshape(len(rows), width),
    )


def length_buckets(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Places grouped by length so that rows × longest row stays within `max_tokens` (one row may exceed it alone).

    >>> length_buckets([9, 2, 8, 2], max_tokens=16)
    [[1, 3], [2], [0]]
    """
    buckets: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        if buckets and (len(buckets[-1]) + 1) * lengths[place] <= max_tokens:
            buckets[-1].append(place)
        else:
            buckets.append([place])
    return buckets


def batches_of_like_width(widths: Sequence[int], rows: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Places of items that go through a network together: like widths, and a bounded number of tokens.

    widths  tokens of each item's longest row
    rows    how many rows each has

    >>> batches_of_like_width([3, 9, 3], [2, 1, 2], max_tokens=16)
    [[0, 2], [1]]
    """
    batches: list[list[int]] = []
    together = 0
    for place in sorted(range(len(widths)), key=lambda place: widths[place]):
        if batches and (together + rows[place]) * widths[place] <= max_tokens:
            batches[-1].append(place)
            together += rows[place]
        else:
            batches.append([place])
            together = rows[place]
    return batches


# What a network allows


@torch.no_grad()
def is_causal(trunk: nn.Module) -> bool:
    """True if no token's hidden state depends on a later token, found by trying it on three tokens."""
    was_training, device = trunk.training, next(trunk.parameters()).device
    trunk.eval()
    one = torch.tensor([[1, 2, 3]], device=device)
    other = torch.tensor([[1, 2, 0]], device=device)
    first, second = (trunk(input_ids=ids, attention_mask=torch.ones_like(ids))[0][0, :2] for ids in (one, other))
    trunk.train(was_training)
    return bool(torch.allclose(first, second, atol=1e-5))


def why_not_shared(trunk: nn.Module) -> str | None:
    """Why this network's cache cannot be repeated for several replies; None if it can."""
    if trunk.training and any(getattr(module, "gradient_checkpointing", False) for module in trunk.modules()):
        return "gradient checkpointing keeps no cache"
    if any(getattr(module, "is_recomputed", False) for module in trunk.modules()):  # precision.recomputed_layers
        return "gradient checkpointing keeps no cache"
    config = getattr(trunk, "config", None)
    if config is None or not _takes(trunk, "past_key_values"):
        return f"{type(trunk).__name__} takes no cache"
    if getattr(trunk, "_is_stateful", False):
        return f"{type(trunk).__name__} keeps a state instead of keys and values"
    layers = DynamicCache(config=config).layers
    if odd := sorted({type(layer).__name__ for layer in layers if type(layer) is not DynamicLayer}):
        return f"its cache has layers that cannot be repeated ({', '.join(odd)})"
    return None


def can_share(trunk: nn.Module) -> bool:
    """True if the cache can be repeated; otherwise says so in the log, once per network and reason."""
    reason = why_not_shared(trunk)
    if reason is None:
        return True
    if getattr(trunk, "_nestbox_said", None) != reason:
        trunk._nestbox_said = reason  # type: ignore[assignment]
        logger.warning("prefix encoded once per reply instead of once per dialogue: %s", reason)
    return False


def _takes(trunk: nn.Module, argument: str) -> bool:
    return argument in inspect.signature(trunk.forward).parameters


def _positions(trunk: nn.Module, positions: Tensor) -> dict[str, Tensor]:
    """Positions for networks that take them; others (ALiBi) work them out from the mask."""
    return {"position_ids": positions} if _takes(trunk, "position_ids") else {}


# Forward


def encode_prompts(
    trunk: nn.Module, prompts: Sequence[Ids], *, pad_id: int, side: str = "left", with_means: bool = False
) -> EncodedPrompts:
    """Encode prompts once, with a cache. Padding may stand at either side.

    At the right no real token of a causal network can see it, so no mask is needed, and attention without one is
    quicker.
    """
    ids, mask = pad_rows(prompts, pad_id, side=side, device=device_of(trunk))
    positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
    cache = DynamicCache(config=trunk.config)  # type: ignore[arg-type]
    row_numbers = torch.arange(len(ids), device=ids.device)
    ends = positions.argmax(dim=1) if side == "right" else torch.full((len(ids),), ids.shape[1] - 1, device=ids.device)
    read = mask.clone() if with_means else torch.zeros_like(mask)
    read[row_numbers, ends] = True
    with reading_only(trunk, read):
        out = trunk(
            input_ids=ids, attention_mask=None if side == "right" else mask.long(), past_key_values=cache,
            use_cache=True, **_positions(trunk, positions),
        )  # fmt: skip
    last = out.last_hidden_state[row_numbers, ends]
    return EncodedPrompts(last, mask, out.past_key_values, _means(out.last_hidden_state, mask) if with_means else None)


@torch.no_grad()
def encode_ragged(trunk: nn.Module, prompts: Sequence[Ids], *, pad_id: int, side: str = "left") -> EncodedPrompts:
    """`encode_prompts` without gradients, where lengths differ: like ones together, so that little padding is computed.

    For networks whose cache can be repeated (`can_share`), and so be joined.
    """
    groups = groups_of_like_length([len(prompt) for prompt in prompts])
    parts = [encode_prompts(trunk, [prompts[place] for place in group], pad_id=pad_id, side=side) for group in groups]
    return parts[0] if len(parts) == 1 else _joined(parts, [place for group in groups for place in group], side)


def groups_of_like_length(lengths: Sequence[int], worth: int = PADDING_WORTH_A_FORWARD) -> list[list[int]]:
    """Places in groups that are encoded together: the longest first, and a new group where that spares enough padding.

    worth  tokens of padding that a further forward must spare; one group alone keeps the order it came in

    >>> groups_of_like_length([9, 2, 8, 2], worth=10)
    [[0, 2], [1, 3]]
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    groups: list[list[int]] = []
    for number, place in enumerate(order):
        if not groups or (lengths[groups[-1][0]] - lengths[place]) * (len(order) - number) >= worth:
            groups.append([])
        groups[-1].append(place)
    return groups if len(groups) > 1 else [list(range(len(lengths)))]


def _joined(parts: Sequence[EncodedPrompts], places: Sequence[int], side: str) -> EncodedPrompts:
    """Rows that were encoded in parts as if they had been encoded together. `places` says where each belongs."""
    order = torch.tensor(places, device=parts[0].last.device).argsort()
    cache = parts[0].cache
    for number, layer in enumerate(cache.layers):
        for name in ("keys", "values"):
            joined = _padded_together([getattr(part.cache.layers[number], name) for part in parts], -2, side)
            setattr(layer, name, joined[order])
    last = torch.cat([part.last for part in parts])
    return EncodedPrompts(last[order], _padded_together([part.mask for part in parts], -1, side)[order], cache)


def _padded_together(blocks: Sequence[Tensor], dim: int, side: str) -> Tensor:
    """Blocks of rows as one, filled up with zeros (or False) along `dim` to the widest."""
    width = max(block.shape[dim] for block in blocks)
    found = []
    for block in blocks:
        shape = list(block.shape)
        shape[dim] = width - shape[dim]
        fill = block.new_zeros(shape)
        found.append(torch.cat([fill, block] if side == "left" else [block, fill], dim=dim))
    return torch.cat(found)


def _means(hidden: Tensor, mask: Tensor) -> Tensor:
    """(rows, H) mean of (rows, T, H) where `mask` is True, which it is somewhere in each row."""
    return (hidden * mask.unsqueeze(-1)).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def repeat_prompts(encoded: EncodedPrompts, owners: Tensor) -> EncodedPrompts:
    """One row per reply: row r continues prompt owners[r]. The cache is repeated in place, gradients kept.

    Where every prompt has as many replies, and they stand in the prompts' order, nothing is looked up: the gradient of
    a look-up is added row by row, which costs more than the look-up itself.
    """
    prompts, rows = len(encoded.last), len(owners)
    each = rows // max(1, prompts)
    if torch.equal(owners.cpu(), torch.arange(prompts).repeat_interleave(each)):
        encoded.cache.batch_repeat_interleave(each)
        last, mask = (one.repeat_interleave(each, dim=0) for one in (encoded.last, encoded.mask))
        return EncodedPrompts(last, mask, encoded.cache)
    encoded.cache.reorder_cache(owners)
    return EncodedPrompts(encoded.last[owners], encoded.mask[owners], encoded.cache)


def extend(trunk: nn.Module, encoded: EncodedPrompts, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
    """Hidden states (R, T, H) of further tokens after encoded rows.

    mask       (R, S + T) bool over cached and new tokens
    positions  (R, T)
    """
    return trunk(
        input_ids=ids,
        attention_mask=mask.long(),
        past_key_values=encoded.cache,
        use_cache=True,
        **_positions(trunk, positions),
    ).last_hidden_state


def reply_states(
    trunk: nn.Module,
    prompts: Sequence[Ids],
    replies: Sequence[Ids],
    owners: Sequence[int],
    *,
    pad_id: int,
    share_prefix: bool = True,
    side: str = "left",
    with_prompt_means: bool = False,
) -> ReplyStates:
    """Hidden states at every reply of a batch.

    prompts       P rows of token ids, each at least one token
    replies       R rows; reply r continues prompts[owners[r]]; a row may be empty
    share_prefix  encode each prompt once where that is possible and saves anything
    side          where prompts are padded on the shared path
    with_prompt_means  also the mean over each prompt's tokens; every prompt needs a reply then
    """
    if not all(len(prompt) for prompt in prompts):
        raise ValueError("A prompt without tokens cannot be encoded.")
    if share_prefix and len(replies) > len(prompts) and can_share(trunk):
        return _states_with_shared_prefix(trunk, prompts, replies, owners, pad_id, side, with_prompt_means)
    first = [list(owners).index(prompt) for prompt in range(len(prompts))] if with_prompt_means else None
    return _states_of_whole_rows(trunk, [prompts[owner] for owner in owners], replies, pad_id, first)


def _states_with_shared_prefix(
    trunk: nn.Module, prompts: Sequence[Ids], replies: Sequence[Ids], owners: Sequence[int], pad_id: int, side: str,
    with_means: bool,
) -> ReplyStates:  # fmt: skip
    ids, mask = pad_rows(replies, pad_id, device=device_of(trunk))
    once = encode_prompts(trunk, prompts, pad_id=pad_id, side=side, with_means=with_means)
    encoded = repeat_prompts(once, torch.tensor(owners, device=ids.device))
    if ids.shape[1] == 0:
        return ReplyStates(encoded.last, encoded.last.new_zeros(len(ids), 0, encoded.last.shape[-1]), mask, once.mean)
    positions = encoded.mask.sum(dim=1, keepdim=True) + torch.arange(ids.shape[1], device=ids.device)
    states = extend(trunk, encoded, ids, torch.cat([encoded.mask, mask], dim=1), positions)
    return ReplyStates(encoded.last, states, mask, once.mean)


def _states_of_whole_rows(
    trunk: nn.Module, prompts: Sequence[Ids], replies: Sequence[Ids], pad_id: int, mean_rows: list[int] | None = None
) -> ReplyStates:
    """Each row its prompt and reply, padded at the right, where a causal network's real tokens cannot see padding.

    So no mask is needed, and attention without one is quicker.

    mean_rows  rows whose prompts' means are wanted
    """
    rows = [[*prompt, *reply] for prompt, reply in zip(prompts, replies, strict=True)]
    ids, real = pad_rows(rows, pad_id, device=device_of(trunk))
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=ids.device)
    _, mask = pad_rows(replies, pad_id, device=ids.device)
    columns = (lengths[:, None] + torch.arange(mask.shape[1], device=ids.device)).clamp(max=ids.shape[1] - 1)
    row_numbers = torch.arange(len(rows), device=ids.device)
    places = torch.arange(ids.shape[1], device=ids.device)
    read = real & (places >= lengths[:, None] - 1)
    if mean_rows is not None:
        read[mean_rows] = real[mean_rows]
    with reading_only(trunk, read):
        hidden = trunk(input_ids=ids, use_cache=False).last_hidden_state
    states = hidden[row_numbers[:, None], columns]
    means = None if mean_rows is None else _means(hidden[mean_rows], (places < lengths[:, None])[mean_rows])
    return ReplyStates(hidden[row_numbers, lengths - 1], states, mask, means)


def device_of(network: nn.Module) -> torch.device:
    """Where a network's weights are."""
    return next(network.parameters()).device
