"""Train a rule model on people's verdicts; `rule_report` measures one."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rewardtrain.chat import Turn
from rewardtrain.errors import NothingToLearn
from rewardtrain.hyperparameters import RuleModelSettings
from rewardtrain.lora import trainable_parameters
from rewardtrain.metrics import cross_entropy, fit_temperature
from rewardtrain.optimizer import adamw
from rewardtrain.precision import mixed_precision, recomputed_layers
from rewardtrain.rule_model import EncodedDialogue, RuleLogits, RuleModel
from rewardtrain.seeds import stable_seed
from rewardtrain.steps import data_order, pace, update
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
MOST_BALANCE = 20.0
"""By which a rare broken rule is multiplied at most, however rare."""
FEWEST_TO_CALIBRATE = 20
"""Held-out dialogues and rules with a verdict that a temperature needs, to be more than chance."""
SURE = 0.98
"""A base rate is kept between this and its opposite where a bias starts from it."""


@dataclass(frozen=True)
class RuleVerdict:
    """A verdict on a dialogue and a rule: how likely it is broken, 1 definitely … 0 definitely followed.

    key      the rule's, the same whatever its wording
    wording  what the judge read
    weight   how much it counts: 1 for one person's verdict
    """

    key: str
    wording: str
    broken: float
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.broken <= 1:
            raise ValueError(f"A rule is broken with a chance between 0 and 1 (it is {self.broken}).")
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"A verdict weighs 0 or more (it is {self.weight}).")


@dataclass(frozen=True)
class RuleTarget:
    """All verdicts on one dialogue and one wording together: their weighted mean, and the weight of them all."""

    key: str
    wording: str
    broken: float
    weight: float


@dataclass(frozen=True)
class JudgedDialogue:
    """A dialogue and people's verdicts on it.

    judgements  any number, several of one rule where several people judged it
    probed      key of the rule it was meant to break, if any
    """

    turns: Sequence[Turn]
    judgements: Sequence[RuleVerdict]
    probed: str | None = None

    def targets(self) -> list[RuleTarget]:
        """What is to be learned of it, a target for each rule and wording, in the order they were judged."""
        together: dict[tuple[str, str], list[RuleVerdict]] = {}
        for verdict in self.judgements:
            if verdict.weight > 0:
                together.setdefault((verdict.key, verdict.wording), []).append(verdict)
        found = []
        for (key, wording), own in together.items():
            weight = sum(verdict.weight for verdict in own)
            mean = sum(verdict.weight * verdict.broken for verdict in own) / weight
            found.append(RuleTarget(key, wording, min(max(mean, 0.0), 1.0), weight))
        return found

    def any_broken(self) -> float | None:
        """How likely it broke some rule: the probed one's target, else the highest of all. None if none is judged."""
        targets = self.targets()
        own = [target.broken for target in targets if target.key == self.probed]
        return max(own or [target.broken for target in targets], default=None)


@dataclass
class RuleCuts:
    """How much of the data did not fit the network."""

    dialogues: int = 0
    turns: int = 0
    rules: int = 0

    def count(self, encoded: EncodedDialogue) -> None:
        self.dialogues += bool(encoded.turns_cut)
        self.turns += encoded.turns_cut
        self.rules += encoded.rules_cut


@dataclass(frozen=True)
class RuleStep:
    """What one step of training did."""

    step: int  # from 1
    steps: int
    loss: float  # over rules and dialogues, weighed and balanced as the settings say
    rule_loss: float  # the same over rules alone
    learning_rate: float
    gradient_norm: float
    validation: float | None = None  # cross entropy of held-out verdicts, where this step ended with a look at them

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class RuleTrainingResult:
    """The trained rule model and how it came about."""

    rule_model: RuleModel
    steps: int
    dialogues: int
    judgements: int  # verdicts
    pairs: int  # dialogues with a rule that somebody judged
    dialogues_without_judgements: int
    cuts: RuleCuts
    history: list[RuleStep] = field(default_factory=list)
    validation: float | None = None  # cross entropy of held-out verdicts, calibrated
    best_step: int | None = None  # the step whose weights are kept, when early stopping was asked for
    is_calibrated: bool = False


