"""Which of a project's models judge its replies now. Rows only."""

from __future__ import annotations

from django.db.models import QuerySet

from feedback.models import ModelVersion, Project
from rewardtrain.models import TrainingRun

OUT_OF_USE = (ModelVersion.State.FAILED, ModelVersion.State.RETIRED)


def newest_reward_model(project: Project) -> ModelVersion | None:
    """The newest preference reward model in use; none that was made as a second opinion."""
    return _newest(_in_use(project, ModelVersion.Kind.PREFERENCE).exclude(**_SECOND))


def second_opinion(project: Project, beside: ModelVersion) -> ModelVersion | None:
    """The newest reward model that learned from other comparisons than the one beside it."""
    return _newest(_in_use(project, ModelVersion.Kind.PREFERENCE).filter(**_SECOND).exclude(pk=beside.pk))


def newest_rule_model(project: Project) -> ModelVersion | None:
    """The newest rule model in use."""
    return _newest(_in_use(project, ModelVersion.Kind.RULE))


_SECOND = {"made_by_runs__kind": TrainingRun.Kind.SECOND_REWARD_MODEL}


def _in_use(project: Project, kind: str) -> QuerySet[ModelVersion]:
    return ModelVersion.objects.filter(project=project, kind=kind).exclude(state__in=OUT_OF_USE)


def _newest(found: QuerySet[ModelVersion]) -> ModelVersion | None:
    return found.order_by("-number").first()
