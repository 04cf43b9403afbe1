"""A gate's run: the old and the new policy answer validation prompts, and what `gate.py` asks about is measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from feedback.models import Prompt, PromptGroup
from rewardtrain.gate import GateSettings, Reply, Sample, gate_report
from rewardtrain.hyperparameters import PpoSettings, SamplingSettings
from rewardtrain.models import TrainingRun
from rewardtrain.reward_terms import load_scorer, made_in_round
from rewardtrain.run_files import Outcome, folder_of
from rewardtrain.seeds import stable_seed
from rewardtrain.team import ALONE, Team

if TYPE_CHECKING:
    from rewardtrain import rollouts
    from rewardtrain.runs import Silent

KL_TOKENS_PER_FORWARD = 8192


def measure_gate(run: TrainingRun, reporter: Silent, team: Team = ALONE) -> Outcome:
    """Let the old and the new policy answer validation prompts, score both with both reward models, and report."""
    from rewardtrain.policy import load_policy

    assert run.round is not None and run.round.policy_after is not None
    settings = GateSettings.from_dict(run.hyperparameters)
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
    return Outcome(result=gate_report(samples, settings))


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
    """Validation prompts in an order of the run's own."""
    prompts = Prompt.objects.filter(project=run.project).of_split(PromptGroup.Split.VALIDATION)
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
