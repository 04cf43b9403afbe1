"""The lower half of the circle as three functions: snapshot → reward model → policy → gate report.

They tie rows to the plain functions that learn: read what a run says goes in, call one trainer, give back what came
out. Each loads torch, so workers' children and commands import this module and nobody else does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from feedback.agreement import Share
from feedback.figures import agreement_of
from feedback.models import ModelVersion, Prompt, PromptGroup
from feedback.prompts import fingerprint
from feedback.snapshots import RankedRow, snapshot_rows
from rewardtrain import model_files
from rewardtrain.algorithms import CLASSES, PPO, AnySettings, DpoSettings, algorithm_of, read_settings
from rewardtrain.chat import Turn, as_turns
from rewardtrain.checkpoints import model_folder_hash, save_checkpoint
from rewardtrain.errors import CheckpointNotWritten, NothingToLearn
from rewardtrain.gate import GateSettings, Reply, Sample, gate_report
from rewardtrain.hyperparameters import PpoSettings, RewardModelSettings, SamplingSettings
from rewardtrain.models import LedgerEntry, TrainingRun
from rewardtrain.seeds import stable_seed
from rewardtrain.team import ALONE, Team

if TYPE_CHECKING:
    from rewardtrain import ppo, reward_training, rollouts
    from rewardtrain.reward_model import RewardModel
    from rewardtrain.runs import Silent
    from rewardtrain.training_state import StateKeeper

logger = logging.getLogger(__name__)
SCALE_PROMPTS = 256  # training prompts whose replies fix a reward's mean and spread for a round
MOST_PROMPTS = 20_000
KL_TOKENS_PER_FORWARD = 8192
STATES_KEPT_FOR = timedelta(days=14)  # of runs that failed or were stopped; somebody may want to go on


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


def learn_preferences(run: TrainingRun, reporter: Silent, team: Team = ALONE) -> Outcome:
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
        on_begin=reporter.begin,
        on_step=lambda step: reporter.step(step.step, step.steps, reward_figures(step)),
        keeper=_keeper(run, reporter, settings.checkpoint_seconds, team),
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
    """The network a reward model starts from: the one named, else the policy the run starts from.

    A command may name any folder; what a project's settings name is a location as models have.
    """
    if base:
        return Path(base) if run.round is None and Path(base).is_dir() else model_files.folder_at(base)
    if run.parent is None:
        raise NothingToLearn("Name a base to start from: --base FOLDER with a Hugging Face model.")
    return folder_of(run.parent)


def folder_of(version: ModelVersion) -> Path:
    """The folder of a model whose files are still those it was made with, or first found with."""
    folder, found = model_files.verified_folder(version)
    model_files.hold_to(version, found)
    return folder


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


# Policy


def improve_policy(run: TrainingRun, reporter: Silent, team: Team = ALONE) -> Outcome:
    """A better policy from the one that serves, by the algorithm the run names; what it cost is in the result."""
    from rewardtrain import alternatives

    algorithm, began = algorithm_of(run.hyperparameters), time.process_time()
    outcome = _improve_by_ppo(run, reporter, team) if algorithm == PPO else alternatives.improve_policy(run, reporter)
    (seconds,) = team.sums([time.process_time() - began])
    outcome.result.update(algorithm=algorithm, cpu_seconds=round(seconds, 1))
    return outcome


def _improve_by_ppo(run: TrainingRun, reporter: Silent, team: Team) -> Outcome:
    """PPO from the policy that serves, against the round's reward model, held to where it started."""
    from rewardtrain import ppo
    from rewardtrain.policy import load_policy_with_value, reference_policy
    from rewardtrain.precision import check_device
    from rewardtrain.rollouts import WeightedReward
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
    scorer = reward_beside(policy, folder, reward_folder, dtype=settings.dtype).scores
    prompts = training_prompts(run, begun.prompt_ids)
    if begun.scale is None:
        begun.scale = team.from_first(lambda: _scale(policy, scorer, prompts, settings))
        reporter.keep(begun=begun.to_json())
    mean, std = begun.scale
    reward = WeightedReward("preference", 1.0, scorer, mean=mean, std=std)
    trained = ppo.train_policy(
        prompts,
        policy=policy,
        ref_policy=ref_policy,
        rewards=[reward],
        settings=settings,
        on_begin=reporter.begin,
        on_step=lambda step: reporter.step(step.step, step.steps, ppo_figures(step)),
        ledger=lambda entries: reporter.ledger([_ledger_row(run, entry) for entry in entries]),
        keeper=_keeper(run, reporter, settings.checkpoint_seconds, team, reward_model=begun.reward_model.content_hash),
        team=team,
    )
    if not team.is_first:
        return Outcome(result={})
    result = {
        "reward_model": begun.reward_model.pk,
        "scale": {"preference": {"mean": mean, "std": std}},
        "prompts": len(prompts),
        "samples": trained.samples,
        "dialogues_cut": trained.dialogues_cut,
        "turns_cut": trained.turns_cut,
        "kl_nats": trained.kl_nats,
        "optimizer_tokens": sum(
            round(step.passes * step.response_tokens * settings.samples_per_update) for step in trained.steps
        ),
    }
    figures = {"kl_nats": round(trained.kl_nats, 3), "updates": settings.updates}
    return _saved(run, "policy", policy.save, result=result, figures=figures, beside=policy.save_value_head)


