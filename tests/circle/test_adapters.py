"""Two turns of the circle with adapters: the second starts from the first one's, and is held to it."""

from __future__ import annotations

import pytest

from feedback import invariants
from feedback.models import Project
from rewardtrain import model_files, promotions, rounds
from rewardtrain.checkpoints import ADAPTER_CONFIG
from rewardtrain.models import MetricPoint, Round
from tests.circle.turning import QUICK, rank_everything, turn_here

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

LORA = {"lora": {"rank": 2}}
CHOSEN = {
    "reward_model": {**QUICK["reward_model"], **LORA},
    "policy": {**QUICK["policy"], **LORA, "learning_rate": 3e-2},  # so far that the base would be another policy
}


def one_round(project: Project) -> Round:
    turn = turn_here(rounds.start_round(project=project, hyperparameters=CHOSEN))
    assert turn.state == Round.State.DECISION, turn.error
    promotions.promote(project=project, to_version=turn.policy_after, round=turn, reason="To see it serve.")
    project.refresh_from_db()
    return turn


def kl_of_first_update(turn: Round) -> float:
    return MetricPoint.objects.get(run=turn.runs.get(kind="policy"), name="ppo/kl_nats", step=1).value


def test_a_second_round_starts_from_the_first_ones_adapter_and_is_held_to_it(project):
    rank_everything(project)
    for turn in (one_round(project), one_round(project)):
        folder, found = model_files.verified_folder(turn.policy_after)
        assert (folder / ADAPTER_CONFIG).is_file()
        assert found == turn.policy_after.content_hash
        assert kl_of_first_update(turn) == pytest.approx(0, abs=1e-4)
    assert turn.policy_before.parent is not None
    assert turn.gate_report["counts"] == {"prompts": 6}
    assert list(invariants.violations()) == []
