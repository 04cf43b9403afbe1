"""Proximal policy optimisation against learned rewards, held to a reference policy (arXiv:1707.06347, 1909.08593)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from rewardtrain.advantages import gae
from rewardtrain.chat import EncodedPrompt
from rewardtrain.credit import paid_by_token
from rewardtrain.errors import NothingToLearn, TrainingDiverged
from rewardtrain.examples import Example, Mixture
from rewardtrain.hyperparameters import PpoSettings, learning_rate_share
from rewardtrain.kl import KlController, kl_controller, token_kl
from rewardtrain.lora import REWARD, trainable_parameters
from rewardtrain.losses import clipped_policy_loss, clipped_value_loss, masked_mean, masked_whiten
from rewardtrain.metrics import explained_variance
from rewardtrain.optimizer import adamw, set_share
from rewardtrain.policy import PolicyWithValue, ReferencePolicy
from rewardtrain.precision import mixed_precision, recomputed_layers
from rewardtrain.rollouts import (
    LedgerEntry,
    Prompt,
    Reward,
    Rollout,
    check_rollout,
    ledger_entries,
    mean_chances,
    places_of_update,
    sample_rollout,
    score,
    tokens_of_group,
)
from rewardtrain.sampling import encode_for_sampling
from rewardtrain.seeds import stable_seed
from rewardtrain.shared_prefix import length_buckets
from rewardtrain.team import ALONE, Team
from rewardtrain.training_state import (
    StateKeeper,
    TrainingState,
    capture,
    check_finite,
    data_hash,
    restore,
    weights_hash,
)

VALUE_STEP = 1.0  # about how far one optimiser step may move a value, in standard deviations of the reward


@dataclass(frozen=True)
class PpoStep:
    """What one update did. Means are over its samples, or over their tokens where a token has its own number."""

    step: int  # from 1
    steps: int
    reward: float  # mean sum of the terms, KL left out
    terms: dict[str, float]  # mean of each term as weighed
    kl_nats: float  # mean over replies of the summed per-token difference
    kl_coef: float
    entropy: float
    clip_fraction: float
    approximate_kl: float  # per token, between the policy that drew and the one after the update
    policy_loss: float
    value_loss: float
    explained_variance: float
    gradient_norm: float
    learning_rate: float
    response_tokens: float
    finished_rate: float
    distinct_rate: float
    credit_rate: float  # share of tokens that were paid for what they did
    passes: int
    samples: int  # drawn so far
    followed: dict[str, float] = field(default_factory=dict)  # mean chances that rules were followed, by name
    mixed_in: dict[str, float] = field(default_factory=dict)  # PPO-ptx: the loss on what was mixed in, nats a token

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class PpoResult:
    """The policy was changed in place; this is what happened to it."""

    policy: PolicyWithValue
    steps: list[PpoStep]
    samples: int
    dialogues_cut: int
    turns_cut: int
    kl_coef: float

    @property
    def kl_nats(self) -> float:
        """Mean over the last fifth of the updates, because one update's is noisy."""
        last = self.steps[-max(1, len(self.steps) // 5) :]
        return sum(step.kl_nats for step in last) / len(last)


@dataclass
class UpdateStatistics:
    """Sums over the passes of one update."""

    tokens: int = 0
    loss_tokens: float = 0
    policy_loss: float = 0.0
    value_loss: float = 0.0
    clipped: float = 0.0
    entropy: float = 0.0
    last_pass_kl: float = 0.0
    gradient_norm: float = 0.0
    optimizer_steps: int = 0
    passes: int = 0
    ptx_loss: float = 0.0
    ptx_tokens: float = 0

    def sum_over(self, team: Team) -> None:
        """Make of each process's sums those of all; the others are the same everywhere."""
        names = ("loss_tokens", "policy_loss", "value_loss", "clipped", "entropy", "ptx_loss", "ptx_tokens")
        for name, value in zip(names, team.sums(getattr(self, name) for name in names), strict=True):
            setattr(self, name, value)


def train_policy(
    prompts: Sequence[Prompt],
    *,
    policy: PolicyWithValue,
    ref_policy: ReferencePolicy,
    rewards: Sequence[Reward],
    settings: PpoSettings,
    mixed_in: Mixture | None = None,
    on_begin: Callable[[int, int], object] = lambda steps, done: None,
    on_step: Callable[[PpoStep], object] = lambda step: None,
    ledger: Callable[[list[LedgerEntry]], object] = lambda entries: None,
    keeper: StateKeeper | None = None,
    team: Team = ALONE,
) -> PpoResult:
    """Optimise `policy` in place; saving it is the caller's.

    prompts     dialogues that end where a reply is wanted; each update takes the next ones of a shuffled round, of
                probe openings (`rule_term.ProbeOpening`) and others as `probe_share` says
    ref_policy  from `reference_policy(policy)`, taken before the first update
    mixed_in    demonstrations and a corpus that are said word for word beside it, where `ptx_coef` asks for that
    on_begin    told once how many updates there will be, and how many were done before the run was resumed
    on_step     told of every update as it ends, before its state is saved
    ledger      given the update's samples, each with every term of its reward
    keeper      where states are saved, and from where a killed run goes on; without one nothing is saved
    team        the processes that share the work; each calls this with the same arguments
    Raises      TrainingDiverged at numbers that are none, a KL that explodes or a policy that gives everybody the same
                reply; NothingToLearn without prompts or rewards; CheckpointError where a state cannot be written or
                used; whatever the callbacks raise
    """
    settings.validate()
    if not prompts or not rewards:
        raise NothingToLearn("PPO needs at least one prompt and one reward.")
    if settings.ptx_coef and not (mixed_in and len(mixed_in)):
        raise NothingToLearn(
            "PPO-ptx mixes in demonstrations or a corpus, and there are none. "
            "Have some accepted, name a corpus, or set ptx_coef to 0."
        )
    encoded = [encode_for_sampling(policy, policy.tokenizer, prompt, settings.sampling) for prompt in prompts]
    parameters = trainable_parameters(policy)
    value_rate = value_learning_rate(policy, settings)
    optimizer = adamw(
        parameters, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay,
        own_rates=[(parameter, value_rate) for parameter in policy.value_head.parameters()],
    )  # fmt: skip
    kl_control = kl_controller(
        settings.kl_controller, kl_coef=settings.kl_coef, target_nats=settings.kl_target_nats,
        horizon_samples=settings.kl_horizon_samples,
    )  # fmt: skip
    policy.eval()  # no dropout: the update must see the policy that drew
    steps: list[PpoStep] = []
    if keeper is not None:
        identity = _identity(policy, ref_policy, encoded, rewards, settings, mixed_in)
        steps = team.first_then_others(lambda: _resume(keeper, policy, optimizer, kl_control, identity))
    on_begin(settings.updates, len(steps))
    for step in range(len(steps), settings.updates):
        places = places_of_update(prompts, step, settings)
        with mixed_precision(settings):
            # 1 sample
            rollout = sample_rollout(
                policy, ref_policy, [prompts[p] for p in places], [encoded[p] for p in places], settings, step, team
            )
            # 2 score
            score(rollout, rewards, settings, team)
        # 3 reward
        rollout.rewards = token_rewards(rollout, kl_control.kl_coef)
        # 4 advantage
        estimate_advantages(rollout, settings)
        check_rollout(rollout, step, settings)
        # 5 update
        learning_rate = _set_learning_rate(optimizer, step, settings)
        statistics = update(policy, optimizer, parameters, rollout, settings, step, team, mixed_in)
        # 6 log
        done = _summary(rollout, statistics, kl_control, settings, step, learning_rate)
        ledger(ledger_entries(rollout, kl_control.kl_coef, step))
        steps.append(done)
        on_step(done)
        kl_control.update(done.kl_nats, len(rollout))
        if keeper is not None:
            keeper.after_step(step + 1, settings.updates, lambda: _state(policy, optimizer, kl_control, steps))
    check_finite(parameters)
    return PpoResult(
        policy=policy,
        steps=steps,
        samples=settings.updates * settings.samples_per_update,
        dialogues_cut=sum(bool(one.turns_cut) for one in encoded),
        turns_cut=sum(one.turns_cut for one in encoded),
        kl_coef=kl_control.kl_coef,
    )


# Going on after a kill


def _identity(
    policy: PolicyWithValue,
    ref_policy: ReferencePolicy,
    encoded: Sequence[EncodedPrompt],
    rewards: Sequence[Reward],
    settings: PpoSettings,
    mixed_in: Mixture | None,
) -> dict[str, Any]:
    """What the trained weights follow from; what a scorer is, only its caller can say."""
    return {
        "trainer": "ppo",
        "settings": settings.identity(),
        "start": weights_hash(policy, leave_out=f".{REWARD}."),  # of a reward model on the same base its caller says
        "reference": weights_hash(ref_policy.policy, leave_out=f".{REWARD}."),
        "prompts": data_hash(one.ids for one in encoded),
        "rewards": [one.identity() for one in rewards],
    } | ({"mixed in": _data_of(mixed_in)} if mixed_in else {})


def _data_of(mixed_in: Mixture) -> str:
    return data_hash([one.start, *one.ids] for one in [*mixed_in.demonstrations, *mixed_in.pieces])


def _state(
    policy: PolicyWithValue, optimizer: torch.optim.Optimizer, kl_control: KlController, steps: Sequence[PpoStep]
) -> TrainingState:
    values = {"kl_coef": kl_control.kl_coef, "history": [step.to_dict() for step in steps]}
    return TrainingState(len(steps), capture(policy, optimizer), values)


def _resume(
    keeper: StateKeeper, policy: PolicyWithValue, optimizer: torch.optim.Optimizer, kl_control: KlController,
    identity: dict[str, Any],
) -> list[PpoStep]:  # fmt: skip
    """Put everything back as it was after the last update that was saved; gives what was done until then."""
    state = keeper.resume(identity)
    if state is None:
        return []
    restore(policy, optimizer, state.tensors)
    kl_control.kl_coef = state.values["kl_coef"]
    return [PpoStep(**step) for step in state.values["history"]]


# 3 reward


def token_rewards(rollout: Rollout, kl_coef: float) -> Tensor:
    """(B, T): the KL penalty at every token (InstructGPT, eq. 2 without ptx), and the reward where it was earned.

    Where no scorer knows what a token did, the whole score is paid at the last one.
    """
    penalties = -kl_coef * token_kl(rollout.logprobs, rollout.ref_logprobs)
    return torch.where(rollout.response_mask, penalties, 0.0) + paid_by_token(rollout.progress, rollout.response_mask)


# 4 advantage


def estimate_advantages(rollout: Rollout, settings: PpoSettings) -> None:
    """Fill in returns, and advantages whitened over the whole update."""
    raw = gae(rollout.rewards, rollout.values, rollout.response_mask, gamma=settings.gamma, lam=settings.gae_lambda)
    rollout.returns = torch.where(rollout.response_mask, raw + rollout.values, 0.0)
    rollout.advantages = masked_whiten(raw, rollout.response_mask)


# 5 update


def update(
    policy: PolicyWithValue,
    optimizer: torch.optim.Optimizer,
    parameters: list[torch.nn.Parameter],
    rollout: Rollout,
    settings: PpoSettings,
    step: int,
    team: Team = ALONE,
    mixed_in: Mixture | None = None,
) -> UpdateStatistics:
    """Passes over the rollout in minibatches; fewer of them when the policy has already moved far enough."""
    statistics = UpdateStatistics()
    for number in range(settings.passes):
        kl_sum, tokens = 0.0, 0
        for turn, places in enumerate(minibatches(rollout, settings, step, number)):
            rows = rows_mixed_in(mixed_in, settings, step, number, turn)
            kl_sum += _minibatch_step(policy, optimizer, parameters, rollout, places, settings, statistics, team, rows)
            tokens += int(rollout.response_mask[places].sum())
        (kl_sum,) = team.sums([kl_sum])
        statistics.passes += 1
        statistics.last_pass_kl = kl_sum / tokens
        if statistics.last_pass_kl > settings.pass_kl_limit:
            break
    statistics.sum_over(team)
    return statistics


def minibatches(rollout: Rollout, settings: PpoSettings, step: int, number: int) -> Iterator[list[int]]:
    """Places of samples in an order known from seed, update and pass; samples of one prompt stay together."""
    groups: dict[int, list[int]] = {}
    for place, owner in enumerate(rollout.owners):
        groups.setdefault(owner, []).append(place)
    order = list(groups.values())
    random.Random(stable_seed(settings.seed, "minibatches", step, number)).shuffle(order)
    flat = [place for group in order for place in group]
    for start in range(0, len(flat), settings.minibatch_size):
        yield flat[start : start + settings.minibatch_size]


def rows_mixed_in(mixed_in: Mixture | None, settings: PpoSettings, step: int, number: int, turn: int) -> list[Example]:
    """What is mixed into a minibatch: the next rows, known from update, pass and its place among the pass's alone."""
    if mixed_in is None or not settings.ptx_coef:
        return []
    each = math.ceil(settings.samples_per_update / settings.minibatch_size)
    first = ((step * settings.passes + number) * each + turn) * settings.ptx_rows
    return [mixed_in[first + place] for place in range(settings.ptx_rows)]


def _minibatch_step(
    policy: PolicyWithValue,
    optimizer: torch.optim.Optimizer,
    parameters: list[torch.nn.Parameter],
    rollout: Rollout,
    places: list[int],
    settings: PpoSettings,
    statistics: UpdateStatistics,
    team: Team = ALONE,
    rows: Sequence[Example] = (),
) -> float:
    """One optimiser step; gives this process's part of the summed estimate of the KL to the policy that drew."""
    tokens = int(rollout.response_mask[places].sum())
    kl_sum = 0.0
    for part in _parts(rollout, places, settings, team):
        with mixed_precision(settings), recomputed_layers(policy.network, settings.gradient_checkpointing):
            loss, part_kl = _loss(policy, rollout, part, settings, statistics)
        (loss / tokens).backward()
        kl_sum += part_kl
    mix_in(policy, rows, settings, statistics, team)
    team.sum_gradients(parameters)
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm))
    if not math.isfinite(norm):
        raise TrainingDiverged(f"A gradient's norm was {norm}. Lower learning_rate.")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    statistics.optimizer_steps += 1
    statistics.gradient_norm += norm
    statistics.tokens += tokens
    return kl_sum