@dataclass
class Begun:
    """What a policy run was begun with, kept on its row: people go on writing prompts and changing settings meanwhile.

    reward_model  None only where DPO is not watched by one
    scale         (mean, standard deviation) of the reward over the start's replies; None until it was measured
    """

    reward_model: ModelVersion | None
    settings: AnySettings
    prompt_ids: list[int]
    scale: tuple[float, float] | None = None

    @classmethod
    def of(cls, run: TrainingRun) -> Begun:
        """As it was kept, or as things stand now."""
        if kept := run.result.get("begun"):
            scorer = ModelVersion.objects.get(pk=kept["reward_model"], project=run.project)
            settings = CLASSES[algorithm_of(run.hyperparameters)].from_dict(kept["settings"])
            return cls(scorer, settings, kept["prompts"], (kept["mean"], kept["std"]))
        chosen = dict(run.hyperparameters)
        named = chosen.pop("reward_model", None)
        settings = _policy_settings(run, chosen)
        return cls(_reward_model_of(run, named, settings), settings, training_prompt_ids(run))

    def to_json(self) -> dict[str, Any]:
        assert self.scale is not None and self.reward_model is not None
        mean, std = self.scale
        return {
            "reward_model": self.reward_model.pk,
            "settings": self.settings.to_dict(),
            "prompts": self.prompt_ids,
            "mean": mean,
            "std": std,
        }


def _policy_settings(run: TrainingRun, chosen: dict[str, Any]) -> AnySettings:
    """The run's settings; what it does not say about sampling is the project's own."""
    sampling = {"temperature": run.project.temperature, "max_new_tokens": run.project.max_new_tokens}
    return read_settings({"seed": run.seed, **chosen, "sampling": {**sampling, **chosen.get("sampling", {})}})


def _reward_model_of(run: TrainingRun, pk: int | None, settings: AnySettings) -> ModelVersion | None:
    """The reward model a run learns from: the one named, the round's own, or the project's newest.

    None where there is none and DPO needs none.
    """
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
    if newest is None and not isinstance(settings, DpoSettings):
        raise NothingToLearn("This project has no reward model yet. Train one first: manage.py train_reward_model.")
    return newest


def _produced(run: TrainingRun, kind: str) -> ModelVersion:
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


def training_prompt_ids(run: TrainingRun) -> list[int]:
    """The training split's prompts; also those that annotators are not offered: imported, or written by a person."""
    prompts = Prompt.objects.filter(project=run.project).of_split(PromptGroup.Split.TRAIN)
    return list(prompts.order_by("content_hash").values_list("pk", flat=True)[:MOST_PROMPTS])


