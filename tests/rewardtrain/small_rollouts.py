"""Three samples worked by hand, and what small rollouts are drawn by and scored with."""

from __future__ import annotations

import torch

from rewardtrain.hyperparameters import PpoSettings, SamplingSettings
from rewardtrain.policy import PolicyWithValue
from rewardtrain.rollouts import Rollout, WeightedReward
from rewardtrain.sampling import Reply
from tests.rewardtrain.tiny import make_gpt2, make_llama, make_tokenizer
from tests.rewardtrain.trainings import PROMPTS, count_e

TOKENIZER = make_tokenizer()
DECODERS = {"rotary": make_llama, "absolute": make_gpt2}
TINY = PpoSettings(
    updates=2, samples_per_update=8, samples_per_prompt=2, minibatch_size=4, kl_coef=0.1,
    sampling=SamplingSettings(max_new_tokens=8),
)  # fmt: skip
COUNT_E = WeightedReward("letter e", 1.0, count_e, mean=0.1, std=0.5)

t = torch.tensor


def make_policy(network=None) -> PolicyWithValue:
    return PolicyWithValue(network or make_llama(), TOKENIZER)


def make_reply(token_ids: list[int], text: str = "text", finished: bool = True) -> Reply:
    size = len(token_ids)
    return Reply(text, token_ids, torch.full((size,), -1.0), torch.zeros(size), -1.0, finished)


def make_rollout(**changes) -> Rollout:
    """Two prompts; the first has replies of 3 tokens and of 1, the second one of 2."""
    mask = t([[True, True, True], [True, False, False], [True, True, False]])
    values = {
        "prompts": [PROMPTS[0], PROMPTS[1]],
        "prompt_ids": [[3, 4], [3, 4, 4]],
        "owners": [0, 0, 1],
        "replies": [make_reply([9, 9, 2], "eel"), make_reply([2], ""), make_reply([8, 8], "he", finished=False)],
        "response_mask": mask,
        "logprobs": torch.where(mask, t([[-1.0, -2.0, -3.0], [-1.0, 0, 0], [-0.5, -0.5, 0]]), 0.0),
        "ref_logprobs": torch.where(mask, t([[-1.5, -2.0, -2.0], [-3.0, 0, 0], [-0.5, -1.0, 0]]), 0.0),
        "values": torch.where(mask, t([[0.5, 0.25, 0.0], [1.0, 0, 0], [0.0, -1.0, 0]]), 0.0),
    }
    if "scores" in changes:
        changes["progress"] = at_the_end(changes["scores"], mask)
    return Rollout(**{**values, **changes})


def at_the_end(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B, T) the progress of rewards that are known at a reply's last token alone."""
    progress = torch.zeros(mask.shape)
    progress[torch.arange(len(mask)), mask.sum(dim=1) - 1] = scores
    return progress