def _parts(rollout: Rollout, places: list[int], settings: PpoSettings, team: Team) -> list[list[int]]:
    """What this process does of the minibatch, in parts of like length that fit `tokens_per_forward`.

    Samples of one prompt stay together.
    """
    groups: dict[int, list[int]] = {}
    for place in places:
        groups.setdefault(rollout.owners[place], []).append(place)
    own = team.own(list(groups.values()))
    widths = [
        tokens_of_group(rollout.prompt_ids[rollout.owners[group[0]]], [rollout.replies[place] for place in group])
        for group in own
    ]
    buckets = length_buckets(widths, settings.tokens_per_forward)
    return [[place for group in bucket for place in own[group]] for bucket in buckets]


def _loss(
    policy: PolicyWithValue, rollout: Rollout, places: list[int], settings: PpoSettings, statistics: UpdateStatistics
) -> tuple[Tensor, float]:
    """(loss summed over these samples' tokens, summed KL estimate)."""
    owners = sorted({rollout.owners[place] for place in places})
    renumbered = {owner: number for number, owner in enumerate(owners)}
    now = policy.evaluate_replies(
        [rollout.prompt_ids[owner] for owner in owners],
        [rollout.replies[place].token_ids for place in places],
        [renumbered[rollout.owners[place]] for place in places],
        temperature=settings.sampling.temperature,
        share_prefix=settings.share_prefix,
        with_entropy=settings.entropy_coef > 0,
    )
    assert now.values is not None
    width = now.mask.shape[1]
    old_logprobs, old_values, advantages, returns = (
        one[places, :width].to(now.mask.device)
        for one in (rollout.logprobs, rollout.values, rollout.advantages, rollout.returns)
    )
    policy_loss = clipped_policy_loss(now.logprobs, old_logprobs, advantages, now.mask, clip_range=settings.clip_range)
    value_loss = clipped_value_loss(now.values, old_values, returns, now.mask, clip_range=settings.value_clip_range)
    entropy = now.entropy.sum() if now.entropy is not None else now.logprobs.new_zeros(())
    statistics.loss_tokens += int(now.mask.sum())
    statistics.policy_loss += float(policy_loss.loss.detach())
    statistics.value_loss += float(value_loss.detach())
    statistics.clipped += float(policy_loss.clip_fraction)
    statistics.entropy += float(entropy.detach())
    loss = policy_loss.loss + settings.value_coef * value_loss - settings.entropy_coef * entropy
    return loss, float(policy_loss.approximate_kl)