@dataclass
class _Example:
    """A judged dialogue ready for the loss."""

    encoded: EncodedDialogue
    targets: list[float]
    weights: list[float]
    any_broken: float
    probed: int | None  # place of the probed rule among those asked about
    unjudged: list[int]  # places in `_Data.rules` of rules nobody judged it by


@dataclass
class _Data:
    """What is learned from, and what of it the loss needs to know as a whole."""

    examples: list[_Example]
    rules: list[list[int]]  # as tokens, each rule in the wording that was judged most
    positive_weight: float
    base_rate: float
    any_rate: float
    unprobed_rate: float


def train_rule_model(
    dialogues: Sequence[JudgedDialogue],
    *,
    base: Path,
    settings: RuleModelSettings,
    on_begin: Callable[[int, int], object] = lambda steps, done: None,
    on_step: Callable[[RuleStep], object] = lambda step: None,
    validation: Sequence[JudgedDialogue] | None = None,
    keeper: StateKeeper | None = None,
) -> RuleTrainingResult:
    """Learn which rules dialogues break from people's verdicts.

    base        folder of the network to start from: a decoder or an encoder
    on_begin    told once how many steps there will be, and how many were done before the run was resumed
    on_step     told of every step as it ends, before its state is saved
    validation  dialogues to look at while training and to calibrate on; with early_stopping the best weights are kept
    keeper      where states are saved, and from where a killed run goes on; without one nothing is saved
    Raises      ModelRefused; NothingToLearn; TrainingDiverged before anything is returned; CheckpointError where a
                state cannot be written or used; whatever the callbacks raise
    """
    settings.validate()
    judged = [dialogue for dialogue in dialogues if dialogue.targets()]
    _check_there_is_something_to_learn(judged)
    rule_model = RuleModel.from_base(base, settings)
    # 1 encode
    data = _data(rule_model, judged, settings)
    held_out = _examples(rule_model, [one for one in validation or [] if one.targets()], {})
    result = _new_result(rule_model, dialogues, judged, data)
    _start_at(rule_model, data)
    parameters = trainable_parameters(rule_model)
    heads = [(one, settings.head_learning_rate) for one in rule_model.head_parameters().values()]
    optimizer = adamw(
        parameters, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay, own_rates=heads
    )
    order = data_order(len(judged), settings.dialogues_per_step, epochs=settings.epochs, seed=settings.seed)
    best = _Best(patience=settings.patience)
    if keeper is not None:
        _resume(keeper, result, best, optimizer, _identity(rule_model, data, held_out, settings))
    on_begin(len(order), len(result.history))
    # 2 order
    for step, places in enumerate(order):
        if step < len(result.history):
            continue
        if best.is_worse_for_long:
            break
        rule_model.train(settings.dropout)
        torch.manual_seed(stable_seed(settings.seed, "dropout", step))
        share = pace(optimizer, step, len(order), settings)
        # 3 ask, 4 loss
        loss, rule_loss = _backward(rule_model, data, places, step, settings)
        # 5 update
        norm = update(optimizer, parameters, max_grad_norm=settings.max_grad_norm, loss=loss, step=step)
        # 6 log
        looked = _look(rule_model, held_out, step, len(order), len(judged), settings)
        done = RuleStep(step + 1, len(order), loss, rule_loss, settings.learning_rate * share, norm, looked)
        result.history.append(done)
        if looked is not None and settings.early_stopping:
            best.look(looked, step + 1, rule_model)
        on_step(done)
        if keeper is not None:
            keeper.after_step(step + 1, len(order), lambda: _state(result, best, optimizer))
    check_finite(parameters)
    return _finish(result, best, held_out)


def _check_there_is_something_to_learn(judged: Sequence[JudgedDialogue]) -> None:
    if not judged:
        raise NothingToLearn("No dialogue was judged by a rule, so there is nothing to learn yet.")
    found = {target.broken for dialogue in judged for target in dialogue.targets()}
    if len(found) == 1:
        raise NothingToLearn(
            f"All verdicts come to the same (a chance of {found.pop():.0%} that the rule was broken). "
            "Collect dialogues that break a rule and dialogues that do not."
        )


