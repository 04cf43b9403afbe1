"""Which of several replies is shown: the project's newest reward model and rule model choose. No torch until asked.

Whatever is missing or broken, replies are made all the same: the first draw is shown, and the request says why.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feedback import rule_sets
from feedback.models import Candidate, ModelVersion, Project, RuleSet
from rewardtrain.errors import CannotChoose
from rewardtrain.newest_models import newest_reward_model, newest_rule_model
from rewardtrain.reranking import best_first
from rewardtrain.seeds import candidate_seed

if TYPE_CHECKING:
    from rewardtrain.reranked_replies import DrawScores, RuleScorer
    from rewardtrain.rollouts import Scorer

logger = logging.getLogger(__name__)
NOTHING_CHOOSES = (
    "There is no reward model yet, and no rule model with published rules. Train one: manage.py train_reward_model "
    "or train_rule_model."
)


@dataclass(frozen=True)
class Judges:
    """Who chooses in a project: its newest models in use, and the published rules the rule model is asked about."""

    reward_model: ModelVersion | None
    rule_model: ModelVersion | None
    rule_set: RuleSet | None = None

    def __bool__(self) -> bool:
        return self.reward_model is not None or self.rule_model is not None

    @property
    def missing(self) -> str:
        """What is not there, in a sentence for a manager; empty where all is."""
        if not self:
            return NOTHING_CHOOSES
        if self.reward_model is None:
            return "There is no reward model yet, so the rules alone choose."
        if self.rule_model is None:
            return "There is no rule model with published rules yet, so the reward model alone chooses."
        return ""


def judges_of(project: Project) -> Judges:
    """Who would choose now. A rule model without published rules has nothing to ask about."""
    rule_set = rule_sets.published_set(project)
    rule_model = newest_rule_model(project) if rule_set is not None else None
    return Judges(newest_reward_model(project), rule_model, rule_set if rule_model else None)


@dataclass(frozen=True)
class Choice:
    """A reply's place among those drawn, and what is kept of how it was chosen."""

    place: int
    record: dict[str, Any]


class Chooser:
    """Orders the draws of one reply. Its models are read at the first choice and stay in memory.

    Raises  CannotChoose when a model cannot be read
    """

    def __init__(self, judges: Judges) -> None:
        from rewardtrain.loaded_scorers import loaded_scorers

        self.judges = judges
        self.lock = loaded_scorers.lock
        self.scorer: Scorer | None = loaded_scorers.reward_model(judges.reward_model) if judges.reward_model else None
        self.rule_scorer: RuleScorer | None = (
            loaded_scorers.rule_model(judges.rule_model) if judges.rule_model else None
        )
        self.rules = list(judges.rule_set.rules.order_by("position")) if judges.rule_set else []

    def best_first(self, messages: Sequence[Mapping[str, str]], texts: Sequence[str]) -> list[Choice]:
        """The texts from the best to the worst, each with its record.

        Raises  CannotChoose when a model fails, or gives something that is no number
        """
        try:
            scores = self._scores(messages, texts)
        except Exception as err:
            logger.exception("reranking failed")
            raise CannotChoose(f"The replies could not be scored: {type(err).__name__}: {str(err)[:200]}") from err
        return [Choice(place, self._record(scores[place])) for place in best_first([one.score for one in scores])]

    def _scores(self, messages: Sequence[Mapping[str, str]], texts: Sequence[str]) -> list[DrawScores]:
        from rewardtrain.chat import as_turns
        from rewardtrain.reranked_replies import score_draws

        with self.lock:
            (scores,) = score_draws(
                [as_turns(messages)], [list(texts)], scorer=self.scorer, rule_scorer=self.rule_scorer,
                rules_of_prompt=[[rule.wording for rule in self.rules]],
            )  # fmt: skip
        return scores

    def _record(self, scores: DrawScores) -> dict[str, Any]:
        judges = self.judges
        record: dict[str, Any] = {"score": round(scores.score, 6)}
        if judges.reward_model is not None and scores.preference is not None:
            record |= {"reward_model": judges.reward_model.pk, "preference": round(scores.preference, 6)}
        if judges.rule_model is not None and judges.rule_set is not None:
            chances = zip(self.rules, scores.followed, strict=True)
            record |= {
                "rule_model": judges.rule_model.pk,
                "rule_set": judges.rule_set.number,
                "followed": {rule.key: round(math.exp(logprob), 4) for rule, logprob in chances},
            }
        return record


def chooser_for(project: Project) -> Chooser:
    """Who chooses among the draws in a project.

    Raises  CannotChoose, with what is missing or broken
    """
    judges = judges_of(project)
    if not judges:
        raise CannotChoose(NOTHING_CHOOSES)
    return Chooser(judges)


def draws_of(candidate: Candidate) -> list[tuple[int, int]]:
    """(draw, its seed) of every reply that one shown reply was chosen from, the choice itself among them.

    They are not kept; each can be drawn again from its seed (see "The same reply again" in docs/generation.md). A
    server may use other seeds than it was asked for: there only the chosen draw's is known, which the candidate has.
    """
    count = candidate.reranking.get("draws", 1)
    first = candidate.draw // count * count
    return [(draw, candidate_seed(candidate.request_id, candidate.index, draw)) for draw in range(first, first + count)]
