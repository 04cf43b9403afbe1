"""The preference reward model: any Hugging Face decoder or encoder with a head that gives one score per reply."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from rewardtrain.chat import (
    EncodedPrompt,
    Reply,
    Turn,
    encode_prompt,
    encode_reply,
    pad_id,
    render,
    starts_with_assistant,
)
from rewardtrain.checkpoints import ADAPTER_CONFIG, base_of_adapter, check_model_folder, network_config
from rewardtrain.credit import TokenScores
from rewardtrain.errors import ModelRefused, UnsupportedArchitecture
from rewardtrain.hyperparameters import InvalidSettings, RewardModelSettings
from rewardtrain.lora import (
    add_lora,
    has_lora,
    load_network,
    load_tokenizer,
    save_network,
    without_wrapper,
)
from rewardtrain.losses import token_logprobs
from rewardtrain.policy import logits_of, spread, trunk_of
from rewardtrain.precision import check_device, whole_precision
from rewardtrain.shared_prefix import (
    ReplyStates,
    batches_of_like_width,
    device_of,
    is_causal,
    pad_rows,
    reply_states,
)

HEAD_CONFIG = "reward_head.json"
HEAD_WEIGHTS = "reward_head.safetensors"

LIKELIHOOD_SCALES = (30.0, 3.0, 10.0)
"""By which the mean, the sum and the lowest of a reply's log-probabilities are multiplied before their weights. An
optimiser moves every weight by about the learning rate; these three must get as far as the head's many together."""


@dataclass(frozen=True)
class HeadConfig:
    """How hidden states become a score, and how much text goes in. Stored beside the weights."""

    pooling: str  # mean (over the reply, for an encoder over the row), last, or cls (encoders)
    is_causal: bool
    is_language_model: bool
    reads_likelihood: bool
    max_tokens: int
    max_reply_tokens: int
    tokens_per_forward: int = 4096
    share_prefix: bool = True


@dataclass(frozen=True)
class EncodedComparison:
    """A dialogue and its replies as tokens; what did not fit was cut and counted."""

    prompt: list[int]
    replies: list[list[int]]
    turns_cut: int = 0
    replies_cut: int = 0

    @property
    def width(self) -> int:
        """Tokens of the longest row."""
        return len(self.prompt) + max((len(reply) for reply in self.replies), default=0)


@dataclass
class Cuts:
    """How much of the data did not fit the network."""

    dialogues: int = 0
    turns: int = 0
    replies: int = 0

    def count(self, encoded: EncodedComparison) -> None:
        self.dialogues += bool(encoded.turns_cut)
        self.turns += encoded.turns_cut
        self.replies += encoded.replies_cut


