"""What a rehearsal with probes changed: how often the probed rule is broken, and what the rule model knows.

Asked are openings of the test split that provoke a breach of one rule; no prober ever wrote one of them. Only the
world's own detectors, which nothing that learns may see, say what was broken.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from feedback.models import ModelVersion, Project, Rule, RuleSet
from rewardtrain.chat import Turn
from rewardtrain.hyperparameters import RuleModelSettings
from rewardtrain.models import Round, TrainingRun
from rewardtrain.rehearsal import measuring
from rewardtrain.reward_model_run import base_folder
from rewardtrain.reward_terms import load_scorer
from rewardtrain.run_files import folder_of
from rewardtrain.seeds import stable_seed
from rewardtrain.starter import measure
from rewardtrain.starter.openings import openings
from rewardtrain.starter.violations import broken_rules

START, TRAINED = "starter", "rl"
NAMES = {START: (START, "reranked"), TRAINED: (TRAINED, "rl + reranked")}
RERANKED_OF = 8
LEFT_OUT = ("brand", "law")  # rules a second rule model is told nothing of


@dataclass(frozen=True)
class Provocation:
    """A test opening and the key of the rule it is meant to break."""

    prompt: list[Turn]
    rule: str


def provocations() -> list[Provocation]:
    """All of the test split, in an order that has nothing to do with their rule."""
    found = [one for one in openings() if one.rule is not None and one.split == "test"]
    random.Random("provocations of the test split").shuffle(found)
    return [Provocation([{"role": "user", "content": one.text}], one.rule or "") for one in found]


def violation_rate(asked: Sequence[Provocation], replies: Sequence[str]) -> float:
    """The share of replies that break the rule their opening was meant to break."""
    pairs = zip(asked, replies, strict=True)
    return sum(one.rule in broken_rules(reply) for one, reply in pairs) / len(asked)


def measure_probed(turn: Round, start: ModelVersion, serving: ModelVersion, seed: int) -> dict[str, Any]:
    """Figures of a rehearsal with probes, to be added to the others.

    turn     the last round, whose rule model is judged where it has one
    serving  the policy that the circle led to
    """
    asked = provocations()
    drawn = {
        name: measuring.answer(
            measuring.load(version), [one.prompt for one in asked], seed=seed,
            max_new_tokens=turn.project.max_new_tokens, purpose=f"probed {name}",
        ).texts
        for name, version in (("before", start), ("after", serving))
    }  # fmt: skip
    rates = {name: {"violation_rate_probed": violation_rate(asked, replies)} for name, replies in drawn.items()}
    run = TrainingRun.objects.filter(round=turn, kind=TrainingRun.Kind.RULE_MODEL).first()
    found: dict[str, Any] = {"probes": len(asked), **rates}
    if run is not None:
        found["rule_model"] = judge_rule_model(run, start, turn.project, seed)
        found["variants"] = variants(turn, start, serving, seed)
    return found


def variants(turn: Round, start: ModelVersion, serving: ModelVersion, seed: int) -> list[dict[str, Any]]:
    """Where training and reranking lead, each alone and together: the picture of docs/rehearsal.md.

    Both policies draw eight replies to every test opening, everyday and provoking. The first is what they would say;
    the best by the round's reward model and rule model is what they would say reranked. `preference_rate` is how often
    the oracle prefers a variant's reply to the start's, ties set aside, on everyday openings; the start's own replies
    are ties with themselves, and its rate None.
    """
    asked, everyday = provocations(), measuring.held_out_prompts(turn.project)
    prompts: list[Any] = [*(one.prompt for one in asked), *everyday]
    said = {
        name: _first_and_best(turn, version, prompts, stable_seed("variants", seed, name))
        for name, version in ((START, start), (TRAINED, serving))
    }
    by_variant = {name: texts for plain, both in said.items() for name, texts in zip(NAMES[plain], both, strict=True)}
    before = by_variant[START][len(asked) :]
    found = []
    for name, texts in by_variant.items():
        provoked, usual = texts[: len(asked)], texts[len(asked) :]
        preference = measure.preference(everyday, before, usual)
        found.append(
            {
                "name": name,
                "violation_rate_probed": violation_rate(asked, provoked),
                "preference_rate": preference.win_rate,
                "tie_rate": preference.tie_rate,
                "probes": len(asked),
                "prompts": len(everyday),
                "everyday": measure.figures(zip(everyday, usual, strict=True)).as_dict(),
            }
        )
    return found


def _first_and_best(
    turn: Round, version: ModelVersion, prompts: Sequence[Sequence[Turn]], seed: int
) -> tuple[list[str], list[str]]:
    from rewardtrain.reranked_replies import draw_reranked, load_rule_scorer

    made = {run.kind: run.produced for run in TrainingRun.objects.filter(round=turn).select_related("produced")}
    reward_model, rule_model = made[TrainingRun.Kind.REWARD_MODEL], made[TrainingRun.Kind.RULE_MODEL]
    assert reward_model is not None and rule_model is not None
    drawn = draw_reranked(
        measuring.load(version),
        prompts,
        scorer=load_scorer(reward_model),
        rule_scorer=load_rule_scorer(folder_of(rule_model)),
        rules_of_prompt=[list(_wordings(turn.project).values())] * len(prompts),
        n=RERANKED_OF,
        sampling=measuring.sampling(turn.project.max_new_tokens),
        seeds=[stable_seed(seed, place) for place in range(len(prompts))],
    )
    return [one.first.reply.text for one in drawn], [one.chosen.reply.text for one in drawn]


def judge_rule_model(run: TrainingRun, policy: ModelVersion, project: Project, seed: int) -> dict[str, Any]:
    """own_auc, mean_auc: means over rules, over replies to provocations of that rule and over all of them.

    held_out_rule_auc: of rules whose wordings a second model, trained on the other rules' verdicts, has never seen.

    run     of the rule model
    policy  whose replies are judged: the one that was probed
    """
    from rewardtrain.rule_model import RuleModel
    from rewardtrain.rule_report import measure_rules

    assert run.produced is not None
    asked = provocations()
    replies = measuring.answer(
        measuring.load(policy), [one.prompt for one in asked], seed=seed, max_new_tokens=project.max_new_tokens,
        purpose="judged by rules",
    ).texts  # fmt: skip
    wordings = _wordings(project)
    known = [_known(one, reply, wordings) for one, reply in zip(asked, replies, strict=True)]
    report = measure_rules(RuleModel.load(folder_of(run.produced)), known)
    other = measure_rules(_without_two(run), known, unseen=LEFT_OUT)
    return {
        "own_auc": report.mean_own,
        "mean_auc": report.mean_all,
        "held_out_rule_auc": other.unseen_all,
        "held_out_rules": list(LEFT_OUT),
        "dialogues": len(known),
    }


def _wordings(project: Project) -> dict[str, str]:
    rules = Rule.objects.filter(rule_set__project=project, rule_set__state=RuleSet.State.PUBLISHED)
    return dict(rules.values_list("key", "wording"))


def _known(one: Provocation, reply: str, wordings: dict[str, str]) -> Any:
    from rewardtrain.rule_training import JudgedDialogue, RuleVerdict

    broken = broken_rules(reply)
    verdicts = [RuleVerdict(key, wording, float(key in broken)) for key, wording in wordings.items()]
    return JudgedDialogue([*one.prompt, {"role": "assistant", "content": reply}], verdicts, one.rule)


def _without_two(run: TrainingRun) -> Any:
    """A rule model from the same judgements, but for those of two rules and the dialogues that were to break them."""
    from rewardtrain.rule_model_run import judged_dialogues
    from rewardtrain.rule_training import JudgedDialogue, train_rule_model

    chosen = dict(run.hyperparameters)
    base = base_folder(run, chosen.pop("base", ""))
    chosen.pop("use_rules", None)
    settings = RuleModelSettings.from_dict({"seed": stable_seed(run.seed, "left out") % 2**31, **chosen})
    by_split = {
        split: [
            JudgedDialogue(one.turns, [said for said in one.judgements if said.key not in LEFT_OUT], one.probed)
            for one in dialogues
            if one.probed not in LEFT_OUT
        ]
        for split, dialogues in judged_dialogues(run.result["judgements"]).items()
    }
    training, validation = (by_split.get(split, []) for split in ("train", "validation"))
    return train_rule_model(training, base=base, settings=settings, validation=validation).rule_model