def _data(rule_model: RuleModel, judged: Sequence[JudgedDialogue], settings: RuleModelSettings) -> _Data:
    """The dialogues as tokens, and what the loss needs to know of them as a whole."""
    wordings = _wordings(judged)
    wanted = settings.unjudged_rules and settings.unjudged_weight
    examples = _examples(rule_model, judged, {key: place for place, key in enumerate(wordings)} if wanted else {})
    everything = [target for dialogue in judged for target in dialogue.targets()]
    rate = _mean_broken(everything)
    others = [
        target for dialogue in judged if dialogue.probed for target in dialogue.targets()
        if target.key != dialogue.probed
    ]  # fmt: skip
    return _Data(
        examples=examples,
        rules=[rule_model.encode_rule(wording) for wording in wordings.values()],
        positive_weight=min(((1 - rate) / rate) ** settings.balance, MOST_BALANCE),
        base_rate=rate,
        any_rate=sum(example.any_broken for example in examples) / len(examples),
        unprobed_rate=_mean_broken(others) if others else rate,
    )


def _mean_broken(targets: Sequence[RuleTarget]) -> float:
    return sum(target.weight * target.broken for target in targets) / sum(target.weight for target in targets)


def _wordings(judged: Sequence[JudgedDialogue]) -> dict[str, str]:
    """{key: the wording it was judged by most often}, by key."""
    counts: dict[str, Counter[str]] = {}
    for dialogue in judged:
        for target in dialogue.targets():
            counts.setdefault(target.key, Counter())[target.wording] += 1
    return {key: max(sorted(own), key=own.__getitem__) for key, own in sorted(counts.items())}


def _examples(rule_model: RuleModel, judged: Sequence[JudgedDialogue], rules: dict[str, int]) -> list[_Example]:
    examples = []
    for dialogue in judged:
        targets = dialogue.targets()
        known = {target.key for target in targets} | {dialogue.probed}
        any_broken = dialogue.any_broken()
        assert any_broken is not None
        examples.append(
            _Example(
                encoded=rule_model.encode(dialogue.turns, [target.wording for target in targets]),
                targets=[target.broken for target in targets],
                weights=[target.weight for target in targets],
                any_broken=any_broken,
                probed=next((place for place, one in enumerate(targets) if one.key == dialogue.probed), None),
                unjudged=[place for key, place in rules.items() if key not in known],
            )
        )
    return examples


def _new_result(
    rule_model: RuleModel, dialogues: Sequence[JudgedDialogue], judged: Sequence[JudgedDialogue], data: _Data
) -> RuleTrainingResult:
    cuts = RuleCuts()
    for example in data.examples:
        cuts.count(example.encoded)
    return RuleTrainingResult(
        rule_model=rule_model,
        steps=0,
        dialogues=len(judged),
        judgements=sum(verdict.weight > 0 for dialogue in judged for verdict in dialogue.judgements),
        pairs=sum(len(example.targets) for example in data.examples),
        dialogues_without_judgements=len(dialogues) - len(judged),
        cuts=cuts,
    )


@torch.no_grad()
def _start_at(rule_model: RuleModel, data: _Data) -> None:
    """Begin with every rule broken as often as rules are, so that no step is spent on that."""
    rule_model.dialogue_head.bias.fill_(_logit(data.any_rate))
    rule_model.rule_head.bias.fill_(_logit(data.base_rate / data.any_rate if data.any_rate else SURE))


def _logit(rate: float) -> float:
    kept = min(max(rate, 1 - SURE), SURE)
    return math.log(kept / (1 - kept))


def _identity(
    rule_model: RuleModel, data: _Data, held_out: Sequence[_Example], settings: RuleModelSettings
) -> dict[str, Any]:
    """What the trained weights and their temperature follow from."""
    return {
        "trainer": "rule model",
        "settings": settings.identity(),
        "start": weights_hash(rule_model),
        "dialogues": data_hash(asdict(example) for example in data.examples),
        "rules": data_hash(data.rules),
        "validation": data_hash(asdict(example) for example in held_out),
    }


