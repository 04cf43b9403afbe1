"""The ways a round can improve its policy, and what can be set for each beside PPO. No torch here.

An algorithm stands beside its settings: {"algorithm": "dpo", "beta": 0.1}. Without the name they are PPO's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rewardtrain.hyperparameters import (
    CHECKPOINT_SECONDS,
    LONGEST_REPLY,
    SCHEDULES,
    InvalidSettings,
    LoraSettings,
    PpoSettings,
    SamplingSettings,
    Settings,
    _not_negative,
    _one_of,
    _positive,
    _problems_of_corpus,
    _shares,
)

PPO, RLOO, DPO, BEST_OF_N, SFT = "ppo", "rloo", "dpo", "best-of-n", "sft"
TITLES = {PPO: "PPO", RLOO: "RLOO", DPO: "DPO", BEST_OF_N: "Best of n", SFT: "SFT"}
ALGORITHMS = (PPO, RLOO, DPO, BEST_OF_N)
"""What learns from people's judgements; SFT learns from the replies that they wrote."""
RESUMABLE = (PPO, BEST_OF_N)
COMPUTING = {"device": "cpu", "dtype": "float32", "mixed_precision": "off", "processes": 1}
"""How every algorithm but PPO computes, whatever the machine has: there is nothing to choose."""
SHARED = (
    "reward_model",
    "rule_model",
    "sampling",
    "lora",
    *COMPUTING,
)  # what settings of one algorithm also say about another


@dataclass(frozen=True)
class LearningSettings(Settings):
    """What every algorithm beside PPO has too. Names mean what they mean for PPO."""

    learning_rate: float = 1e-4
    schedule: str = "linear"
    final_learning_rate_share: float = 0.05
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    divergence_kl_nats: float = 50.0
    collapse_distinct_rate: float = 0.05
    seed: int = 0
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)

    @classmethod
    def _nested(cls) -> dict[str, type[Settings]]:
        return {"sampling": SamplingSettings, "lora": LoraSettings}

    def problems(self) -> list[str]:
        found = _positive(self, "learning_rate", "max_grad_norm", "divergence_kl_nats")
        found += _not_negative(self, "weight_decay") + _one_of(self, "schedule", SCHEDULES)
        found += _shares(self, "final_learning_rate_share", "collapse_distinct_rate")
        found += self.sampling.problems() + self.lora.problems()
        if not self.sampling.is_plain:
            found.append(
                "Sample with a temperature above 0, top_p 1 and top_k 0: the KL needs the replies' true chances."
            )
        if self.lora.is_on and "lm_head" in self.lora.target_modules:
            found.append("Take lm_head out of lora.target_modules: this algorithm does not train an adapter there.")
        return found


@dataclass(frozen=True)
class DrawingSettings(LearningSettings):
    """What algorithms have that learn from replies the policy draws, several to each prompt. Rules pay as in PPO."""

    updates: int = 32
    samples_per_update: int = 256
    samples_per_prompt: int = 4
    passes: int = 1
    minibatch_size: int = 64
    warmup_updates: int = 5
    length_penalty: float = 0.0
    length_free_tokens: int = 0
    malformed_penalty: float = 1.0
    repetition_penalty: float = 0.0
    reward_clip: float = 5.0
    rule_weight: float = 1.0
    probe_share: float = 0.5
    share_prefix: bool = True

    def problems(self) -> list[str]:
        found = super().problems() + _positive(
            self, "updates", "samples_per_update", "samples_per_prompt", "passes", "minibatch_size", "reward_clip"
        )
        found += _not_negative(
            self, "warmup_updates", "length_penalty", "length_free_tokens", "malformed_penalty", "repetition_penalty",
            "rule_weight",
        )  # fmt: skip
        found += _shares(self, "probe_share")
        return found + _divided(self, "samples_per_update", "samples_per_prompt")

    def as_drawn(self, **more: Any) -> PpoSettings:
        """How PPO's code draws, scores and checks with these settings."""
        return PpoSettings(minibatch_size=1, **{name: getattr(self, name) for name in DRAWN}, **more)


@dataclass(frozen=True)
class RlooSettings(DrawingSettings):
    """REINFORCE with a leave-one-out baseline, by TRL (arXiv:2402.14740).

    samples_per_prompt   each reply's baseline is the mean reward of the others to its prompt, so at least 2
    clip_range           TRL's: the ratio of chances that is clipped is the whole reply's; PPO's is each token's
    samples_per_forward  how many replies TRL takes through the network at once; only memory depends on it
    """

    samples_per_forward: int = 64
    clip_range: float = 0.2
    kl_coef: float = 0.15

    def problems(self) -> list[str]:
        found = super().problems() + _positive(self, "samples_per_forward", "clip_range")
        found += _not_negative(self, "kl_coef")
        if self.samples_per_prompt < 2:
            found.append("Set samples_per_prompt to 2 or more: RLOO compares the replies to one prompt.")
        for whole, part in (("samples_per_update", "minibatch_size"), ("minibatch_size", "samples_per_forward")):
            found += _divided(self, whole, part)
        return found

    @property
    def steps_per_update(self) -> int:
        """Optimiser steps that one drawing is used for."""
        return self.passes * self.samples_per_update // self.minibatch_size

    def as_drawn(self, **more: Any) -> PpoSettings:
        """With the coefficient of the KL that is taken off each reward."""
        return super().as_drawn(kl_coef=self.kl_coef, **more)


