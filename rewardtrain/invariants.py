"""What must never be, in the rows of learning; run by `check_invariants` with the record's own checks."""

from __future__ import annotations

from django.db.models import F, OuterRef, Subquery

from feedback.invariants import Found, register
from feedback.models import ModelVersion, Project
from rewardtrain import model_files
from rewardtrain.errors import LearningError
from rewardtrain.models import Promotion, Round, TrainingRun


@register
def policies_serve_by_promotion() -> Found:
    """Where anything was ever promoted, the policy that serves is the one promoted last."""
    newest = Promotion.objects.filter(project=OuterRef("pk")).order_by("-pk").values("to_version")[:1]
    promoted = Project.objects.annotate(promoted=Subquery(newest)).filter(promoted__isnull=False)
    for project in promoted.exclude(policy=F("promoted")):
        yield f"project {project.pk}", f"model {project.policy_id} serves, but model {project.promoted} was promoted"


@register
def serving_models_are_whole() -> Found:
    """The files of every policy that serves are data only, and the ones that were recorded."""
    for version in ModelVersion.objects.filter(
        pk__in=Project.objects.values("policy"), backend=ModelVersion.Backend.TRANSFORMERS
    ).exclude(content_hash=""):
        try:
            model_files.verified_folder(version)
        except (LearningError, OSError) as err:
            yield f"model {version.pk}", str(err)


@register
def finished_runs_made_something() -> Found:
    """A run that trains and is done names the model it made."""
    done = TrainingRun.objects.filter(state="done", produced=None).exclude(kind__in=TrainingRun.MEASURING)
    for run in done:
        yield f"run {run.pk}", "done without a model"


@register
def promoted_rounds_have_their_promotion() -> Found:
    """A round that is called promoted has a promotion."""
    for turn in Round.objects.filter(state=Round.State.PROMOTED, promotions=None):
        yield f"round {turn.pk}", "promoted without a promotion"
