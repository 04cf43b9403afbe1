"""Who speaks: put another policy in front of the people, refuse one, go back to the one before.

`Project.policy` changes here and nowhere else, always together with a `Promotion` that says from what, to what, by whom
and why. What serves changes with the next request for replies; dialogues nobody has begun are withdrawn, and opened
anew with it.
"""

from __future__ import annotations

import logging
import math
import re
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.text import capfirst

from feedback import audit
from feedback.dialogues import withdraw_ready_dialogues
from feedback.errors import FeedbackError, ReasonNeeded
from feedback.models import ModelVersion, Project, QueuedWork, User
from rewardtrain.models import MetricPoint, Promotion, Round, TrainingRun

logger = logging.getLogger(__name__)


class PromotionRefused(FeedbackError):
    """A policy that cannot be put in front of the people; the message says why."""

    code = "promotion_refused"
    status = 409


@transaction.atomic
def promote(
    *,
    project: Project,
    to_version: ModelVersion,
    by: User | None = None,
    round: Round | None = None,
    reason: str = "",
    gate_report: dict[str, Any] | None = None,
) -> Promotion:
    """Let another policy serve a project, in one transaction with its record.

    by           who decides; None is the gate itself, or the command line
    round        the round that made it; found by itself while that round waits for a decision
    reason       needed unless the policy passed its gate against what serves now
    gate_report  what the decision rests on; the round's own when left out
    Raises       PromotionRefused (no policy of this project, serves already, its round is not over yet, numbers that
                 are none, decided already), ReasonNeeded
    """
    reason = reason.strip()
    from_id = _lock(project)
    to_version = ModelVersion.objects.get(pk=to_version.pk)
    round = round or Round.objects.filter(policy_after=to_version, state=Round.State.DECISION).first()
    report = gate_report or (round.gate_report if round else {})
    if round is not None and round.policy_after_id != to_version.pk:
        raise PromotionRefused(f"Round {round.number} did not make {to_version}. Reload the page.")
    _refuse_unfit(project, to_version, from_id, report)
    if not reason:
        _refuse_without_reason(to_version, from_id, by, round, report)
    if not Project.objects.filter(pk=project.pk, policy=from_id).update(policy=to_version):
        raise PromotionRefused("Somebody promoted another policy at the same moment. Reload the page.")
    if round is not None:
        _decide(round, Round.State.PROMOTED, by, reason)
    promotion = Promotion.objects.create(
        project=project,
        from_version_id=from_id,
        to_version=to_version,
        round=round,
        gate_report=report,
        by=by,
        reason=reason,
    )
    _hand_over(from_id, to_version)
    withdraw_ready_dialogues(project, because=f"{to_version} serves now")
    audit.record(
        "model.promoted",
        project=project,
        actor=by,
        target=to_version,
        from_version=from_id,
        promotion=promotion.pk,
        reason=reason,
    )
    project.policy = to_version
    ids = (project.pk, to_version.pk, promotion.pk)
    transaction.on_commit(lambda: logger.info("policy promoted project=%s model=%s promotion=%s", *ids))
    return promotion


@transaction.atomic
def refuse(*, round: Round, by: User | None = None, reason: str = "") -> None:
    """End a round without promoting its policy; that policy is retired, what serves stays, be it that policy itself.

    Raises  PromotionRefused when the round does not wait for a decision, ReasonNeeded when its gate was passed
    """
    reason = reason.strip()
    if not reason and round.gate_report.get("passed"):
        raise ReasonNeeded("This policy passed its gate. Say why it is refused, so that the next reader can follow.")
    serving = _lock(round.project)
    _decide(round, Round.State.REFUSED, by, reason)
    if round.policy_after_id is not None and round.policy_after_id != serving:
        ModelVersion.objects.filter(pk=round.policy_after_id).update(state=ModelVersion.State.RETIRED)
    audit.record("round.refused", project=round.project, actor=by, target=round, reason=reason)


@transaction.atomic
def roll_back(
    *, project: Project, by: User | None = None, reason: str = "", asked: tuple[int | None, int | None] | None = None
) -> Promotion:
    """Let the policy serve again that served before the one that serves now: another promotion.

    asked   (what served, what was to serve again) by their keys when somebody was asked; None: as it is now
    Raises  ReasonNeeded, PromotionRefused when there is none before, or when it is not as it was asked any more
    """
    if not reason.strip():
        raise ReasonNeeded("Say why you roll back, so that the next reader can follow.")
    serving, previous = _lock(project), previous_policy(project)
    if asked is not None and asked != (serving, previous and previous.pk):
        raise PromotionRefused("Another policy serves since this page was opened. Look again before you roll back.")
    if previous is None:
        raise PromotionRefused("No policy served before this one, so there is nothing to roll back to.")
    return promote(project=project, to_version=previous, by=by, reason=reason)