@dataclass(frozen=True)
class DpoSettings(LearningSettings):
    """Direct preference optimisation on the snapshot's pairs, by TRL (arXiv:2305.18290). Nothing drawn is learned from.

    beta             how strongly the policy is held to its start
    epochs           passes over the pairs, unless `steps` says how many optimiser steps to take
    probes           how often replies are drawn on the way to see how far the policy has moved: KL, length, reward
    pairs_per_forward  how many pairs TRL takes through the network at once; only memory depends on it
    """

    epochs: float = 2.0
    steps: int = 0
    pairs_per_step: int = 16
    pairs_per_forward: int = 16
    beta: float = 0.1
    warmup_share: float = 0.1
    max_reply_tokens: int = 256
    probes: int = 8
    samples_per_probe: int = 64

    def problems(self) -> list[str]:
        found = super().problems() + _positive(
            self, "epochs", "pairs_per_step", "pairs_per_forward", "beta", "max_reply_tokens", "probes",
            "samples_per_probe",
        )  # fmt: skip
        found += _not_negative(self, "steps") + _shares(self, "warmup_share")
        return found + _divided(self, "pairs_per_step", "pairs_per_forward")

    def as_drawn(self) -> PpoSettings:
        """How PPO's code draws and checks the probes."""
        return PpoSettings(
            samples_per_update=self.samples_per_probe, minibatch_size=1, seed=self.seed, sampling=self.sampling,
            divergence_kl_nats=self.divergence_kl_nats, collapse_distinct_rate=self.collapse_distinct_rate,
        )  # fmt: skip


@dataclass(frozen=True)
class BestOfNSettings(DrawingSettings):
    """Draw n replies to each prompt, keep the one the reward model scores highest, learn to say it (arXiv:2304.06767).

    Nothing but the learning rate holds it to its start. It learns from an eighth of what it draws, so minibatches are
    small: on the rehearsal's world 7 updates of one step each moved it 0.05 nats, of eight steps each 0.8 nats.

    samples_per_prompt  n
    passes              over the replies that were kept
    """

    samples_per_prompt: int = 8
    minibatch_size: int = 8
    tokens_per_forward: int = 4096
    checkpoint_seconds: float = CHECKPOINT_SECONDS

    def problems(self) -> list[str]:
        found = super().problems() + _positive(self, "tokens_per_forward") + _not_negative(self, "checkpoint_seconds")
        if self.samples_per_prompt < 2:
            found.append("Set samples_per_prompt to 2 or more: the best of one reply is that reply.")
        return found

    def as_drawn(self, **more: Any) -> PpoSettings:
        """With as many tokens at once as these settings say."""
        return super().as_drawn(tokens_per_forward=self.tokens_per_forward, **more)


@dataclass(frozen=True)
class SftSettings(LearningSettings):
    """Supervised fine-tuning on accepted demonstrations, by TRL's SFTTrainer (InstructGPT's first step).

    The defaults suit a policy of a few million parameters. For a large one set learning_rate to 1e-5 … 5e-5, and
    1e-4 … 2e-4 with lora.rank=16.

    divergence_kl_nats  is far above PPO's: what people wrote may be far from anything that the start would say
    epochs           passes over the demonstrations, unless `steps` says how many optimiser steps to take
    rows_per_step    demonstrations, or pieces of the corpus, that an optimiser step learns from
    rows_per_forward  how many of them go through the network at once; only memory depends on it
    max_reply_tokens  a longer reply is learned up to there, and without its end
    corpus           a file of plain text to learn from as well: every token of it, in pieces of `corpus_tokens`
    corpus_share     share of the learned tokens that come from it
    probes           how often it is measured on the way: held-out demonstrations, and replies of its own, of which
                     there are `samples_per_probe`
    """

    learning_rate: float = 3e-4
    divergence_kl_nats: float = 500.0
    epochs: float = 5.0
    steps: int = 0
    rows_per_step: int = 8
    rows_per_forward: int = 8
    warmup_share: float = 0.1
    max_reply_tokens: int = LONGEST_REPLY
    corpus: str = ""
    corpus_share: float = 0.1
    corpus_tokens: int = 256
    probes: int = 4
    samples_per_probe: int = 32

    def problems(self) -> list[str]:
        found = super().problems() + _positive(
            self, "epochs", "rows_per_step", "rows_per_forward", "max_reply_tokens", "probes", "samples_per_probe"
        )
        found += _not_negative(self, "steps") + _shares(self, "warmup_share")
        return found + _problems_of_corpus(self) + _divided(self, "rows_per_step", "rows_per_forward")

    def as_drawn(self) -> PpoSettings:
        """How PPO's code draws and checks the probes."""
        return PpoSettings(
            samples_per_update=self.samples_per_probe, minibatch_size=1, seed=self.seed, sampling=self.sampling,
            divergence_kl_nats=self.divergence_kl_nats, collapse_distinct_rate=self.collapse_distinct_rate,
        )  # fmt: skip


