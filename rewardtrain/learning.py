"""The lower half of the circle as three functions: snapshot → reward model → policy → gate report.

They tie rows to the plain functions that learn: read what a run says goes in, call one trainer, give back what came
out. Each loads torch, so workers' children and commands import this module and nobody else does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedback.agreement import Share, noise_ceiling, pair_agreement
from feedback.models import ModelVersion, Prompt, PromptGroup, Ranking
from feedback.prompts import fingerprint
from feedback.snapshots import RankedRow, snapshot_rows
from rewardtrain import model_files
from rewardtrain.chat import Turn, as_turns
from rewardtrain.checkpoints import folder_hash, save_checkpoint
from rewardtrain.errors import NothingToLearn
from rewardtrain.gate import GateSettings, Reply, Sample, gate_report
from rewardtrain.hyperparameters import PpoSettings, RewardModelSettings, SamplingSettings
from rewardtrain.models import LedgerEntry, TrainingRun
from rewardtrain.seeds import stable_seed

if TYPE_CHECKING:
    from rewardtrain import ppo, reward_training
    from rewardtrain.reward_model import RewardModel
    from rewardtrain.runs import Reporter

logger = logging.getLogger(__name__)
SCALE_PROMPTS = 256  # training prompts whose replies fix a reward's mean and spread for a round
MOST_PROMPTS = 20_000


@dataclass(frozen=True)
class Outcome:
    """What a run gives back: its result, and the model it made, if it makes one."""

    result: dict[str, Any]
    kind: str = ""
    location: str = ""
    content_hash: str = ""
    name: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


# Preferences


def learn_preferences(run: TrainingRun, reporter: Reporter) -> Outcome:
    """Train a preference reward model on a snapshot's rankings, and measure it on held-out openings.

    In a round the training comparisons are divided: most teach the model that PPO optimises, the rest a second one that
    only the gate asks, so that a policy which merely pleases the first is found out.
    """
    from rewardtrain import reward_training

    chosen = dict(run.hyperparameters)
    base = _base_folder(run, chosen.pop("base", ""))
    settings = RewardModelSettings.from_dict({"seed": run.seed, **chosen})
    assert run.snapshot is not None
    rows = list(snapshot_rows(run.snapshot))
    training = _share_of(run, [row for row in rows if row.split == PromptGroup.Split.TRAIN])
    held_out = [row for row in rows if row.split != PromptGroup.Split.TRAIN]
    trained = reward_training.train_reward_model(
        [as_comparison(row) for row in training],
        base=base,
        settings=settings,
        on_step=_report_reward_steps(reporter),
    )
    figures = _reward_figures(run, trained.reward_model, [as_comparison(row) for row in held_out])
    result = {
        "comparisons": trained.comparisons,
        "training_pairs": trained.pairs,
        "comparisons_without_pairs": trained.comparisons_without_pairs,
        **figures,
    }
    name = "second opinion" if run.kind == TrainingRun.Kind.SECOND_REWARD_MODEL else ""
    return _saved(run, "preference", trained.reward_model.save, result=result, figures=figures, name=name)


def as_comparison(row: RankedRow) -> reward_training.RankedComparison:
    """A snapshot's row as the trainer takes it."""
    from rewardtrain.reward_training import RankedComparison

    return RankedComparison(
        prompt=as_turns(row.prompt),
        candidates=[as_turns(candidate["turns"]) for candidate in row.candidates],
        ranks=row.ranks,
        strength=row.strength,
        all_bad=row.all_bad,
    )


def _base_folder(run: TrainingRun, base: str) -> Path:
    """The network a reward model starts from: the one named, else the policy the run starts from."""
    if base:
        return Path(base) if Path(base).is_dir() else model_files.folder_at(base)
    if run.parent is None:
        raise NothingToLearn("Name a base to start from: --base FOLDER with a Hugging Face model.")
    return model_files.verified_folder(run.parent)[0]