def _state(result: RuleTrainingResult, best: _Best, optimizer: torch.optim.Optimizer) -> TrainingState:
    tensors = capture(result.rule_model, optimizer)
    tensors |= {f"{BEST}{name}": tensor for name, tensor in best.weights.items()}
    values = {
        "history": [step.to_dict() for step in result.history],
        "best": {"loss": best.loss, "step": best.step, "worse": best.worse},
    }
    return TrainingState(len(result.history), tensors, values)


def _resume(
    keeper: StateKeeper, result: RuleTrainingResult, best: _Best, optimizer: torch.optim.Optimizer,
    identity: dict[str, Any],
) -> None:  # fmt: skip
    """Put everything back as it was after the last step that was saved, if there is one."""
    state = keeper.resume(identity)
    if state is None:
        return
    restore(result.rule_model, optimizer, state.tensors)
    result.history = [RuleStep(**step) for step in state.values["history"]]
    best.loss, best.step, best.worse = (state.values["best"][name] for name in ("loss", "step", "worse"))
    best.weights = {name.removeprefix(BEST): tensor for name, tensor in state.tensors.items() if name.startswith(BEST)}


# The loss


def _backward(
    rule_model: RuleModel, data: _Data, places: Sequence[int], step: int, settings: RuleModelSettings
) -> tuple[float, float]:
    """Accumulate the gradient of the mean loss over these dialogues; gives (loss, its part about rules).

    Dialogues of like length go through together, so the gradient is summed over a few passes.
    """
    examples = [_with_unjudged(rule_model, data, place, step, settings) for place in places]
    mass = sum(sum(example.weights) for example in examples)
    total, about_rules = 0.0, 0.0
    for batch in rule_model.batches([example.encoded for example in examples]):
        own = [examples[place] for place in batch]
        with mixed_precision(settings), recomputed_layers(rule_model.network, settings.gradient_checkpointing):
            logits = rule_model.logits_batch([example.encoded for example in own])
        rules = torch.stack([_rule_loss(one, example, data) for one, example in zip(logits, own, strict=True)])
        whether = torch.stack([_dialogue_loss(one, example) for one, example in zip(logits, own, strict=True)])
        loss = rules.sum() / mass + settings.dialogue_weight * whether.sum() / len(examples)
        if settings.aim_weight:
            which = torch.stack([_aim_loss(one, example) for one, example in zip(logits, own, strict=True)])
            loss = loss + settings.aim_weight * which.sum() / len(examples)
        loss.backward()
        total += float(loss.detach())
        about_rules += float(rules.detach().sum()) / mass
    return total, about_rules


def _rule_loss(logits: RuleLogits, example: _Example, data: _Data) -> Tensor:
    return rule_loss(
        logits.rules, logits.rules.new_tensor(example.targets), logits.rules.new_tensor(example.weights),
        positive_weight=data.positive_weight,
    )  # fmt: skip


def _dialogue_loss(logits: RuleLogits, example: _Example) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits.any, logits.any.new_tensor(example.any_broken))


def _aim_loss(logits: RuleLogits, example: _Example) -> Tensor:
    """0 for a dialogue that was no probe."""
    if example.probed is None:
        return logits.this.sum() * 0.0
    return aim_loss(logits.this, logits.this.new_tensor(example.targets), example.probed)


def aim_loss(this: Tensor, targets: Tensor, probed: int) -> Tensor:
    """Cross entropy of what a probe aims at: the probed rule, whether it was broken or not, and none of the others.

    Unlike a verdict that is known without error. Another rule counts the less the more people say that it was broken.

    this, targets  (n,) logits that it is this rule, and the chances that it was broken
    probed         place of the probed rule
    """
    aimed = torch.zeros_like(this)
    aimed[probed] = 1.0
    weights = torch.where(aimed > 0, 1.0, 1 - targets)
    losses = functional.binary_cross_entropy_with_logits(this, aimed, weight=weights, reduction="sum")
    return losses / weights.sum()


