"""A policy run that is not PPO's: RLOO, DPO or best of n, from the same start and registered the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from feedback.models import PromptGroup
from feedback.snapshots import snapshot_rows
from rewardtrain.algorithms import BestOfNSettings, DpoSettings, RlooSettings
from rewardtrain.begun import Begun
from rewardtrain.errors import NothingToLearn
from rewardtrain.hyperparameters import PpoSettings
from rewardtrain.models import TrainingRun
from rewardtrain.probe_openings import openings_at
from rewardtrain.reward_terms import ledger_row, load_scorer, paying_terms, scales_of
from rewardtrain.run_files import Outcome, folder_of, keeper_of, save_outcome
from rewardtrain.team import ALONE
from rewardtrain.training_data import as_comparison, own_share, training_prompts

if TYPE_CHECKING:
    from rewardtrain import best_of_n
    from rewardtrain.policy import Policy, ReferencePolicy
    from rewardtrain.reporting import Silent
    from rewardtrain.rollouts import LedgerEntry, Reward


def improve_policy(run: TrainingRun, reporter: Silent) -> Outcome:
    """Train the policy that serves by the run's algorithm, and measure how far it moved by replies of its own."""
    from rewardtrain.drawing import Drawer, kl_to_start
    from rewardtrain.policy import Policy, load_policy_with_value, reference_policy

    assert run.parent is not None
    begun = Begun.of(run)
    settings = begun.settings
    assert not isinstance(settings, PpoSettings)
    loaded = load_policy_with_value(
        folder_of(run.parent), lora=settings.lora if settings.lora.is_on else None, seed=settings.seed
    )
    policy = Policy(loaded.network, loaded.tokenizer).eval()  # the value head is PPO's
    ref_policy = reference_policy(policy)
    prompts = training_prompts(run, begun.prompt_ids, openings_at(begun.probe_cuts))
    rewards: list[Reward] = []
    if begun.reward_model is not None:  # DPO may have none to be watched by
        rewards = paying_terms(begun, load_scorer(begun.reward_model), policy, prompts, keep=reporter.keep)
    result = _TRAINERS[type(settings)](run, reporter, settings, begun, policy, ref_policy, prompts, rewards)
    kl_nats = kl_to_start(Drawer(policy, ref_policy, prompts, [], settings.as_drawn()))
    result |= {
        "reward_model": begun.reward_model.pk if begun.reward_model else None,
        "rule_model": begun.rule_model.pk if begun.rule_model else None,
        "rules": [rule.pk for rule in begun.rules] if begun.rule_model else [],
        "scale": scales_of(begun),
        "prompts": len(prompts),
        "probe_openings": len(begun.probe_cuts),
        "kl_nats": kl_nats,
    }
    return save_outcome(run, "policy", policy.save, result=result, figures={"kl_nats": round(kl_nats, 3)})


def _by_rloo(
    run: TrainingRun, reporter: Silent, settings: RlooSettings, begun: Begun, policy: Policy,
    ref_policy: ReferencePolicy, prompts: list[Any], rewards: list[Reward],
) -> dict[str, Any]:  # fmt: skip
    from rewardtrain.trl_training import train_by_rloo

    trained = train_by_rloo(
        prompts, policy=policy, ref_policy=ref_policy, rewards=rewards, settings=settings,
        on_begin=reporter.begin, on_step=reporter.step, ledger=_ledger(run, reporter),
    )  # fmt: skip
    return {"samples": trained.samples, "optimizer_tokens": trained.optimizer_tokens}


def _by_dpo(
    run: TrainingRun, reporter: Silent, settings: DpoSettings, begun: Begun, policy: Policy,
    ref_policy: ReferencePolicy, prompts: list[Any], rewards: list[Reward],
) -> dict[str, Any]:  # fmt: skip
    """On the comparisons that also taught the round's first reward model; the second's stay unseen."""
    from rewardtrain.trl_training import train_by_dpo

    if run.snapshot is None:
        raise NothingToLearn("DPO learns from a snapshot's rankings, and this project has none. Take one first.")
    rows = [row for row in snapshot_rows(run.snapshot) if row.split == PromptGroup.Split.TRAIN]
    trained = train_by_dpo(
        [as_comparison(row) for row in own_share(run, rows)], prompts,
        policy=policy, ref_policy=ref_policy, rewards=rewards, settings=settings,
        on_begin=reporter.begin, on_step=reporter.step,
    )  # fmt: skip
    return {
        "samples": 0,
        "optimizer_tokens": trained.optimizer_tokens,
        "pairs": trained.pairs,
        "pairs_left_out": trained.pairs_left_out,
    }


def _by_best_of_n(
    run: TrainingRun, reporter: Silent, settings: BestOfNSettings, begun: Begun, policy: Policy,
    ref_policy: ReferencePolicy, prompts: list[Any], rewards: list[Reward],
) -> dict[str, Any]:  # fmt: skip
    from rewardtrain import best_of_n

    assert begun.reward_model is not None
    trained = best_of_n.train_policy(
        prompts, policy=policy, ref_policy=ref_policy, rewards=rewards, settings=settings,
        on_begin=reporter.begin,
        on_step=lambda step: reporter.step(step.step, step.steps, best_of_n_figures(step)),
        ledger=_ledger(run, reporter),
        keeper=keeper_of(run, reporter, settings.checkpoint_seconds, ALONE, **begun.models()),
    )  # fmt: skip
    return {"samples": trained.samples, "optimizer_tokens": trained.optimizer_tokens}


_TRAINERS: Mapping[type, Callable[..., dict[str, Any]]] = {
    RlooSettings: _by_rloo, DpoSettings: _by_dpo, BestOfNSettings: _by_best_of_n
}  # fmt: skip


def best_of_n_figures(step: best_of_n.BestOfNStep) -> dict[str, float]:
    """An update's figures under the names the pages and the terminal show."""
    return {
        **step.figures,
        "best-of-n/kept_reward": step.kept_reward,
        "best-of-n/loss": step.loss,
        "ppo/gradient_norm": step.gradient_norm,
        "ppo/learning_rate": step.learning_rate,
    }


def _ledger(run: TrainingRun, reporter: Silent) -> Callable[[list[LedgerEntry]], None]:
    return lambda entries: reporter.ledger([ledger_row(run, entry) for entry in entries])
