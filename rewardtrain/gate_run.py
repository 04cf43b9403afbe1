"""A gate's run: the old and the new policy answer validation prompts, and what `gate.py` asks about is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from feedback.models import ModelVersion, PromptGroup, Rule
from rewardtrain import gate_rules
from rewardtrain.algorithms import SFT
from rewardtrain.chat import as_turns
from rewardtrain.gate import GateSettings, Reply, Sample, gate_report
from rewardtrain.hyperparameters import PpoSettings, SamplingSettings
from rewardtrain.models import TrainingRun
from rewardtrain.probe_openings import openings_at, probe_cuts, rules_in_force
from rewardtrain.reward_terms import load_chances_followed, load_scorer, made_in_round
from rewardtrain.run_files import Outcome, folder_of
from rewardtrain.seeds import stable_seed
from rewardtrain.team import ALONE, Team
from rewardtrain.training_data import gate_prompts

if TYPE_CHECKING:
    from rewardtrain import rollouts
    from rewardtrain.reporting import Silent
    from rewardtrain.rule_term import RuleScorer

KL_TOKENS_PER_FORWARD = 8192


def measure_gate(run: TrainingRun, reporter: Silent, team: Team = ALONE) -> Outcome:
    """Let the old and the new policy answer validation prompts, score both with both reward models, and report.

    Where the round has a rule model, they also answer held-out probe openings, and it says what broke a rule.
    """
    from rewardtrain.policy import load_policy

    assert run.round is not None and run.round.policy_after is not None
    settings = GateSettings.from_dict(run.hyperparameters)
    if run.round.hyperparameters.get("policy", {}).get("algorithm") == SFT:
        settings = settings.where_taught()
    prompts = _gate_prompts(run, settings.prompts)
    where = _where_ppo_ran(run)
    before = load_policy(folder_of(run.round.policy_before), **where)
    after = load_policy(folder_of(run.round.policy_after), **where)
    scorers = [
        _standardised(load_scorer(made_in_round(run, kind), **where), before, prompts, run)
        for kind in (TrainingRun.Kind.REWARD_MODEL, TrainingRun.Kind.SECOND_REWARD_MODEL)
    ]
    reporter.begin(2)
    old = _answers(run, before, prompts, scorers, reference=None)
    reporter.step(1, 2, {})
    new = _answers(run, after, prompts, scorers, reference=before)
    reporter.step(2, 2, {})
    samples = [Sample(list(prompt), *pair) for prompt, *pair in zip(prompts, old, new, strict=True)]
    version, rules = _rule_model(run), _rules_paid_by(run)
    if version is None or not rules:
        return Outcome(result=gate_report(samples, settings))
    ask = load_chances_followed(version, rules, **where)
    return Outcome(result=_report_with_rules(run, samples, settings, before, after, ask, rules))


def _rule_model(run: TrainingRun) -> ModelVersion | None:
    """What paid the round's policy for keeping rules; where that asked about none, what the round learned of them."""
    policy_run = TrainingRun.objects.filter(round=run.round, kind=TrainingRun.Kind.POLICY).first()
    used = policy_run.result.get("rule_model") if policy_run else None
    if used is not None:
        return ModelVersion.objects.get(pk=used, project=run.project)
    own = TrainingRun.objects.filter(round=run.round, kind=TrainingRun.Kind.RULE_MODEL).first()
    return own.produced if own else None


def _rules_paid_by(run: TrainingRun) -> list[Rule]:
    """The rules the round's policy was paid by, whatever is published meanwhile; where none paid, those in force."""
    policy_run = TrainingRun.objects.filter(round=run.round, kind=TrainingRun.Kind.POLICY).first()
    known = policy_run.result.get("rules") if policy_run else None
    if not known:
        return rules_in_force(run.project)
    by_pk = Rule.objects.in_bulk(known)
    return [by_pk[pk] for pk in known]


def _report_with_rules(
    run: TrainingRun, samples: Sequence[Sample], settings: GateSettings, before: Any, after: Any, ask: RuleScorer,
    rules: Sequence[Rule],
) -> dict[str, Any]:  # fmt: skip
    """The report with its lines about rules, the rules behind them, and the worst probes among the samples."""
    names = {rule.key: rule.name for rule in rules}
    samples = _with_chances(samples, ask, rules)
    probes = _probes(run, settings, before, after, ask, rules)
    report = gate_report(samples, settings, more_lines=gate_rules.rule_lines(probes, samples, names, settings))
    report["rules"] = gate_rules.rule_rows(probes, names, settings)
    report["samples"] += gate_rules.shown_probes(probes, names, settings.shown_samples)
    report["counts"]["probes"] = len(probes)
    return report


def _with_chances(samples: Sequence[Sample], ask: RuleScorer, rules: Sequence[Rule]) -> list[Sample]:
    """Everyday samples whose replies know the weighted mean chance over the rules that they broke one."""
    from rewardtrain.rule_term import MEAN, rule_terms

    keys, weights = [rule.key for rule in rules], [rule.weight for rule in rules]
    prompts = [as_turns(sample.prompt) for sample in samples]
    terms = rule_terms(ask, keys, weights, prompts, [[sample.before.text, sample.after.text] for sample in samples])
    return [
        replace(
            sample,
            before=replace(sample.before, broken=1 - before.followed[MEAN]),
            after=replace(sample.after, broken=1 - after.followed[MEAN]),
        )
        for sample, (before, after) in zip(samples, terms, strict=True)
    ]