def rule_loss(logits: Tensor, targets: Tensor, weights: Tensor, *, positive_weight: float) -> Tensor:
    """Weighed sum of the cross entropies between soft targets and what the logits say.

    logits, targets, weights  (n,) of one dialogue's rules; targets are chances that a rule was broken
    positive_weight           how often each broken one counts. That alone would move every logit up by its logarithm,
                              which is therefore added before the loss: the logits themselves stay unbiased
    """
    shifted = logits + math.log(positive_weight)
    return functional.binary_cross_entropy_with_logits(
        shifted, targets, weight=weights, reduction="sum", pos_weight=logits.new_tensor(positive_weight)
    )


def _with_unjudged(rule_model: RuleModel, data: _Data, place: int, step: int, settings: RuleModelSettings) -> _Example:
    """A dialogue together with some of the rules nobody judged it by, others at every step."""
    example = data.examples[place]
    count = min(settings.unjudged_rules, len(example.unjudged))
    if not count or not settings.unjudged_weight:
        return example
    drawn = random.Random(stable_seed(settings.seed, "unjudged", step, place)).sample(example.unjudged, count)
    encoded = example.encoded
    more = rule_model.with_rules((encoded.dialogue, 0), [data.rules[rule] for rule in drawn])
    return _Example(
        encoded=EncodedDialogue(encoded.dialogue, [*encoded.rules, *more.rules]),
        targets=[*example.targets, *[data.unprobed_rate] * count],
        weights=[*example.weights, *[settings.unjudged_weight] * count],
        any_broken=example.any_broken,
        probed=example.probed,
        unjudged=[],
    )


# Looking


def _look(
    rule_model: RuleModel, held_out: Sequence[_Example], step: int, steps: int, count: int, settings: RuleModelSettings
) -> float | None:
    """Cross entropy of the held-out verdicts, `evaluations_per_epoch` times an epoch and at the end; else None."""
    every = max(1, round(count / settings.dialogues_per_step / settings.evaluations_per_epoch))
    if not held_out or ((step + 1) % every and step + 1 != steps):
        return None
    return _mean_cross_entropy(*_said(rule_model, held_out))


@torch.no_grad()
def _said(rule_model: RuleModel, examples: Sequence[_Example]) -> tuple[list[float], list[float], list[float]]:
    """(logits, targets, weights) of every judged rule of every dialogue, before calibration."""
    rule_model.eval()
    found = rule_model.logits_encoded([example.encoded for example in examples])
    return (
        [logit for own in found for logit in own.rules.tolist()],
        [target for example in examples for target in example.targets],
        [weight for example in examples for weight in example.weights],
    )


def _mean_cross_entropy(logits: Sequence[float], targets: Sequence[float], weights: Sequence[float]) -> float:
    total = sum(w * cross_entropy(logit, t) for logit, t, w in zip(logits, targets, weights, strict=True))
    return total / sum(weights)


@dataclass
class _Best:
    """The best weights so far by the cross entropy of held-out verdicts."""

    patience: int
    loss: float | None = None
    step: int | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)
    worse: int = 0

    def look(self, loss: float, step: int, rule_model: RuleModel) -> None:
        """Keep the weights if they are the best yet."""
        if self.loss is None or loss < self.loss:
            self.loss, self.step, self.worse = loss, step, 0
            self.weights = {name: tensor.detach().clone() for name, tensor in rule_model.state_dict().items()}
        else:
            self.worse += 1

    @property
    def is_worse_for_long(self) -> bool:
        """True once `patience` looks in a row were no better."""
        return self.worse >= self.patience


def _finish(result: RuleTrainingResult, best: _Best, held_out: Sequence[_Example]) -> RuleTrainingResult:
    rule_model = result.rule_model
    if best.step is not None:
        rule_model.load_state_dict(best.weights)
        result.best_step = best.step
    rule_model.eval()
    result.steps = len(result.history)
    if held_out:
        logits, targets, weights = _said(rule_model, held_out)
        temperature = fit_temperature(logits, targets, weights) if len(logits) >= FEWEST_TO_CALIBRATE else None
        if temperature is not None:
            rule_model.calibrate(temperature)
            result.is_calibrated = True
        kept = rule_model.config.temperature
        result.validation = _mean_cross_entropy([logit / kept for logit in logits], targets, weights)
    return result
