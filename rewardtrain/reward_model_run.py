"""A reward model's run: it learns people's preferences from a snapshot's rankings, and is measured on held-out ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedback.agreement import Share
from feedback.figures import agreement_of
from feedback.models import PromptGroup
from feedback.snapshots import snapshot_rows
from rewardtrain import model_files
from rewardtrain.errors import NothingToLearn
from rewardtrain.hyperparameters import RewardModelSettings
from rewardtrain.models import TrainingRun
from rewardtrain.run_files import Outcome, folder_of, keeper_of, save_outcome
from rewardtrain.team import ALONE, Team
from rewardtrain.training_data import as_comparison, own_share

if TYPE_CHECKING:
    from rewardtrain import reward_training
    from rewardtrain.reporting import Silent
    from rewardtrain.reward_model import RewardModel


def learn_preferences(run: TrainingRun, reporter: Silent, team: Team = ALONE) -> Outcome:
    """Train a preference reward model on a snapshot's rankings, and measure it on held-out openings.

    In a round the training comparisons are divided: most teach the model that PPO optimises, the rest a second one that
    only the gate asks, so that a policy which merely pleases the first is found out.
    """
    from rewardtrain import reward_training

    chosen = dict(run.hyperparameters)
    base = base_folder(run, chosen.pop("base", ""))
    settings = RewardModelSettings.from_dict({"seed": run.seed, **chosen})
    assert run.snapshot is not None
    rows = list(snapshot_rows(run.snapshot))
    training = own_share(run, [row for row in rows if row.split == PromptGroup.Split.TRAIN])
    held_out = [row for row in rows if row.split != PromptGroup.Split.TRAIN]
    trained = reward_training.train_reward_model(
        [as_comparison(row) for row in training],
        base=base,
        settings=settings,
        on_begin=reporter.begin,
        on_step=lambda step: reporter.step(step.step, step.steps, reward_figures(step)),
        keeper=keeper_of(run, reporter, settings.checkpoint_seconds, team),
        team=team,
    )
    if not team.is_first:
        return Outcome(result={})
    figures = _reward_figures(run, trained.reward_model, [as_comparison(row) for row in held_out])
    result = {
        "comparisons": trained.comparisons,
        "training_pairs": trained.pairs,
        "comparisons_without_pairs": trained.comparisons_without_pairs,
        **figures,
    }
    name = "second opinion" if run.kind == TrainingRun.Kind.SECOND_REWARD_MODEL else ""
    return save_outcome(run, "preference", trained.reward_model.save, result=result, figures=figures, name=name)


def base_folder(run: TrainingRun, base: str) -> Path:
    """The network a reward model starts from: the one named, else the policy the run starts from.

    A command may name any folder; what a project's settings name is a location as models have.
    """
    if base:
        return Path(base) if run.round is None and Path(base).is_dir() else model_files.folder_at(base)
    if run.parent is None:
        raise NothingToLearn("Name a base to start from: --base FOLDER with a Hugging Face model.")
    return folder_of(run.parent)


def reward_figures(step: reward_training.RewardStep) -> dict[str, float]:
    """A step's figures under the names the pages and the terminal show."""
    named = {
        "loss": step.loss,
        "pair_accuracy": step.pair_accuracy,
        "learning_rate": step.learning_rate,
        "gradient_norm": step.gradient_norm,
    }
    return {f"reward/{name}": value for name, value in named.items()}


def _reward_figures(run: TrainingRun, reward_model: RewardModel, held_out: Sequence[Any]) -> dict[str, Any]:
    figures = measure_reward_model(reward_model, held_out) if held_out else {"pairs": 0}
    agreement = agreement_of(run.project)
    return {**figures, "agreement": agreement.share.value, "ceiling": agreement.ceiling}


def measure_reward_model(reward_model: RewardModel, comparisons: Sequence[Any]) -> dict[str, Any]:
    """Accuracy over held-out pairs with its 95 % interval, by strength, beside "the longer reply wins"."""
    from rewardtrain import metrics, reward_training

    pairs = reward_training.score_pairs(reward_model, comparisons)
    if not pairs:
        return {"pairs": 0}
    accuracy, length = metrics.pair_accuracy(pairs), metrics.length_baseline(pairs)
    alike = metrics.most_alike_in_length(pairs)
    by_strength = metrics.accuracy_by_strength(pairs)
    return {
        "pairs": accuracy.total,
        "pair_accuracy": _rounded(accuracy),
        "interval": [round(end, 4) for end in accuracy.interval or ()],
        "length_baseline": _rounded(length),
        "alike_in_length": {"pairs": len(alike), "pair_accuracy": _rounded(metrics.pair_accuracy(alike))},
        "calibration_error": round(metrics.pair_calibration(pairs).error, 4),
        "by_strength": {
            str(strength or "unsaid"): {"pairs": share.total, "pair_accuracy": _rounded(share)}
            for strength, share in sorted(by_strength.items(), key=lambda entry: entry[0] or 0)
        },
    }


def _rounded(share: Share) -> float | None:
    return None if share.value is None else round(share.value, 4)
