"""What a policy run was begun with: its reward model, settings, prompts, and the scale of its reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from feedback.models import ModelVersion
from rewardtrain.algorithms import CLASSES, AnySettings, algorithm_of, read_settings
from rewardtrain.models import TrainingRun
from rewardtrain.reward_terms import reward_model_of
from rewardtrain.training_data import training_prompt_ids


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
        return cls(reward_model_of(run, named, settings), settings, training_prompt_ids(run))

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