def _share_of(run: TrainingRun, rows: list[RankedRow]) -> list[RankedRow]:
    """The comparisons this run may train on: in a round, its own side of the division by opening."""
    if run.round is None:
        return rows
    second_share = GateSettings.from_dict(run.round.hyperparameters.get("gate", {})).second_share
    is_second = run.kind == TrainingRun.Kind.SECOND_REWARD_MODEL
    own = [row for row in rows if _kept_for_second(row, run.round.seed, second_share) == is_second]
    return own or rows


def _kept_for_second(row: RankedRow, seed: int, share: float) -> bool:
    return stable_seed(seed, fingerprint(row.prompt)) / 2**63 < share


def _report_reward_steps(reporter: Reporter) -> Callable[[reward_training.RewardStep], None]:
    def report(step: reward_training.RewardStep) -> None:
        if step.step == 1:
            reporter.begin(step.steps)
        reporter.step(
            step.step,
            step.steps,
            {
                "reward/loss": step.loss,
                "reward/pair_accuracy": step.pair_accuracy,
                "reward/learning_rate": step.learning_rate,
                "reward/gradient_norm": step.gradient_norm,
            },
        )

    return report


def _reward_figures(run: TrainingRun, reward_model: RewardModel, held_out: Sequence[Any]) -> dict[str, Any]:
    figures = measure_reward_model(reward_model, held_out) if held_out else {"pairs": 0}
    agreement = pair_agreement(_doubly_ranked(run)).value
    ceiling = noise_ceiling(agreement) if agreement is not None else None
    return {**figures, "agreement": agreement, "ceiling": ceiling}


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


def _doubly_ranked(run: TrainingRun) -> list[list[dict[int, int]]]:
    """The ranks of every comparison of the project that more than one person has ranked."""
    ranked: dict[int, list[dict[int, int]]] = {}
    rankings = Ranking.objects.counted().filter(comparison__dialogue__project=run.project)
    for ranking in rankings.prefetch_related("entries"):
        ranked.setdefault(ranking.comparison_id, []).append(ranking.ranks())
    return [own for own in ranked.values() if len(own) > 1]


# Policy


def improve_policy(run: TrainingRun, reporter: Reporter) -> Outcome:
    """PPO from the policy that serves, against the round's reward model, held to where it started."""
    from rewardtrain import ppo
    from rewardtrain.policy import load_policy_with_value, reference_policy

    assert run.parent is not None
    chosen = dict(run.hyperparameters)
    scorer_version = _reward_model_of(run, chosen.pop("reward_model", None))
    settings = _ppo_settings(run, chosen)
    scorer = load_scorer(scorer_version)
    folder, _ = model_files.verified_folder(run.parent)
    policy = load_policy_with_value(folder, lora=settings.lora if settings.lora.is_on else None, seed=settings.seed)
    ref_policy = reference_policy(policy)
    prompts = training_prompts(run)
    mean, std = _scale(policy, scorer, prompts, settings)
    reward = ppo.WeightedReward("preference", 1.0, scorer, mean=mean, std=std)
    reporter.begin(settings.updates)
    trained = ppo.train_policy(
        prompts,
        policy=policy,
        ref_policy=ref_policy,
        rewards=[reward],
        settings=settings,
        on_step=lambda step: reporter.step(step.step, step.steps, ppo_figures(step)),
        ledger=lambda entries: reporter.ledger([_ledger_row(run, entry) for entry in entries]),
    )
    result = {
        "reward_model": scorer_version.pk,
        "scale": {"preference": {"mean": mean, "std": std}},
        "prompts": len(prompts),
        "samples": trained.samples,
        "dialogues_cut": trained.dialogues_cut,
        "turns_cut": trained.turns_cut,
        "kl_nats": trained.kl_nats,
    }
    figures = {"kl_nats": round(trained.kl_nats, 3), "updates": settings.updates}
    return _saved(run, "policy", policy.save, result=result, figures=figures, beside=policy.save_value_head)


def _ppo_settings(run: TrainingRun, chosen: dict[str, Any]) -> PpoSettings:
    """The run's settings; what it does not say about sampling is the project's own."""
    sampling = {"temperature": run.project.temperature, "max_new_tokens": run.project.max_new_tokens}
    return PpoSettings.from_dict({"seed": run.seed, **chosen, "sampling": {**sampling, **chosen.get("sampling", {})}})


