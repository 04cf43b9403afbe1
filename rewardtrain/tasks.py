"""What Celery rings for: id in, one call. Nothing heavy is imported until a task runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from celery import shared_task

logger = logging.getLogger(__name__)


@shared_task(name="rewardtrain.generate_candidates", acks_late=True)
def generate_candidates(request_id: int) -> None:
    """Make the replies of a request, and of those that wait beside it; a second claim does nothing."""
    from rewardtrain import generation

    generation.generate_candidates(request_id)


@shared_task(name="rewardtrain.train_reward_model", acks_late=True)
def train_reward_model(run_id: int) -> None:
    """Learn preferences in a child process."""
    _work_in_child(run_id)


@shared_task(name="rewardtrain.train_rule_model", acks_late=True)
def train_rule_model(run_id: int) -> None:
    """Learn which rules dialogues break in a child process."""
    _work_in_child(run_id)


@shared_task(name="rewardtrain.train_policy", acks_late=True)
def train_policy(run_id: int) -> None:
    """Improve a policy in a child process."""
    _work_in_child(run_id)


@shared_task(name="rewardtrain.evaluate_gate", acks_late=True)
def evaluate_gate(run_id: int) -> None:
    """Measure the gate in a child process."""
    _work_in_child(run_id)


@shared_task(name="rewardtrain.evaluate_policies", acks_late=True)
def evaluate_policies(run_id: int) -> None:
    """Measure policies beside each other in a child process."""
    _work_in_child(run_id)


def _work_in_child(run_id: int) -> None:
    """This process never loads torch: a child of low priority does the work and writes its outcome on the row."""
    from rewardtrain import runs

    runs.run_in_child(run_id)


@shared_task(name="rewardtrain.advance_rounds")
def advance_rounds() -> None:
    """Start the rounds that are due and move the others on. Running it twice changes nothing."""
    from rewardtrain import rounds

    for project in rounds.self_starting():
        _part(f"start a round project={project.pk}", partial(rounds.start_if_due, project))
    for turn in rounds.active_rounds():
        _part(f"advance round={turn.pk}", partial(rounds.advance, turn))


def _part(name: str, work: Callable[[], object]) -> None:
    """What goes wrong in one project or round leaves the others alone."""
    try:
        work()
    except Exception:  # noqa: BLE001 - the worker's outermost edge; the next beat tries again
        logger.exception("could not %s", name)