class RewardModel(nn.Module):
    """Prompt and reply in, one score out. Scores compare replies to one prompt; their zero means nothing.

    A decoder encodes the dialogue once for its replies and is read at the mean over a reply's tokens, or at its last
    one. An encoder sees dialogue and reply together, a row per reply, and is read at its mean or its first token.

    A decoder that is a language model also says how likely it finds the reply: the mean, the sum and the lowest of its
    tokens' log-probabilities enter the score with weights that are learned. So what the base knows (which fact is
    the right one, what is English) counts from the first comparison on; the hidden states hardly show it.

    Why these defaults: from 300 comparisons of the starter world, three seeds, the share of pairs ordered as the
    oracle does was 69 % at the last token, 74 % at the mean, 77 % at the mean with likelihoods.
    """

    def __init__(self, network: Any, tokenizer: Any, config: HeadConfig, *, seed: int = 0):
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer
        self.config = config
        hidden_size = without_wrapper(network).config.get_text_config().hidden_size
        self.head = nn.Linear(hidden_size, 1, bias=False)
        with torch.no_grad():  # small enough that scores start near 0
            generator = torch.Generator().manual_seed(seed % 2**63)
            self.head.weight.normal_(std=1 / math.sqrt(hidden_size + 1), generator=generator)
        self.likelihood_weights = nn.Parameter(torch.zeros(len(LIKELIHOOD_SCALES))) if config.reads_likelihood else None
        self.to(device_of(network))

    @classmethod
    def from_base(cls, base: Path, settings: RewardModelSettings) -> Self:
        """A reward model that has learned nothing yet, on a base's network. Raises ModelRefused."""
        base = Path(base)
        check_device(settings.device)
        speaks = is_language_model(base) and (settings.likelihood == "auto" or (base / ADAPTER_CONFIG).is_file())
        network = load_base(base, speaks, settings.dtype, settings.device, trainable=True)
        config = _head_config(network, speaks, settings)
        if not has_lora(network):
            task = "CAUSAL_LM" if speaks else "FEATURE_EXTRACTION"
            network = add_lora(network, settings.lora, task=task, seed=settings.seed)
        return cls(network, load_tokenizer(base), config, seed=settings.seed)

    @property
    def trunk(self) -> Any:
        """The network without an output layer."""
        return trunk_of(self.network) if self.config.is_language_model else without_wrapper(self.network)

    # Scores

    def scores(self, prompts: Sequence[Sequence[Turn]], replies: Sequence[Sequence[Reply]]) -> list[Tensor]:
        """For each prompt the (K,) scores of its replies; K may differ. Gradients flow unless switched off.

        replies  per prompt its replies: text, or turns when a reply is several turns long
        """
        if len(prompts) != len(replies):
            raise ValueError(f"{len(prompts)} prompts were given, but replies to {len(replies)}.")
        return self.score_encoded([self.encode(prompt, own) for prompt, own in zip(prompts, replies, strict=True)])

    @property
    def scores_tokens(self) -> bool:
        """True if it can say what a reply would score if it ended after each of its tokens."""
        return self.config.is_causal

    @torch.no_grad()
    def token_scores(
        self, prompts: Sequence[Sequence[Turn]], replies: Sequence[Sequence[Reply]]
    ) -> list[list[TokenScores]]:
        """`scores`, and what each reply would score if it ended after each of its tokens: from one pass, no gradients.

        Raises  UnsupportedArchitecture for an encoder, which reads a reply as a whole
        """
        if not self.scores_tokens:
            raise UnsupportedArchitecture("An encoder reads a reply as a whole, so it has no score for each token.")
        comparisons = [self.encode(prompt, own) for prompt, own in zip(prompts, replies, strict=True)]
        found: list[list[TokenScores]] = [[] for _ in comparisons]
        for places in self.batches(comparisons):
            some = [comparisons[place] for place in places]
            rows = iter(self._token_scores_of_batch(some))
            for place, one in zip(places, some, strict=True):
                found[place] = [next(rows) for _ in one.replies]
        return found

    def encode(self, prompt: Sequence[Turn], replies: Sequence[Reply]) -> EncodedComparison:
        """One dialogue and its replies as tokens. The replies go first; the dialogue is cut to what they leave."""
        follows = all(starts_with_assistant(reply) for reply in replies)
        whole = [self._reply_ids(prompt, reply, follows) for reply in replies]
        limit = self.config.max_reply_tokens
        kept = [ids[:limit] for ids in whole]
        room = self.config.max_tokens - max((len(ids) for ids in kept), default=0) - self._special_tokens
        encoded: EncodedPrompt = encode_prompt(self.tokenizer, prompt, room, reply_follows=follows)
        return EncodedComparison(
            prompt=encoded.ids,
            replies=kept,
            turns_cut=encoded.turns_cut + bool(encoded.tokens_cut),
            replies_cut=sum(len(ids) > limit for ids in whole),
        )

    def _reply_ids(self, prompt: Sequence[Turn], reply: Reply, follows: bool) -> list[int]:
        ids = encode_reply(self.tokenizer, reply)
        if follows or not starts_with_assistant(reply):
            return ids
        # Another candidate begins with somebody else's turn, so the prompt does not open the assistant's.
        closed = render(self.tokenizer, prompt, reply_follows=False)
        opening = render(self.tokenizer, prompt, reply_follows=True).removeprefix(closed)
        return [*self.tokenizer(opening, add_special_tokens=False)["input_ids"], *ids]

    @property
    def _special_tokens(self) -> int:
        return 0 if self.config.is_causal else 2

    def score_encoded(self, comparisons: Sequence[EncodedComparison]) -> list[Tensor]:
        """`scores` of dialogues already encoded, in batches of like length."""
        scores: list[Tensor | None] = [None] * len(comparisons)
        for places in self.batches(comparisons):
            for place, own in zip(places, self.score_batch([comparisons[place] for place in places]), strict=True):
                scores[place] = own
        return [own for own in scores if own is not None]

    def batches(self, comparisons: Sequence[EncodedComparison]) -> list[list[int]]:
        """Places of comparisons that go through the network together: like lengths, bounded number of tokens."""
        widths, rows = [one.width for one in comparisons], [len(one.replies) for one in comparisons]
        return batches_of_like_width(widths, rows, self.config.tokens_per_forward)

    def score_batch(self, comparisons: Sequence[EncodedComparison]) -> list[Tensor]:
        """`score_encoded` in one forward pass."""
        replies = [reply for one in comparisons for reply in one.replies]
        owners = [owner for owner, one in enumerate(comparisons) for _ in one.replies]
        prompts = [one.prompt for one in comparisons]
        score = self._score_decoded if self.config.is_causal else self._score_encoded
        return list(score(prompts, replies, owners).split([len(one.replies) for one in comparisons]))

    def _score_decoded(self, prompts: list[list[int]], replies: list[list[int]], owners: list[int]) -> Tensor:
        """(R,) from a decoder's states at each reply."""
        states = reply_states(
            self.trunk, prompts, replies, owners,
            pad_id=pad_id(self.tokenizer), share_prefix=self.config.share_prefix,
        )  # fmt: skip
        scores = self._head(pool_reply(states, self.config.pooling))
        return scores + self._likelihood_score(states, replies) if self.likelihood_weights is not None else scores

    def _token_scores_of_batch(self, comparisons: Sequence[EncodedComparison]) -> list[TokenScores]:
        replies = [reply for one in comparisons for reply in one.replies]
        states = reply_states(
            self.trunk, [one.prompt for one in comparisons], replies,
            [owner for owner, one in enumerate(comparisons) for _ in one.replies],
            pad_id=pad_id(self.tokenizer), share_prefix=self.config.share_prefix,
        )  # fmt: skip
        whole, after = self._head(pool_reply(states, self.config.pooling)), self._head(self._pool_prefixes(states))
        if self.likelihood_weights is not None:
            logprobs, counts = self._logprobs(states, replies), _counts(states.mask)
            after = after + self._weigh_likelihood(logprobs.cumsum(dim=1), counts, logprobs.cummin(dim=1).values)
            whole = whole + self._likelihood_score(states, replies)
        return [TokenScores(ids, after[row, : len(ids)].cpu(), float(whole[row])) for row, ids in enumerate(replies)]

    def _pool_prefixes(self, states: ReplyStates) -> Tensor:
        """(R, T, H) what `pool_reply` would give of each reply if it ended after each of its tokens."""
        if self.config.pooling != "mean":
            return states.states
        return (states.states * states.mask.unsqueeze(-1)).cumsum(dim=1) / _counts(states.mask).unsqueeze(-1)

    def _likelihood_score(self, states: ReplyStates, replies: list[list[int]]) -> Tensor:
        """(R,) what the likelihood of each reply's tokens adds to its score."""
        if not states.mask.any():
            return states.before.new_zeros(len(replies), dtype=torch.float32)
        logprobs = self._logprobs(states, replies)
        return self._weigh_likelihood(logprobs.sum(dim=1), states.mask.sum(dim=1).clamp(min=1), logprobs.amin(dim=1))

    def _logprobs(self, states: ReplyStates, replies: list[list[int]]) -> Tensor:
        """(R, T) of each reply token, 0 where there is none."""
        ids, mask = pad_rows(replies, pad_id(self.tokenizer), device=states.mask.device)
        return spread(token_logprobs(logits_of(self.network, states.predicting[mask]), ids[mask]), mask)

    def _weigh_likelihood(self, total: Tensor, count: Tensor, least: Tensor) -> Tensor:
        """What log-probabilities add to a score: from their sum, how many they are, and the lowest of them."""
        features = torch.stack([total / count, total, least], dim=-1)
        assert self.likelihood_weights is not None
        with whole_precision(features.device):
            return features @ (self.likelihood_weights * features.new_tensor(LIKELIHOOD_SCALES))

    def _score_encoded(self, prompts: list[list[int]], replies: list[list[int]], owners: list[int]) -> Tensor:
        """(R,) from whole rows through an encoder: [CLS] dialogue reply [SEP]."""
        first = [int(one) for one in [self.tokenizer.cls_token_id] if one is not None]
        last = [int(one) for one in [self.tokenizer.sep_token_id] if one is not None]
        rows = [[*first, *prompts[owner], *reply, *last] for owner, reply in zip(owners, replies, strict=True)]
        ids, mask = pad_rows(rows, pad_id(self.tokenizer), device=device_of(self.network))
        hidden = self.trunk(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return self._head(pool_row(hidden, mask, self.config.pooling))

    def _head(self, pooled: Tensor) -> Tensor:
        with whole_precision(pooled.device):
            return self.head(pooled.to(self.head.weight.dtype)).squeeze(-1).float()

    # Files

    def save(self, folder: Path) -> None:
        """Write network (or its adapter), tokenizer and head: safetensors and JSON only.

        `checkpoints.save_checkpoint(folder, reward_model.save)` makes it complete or invisible.
        """
        from safetensors.torch import save_file

        folder = Path(folder)
        save_network(self.network, self.tokenizer, folder)
        own = {"head": self.head.weight.detach().contiguous()}
        if self.likelihood_weights is not None:
            own["likelihood"] = self.likelihood_weights.detach().contiguous()
        save_file(own, folder / HEAD_WEIGHTS)
        (folder / HEAD_CONFIG).write_text(
            json.dumps(asdict(self.config), indent=1, sort_keys=True) + "\n", encoding="utf-8"
        )

    @classmethod
    def load(cls, folder: Path, *, dtype: str = "float32", device: str = "cpu") -> Self:
        """The reward model saved in `folder`, ready to score. Raises ModelRefused, naming the file."""
        config = head_config_in(Path(folder))
        network = load_base(Path(folder), config.is_language_model, dtype, device, trainable=False)
        return cls.around(network, Path(folder), config).eval()

    @classmethod
    def around(cls, network: Any, folder: Path, config: HeadConfig) -> Self:
        """The tokenizer and the head saved in `folder`, on a network that is in memory already."""
        from safetensors.torch import load_file

        reward_model = cls(network, load_tokenizer(folder), config)
        reward_model._take_head(load_file(folder / HEAD_WEIGHTS, device=str(device_of(network))), folder)
        return reward_model

    @torch.no_grad()
    def _take_head(self, own: dict[str, Tensor], folder: Path) -> None:
        wanted = {"head": self.head.weight}
        if self.likelihood_weights is not None:
            wanted["likelihood"] = self.likelihood_weights
        if {name: tensor.shape for name, tensor in own.items()} != {name: one.shape for name, one in wanted.items()}:
            raise ModelRefused(f"{folder / HEAD_WEIGHTS} does not fit {folder / HEAD_CONFIG}.")
        for name, parameter in wanted.items():
            parameter.copy_(own[name])


def _counts(mask: Tensor) -> Tensor:
    """(R, T) how many tokens there are up to each; at least 1."""
    return mask.cumsum(dim=1).clamp(min=1)


def pool_reply(states: ReplyStates, pooling: str) -> Tensor:
    """(R, H) the mean over each reply's tokens, or its last token, which has seen everything before it."""
    lengths = states.mask.sum(dim=1, keepdim=True)
    if pooling == "mean":
        pooled = (states.states * states.mask.unsqueeze(-1)).sum(dim=1) / lengths.clamp(min=1)
    else:
        rows = torch.arange(len(lengths), device=lengths.device)
        pooled = states.states[rows, (lengths.squeeze(1) - 1).clamp(min=0)]
    return torch.where(lengths > 0, pooled, states.before)  # a reply without tokens is what precedes it


def pool_row(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """(R, H) of an encoder's rows (R, T, H): their first token, their last one, or the mean over all of them."""
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "last":
        return hidden[torch.arange(len(mask), device=mask.device), mask.sum(dim=1) - 1]
    return (hidden * mask.unsqueeze(-1)).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def head_config_in(folder: Path) -> HeadConfig:
    """What the head saved in `folder` is. Raises ModelRefused for what is no reward model, or more than data."""
    check_model_folder(folder, needs=(network_config(folder), HEAD_CONFIG, HEAD_WEIGHTS))
    try:
        return HeadConfig(**json.loads((folder / HEAD_CONFIG).read_text(encoding="utf-8")))
    except TypeError as error:
        raise ModelRefused(f"{folder / HEAD_CONFIG} does not describe a reward head: {error}.") from error


def is_language_model(folder: Path) -> bool:
    """True if the network in `folder` (or the base of the adapter there) was saved with a language model's output."""
    home = base_of_adapter(folder) if (folder / ADAPTER_CONFIG).is_file() else folder
    check_model_folder(home)
    named = json.loads((home / "config.json").read_text(encoding="utf-8")).get("architectures") or []
    return any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in named)


def load_base(folder: Path, speaks: bool, dtype: str, device: str, *, trainable: bool) -> Any:
    """The network in `folder`, with a language model's output layer if it `speaks`. Raises ModelRefused."""
    from transformers import AutoModel, AutoModelForCausalLM

    auto_class = AutoModelForCausalLM if speaks else AutoModel
    network = load_network(auto_class, folder, dtype=dtype, device=device, trainable=trainable)
    if without_wrapper(network).config.is_encoder_decoder:
        raise UnsupportedArchitecture(f"{folder} holds an encoder-decoder. Start from a decoder or an encoder alone.")
    return network


def _head_config(network: Any, speaks: bool, settings: RewardModelSettings) -> HeadConfig:
    """Settings fitted to what the network is and takes."""
    trunk = trunk_of(network) if speaks else without_wrapper(network)
    causal = is_causal(trunk)
    pooling = "mean" if settings.pooling == "auto" else settings.pooling
    if causal and pooling == "cls":
        raise InvalidSettings(["Set pooling to mean or last: a decoder's first token has seen no reply."])
    max_tokens = min(settings.max_tokens, max_positions(trunk))
    return HeadConfig(
        pooling=pooling,
        is_causal=causal,
        is_language_model=speaks,
        reads_likelihood=speaks and causal and settings.likelihood == "auto",
        max_tokens=max_tokens,
        max_reply_tokens=min(settings.max_reply_tokens, max(1, max_tokens * 3 // 4)),
        tokens_per_forward=settings.tokens_per_forward,
        share_prefix=settings.share_prefix,
    )


def max_positions(trunk: Any) -> int:
    """How many tokens a network takes; RoBERTa and its like count positions from their padding id on."""
    config = trunk.config.get_text_config()
    limit = int(getattr(config, "max_position_embeddings", None) or 1_000_000)
    offset = (config.pad_token_id or 0) + 1 if "roberta" in config.model_type or config.model_type == "camembert" else 0
    return limit - offset
