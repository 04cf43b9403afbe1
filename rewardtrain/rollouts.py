"""Rollouts: replies drawn from a policy, scored term by term and checked, for every algorithm that draws."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rewardtrain.chat import EncodedPrompt, Turn
from rewardtrain.credit import TOKEN, TokenScorer, after_tokens
from rewardtrain.errors import NothingToLearn, TrainingDiverged
from rewardtrain.hyperparameters import PpoSettings
from rewardtrain.kl import reply_kl
from rewardtrain.policy import Policy, ReferencePolicy
from rewardtrain.rule_term import KINDS, RuleReward, probed_rule
from rewardtrain.sampling import Reply, sample_replies
from rewardtrain.seeds import stable_seed
from rewardtrain.shared_prefix import length_buckets
from rewardtrain.team import ALONE, Team

Prompt = Sequence[Turn]
Scorer = Callable[[Sequence[Prompt], Sequence[Sequence[str]]], Sequence[Sequence[float] | Tensor]]
"""Prompts and the replies to each, to as many scores: what `RewardModel.scores` is."""


@dataclass(frozen=True)
class WeightedReward:
    """One term of the reward: (score - mean) / std · weight.

    mean, std  over the reference policy's replies to training prompts, fixed at the start of a round, so that steps,
               ledger and gate can be compared (`reward_scale` measures them)
    by_token   of a scorer that also knows what a reply would score if it ended earlier; asked instead of `scorer`
    """

    name: str
    weight: float
    scorer: Scorer
    mean: float = 0.0
    std: float = 1.0
    by_token: TokenScorer | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise ValueError(
                f"The reward {self.name} needs a finite mean and a spread above 0, not {self.mean} and {self.std}: "
                "a scorer that gives every reply the same teaches nothing."
            )

    def identity(self) -> dict[str, Any]:
        """What tells it from another one, beside what its scorer is."""
        return {"name": self.name, "weight": self.weight, "mean": self.mean, "std": self.std}


Reward = WeightedReward | RuleReward


@dataclass(frozen=True)
class LedgerEntry:
    """One sample with every term of its reward."""

    step: int  # the update it was drawn for, from 1
    index: int
    prompt: list[Turn]
    response: str
    terms: dict[str, float]  # as weighed into the sum: the rewards by name, length_penalty, malformed_penalty
    raw_terms: dict[str, float]  # the rewards before standardising and weighing, and the chances that rules go by
    reward: float  # sum of the terms, KL left out
    kl_nats: float
    kl_penalty: float  # kl_coef · kl_nats, taken off token by token
    token_count: int
    finished: bool
    rule: str = ""  # key of the rule that was probed, or that was most likely broken; empty where none was asked about


@dataclass
class Rollout:
    """Samples of one update and all that is known of them. Rows stand grouped by prompt.

    Tensors are (B, T) float, 0 where `response_mask` is False, unless said otherwise.
    """

    prompts: list[Prompt]
    prompt_ids: list[list[int]]
    owners: list[int]  # per sample the place of its prompt
    replies: list[Reply]
    response_mask: Tensor  # (B, T) bool
    logprobs: Tensor
    values: Tensor
    ref_logprobs: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)  # (B,) each
    raw_terms: dict[str, Tensor] = field(default_factory=dict)  # (B,) each, NaN where it does not apply
    rules: list[str] = field(default_factory=list)  # as in the ledger; empty where none was asked about
    scores: Tensor = field(default_factory=lambda: torch.zeros(0))  # (B,) sum of the terms
    progress: Tensor = field(default_factory=lambda: torch.zeros(0))  # the reward if a reply ended after each token
    credit_rate: float = 0.0  # share of tokens of which some scorer knew what they did
    rewards: Tensor = field(default_factory=lambda: torch.zeros(0))
    advantages: Tensor = field(default_factory=lambda: torch.zeros(0))
    returns: Tensor = field(default_factory=lambda: torch.zeros(0))

    def __len__(self) -> int:
        return len(self.replies)

    @property
    def kl(self) -> Tensor:
        """(B,) nats per reply."""
        return reply_kl(self.logprobs, self.ref_logprobs, self.response_mask)


# Sample


def prompts_of_update(count: int, step: int, settings: PpoSettings) -> list[int]:
    """Places of the prompts that update `step` (from 0) uses: every prompt once before any comes again.

    Known from the seed and the step alone, so that a resumed run goes on where it stopped.
    """
    return _in_turn(count, step, settings.prompts_per_update, settings, "prompts")


def places_of_update(prompts: Sequence[Prompt], step: int, settings: PpoSettings) -> list[int]:
    """`prompts_of_update` where some are probe openings: `probe_share` of them, each at most once an update.

    Where all prompts are probe openings and an update wants more than there are, they come again as prompts do.
    Of either kind every prompt comes once before any comes again.
    """
    probes = [place for place, prompt in enumerate(prompts) if probed_rule(prompt) is not None]
    everyday = [place for place, prompt in enumerate(prompts) if probed_rule(prompt) is None]
    wanted = settings.prompts_per_update
    probing = min(round(settings.probe_share * wanted), len(probes)) if everyday else wanted
    if not probes or not probing:
        return [everyday[place] for place in prompts_of_update(len(everyday), step, settings)]
    return [everyday[place] for place in _in_turn(len(everyday), step, wanted - probing, settings, "prompts")] + [
        probes[place] for place in _probes_in_turn(len(probes), step, probing, settings)
    ]


def _in_turn(count: int, step: int, wanted: int, settings: PpoSettings, kind: str) -> list[int]:
    """So many of `count` places for an update, in shuffled sweeps over all of them."""
    places: list[int] = []
    while len(places) < wanted:
        sweep, offset = divmod(step * wanted + len(places), count)
        places += _sweep(count, sweep, settings, kind)[offset : offset + wanted - len(places)]
    return places


def _probes_in_turn(count: int, step: int, wanted: int, settings: PpoSettings) -> list[int]:
    """As `_in_turn`, but no place comes twice in an update: what it took of one sweep comes last in the next."""
    if wanted > count:
        return _in_turn(count, step, wanted, settings, "probes")
    first, order, places = step * wanted, list[int](), list[int]()
    for sweep in range((first + wanted - 1) // count + 1):
        start = sweep * count
        taken = set(order[count - start % wanted :])
        order = sorted(_sweep(count, sweep, settings, "probes"), key=taken.__contains__)
        places += order[max(first - start, 0) : max(first + wanted - start, 0)]
    return places


def _sweep(count: int, sweep: int, settings: PpoSettings, kind: str) -> list[int]:
    """All places once, shuffled."""
    order = list(range(count))
    random.Random(stable_seed(settings.seed, kind, sweep)).shuffle(order)
    return order


def sample_rollout(
    policy: Policy,
    ref_policy: ReferencePolicy,
    prompts: Sequence[Prompt],
    encoded: Sequence[EncodedPrompt],
    settings: PpoSettings,
    step: int,
    team: Team = ALONE,
) -> Rollout:
    """`samples_per_prompt` replies to each prompt, with log-probabilities and values kept from the drawing."""
    own = team.own(range(len(prompts)))
    drawn = _drawn(policy, [encoded[place].ids for place in own], own, settings, step)
    by_ref_policy = by_reference(ref_policy, [encoded[place].ids for place in own], drawn, settings)
    groups = team.gathered(list(zip(drawn, by_ref_policy, strict=True)))
    replies = [reply for group, _ in groups for reply in group]
    values = [reply.values for reply in replies if reply.values is not None]
    ref_logprobs = _pad([row for _, rows in groups for row in rows])
    return Rollout(
        prompts=list(prompts),
        prompt_ids=[one.ids for one in encoded],
        owners=[owner for owner, (group, _) in enumerate(groups) for _ in group],
        replies=replies,
        response_mask=_pad([torch.ones(len(reply.token_ids), dtype=torch.bool) for reply in replies]),
        logprobs=_pad([reply.logprobs for reply in replies]),
        values=_pad(values) if values else torch.zeros_like(ref_logprobs),  # a policy without a value head has none
        ref_logprobs=ref_logprobs,
    )


def _drawn(
    policy: Policy, prompts: Sequence[list[int]], places: Sequence[int], settings: PpoSettings, step: int
) -> list[list[Reply]]:
    """Per prompt its replies. A reply's seed follows from the prompt's place in the update, whoever draws it."""
    each = settings.samples_per_prompt
    replies = sample_replies(
        policy,
        policy.tokenizer,
        [EncodedPrompt(prompt) for prompt in prompts for _ in range(each)],
        settings=settings.sampling,
        seeds=[stable_seed(settings.seed, "rollout", step, place * each + n) for place in places for n in range(each)],
        share_prefix=settings.share_prefix,
    )
    return [replies[start : start + each] for start in range(0, len(replies), each)]


def by_reference(
    ref_policy: ReferencePolicy, prompts: Sequence[list[int]], drawn: Sequence[list[Reply]], settings: PpoSettings
) -> list[list[Tensor]]:
    """Per prompt the reference's (T,) log-probabilities of each of its replies, on the CPU."""
    found: list[list[Tensor]] = [[] for _ in prompts]
    widths = [tokens_of_group(prompt, replies) for prompt, replies in zip(prompts, drawn, strict=True)]
    for places in length_buckets(widths, settings.tokens_per_forward):
        owners = [number for number, place in enumerate(places) for _ in drawn[place]]
        token_ids = [reply.token_ids for place in places for reply in drawn[place]]
        logprobs = ref_policy.logprobs(
            [prompts[place] for place in places], token_ids, owners,
            temperature=settings.sampling.temperature, share_prefix=settings.share_prefix,
        ).cpu()  # fmt: skip
        for owner, row, ids in zip(owners, logprobs, token_ids, strict=True):
            found[places[owner]].append(row[: len(ids)].clone())
    return found


