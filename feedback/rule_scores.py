"""What a rule model says of dialogues that people judged: kept with the model, set beside what they said."""

from __future__ import annotations

from collections.abc import Mapping

from feedback.models import ModelVersion, Project, RuleScore

Said = Mapping[tuple[int, int], float]  # {(dialogue, rule in the wording it was asked by): chance that it was broken}
Predictions = dict[tuple[int, str], float]  # {(dialogue, key of a rule): chance that it was broken}
AT_ONCE = 500


def record_scores(version: ModelVersion, said: Said) -> None:
    """Keep what a rule model says, once for each dialogue and rule. Call it in the transaction that registers it."""
    rows = (
        RuleScore(dialogue_id=dialogue, rule_id=rule, model_version=version, p_broken=chance)
        for (dialogue, rule), chance in said.items()
    )
    RuleScore.objects.bulk_create(rows, batch_size=AT_ONCE)


def newest_scores(project: Project) -> tuple[ModelVersion | None, Predictions]:
    """The newest rule model that said anything of this project's dialogues, and what; None and nothing before one did.

    Asked by several versions of a rule's words, the newest version's answer holds.
    """
    models = ModelVersion.objects.filter(project=project, kind=ModelVersion.Kind.RULE, rule_scores__isnull=False)
    version = models.order_by("number").last()
    if version is None:
        return None, {}
    rows = version.rule_scores.order_by("rule__rule_set__number").values_list("dialogue", "rule__key", "p_broken")
    return version, {(dialogue, key): chance for dialogue, key, chance in rows}
