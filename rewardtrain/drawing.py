"""Rollouts without PPO: replies drawn, scored and held against the start, alike for the other algorithms of a round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rewardtrain.chat import EncodedPrompt
from rewardtrain.hyperparameters import PpoSettings
from rewardtrain.losses import masked_mean
from rewardtrain.policy import Policy, ReferencePolicy
from rewardtrain.rollouts import (
    PPO_ADVICE,
    Advice,
    Prompt,
    Reward,
    Rollout,
    by_reference,
    check_rollout,
    mean_chances,
    places_of_update,
    sample_rollout,
    score,
)
from rewardtrain.sampling import encode_for_sampling, sample_replies
from rewardtrain.seeds import stable_seed

MEASURED_PROMPTS = 256


@dataclass
class Drawer:
    """Draws replies of a policy to training prompts, scores them, and stops a policy that ran away.

    settings  an algorithm's `as_drawn()`
    ref_policy  from `reference_policy(policy)`, taken before the first update
    rewards   none where nothing is scored, which leaves the penalties alone
    advice    what is said of a policy that ran away
    """

    policy: Policy
    ref_policy: ReferencePolicy
    prompts: Sequence[Prompt]
    rewards: Sequence[Reward]
    settings: PpoSettings
    advice: Advice = PPO_ADVICE
    encoded: list[EncodedPrompt] = field(init=False)

    def __post_init__(self) -> None:
        self.encoded = [
            encode_for_sampling(self.policy, self.policy.tokenizer, prompt, self.settings.sampling)
            for prompt in self.prompts
        ]

    def places(self, step: int) -> list[int]:
        """The prompts of update `step` (from 0), as PPO takes them."""
        return places_of_update(self.prompts, step, self.settings)

    def draw(self, step: int, places: Sequence[int] | None = None) -> Rollout:
        """The samples of update `step` (from 0), scored.

        Raises  TrainingDiverged at numbers that are none, a KL that explodes or one reply for everybody
        """
        places = self.places(step) if places is None else places
        rollout = sample_rollout(
            self.policy, self.ref_policy, [self.prompts[place] for place in places],
            [self.encoded[place] for place in places], self.settings, step,
        )  # fmt: skip
        score(rollout, self.rewards, self.settings)
        check_rollout(rollout, step, self.settings, self.advice)
        return rollout


def figures(rollout: Rollout) -> dict[str, float]:
    """What samples say of the policy that drew them, under the names that PPO's figures have."""
    replies = rollout.replies
    named = {
        "reward": float(rollout.scores.mean()),
        "kl_nats": float(rollout.kl.mean()),
        "entropy": -float(masked_mean(rollout.logprobs, rollout.response_mask)),  # estimated from the drawn tokens
        "length": float(rollout.response_mask.sum(dim=1).float().mean()),
        "finished_rate": sum(reply.finished for reply in replies) / len(replies),
        "distinct_rate": len({reply.text for reply in replies}) / len(replies),
        **{name: float(term.mean()) for name, term in rollout.terms.items()},
        **mean_chances(rollout),
    }
    return {f"ppo/{name}": value for name, value in named.items()}


def kl_to_start(drawer: Drawer, most: int = MEASURED_PROMPTS) -> float:
    """Mean KL in nats of a reply to the start, over one new reply each to training prompts, spread evenly.

    As many replies are taken through the start at once as fit the drawer's `tokens_per_forward`.
    """
    every = max(1, len(drawer.prompts) // most)
    some = drawer.encoded[::every][:most]
    settings = drawer.settings
    replies = sample_replies(
        drawer.policy, drawer.policy.tokenizer, some, settings=settings.sampling,
        seeds=[stable_seed(settings.seed, "distance", place) for place in range(len(some))],
    )  # fmt: skip
    by_ref_policy = by_reference(drawer.ref_policy, [one.ids for one in some], [[reply] for reply in replies], settings)
    nats = [float((reply.logprobs - row).sum()) for reply, (row,) in zip(replies, by_ref_policy, strict=True)]
    return sum(nats) / len(nats)
