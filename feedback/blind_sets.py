"""Blind sets: people compare replies of several policies, and judge some by a rule, without learning whose they are.

They are dialogues of kind evaluation and ordinary work items, answered on the ordinary pages. Whose a reply is stands
on the candidate, or on the dialogue that is judged; nothing is learned from the answers (`besides_evaluations`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction
from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from feedback import work_items
from feedback.agreement import Share, clustered_share
from feedback.bradley_terry import Outcome
from feedback.models import (
    Candidate,
    Comparison,
    Dialogue,
    ModelVersion,
    Project,
    Prompt,
    RankEntry,
    Ranking,
    Rule,
    RuleJudgement,
    Slot,
    Turn,
    User,
    WorkItem,
)
from feedback.models.judgements import chance_of
from feedback.rule_figures import broken_share

PRIORITY = 4  # before fresh chats; after what others have answered already
Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True, order=True)
class Contestant:
    """A policy as it is measured: alone, or with each reply the best of so many draws."""

    policy: int  # id of its ModelVersion
    draws: int = 1

    @classmethod
    def read(cls, kept: Mapping[str, Any]) -> Contestant:
        """What `to_dict` gave."""
        return cls(int(kept["policy"]), int(kept["draws"]))

    def to_dict(self) -> dict[str, int]:
        return {"policy": self.policy, "draws": self.draws}


@dataclass(frozen=True)
class BlindReply:
    """One contestant's reply, with what made it.

    made_by  seed, draw, sampling, model_hash, mean_logprob, token_count, finish_reason, reranking, as of any candidate
    """

    contestant: Contestant
    text: str
    made_by: Mapping[str, Any] = field(default_factory=dict)


@transaction.atomic
def ask_to_compare(
    *, project: Project, evaluation: str, place: int, prompt: Prompt, replies: Sequence[BlindReply], answers: int = 1
) -> WorkItem | None:
    """Queue replies of several contestants to one held-out prompt, side by side, to be ranked.

    Replies that say the same are one candidate, which stands for all who said it. None where all say the same: there is
    nothing to ask then. Asked twice for the same place, it is one question, which wants the larger number of answers
    and is opened again where it was closed short of them.

    evaluation  the name its answers are found by again
    place       of the question within it
    replies     in an order that says nothing: it becomes the candidates'
    """
    by_text: dict[str, list[BlindReply]] = defaultdict(list)
    for reply in replies:
        by_text[reply.text.strip()].append(reply)
    if len(by_text) < 2:
        return None
    dialogue, made = _dialogue(project, evaluation, f"compare {place}", prompt, prompt.messages)
    if not made:
        return _ask_more(WorkItem.objects.filter(comparison__dialogue=dialogue), answers)
    comparison = Comparison.objects.create(dialogue=dialogue, after_position=len(prompt.messages) - 1)
    for index, (text, alike) in enumerate(by_text.items()):
        Candidate.objects.create(
            dialogue=dialogue,
            comparison=comparison,
            after_position=comparison.after_position,
            index=index,
            turns=[{"role": "assistant", "content": text}],
            is_empty=not text,
            model_version_id=alike[0].contestant.policy,
            source={"contestants": [one.contestant.to_dict() for one in alike]},
            **alike[0].made_by,
        )
    return work_items.open_work(
        project=project, kind=WorkItem.Kind.RANK, comparison=comparison, wanted=answers, priority=PRIORITY
    )


@transaction.atomic
def ask_to_judge(
    *,
    project: Project,
    evaluation: str,
    place: int,
    prompt: Prompt | None,
    messages: Messages,
    rule: Rule,
    reply: BlindReply,
    author: User | None = None,
    answers: int = 1,
) -> WorkItem:
    """Queue one contestant's reply to a probe's opening, to be judged by the rule that was probed.

    author  whoever wrote the opening: they are not asked to judge what it led to
    Asked twice for the same place, it is one question, as in `ask_to_compare`.
    """
    turns = [*messages, {"role": Turn.Role.ASSISTANT, "content": reply.text}]
    owner = {"contestant": reply.contestant.to_dict(), "made_by": dict(reply.made_by)}
    dialogue, made = _dialogue(
        project,
        evaluation,
        f"judge {place}",
        prompt,
        turns,
        source=owner,
        policy_id=reply.contestant.policy,
        author=author,
    )
    if not made:
        return _ask_more(WorkItem.objects.filter(dialogue=dialogue, rule=rule), answers)
    return work_items.open_work(
        project=project, kind=WorkItem.Kind.JUDGE, dialogue=dialogue, rule=rule, wanted=answers, priority=PRIORITY
    )


def _ask_more(known: QuerySet[WorkItem], answers: int) -> WorkItem:
    """The question that was asked before; more people for it where more are wanted now, or where it was closed."""
    item = known.select_for_update(no_key=True, of=("self",)).get()
    work_items.want_at_least(item, answers)
    item.refresh_from_db()
    return item


def _dialogue(
    project: Project, evaluation: str, name: str, prompt: Prompt | None, turns: Messages, **fields: Any
) -> tuple[Dialogue, bool]:
    """The ended dialogue of a question, and whether it was made now. Two who ask at once ask one after the other."""
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)
    key = f"{evaluation}: {name}"
    known = Dialogue.objects.filter(project=project, kind=Dialogue.Kind.EVALUATION, source_key=key).first()
    if known is not None:
        return known, False
    dialogue = Dialogue.objects.create(
        project=project,
        kind=Dialogue.Kind.EVALUATION,
        prompt=prompt,
        source_key=key,
        ended_at=timezone.now(),
        end_reason="made to be judged",
        **fields,
    )
    Turn.objects.bulk_create(
        Turn(dialogue=dialogue, position=position, role=turn["role"], content=turn["content"])
        for position, turn in enumerate(turns)
    )
    return dialogue, True


def asks_for_judgements(project: Project) -> bool:
    """Whether a blind set has replies that somebody may still judge, also where nobody is asked to probe."""
    waiting = Slot.objects.filter(state=Slot.State.FREE, work_item__closed_at=None, work_item__project=project)
    return waiting.filter(
        work_item__kind=WorkItem.Kind.JUDGE, work_item__dialogue__kind=Dialogue.Kind.EVALUATION
    ).exists()


@transaction.atomic
def close(project: Project, evaluation: str, *, because: str) -> int:
    """Ask nobody any more. What was answered stays. Returns how many questions were still open."""
    items = [item for item in _items(project, evaluation).filter(closed_at=None) if _is_short(item)]
    for item in items:
        work_items.close_work(item, because=because)
    return len(items)


def _is_short(item: WorkItem) -> bool:
    return item.slots.filter(state__in=[Slot.State.FREE, Slot.State.HELD]).exists()


# What people said


@dataclass(frozen=True)
class Duel:
    """Two contestants before people: how often the first was put before the second."""

    first: Contestant
    second: Contestant
    wins: Share  # of the answers that told them apart
    ties: int


@dataclass(frozen=True)
class BlindAnswers:
    """What people said of a blind set, or of all of a project.

    outcomes  one per answer and pair of contestants who said different things; a tie where both have one place, or
              where none was called good
    broken    per contestant, the replies that broke the rule they were judged by, by consensus
    """

    asked: int = 0
    answered: int = 0
    outcomes: list[Outcome[Contestant]] = field(default_factory=list)
    broken: dict[Contestant, Share] = field(default_factory=dict)
    broken_by_rule: dict[str, dict[Contestant, Share]] = field(default_factory=dict)

    def duels(self) -> list[Duel]:
        """Every pair that was compared, each once."""
        return duels_of(self.outcomes)


def duels_of(outcomes: Iterable[Outcome[Contestant]]) -> list[Duel]:
    """Win rates with Wilson intervals, ties apart; answers to one question count as what they are worth together."""
    credits: dict[tuple[Contestant, Contestant], dict[Hashable, list[float]]] = defaultdict(lambda: defaultdict(list))
    ties: Counter[tuple[Contestant, Contestant]] = Counter()
    for one in outcomes:
        turned = one.second < one.first
        pair = (one.second, one.first) if turned else (one.first, one.second)
        groups = credits[pair]
        if one.credit == 0.5:
            ties[pair] += 1
        else:
            groups[one.group].append(1 - one.credit if turned else one.credit)
    return [
        Duel(*pair, wins=clustered_share(groups.values()), ties=ties[pair]) for pair, groups in sorted(credits.items())
    ]


def answers_of(project: Project, evaluation: str = "") -> BlindAnswers:
    """What people said so far: of one evaluation, or of all. Asked is what was answered or still may be."""
    slots_of = Slot.objects.live().filter(work_item__in=_items(project, evaluation))
    slots_of = slots_of.exclude(state=Slot.State.FREE, work_item__closed_at__isnull=False)
    counted = slots_of.aggregate(asked=Count("pk"), answered=Count("pk", filter=Q(state=Slot.State.FILLED)))
    by_rule = _verdicts(project, evaluation)
    together: dict[Contestant, list[list[float]]] = defaultdict(list)
    for contestants in by_rule.values():
        for contestant, dialogues in contestants.items():
            together[contestant] += dialogues
    return BlindAnswers(
        **counted,
        outcomes=_outcomes(project, evaluation),
        broken={contestant: broken_share(dialogues) for contestant, dialogues in together.items()},
        broken_by_rule={
            key: {contestant: broken_share(dialogues) for contestant, dialogues in contestants.items()}
            for key, contestants in by_rule.items()
        },
    )


def _items(project: Project, evaluation: str) -> QuerySet[WorkItem]:
    about = Q(comparison__dialogue__kind=Dialogue.Kind.EVALUATION) | Q(dialogue__kind=Dialogue.Kind.EVALUATION)
    if evaluation:
        named = f"{evaluation}: "
        about &= Q(comparison__dialogue__source_key__startswith=named) | Q(dialogue__source_key__startswith=named)
    return WorkItem.objects.filter(about, project=project)


def _of(path: str, evaluation: str) -> dict[str, Any]:
    found: dict[str, Any] = {f"{path}kind": Dialogue.Kind.EVALUATION}
    return found | ({f"{path}source_key__startswith": f"{evaluation}: "} if evaluation else {})


def _outcomes(project: Project, evaluation: str) -> list[Outcome[Contestant]]:
    rankings = Ranking.objects.counted().filter(
        comparison__dialogue__project=project, **_of("comparison__dialogue__", evaluation)
    )
    found = list(rankings.order_by("pk").values_list("pk", "comparison", "all_bad"))
    ranks: dict[int, dict[int, int]] = defaultdict(dict)
    entries = RankEntry.objects.filter(ranking__in=rankings, rank__isnull=False)
    for ranking, candidate, rank in entries.values_list("ranking", "candidate", "rank"):
        ranks[ranking][candidate] = rank or 0
    owners: dict[int, list[tuple[int, list[Contestant]]]] = defaultdict(list)
    shown = Candidate.objects.filter(comparison__in={comparison for _, comparison, _ in found})
    for pk, comparison, source in shown.order_by("pk").values_list("pk", "comparison", "source"):
        owners[comparison or 0].append((pk, [Contestant.read(one) for one in source.get("contestants", [])]))
    return [
        outcome
        for ranking, comparison, all_bad in found
        for outcome in _outcomes_of(comparison, owners[comparison], ranks[ranking], all_bad)
    ]


def _outcomes_of(
    comparison: int, shown: Sequence[tuple[int, list[Contestant]]], ranks: Mapping[int, int], all_bad: bool
) -> Iterable[Outcome[Contestant]]:
    """One answer's pairs; whoever was left without a place is in none."""
    for place, (one, firsts) in enumerate(shown):
        for other, seconds in shown[place + 1 :]:
            if all_bad:
                credit = 0.5
            elif one not in ranks or other not in ranks:
                continue
            else:
                credit = 0.5 + 0.5 * ((ranks[one] < ranks[other]) - (ranks[one] > ranks[other]))
            for first in firsts:
                for second in seconds:
                    yield Outcome(first, second, credit, group=comparison)


