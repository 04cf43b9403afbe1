"""Draw replies from a policy: prompts encoded once for all their replies, one random generator per reply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rewardtrain.chat import EncodedPrompt, Turn, decode_reply, encode_prompt, stop_ids
from rewardtrain.errors import UnsupportedArchitecture
from rewardtrain.hyperparameters import SamplingSettings
from rewardtrain.policy import Policy, as_policy
from rewardtrain.roomy_cache import give_room
from rewardtrain.seeds import candidate_seed, stable_seed
from rewardtrain.shared_prefix import EncodedPrompts, can_share, encode_prompts, encode_ragged, extend, repeat_prompts

__all__ = ["Reply", "SamplingSettings", "candidate_seed", "encode_for_sampling", "sample_replies", "stable_seed"]

Prompt = Sequence[Turn] | EncodedPrompt
BRANCHES = 16
"""Into how many parts a vocabulary is split at each level on the way to a token."""


@dataclass
class Reply:
    """One reply as it was drawn.

    token_ids  with the stop token, if one was drawn
    logprobs   (T,) float32, under the policy at the sampling temperature, before top-p and top-k
    values     (T,) float32, of the state before each token; None when the policy has no value head
    finished   False when it ran into max_new_tokens
    """

    text: str
    token_ids: list[int]
    logprobs: Tensor
    values: Tensor | None
    mean_logprob: float
    finished: bool


@dataclass
class _Drawn:
    """What a batch has drawn so far; one row per reply, all on the CPU."""

    tokens: Tensor  # (R, N) long
    logprobs: Tensor  # (R, N)
    values: Tensor | None  # (R, N)
    lengths: Tensor  # (R,) long
    finished: Tensor  # (R,) bool


@torch.no_grad()
def sample_replies(
    policy: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    settings: SamplingSettings,
    seeds: Sequence[int],
    share_prefix: bool = True,
    padding_side: str = "right",
    rows_per_batch: int = 256,
) -> list[Reply]:
    """One reply per prompt and seed, in their order.

    prompts  turns, or prompts encoded before. To draw K replies to one dialogue give it K times, with K seeds: equal
             prompts are encoded once and their cache repeated, however many there are of each
    seeds    as many as prompts; a reply depends on its prompt and seed, not on what it is batched with
    policy   a Policy, or a causal language model of transformers
    Raises   ValueError if counts differ; UnsupportedArchitecture for a network without a cache
    """
    if len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts were given, but {len(seeds)} seeds.")
    policy = as_policy(policy, tokenizer)
    encoded = [encode_for_sampling(policy, tokenizer, prompt, settings).ids for prompt in prompts]
    replies: list[Reply | None] = [None] * len(prompts)
    was_training = policy.training
    policy.eval()
    try:
        for places in _batches(encoded, rows_per_batch):
            rows, own_seeds = [encoded[place] for place in places], [seeds[place] for place in places]
            drawn = _sample_batch(
                policy, rows, own_seeds, settings, stop_ids(tokenizer, policy.network), share_prefix, padding_side
            )
            for row, place in enumerate(places):
                replies[place] = _reply(tokenizer, drawn, row)
    finally:
        policy.train(was_training)
    return [reply for reply in replies if reply is not None]


def encode_for_sampling(
    policy: Policy, tokenizer: Any, prompt: Prompt, settings: SamplingSettings, speaker: str = "assistant"
) -> EncodedPrompt:
    """The prompt as tokens with the opening of the speaker's turn, cut so that it and a reply fit the network."""
    if isinstance(prompt, EncodedPrompt):
        return prompt
    room = min(settings.max_prompt_tokens, policy.max_positions - settings.max_new_tokens)
    if room <= 0:
        raise ValueError(
            f"max_new_tokens {settings.max_new_tokens} leaves this network no room for a prompt; lower it."
        )
    return encode_prompt(tokenizer, prompt, room, speaker=speaker)