def mix_in(
    policy: PolicyWithValue,
    rows: Sequence[Example],
    settings: PpoSettings,
    statistics: UpdateStatistics,
    team: Team = ALONE,
) -> None:
    """Add to the gradients those of `ptx_coef` times the mean cross entropy of these rows (InstructGPT, eq. 2).

    The chances are the network's own, whatever temperature replies are drawn at.
    """
    tokens = sum(len(row.learned) for row in rows)
    own = team.own(rows)
    for places in length_buckets([len(row.ids) for row in own], settings.tokens_per_forward):
        part = [own[place] for place in places]
        with mixed_precision(settings), recomputed_layers(policy.network, settings.gradient_checkpointing):
            said = policy.evaluate_replies(
                [row.before for row in part], [row.learned for row in part], list(range(len(part))),
                share_prefix=settings.share_prefix,
            )  # fmt: skip
            loss = -said.logprobs.sum()
        (settings.ptx_coef * loss / tokens).backward()
        statistics.ptx_loss += float(loss.detach())
        statistics.ptx_tokens += sum(len(row.learned) for row in part)


def value_learning_rate(policy: PolicyWithValue, settings: PpoSettings) -> float:
    """The value head's rate: the one that is set, or one by which a step moves a value alike at any width.

    An optimiser step changes every weight of the head by about its rate, so a value by about that times the number of
    hidden states. At the policy's own rate the head, which starts at zero, explains next to nothing of the returns.
    """
    return settings.value_learning_rate or VALUE_STEP / policy.value_head.in_features


