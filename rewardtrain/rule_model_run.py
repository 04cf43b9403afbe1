"""A rule model's run: it learns from verdicts which rules dialogues break, and is measured on held-out ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from feedback import rule_scores
from feedback.models import Dialogue, PromptGroup, RuleJudgement
from rewardtrain.chat import as_turns
from rewardtrain.errors import NothingToLearn
from rewardtrain.hyperparameters import RuleModelSettings
from rewardtrain.models import TrainingRun
from rewardtrain.reward_model_run import base_folder
from rewardtrain.run_files import Outcome, keeper_of, save_outcome
from rewardtrain.team import ALONE, Team

if TYPE_CHECKING:
    from rewardtrain import rule_training
    from rewardtrain.reporting import Silent
    from rewardtrain.rule_model import RuleModel

AT_ONCE = 500  # judgements looked up together: databases take only so many values in one question


def learn_rules(run: TrainingRun, reporter: Silent, team: Team = ALONE) -> Outcome:
    """Train a rule model on the verdicts that count now, calibrate it on the validation split, and measure it.

    It is measured on judged dialogues of the test split; where there are none, on those it was calibrated on, which
    changes no AUC. Which judgements it learned from is kept on the run: people go on judging meanwhile.
    """
    from rewardtrain import rule_training

    chosen = dict(run.hyperparameters)
    chosen.pop("use_rules", None)  # which only a round asks
    base = base_folder(run, chosen.pop("base", ""))
    settings = RuleModelSettings.from_dict({"seed": run.seed, **chosen})
    kept = run.result.get("judgements")
    judgements = counted_judgements(run) if kept is None else kept
    reporter.keep(judgements=judgements)
    by_split = judged_dialogues(judgements)
    training, validation, test = (by_split.get(split, []) for split in PromptGroup.Split.values)
    if not training:
        raise NothingToLearn(
            "No dialogue of the training split was judged by a rule. Probe rules, or judge dialogues, first."
        )
    trained = rule_training.train_rule_model(
        training,
        base=base,
        settings=settings,
        validation=validation,
        on_begin=reporter.begin,
        on_step=lambda step: reporter.step(step.step, step.steps, rule_figures(step)),
        keeper=keeper_of(run, reporter, settings.checkpoint_seconds, team),
    )
    figures = _measured(trained, "test" if test else "validation", test or validation)
    result = {
        "judgements": judgements,
        "dialogues": trained.dialogues,
        "verdicts": trained.judgements,
        "cut_dialogues": trained.cuts.dialogues,
        **figures,
    }
    said = scores_of(trained.rule_model, judgements)
    return save_outcome(
        run, "rule", trained.rule_model.save, result=result, figures=figures,
        on_made=lambda version: rule_scores.record_scores(version, said),
    )  # fmt: skip


def counted_judgements(run: TrainingRun) -> list[int]:
    """A project's judgements that are in force and count, of dialogues whose opening lies on a side of the split."""
    counted = RuleJudgement.objects.counted().besides_evaluations()
    found = counted.filter(dialogue__project=run.project, dialogue__prompt__isnull=False)
    return list(found.order_by("pk").values_list("pk", flat=True))


def judged_dialogues(judgements: Sequence[int]) -> dict[str, list[rule_training.JudgedDialogue]]:
    """Dialogues with these judgements by the split of their prompt's group, in the order they were opened."""
    from rewardtrain.rule_training import JudgedDialogue, RuleVerdict

    verdicts: dict[int, list[RuleVerdict]] = {}
    for start in range(0, len(judgements), AT_ONCE):
        rows = RuleJudgement.objects.filter(pk__in=judgements[start : start + AT_ONCE]).select_related("rule")
        for row in rows.order_by("pk"):
            own = verdicts.setdefault(row.dialogue_id, [])
            own.append(RuleVerdict(row.rule.key, row.rule.wording, row.broken))
    found: dict[str, list[JudgedDialogue]] = {}
    for dialogue in _dialogues(sorted(verdicts)):
        assert dialogue.prompt is not None
        probed = dialogue.probe.rule.key if hasattr(dialogue, "probe") else None
        judged = JudgedDialogue(as_turns(dialogue.messages()), verdicts[dialogue.pk], probed)
        found.setdefault(dialogue.prompt.group.split, []).append(judged)
    return found


def scores_of(rule_model: RuleModel, judgements: Sequence[int]) -> dict[tuple[int, int], float]:
    """{(dialogue, rule): calibrated chance that it was broken}, asked by the wordings that were judged."""
    asked: dict[int, dict[int, str]] = {}
    for start in range(0, len(judgements), AT_ONCE):
        rows = RuleJudgement.objects.filter(pk__in=judgements[start : start + AT_ONCE])
        for dialogue, rule, wording in rows.order_by("pk").values_list("dialogue", "rule", "rule__wording"):
            asked.setdefault(dialogue, {})[rule] = wording
    found: dict[tuple[int, int], float] = {}
    ids = sorted(asked)
    for start in range(0, len(ids), AT_ONCE):
        some = _dialogues(ids[start : start + AT_ONCE])
        encoded = [rule_model.encode(as_turns(one.messages()), list(asked[one.pk].values())) for one in some]
        for one, chances in zip(some, rule_model.probabilities_encoded(encoded), strict=True):
            found |= {(one.pk, rule): float(p) for rule, p in zip(asked[one.pk], chances, strict=True)}
    return found


def _dialogues(ids: Sequence[int]) -> list[Dialogue]:
    with_all = Dialogue.objects.select_related("prompt__group", "probe__rule").prefetch_related("turns")
    return [
        dialogue
        for start in range(0, len(ids), AT_ONCE)
        for dialogue in with_all.filter(pk__in=ids[start : start + AT_ONCE]).order_by("pk")
    ]


def rule_figures(step: rule_training.RuleStep) -> dict[str, float]:
    """A step's figures under the names the pages and the terminal show."""
    named = {
        "loss": step.loss,
        "rule_loss": step.rule_loss,
        "learning_rate": step.learning_rate,
        "gradient_norm": step.gradient_norm,
    } | ({} if step.validation is None else {"held_out": step.validation})
    return {f"rule/{name}": value for name, value in named.items()}


def _measured(
    trained: rule_training.RuleTrainingResult, split: str, held_out: Sequence[rule_training.JudgedDialogue]
) -> dict[str, Any]:
    """What is reported of a rule model: AUC per rule, their means, and whether its probabilities mean what they say."""
    from rewardtrain.rule_report import measure_rules

    temperature = trained.rule_model.config.temperature if trained.is_calibrated else None
    measured: dict[str, Any] = {"measured_on": None, "held_out_dialogues": len(held_out), "temperature": temperature}
    if not held_out:
        return measured
    report = measure_rules(trained.rule_model, held_out)
    return measured | {
        "measured_on": split,
        "mean_auc_own": _rounded(report.mean_own),
        "mean_auc_all": _rounded(report.mean_all),
        "brier": _rounded(report.calibration.brier),
        "calibration_error": _rounded(report.calibration.error),
        "reliability": [
            {"predicted": _rounded(one.predicted), "observed": _rounded(one.observed), "count": one.count}
            for one in report.calibration.bins
        ],
        "rules": [one.to_dict() | {"own": _rounded(one.own), "all": _rounded(one.all)} for one in report.rules],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