def tokens_of_group(prompt: Sequence[int], replies: Sequence[Reply]) -> int:
    """How many tokens a prompt's replies are, each with the prompt and padded to the longest."""
    return len(replies) * (len(prompt) + max(len(reply.token_ids) for reply in replies))


def _pad(rows: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


# Score


@torch.no_grad()
def score(rollout: Rollout, rewards: Sequence[Reward], settings: PpoSettings, team: Team = ALONE) -> None:
    """Fill in every term of every sample's reward, raw and as weighed, their sum, and how it grew token by token.

    A standardised score is cut to ±reward_clip before it is weighed, so that one odd reply cannot rule an update.
    Penalties, and what rules pay, are known at the end of a reply alone.
    """
    progress = torch.zeros_like(rollout.logprobs)
    for reward in rewards:
        if isinstance(reward, RuleReward):
            _score_by_rules(reward, rollout, settings, team)
            continue
        raw, after = _scores(reward, rollout, settings, team)
        if not (torch.isfinite(raw).all() and torch.isfinite(after).all()):
            raise TrainingDiverged(f"The reward {reward.name} gave a score that is no number.")
        rollout.raw_terms[reward.name] = raw
        rollout.terms[reward.name] = _weighed(raw, reward, settings)
        progress += _weighed(after, reward, settings)
    rollout.terms["length_penalty"] = -length_penalty(rollout.response_mask.sum(dim=1), settings)
    rollout.terms["malformed_penalty"] = -settings.malformed_penalty * torch.tensor(
        [float(is_malformed(reply)) for reply in rollout.replies]
    )
    rollout.terms["repetition_penalty"] = -settings.repetition_penalty * repetitions(rollout)
    rollout.scores = torch.stack(list(rollout.terms.values())).sum(dim=0)
    progress[torch.arange(len(rollout)), rollout.response_mask.sum(dim=1) - 1] = rollout.scores
    rollout.progress = torch.where(rollout.response_mask, progress, 0.0)


def _weighed(scores: Tensor, reward: WeightedReward, settings: PpoSettings) -> Tensor:
    standardised = ((scores - reward.mean) / reward.std).clamp(-settings.reward_clip, settings.reward_clip)
    return reward.weight * standardised


def _score_by_rules(reward: RuleReward, rollout: Rollout, settings: PpoSettings, team: Team) -> None:
    """Fill in what rules pay for every sample, the chances it comes from, and which rule counted."""
    prompts, replies = _texts(rollout, team)
    terms = [term for group in team.gathered(reward.terms(prompts, replies)) for term in group]
    for kind in KINDS:
        chances = torch.tensor([term.followed.get(kind, math.nan) for term in terms])
        if not bool(chances.isnan().all()):
            rollout.raw_terms[f"{reward.name}_{kind}"] = chances
    standardised = torch.tensor([reward.scale.standardised(term) for term in terms])
    if not torch.isfinite(standardised).all():
        raise TrainingDiverged("The rule model gave a chance that is no number.")
    rollout.terms[reward.name] = reward.weight * standardised.clamp(-settings.reward_clip, settings.reward_clip)
    rollout.rules = [term.rule for term in terms]


def mean_chances(rollout: Rollout) -> dict[str, float]:
    """Means of the chances that rules were followed, each over the samples it is known of."""
    return {
        name: float(rollout.raw_terms[name].nanmean())
        for name in (f"rules_{kind}" for kind in KINDS)
        if name in rollout.raw_terms
    }


def _texts(rollout: Rollout, team: Team) -> tuple[list[Prompt], list[list[str]]]:
    """This process's prompts, and the replies to each."""
    groups: list[list[str]] = [[] for _ in rollout.prompts]
    for owner, reply in zip(rollout.owners, rollout.replies, strict=True):
        groups[owner].append(reply.text)
    return team.own(rollout.prompts), team.own(groups)


def _scores(reward: WeightedReward, rollout: Rollout, settings: PpoSettings, team: Team) -> tuple[Tensor, Tensor]:
    """((B,) scores, (B, T) the score if the reply ended after each token); the mean where the scorer knows none."""
    prompts, replies = _texts(rollout, team)
    after = torch.full_like(rollout.logprobs, reward.mean)
    if reward.by_token is None or settings.credit != TOKEN:
        given = reward.scorer(prompts, replies)
        own = [torch.as_tensor(one, dtype=torch.float32).detach().cpu().reshape(-1).clone() for one in given]
        return torch.cat(team.gathered(own)), after
    scored = [one for group in team.gathered(list(reward.by_token(prompts, replies))) for one in group]
    known = 0
    for row, (one, reply) in enumerate(zip(scored, rollout.replies, strict=True)):
        found, count = after_tokens(one, reply.token_ids)
        if count:
            after[row, : len(found)] = found
        known += count
    rollout.credit_rate = max(rollout.credit_rate, known / int(rollout.response_mask.sum()))
    return torch.tensor([one.whole for one in scored]), after


def length_penalty(token_counts: Tensor, settings: PpoSettings) -> Tensor:
    """`length_penalty` for each token beyond `length_free_tokens`."""
    return settings.length_penalty * (token_counts - settings.length_free_tokens).clamp(min=0).float()


def repetitions(rollout: Rollout) -> Tensor:
    """(B,) log of how many prompts of this update got exactly this reply: 0 for a reply only one prompt got.

    A policy that gives everybody the same good answer has a low entropy over the whole update even when each
    prompt's own replies vary; the logarithm is what the reply takes off that entropy.
    """
    asked: dict[str, set[tuple[int, ...]]] = {}
    for owner, reply in zip(rollout.owners, rollout.replies, strict=True):
        asked.setdefault(reply.text, set()).add(tuple(rollout.prompt_ids[owner]))
    return torch.tensor([len(asked[reply.text]) for reply in rollout.replies], dtype=torch.float32).log()


def is_malformed(reply: Reply) -> bool:
    """True for a reply that never ended, or that says nothing."""
    return not reply.finished or not reply.text


@torch.no_grad()
def reward_scale(scorer: Scorer, prompts: Sequence[Prompt], replies: Sequence[Sequence[str]]) -> tuple[float, float]:
    """(mean, standard deviation) of a scorer over given replies: what fixes a `WeightedReward` for a round.

    Raises  NothingToLearn if it scores all of them the same
    """
    scores = torch.cat([torch.as_tensor(own, dtype=torch.float64).reshape(-1) for own in scorer(prompts, replies)])
    mean, std = float(scores.mean()), float(scores.std(unbiased=False))
    if not math.isfinite(mean) or not std > 1e-8:
        raise NothingToLearn(f"The scores of {len(scores)} replies do not differ (mean {mean}), so they teach nothing.")
    return mean, std


# Check


@dataclass(frozen=True)
class Advice:
    """What to set in an algorithm whose policy ran away.

    unit   what one of its steps is called
    far    settings to raise where the KL to the reference explodes
    alike  settings to raise where everybody gets the same reply
    """

    unit: str = "update"
    far: tuple[str, ...] = ("kl_coef",)
    alike: tuple[str, ...] = ("kl_coef", "repetition_penalty")

    @staticmethod
    def to(raised: Sequence[str]) -> str:
        """The sentence that says so."""
        return f"Raise {' or '.join(raised)}, or lower learning_rate." if raised else "Lower learning_rate."


PPO_ADVICE = Advice()


def check_rollout(rollout: Rollout, step: int, settings: PpoSettings, advice: Advice = PPO_ADVICE) -> None:
    """Raise TrainingDiverged if a number is none or the policy ran away from its reference. `step` is from 0."""
    numbers = (rollout.logprobs, rollout.ref_logprobs, rollout.values, rollout.rewards, rollout.advantages)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in numbers):
        raise TrainingDiverged(
            f"At {advice.unit} {step + 1} a log-probability, value or reward was no number. Lower learning_rate."
        )
    kl_nats = float(rollout.kl.mean())
    if kl_nats > settings.divergence_kl_nats:
        raise TrainingDiverged(
            f"At {advice.unit} {step + 1} the KL to the reference was {kl_nats:.1f} nats a reply, above "
            f"{settings.divergence_kl_nats:g}. {advice.to(advice.far)}"
        )
    _check_for_collapse(rollout, step, settings, advice)