def _set_learning_rate(optimizer: torch.optim.Optimizer, step: int, settings: PpoSettings) -> float:
    share = learning_rate_share(
        step, settings.updates, warmup=settings.warmup_updates, schedule=settings.schedule,
        final=settings.final_learning_rate_share,
    )  # fmt: skip
    set_share(optimizer, share)
    return settings.learning_rate * share


# 6 log


def _summary(
    rollout: Rollout,
    statistics: UpdateStatistics,
    kl_control: KlController,
    settings: PpoSettings,
    step: int,
    learning_rate: float,
) -> PpoStep:
    mask = rollout.response_mask
    texts = {reply.text for reply in rollout.replies}
    tokens = max(1, statistics.loss_tokens)
    return PpoStep(
        step=step + 1,
        steps=settings.updates,
        reward=float(rollout.scores.mean()),
        terms={name: float(term.mean()) for name, term in rollout.terms.items()},
        kl_nats=float(rollout.kl.mean()),
        kl_coef=kl_control.kl_coef,
        # without an entropy bonus the entropy is estimated from the drawn tokens, which costs nothing
        entropy=statistics.entropy / tokens
        if settings.entropy_coef > 0
        else -float(masked_mean(rollout.logprobs, mask)),
        clip_fraction=statistics.clipped / tokens,
        approximate_kl=statistics.last_pass_kl,
        policy_loss=statistics.policy_loss / tokens,
        value_loss=statistics.value_loss / tokens,
        explained_variance=explained_variance(rollout.values[mask].tolist(), rollout.returns[mask].tolist()),
        gradient_norm=statistics.gradient_norm / max(1, statistics.optimizer_steps),
        learning_rate=learning_rate,
        response_tokens=float(mask.sum(dim=1).float().mean()),
        finished_rate=sum(reply.finished for reply in rollout.replies) / len(rollout),
        distinct_rate=len(texts) / len(rollout),
        credit_rate=rollout.credit_rate,
        passes=statistics.passes,
        samples=(step + 1) * settings.samples_per_update,
        followed=mean_chances(rollout),
        mixed_in={"ptx_loss": statistics.ptx_loss / statistics.ptx_tokens} if statistics.ptx_tokens else {},
    )