def training_prompts(run: TrainingRun, ids: Sequence[int]) -> list[list[Turn]]:
    """What PPO answers: these prompts, and people's dialogues of the snapshot cut where a reply was wanted."""
    prompts = Prompt.objects.in_bulk(ids)
    openings = [as_turns(prompts[pk].messages) for pk in ids]
    found = openings + _dialogues_cut_at_user_turns(run)
    if not found:
        raise NothingToLearn("The training split has no prompts. Import prompts, or let people open dialogues first.")
    return found


def _dialogues_cut_at_user_turns(run: TrainingRun) -> list[list[Turn]]:
    if run.snapshot is None:
        return []
    rows = [row for row in snapshot_rows(run.snapshot) if row.split == PromptGroup.Split.TRAIN and len(row.prompt) > 1]
    return [as_turns(row.prompt) for row in rows]


def _scale(policy: Any, scorer: rollouts.Scorer, prompts: Sequence[Any], settings: AnySettings) -> tuple[float, float]:
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


def _ledger_row(run: TrainingRun, entry: rollouts.LedgerEntry) -> LedgerEntry:
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


def measure_gate(run: TrainingRun, reporter: Silent, team: Team = ALONE) -> Outcome:
    """Let the old and the new policy answer validation prompts, score both with both reward models, and report."""
    from rewardtrain.policy import load_policy

    assert run.round is not None and run.round.policy_after is not None
    settings = GateSettings.from_dict(run.hyperparameters)
    prompts = _gate_prompts(run, settings.prompts)
    where = _where_ppo_ran(run)
    before = load_policy(folder_of(run.round.policy_before), **where)
    after = load_policy(folder_of(run.round.policy_after), **where)
    scorers = [
        _standardised(load_scorer(_produced(run, kind), **where), before, prompts, run)
        for kind in (TrainingRun.Kind.REWARD_MODEL, TrainingRun.Kind.SECOND_REWARD_MODEL)
    ]
    reporter.begin(2)
    old = _answers(run, before, prompts, scorers, reference=None)
    reporter.step(1, 2, {})
    new = _answers(run, after, prompts, scorers, reference=before)
    reporter.step(2, 2, {})
    samples = [Sample(list(prompt), *pair) for prompt, *pair in zip(prompts, old, new, strict=True)]
    return Outcome(result=gate_report(samples, settings))


def _where_ppo_ran(run: TrainingRun) -> dict[str, str]:
    """Device and precision of weights, as the round's PPO had them: networks too large for a CPU stay off it."""
    from rewardtrain.precision import check_device

    assert run.round is not None
    chosen = run.round.hyperparameters.get("policy", {})
    usual = PpoSettings()
    return {
        "dtype": chosen.get("dtype", usual.dtype),
        "device": check_device(chosen.get("device", usual.device)),
    }


def _gate_prompts(run: TrainingRun, most: int) -> list[list[dict[str, str]]]:
    """Validation prompts in an order of the run's own."""
    prompts = Prompt.objects.filter(project=run.project).of_split(PromptGroup.Split.VALIDATION)
    keyed = [(stable_seed(run.seed, prompt.content_hash), prompt.messages) for prompt in prompts]
    return [messages for _, messages in sorted(keyed, key=lambda entry: entry[0])[:most]]


def _standardised(scorer: rollouts.Scorer, before: Any, prompts: Sequence[Any], run: TrainingRun) -> rollouts.Scorer:
    """Scores in standard deviations over the old policy's replies, so that two models' figures can be compared."""
    import torch

    from rewardtrain.rollouts import reward_scale

    replies = _draw(run, before, prompts, "scale")
    mean, std = reward_scale(scorer, prompts, [[reply.text] for reply in replies])
    return lambda asked, given: [(torch.as_tensor(own) - mean) / std for own in scorer(asked, given)]


def _draw(run: TrainingRun, policy: Any, prompts: Sequence[Any], purpose: str) -> list[Any]:
    from rewardtrain.sampling import sample_replies

    seeds = [stable_seed(run.seed, purpose, index) for index in range(len(prompts))]
    return sample_replies(policy, policy.tokenizer, prompts, settings=_project_sampling(run), seeds=seeds)


