"""What a policy run was begun with: its models, rules, settings, prompts, and the scales of its reward."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from feedback.models import ModelVersion, PromptGroup, Rule
from rewardtrain.algorithms import CLASSES, AnySettings, DpoSettings, SftSettings, algorithm_of, read_settings
from rewardtrain.models import TrainingRun
from rewardtrain.probe_openings import Cut, probe_cuts, rules_in_force
from rewardtrain.reward_terms import are_rules_off, reward_model_of, rule_model_of
from rewardtrain.rule_term import RuleScale
from rewardtrain.training_data import training_prompt_ids


@dataclass
class Begun:
    """What a policy run was begun with, kept on its row: people go on writing prompts and changing settings meanwhile.

    reward_model  None only where DPO is not watched by one
    scale         (mean, standard deviation) of the preference over the start's replies; None until it was measured
    rule_model    None where rules pay nothing
    rules         those in force then, whose wordings are asked about
    probe_cuts    openings that probe one of them and are among the prompts
    rule_scale    of what rules pay; None until it was measured, or without a rule model
    """

    reward_model: ModelVersion | None
    settings: AnySettings
    prompt_ids: list[int]
    scale: tuple[float, float] | None = None
    rule_model: ModelVersion | None = None
    rules: list[Rule] = field(default_factory=list)
    probe_cuts: list[Cut] = field(default_factory=list)
    rule_scale: RuleScale | None = None

    @classmethod
    def of(cls, run: TrainingRun) -> Begun:
        """As it was kept, or as things stand now."""
        if kept := run.result.get("begun"):
            return cls._kept(run, kept)
        chosen = dict(run.hyperparameters)
        named, rule_model_named = chosen.pop("reward_model", None), chosen.pop("rule_model", None)
        settings = policy_settings(run, chosen)
        reward_model = reward_model_of(run, named, settings)
        rules = rules_in_force(run.project)
        rule_model = rule_model_of(run, rule_model_named, settings, rules)
        begun = cls(reward_model, settings, training_prompt_ids(run), rule_model=rule_model)
        if rule_model is not None or are_rules_off(run, settings):
            begun.rules = rules
            begun.probe_cuts = _probe_cuts(run, settings, rules)
        return begun

    @classmethod
    def _kept(cls, run: TrainingRun, kept: dict[str, Any]) -> Begun:
        models = ModelVersion.objects.filter(project=run.project)
        by_pk = Rule.objects.in_bulk(kept.get("rules", []))
        rule_model, rule_scale = kept.get("rule_model"), kept.get("rule_scale")
        return cls(
            reward_model=models.get(pk=kept["reward_model"]),
            settings=CLASSES[algorithm_of(run.hyperparameters)].from_dict(kept["settings"]),
            prompt_ids=kept["prompts"],
            scale=(kept["mean"], kept["std"]),
            rule_model=models.get(pk=rule_model) if rule_model else None,
            rules=[by_pk[pk] for pk in kept.get("rules", [])],
            probe_cuts=[(pk, end) for pk, end in kept.get("probe_cuts", [])],
            rule_scale=RuleScale(**rule_scale) if rule_scale else None,
        )

    def models(self) -> dict[str, str]:
        """Whose scores its states belong to: content hashes by what the models are."""
        both = {"reward_model": self.reward_model, "rule_model": self.rule_model}
        return {name: version.content_hash for name, version in both.items() if version is not None}

    def to_json(self) -> dict[str, Any]:
        assert self.scale is not None and self.reward_model is not None
        mean, std = self.scale
        return {
            "reward_model": self.reward_model.pk,
            "settings": self.settings.to_dict(),
            "prompts": self.prompt_ids,
            "mean": mean,
            "std": std,
            "rule_model": self.rule_model.pk if self.rule_model else None,
            "rules": [rule.pk for rule in self.rules],
            "probe_cuts": self.probe_cuts,
            "rule_scale": asdict(self.rule_scale) if self.rule_scale else None,
        }


def _probe_cuts(run: TrainingRun, settings: AnySettings, rules: list[Rule]) -> list[Cut]:
    if isinstance(settings, DpoSettings | SftSettings) or not settings.probe_share:
        return []
    return probe_cuts(run.project, PromptGroup.Split.TRAIN, rules)


def policy_settings(run: TrainingRun, chosen: dict[str, Any]) -> AnySettings:
    """The run's settings; what it does not say about sampling is the project's own."""
    sampling = {"temperature": run.project.temperature, "max_new_tokens": run.project.max_new_tokens}
    return read_settings({"seed": run.seed, **chosen, "sampling": {**sampling, **chosen.get("sampling", {})}})
