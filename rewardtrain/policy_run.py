"""A policy's run: from the policy that serves to a better one, by PPO or the algorithm that the run names."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rewardtrain import alternatives, sft_run
from rewardtrain.algorithms import PPO, SFT, algorithm_of
from rewardtrain.begun import Begun
from rewardtrain.demonstrations_to_learn import mixed_into
from rewardtrain.hyperparameters import PpoSettings
from rewardtrain.models import TrainingRun
from rewardtrain.probe_openings import openings_at
from rewardtrain.reward_terms import ledger_row, paying_terms, scales_of
from rewardtrain.run_files import Outcome, folder_of, keeper_of, save_outcome
from rewardtrain.team import ALONE, Team
from rewardtrain.training_data import training_prompts

if TYPE_CHECKING:
    from rewardtrain import ppo
    from rewardtrain.reporting import Silent


def improve_policy(run: TrainingRun, reporter: Silent, team: Team = ALONE) -> Outcome:
    """A better policy from the one that serves, by the algorithm the run names; what it cost is in the result."""
    algorithm, began = algorithm_of(run.hyperparameters), time.process_time()
    if algorithm == PPO:
        outcome = _improve_by_ppo(run, reporter, team)
    elif algorithm == SFT:
        outcome = sft_run.learn_demonstrations(run, reporter)
    else:
        outcome = alternatives.improve_policy(run, reporter)
    (seconds,) = team.sums([time.process_time() - began])
    outcome.result.update(algorithm=algorithm, cpu_seconds=round(seconds, 1))
    return outcome


def _improve_by_ppo(run: TrainingRun, reporter: Silent, team: Team) -> Outcome:
    """PPO from the policy that serves, against the round's reward model and its rules, held to where it started."""
    from rewardtrain import ppo
    from rewardtrain.policy import load_policy_with_value, reference_policy
    from rewardtrain.precision import check_device
    from rewardtrain.shared_base import reward_beside

    assert run.parent is not None
    begun = team.from_first(lambda: Begun.of(run))
    settings = begun.settings
    assert isinstance(settings, PpoSettings) and begun.reward_model is not None
    reward_folder = folder_of(begun.reward_model)
    folder = folder_of(run.parent)
    policy = load_policy_with_value(
        folder, lora=settings.lora if settings.lora.is_on else None, seed=settings.seed,
        dtype=settings.dtype, device=check_device(settings.device),
    )  # fmt: skip
    ref_policy = reference_policy(policy)
    reward_model = reward_beside(policy, folder, reward_folder, dtype=settings.dtype)
    by_token = reward_model.token_scores if reward_model.scores_tokens else None
    prompts = training_prompts(run, begun.prompt_ids, openings_at(begun.probe_cuts))
    rewards = paying_terms(
        begun, reward_model.scores, policy, prompts, by_token=by_token, keep=reporter.keep, team=team
    )
    mixed_in = mixed_into(run, policy, settings, reporter)
    trained = ppo.train_policy(
        prompts,
        policy=policy,
        ref_policy=ref_policy,
        rewards=rewards,
        settings=settings,
        mixed_in=mixed_in,
        on_begin=reporter.begin,
        on_step=lambda step: reporter.step(step.step, step.steps, ppo_figures(step)),
        ledger=lambda entries: reporter.ledger([ledger_row(run, entry) for entry in entries]),
        keeper=keeper_of(run, reporter, settings.checkpoint_seconds, team, **begun.models()),
        team=team,
    )
    if not team.is_first:
        return Outcome(result={})
    result = {
        "reward_model": begun.reward_model.pk,
        "rule_model": begun.rule_model.pk if begun.rule_model else None,
        "rules": [rule.pk for rule in begun.rules] if begun.rule_model else [],
        "scale": scales_of(begun),
        "prompts": len(prompts),
        "probe_openings": len(begun.probe_cuts),
        "samples": trained.samples,
        "dialogues_cut": trained.dialogues_cut,
        "turns_cut": trained.turns_cut,
        "mixed_in": {"demonstrations": len(mixed_in.demonstrations), "pieces": len(mixed_in.pieces)}
        if mixed_in
        else None,
        "kl_nats": trained.kl_nats,
        "credit_rate": trained.steps[-1].credit_rate,
        "optimizer_tokens": sum(
            round(step.passes * step.response_tokens * settings.samples_per_update) for step in trained.steps
        ),
    }
    figures = {"kl_nats": round(trained.kl_nats, 3), "updates": settings.updates}
    return save_outcome(run, "policy", policy.save, result=result, figures=figures, beside=policy.save_value_head)


def ppo_figures(step: ppo.PpoStep) -> dict[str, float]:
    """An update's figures under the names the pages and the terminal show."""
    named = {
        "reward": step.reward,
        "kl_nats": step.kl_nats,
        "kl_coef": step.kl_coef,
        "entropy": step.entropy,
        "clip_fraction": step.clip_fraction,
        "policy_loss": step.policy_loss,
        "value_loss": step.value_loss,
        "explained_variance": step.explained_variance,
        "gradient_norm": step.gradient_norm,
        "learning_rate": step.learning_rate,
        "length": step.response_tokens,
        "finished_rate": step.finished_rate,
        "distinct_rate": step.distinct_rate,
        "credit_rate": step.credit_rate,
        **step.terms,
        **step.followed,
        **step.mixed_in,
    }
    return {f"ppo/{name}": value for name, value in named.items()}
