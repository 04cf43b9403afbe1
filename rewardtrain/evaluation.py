"""Policies beside each other, with and without reranking: what each says to held-out openings. Knows no rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rewardtrain.chat import as_turns
from rewardtrain.evaluation_figures import MeasuredReply, Opening
from rewardtrain.gate_run import kl_to
from rewardtrain.reranked_replies import RuleScorer, ScoredDraw, draw_reranked
from rewardtrain.sampling import SamplingSettings
from rewardtrain.seeds import stable_seed

if TYPE_CHECKING:
    from rewardtrain.rollouts import Scorer

AT_ONCE = 16  # openings answered between two words on how far it is
OnOpenings = Callable[[int], None]


@dataclass(frozen=True)
class Measures:
    """What replies are measured with.

    rules   {key: wording} of all rules in force: every reply is asked about every one
    second  a reward model that chooses nothing, so that what the other one chose is not praised by itself alone
    """

    scorer: Scorer | None = None
    rule_scorer: RuleScorer | None = None
    rules: dict[str, str] | None = None
    second: Scorer | None = None


def evaluate(
    policies: Iterable[Any],
    openings: Sequence[Opening],
    *,
    measures: Measures,
    draws: int,
    sampling: SamplingSettings,
    seed: int,
    reference: Any = None,
    on_openings: OnOpenings = lambda count: None,
) -> list[tuple[list[MeasuredReply], list[MeasuredReply]]]:
    """Per policy its replies (the first draws, the best of `draws`), one each per opening.

    All policies get the same seeds, so that what differs is theirs. With draws = 1 both lists are the same replies.

    policies     may be read one after the other while they are asked for
    reference    the policy that log-ratios are taken to; the first one when left out. A policy with another vocabulary
                 has none: its tokens mean nothing to the reference
    on_openings  called with how many more openings a policy has answered
    """
    found = []
    for policy in policies:
        reference = policy if reference is None else reference
        pairs: list[tuple[MeasuredReply, MeasuredReply]] = []
        for start in range(0, len(openings), AT_ONCE):
            some = list(range(start, min(start + AT_ONCE, len(openings))))
            pairs += _answers(
                policy, reference, [openings[place] for place in some], some, measures, draws, sampling, seed
            )
            on_openings(len(some))
        found.append(([first for first, _ in pairs], [best for _, best in pairs]))
    return found


def _answers(
    policy: Any, reference: Any, openings: Sequence[Opening], places: Sequence[int], measures: Measures, draws: int,
    sampling: SamplingSettings, seed: int,
) -> list[tuple[MeasuredReply, MeasuredReply]]:  # fmt: skip
    rules = measures.rules or {}
    prompts = [as_turns(opening.messages) for opening in openings]
    drawn = draw_reranked(
        policy, prompts, scorer=measures.scorer, rule_scorer=measures.rule_scorer if rules else None,
        rules_of_prompt=[list(rules.values())] * len(prompts), n=draws, sampling=sampling,
        seeds=[stable_seed(seed, "evaluation", place) for place in places],
    )  # fmt: skip
    kept = [[one.first, one.chosen] for one in drawn]
    ratios = _log_ratios(reference, policy, prompts, kept, sampling)
    seconds = _scores(measures.second, prompts, kept)
    return [
        (
            _measured(one.first, 0, list(rules), ratios[2 * place], seconds[2 * place]),
            _measured(one.chosen, one.best, list(rules), ratios[2 * place + 1], seconds[2 * place + 1]),
        )
        for place, one in enumerate(drawn)
    ]


def _log_ratios(
    reference: Any,
    policy: Any,
    prompts: Sequence[Any],
    kept: Sequence[Sequence[ScoredDraw]],
    sampling: SamplingSettings,
) -> list[float | None]:
    """Of each prompt's kept replies in turn; None where the policies know different tokens."""
    flat = [(prompt, one.reply) for prompt, own in zip(prompts, kept, strict=True) for one in own]
    if policy is reference:
        return [0.0] * len(flat)
    if policy.tokenizer.get_vocab() != reference.tokenizer.get_vocab():
        return [None] * len(flat)
    return [*kl_to(reference, policy, [prompt for prompt, _ in flat], [reply for _, reply in flat], sampling)]


def _scores(scorer: Scorer | None, prompts: Sequence[Any], kept: Sequence[Sequence[ScoredDraw]]) -> list[float | None]:
    import torch

    if scorer is None:
        return [None] * (2 * len(prompts))
    with torch.no_grad():
        scores = scorer(prompts, [[one.reply.text for one in own] for own in kept])
    return [float(score) for own in scores for score in own]


def _measured(
    one: ScoredDraw, draw: int, rules: Sequence[str], log_ratio: float | None, second: float | None
) -> MeasuredReply:
    broken = {key: -math.expm1(logprob) for key, logprob in zip(rules, one.scores.followed, strict=False)}
    return MeasuredReply(
        text=one.reply.text, tokens=len(one.reply.token_ids), finished=one.reply.finished, seed=one.seed, draw=draw,
        mean_logprob=one.reply.mean_logprob, preference=one.scores.preference, second=second, broken=broken,
        log_ratio=log_ratio,
    )  # fmt: skip
