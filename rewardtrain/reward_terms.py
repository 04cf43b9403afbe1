"""The terms of a policy's reward: whose scores they are, on what scale, and the row that keeps them of each sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from feedback.models import ModelVersion, Rule
from rewardtrain.algorithms import AnySettings, DpoSettings, SftSettings
from rewardtrain.errors import NothingToLearn
from rewardtrain.hyperparameters import PpoSettings
from rewardtrain.models import LedgerEntry, TrainingRun
from rewardtrain.run_files import folder_of
from rewardtrain.seeds import stable_seed
from rewardtrain.team import ALONE, Team

if TYPE_CHECKING:
    from rewardtrain import rollouts
    from rewardtrain.begun import Begun
    from rewardtrain.credit import TokenScorer
    from rewardtrain.rule_term import RuleScale, RuleScorer

SCALE_PROMPTS = 256  # training prompts whose replies fix a reward's mean and spread for a round
SCALE_PROBES = 64  # replies to probe openings at least, several to each where there are fewer


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


def rule_model_of(
    run: TrainingRun, pk: int | None, settings: AnySettings, rules: Sequence[Rule]
) -> ModelVersion | None:
    """The rule model whose chances pay a run's replies: the one named, the round's own, or the project's newest.

    None where no rule counts, none was learned, rules were switched off, or the algorithm draws nothing to be paid.
    """
    if isinstance(settings, DpoSettings | SftSettings) or are_rules_off(run, settings):
        return None
    if pk is not None:
        if not rules:
            raise NothingToLearn("A rule model is named, but no rule is published. Publish a rule set, or name none.")
        return ModelVersion.objects.get(pk=pk, project=run.project, kind=ModelVersion.Kind.RULE)
    if not rules:
        return None
    if run.round is not None:
        own = TrainingRun.objects.filter(round=run.round, kind=TrainingRun.Kind.RULE_MODEL).first()
        return own.produced if own else None
    return ModelVersion.objects.filter(project=run.project, kind=ModelVersion.Kind.RULE).order_by("-number").first()


def are_rules_off(run: TrainingRun, settings: AnySettings) -> bool:
    """Whether somebody wants no rule to pay anything: by its weight, or in the settings of the round."""
    if run.round is not None and not run.round.uses_rules:
        return True
    return not isinstance(settings, DpoSettings | SftSettings) and settings.rule_weight == 0


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


def load_chances_followed(
    version: ModelVersion, rules: Sequence[Rule], *, dtype: str = "float32", device: str = "cpu"
) -> RuleScorer:
    """A scorer of replies by these rules, in their wordings: calibrated P(followed), without gradients.

    Called with prompts and the replies to each it gives per prompt a tensor (replies, rules). With `asked`, the places
    of the rules to ask about for each prompt, it gives (replies, asked) and does no more work than that.
    """
    import torch

    from rewardtrain.rule_model import RuleModel

    rule_model = RuleModel.load(folder_of(version), dtype=dtype, device=device)
    wordings = [rule_model.encode_rule(rule.wording) for rule in rules]

    def followed(prompts: Any, replies: Any, asked: Any = None) -> list[Any]:
        asked = [range(len(wordings))] * len(prompts) if asked is None else asked
        dialogues = [
            rule_model.with_rules(
                rule_model.encode_dialogue([*prompt, *_turns_of(reply)]), [wordings[place] for place in places]
            )
            for prompt, own, places in zip(prompts, replies, asked, strict=True)
            for reply in own
        ]
        broken = iter(rule_model.probabilities_encoded(dialogues))
        return [torch.stack([1 - next(broken).float().cpu() for _ in own]) for own in replies]

    return followed


def _turns_of(reply: Any) -> Any:
    """A reply as the turns that it adds to a dialogue."""
    return [{"role": "assistant", "content": reply}] if isinstance(reply, str) else reply


def paying_terms(
    begun: Begun,
    scorer: rollouts.Scorer,
    policy: Any,
    prompts: Sequence[Any],
    *,
    by_token: TokenScorer | None = None,
    keep: Callable[..., object] = lambda **values: None,
    team: Team = ALONE,
) -> list[rollouts.Reward]:
    """What pays a policy's replies: the preference and, where the run has a rule model, its rules.

    Their scales are those the run was begun with. Where it has none yet they are measured over the replies of `policy`,
    which must be the start then, and kept by `keep(begun=…)`.
    """
    from rewardtrain.rollouts import WeightedReward
    from rewardtrain.rule_term import RuleReward

    settings = begun.settings
    ask = None
    if begun.rule_model is not None:
        where = {"dtype": settings.dtype} if isinstance(settings, PpoSettings) else {}
        ask = load_chances_followed(begun.rule_model, begun.rules, device=str(policy.device), **where)
    if begun.scale is None:
        begun.scale, begun.rule_scale = team.from_first(
            lambda: measure_scales(policy, scorer, prompts, settings, ask, begun.rules)
        )
        keep(begun=begun.to_json())
    mean, std = begun.scale
    terms: list[rollouts.Reward] = [WeightedReward("preference", 1.0, scorer, mean=mean, std=std, by_token=by_token)]
    if ask is not None and begun.rule_scale is not None and not isinstance(settings, DpoSettings | SftSettings):
        keys, weights = [rule.key for rule in begun.rules], [rule.weight for rule in begun.rules]
        terms.append(RuleReward(settings.rule_weight, keys, weights, ask, begun.rule_scale))
    return terms


def measure_scales(
    policy: Any,
    scorer: rollouts.Scorer,
    prompts: Sequence[Any],
    settings: AnySettings,
    ask: RuleScorer | None = None,
    rules: Sequence[Rule] = (),
) -> tuple[tuple[float, float], RuleScale | None]:
    """Mean and spread of the preference, and the scale of what rules pay: over the start's replies, fixed for a round.

    The preference is measured on everyday prompts (on probes only where there are no others), so that it pays alike
    with and without rules.
    """
    from rewardtrain.precision import mixed_precision
    from rewardtrain.rollouts import reward_scale
    from rewardtrain.rule_term import probed_rule, rule_scale, rule_terms
    from rewardtrain.sampling import sample_replies

    def drawn(some: list[Any], purpose: str) -> list[list[str]]:
        seeds = [stable_seed(settings.seed, purpose, index) for index in range(len(some))]
        replies = sample_replies(policy, policy.tokenizer, some, settings=settings.sampling, seeds=seeds)
        return [[reply.text] for reply in replies]

    probes = [prompt for prompt in prompts if probed_rule(prompt) is not None]
    everyday = [prompt for prompt in prompts if probed_rule(prompt) is None]
    some, probing = _spread(everyday or probes), _spread(probes)
    probing *= math.ceil(SCALE_PROBES / len(probing)) if probing else 1
    with mixed_precision(settings) if isinstance(settings, PpoSettings) else nullcontext():
        replies = drawn(some, "scale")
        scale = reward_scale(scorer, some, replies)
        if ask is None:
            return scale, None
        asked, answers = [*some, *probing], [*replies, *drawn(probing, "scale of probes")]
        terms = rule_terms(ask, [rule.key for rule in rules], [rule.weight for rule in rules], asked, answers)
    return scale, rule_scale([term for own in terms for term in own])


def _spread(prompts: Sequence[Any]) -> list[Any]:
    """At most SCALE_PROMPTS of them, from all over the list."""
    every = max(1, len(prompts) // SCALE_PROMPTS)
    return list(prompts[::every][:SCALE_PROMPTS])


def scales_of(begun: Begun) -> dict[str, Any]:
    """The scales of a run's reward as its result keeps them."""
    found: dict[str, Any] = {}
    if begun.scale is not None:
        found["preference"] = dict(zip(("mean", "std"), begun.scale, strict=True))
    if begun.rule_scale is not None:
        found["rules"] = asdict(begun.rule_scale)
    return found


def ledger_row(run: TrainingRun, entry: rollouts.LedgerEntry) -> LedgerEntry:
    """A sample with every term of its reward, as the row that keeps it."""
    return LedgerEntry(
        run=run,
        step=entry.step,
        index=entry.index,
        prompt=list(entry.prompt),
        response=entry.response,
        rule=entry.rule,
        terms=entry.terms,
        raw_terms=entry.raw_terms,
        reward=entry.reward,
        kl_nats=entry.kl_nats,
        token_count=entry.token_count,
    )