def _project_sampling(run: TrainingRun) -> SamplingSettings:
    return SamplingSettings(temperature=run.project.temperature, max_new_tokens=run.project.max_new_tokens)


def _answers(
    run: TrainingRun, policy: Any, prompts: Sequence[Any], scorers: Sequence[rollouts.Scorer], reference: Any
) -> list[Reply]:
    drawn = _draw(run, policy, prompts, "gate")
    texts = [[reply.text] for reply in drawn]
    first, second = ([float(own[0]) for own in scorer(prompts, texts)] for scorer in scorers)
    kl = [0.0] * len(drawn)
    if reference is not None:
        kl = kl_to(reference, policy, prompts, drawn, _project_sampling(run))
    return [
        Reply(reply.text, len(reply.token_ids), reply.finished, one, other, nats)
        for reply, one, other, nats in zip(drawn, first, second, kl, strict=True)
    ]


def kl_to(
    reference: Any, policy: Any, prompts: Sequence[Any], drawn: Sequence[Any], sampling: SamplingSettings
) -> list[float]:
    """Per reply the summed difference of log-probabilities to the reference, with the settings it was drawn with.

    At temperature 0 nothing was left to chance; the chances at temperature 1 are compared then.
    """
    import torch

    from rewardtrain.sampling import encode_for_sampling
    from rewardtrain.shared_prefix import length_buckets

    encoded = [encode_for_sampling(policy, policy.tokenizer, prompt, sampling).ids for prompt in prompts]
    replies = [reply.token_ids for reply in drawn]
    widths = [len(prompt) + len(reply) for prompt, reply in zip(encoded, replies, strict=True)]
    nats = [0.0] * len(replies)
    for places in length_buckets(widths, KL_TOKENS_PER_FORWARD):
        asked = [encoded[place] for place in places], [replies[place] for place in places], list(range(len(places)))
        with torch.no_grad():
            own, other = (
                one.evaluate_replies(*asked, temperature=sampling.temperature or 1.0) for one in (policy, reference)
            )
        for place, value in zip(places, ((own.logprobs - other.logprobs) * own.mask).sum(dim=1), strict=True):
            nats[place] = float(value)
    return nats


# Files


def _keeper(
    run: TrainingRun, reporter: Silent, every_seconds: float, team: Team = ALONE, **belongs_to: Any
) -> StateKeeper:
    """Where this run's states are; a run that saved one goes on from it or not at all."""
    from rewardtrain.training_state import StateKeeper, StateReader

    return (StateKeeper if team.is_first else StateReader)(
        states_folder(run),
        belongs_to={"run": run.pk, **belongs_to},
        every_seconds=every_seconds,
        must_resume=run.checkpoint_step > 0,
        on_saved=reporter.saved,
    )


def states_folder(run: TrainingRun) -> Path:
    """Where the states of a run are kept until it has ended."""
    return model_files.models_folder() / run.project.slug / f"run-{run.pk}.states"


def forget_states(run: TrainingRun) -> None:
    """A run that is done needs its states no more. Nor do runs of its project that ended otherwise long ago."""
    from rewardtrain.training_state import forget_states as forget

    forget(states_folder(run))
    long_ago = timezone.now() - STATES_KEPT_FOR
    ended = TrainingRun.objects.filter(project=run.project, finished_at__lt=long_ago).exclude(pk=run.pk)
    for old in ended.select_related("project"):
        if states_folder(old).is_dir():
            forget(states_folder(old))


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
    try:
        save_checkpoint(folder, writer, replace=True)
        if beside is not None:
            save_checkpoint(folder.with_name(f"{folder.name}.training"), beside, replace=True)
    except OSError as err:
        raise CheckpointNotWritten(
            f"What was learned could not be written to {folder}: {err.strerror or err}. Make room; the run goes on."
        ) from err
    return Outcome(
        result=result, kind=kind, location=location, content_hash=model_folder_hash(folder), figures=figures, name=name
    )