def _batches(encoded: Sequence[list[int]], rows_per_batch: int) -> list[list[int]]:
    """Places in batches, equal prompts together and prompts of like length side by side."""
    order = sorted(range(len(encoded)), key=lambda place: (len(encoded[place]), encoded[place]))
    return [order[start : start + rows_per_batch] for start in range(0, len(order), rows_per_batch)]


def _sample_batch(
    policy: Policy,
    rows: Sequence[list[int]],
    seeds: Sequence[int],
    settings: SamplingSettings,
    stops: Sequence[int],
    share_prefix: bool,
    side: str,
) -> _Drawn:
    started = _start(policy, rows, share_prefix, side)
    levels = _levels(policy.vocabulary_size)
    uniforms = torch.stack([_uniforms(seed, settings.max_new_tokens, levels) for seed in seeds]).to(policy.device)
    return _decode(policy, started, uniforms, settings, torch.tensor(stops, device=policy.device))


def _start(policy: Policy, rows: Sequence[list[int]], share_prefix: bool, side: str) -> EncodedPrompts:
    """Every row's prompt encoded, each distinct prompt once where the cache can be repeated."""
    trunk = policy.trunk
    places = {tuple(row): number for number, row in enumerate(dict.fromkeys(map(tuple, rows)))}
    if share_prefix and can_share(trunk):
        encoded = encode_ragged(trunk, list(places), pad_id=policy.pad_id, side=side)
        owners = [places[tuple(row)] for row in rows]
        encoded = repeat_prompts(encoded, torch.tensor(owners, device=policy.device))
    else:
        encoded = encode_prompts(trunk, rows, pad_id=policy.pad_id, side="left")  # a window counts padding at the right
    if encoded.cache is None:
        raise UnsupportedArchitecture(
            f"{type(trunk).__name__} gives no cache back, so replies cannot be drawn from it."
        )
    return encoded


def _levels(vocabulary_size: int) -> int:
    """How often a vocabulary must be split into BRANCHES until one token is left."""
    levels = 1
    while BRANCHES**levels < vocabulary_size:
        levels += 1
    return levels