def _check_for_collapse(rollout: Rollout, step: int, settings: PpoSettings, advice: Advice) -> None:
    """Many prompts, hardly any reply that only one of them got: the policy gives everybody the same."""
    asked = len({tuple(ids) for ids in rollout.prompt_ids})
    distinct = len({reply.text for reply in rollout.replies})
    if distinct < settings.collapse_distinct_rate * asked:
        raise TrainingDiverged(
            f"At {advice.unit} {step + 1} {asked} prompts got only {distinct} different replies: the policy has "
            f"collapsed. {advice.to(advice.alike)}"
        )


# Ledger


def ledger_entries(rollout: Rollout, kl_coef: float, step: int) -> list[LedgerEntry]:
    """One entry per sample of update `step` (from 0)."""
    kl = rollout.kl.tolist()
    return [
        LedgerEntry(
            step=step + 1,
            index=index,
            prompt=list(rollout.prompts[owner]),
            response=reply.text,
            terms={name: float(term[index]) for name, term in rollout.terms.items()},
            raw_terms={name: float(term[index]) for name, term in rollout.raw_terms.items() if not term[index].isnan()},
            reward=float(rollout.scores[index]),
            kl_nats=kl[index],
            kl_penalty=kl_coef * kl[index],
            token_count=len(reply.token_ids),
            finished=reply.finished,
            rule=rollout.rules[index] if rollout.rules else "",
        )
        for index, (owner, reply) in enumerate(zip(rollout.owners, rollout.replies, strict=True))
    ]