def _reward_model_of(run: TrainingRun, pk: int | None) -> ModelVersion:
    """The reward model a run learns from: the one named, the round's own, or the project's newest."""
    if pk is not None:
        return ModelVersion.objects.get(pk=pk, project=run.project, kind=ModelVersion.Kind.PREFERENCE)
    if run.round is not None:
        return _produced(run, TrainingRun.Kind.REWARD_MODEL)
    newest = (
        ModelVersion.objects.filter(project=run.project, kind=ModelVersion.Kind.PREFERENCE)
        .exclude(made_by_runs__kind=TrainingRun.Kind.SECOND_REWARD_MODEL)
        .order_by("-number")
        .first()
    )
    if newest is None:
        raise NothingToLearn("This project has no reward model yet. Train one first: manage.py train_reward_model.")
    return newest


def _produced(run: TrainingRun, kind: str) -> ModelVersion:
    sibling = TrainingRun.objects.select_related("produced").get(round=run.round, kind=kind)
    assert sibling.produced is not None
    return sibling.produced


def load_scorer(version: ModelVersion) -> ppo.Scorer:
    """A scorer of replies; without gradients."""
    import torch

    from rewardtrain.reward_model import RewardModel

    reward_model = RewardModel.load(model_files.verified_folder(version)[0])

    def scores(prompts: Any, replies: Any) -> Any:
        with torch.no_grad():
            return reward_model.scores(prompts, replies)

    return scores


def training_prompts(run: TrainingRun) -> list[list[Turn]]:
    """What PPO answers: the training split's prompts, and people's dialogues cut where a reply was wanted.

    Prompts that annotators are not offered (imported ones, and those a person wrote) count as well.
    """
    prompts = Prompt.objects.filter(project=run.project).of_split(PromptGroup.Split.TRAIN)
    openings = [as_turns(prompt.messages) for prompt in prompts.order_by("content_hash")[:MOST_PROMPTS]]
    cut = _dialogues_cut_at_user_turns(run)
    found = openings + cut
    if not found:
        raise NothingToLearn("The training split has no prompts. Import prompts, or let people open dialogues first.")
    return found


def _dialogues_cut_at_user_turns(run: TrainingRun) -> list[list[Turn]]:
    if run.snapshot is None:
        return []
    rows = [row for row in snapshot_rows(run.snapshot) if row.split == PromptGroup.Split.TRAIN and len(row.prompt) > 1]
    return [as_turns(row.prompt) for row in rows]


def _scale(policy: Any, scorer: ppo.Scorer, prompts: Sequence[Any], settings: PpoSettings) -> tuple[float, float]:
    """Mean and spread of the reward over the start's own replies to training prompts: fixed for the round."""
    from rewardtrain import ppo
    from rewardtrain.sampling import sample_replies

    every = max(1, len(prompts) // SCALE_PROMPTS)
    some = list(prompts[::every][:SCALE_PROMPTS])
    seeds = [stable_seed(settings.seed, "scale", index) for index in range(len(some))]
    replies = sample_replies(policy, policy.tokenizer, some, settings=settings.sampling, seeds=seeds)
    return ppo.reward_scale(scorer, some, [[reply.text] for reply in replies])


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
        **step.terms,
    }
    return {f"ppo/{name}": value for name, value in named.items()}


def _ledger_row(run: TrainingRun, entry: ppo.LedgerEntry) -> LedgerEntry:
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


# Gate


def measure_gate(run: TrainingRun, reporter: Reporter) -> Outcome:
    """Let the old and the new policy answer validation prompts, score both with both reward models, and report."""
    from rewardtrain.policy import load_policy

    assert run.round is not None and run.round.policy_after is not None
    settings = GateSettings.from_dict(run.hyperparameters)
    prompts = _gate_prompts(run, settings.prompts)
    before = load_policy(model_files.verified_folder(run.round.policy_before)[0])
    after = load_policy(model_files.verified_folder(run.round.policy_after)[0])
    scorers = [
        _standardised(load_scorer(_produced(run, kind)), before, prompts, run)
        for kind in (TrainingRun.Kind.REWARD_MODEL, TrainingRun.Kind.SECOND_REWARD_MODEL)
    ]
    reporter.begin(2)
    old = _answers(run, before, prompts, scorers, reference=None)
    reporter.step(1, 2, {})
    new = _answers(run, after, prompts, scorers, reference=before)
    reporter.step(2, 2, {})
    samples = [Sample(list(prompt), *pair) for prompt, *pair in zip(prompts, old, new, strict=True)]
    return Outcome(result=gate_report(samples, settings))


