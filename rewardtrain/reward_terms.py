"""The terms of a policy's reward: whose scores they are, on what scale, and the row that keeps them of each sample."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from feedback.models import ModelVersion
from rewardtrain.algorithms import AnySettings, DpoSettings
from rewardtrain.errors import NothingToLearn
from rewardtrain.hyperparameters import PpoSettings
from rewardtrain.models import LedgerEntry, TrainingRun
from rewardtrain.run_files import folder_of
from rewardtrain.seeds import stable_seed

if TYPE_CHECKING:
    from rewardtrain import rollouts

SCALE_PROMPTS = 256  # training prompts whose replies fix a reward's mean and spread for a round


def reward_model_of(run: TrainingRun, pk: int | None, settings: AnySettings) -> ModelVersion | None:
    """The reward model a run learns from: the one named, the round's own, or the project's newest.

    None where there is none and DPO needs none.
    """
    if pk is not None:
        return ModelVersion.objects.get(pk=pk, project=run.project, kind=ModelVersion.Kind.PREFERENCE)
    if run.round is not None:
        return made_in_round(run, TrainingRun.Kind.REWARD_MODEL)
    newest = (
        ModelVersion.objects.filter(project=run.project, kind=ModelVersion.Kind.PREFERENCE)
        .exclude(made_by_runs__kind=TrainingRun.Kind.SECOND_REWARD_MODEL)
        .order_by("-number")
        .first()
    )
    if newest is None and not isinstance(settings, DpoSettings):
        raise NothingToLearn("This project has no reward model yet. Train one first: manage.py train_reward_model.")
    return newest


def made_in_round(run: TrainingRun, kind: str) -> ModelVersion:
    """What the run of this kind in the same round produced."""
    sibling = TrainingRun.objects.select_related("produced").get(round=run.round, kind=kind)
    assert sibling.produced is not None
    return sibling.produced


def load_scorer(version: ModelVersion, *, dtype: str = "float32", device: str = "cpu") -> rollouts.Scorer:
    """A scorer of replies; without gradients."""
    import torch

    from rewardtrain.reward_model import RewardModel

    reward_model = RewardModel.load(folder_of(version), dtype=dtype, device=device)

    def scores(prompts: Any, replies: Any) -> Any:
        with torch.no_grad():
            return reward_model.scores(prompts, replies)

    return scores


def measure_scale(
    policy: Any, scorer: rollouts.Scorer, prompts: Sequence[Any], settings: AnySettings
) -> tuple[float, float]:
    """Mean and spread of the reward over the start's own replies to training prompts: fixed for the round."""
    from rewardtrain.precision import mixed_precision
    from rewardtrain.rollouts import reward_scale
    from rewardtrain.sampling import sample_replies

    every = max(1, len(prompts) // SCALE_PROMPTS)
    some = list(prompts[::every][:SCALE_PROMPTS])
    seeds = [stable_seed(settings.seed, "scale", index) for index in range(len(some))]
    with mixed_precision(settings) if isinstance(settings, PpoSettings) else nullcontext():
        replies = sample_replies(policy, policy.tokenizer, some, settings=settings.sampling, seeds=seeds)
        return reward_scale(scorer, some, [[reply.text] for reply in replies])


def ledger_row(run: TrainingRun, entry: rollouts.LedgerEntry) -> LedgerEntry:
    """A sample with every term of its reward, as the row that keeps it."""
    return LedgerEntry(
        run=run,
        step=entry.step,
        index=entry.index,
        prompt=list(entry.prompt),
        response=entry.response,
        terms=entry.terms,
        raw_terms=entry.raw_terms,
        reward=entry.reward,
        kl_nats=entry.kl_nats,
        token_count=entry.token_count,
    )
