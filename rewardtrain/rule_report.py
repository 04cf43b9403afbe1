"""What a rule model is worth: rule by rule, on dialogues it has not learned from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from rewardtrain.metrics import Calibration, calibration, roc_auc
from rewardtrain.rule_model import RuleModel
from rewardtrain.rule_training import JudgedDialogue, RuleTarget

FEWEST = 5
"""Broken and followed ones a rule's AUC needs of each, to be more than chance."""


@dataclass(frozen=True)
class RuleFigures:
    """How well one rule's breaches are told. An AUC is None where there are too few of either kind.

    own, own_broken, own_followed  over the dialogues in which it was probed
    all, all_broken, all_followed  over all dialogues that were judged by it
    """

    key: str
    wording: str
    own: float | None
    own_broken: int
    own_followed: int
    all: float | None
    all_broken: int
    all_followed: int
    is_unseen: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class RuleReport:
    """What a rule model is worth on dialogues it has not learned from.

    mean_own, mean_all  means over the rules that have enough of both; rules it never learned apart
    calibration         of all judged rules but those
    """

    rules: list[RuleFigures]
    calibration: Calibration
    mean_own: float | None
    mean_all: float | None
    unseen_own: float | None
    unseen_all: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure_rules(
    rule_model: RuleModel,
    dialogues: Sequence[JudgedDialogue],
    *,
    fewest: int = FEWEST,
    unseen: Iterable[str] = (),
) -> RuleReport:
    """Ask about every judged rule of every dialogue, and compare.

    A target above ½ counts as broken, one below as followed; one of exactly ½ is left out of AUCs.

    fewest  of either kind, below which no AUC is given
    unseen  keys of rules whose wordings were not learned from
    """
    judged = [dialogue for dialogue in dialogues if dialogue.targets()]
    return rule_report(judged, _ask_all(rule_model, judged), fewest=fewest, unseen=unseen)


def _ask_all(rule_model: RuleModel, judged: Sequence[JudgedDialogue]) -> list[list[float]]:
    """Per dialogue the probabilities of its targets."""
    was_training = rule_model.training
    rule_model.eval()
    with torch.no_grad():
        wordings = [[target.wording for target in dialogue.targets()] for dialogue in judged]
        logits = rule_model.logits([dialogue.turns for dialogue in judged], wordings)
    rule_model.train(was_training)
    return [torch.sigmoid(one.rules / rule_model.config.temperature).tolist() for one in logits]


@dataclass(frozen=True)
class _Answer:
    """A target and what the model said of it."""

    target: RuleTarget
    probability: float
    is_own: bool


def rule_report(
    judged: Sequence[JudgedDialogue],
    probabilities: Sequence[Sequence[float]],
    *,
    fewest: int = FEWEST,
    unseen: Iterable[str] = (),
) -> RuleReport:
    """`measure_rules` of probabilities that are there already, one for each of `targets()` of each dialogue."""
    left_out = set(unseen)
    by_rule: dict[str, list[_Answer]] = {}
    for dialogue, own in zip(judged, probabilities, strict=True):
        for target, probability in zip(dialogue.targets(), own, strict=True):
            answer = _Answer(target, probability, target.key == dialogue.probed)
            by_rule.setdefault(target.key, []).append(answer)
    rules = [_figures(key, answers, fewest, key in left_out) for key, answers in sorted(by_rule.items())]
    learned = [one for one in rules if not one.is_unseen]
    other = [one for one in rules if one.is_unseen]
    counted = [answer for key, answers in sorted(by_rule.items()) if key not in left_out for answer in answers]
    return RuleReport(
        rules=rules,
        calibration=calibration([one.probability for one in counted], [one.target.broken for one in counted]),
        mean_own=_mean([one.own for one in learned]),
        mean_all=_mean([one.all for one in learned]),
        unseen_own=_mean([one.own for one in other]),
        unseen_all=_mean([one.all for one in other]),
    )


def _figures(key: str, answers: Sequence[_Answer], fewest: int, is_unseen: bool) -> RuleFigures:
    own, own_counts = _auc([one for one in answers if one.is_own], fewest)
    every, every_counts = _auc(answers, fewest)
    wording = answers[-1].target.wording
    return RuleFigures(key, wording, own, *own_counts, every, *every_counts, is_unseen)


def _auc(answers: Sequence[_Answer], fewest: int) -> tuple[float | None, tuple[int, int]]:
    clear = [one for one in answers if one.target.broken != 0.5]
    positives = [one.target.broken > 0.5 for one in clear]
    counts = sum(positives), len(positives) - sum(positives)
    if min(counts) < fewest:
        return None, counts
    return roc_auc([one.probability for one in clear], positives), counts


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