def _uniforms(seed: int, count: int, levels: int) -> Tensor:
    """(count, levels) a reply's own random numbers, those of a token in a row, whatever the batch does."""
    return torch.rand(count, levels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _decode(
    policy: Policy, encoded: EncodedPrompts, uniforms: Tensor, settings: SamplingSettings, stops: Tensor
) -> _Drawn:
    drawn = _nothing_drawn(len(uniforms), settings.max_new_tokens, policy.value_head is not None)
    rows = torch.arange(len(uniforms), device=policy.device)  # the rows still being written
    give_room(encoded.cache, settings.max_new_tokens - 1)
    hidden = encoded.last
    positions = encoded.mask.sum(dim=1, keepdim=True)
    for step in range(settings.max_new_tokens):
        tokens, logprobs = _choose(policy.logits(hidden), uniforms[rows, step], settings)
        ended = torch.isin(tokens, stops)
        _note(drawn, rows, step, tokens, logprobs, policy.values(hidden), ended)
        going_on = (~ended).nonzero().squeeze(1)
        if len(going_on) == 0 or step == settings.max_new_tokens - 1:
            break
        if len(going_on) < len(rows):
            encoded.cache.reorder_cache(going_on)  # finished rows are dropped
            encoded.mask, rows, tokens, positions = (one[going_on] for one in (encoded.mask, rows, tokens, positions))
        encoded.mask = torch.cat([encoded.mask, encoded.mask.new_ones(len(rows), 1)], dim=1)
        hidden = extend(policy.trunk, encoded, tokens.unsqueeze(1), encoded.mask, positions)[:, -1]
        positions = positions + 1
    return drawn


def _nothing_drawn(rows: int, steps: int, with_values: bool) -> _Drawn:
    return _Drawn(
        tokens=torch.zeros(rows, steps, dtype=torch.long),
        logprobs=torch.zeros(rows, steps),
        values=torch.zeros(rows, steps) if with_values else None,
        lengths=torch.zeros(rows, dtype=torch.long),
        finished=torch.zeros(rows, dtype=torch.bool),
    )


def _note(
    drawn: _Drawn, rows: Tensor, step: int, tokens: Tensor, logprobs: Tensor, values: Tensor | None, ended: Tensor
) -> None:
    rows = rows.cpu()
    drawn.tokens[rows, step] = tokens.cpu()
    drawn.logprobs[rows, step] = logprobs.cpu()
    drawn.lengths[rows] += 1
    drawn.finished[rows] = ended.cpu()
    if drawn.values is not None and values is not None:
        drawn.values[rows, step] = values.cpu()


def _choose(logits: Tensor, uniforms: Tensor, settings: SamplingSettings) -> tuple[Tensor, Tensor]:
    """(tokens, their log-probabilities), both (R,).

    logits    (R, V)
    uniforms  (R, levels)
    """
    logprobs = (logits / settings.temperature if settings.temperature > 0 else logits).log_softmax(dim=-1)
    if settings.temperature == 0:
        tokens = logits.argmax(dim=-1)
    else:
        chances = _cut_tail(logprobs.exp().double(), settings)
        tokens = _descend(chances, uniforms)
    return tokens, logprobs.gather(-1, tokens.unsqueeze(1)).squeeze(1)


def _descend(chances: Tensor, uniforms: Tensor) -> Tensor:
    """(R,) tokens drawn by (R, V) chances, which need not sum to 1: branch by branch, each level by its own number.

    Where one number falls on the ladder of all tokens depends on every rung below it, and the last digits of these
    change with the batch: of a large vocabulary about one token in some thousands would be another. Here only the
    16 rungs of each level count, and a reply stays the same in whatever company it is drawn.
    """
    rows, levels = uniforms.shape
    blocks = functional.pad(chances, (0, BRANCHES**levels - chances.shape[-1]))
    first = torch.zeros(rows, dtype=torch.long, device=chances.device)  # token of the branch so far
    for level in range(levels):
        width = BRANCHES ** (levels - level - 1)
        branches = blocks.view(rows, BRANCHES, width)
        rungs = branches.sum(dim=-1).cumsum(dim=-1)
        wanted = uniforms[:, level : level + 1] * rungs[:, -1:]
        chosen = torch.searchsorted(rungs[:, :-1].contiguous(), wanted, right=True).squeeze(1)
        blocks = branches[torch.arange(rows, device=chances.device), chosen]
        first = first + width * chosen
    return first


def _cut_tail(chances: Tensor, settings: SamplingSettings) -> Tensor:
    """Chances with 0 for what top-k and top-p leave out. Of equal chances the lower token id counts as likelier."""
    if settings.is_plain:
        return chances
    ordered, places = chances.sort(dim=-1, descending=True, stable=True)
    outside = torch.zeros_like(ordered, dtype=torch.bool)
    if settings.top_k:
        outside[:, settings.top_k :] = True
    if settings.top_p < 1:
        before = ordered.cumsum(dim=-1) - ordered
        outside |= before >= settings.top_p  # the token that crosses top_p stays
    return chances.masked_fill(torch.zeros_like(outside).scatter(1, places, outside), 0.0)


def _reply(tokenizer: Any, drawn: _Drawn, row: int) -> Reply:
    length = int(drawn.lengths[row])
    token_ids = drawn.tokens[row, :length].tolist()
    logprobs = drawn.logprobs[row, :length].clone()
    return Reply(
        text=decode_reply(tokenizer, token_ids),
        token_ids=token_ids,
        logprobs=logprobs,
        values=None if drawn.values is None else drawn.values[row, :length].clone(),
        mean_logprob=float(logprobs.mean()),
        finished=bool(drawn.finished[row]),
    )
