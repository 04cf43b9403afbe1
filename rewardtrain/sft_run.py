"""A policy's run by SFT: from the policy that serves, or a base, to one that says what people wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rewardtrain import demonstrations_to_learn
from rewardtrain.algorithms import SftSettings
from rewardtrain.begun import policy_settings
from rewardtrain.corpora import corpus_of
from rewardtrain.demonstrations_to_learn import HELD_OUT, LEARNED
from rewardtrain.errors import NothingToLearn
from rewardtrain.models import TrainingRun
from rewardtrain.reward_model_run import base_folder
from rewardtrain.run_files import Outcome, save_outcome

if TYPE_CHECKING:
    from rewardtrain.reporting import Silent
    from rewardtrain.sft import SftResult

BESIDE = ("base", "reward_model", "rule_model")  # settings of a policy's run that are not the trainer's


def learn_demonstrations(run: TrainingRun, reporter: Silent) -> Outcome:
    """Teach a policy the accepted demonstrations of the training split; those of the validation split are measured.

    What it learned from is the run's snapshot. Killed, it begins anew, from the same.
    """
    from rewardtrain.policy import Policy, load_policy_with_value, reference_policy
    from rewardtrain.sft import train_by_sft

    chosen = dict(run.hyperparameters)
    base, *_ = (chosen.pop(name, "") for name in BESIDE)
    settings = policy_settings(run, chosen)
    assert isinstance(settings, SftSettings)
    if run.demonstrations is None:
        raise NothingToLearn("SFT learns from a snapshot of demonstrations, and this run has none. Start a new one.")
    texts, about = corpus_of(run, settings.corpus)
    if about:
        reporter.keep(corpus=about)
    loaded = load_policy_with_value(
        base_folder(run, base), lora=settings.lora if settings.lora.is_on else None, seed=settings.seed
    )
    policy = Policy(loaded.network, loaded.tokenizer).eval()  # the value head is PPO's
    trained = train_by_sft(
        demonstrations_to_learn.read(run.demonstrations, LEARNED),
        policy=policy,
        ref_policy=reference_policy(policy),
        settings=settings,
        corpus=texts,
        held_out=demonstrations_to_learn.read(run.demonstrations, HELD_OUT),
        on_begin=reporter.begin,
        on_step=reporter.step,
    )
    result = _result(trained) | ({"corpus": about} if about else {})
    figures = {name: result[name] for name in ("demonstrations", "held_out_before", "held_out_after")}
    figures["kl_nats"] = round(trained.kl_nats, 3)
    return save_outcome(run, "policy", policy.save, result=result, figures=figures)


def _result(trained: SftResult) -> dict[str, Any]:
    """What a run keeps of its training."""
    return {
        "demonstrations": trained.demonstrations,
        "dialogues_cut": trained.cuts.dialogues,
        "replies_cut": trained.cuts.replies,
        "corpus_pieces": trained.pieces,
        "corpus_tokens": trained.corpus_tokens,
        "optimizer_tokens": trained.optimizer_tokens,
        "held_out_before": trained.before.to_dict() if trained.before else None,
        "held_out_after": trained.after.to_dict() if trained.after else None,
        "kl_nats": trained.kl_nats,
        "samples": 0,
    }
