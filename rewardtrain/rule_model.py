"""The rule model: one Hugging Face decoder or encoder for all rules, with a head that says whether one was broken."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from rewardtrain.chat import Turn, encode_prompt, encode_rule, pad_id
from rewardtrain.checkpoints import check_model_folder, network_config
from rewardtrain.errors import ModelRefused
from rewardtrain.hyperparameters import InvalidSettings, RuleModelSettings
from rewardtrain.lora import add_lora, has_lora, load_tokenizer, save_network, without_wrapper
from rewardtrain.policy import trunk_of
from rewardtrain.precision import check_device, whole_precision
from rewardtrain.reward_model import is_language_model, load_base, max_positions, pool_reply, pool_row
from rewardtrain.shared_prefix import batches_of_like_width, device_of, is_causal, pad_rows, reply_states

HEAD_CONFIG = "rule_head.json"
HEAD_WEIGHTS = "rule_head.safetensors"


@dataclass(frozen=True)
class RuleHeadConfig:
    """How hidden states become a probability, and how much text goes in. Stored beside the weights."""

    pooling: str  # mean (over the rule, for an encoder over the row), last, or cls (encoders)
    is_causal: bool
    is_language_model: bool
    match_rank: int
    max_tokens: int
    max_rule_tokens: int
    tokens_per_forward: int = 4096
    share_prefix: bool = True
    temperature: float = 1.0
    reads_apart: bool = False  # rule heads saved before there was a choice read rules after the dialogue


@dataclass(frozen=True)
class EncodedDialogue:
    """A dialogue and the rules asked about it as tokens; what did not fit was cut and counted."""

    dialogue: list[int]
    rules: list[list[int]]
    turns_cut: int = 0
    rules_cut: int = 0

    @property
    def width(self) -> int:
        """Tokens of the longest row."""
        return len(self.dialogue) + max(len(rule) for rule in self.rules)


@dataclass(frozen=True)
class RuleLogits:
    """What the network says of one dialogue, before calibration."""

    rules: Tensor  # (n,) this rule was broken
    this: Tensor  # (n,) if some rule was, it was this one
    any: Tensor  # () some rule was


class RuleModel(nn.Module):
    """A dialogue and a rule's wording in, the chance that the rule was broken out.

    The chance is a product of two, both learned from the same verdicts:

    - that *some* rule was broken, read from the dialogue alone. Every verdict teaches it, and an auxiliary loss does;
    - that, if so, it was *this* rule: a linear reading of the rule's tokens, and a product of the dialogue's state and
      the rule's, both projected to a few numbers.

    Read apart (`reads_apart`), a rule's tokens see nothing but each other: each wording is encoded once for all
    dialogues of a batch, and a dialogue costs the same whether one rule is asked about or twenty. Read together, a
    rule's tokens see the dialogue: a decoder encodes the dialogue once for all rules asked about it, an encoder sees
    each pair alone, and the dialogue once more by itself. The dialogue is cut to what the longest allowed rule leaves,
    so what is said of a rule does not depend on the others that are asked about.
    """

    def __init__(self, network: Any, tokenizer: Any, config: RuleHeadConfig, *, seed: int = 0):
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer
        self.config = config
        hidden_size = without_wrapper(network).config.get_text_config().hidden_size
        dialogue_size = hidden_size * (2 if config.is_causal else 1)
        self.rule_head = nn.Linear(hidden_size, 1)
        self.dialogue_head = nn.Linear(dialogue_size, 1)
        self.dialogue_match = nn.Linear(dialogue_size, config.match_rank, bias=False) if config.match_rank else None
        self.rule_match = nn.Linear(hidden_size, config.match_rank, bias=False) if config.match_rank else None
        self._draw(torch.Generator().manual_seed(seed % 2**63), 1 / math.sqrt(hidden_size + 1))
        self.to(device_of(network))

    @torch.no_grad()
    def _draw(self, generator: torch.Generator, std: float) -> None:
        for name, weight in self.head_parameters().items():
            if name.endswith("bias"):
                weight.zero_()
            else:  # the sum starts near 0, the projections at about 1
                weight.normal_(std=std if "match" in name else std / 10, generator=generator)

    def head_parameters(self) -> dict[str, nn.Parameter]:
        """Everything that is not the network's, by name."""
        return {name: one for name, one in sorted(self.named_parameters()) if not name.startswith("network.")}

    @classmethod
    def from_base(cls, base: Path, settings: RuleModelSettings) -> Self:
        """A rule model that has learned nothing yet, on a base's network. Raises ModelRefused."""
        base = Path(base)
        check_device(settings.device)
        speaks = is_language_model(base)
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

    # Probabilities

    @torch.no_grad()
    def probabilities(self, dialogues: Sequence[Sequence[Turn]], rules: Sequence[str]) -> list[Tensor]:
        """For each dialogue (n_rules,) calibrated chances that it broke each of these rules. No gradients, no dropout.

        rules  their wordings, the same for all dialogues
        """
        if not rules:
            raise ValueError("Name at least one rule to ask about.")
        wordings = [self.encode_rule(rule) for rule in rules]
        return self.probabilities_encoded(
            [self.with_rules(self.encode_dialogue(dialogue), wordings) for dialogue in dialogues]
        )

    @torch.no_grad()
    def probabilities_encoded(self, dialogues: Sequence[EncodedDialogue]) -> list[Tensor]:
        """`probabilities` of dialogues already encoded, each asked about rules of its own."""
        was_training = self.training
        self.eval()
        found = [torch.sigmoid(one.rules / self.config.temperature) for one in self.logits_encoded(dialogues)]
        self.train(was_training)
        return found

    def logits(self, dialogues: Sequence[Sequence[Turn]], rules: Sequence[Sequence[str]]) -> list[RuleLogits]:
        """Logits before calibration, of rules that may differ from dialogue to dialogue. Gradients flow."""
        if len(dialogues) != len(rules):
            raise ValueError(f"{len(dialogues)} dialogues were given, but rules for {len(rules)}.")
        return self.logits_encoded([self.encode(one, own) for one, own in zip(dialogues, rules, strict=True)])

    def encode(self, dialogue: Sequence[Turn], rules: Sequence[str]) -> EncodedDialogue:
        """One dialogue and the rules asked about it as tokens."""
        return self.with_rules(self.encode_dialogue(dialogue), [self.encode_rule(rule) for rule in rules])

    def encode_dialogue(self, dialogue: Sequence[Turn]) -> tuple[list[int], int]:
        """A dialogue's tokens, cut to what the longest rule leaves, and how many turns lost something."""
        room = self.config.max_tokens - self.config.max_rule_tokens - self._special_tokens
        encoded = encode_prompt(self.tokenizer, dialogue, room, reply_follows=False)
        return encoded.ids, encoded.turns_cut + bool(encoded.tokens_cut)

    def encode_rule(self, wording: str) -> list[int]:
        """A rule's tokens, all of them."""
        return encode_rule(self.tokenizer, wording)

    def with_rules(self, dialogue: tuple[list[int], int], rules: Sequence[Sequence[int]]) -> EncodedDialogue:
        """An encoded dialogue with encoded rules, each cut to what is allowed."""
        limit = self.config.max_rule_tokens
        ids, turns_cut = dialogue
        return EncodedDialogue(
            ids, [list(rule[:limit]) for rule in rules], turns_cut, sum(len(rule) > limit for rule in rules)
        )

    @property
    def _special_tokens(self) -> int:
        return 0 if self.config.is_causal else 3

    def logits_encoded(self, dialogues: Sequence[EncodedDialogue]) -> list[RuleLogits]:
        """`logits` of dialogues already encoded, in batches of like length."""
        found: list[RuleLogits | None] = [None] * len(dialogues)
        for places in self.batches(dialogues):
            for place, own in zip(places, self.logits_batch([dialogues[place] for place in places]), strict=True):
                found[place] = own
        return [own for own in found if own is not None]

    def batches(self, dialogues: Sequence[EncodedDialogue]) -> list[list[int]]:
        """Places of dialogues that go through the network together: like lengths, bounded number of tokens."""
        if self.config.reads_apart:
            widths, rows = [len(one.dialogue) for one in dialogues], [1] * len(dialogues)
        else:
            widths, rows = [one.width for one in dialogues], [len(one.rules) for one in dialogues]
        return batches_of_like_width(widths, rows, self.config.tokens_per_forward)

    def logits_batch(self, dialogues: Sequence[EncodedDialogue]) -> list[RuleLogits]:
        """`logits_encoded` in one forward pass."""
        rules = [rule for one in dialogues for rule in one.rules]
        owners = [owner for owner, one in enumerate(dialogues) for _ in one.rules]
        if self.config.reads_apart:
            pool = self._pool_apart
        else:
            pool = self._pool_decoded if self.config.is_causal else self._pool_encoded
        whole, pairs = pool([one.dialogue for one in dialogues], rules, owners)
        some, this, broken = self._read(whole, pairs, torch.tensor(owners, device=pairs.device))
        counts = [len(one.rules) for one in dialogues]
        return [RuleLogits(*own) for own in zip(broken.split(counts), this.split(counts), some, strict=True)]

    def _pool_apart(
        self, dialogues: list[list[int]], rules: list[list[int]], owners: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Dialogues as the two below have them, (D, 2H) or (D, H); (R, H) of rules read alone, each wording once."""
        place = {rule: number for number, rule in enumerate(dict.fromkeys(map(tuple, rules)))}
        wordings = [list(rule) for rule in place]
        if self.config.is_causal:
            whole = torch.cat(self._last_and_mean(dialogues), dim=1)
            last, mean = self._last_and_mean([rule or [pad_id(self.tokenizer)] for rule in wordings])
            read = last if self.config.pooling == "last" else mean
        else:
            whole, read = self._pool_rows(self._marked(dialogues)), self._pool_rows(self._marked(wordings))
        return whole, read[[place[tuple(rule)] for rule in rules]]

    def _last_and_mean(self, texts: list[list[int]]) -> tuple[Tensor, Tensor]:
        """A decoder's states (N, H) at each text's end, and their mean over it."""
        states = reply_states(
            self.trunk, texts, [[]] * len(texts), range(len(texts)),
            pad_id=pad_id(self.tokenizer), share_prefix=False, with_prompt_means=True,
        )  # fmt: skip
        assert states.prompt_means is not None
        return states.before, states.prompt_means

    def _pool_decoded(
        self, dialogues: list[list[int]], rules: list[list[int]], owners: list[int]
    ) -> tuple[Tensor, Tensor]:
        """A decoder's states: (D, 2H) where a dialogue ends, and their mean over it; (R, H) over a rule's tokens."""
        states = reply_states(
            self.trunk, dialogues, rules, owners,
            pad_id=pad_id(self.tokenizer), share_prefix=self.config.share_prefix, with_prompt_means=True,
        )  # fmt: skip
        first = [owners.index(owner) for owner in range(len(dialogues))]
        assert states.prompt_means is not None
        whole = torch.cat([states.before[first], states.prompt_means], dim=1)
        return whole, pool_reply(states, self.config.pooling)

    def _pool_encoded(
        self, dialogues: list[list[int]], rules: list[list[int]], owners: list[int]
    ) -> tuple[Tensor, Tensor]:
        """An encoder's states (D, H), (R, H) over rows: [CLS] dialogue [SEP], and [CLS] dialogue [SEP] rule [SEP]."""
        opened, mark = self._marked(dialogues), self._end_mark
        pairs = [[*opened[owner], *rule, *mark] for owner, rule in zip(owners, rules, strict=True)]
        return self._pool_rows(opened), self._pool_rows(pairs)

    def _marked(self, texts: list[list[int]]) -> list[list[int]]:
        """An encoder's rows: [CLS] text [SEP]."""
        first = [int(one) for one in [self.tokenizer.cls_token_id] if one is not None]
        return [[*first, *text, *self._end_mark] for text in texts]

    @property
    def _end_mark(self) -> list[int]:
        return [int(one) for one in [self.tokenizer.sep_token_id] if one is not None]

    def _pool_rows(self, rows: list[list[int]]) -> Tensor:
        ids, mask = pad_rows(rows, pad_id(self.tokenizer), device=device_of(self.network))
        hidden = self.trunk(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return pool_row(hidden, mask, self.config.pooling)

    def _read(self, dialogues: Tensor, rules: Tensor, owners: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(D,), (R,), (R,) logits from the states of dialogues and rules; rule r was asked about dialogue owners[r]."""
        with whole_precision(rules.device):
            dialogues, rules = dialogues.float(), rules.float()
            some = self.dialogue_head(dialogues).squeeze(-1)
            this = self.rule_head(rules).squeeze(-1)
            if self.dialogue_match is not None and self.rule_match is not None:
                matched = self.dialogue_match(dialogues)[owners] * self.rule_match(rules)
                this = this + matched.sum(dim=-1) / math.sqrt(self.config.match_rank)
            return some, this, both_logit(some[owners], this)

    def calibrate(self, temperature: float) -> None:
        """Divide logits by this from now on. It changes no order."""
        if not 0 < temperature < math.inf:
            raise ValueError(f"A temperature is above 0 (this one is {temperature}).")
        self.config = dataclasses.replace(self.config, temperature=float(temperature))

    # Files

    def save(self, folder: Path) -> None:
        """Write network (or its adapter), tokenizer and head: safetensors and JSON only.

        `checkpoints.save_checkpoint(folder, rule_model.save)` makes it complete or invisible.
        """
        from safetensors.torch import save_file

        folder = Path(folder)
        save_network(self.network, self.tokenizer, folder)
        own = {name: one.detach().contiguous() for name, one in self.head_parameters().items()}
        save_file(own, folder / HEAD_WEIGHTS)
        described = json.dumps(asdict(self.config), indent=1, sort_keys=True)
        (folder / HEAD_CONFIG).write_text(f"{described}\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, *, dtype: str = "float32", device: str = "cpu") -> Self:
        """The rule model saved in `folder`, ready to be asked. Raises ModelRefused, naming the file."""
        config = rule_head_config_in(Path(folder))
        network = load_base(Path(folder), config.is_language_model, dtype, device, trainable=False)
        return cls.around(network, Path(folder), config).eval()

    @classmethod
    def around(cls, network: Any, folder: Path, config: RuleHeadConfig) -> Self:
        """The tokenizer and the head saved in `folder`, on a network that is in memory already."""
        from safetensors.torch import load_file

        rule_model = cls(network, load_tokenizer(folder), config)
        rule_model._take_head(load_file(folder / HEAD_WEIGHTS, device=str(device_of(network))), folder)
        return rule_model

    @torch.no_grad()
    def _take_head(self, own: dict[str, Tensor], folder: Path) -> None:
        wanted = self.head_parameters()
        if {name: tensor.shape for name, tensor in own.items()} != {name: one.shape for name, one in wanted.items()}:
            raise ModelRefused(f"{folder / HEAD_WEIGHTS} does not fit {folder / HEAD_CONFIG}.")
        for name, parameter in wanted.items():
            parameter.copy_(own[name])


def both_logit(one: Tensor, other: Tensor) -> Tensor:
    """The logit of two independent things happening together: of sigmoid(one) · sigmoid(other), whatever their size."""
    both = functional.logsigmoid(one) + functional.logsigmoid(other)
    not_both = torch.logaddexp(functional.logsigmoid(-one), functional.logsigmoid(one) + functional.logsigmoid(-other))
    return both - not_both


def rule_head_config_in(folder: Path) -> RuleHeadConfig:
    """What the head saved in `folder` is. Raises ModelRefused for what is no rule model, or more than data."""
    check_model_folder(folder, needs=(network_config(folder), HEAD_CONFIG, HEAD_WEIGHTS))
    try:
        config = RuleHeadConfig(**json.loads((folder / HEAD_CONFIG).read_text(encoding="utf-8")))
        if not 0 < config.temperature < math.inf:
            raise TypeError(f"its temperature is {config.temperature}")
    except TypeError as error:
        raise ModelRefused(f"{folder / HEAD_CONFIG} does not describe a rule head: {error}.") from error
    return config


def _head_config(network: Any, speaks: bool, settings: RuleModelSettings) -> RuleHeadConfig:
    """Settings fitted to what the network is and takes."""
    trunk = trunk_of(network) if speaks else without_wrapper(network)
    causal = is_causal(trunk)
    pooling = "mean" if settings.pooling == "auto" else settings.pooling
    if causal and pooling == "cls":
        raise InvalidSettings(["Set pooling to mean or last: a decoder's first token has seen no rule."])
    max_tokens = min(settings.max_tokens, max_positions(trunk))
    return RuleHeadConfig(
        pooling=pooling,
        is_causal=causal,
        is_language_model=speaks,
        match_rank=settings.match_rank,
        max_tokens=max_tokens,
        max_rule_tokens=min(settings.max_rule_tokens, max(1, max_tokens // 2)),
        tokens_per_forward=settings.tokens_per_forward,
        share_prefix=settings.share_prefix,
        reads_apart=settings.reads_apart,
    )
