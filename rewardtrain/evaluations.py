"""Evaluations as rows: which policies on which openings, their result, and the blind sets made from it. No torch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from feedback import audit, blind_sets
from feedback.blind_sets import BlindReply, Contestant
from feedback.models import (
    Dialogue,
    ModelVersion,
    Project,
    Prompt,
    PromptGroup,
    QueuedWork,
    Rule,
    RuleSet,
    Turn,
    User,
    WorkItem,
)
from feedback.models.projects import MOST_DRAWS
from feedback.prompts import can_open
from rewardtrain.evaluation_figures import EVERYDAY, PROBE, Opening
from rewardtrain.models import TrainingRun
from rewardtrain.newest_models import second_opinion
from rewardtrain.reply_chooser import NOTHING_CHOOSES, judges_of
from rewardtrain.runs import RunRefused, queue_run
from rewardtrain.seeds import stable_seed

MOST_POLICIES = 4  # alone and as best of n they are eight replies side by side; nine can be ranked
MOST_OPENINGS = 2000
MOST_ASKED = 500  # questions of one kind in a blind set
OPENINGS = 100
SPARROWS_DRAWS = 8


def evaluations_of(project: Project) -> QuerySet[TrainingRun]:
    """A project's evaluations, newest first."""
    return TrainingRun.objects.filter(project=project, kind=TrainingRun.Kind.EVALUATION).order_by("-pk")


def default_policies(project: Project) -> list[ModelVersion]:
    """The serving policy after what it came from; where that is not known, after the project's first."""
    serving = project.policy
    if serving is None:
        return []
    first = ModelVersion.objects.filter(project=project, kind=ModelVersion.Kind.POLICY).order_by("number").first()
    before = serving.parent or first
    return [before, serving] if before is not None and before != serving else [serving]


def queue_evaluation(
    *,
    project: Project,
    policies: Sequence[ModelVersion] = (),
    draws: int | None = None,
    prompts: int = OPENINGS,
    probes: int = OPENINGS,
    seed: int = 0,
    ring: bool = True,
) -> TrainingRun:
    """Write the row of an evaluation; what it measures with is fixed now.

    policies  the first one is what the others' KL is taken to; left out: `default_policies`
    draws     of how many the best is measured beside the first; 1: none. Left out: 8, or 1 where nothing can choose
    prompts, probes  how many openings of each kind at most
    Raises    RunRefused, with what to do
    """
    chosen = list(policies) or default_policies(project)
    judges = judges_of(project)
    if draws is None:
        draws = SPARROWS_DRAWS if judges else 1
    if problem := _problem(project, chosen, draws, prompts, probes, bool(judges)):
        raise RunRefused(problem)
    rule_set = judges.rule_set or _published(project)
    if not openings_of(project, rule_set, prompts=prompts, probes=probes, seed=seed):
        raise RunRefused(
            "The test split has no prompts, and no probe with an answer. Import prompts with split test first."
        )
    second = second_opinion(project, judges.reward_model) if judges.reward_model else None
    learned = project.hyperparameters.get("policy", {})
    return queue_run(
        ring=ring,
        project=project,
        kind=TrainingRun.Kind.EVALUATION,
        seed=seed,
        hyperparameters={
            "policies": [policy.pk for policy in chosen],
            "draws": draws,
            "prompts": prompts,
            "probes": probes,
            "reward_model": _pk(judges.reward_model),
            "second": _pk(second),
            "rule_model": _pk(judges.rule_model),
            "rule_set": rule_set.number if rule_set else None,
            "temperature": project.temperature,
            "max_new_tokens": project.max_new_tokens,
            **{name: learned[name] for name in ("device", "dtype") if name in learned},
        },
    )


def _pk(version: ModelVersion | None) -> int | None:
    return version.pk if version is not None else None


def _published(project: Project) -> RuleSet | None:
    return project.rule_sets.filter(state=RuleSet.State.PUBLISHED).first()


