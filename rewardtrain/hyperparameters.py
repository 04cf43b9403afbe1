"""What can be set for sampling, reward and rule models, and PPO: defaults, meanings, what is refused. No torch here."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from rewardtrain.errors import LearningError


class InvalidSettings(LearningError, ValueError):
    """Settings that cannot work; the message names each and says what to set instead."""

    code = "invalid_settings"

    def __init__(self, problems: list[str]):
        self.problems = problems
        super().__init__(" ".join(problems))


class Settings:
    """What the settings below share: to and from plain dictionaries (as a run stores them), and a check."""

    def problems(self) -> list[str]:
        """One sentence for each value that cannot work."""
        raise NotImplementedError

    def validate(self) -> Self:
        """These settings, or InvalidSettings with every problem at once."""
        if found := self.problems():
            raise InvalidSettings(found)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, for JSON."""
        return asdict(self)  # type: ignore[call-overload]

    def identity(self) -> dict[str, Any]:
        """What the result depends on: everything but how often its state is saved."""
        return {name: value for name, value in self.to_dict().items() if name != "checkpoint_seconds"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Settings from what `to_dict` gave or somebody wrote, validated; names left out keep their defaults.

        Raises  InvalidSettings for names nobody knows, values of another kind than the default, and what cannot work
        """
        if not isinstance(values, Mapping):
            raise InvalidSettings([f"Write settings as names with values, not as {_shown(values)}."])
        known = {one.name: one for one in fields(cls)}  # type: ignore[arg-type]
        if unknown := sorted(set(values) - set(known)):
            raise InvalidSettings([f"There is no setting {', '.join(unknown)}; known are {', '.join(sorted(known))}."])
        given, nested = dict(values), cls._nested()
        kinds = {name: nested.get(name) or type(known[name].default) for name in given}
        if wrong := [problem for name in given for problem in wrong_kind(name, given[name], kinds[name])]:
            raise InvalidSettings(wrong)
        for name in nested.keys() & given.keys():
            if isinstance(given[name], Mapping):
                given[name] = nested[name].from_dict(given[name])
        return cls(**given).validate()

    @classmethod
    def _nested(cls) -> dict[str, type[Settings]]:
        return {}


KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a word",
    tuple: "a list of names",
}


def wrong_kind(name: str, value: Any, kind: type) -> list[str]:
    """A sentence where a value is not of the kind that a setting takes."""
    return [] if _is_a(value, kind) else [f"Set {name} to {KINDS.get(kind, 'names with values')}, not {_shown(value)}."]


def _is_a(value: Any, kind: type) -> bool:
    if kind is tuple:
        return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)
    if issubclass(kind, Settings):
        return isinstance(value, Mapping | kind)
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if kind is float:  # neither NaN nor infinite
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return isinstance(value, kind)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _positive(settings: object, *names: str) -> list[str]:
    return [f"Set {name} above 0 (it is {getattr(settings, name)})." for name in names if getattr(settings, name) <= 0]


def _not_negative(settings: object, *names: str) -> list[str]:
    return [
        f"Set {name} to 0 or more (it is {getattr(settings, name)})." for name in names if getattr(settings, name) < 0
    ]


def _shares(settings: object, *names: str) -> list[str]:
    return [
        f"Set {name} between 0 and 1 (it is {getattr(settings, name)})."
        for name in names
        if not 0 <= getattr(settings, name) <= 1
    ]


def _one_of(settings: object, name: str, allowed: tuple[str, ...]) -> list[str]:
    value = getattr(settings, name)
    return [] if value in allowed else [f"Set {name} to one of {', '.join(allowed)} (it is {value!r})."]


def _problems_of_dtype(settings: Any, whose: str) -> list[str]:
    found = _one_of(settings, "dtype", DTYPES)
    if settings.dtype in DTYPES[1:] and not settings.lora.is_on:
        found.append(
            f"Set dtype to float32, or lora.rank above 0: {whose} small steps are lost in {settings.dtype} weights."
        )
    return found


def _problems_of_device(settings: Any) -> list[str]:
    found = _one_of(settings, "mixed_precision", MIXED_PRECISIONS)
    if not re.fullmatch(DEVICE, settings.device):
        found.append(f"Set device to cpu, cuda or cuda:NUMBER (it is {settings.device!r}).")
    return found


def _problems_of_computing(settings: Any) -> list[str]:
    found = _problems_of_device(settings)
    if not 1 <= settings.processes <= MOST_PROCESSES:
        found.append(f"Set processes between 1 and {MOST_PROCESSES} (it is {settings.processes}).")
    if settings.processes > 1 and ":" in settings.device:
        found.append(
            f"Set device to cuda: {settings.processes} processes take a device each (it is {settings.device})."
        )
    return found


def _problems_of_corpus(settings: Any) -> list[str]:
    found = []
    if not 0 < settings.corpus_share < 1:
        found.append(f"Set corpus_share above 0 and below 1 (it is {settings.corpus_share}).")
    if settings.corpus_tokens < SHORTEST_PIECE:
        found.append(f"Set corpus_tokens to {SHORTEST_PIECE} or more (it is {settings.corpus_tokens}).")
    return found


@dataclass(frozen=True)
class SamplingSettings(Settings):
    """How replies are drawn. temperature 0 takes the likeliest token; top_p 1 and top_k 0 leave the choice whole."""

    max_new_tokens: int = 64
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_prompt_tokens: int = 448

    def problems(self) -> list[str]:
        found = _positive(self, "max_new_tokens", "max_prompt_tokens") + _not_negative(self, "temperature", "top_k")
        if not 0 < self.top_p <= 1:
            found.append(f"Set top_p above 0 and at most 1 (it is {self.top_p}).")
        return found

    @property
    def is_plain(self) -> bool:
        """True if a token's chance is the network's own at this temperature, nothing cut off."""
        return self.temperature > 0 and self.top_p >= 1 and self.top_k == 0


@dataclass(frozen=True)
class LoraSettings(Settings):
    """Low-rank adapters for large bases. rank 0 switches them off: every weight is trained."""

    rank: int = 0
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ()  # empty: every linear layer of the trunk

    def __post_init__(self) -> None:
        object.__setattr__(self, "target_modules", tuple(self.target_modules))

    def problems(self) -> list[str]:
        found = _not_negative(self, "rank")
        if self.rank:
            found += _positive(self, "alpha")
        if not 0 <= self.dropout < 1:
            found.append(f"Set dropout of LoRA to 0 or more and below 1 (it is {self.dropout}).")
        return found

    @property
    def is_on(self) -> bool:
        return self.rank > 0


TIES = ("none", "half")
MARGINS = ("none", "strength")
ALL_BAD = ("off", "on")
LIKELIHOODS = ("auto", "off")
POOLINGS = ("auto", "last", "mean", "cls")
SCHEDULES = ("constant", "linear", "cosine")
DTYPES = ("float32", "bfloat16", "float16")
MIXED_PRECISIONS = ("off", "bfloat16")
CREDITS = ("token", "reply")
DEVICE = r"cpu|cuda(:\d+)?"
MOST_PROCESSES = 64
CHECKPOINT_SECONDS = 120.0
LONGEST_REPLY = 256  # tokens of a demonstration that are learned
SHORTEST_PIECE = 8  # tokens of a corpus that are learned together


@dataclass(frozen=True)
class RewardModelSettings(Settings):
    """How a preference reward model is trained.

    The defaults suit a small base of a few million parameters: two epochs, because more memorise the annotators'
    errors. For a large decoder set learning_rate to 1e-5 … 5e-5, for a small pretrained encoder to 5e-5 … 1e-4.

    dtype            what frozen weights are kept in under LoRA; what is trained is float32 always
    checkpoint_seconds  how much work a kill may cost: the state is saved when so long has passed; 0 saves each step
    mixed_precision  bfloat16 multiplies matrices in that while weights stay in dtype: faster on a GPU and on processors
                     with avx512_bf16, several times slower on others
    gradient_checkpointing  keep each layer's input alone and compute the layer again for its gradient: far less memory
                     for about a third more work; dialogues are then encoded once per reply
    processes        how many share the work on this machine; with device cuda each has a GPU of its own
    """

    epochs: float = 2.0
    learning_rate: float = 3e-4
    final_learning_rate_share: float = 0.1
    warmup_share: float = 0.05
    schedule: str = "cosine"
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    comparisons_per_step: int = 8
    tokens_per_forward: int = 4096
    max_tokens: int = 512
    max_reply_tokens: int = 256
    ties: str = "half"
    margin: str = "none"
    all_bad: str = "off"
    pooling: str = "auto"
    likelihood: str = "auto"
    share_prefix: bool = True
    dropout: bool = True
    early_stopping: bool = False
    evaluations_per_epoch: int = 1
    patience: int = 1
    dtype: str = "float32"
    mixed_precision: str = "off"
    gradient_checkpointing: bool = False
    device: str = "cpu"
    processes: int = 1
    seed: int = 0
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    lora: LoraSettings = field(default_factory=LoraSettings)

    @classmethod
    def _nested(cls) -> dict[str, type[Settings]]:
        return {"lora": LoraSettings}

    def problems(self) -> list[str]:
        found = _positive(
            self, "epochs", "learning_rate", "max_grad_norm", "comparisons_per_step", "tokens_per_forward",
            "max_tokens", "max_reply_tokens", "evaluations_per_epoch", "patience",
        )  # fmt: skip
        found += _not_negative(self, "weight_decay", "checkpoint_seconds")
        found += _shares(self, "warmup_share", "final_learning_rate_share")
        found += _one_of(self, "ties", TIES) + _one_of(self, "margin", MARGINS) + _one_of(self, "all_bad", ALL_BAD)
        found += _one_of(self, "pooling", POOLINGS) + _one_of(self, "likelihood", LIKELIHOODS)
        found += _one_of(self, "schedule", SCHEDULES)
        found += _problems_of_dtype(self, "a reward model's") + _problems_of_computing(self)
        if self.max_reply_tokens >= self.max_tokens:
            found.append(
                f"Set max_reply_tokens ({self.max_reply_tokens}) below max_tokens ({self.max_tokens}): "
                "the dialogue needs room as well."
            )
        return found + self.lora.problems()


@dataclass(frozen=True)
class RuleModelSettings(Settings):
    """How a rule model is trained.

    The defaults were found on a base of two million weights and 200 probes; docs/rule_models.md has what was tried.

    learning_rate    of the network; head_learning_rate of the heads on it
    balance          how far broken and followed are made to weigh the same: 0 not at all, 1 wholly. What it does to the
                     probabilities is taken out of them again
    unjudged_rules   of the rules nobody judged a dialogue by, so many are drawn at each step and taken for broken as
                     often as rules that were judged and not probed; 0 leaves them out
    unjudged_weight  how much each weighs beside one verdict
    dialogue_weight  of the question whether the dialogue broke any rule, beside those about rules; 0 leaves it out
    aim_weight       of the question which rule a probe was meant to break, whether it did or not; 0 leaves it out. It
                     tells rules apart far sooner; far above 0.3 it tells breaches from attempts worse
    match_rank       width of the product in which a dialogue and a rule are compared; 0 leaves it out
    reads_apart      a rule's wording is read by itself, once for all dialogues, and meets them in the product: asking
                     by twenty rules costs what asking by one does. Off, it is read after each dialogue, which a large
                     base may use better
    dtype, mixed_precision, gradient_checkpointing  as of the reward model
    """

    epochs: float = 4.0
    learning_rate: float = 1e-4
    head_learning_rate: float = 3e-3
    final_learning_rate_share: float = 0.1
    warmup_share: float = 0.1
    schedule: str = "cosine"
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    dialogues_per_step: int = 8
    tokens_per_forward: int = 4096
    max_tokens: int = 512
    max_rule_tokens: int = 96
    pooling: str = "auto"
    match_rank: int = 64
    reads_apart: bool = True
    balance: float = 0.5
    unjudged_rules: int = 4
    unjudged_weight: float = 0.5
    dialogue_weight: float = 1.0
    aim_weight: float = 0.3
    share_prefix: bool = True
    dropout: bool = True
    early_stopping: bool = False
    evaluations_per_epoch: int = 1
    patience: int = 2
    dtype: str = "float32"
    mixed_precision: str = "off"
    gradient_checkpointing: bool = False
    device: str = "cpu"
    seed: int = 0
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    lora: LoraSettings = field(default_factory=LoraSettings)

    @classmethod
    def _nested(cls) -> dict[str, type[Settings]]:
        return {"lora": LoraSettings}

    def problems(self) -> list[str]:
        found = _positive(
            self, "epochs", "learning_rate", "head_learning_rate", "max_grad_norm", "dialogues_per_step",
            "tokens_per_forward", "max_tokens", "max_rule_tokens", "evaluations_per_epoch", "patience",
        )  # fmt: skip
        found += _not_negative(
            self,
            "weight_decay",
            "unjudged_rules",
            "unjudged_weight",
            "dialogue_weight",
            "aim_weight",
            "match_rank",
            "checkpoint_seconds",
        )
        found += _shares(self, "warmup_share", "final_learning_rate_share", "balance")
        found += _one_of(self, "pooling", POOLINGS) + _one_of(self, "schedule", SCHEDULES)
        found += _problems_of_dtype(self, "a rule model's") + _problems_of_device(self)
        if self.max_rule_tokens >= self.max_tokens:
            found.append(
                f"Set max_rule_tokens ({self.max_rule_tokens}) below max_tokens ({self.max_tokens}): "
                "the dialogue needs room as well."
            )
        if self.reads_apart and not self.match_rank:
            found.append(
                "Set match_rank above 0, or reads_apart=false: read apart, dialogue and rule meet in it alone."
            )
        return found + self.lora.problems()


@dataclass(frozen=True)
class PpoSettings(Settings):
    """How a policy is optimised. Rates and counts are per update unless their name says otherwise.

    The defaults suit a policy of a few million parameters on a CPU: few updates of many samples. With a quarter of the
    samples the starter breaks as few rules, but its English suffers from the noise (2 points fewer fluent replies).

    credit           token: each token is paid by how much it moved the reward model's score, where that model reads
                     from left to right and cuts text into the policy's tokens; reply: the last one gets the whole score
    value_learning_rate  of the value head, which starts at zero; 0: one over the network's width, by which a value can
                     follow the reward within a few steps, however small the policy's own rate
    rule_weight      of what rules pay beside the preference, both in standard deviations; 0: no rule is asked about
    probe_share      share of an update's prompts that probe a rule, where people have probed any: each opening at
                     most once an update
    ptx_coef         how much the loss on demonstrations and corpus weighs beside PPO's own, each a mean over its tokens
                     (PPO-ptx, arXiv:2203.02155); 0: nothing is mixed in
    ptx_rows         demonstrations, or pieces of the corpus, that are mixed into each minibatch
    corpus, corpus_share, corpus_tokens  as of SFT
    dtype, mixed_precision, gradient_checkpointing, processes  as of the reward model; drawing and updating use the same
                     precision
    """

    updates: int = 32
    samples_per_update: int = 256
    samples_per_prompt: int = 1
    passes: int = 2
    minibatch_size: int = 64
    tokens_per_forward: int = 4096
    learning_rate: float = 1e-4
    warmup_updates: int = 5
    schedule: str = "linear"
    final_learning_rate_share: float = 0.05
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    clip_range: float = 0.2
    value_clip_range: float = 0.2
    value_coef: float = 0.1
    value_learning_rate: float = 0.0
    entropy_coef: float = 0.0
    gamma: float = 1.0
    gae_lambda: float = 0.95
    credit: str = "token"
    kl_coef: float = 0.15
    kl_controller: str = "fixed"
    kl_target_nats: float = 1.0
    kl_horizon_samples: int = 2000
    pass_kl_limit: float = 0.1
    divergence_kl_nats: float = 50.0
    collapse_distinct_rate: float = 0.05
    length_penalty: float = 0.0
    length_free_tokens: int = 0
    malformed_penalty: float = 1.0
    repetition_penalty: float = 0.0
    reward_clip: float = 5.0
    rule_weight: float = 1.0
    probe_share: float = 0.5
    ptx_coef: float = 0.0
    ptx_rows: int = 16
    corpus: str = ""
    corpus_share: float = 0.1
    corpus_tokens: int = 256
    share_prefix: bool = True
    dtype: str = "float32"
    mixed_precision: str = "off"
    gradient_checkpointing: bool = False
    device: str = "cpu"
    processes: int = 1
    seed: int = 0
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)

    @classmethod
    def _nested(cls) -> dict[str, type[Settings]]:
        return {"sampling": SamplingSettings, "lora": LoraSettings}

    def problems(self) -> list[str]:
        found = _positive(
            self, "updates", "samples_per_update", "samples_per_prompt", "passes", "minibatch_size",
            "tokens_per_forward", "learning_rate", "max_grad_norm", "clip_range", "value_clip_range",
            "kl_target_nats", "kl_horizon_samples", "pass_kl_limit", "divergence_kl_nats", "reward_clip", "ptx_rows",
        )  # fmt: skip
        found += _not_negative(
            self, "warmup_updates", "weight_decay", "value_coef", "value_learning_rate", "entropy_coef", "kl_coef",
            "length_penalty", "length_free_tokens", "malformed_penalty", "repetition_penalty", "checkpoint_seconds",
            "rule_weight", "ptx_coef",
        )  # fmt: skip
        found += _problems_of_corpus(self)
        found += _shares(
            self, "gamma", "gae_lambda", "final_learning_rate_share", "collapse_distinct_rate", "probe_share"
        )
        found += _one_of(self, "schedule", SCHEDULES) + _one_of(self, "kl_controller", ("fixed", "adaptive"))
        found += _one_of(self, "credit", CREDITS)
        found += _problems_of_dtype(self, "PPO's") + _problems_of_computing(self)
        found += self._problems_of_division() + self.sampling.problems() + self.lora.problems()
        if not self.sampling.is_plain:
            found.append(
                "Sample PPO's replies with a temperature above 0, top_p 1 and top_k 0: "
                "the update needs their true chances."
            )
        return found

    def _problems_of_division(self) -> list[str]:
        found = []
        if self.samples_per_prompt > 0 and self.samples_per_update % self.samples_per_prompt:
            found.append(
                f"Make samples_per_update ({self.samples_per_update}) a multiple of "
                f"samples_per_prompt ({self.samples_per_prompt})."
            )
        if self.minibatch_size > self.samples_per_update:
            found.append(
                f"Set minibatch_size ({self.minibatch_size}) to at most samples_per_update ({self.samples_per_update})."
            )
        return found

    @property
    def prompts_per_update(self) -> int:
        return self.samples_per_update // self.samples_per_prompt


def learning_rate_share(step: int, steps: int, *, warmup: int, schedule: str, final: float) -> float:
    """What share of the learning rate step `step` (from 0) of `steps` uses: a linear warm-up, then the schedule.

    The first step already moves (1 / warmup); the last one uses `final` unless the schedule is constant.
    """
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    falling = 1 - progress if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return final + (1 - final) * max(0.0, falling)
