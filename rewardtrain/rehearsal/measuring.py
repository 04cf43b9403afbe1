"""What a rehearsal changed: the same test prompts answered by the old and the new policy, judged by the oracle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedback.models import ModelVersion, Project, PromptGroup
from rewardtrain import model_files
from rewardtrain.gate_run import kl_to
from rewardtrain.hyperparameters import SamplingSettings
from rewardtrain.models import MetricPoint, TrainingRun
from rewardtrain.reward_terms import load_scorer
from rewardtrain.run_figures import VIOLATIONS
from rewardtrain.seeds import stable_seed
from rewardtrain.starter import measure
from rewardtrain.starter.annotators import Annotator

TEST_PROMPTS = 600
JUDGED_PROMPTS = 200
CANDIDATES = 4
TEMPERATURE = 1.0


@dataclass
class Answers:
    """One policy's replies to the test prompts, one each."""

    texts: list[str]
    tokens: list[int]
    drawn: list[Any]


def held_out_prompts(project: Project, most: int = TEST_PROMPTS) -> list[list[dict[str, str]]]:
    """Test prompts in an order that has nothing to do with their source; none shares its group with a training one.

    What people wrote is not among them: probers provoke, and are asked about apart (`probed.py`).
    """
    ready = project.prompts.filter(group__split=PromptGroup.Split.TEST, author__isnull=True)
    prompts = ready.order_by("content_hash")
    return [prompt.messages for prompt in prompts[:most]]


def load(version: ModelVersion) -> Any:
    """A policy to speak with."""
    from rewardtrain.policy import load_policy

    return load_policy(model_files.verified_folder(version)[0])


def sampling(max_new_tokens: int) -> SamplingSettings:
    """How replies are drawn for the measurement."""
    return SamplingSettings(temperature=TEMPERATURE, max_new_tokens=max_new_tokens)


def answer(policy: Any, prompts: Sequence[Any], *, seed: int, max_new_tokens: int, purpose: str = "test") -> Answers:
    """One reply per prompt at temperature 1, drawn with seeds of their own."""
    from rewardtrain.sampling import sample_replies

    seeds = [stable_seed("rehearsal", seed, purpose, index) for index in range(len(prompts))]
    drawn = sample_replies(policy, policy.tokenizer, prompts, settings=sampling(max_new_tokens), seeds=seeds)
    return Answers([reply.text for reply in drawn], [len(reply.token_ids) for reply in drawn], drawn)


def figures(prompts: Sequence[Any], answers: Answers) -> dict[str, float]:
    """violation_rate, fluent_rate, distinct_rate and mean_tokens of a policy's replies."""
    found = measure.figures(zip(prompts, answers.texts, strict=True)).as_dict()
    return found | {"mean_tokens": sum(answers.tokens) / len(answers.tokens)}


def compare(before: ModelVersion, after: ModelVersion, project: Project, seed: int) -> tuple[dict[str, Any], list[str]]:
    """(figures before and after, preference and KL; a JSON line per prompt with both replies and their scores)."""
    prompts = held_out_prompts(project)
    old_policy, new_policy = load(before), load(after)
    old = answer(old_policy, prompts, seed=seed, max_new_tokens=project.max_new_tokens)
    new = answer(new_policy, prompts, seed=seed + 1, max_new_tokens=project.max_new_tokens)
    preference = measure.preference(prompts, old.texts, new.texts)
    kl = kl_to(old_policy, new_policy, prompts, new.drawn, sampling(project.max_new_tokens))
    found = {
        "prompts": len(prompts),
        "before": figures(prompts, old),
        "after": figures(prompts, new),
        "preference_win_rate": preference.win_rate,
        "tie_rate": preference.tie_rate,
        "kl_nats": sum(kl) / len(kl),
    }
    return found, sample_lines(prompts, old.texts, new.texts)


def sample_lines(prompts: Sequence[Any], before: Sequence[str], after: Sequence[str]) -> list[str]:
    old = measure.oracle_scores(zip(prompts, before, strict=True))
    new = measure.oracle_scores(zip(prompts, after, strict=True))
    return [
        json.dumps(
            {
                "prompt": prompt,
                "before": one,
                "after": other,
                "score_before": first.total,
                "score_after": second.total,
                "broken_before": list(first.broken_rules),
                "broken_after": list(second.broken_rules),
            },
            ensure_ascii=False,
        )
        for prompt, one, other, first, second in zip(prompts, before, after, old, new, strict=True)
    ]


def judge_reward_model(version: ModelVersion, policy: ModelVersion, project: Project, seed: int) -> dict[str, Any]:
    """How often a reward model agrees with simulated judgements on test prompts, beside the share that is right.

    The policy's replies to test prompts are judged by people nobody has met; ties are left out. The ceiling is the
    share of those same judgements that agree with the oracle.
    """
    prompts = held_out_prompts(project, JUDGED_PROMPTS)
    replies = _several_replies(policy, prompts, project, seed)
    scores = _scores(version, prompts, replies)
    annotators = [Annotator(stable_seed("held-out judge", seed, number) % 2**31) for number in range(8)]
    right = agreed = total = 0
    for number, (prompt, texts, own) in enumerate(zip(prompts, replies, scores, strict=True)):
        ranks = annotators[number % len(annotators)].judge(prompt, texts).ranks
        for better, worse, agrees in measure.judged_pairs(prompt, texts, ranks):
            total += 1
            agreed += agrees
            right += own[better] > own[worse]
    if not total:
        return {"pair_accuracy": None, "ceiling": None, "pairs": 0}
    return {"pair_accuracy": right / total, "ceiling": agreed / total, "pairs": total}


def _several_replies(policy: ModelVersion, prompts: Sequence[Any], project: Project, seed: int) -> list[list[str]]:
    repeated = [prompt for prompt in prompts for _ in range(CANDIDATES)]
    drawn = answer(load(policy), repeated, seed=seed, max_new_tokens=project.max_new_tokens, purpose="judged").texts
    groups = [drawn[start : start + CANDIDATES] for start in range(0, len(drawn), CANDIDATES)]
    return [list(dict.fromkeys(group)) for group in groups]


def _scores(version: ModelVersion, prompts: Sequence[Any], replies: Sequence[Sequence[str]]) -> list[list[float]]:
    scorer = load_scorer(version)
    return [[float(score) for score in own] for own in scorer(prompts, replies)]


def judge_steps(run: TrainingRun) -> None:
    """Note of every step that PPO has done which share of its samples breaks a rule, as the oracle sees it.

    Only a rehearsal can: it knows the rules its people go by. It is read on the run's page and by nothing that learns.
    """
    judged = run.metrics.filter(name=VIOLATIONS).values("step")
    entries = run.ledger.filter(step__lte=run.steps_done).exclude(step__in=judged).order_by("step", "index")
    samples: dict[int, list[tuple[Any, str]]] = {}
    for step, prompt, response in entries.values_list("step", "prompt", "response"):
        samples.setdefault(step, []).append((prompt, response))
    points = [
        MetricPoint(run=run, step=step, name=VIOLATIONS, value=measure.figures(pairs).violation_rate)
        for step, pairs in samples.items()
    ]
    MetricPoint.objects.bulk_create(points, ignore_conflicts=True)


def write_samples(path: str, lines: Sequence[str]) -> None:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