AnySettings = PpoSettings | RlooSettings | DpoSettings | BestOfNSettings | SftSettings
CLASSES: dict[str, type[AnySettings]] = {
    PPO: PpoSettings, RLOO: RlooSettings, DPO: DpoSettings, BEST_OF_N: BestOfNSettings, SFT: SftSettings
}  # fmt: skip
DRAWN = (
    "updates", "samples_per_update", "samples_per_prompt", "divergence_kl_nats", "collapse_distinct_rate",
    "length_penalty", "length_free_tokens", "malformed_penalty", "repetition_penalty", "reward_clip", "rule_weight",
    "probe_share", "share_prefix", "seed", "sampling",
)  # fmt: skip


def _divided(settings: Any, whole: str, part: str) -> list[str]:
    given, by = getattr(settings, whole), getattr(settings, part)
    return [f"Make {whole} ({given}) a multiple of {part} ({by})."] if by > 0 and given % by else []


# Which one


def algorithm_of(chosen: Mapping[str, Any]) -> str:
    """The algorithm that settings of a policy name; PPO where they name none.

    Raises  InvalidSettings for a name nobody knows
    """
    named = chosen.get("algorithm", PPO)
    if named not in tuple(CLASSES):
        raise InvalidSettings([f"Set algorithm to one of {', '.join(CLASSES)} (it is {named!r})."])
    return str(named)


def learns_from_demonstrations(chosen: Mapping[str, Any]) -> bool:
    """Whether a policy's settings ask for what people wrote: SFT, or PPO that mixes it in."""
    named = chosen.get("algorithm", PPO)
    return named == SFT or (named == PPO and _is_mixed_in(chosen))


def needs_demonstrations(chosen: Mapping[str, Any]) -> bool:
    """Whether it cannot do without them: PPO may mix in a corpus alone."""
    return learns_from_demonstrations(chosen) and not (_is_mixed_in(chosen) and chosen.get("corpus"))


def _is_mixed_in(chosen: Mapping[str, Any]) -> bool:
    return chosen.get("algorithm", PPO) == PPO and bool(chosen.get("ptx_coef", 0))


def title_of(named: str | None) -> str:
    """How an algorithm is called on pages; PPO where none is named."""
    return TITLES.get(named or PPO, str(named))


def read_settings(chosen: Mapping[str, Any]) -> AnySettings:
    """The settings of the algorithm that `chosen` names, validated.

    Raises  InvalidSettings, also where another algorithm than PPO is to compute in a way that only PPO can
    """
    named = algorithm_of(chosen)
    values = {name: value for name, value in chosen.items() if name != "algorithm"}
    if named != PPO:
        if found := _problems_of_computing(named, values):
            raise InvalidSettings(found)
        values = {name: value for name, value in values.items() if name not in COMPUTING}
    return CLASSES[named].from_dict(values)


def _problems_of_computing(named: str, values: Mapping[str, Any]) -> list[str]:
    return [
        f"Set {name} to {usual} (it is {values[name]}): "
        f"{title_of(named)} runs on the CPU alone, in float32 and one process."
        for name, usual in COMPUTING.items()
        if values.get(name, usual) != usual
    ]


def changed(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A policy's settings with what differs; where that is the algorithm, only what is said of any is kept.

    Where and how PPO was to compute is kept as well, so that an algorithm which cannot do so refuses it by name.
    """
    other = over.get("algorithm", base.get("algorithm", PPO)) != base.get("algorithm", PPO)
    kept = {name: value for name, value in base.items() if name in SHARED} if other else base
    return {**kept, **over}


def why_not_resumable(chosen: Mapping[str, Any]) -> str:
    """Why a run with these settings cannot go on from where it was; empty where it can."""
    named = chosen.get("algorithm", PPO)
    if named in RESUMABLE:
        return ""
    return f"{title_of(named)} saves no state on the way, so it cannot go on where it was. Start a new run."