def _probes(
    run: TrainingRun, settings: GateSettings, before: Any, after: Any, ask: RuleScorer, rules: Sequence[Rule]
) -> list[gate_rules.ProbeSample]:
    """Held-out probe openings, in an order of the run's own, with replies of both policies."""
    from rewardtrain.rule_term import PROBED, rule_terms

    cuts = probe_cuts(run.project, PromptGroup.Split.VALIDATION, rules)
    cuts = sorted(cuts, key=lambda cut: stable_seed(run.seed, "probe", *cut))[: settings.probe_openings]
    openings, each = openings_at(cuts), settings.replies_per_probe
    asked = [opening for opening in openings for _ in range(each)]
    keys, weights = [rule.key for rule in rules], [rule.weight for rule in rules]
    answered = []
    for policy in (before, after):
        drawn = _draw(run, policy, asked, "probes")
        replies = [drawn[start : start + each] for start in range(0, len(drawn), each)]
        terms = rule_terms(ask, keys, weights, openings, [[reply.text for reply in own] for own in replies])
        answered.append(
            [
                [
                    gate_rules.ProbeReply(reply.text, len(reply.token_ids), 1 - term.followed[PROBED])
                    for reply, term in zip(own, said, strict=True)
                ]
                for own, said in zip(replies, terms, strict=True)
            ]
        )
    return [
        gate_rules.ProbeSample([dict(turn) for turn in opening], opening.rule, dialogue, *pair)
        for (dialogue, _), opening, *pair in zip(cuts, openings, *answered, strict=True)
    ]


def _where_ppo_ran(run: TrainingRun) -> dict[str, str]:
    """Device and precision of weights, as the round's PPO had them: networks too large for a CPU stay off it."""
    from rewardtrain.precision import check_device

    assert run.round is not None
    chosen = run.round.hyperparameters.get("policy", {})
    usual = PpoSettings()
    return {
        "dtype": chosen.get("dtype", usual.dtype),
        "device": check_device(chosen.get("device", usual.device)),
    }


def _gate_prompts(run: TrainingRun, most: int) -> list[list[dict[str, str]]]:
    """Everyday validation prompts in an order of the run's own; what probers wrote is asked apart."""
    prompts = gate_prompts(run.project)
    keyed = [(stable_seed(run.seed, prompt.content_hash), prompt.messages) for prompt in prompts]
    return [messages for _, messages in sorted(keyed, key=lambda entry: entry[0])[:most]]


def _standardised(scorer: rollouts.Scorer, before: Any, prompts: Sequence[Any], run: TrainingRun) -> rollouts.Scorer:
    """Scores in standard deviations over the old policy's replies, so that two models' figures can be compared."""
    import torch

    from rewardtrain.rollouts import reward_scale

    replies = _draw(run, before, prompts, "scale")
    mean, std = reward_scale(scorer, prompts, [[reply.text] for reply in replies])
    return lambda asked, given: [(torch.as_tensor(own) - mean) / std for own in scorer(asked, given)]


def _draw(run: TrainingRun, policy: Any, prompts: Sequence[Any], purpose: str) -> list[Any]:
    from rewardtrain.sampling import sample_replies

    seeds = [stable_seed(run.seed, purpose, index) for index in range(len(prompts))]
    return sample_replies(policy, policy.tokenizer, prompts, settings=_project_sampling(run), seeds=seeds)


def _project_sampling(run: TrainingRun) -> SamplingSettings:
    return SamplingSettings(temperature=run.project.temperature, max_new_tokens=run.project.max_new_tokens)


def _answers(
    run: TrainingRun, policy: Any, prompts: Sequence[Any], scorers: Sequence[rollouts.Scorer], reference: Any
) -> list[Reply]:
    drawn = _draw(run, policy, prompts, "gate")
    texts = [[reply.text] for reply in drawn]
    first, second = ([float(own[0]) for own in scorer(prompts, texts)] for scorer in scorers)
    kl = [0.0] * len(drawn)
    if reference is not None:
        kl = kl_to(reference, policy, prompts, drawn, _project_sampling(run))
    return [
        Reply(reply.text, len(reply.token_ids), reply.finished, one, other, nats)
        for reply, one, other, nats in zip(drawn, first, second, kl, strict=True)
    ]


def kl_to(
    reference: Any, policy: Any, prompts: Sequence[Any], drawn: Sequence[Any], sampling: SamplingSettings
) -> list[float]:
    """Per reply the summed difference of log-probabilities to the reference, with the settings it was drawn with.

    At temperature 0 nothing was left to chance; the chances at temperature 1 are compared then.
    """
    import torch

    from rewardtrain.sampling import encode_for_sampling
    from rewardtrain.shared_prefix import length_buckets

    encoded = [encode_for_sampling(policy, policy.tokenizer, prompt, sampling).ids for prompt in prompts]
    replies = [reply.token_ids for reply in drawn]
    widths = [len(prompt) + len(reply) for prompt, reply in zip(encoded, replies, strict=True)]
    nats = [0.0] * len(replies)
    for places in length_buckets(widths, KL_TOKENS_PER_FORWARD):
        asked = [encoded[place] for place in places], [replies[place] for place in places], list(range(len(places)))
        with torch.no_grad():
            own, other = (
                one.evaluate_replies(*asked, temperature=sampling.temperature or 1.0) for one in (policy, reference)
            )
        for place, value in zip(places, ((own.logprobs - other.logprobs) * own.mask).sum(dim=1), strict=True):
            nats[place] = float(value)
    return nats
