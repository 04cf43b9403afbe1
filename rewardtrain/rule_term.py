"""What rules pay for a reply: the term beside the preference, from the chances that each rule was followed. Pure.

To an opening that was written to have one rule broken, P(followed) of that rule counts. Elsewhere the weighted mean
over all rules and the lowest of them add up: of twelve rules one that is broken hardly moves a mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rewardtrain.chat import Reply, Turn

if TYPE_CHECKING:
    from torch import Tensor


class RuleScorer(Protocol):
    """What asks a rule model about replies.

    Gives per prompt (replies, rules) chances that each rule was followed; with `asked`, places of rules for each
    prompt, (replies, asked).
    """

    def __call__(
        self,
        prompts: Sequence[Sequence[Turn]],
        replies: Sequence[Sequence[Reply]],
        asked: Sequence[Sequence[int]] | None = None,
    ) -> Sequence[Tensor]: ...


class ProbeOpening(list[Turn]):
    """A prompt that was written to have one rule broken: a list of turns like any other, and the rule's key.

    >>> probed_rule(ProbeOpening([{"role": "user", "content": "Are you a person?"}], "human")), probed_rule([])
    ('human', None)
    """

    def __init__(self, turns: Sequence[Turn], rule: str):
        super().__init__(turns)
        self.rule = rule


def probed_rule(prompt: Sequence[Turn]) -> str | None:
    """The key of the rule that a prompt probes; None for an everyday one."""
    return prompt.rule if isinstance(prompt, ProbeOpening) else None


@dataclass(frozen=True)
class RuleTerm:
    """What rules say of one reply.

    value     what counts: P(followed) of the probed rule, or elsewhere the mean and the lowest together
    followed  the chances it comes from, by name: probed, or mean and lowest
    rule      key of the probed rule, or of the one with the lowest chance
    """

    value: float
    followed: dict[str, float]
    rule: str

    @property
    def is_probe(self) -> bool:
        return PROBED in self.followed


PROBED, MEAN, LOWEST = KINDS = ("probed", "mean", "lowest")
"""The chances that a term comes from."""


def term_of_probe(followed: float, rule: str) -> RuleTerm:
    """Of a reply to an opening that probes `rule`."""
    return RuleTerm(followed, {PROBED: followed}, rule)


def term_elsewhere(followed: Sequence[float], weights: Sequence[float], rules: Sequence[str]) -> RuleTerm:
    """Of a reply to an everyday opening: the weighted mean over the rules, plus the lowest.

    weights  of the rules, each above 0

    >>> term_elsewhere([1.0, 0.4], [3.0, 1.0], ["kind", "brief"])
    RuleTerm(value=1.25, followed={'mean': 0.85, 'lowest': 0.4}, rule='brief')
    """
    mean = sum(w * p for w, p in zip(weights, followed, strict=True)) / sum(weights)
    place = min(range(len(followed)), key=followed.__getitem__)
    return RuleTerm(mean + followed[place], {MEAN: mean, LOWEST: followed[place]}, rules[place])


@dataclass(frozen=True)
class RuleScale:
    """What makes standard deviations of rule terms: fixed over the start's replies when a policy's run begins.

    One spread serves all openings, that over replies to probe openings. In either kind one more broken rule takes about
    1 off a term (P(followed) falls from 1 to 0; elsewhere the mean falls a little as well), so it costs the same
    everywhere. Everyday replies hardly break rules: in their own spread what the rule model is unsure of would weigh as
    much as a breach. The mean is that of the opening's own kind, so that a term says how much better or worse than the
    start's replies to such openings one is: with one mean for both, all replies to probes would be paid less than all
    others, which no reply can help.

    of_probes  whether the spread is that of replies to probe openings
    """

    everyday: float
    probes: float
    std: float
    of_probes: bool = True

    def __post_init__(self) -> None:
        if not (
            math.isfinite(self.everyday) and math.isfinite(self.probes) and math.isfinite(self.std) and self.std > 0
        ):
            raise ValueError(f"The scale of rules needs finite means and a spread above 0, not {self}.")

    def standardised(self, term: RuleTerm) -> float:
        """How many deviations a term is above the start's."""
        return (term.value - (self.probes if term.is_probe else self.everyday)) / self.std


LEAST_SPREAD = 0.1
"""Of terms, where one broken rule is about 1. Where the start's replies differ by less, they differ by noise alone."""


def rule_scale(terms: Sequence[RuleTerm]) -> RuleScale:
    """The scale from terms of the start's replies to everyday and probe openings.

    Without probe openings the spread is that of all terms there are: better than nothing, and said in `of_probes`.
    """
    probes = [term.value for term in terms if term.is_probe]
    everyday = [term.value for term in terms if not term.is_probe]
    spread = _deviation(probes or everyday)
    return RuleScale(_mean(everyday), _mean(probes), max(spread, LEAST_SPREAD), bool(probes))


def _mean(values: Sequence[float]) -> float:
    """0 of none."""
    return sum(values) / len(values) if values else 0.0


def _deviation(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.sqrt(_mean([(value - mean) ** 2 for value in values]))


@dataclass(frozen=True)
class RuleReward:
    """The term of a policy's reward that rules pay: (term - mean of its kind) / spread · weight.

    rules, weights  keys of the rules that the scorer knows, in its order, and how much each counts among all
    """

    weight: float
    rules: Sequence[str]
    weights: Sequence[float]
    scorer: RuleScorer
    scale: RuleScale
    name: str = "rules"

    def terms(self, prompts: Sequence[Sequence[Turn]], replies: Sequence[Sequence[Reply]]) -> list[list[RuleTerm]]:
        """Per prompt a term for each of its replies."""
        return rule_terms(self.scorer, self.rules, self.weights, prompts, replies)

    def identity(self) -> dict[str, object]:
        """What tells it from another one, beside what its scorer is."""
        scale = {"everyday": self.scale.everyday, "probes": self.scale.probes, "std": self.scale.std}
        rules = dict(zip(self.rules, self.weights, strict=True))
        return {"name": self.name, "weight": self.weight, "rules": rules, **scale}


def rule_terms(
    scorer: RuleScorer,
    rules: Sequence[str],
    weights: Sequence[float],
    prompts: Sequence[Sequence[Turn]],
    replies: Sequence[Sequence[Reply]],
) -> list[list[RuleTerm]]:
    """Per prompt a term for each of its replies. A probe opening is asked about its own rule alone.

    Raises  ValueError for a probe of a rule that is not among `rules`
    """
    probed = [probed_rule(prompt) for prompt in prompts]
    if unknown := {key for key in probed if key is not None} - set(rules):
        raise ValueError(f"Openings probe rules that are not asked about: {', '.join(sorted(unknown))}.")
    asked = [range(len(rules)) if key is None else [list(rules).index(key)] for key in probed]
    found = []
    for key, chances in zip(probed, scorer(prompts, replies, asked), strict=True):
        rows = chances.tolist()
        if key is None:
            found.append([term_elsewhere(row, weights, rules) for row in rows])
        else:
            found.append([term_of_probe(row[0], key) for row in rows])
    return found