def previous_policy(project: Project) -> ModelVersion | None:
    """The policy a roll-back leads to.

    Going back to a policy takes everything after it out of the line, so that a second roll-back leads further back
    and not forth again.
    """
    line: list[int] = []
    steps = Promotion.objects.filter(project=project).order_by("pk").values_list("from_version", "to_version")
    for before, after in steps:
        if before is not None and (not line or line[-1] != before):
            line.append(before)
        line = line[: line.index(after) + 1] if after in line else [*line, after]
    return ModelVersion.objects.get(pk=line[-2]) if len(line) > 1 else None


def _lock(project: Project) -> int | None:
    """The key of the policy that serves; nobody changes it until this transaction is over."""
    return Project.objects.select_for_update().values_list("policy_id", flat=True).get(pk=project.pk)


def _refuse_unfit(project: Project, version: ModelVersion, from_id: int | None, report: dict[str, Any]) -> None:
    """What no reason can talk away."""
    if version.project_id != project.pk or version.kind != ModelVersion.Kind.POLICY:
        raise PromotionRefused(f"Model {version.pk} is no policy of {project}. Choose one of its own policies.")
    if version.pk == from_id:
        raise PromotionRefused(f"{capfirst(str(version))} serves already.")
    made_by = Q(policy_after=version) | Q(runs__produced=version)
    if unfinished := Round.objects.filter(made_by, state__in=Round.ACTIVE).first():
        raise PromotionRefused(
            f"Round {unfinished.number}, which made {version}, is {unfinished.get_state_display()}. "
            "Wait until it has ended, or stop it first."
        )
    if not _is_sound(version, report):
        raise PromotionRefused(
            f"The run that made {version} did not end with finite numbers, so it can never serve. Train again."
        )


def _refuse_without_reason(
    version: ModelVersion, from_id: int | None, by: User | None, round: Round | None, report: dict[str, Any]
) -> None:
    if version.state != ModelVersion.State.PASSED or report.get("passed") is False:
        raise ReasonNeeded(f"{capfirst(str(version))} has not passed its gate. Say why it should serve all the same.")
    if round is not None and round.policy_before_id != from_id:
        raise ReasonNeeded(
            f"Its gate compared it with {round.policy_before}, which no longer serves. Say why it should serve now."
        )
    if by is None and round is None:
        raise ReasonNeeded("Nobody is named and no round waits for this decision. Give a reason, to be kept with it.")


def _is_sound(version: ModelVersion, report: dict[str, Any]) -> bool:
    """Whether every number behind a policy is one: its run ended well, and no figure is infinite or not a number."""
    runs = TrainingRun.objects.filter(produced=version)
    if runs.exclude(state=QueuedWork.State.DONE).exists():
        return False
    lines = report.get("lines", [])
    written_out = " ".join(str(line.get("found", "")) for line in lines).lower()
    if re.search(r"\b(nan|inf|infinity)\b", written_out):
        return False
    points = MetricPoint.objects.filter(run__produced=version).values_list("value", flat=True)
    results = list(runs.values_list("result", flat=True))
    return _is_finite([lines, version.figures, results]) and all(map(math.isfinite, points.iterator()))


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_finite(part) for part in value.values())
    if isinstance(value, list):
        return all(_is_finite(part) for part in value)
    return not isinstance(value, float) or math.isfinite(value)


def _decide(round: Round, to: str, by: User | None, reason: str) -> None:
    """Close a round that waits for a decision; whoever is second is told."""
    decided = Round.objects.filter(pk=round.pk, state=Round.State.DECISION).update(
        state=to, decided_at=timezone.now(), decided_by=by, reason=reason
    )
    if not decided:
        round.refresh_from_db()
        raise PromotionRefused(f"Round {round.number} does not wait for a decision: it is {round.get_state_display()}.")
    round.refresh_from_db()


def _hand_over(from_id: int | None, to_version: ModelVersion) -> None:
    """The policy before is retired; one that comes back is again what its gate said of it."""
    if from_id is not None:
        ModelVersion.objects.filter(pk=from_id).update(state=ModelVersion.State.RETIRED)
    if to_version.state == ModelVersion.State.RETIRED:
        made_by = Round.objects.filter(policy_after=to_version).first()
        failed = made_by is not None and not made_by.gate_report.get("passed")
        to_version.state = ModelVersion.State.FAILED if failed else ModelVersion.State.PASSED
        to_version.save(update_fields=["state"])