def _problem(
    project: Project, policies: Sequence[ModelVersion], draws: int, prompts: int, probes: int, can_choose: bool
) -> str:
    """What cannot work, in a sentence; empty where all can."""
    if not policies:
        return "No model serves in this project, so there is nothing to evaluate. Promote one, or name policies."
    if len(policies) > MOST_POLICIES or len({policy.pk for policy in policies}) < len(policies):
        return f"Name up to {MOST_POLICIES} policies, each once."
    for policy in policies:
        if policy.project_id != project.pk or policy.kind != ModelVersion.Kind.POLICY:
            return f"Model {policy.pk} is no policy of this project."
        if policy.backend != ModelVersion.Backend.TRANSFORMERS:
            return (
                f"{policy} is run by a server, whose log-probabilities cannot be compared. Name policies with weights."
            )
    if not 1 <= draws <= MOST_DRAWS:
        return f"Rerank from 1 to {MOST_DRAWS} draws, not {draws}."
    if draws > 1 and not can_choose:
        return NOTHING_CHOOSES
    if min(prompts, probes) < 0 or not 0 < prompts + probes <= MOST_OPENINGS:
        return f"Take from 1 to {MOST_OPENINGS} openings in all."
    return ""


# What is answered


def openings_of(project: Project, rule_set: RuleSet | None, *, prompts: int, probes: int, seed: int) -> list[Opening]:
    """Openings of the test split, in an order of the seed's own: everyday prompts, then what may lead to a breach.

    The latter are people's probes, cut at each message that the model answered; where there are none, prompts that
    their source says are meant to break a rule. Prompts so marked are never among the everyday ones.
    """
    everyday, marked = [], []
    keys = set(rule_set.rules.values_list("key", flat=True)) if rule_set else set()
    for prompt in Prompt.objects.filter(project=project).of_split(PromptGroup.Split.TEST).order_by("content_hash"):
        rule = prompt.details.get("rule") if isinstance(prompt.details, dict) else None
        if not can_open(prompt.messages):
            continue
        if not rule:
            if prompt.source != "probe":
                everyday.append(Opening(prompt.messages, prompt=prompt.pk))
        elif rule in keys:
            marked.append(Opening(prompt.messages, PROBE, rule, prompt.pk))
    provoking = list(_cut_probes(project, keys)) or marked
    return _some(everyday, prompts, seed) + _some(provoking, probes, seed)


def _some(openings: list[Opening], most: int, seed: int) -> list[Opening]:
    return sorted(openings, key=lambda one: stable_seed(seed, one.rule, one.messages))[:most]


def _cut_probes(project: Project, keys: set[str]) -> Iterator[Opening]:
    """Each message of a probe that the model answered, with what came before it."""
    probes = Dialogue.objects.filter(
        project=project,
        kind=Dialogue.Kind.PROBE,
        ended_at__isnull=False,
        prompt__group__split=PromptGroup.Split.TEST,
        probe__rule__key__in=keys,
    )
    for dialogue in probes.select_related("probe__rule").prefetch_related("turns").order_by("pk"):
        messages = dialogue.messages()
        for place, message in enumerate(messages[:-1]):
            if message["role"] == Turn.Role.USER and messages[place + 1]["role"] == Turn.Role.ASSISTANT:
                key = dialogue.probe.rule.key
                yield Opening(messages[: place + 1], PROBE, key, dialogue.prompt_id, dialogue.author_id)


# What came out


def contestants_in(run: TrainingRun) -> list[Contestant]:
    """Who is measured in a run: each policy alone, then as the best of its draws."""
    draws = run.hyperparameters.get("draws", 1)
    return [
        Contestant(policy, count)
        for policy in run.hyperparameters.get("policies", [])
        for count in ([1] if draws == 1 else [1, draws])
    ]


def result_of(
    run: TrainingRun, openings: Sequence[Opening], measured: Sequence[tuple[Sequence[Any], dict[str, Any]]]
) -> dict[str, Any]:
    """What a run keeps: per contestant its figures and replies, and the openings they answer."""
    names = blind_sets.names_of(contestants_in(run))
    return {
        "openings": [asdict(opening) for opening in openings],
        "counts": {kind: sum(one.kind == kind for one in openings) for kind in (EVERYDAY, PROBE)},
        "contestants": [
            {"name": names[contestant], **contestant.to_dict(), "figures": figures}
            for contestant, (_, figures) in zip(contestants_in(run), measured, strict=True)
        ],
        "replies": [[reply.to_dict() for reply in replies] for replies, _ in measured],
    }


# Before people


def name_of(run: TrainingRun) -> str:
    """What the record calls the blind set of an evaluation."""
    return f"evaluation {run.pk}"


@dataclass(frozen=True)
class Asked:
    """How many questions a blind set has; `alike` were not asked because all replies said the same."""

    comparisons: int
    judgements: int
    alike: int = 0


