"""What Celery rings for: id in, one call. Nothing heavy is imported until a task runs."""

from __future__ import annotations

from celery import shared_task


@shared_task(name="rewardtrain.generate_candidates", acks_late=True)
def generate_candidates(request_id: int) -> None:
    """Make the replies of a request, and of those that wait beside it; a second claim does nothing."""
    from rewardtrain import generation

    generation.generate_candidates(request_id)


@shared_task(name="rewardtrain.train_reward_model", acks_late=True)
def train_reward_model(run_id: int) -> None:
    """Learn preferences in a child process."""
    _work_in_child(run_id)


@shared_task(name="rewardtrain.train_policy", acks_late=True)
def train_policy(run_id: int) -> None:
    """Run PPO in a child process."""
    _work_in_child(run_id)


@shared_task(name="rewardtrain.evaluate_gate", acks_late=True)
def evaluate_gate(run_id: int) -> None:
    """Measure the gate in a child process."""
    _work_in_child(run_id)


def _work_in_child(run_id: int) -> None:
    """This process never loads torch: a child of low priority does the work and writes its outcome on the row."""
    from rewardtrain import runs

    runs.run_in_child(run_id)


@shared_task(name="rewardtrain.advance_rounds")
def advance_rounds() -> None:
    """Start the rounds that are due and move the others on. Running it twice changes nothing."""
    from rewardtrain import rounds

    rounds.start_due_rounds()
    rounds.advance_rounds()
