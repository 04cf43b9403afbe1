"""Train a preference reward model on rankings, and measure one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from feedback.agreement import Share, clustered_share
from rewardtrain.chat import Turn, reply_text
from rewardtrain.errors import NothingToLearn
from rewardtrain.hyperparameters import RewardModelSettings
from rewardtrain.lora import trainable_parameters
from rewardtrain.losses import Pair, comparison_loss, comparison_pairs
from rewardtrain.metrics import ScoredPair, pair_accuracy
from rewardtrain.optimizer import adamw
from rewardtrain.precision import mixed_precision, recomputed_layers
from rewardtrain.reward_model import Cuts, EncodedComparison, RewardModel
from rewardtrain.seeds import stable_seed
from rewardtrain.steps import data_order, pace, update
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

BEST = "best."


@dataclass(frozen=True)
class RankedComparison:
    """One person's ranking of the candidates of one dialogue.

    prompt      the dialogue so far
    candidates  each one or several turns
    ranks       one per candidate: 1 best, equal ranks tie, None unranked
    strength    how clear the best is: 1 a hair … 4 by far; None not said
    all_bad     none of them is good
    """

    prompt: Sequence[Turn]
    candidates: Sequence[Sequence[Turn]]
    ranks: Sequence[int | None]
    strength: int | None = None
    all_bad: bool = False

    def __post_init__(self) -> None:
        if len(self.candidates) != len(self.ranks):
            raise ValueError(f"{len(self.candidates)} candidates, but {len(self.ranks)} ranks.")

    def pairs(self, settings: RewardModelSettings) -> list[Pair]:
        """What the ranking says, as these settings read it."""
        return comparison_pairs(
            self.ranks,
            strength=self.strength,
            is_all_bad=self.all_bad,
            ties=settings.ties,
            margin=settings.margin,
            all_bad=settings.all_bad,
        )


@dataclass(frozen=True)
class RewardStep:
    """What one step of training did."""

    step: int  # from 1
    steps: int
    loss: float
    pair_accuracy: float
    learning_rate: float
    gradient_norm: float
    validation: float | None = None  # accuracy on the validation set, where this step ended with a look at it

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class RewardTrainingResult:
    """The trained reward model and how it came about."""

    reward_model: RewardModel
    steps: int
    comparisons: int
    pairs: int
    comparisons_without_pairs: int
    cuts: Cuts
    history: list[RewardStep] = field(default_factory=list)
    validation: Share | None = None
    best_step: int | None = None  # the step whose weights are kept, when training stopped early


@dataclass
class _Example:
    """A comparison ready for the loss."""

    encoded: EncodedComparison
    pairs: list[Pair]


def train_reward_model(
    comparisons: Sequence[RankedComparison],
    *,
    base: Path,
    settings: RewardModelSettings,
    on_begin: Callable[[int, int], object] = lambda steps, done: None,
    on_step: Callable[[RewardStep], object] = lambda step: None,
    validation: Sequence[RankedComparison] | None = None,
    keeper: StateKeeper | None = None,
    team: Team = ALONE,
) -> RewardTrainingResult:
    """Learn a score per reply from rankings.

    base        folder of the network to start from: a decoder or an encoder
    on_begin    told once how many steps there will be, and how many were done before the run was resumed
    on_step     told of every step as it ends, before its state is saved
    validation  comparisons to look at while training; with early_stopping the best weights are kept
    keeper      where states are saved, and from where a killed run goes on; without one nothing is saved
    team        the processes that share the work; each calls this with the same arguments
    Raises      ModelRefused; NothingToLearn; TrainingDiverged before anything is returned; CheckpointError where a
                state cannot be written or used; whatever the callbacks raise
    """
    settings.validate()
    reward_model = RewardModel.from_base(base, settings)
    # 1 encode
    examples, cuts = _examples(reward_model, comparisons, settings)
    if not examples:
        raise NothingToLearn("No comparison ranks one reply above another, so there is nothing to learn yet.")
    result = _new_result(reward_model, comparisons, examples, cuts)
    held_out = _examples(reward_model, validation or [], settings)[0]
    parameters = trainable_parameters(reward_model)
    optimizer = adamw(parameters, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay)
    order = data_order(len(examples), settings.comparisons_per_step, epochs=settings.epochs, seed=settings.seed)
    steps = len(order)
    best = _Best(patience=settings.patience)
    if keeper is not None:
        identity = _identity(reward_model, examples, held_out, settings)
        team.first_then_others(lambda: _resume(keeper, result, best, optimizer, identity))
    on_begin(steps, len(result.history))
    # 2 order
    for step, places in enumerate(order):
        if step < len(result.history):
            continue
        if best.is_worse_for_long:
            break
        reward_model.train(settings.dropout)
        torch.manual_seed(stable_seed(settings.seed, "dropout", step))
        share = pace(optimizer, step, steps, settings)
        # 3 score, 4 loss
        loss, accuracy = _backward(reward_model, [examples[place] for place in places], settings, team)
        # 5 update
        team.sum_gradients(parameters)
        norm = update(optimizer, parameters, max_grad_norm=settings.max_grad_norm, loss=loss, step=step)
        # 6 log
        looked = _look(reward_model, held_out, step, steps, len(examples), settings, team)
        done = RewardStep(step + 1, steps, loss, accuracy, settings.learning_rate * share, norm, looked)
        result.history.append(done)
        if looked is not None and settings.early_stopping:
            best.look(looked, step + 1, reward_model)
        on_step(done)
        if keeper is not None:
            keeper.after_step(step + 1, steps, lambda: _state(result, best, optimizer))
    check_finite(parameters)
    return _finish(result, best, held_out, team)


def _examples(
    reward_model: RewardModel, comparisons: Sequence[RankedComparison], settings: RewardModelSettings
) -> tuple[list[_Example], Cuts]:
    """Comparisons that say something, as tokens; those that do not are left out."""
    examples, cuts = [], Cuts()
    for comparison in comparisons:
        if pairs := comparison.pairs(settings):
            encoded = reward_model.encode(comparison.prompt, comparison.candidates)
            cuts.count(encoded)
            examples.append(_Example(encoded, pairs))
    return examples, cuts


def _new_result(
    reward_model: RewardModel, comparisons: Sequence[RankedComparison], examples: Sequence[_Example], cuts: Cuts
) -> RewardTrainingResult:
    return RewardTrainingResult(
        reward_model=reward_model,
        steps=0,
        comparisons=len(examples),
        pairs=sum(len(example.pairs) for example in examples),
        comparisons_without_pairs=len(comparisons) - len(examples),
        cuts=cuts,
    )


def _identity(
    reward_model: RewardModel, examples: Sequence[_Example], held_out: Sequence[_Example], settings: RewardModelSettings
) -> dict[str, Any]:
    """What the trained weights follow from."""
    looked_at = held_out if settings.early_stopping else []
    return {
        "trainer": "reward model",
        "settings": settings.identity(),
        "start": weights_hash(reward_model),
        "comparisons": data_hash(asdict(example) for example in examples),
        "validation": data_hash(asdict(example) for example in looked_at),
    }


def _state(result: RewardTrainingResult, best: _Best, optimizer: torch.optim.Optimizer) -> TrainingState:
    tensors = capture(result.reward_model, optimizer)
    tensors |= {f"{BEST}{name}": tensor for name, tensor in best.weights.items()}
    values = {
        "history": [step.to_dict() for step in result.history],
        "best": {"accuracy": best.accuracy, "step": best.step, "worse": best.worse},
    }
    return TrainingState(len(result.history), tensors, values)


def _resume(
    keeper: StateKeeper, result: RewardTrainingResult, best: _Best, optimizer: torch.optim.Optimizer,
    identity: dict[str, Any],
) -> None:  # fmt: skip
    """Put everything back as it was after the last step that was saved, if there is one."""
    state = keeper.resume(identity)
    if state is None:
        return
    restore(result.reward_model, optimizer, state.tensors)
    result.history = [RewardStep(**step) for step in state.values["history"]]
    best.accuracy, best.step, best.worse = (state.values["best"][name] for name in ("accuracy", "step", "worse"))
    best.weights = {name.removeprefix(BEST): tensor for name, tensor in state.tensors.items() if name.startswith(BEST)}


def _backward(
    reward_model: RewardModel, examples: Sequence[_Example], settings: RewardModelSettings, team: Team = ALONE
) -> tuple[float, float]:
    """Accumulate the gradient of the mean loss over these comparisons; gives (loss, share of pairs ordered right).

    Comparisons of like length go through together, so the gradient is summed over a few passes. Of a team each process
    has then the gradient of its own comparisons.
    """
    total, credit, strict = 0.0, 0.0, 0.0
    own_examples = team.own(examples)
    for places in reward_model.batches([example.encoded for example in own_examples]):
        batch = [own_examples[place] for place in places]
        with mixed_precision(settings), recomputed_layers(reward_model.network, settings.gradient_checkpointing):
            scores = reward_model.score_batch([example.encoded for example in batch])
        losses = [comparison_loss(own, example.pairs) for own, example in zip(scores, batch, strict=True)]
        loss = torch.stack(losses).sum() / len(examples)
        loss.backward()
        total += float(loss.detach())
        for own, example in zip(scores, batch, strict=True):
            credits = _pair_credits(own.detach(), example.pairs)
            credit, strict = credit + sum(credits), strict + len(credits)
    total, credit, strict = team.sums([total, credit, strict])
    return total, credit / strict if strict else 0.0


def _pair_credits(scores: Tensor, pairs: Sequence[Pair]) -> list[float]:
    """1 for each pair that is ordered as the person did, 0 for the others; ties are left out."""
    values = [*scores.tolist(), 0.0]
    return [float(values[pair.chosen] > values[pair.rejected]) for pair in pairs if pair.target != 0.5]


def _look(
    reward_model: RewardModel,
    held_out: Sequence[_Example],
    step: int,
    steps: int,
    count: int,
    settings: RewardModelSettings,
    team: Team,
) -> float | None:
    """Accuracy on the validation set, `evaluations_per_epoch` times an epoch and at the end; else None."""
    every = max(1, round(count / settings.comparisons_per_step / settings.evaluations_per_epoch))
    if not held_out or ((step + 1) % every and step + 1 != steps):
        return None
    return _accuracy(reward_model, held_out, team).value


@torch.no_grad()
def _accuracy(reward_model: RewardModel, examples: Sequence[_Example], team: Team) -> Share:
    reward_model.eval()
    own = team.own(examples)
    scores = reward_model.score_encoded([example.encoded for example in own])
    credits: list[Sequence[float]] = [
        _pair_credits(one, example.pairs) for one, example in zip(scores, own, strict=True)
    ]
    return clustered_share(team.gathered(credits))


@dataclass
class _Best:
    """The best weights so far by validation accuracy."""

    patience: int
    accuracy: float = -1.0
    step: int | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)
    worse: int = 0

    def look(self, accuracy: float, step: int, reward_model: RewardModel) -> None:
        """Keep the weights if they are the best yet."""
        if accuracy > self.accuracy:
            self.accuracy, self.step, self.worse = accuracy, step, 0
            self.weights = {name: tensor.detach().clone() for name, tensor in reward_model.state_dict().items()}
        else:
            self.worse += 1

    @property
    def is_worse_for_long(self) -> bool:
        """True once `patience` looks in a row were no better."""
        return self.worse >= self.patience


def _finish(
    result: RewardTrainingResult, best: _Best, held_out: Sequence[_Example], team: Team
) -> RewardTrainingResult:
    reward_model = result.reward_model
    if best.step is not None:
        reward_model.load_state_dict(best.weights)
        result.best_step = best.step
    reward_model.eval()
    result.steps = len(result.history)
    if held_out:
        result.validation = _accuracy(reward_model, held_out, team)
    return result


# Measuring


@torch.no_grad()
def score_pairs(reward_model: RewardModel, comparisons: Sequence[RankedComparison]) -> list[ScoredPair]:
    """Every pair that people put in an order, with the model's scores and the replies' lengths in characters.

    The strength of a comparison goes with the pairs its best reply wins; it says nothing of the others.
    """
    was_training = reward_model.training
    reward_model.eval()
    scores = reward_model.scores([one.prompt for one in comparisons], [one.candidates for one in comparisons])
    reward_model.train(was_training)
    pairs = []
    for number, (comparison, own) in enumerate(zip(comparisons, scores, strict=True)):
        lengths = [len(reply_text(candidate)) for candidate in comparison.candidates]
        best_rank = min((rank for rank in comparison.ranks if rank is not None), default=None)
        for pair in comparison_pairs(comparison.ranks):
            pairs.append(
                ScoredPair(
                    chosen_score=float(own[pair.chosen]),
                    rejected_score=float(own[pair.rejected]),
                    chosen_length=lengths[pair.chosen],
                    rejected_length=lengths[pair.rejected],
                    strength=comparison.strength if comparison.ranks[pair.chosen] == best_rank else None,
                    comparison=number,
                )
            )
    return pairs


def reward_model_accuracy(reward_model: RewardModel, comparisons: Sequence[RankedComparison]) -> Share:
    """Share of people's pairs the model orders as they did; ties left out."""
    return pair_accuracy(score_pairs(reward_model, comparisons))