def _gate_prompts(run: TrainingRun, most: int) -> list[list[dict[str, str]]]:
    """Validation prompts in an order of the run's own."""
    prompts = Prompt.objects.filter(project=run.project).of_split(PromptGroup.Split.VALIDATION)
    keyed = [(stable_seed(run.seed, prompt.content_hash), prompt.messages) for prompt in prompts]
    return [messages for _, messages in sorted(keyed, key=lambda entry: entry[0])[:most]]


def _standardised(scorer: ppo.Scorer, before: Any, prompts: Sequence[Any], run: TrainingRun) -> ppo.Scorer:
    """Scores in standard deviations over the old policy's replies, so that two models' figures can be compared."""
    import torch

    from rewardtrain import ppo

    replies = _draw(run, before, prompts, "scale")
    mean, std = ppo.reward_scale(scorer, prompts, [[reply.text] for reply in replies])
    return lambda asked, given: [(torch.as_tensor(own) - mean) / std for own in scorer(asked, given)]


def _draw(run: TrainingRun, policy: Any, prompts: Sequence[Any], purpose: str) -> list[Any]:
    from rewardtrain.sampling import sample_replies

    sampling = SamplingSettings(temperature=run.project.temperature, max_new_tokens=run.project.max_new_tokens)
    seeds = [stable_seed(run.seed, purpose, index) for index in range(len(prompts))]
    return sample_replies(policy, policy.tokenizer, prompts, settings=sampling, seeds=seeds)


def _answers(
    run: TrainingRun, policy: Any, prompts: Sequence[Any], scorers: Sequence[ppo.Scorer], reference: Any
) -> list[Reply]:
    drawn = _draw(run, policy, prompts, "gate")
    texts = [[reply.text] for reply in drawn]
    first, second = ([float(own[0]) for own in scorer(prompts, texts)] for scorer in scorers)
    kl = kl_to(reference, policy, prompts, drawn) if reference is not None else [0.0] * len(drawn)
    return [
        Reply(reply.text, len(reply.token_ids), reply.finished, one, other, nats)
        for reply, one, other, nats in zip(drawn, first, second, kl, strict=True)
    ]


def kl_to(reference: Any, policy: Any, prompts: Sequence[Any], drawn: Sequence[Any]) -> list[float]:
    """Per reply the summed difference of log-probabilities to the reference, at the temperature it was drawn with."""
    import torch

    from rewardtrain.sampling import encode_for_sampling

    encoded = [encode_for_sampling(policy, policy.tokenizer, prompt, SamplingSettings()).ids for prompt in prompts]
    replies = [reply.token_ids for reply in drawn]
    with torch.no_grad():
        owners = list(range(len(replies)))
        own = policy.evaluate_replies(encoded, replies, owners)
        other = reference.evaluate_replies(encoded, replies, owners)
    difference = (own.logprobs - other.logprobs) * own.mask
    return [float(value) for value in difference.sum(dim=1)]


# Files


def _saved(
    run: TrainingRun,
    kind: str,
    writer: Callable[[Path], Any],
    *,
    result: dict[str, Any],
    figures: dict[str, Any],
    name: str = "",
    beside: Callable[[Path], Any] | None = None,
) -> Outcome:
    """Write what was trained, complete or not at all; what is only for training goes into a folder beside it."""
    location = f"{run.project.slug}/{kind}-run-{run.pk}"
    folder = model_files.models_folder() / location
    save_checkpoint(folder, writer, replace=True)
    if beside is not None:
        save_checkpoint(folder.with_name(f"{folder.name}.training"), beside, replace=True)
    return Outcome(
        result=result, kind=kind, location=location, content_hash=folder_hash(folder), figures=figures, name=name
    )
