"""Where people differ: dialogues of which some say that a rule was broken and others that it was kept, worst first.

A manager reads them, and may send one for another judgement, to somebody who has not judged it. What the newest rule
model says of each dialogue (rule_scores.py) is set beside what people say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean

from django.db import transaction
from django.db.models import Exists, OuterRef, Q

from feedback import audit, rule_lineage, rule_sets, work_items
from feedback.errors import NotAskedAgain
from feedback.judgements import JUDGE_PRIORITY
from feedback.models import Dialogue, Membership, Project, Rule, RuleJudgement, Slot, User, WorkItem
from feedback.models.judgements import chance_of

BROKEN, KEPT, UNDECIDED = "broken", "kept", "undecided"
DECIDED = {BROKEN: "broken", KEPT: "kept", UNDECIDED: "undecided"}
STEPS = 4  # from definitely broken to definitely followed
NOT_ASKED = "not asked after all"

PEOPLE, MODEL = "people", "model"
WHO = {PEOPLE: "people among each other", MODEL: "people and the rule model"}

Predictions = Mapping[tuple[int, str], float]  # {(dialogue, key of a rule): chance that it was broken, by a rule model}


@dataclass(frozen=True)
class Disagreement:
    """A dialogue, a rule, and how far apart people are on it.

    prober, others  verdicts that count, 1 definitely broken to 5 definitely followed
    predicted       the chance a rule model gives; None where nobody handed it in
    """

    dialogue_id: int
    rule: Rule
    prober: list[int] = field(default_factory=list)
    others: list[int] = field(default_factory=list)
    predicted: float | None = None

    @property
    def verdicts(self) -> list[int]:
        return [*self.prober, *self.others]

    @property
    def steps(self) -> int:
        """How many steps lie between the two verdicts that are furthest apart."""
        return max(self.verdicts) - min(self.verdicts)

    @property
    def p_broken(self) -> float:
        return fmean(chance_of(verdict) for verdict in self.verdicts)

    @property
    def decided(self) -> str:
        """What people say together."""
        if self.p_broken == 0.5:
            return UNDECIDED
        return BROKEN if self.p_broken > 0.5 else KEPT

    @property
    def is_about_the_prober(self) -> bool:
        """Whether the prober and those who judged after them are apart by as much as anybody."""
        sides = [abs(a - b) for a in self.prober for b in self.others]
        return bool(sides) and max(sides) == self.steps

    @property
    def from_model(self) -> float:
        """How far the rule model is from what people say together, in steps; 0 where it says nothing."""
        return 0.0 if self.predicted is None else STEPS * abs(self.predicted - self.p_broken)

    @property
    def is_about_the_model(self) -> bool:
        """Whether the rule model is further from people than any two of them are from each other."""
        return self.from_model > self.steps

    @property
    def distance(self) -> float:
        """How far any two who judged are apart, the rule model among them, in steps."""
        return max(float(self.steps), self.from_model)


def find(
    project: Project,
    *,
    rule_key: str = "",
    decided: str = "",
    who: str = "",
    predictions: Predictions | None = None,
    least_from_model: float = STEPS / 2,
) -> list[Disagreement]:
    """The dialogues on which verdicts on a rule in force differ, furthest apart first, then the newest.

    None of a blind set: a manager who read them, with the policy's name, would not be blind any more.
    decided           one of DECIDED; empty: all
    who               one of WHO, between whom they lie furthest apart; empty: all
    predictions       what a rule model says; a dialogue on which people agree is found too where it is far from them
    least_from_model  how many steps that is
    """
    published = rule_sets.published_set(project)
    rules = list(published.rules.select_related("rule_set")) if published else []
    by_pk = {rule.pk: rule for rule in rules if rule_key in ("", rule.key)}
    counts_for = rule_lineage.lineages(list(by_pk.values()))
    said: dict[tuple[int, int], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    rows = RuleJudgement.objects.counted().besides_evaluations().filter(rule__in=counts_for)
    for dialogue, rule, verdict, by_prober in rows.values_list("dialogue", "rule", "verdict", "by_prober"):
        said[dialogue, counts_for[rule]][0 if by_prober else 1].append(verdict)
    found = [
        Disagreement(dialogue, by_pk[rule], prober, others, (predictions or {}).get((dialogue, by_pk[rule].key)))
        for (dialogue, rule), (prober, others) in said.items()
    ]
    apart = [one for one in found if one.steps or (one.predicted is not None and one.from_model >= least_from_model)]
    return sorted(
        (
            one
            for one in apart
            if decided in ("", one.decided) and who in ("", MODEL if one.is_about_the_model else PEOPLE)
        ),
        key=lambda one: (-one.distance, -one.dialogue_id, one.rule.position),
    )


# Sent for another judgement


@dataclass(frozen=True)
class Asked:
    """Whether one more person is being asked about a dialogue and a rule.

    is_waiting   somebody is wanted who has not come yet
    is_held      somebody has it in hand
    may_undo     it was sent by a manager and nobody has claimed it
    """

    is_waiting: bool = False
    is_held: bool = False
    may_undo: bool = False


def asked_about(pairs: list[Disagreement]) -> dict[tuple[int, int], Asked]:
    """{(dialogue, rule): what is asked about it now} of those about which anything is."""
    counts_for = rule_lineage.lineages(list({one.rule.pk: one.rule for one in pairs}.values()))
    items = WorkItem.objects.filter(
        kind=WorkItem.Kind.JUDGE,
        dialogue__in=[one.dialogue_id for one in pairs],
        rule__in=counts_for,
        closed_at=None,
    )
    states: dict[tuple[int, int], set[str]] = defaultdict(set)
    added: dict[tuple[int, int], bool] = defaultdict(bool)
    for item in items.prefetch_related("slots"):
        pair = (item.dialogue_id or 0, counts_for[item.rule_id or 0])
        here = {slot.state for slot in item.slots.all()}
        states[pair] |= here
        added[pair] |= work_items.may_want_one_less(item)
    return {
        pair: Asked(Slot.State.FREE in found, Slot.State.HELD in found, added[pair]) for pair, found in states.items()
    }


@transaction.atomic
def ask_again(*, dialogue: Dialogue, rule: Rule, by: User | None) -> WorkItem:
    """Ask one more person to judge a dialogue by a rule in force.

    It goes to somebody who has not judged it, did not probe in it and has not skipped it, as every judgement does.
    Raises  NotAskedAgain while somebody is wanted for it already, when nobody is left who may, or the rule is past
    """
    if rule.rule_set.state != rule.rule_set.State.PUBLISHED:
        raise NotAskedAgain("This rule is not in force any more, so nobody is asked about it.")
    item = _locked(dialogue, rule)
    versions = [one.pk for one in rule_lineage.lineage(rule)]
    open_ones = WorkItem.objects.filter(kind=WorkItem.Kind.JUDGE, dialogue=dialogue, rule__in=versions, closed_at=None)
    if open_ones.filter(slots__state=Slot.State.FREE).exists():
        raise NotAskedAgain("Somebody is wanted for it already. Wait until they have judged it.")
    if not people_left(dialogue, rule).exists():
        raise NotAskedAgain(
            "Everybody here has judged it, made it or passed it over. Add somebody to the project first."
        )
    if item is None:
        item = work_items.open_work(
            project=dialogue.project, kind=WorkItem.Kind.JUDGE, dialogue=dialogue, rule=rule, priority=JUDGE_PRIORITY
        )
        WorkItem.objects.filter(pk=item.pk).update(added=1)
    else:
        work_items.want_one_more(item)
    audit.record(
        "judgement.asked_again", project=dialogue.project, actor=by, target=item, dialogue=dialogue.pk, rule=rule.key
    )
    item.refresh_from_db()
    return item


@transaction.atomic
def undo_asking(*, dialogue: Dialogue, rule: Rule, by: User | None) -> None:
    """Ask nobody more after all, while nobody has claimed it.

    Raises  NotAskedAgain
    """
    item = _locked(dialogue, rule)
    if item is None or not work_items.want_one_less(item, because=NOT_ASKED):
        raise NotAskedAgain("There is nothing to undo: it was not sent, or somebody has it in hand by now.")
    audit.record(
        "judgement.asking_undone", project=dialogue.project, actor=by, target=item, dialogue=dialogue.pk, rule=rule.key
    )


def _locked(dialogue: Dialogue, rule: Rule) -> WorkItem | None:
    """The question whether this dialogue broke this rule, held until the transaction ends; None before it was asked."""
    Dialogue.objects.select_for_update(no_key=True).get(pk=dialogue.pk)  # two managers at once open one question
    asked = WorkItem.objects.select_for_update(no_key=True).filter(kind=WorkItem.Kind.JUDGE, dialogue=dialogue)
    return asked.filter(rule=rule).first()


def people_left(dialogue: Dialogue, rule: Rule):
    """Active members who might be asked: who neither made the dialogue, nor judged it by this rule, nor skipped it."""
    here = Slot.objects.filter(annotator=OuterRef("user"), work_item__dialogue=dialogue)
    held_or_done = Q(work_item__rule__key=rule.key, state__in=[Slot.State.HELD, Slot.State.FILLED])
    touched = here.filter(~Q(work_item__kind=WorkItem.Kind.JUDGE) | Q(state=Slot.State.SKIPPED) | held_or_done)
    judged = RuleJudgement.objects.filter(dialogue=dialogue, rule__key=rule.key, annotator=OuterRef("user"))
    members = Membership.objects.filter(project=dialogue.project_id, is_active=True, user__is_active=True)
    return members.filter(~Exists(touched), ~Exists(judged)).exclude(user=dialogue.author_id)
