"""Best of n: draw n replies to each prompt, keep the best, learn to say it. Round after round (arXiv:2304.06767)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from rewardtrain.algorithms import BestOfNSettings
from rewardtrain.drawing import Drawer, figures
from rewardtrain.errors import NothingToLearn, TrainingDiverged
from rewardtrain.hyperparameters import learning_rate_share
from rewardtrain.lora import trainable_parameters
from rewardtrain.optimizer import adamw, set_share
from rewardtrain.policy import Policy, ReferencePolicy
from rewardtrain.rollouts import Advice, LedgerEntry, Prompt, Reward, Rollout, ledger_entries
from rewardtrain.seeds import stable_seed
from rewardtrain.shared_prefix import length_buckets
from rewardtrain.training_state import (
    StateKeeper,
    TrainingState,
    capture,
    check_finite,
    data_hash,
    restore,
    weights_hash,
)

ADVICE = Advice(far=(), alike=("repetition_penalty",))


@dataclass(frozen=True)
class BestOfNStep:
    """What one update did."""

    step: int  # from 1
    steps: int
    figures: dict[str, float]  # of all the samples, by the names that PPO's have
    kept_reward: float  # mean over the replies that were kept
    loss: float  # nats a token, of the replies that were kept
    gradient_norm: float
    learning_rate: float
    optimizer_tokens: int  # reply tokens that gradients came from

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class BestOfNResult:
    """The policy was changed in place; this is what happened to it."""

    policy: Policy
    steps: list[BestOfNStep]
    samples: int

    @property
    def optimizer_tokens(self) -> int:
        return sum(step.optimizer_tokens for step in self.steps)


def train_policy(
    prompts: Sequence[Prompt],
    *,
    policy: Policy,
    ref_policy: ReferencePolicy,
    rewards: Sequence[Reward],
    settings: BestOfNSettings,
    on_begin: Callable[[int, int], object] = lambda steps, done: None,
    on_step: Callable[[BestOfNStep], object] = lambda step: None,
    ledger: Callable[[list[LedgerEntry]], object] = lambda entries: None,
    keeper: StateKeeper | None = None,
) -> BestOfNResult:
    """Train `policy` in place; saving it is the caller's. Arguments and errors as those of `ppo.train_policy`.

    Each update draws from the policy as it is by then, so that what it learned last is what it chooses from next.
    """
    settings.validate()
    if not prompts or not rewards:
        raise NothingToLearn("Best of n needs at least one prompt and one reward.")
    drawer = Drawer(policy, ref_policy, prompts, rewards, settings.as_drawn(), ADVICE)
    parameters = trainable_parameters(policy)
    optimizer = adamw(parameters, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay)
    policy.eval()  # no dropout: what is kept was drawn without
    steps: list[BestOfNStep] = []
    if keeper is not None:
        steps = _resume(keeper, optimizer, drawer, settings)
    on_begin(settings.updates, len(steps))
    for step in range(len(steps), settings.updates):
        rollout = drawer.draw(step)
        kept = best_places(rollout)
        done = _learn(policy, optimizer, parameters, rollout, kept, settings, step)
        ledger(ledger_entries(rollout, 0.0, step))
        steps.append(done)
        on_step(done)
        if keeper is not None:
            keeper.after_step(step + 1, settings.updates, lambda: _state(policy, optimizer, steps))
    check_finite(parameters)
    return BestOfNResult(policy, steps, settings.updates * settings.samples_per_update)


def best_places(rollout: Rollout) -> list[int]:
    """Per prompt the place of its best paid reply; of equal ones the first drawn."""
    best: dict[int, int] = {}
    for place, owner in enumerate(rollout.owners):
        if owner not in best or rollout.scores[place] > rollout.scores[best[owner]]:
            best[owner] = place
    return list(best.values())


def _learn(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    parameters: list[torch.nn.Parameter],
    rollout: Rollout,
    kept: list[int],
    settings: BestOfNSettings,
    step: int,
) -> BestOfNStep:
    """Passes over the kept replies in minibatches, cross entropy over their tokens."""
    rate = _set_learning_rate(optimizer, step, settings)
    loss, tokens, norms = 0.0, 0, []
    for number in range(settings.passes):
        order = list(kept)
        random.Random(stable_seed(settings.seed, "kept", step, number)).shuffle(order)
        for start in range(0, len(order), settings.minibatch_size):
            places = order[start : start + settings.minibatch_size]
            loss += reply_gradients(policy, rollout, places, settings)
            norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm))
            if not math.isfinite(norm):
                raise TrainingDiverged(f"A gradient's norm was {norm}. Lower learning_rate.")
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            norms.append(norm)
            tokens += int(rollout.response_mask[places].sum())
    return BestOfNStep(
        step=step + 1,
        steps=settings.updates,
        figures=figures(rollout),
        kept_reward=float(rollout.scores[kept].mean()),
        loss=loss / tokens,
        gradient_norm=sum(norms) / len(norms),
        learning_rate=rate,
        optimizer_tokens=tokens,
    )


def reply_gradients(policy: Policy, rollout: Rollout, places: Sequence[int], settings: BestOfNSettings) -> float:
    """Add up the gradients of the mean cross entropy over these replies' tokens; gives its sum. No prompt token counts.

    The chances are those at the sampling's temperature, at which the policy speaks.
    """
    tokens, total = int(rollout.response_mask[list(places)].sum()), 0.0
    prompts = [rollout.prompt_ids[rollout.owners[place]] for place in places]
    replies = [rollout.replies[place].token_ids for place in places]
    widths = [len(prompt) + len(reply) for prompt, reply in zip(prompts, replies, strict=True)]
    for part in length_buckets(widths, settings.tokens_per_forward):
        now = policy.evaluate_replies(
            [prompts[one] for one in part], [replies[one] for one in part], list(range(len(part))),
            temperature=settings.sampling.temperature, share_prefix=settings.share_prefix,
        )  # fmt: skip
        loss = -now.logprobs.sum()
        (loss / tokens).backward()
        total += float(loss.detach())
    return total


def _set_learning_rate(optimizer: torch.optim.Optimizer, step: int, settings: BestOfNSettings) -> float:
    share = learning_rate_share(
        step, settings.updates, warmup=settings.warmup_updates, schedule=settings.schedule,
        final=settings.final_learning_rate_share,
    )  # fmt: skip
    set_share(optimizer, share)
    return settings.learning_rate * share


# Going on after a kill


def _state(policy: Policy, optimizer: torch.optim.Optimizer, steps: Sequence[BestOfNStep]) -> TrainingState:
    return TrainingState(len(steps), capture(policy, optimizer), {"history": [step.to_dict() for step in steps]})


def _resume(
    keeper: StateKeeper, optimizer: torch.optim.Optimizer, drawer: Drawer, settings: BestOfNSettings
) -> list[BestOfNStep]:
    """Put everything back as it was after the last update that was saved; gives what was done until then."""
    state = keeper.resume(
        {
            "trainer": "best of n",
            "settings": settings.identity(),
            "start": weights_hash(drawer.policy),
            "reference": weights_hash(drawer.ref_policy.policy),
            "prompts": data_hash(one.ids for one in drawer.encoded),
            "rewards": [one.identity() for one in drawer.rewards],
        }
    )
    if state is None:
        return []
    restore(drawer.policy, optimizer, state.tensors)
    return [BestOfNStep(**step) for step in state.values["history"]]
