"""Whether a round learns a rule model: where there are rules and verdicts enough, unless it is not wanted. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from feedback.models import PromptGroup, RuleJudgement
from rewardtrain.models import Round
from rewardtrain.probe_openings import rules_in_force

FEWEST_JUDGED = 20
"""Judged dialogues of the training split that a round's rule model takes."""
SWITCHED_OFF = "Its settings leave rules out (use_rules)."


@dataclass(frozen=True)
class Lesson:
    """Whether a round learns a rule model; where it does not though there are rules, why."""

    is_learned: bool
    why_not: str = ""


def lesson_of(turn: Round) -> Lesson:
    """What a round that begins now does about rules."""
    if not rules_in_force(turn.project):
        return Lesson(False)
    if not turn.uses_rules:
        return Lesson(False, SWITCHED_OFF)
    if named := turn.hyperparameters.get("policy", {}).get("rule_model"):
        return Lesson(False, f"Its settings name a rule model that was learned before (model {named}).")
    why_not = _why_too_little(turn)
    return Lesson(not why_not, why_not)


def _why_too_little(turn: Round) -> str:
    verdicts = (
        RuleJudgement.objects.counted()
        .besides_evaluations()
        .filter(dialogue__project=turn.project, dialogue__prompt__group__split=PromptGroup.Split.TRAIN)
    )
    judged = verdicts.values("dialogue").distinct().count()
    if judged < FEWEST_JUDGED:
        return (
            f"{judged} of the {FEWEST_JUDGED} judged dialogues that a rule model takes are there. "
            "Let people probe rules and judge what came of it."
        )
    unsure = RuleJudgement.Verdict.UNSURE
    for found, missing in (
        (verdicts.filter(verdict__lt=unsure), "broken"),
        (verdicts.filter(verdict__gt=unsure), "kept"),
    ):
        if not found.exists():
            return f"Nobody judged a rule to be {missing} yet, and a rule model learns from both."
    return ""
