"""Several replies to each prompt, scored by the reward model and by every rule, and the best of them. Knows no rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from rewardtrain.chat import Turn
from rewardtrain.reranking import best_first, log_rerank_scores
from rewardtrain.sampling import Reply, SamplingSettings, sample_replies
from rewardtrain.seeds import stable_seed

if TYPE_CHECKING:
    from rewardtrain.rollouts import Scorer
    from rewardtrain.rule_model import RuleModel

Prompt = Sequence[Turn]
RuleScorer = Callable[[Sequence[Prompt], Sequence[Sequence[str]]], list[list[float]]]
"""Dialogues that end with a reply, and the wordings of rules asked about each, to log P(followed) of each rule."""


@dataclass(frozen=True)
class DrawScores:
    """What is thought of one reply.

    preference  the reward model's score; None without one
    followed    log P of each rule asked about, in their order
    score       the logarithm of its rerank score, among the replies it was drawn with; 0 where nothing was asked
    """

    preference: float | None
    followed: tuple[float, ...]
    score: float


@dataclass(frozen=True)
class ScoredDraw:
    """One reply with the seed it can be drawn again from, and what is thought of it."""

    reply: Reply
    seed: int
    scores: DrawScores


@dataclass(frozen=True)
class RerankedReply:
    """All replies drawn to one prompt, and the best of them; of equally good ones the earliest."""

    draws: tuple[ScoredDraw, ...]
    best: int

    @property
    def chosen(self) -> ScoredDraw:
        return self.draws[self.best]

    @property
    def first(self) -> ScoredDraw:
        """What would have been said without reranking: the reply drawn from the prompt's own seed."""
        return self.draws[0]


def draw_reranked(
    policy: Any,
    prompts: Sequence[Prompt],
    *,
    scorer: Scorer | None,
    rule_scorer: RuleScorer | None,
    rules_of_prompt: Sequence[Sequence[str]],
    n: int,
    sampling: SamplingSettings,
    seeds: Sequence[int],
    rows_per_batch: int = 256,
) -> list[RerankedReply]:
    """Draw n replies to each prompt, score them, and choose. A prompt is encoded once for its n replies.

    scorer           prompts and their replies to scores; None: the rules alone choose
    rule_scorer      None: the preference alone chooses; neither: the first is kept
    rules_of_prompt  per prompt the wordings of all rules in force, also where one of them is probed
    seeds            one per prompt; its draws have seeds of their own, from `draw_seed`
    Raises           ValueError where counts differ or n is below 1
    """
    if not len(prompts) == len(seeds) == len(rules_of_prompt):
        raise ValueError(f"{len(prompts)} prompts came with {len(seeds)} seeds and rules of {len(rules_of_prompt)}.")
    if n < 1:
        raise ValueError(f"Draw at least one reply to each prompt (n was {n}).")
    own_seeds = [draw_seed(seed, draw) for seed in seeds for draw in range(n)]
    drawn = sample_replies(
        policy, policy.tokenizer, [prompt for prompt in prompts for _ in range(n)],
        settings=sampling, seeds=own_seeds, rows_per_batch=rows_per_batch,
    )  # fmt: skip
    groups = [drawn[start : start + n] for start in range(0, len(drawn), n)]
    scores = score_draws(
        prompts, [[reply.text for reply in group] for group in groups],
        scorer=scorer, rule_scorer=rule_scorer, rules_of_prompt=rules_of_prompt,
    )  # fmt: skip
    found = []
    for place, (group, own) in enumerate(zip(groups, scores, strict=True)):
        draws = zip(group, own_seeds[place * n : place * n + n], own, strict=True)
        found.append(
            RerankedReply(tuple(ScoredDraw(*draw) for draw in draws), best_first([one.score for one in own])[0])
        )
    return found


def draw_seed(seed: int, draw: int) -> int:
    """The seed of one of a prompt's draws; the first is the prompt's own, so that it is what n = 1 would draw."""
    return seed if draw == 0 else stable_seed("rerank", seed, draw)


def score_draws(
    prompts: Sequence[Prompt],
    replies: Sequence[Sequence[str]],
    *,
    scorer: Scorer | None,
    rule_scorer: RuleScorer | None,
    rules_of_prompt: Sequence[Sequence[str]],
) -> list[list[DrawScores]]:
    """What is thought of each reply; replies may differ in number from prompt to prompt."""
    preferences = _preferences(prompts, replies, scorer)
    followed = _followed(prompts, replies, rule_scorer, rules_of_prompt)
    found = []
    for texts, wanted, kept in zip(replies, preferences, followed, strict=True):
        judged = wanted is not None or any(kept)
        scores = log_rerank_scores(wanted, kept) if judged and texts else [0.0] * len(texts)
        found.append(
            [
                DrawScores(None if wanted is None else wanted[place], tuple(kept[place]), scores[place])
                for place in range(len(texts))
            ]
        )
    return found


def _preferences(
    prompts: Sequence[Prompt], replies: Sequence[Sequence[str]], scorer: Scorer | None
) -> Sequence[list[float] | None]:
    if scorer is None:
        return [None] * len(prompts)
    with torch.no_grad():
        return [[float(score) for score in own] for own in scorer(prompts, replies)]


def _followed(
    prompts: Sequence[Prompt],
    replies: Sequence[Sequence[str]],
    rule_scorer: RuleScorer | None,
    rules_of_prompt: Sequence[Sequence[str]],
) -> list[list[list[float]]]:
    found: list[list[list[float]]] = [[[] for _ in own] for own in replies]
    if rule_scorer is None:
        return found
    asked = [(place, draw) for place, own in enumerate(replies) for draw in range(len(own)) if rules_of_prompt[place]]
    dialogues = [with_reply(prompts[place], replies[place][draw]) for place, draw in asked]
    if not asked:
        return found
    answers = rule_scorer(dialogues, [rules_of_prompt[place] for place, _ in asked])
    for (place, draw), logprobs in zip(asked, answers, strict=True):
        found[place][draw] = list(logprobs)
    return found


def with_reply(prompt: Prompt, reply: str) -> list[Turn]:
    """The dialogue once a reply is part of it."""
    return [*prompt, {"role": "assistant", "content": reply}]


def rule_scorer_of(rule_model: RuleModel) -> RuleScorer:
    """A rule model as a scorer: calibrated log P(followed), worked out in logits so that a sure breach keeps a number.

    Each dialogue is read once for all rules on a decoder; no gradients, no dropout.
    """

    @torch.no_grad()
    def followed(dialogues: Sequence[Prompt], rules: Sequence[Sequence[str]]) -> list[list[float]]:
        was_training = rule_model.training
        rule_model.eval()
        tokens = {wording: rule_model.encode_rule(wording) for wording in {one for own in rules for one in own}}
        encoded = [
            rule_model.with_rules(rule_model.encode_dialogue(dialogue), [tokens[wording] for wording in own])
            for dialogue, own in zip(dialogues, rules, strict=True)
        ]
        logits = rule_model.logits_encoded(encoded)
        rule_model.train(was_training)
        return [functional.logsigmoid(-one.rules / rule_model.config.temperature).tolist() for one in logits]

    return followed


def load_rule_scorer(folder: Path, *, dtype: str = "float32", device: str = "cpu") -> RuleScorer:
    """`rule_scorer_of` the rule model in a folder."""
    from rewardtrain.rule_model import RuleModel

    return rule_scorer_of(RuleModel.load(folder, dtype=dtype, device=device))