@transaction.atomic
def ask_people(run: TrainingRun, *, comparisons: int, probes: int, answers: int = 1, by: User | None = None) -> Asked:
    """Put a blind set into the annotators' queue: replies of all contestants side by side, and replies to be judged.

    comparisons  how many held-out prompts
    probes       how many openings of probes; every contestant's reply to each is a question of its own
    answers      how many people each question wants
    Asked again, what is new is added, and what was closed short of its answers is opened again.
    Raises       RunRefused for an evaluation that is not done, or nothing to ask
    """
    if run.state != QueuedWork.State.DONE:
        raise RunRefused(f"Evaluation {run.pk} is {run.get_state_display()}. A blind set is made once it is done.")
    if not (0 <= comparisons <= MOST_ASKED and 0 <= probes <= MOST_ASKED and comparisons + probes):
        raise RunRefused(f"Ask from 1 to {MOST_ASKED} questions of each kind.")
    if not 1 <= answers <= 20:
        raise RunRefused("Each question wants from 1 to 20 answers.")
    if comparisons and len(contestants_in(run)) < 2:
        raise RunRefused("There is only one policy, so nothing can be compared. Evaluate two, or rerank.")
    compared, alike = _ask_to_compare(run, comparisons, answers)
    judged = _ask_to_judge(run, probes, answers)
    if not compared + judged:
        raise RunRefused("There is nothing to ask: no held-out opening, or all replies say the same.")
    audit.record(
        "evaluation.blind_set", project=run.project, actor=by, target=run, comparisons=compared, judgements=judged
    )
    return Asked(compared, judged, alike)


def _ask_to_compare(run: TrainingRun, most: int, answers: int) -> tuple[int, int]:
    """(questions asked, prompts to which all said the same)."""
    asked = alike = 0
    for place, opening in _of_kind(run, EVERYDAY):
        if asked == most:
            break
        prompt = Prompt.objects.filter(pk=opening["prompt"]).first()
        if prompt is None:
            continue
        replies = [_reply(run, number, place) for number in range(len(contestants_in(run)))]
        random.Random(stable_seed(run.seed, "order", place)).shuffle(replies)
        item = blind_sets.ask_to_compare(
            project=run.project, evaluation=name_of(run), place=place, prompt=prompt, replies=replies, answers=answers
        )
        asked, alike = asked + (item is not None), alike + (item is None)
    return asked, alike


def _ask_to_judge(run: TrainingRun, most: int, answers: int) -> int:
    """Questions asked, in an order that says nothing of whose the replies are."""
    rules = {rule.key: rule for rule in Rule.objects.filter(
        rule_set__project=run.project, rule_set__number=run.hyperparameters.get("rule_set") or 0
    )}  # fmt: skip
    openings = [one for one in _of_kind(run, PROBE) if one[1]["rule"] in rules][:most]
    questions = [(place, opening, number) for place, opening in openings for number in range(len(contestants_in(run)))]
    random.Random(stable_seed(run.seed, "questions")).shuffle(questions)
    prompts = Prompt.objects.in_bulk([opening["prompt"] for _, opening in openings if opening["prompt"]])
    authors = User.objects.in_bulk([opening["author"] for _, opening in openings if opening["author"]])
    items: list[WorkItem] = [
        blind_sets.ask_to_judge(
            project=run.project, evaluation=name_of(run), place=100 * place + number,
            prompt=prompts.get(opening["prompt"]), messages=opening["messages"], rule=rules[opening["rule"]],
            reply=_reply(run, number, place), author=authors.get(opening["author"]), answers=answers,
        )
        for place, opening, number in questions
    ]  # fmt: skip
    return len(items)


def _of_kind(run: TrainingRun, kind: str) -> list[tuple[int, dict[str, Any]]]:
    return [(place, one) for place, one in enumerate(run.result["openings"]) if one["kind"] == kind]


def _reply(run: TrainingRun, number: int, place: int) -> BlindReply:
    contestant, kept = contestants_in(run)[number], run.result["replies"][number][place]
    settings = run.hyperparameters
    made_by = {
        "seed": kept["seed"], "draw": kept["draw"], "mean_logprob": kept["mean_logprob"], "token_count": kept["tokens"],
        "finish_reason": "stop" if kept["finished"] else "length",
        "sampling": {name: settings[name] for name in ("temperature", "max_new_tokens")},
        "reranking": {"draws": contestant.draws} if contestant.draws > 1 else {},
    }  # fmt: skip
    return BlindReply(contestant, kept["text"], made_by)