def _verdicts(project: Project, evaluation: str) -> dict[str, dict[Contestant, list[list[float]]]]:
    """{key of a rule: {contestant: per dialogue the chances that its judges give}}."""
    rows = RuleJudgement.objects.counted().filter(dialogue__project=project, **_of("dialogue__", evaluation))
    by_dialogue: dict[tuple[str, Contestant, int], list[float]] = defaultdict(list)
    for key, dialogue, source, verdict in rows.order_by("pk").values_list(
        "rule__key", "dialogue", "dialogue__source", "verdict"
    ):
        by_dialogue[key, Contestant.read(source["contestant"]), dialogue].append(chance_of(verdict))
    found: dict[str, dict[Contestant, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    for (key, contestant, _), chances in by_dialogue.items():
        found[key][contestant].append(chances)
    return found


def names_of(contestants: Iterable[Contestant]) -> dict[Contestant, str]:
    """What pages call them: policy 3, policy 3 best of 8."""
    wanted = set(contestants)
    versions = ModelVersion.objects.in_bulk({one.policy for one in wanted})
    return {one: name_of(versions.get(one.policy), one.draws) for one in sorted(wanted)}


def name_of(policy: ModelVersion | None, draws: int) -> str:
    said = str(policy) if policy is not None else "a policy that is gone"
    return said if draws == 1 else f"{said}, best of {draws}"
