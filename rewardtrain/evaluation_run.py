"""An evaluation's run: its policies answer held-out openings, alone and reranked, and both are measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from feedback.models import ModelVersion, RuleSet
from rewardtrain.errors import NothingToLearn
from rewardtrain.evaluation_figures import Opening, figures_of
from rewardtrain.evaluations import contestants_in, openings_of, result_of
from rewardtrain.hyperparameters import PpoSettings, SamplingSettings
from rewardtrain.models import TrainingRun
from rewardtrain.reward_terms import load_scorer
from rewardtrain.run_files import Outcome, folder_of
from rewardtrain.team import ALONE, Team

if TYPE_CHECKING:
    from rewardtrain.evaluation import Measures
    from rewardtrain.reporting import Silent


def measure_policies(run: TrainingRun, reporter: Silent, team: Team = ALONE) -> Outcome:
    """Let every policy of an evaluation answer the same openings, and measure its first draws and the best of them.

    Nothing is written before all is measured but the openings: prompts and probes come in meanwhile, and a run that was
    killed begins anew and comes to the same.
    """
    from rewardtrain.evaluation import evaluate

    chosen = run.hyperparameters
    rule_set = RuleSet.objects.filter(project=run.project, number=chosen["rule_set"] or 0).first()
    openings = _openings(run, rule_set)
    if not openings:
        raise NothingToLearn("The test split has no openings any more. Import prompts with split test first.")
    reporter.keep(openings=[asdict(opening) for opening in openings])
    where = _where(run)
    total, done = len(chosen["policies"]) * len(openings), 0
    reporter.begin(total)

    def answered(count: int) -> None:
        nonlocal done
        done += count
        reporter.step(done, total, {})

    both = evaluate(
        _policies(run, where), openings, measures=_measures(run, rule_set, where), draws=chosen["draws"],
        sampling=SamplingSettings(temperature=chosen["temperature"], max_new_tokens=chosen["max_new_tokens"]),
        seed=run.seed, on_openings=answered,
    )  # fmt: skip
    replies = [own for first, best in both for own in ([first] if chosen["draws"] == 1 else [first, best])]
    measured = [
        (own, figures_of(openings, own, contestant.draws))
        for contestant, own in zip(contestants_in(run), replies, strict=True)
    ]
    return Outcome(result=result_of(run, openings, measured))


def _openings(run: TrainingRun, rule_set: RuleSet | None) -> list[Opening]:
    """Those that an attempt before this one answered; the first attempt chooses them."""
    kept = run.result.get("openings")
    if kept is not None:
        return [Opening(**one) for one in kept]
    chosen = run.hyperparameters
    return openings_of(run.project, rule_set, prompts=chosen["prompts"], probes=chosen["probes"], seed=run.seed)


def _where(run: TrainingRun) -> dict[str, str]:
    """Device and precision of weights, as the project's policies are trained."""
    from rewardtrain.precision import check_device

    usual = PpoSettings()
    return {
        "dtype": run.hyperparameters.get("dtype", usual.dtype),
        "device": check_device(run.hyperparameters.get("device", usual.device)),
    }


def _policies(run: TrainingRun, where: dict[str, str]) -> Iterator[Any]:
    """One after the other, so that only the first and the one in hand are in memory."""
    from rewardtrain.policy import load_policy

    for pk in run.hyperparameters["policies"]:
        yield load_policy(folder_of(ModelVersion.objects.get(pk=pk)), **where).eval()


def _measures(run: TrainingRun, rule_set: RuleSet | None, where: dict[str, str]) -> Measures:
    from rewardtrain.evaluation import Measures
    from rewardtrain.reranked_replies import load_rule_scorer

    versions = ModelVersion.objects.in_bulk(
        [pk for name in ("reward_model", "second", "rule_model") if (pk := run.hyperparameters[name])]
    )
    first, second, rule_model = (
        versions.get(run.hyperparameters[name] or 0) for name in ("reward_model", "second", "rule_model")
    )
    rules = {rule.key: rule.wording for rule in rule_set.rules.order_by("position")} if rule_set else {}
    return Measures(
        scorer=load_scorer(first, **where) if first else None,
        rule_scorer=load_rule_scorer(folder_of(rule_model), **where) if rule_model else None,
        rules=rules,
        second=load_scorer(second, **where) if second else None,
    )
