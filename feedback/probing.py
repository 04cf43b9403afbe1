"""Probes: the server names one rule, and a person tries to have the model break it.

Nobody chooses their rule, and nobody goes on with another person's probe. A probe counts once its prober has given a
verdict (`judgements.record_judgement`), which also opens it to the judgement of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from feedback import audit, consents, dialogues, rule_figures, rule_lineage, slots, work_items
from feedback.agreement import wilson_interval
from feedback.errors import ConsentNeeded, NoPolicy, NothingToProbe, PolicyNotProbed, SlotClosed
from feedback.models import (
    Dialogue,
    ModelVersion,
    Probe,
    Project,
    Rule,
    RuleJudgement,
    RuleSet,
    Slot,
    User,
    WorkItem,
)
from feedback.models.work import midnight

ABANDONED_AFTER = timedelta(days=1)  # since its prober's time lapsed
BROKEN = (RuleJudgement.Verdict.DEFINITELY_BROKEN, RuleJudgement.Verdict.PROBABLY_BROKEN)


class Lack(StrEnum):
    """Why there is nothing to probe for a person, and in `SAID` what they are told."""

    CLOSED = "closed"
    NO_MODEL = "no_model"
    NO_RULES = "no_rules"
    QUOTAS_FULL = "quotas_full"
    SKIPPED = "skipped"
    NEEDS_CONSENT = "needs_consent"
    ENOUGH_TODAY = "enough_today"


SAID = {
    Lack.CLOSED: "Rules are not probed here just now.",
    Lack.NO_MODEL: "No model serves here yet, so there is nothing to probe.",
    Lack.NO_RULES: "No rules are published here yet. A manager publishes them.",
    Lack.QUOTAS_FULL: "Every rule has been probed as often as was wanted. More are wanted when the next model serves.",
    Lack.SKIPPED: "What is left are rules you skipped today. They come again tomorrow.",
    Lack.NEEDS_CONSENT: "What is left may show things that you must agree to first. You need not.",
    Lack.ENOUGH_TODAY: "You have read enough of this kind today. More tomorrow.",
}


@dataclass(frozen=True)
class Tally:
    """How often a rule was probed, with one policy, in this version and those it continues."""

    rule: Rule
    ended: int = 0  # with a verdict that counts, of whomever
    broken: int = 0  # of these, by what its judges say together
    held: int = 0  # going on now

    @property
    def wanted(self) -> int:
        return max(0, self.rule.probe_quota - self.ended - self.held)

    @property
    def width(self) -> float:
        """Of the 95 % Wilson interval of the violation rate, as if what is probed now came out as what was before.

        So people who come at the same time are spread over the rules. Nothing is known of a rule never probed: 1.
        """
        probes = self.ended + self.held
        if not probes:
            return 1.0
        rate = self.broken / self.ended if self.ended else 0.0
        low, high = wilson_interval(rate * probes, probes)
        return round(high - low, 9)


@dataclass(frozen=True)
class Outlook:
    """What a person could probe now: the rule that comes next and how many probes, or why none."""

    rule: Rule | None = None
    count: int = 0
    lack: Lack | None = None

    @property
    def said(self) -> str:
        return SAID[self.lack] if self.lack else ""


@transaction.atomic
def next_probe(*, user: User, project: Project) -> Slot:
    """The probe a person has in hand, or that lapsed under them; else one of a rule the server chooses, at once theirs.

    Asked twice at once (a double click) it is the same one.
    Raises  NothingToProbe, with the reason
    """
    User.objects.select_for_update(no_key=True).get(pk=user.pk)
    begun = slots.next_slot(user=user, project=project, kind=WorkItem.Kind.PROBE)
    if begun is not None:
        return begun
    project = Project.objects.select_for_update(no_key=True).get(pk=project.pk)  # one choice at a time: quotas hold
    found = outlook(user, project)
    if found.rule is None:
        raise NothingToProbe(found.said, because=str(found.lack))
    return open_probe(user=user, rule=found.rule)


@transaction.atomic
def open_probe(*, user: User, rule: Rule, policy: ModelVersion | None = None) -> Slot:
    """Open a dialogue that is meant to break a rule, and give it to its prober.

    policy  who is probed; the project's choice when left out. It answers to the end, whatever serves meanwhile.
    Raises  NoPolicy, ConsentNeeded for a sensitive rule the person did not agree to
    """
    project = rule.rule_set.project
    policy = policy or project.policy_to_probe
    if policy is None:
        raise NoPolicy(SAID[Lack.NO_MODEL])
    if not consents.covered(user, project, [rule]):
        raise ConsentNeeded("Read first what may appear, and say whether you agree to it.")
    dialogue = Dialogue.objects.create(project=project, kind=Dialogue.Kind.PROBE, policy=policy, author=user)
    Probe.objects.create(dialogue=dialogue, rule=rule)
    item = work_items.open_work(project=project, kind=WorkItem.Kind.PROBE, dialogue=dialogue, rule=rule)
    slot = slots.claim_slot(item.slots.get().pk, user=user)
    if slot is None:
        raise SlotClosed("The dialogue could not be opened. Try again.")
    return slot


# Which policy


def policies_to_choose(project: Project) -> QuerySet[ModelVersion]:
    """The policies a manager may have probed, newest first, those that failed their gate among them."""
    policies = ModelVersion.objects.filter(project=project, kind=ModelVersion.Kind.POLICY)
    return policies.exclude(state=ModelVersion.State.RETIRED).order_by("-number")


@transaction.atomic
def choose_policy(*, project: Project, policy: ModelVersion | None, by: User | None) -> None:
    """Have people probe this policy from their next probe on; None: whichever serves. Probes begun go on as they are.

    Raises  PolicyNotProbed
    """
    if policy is not None and (why := project.why_not_probed(policy)):
        raise PolicyNotProbed(why)
    before = Project.objects.select_for_update(no_key=True).get(pk=project.pk).probed_policy_id
    if before != (policy.pk if policy else None):
        Project.objects.filter(pk=project.pk).update(probed_policy=policy)
        said = str(policy) if policy else "the one that serves"
        audit.record("project.probed_policy_chosen", project=project, actor=by, target=project, policy=said)
    project.probed_policy = policy


# Which rule


def outlook(user: User, project: Project) -> Outlook:
    """What comes next for a person, read from the rows; changes nothing.

    Of the published rules that are probed less than wanted: the one whose violation rate is least certain, then the one
    probed least, then in the order of the set. Never one they skipped today, nor a sensitive one they did not agree to
    or have had enough of.
    """
    if not project.probes_open or project.archived_at is not None:
        return Outlook(lack=Lack.CLOSED)
    policy = project.policy_to_probe
    if policy is None:
        return Outlook(lack=Lack.NO_MODEL)
    rule_set = RuleSet.objects.filter(project=project, state=RuleSet.State.PUBLISHED).first()
    counted = tallies(rule_set, policy_id=policy.pk) if rule_set is not None else []
    if not counted:
        return Outlook(lack=Lack.NO_RULES)
    short = [tally for tally in counted if tally.wanted]
    if not short:
        return Outlook(lack=Lack.QUOTAS_FULL)
    return _of_what_is_short(user, project, short)


def _of_what_is_short(user: User, project: Project, short: Sequence[Tally]) -> Outlook:
    skipped = _skipped_today(user, project)
    open_ones = [tally for tally in short if tally.rule.key not in skipped]
    agreed = consents.covered(user, project, [tally.rule for tally in open_ones])
    room = sensitive_left_today(user, project)
    fit = [tally for tally in open_ones if tally.rule.pk in agreed and (room or not tally.rule.is_sensitive)]
    if not fit:
        return Outlook(lack=_why_none(open_ones, room))
    best = min(fit, key=lambda tally: (-tally.width, tally.ended + tally.held, tally.rule.position))
    sensitive = sum(tally.wanted for tally in fit if tally.rule.is_sensitive)
    plain = sum(tally.wanted for tally in fit if not tally.rule.is_sensitive)
    return Outlook(rule=best.rule, count=plain + min(sensitive, room))


def _why_none(open_ones: Sequence[Tally], room: int) -> Lack:
    if not open_ones:
        return Lack.SKIPPED
    return Lack.NEEDS_CONSENT if room else Lack.ENOUGH_TODAY


def tallies(rule_set: RuleSet, *, policy_id: int) -> list[Tally]:
    """The probes of each rule of a set with one policy, those of rules it continues among them."""
    rules = {rule.pk: rule for rule in rule_set.rules.order_by("position").select_related("rule_set__project")}
    current = rule_lineage.lineages(list(rules.values()))
    shares = rule_figures.probed_shares(current, policy_id)  # as the managers' page counts them
    counted = {
        pk: Tally(rule, shares[pk].total, round(shares[pk].hits)) if pk in shares else Tally(rule)
        for pk, rule in rules.items()
    }
    held = Slot.objects.filter(
        state=Slot.State.HELD,
        work_item__kind=WorkItem.Kind.PROBE,
        work_item__dialogue__policy=policy_id,
        work_item__rule__in=current,
    )
    for probed in held.values_list("work_item__rule", flat=True):
        tally = counted[current[probed or 0]]
        counted[tally.rule.pk] = replace(tally, held=tally.held + 1)
    return list(counted.values())


def _skipped_today(user: User, project: Project) -> set[str]:
    """The keys of rules a person skipped today; they stay so where a new version is published meanwhile."""
    given = Slot.objects.filter(annotator=user, state=Slot.State.SKIPPED, closed_at__gte=midnight())
    probes = given.filter(work_item__kind=WorkItem.Kind.PROBE, work_item__project=project)
    return set(probes.values_list("work_item__rule__key", flat=True))


def sensitive_left_today(user: User, project: Project) -> int:
    """How many more dialogues about sensitive rules a person may be given today, to probe or to judge."""
    return max(0, project.sensitive_per_day - sensitive_given_today(user, project))


def sensitive_given_today(user: User, project: Project) -> int:
    given = Slot.objects.given_today_to(user).showing_sensitive().filter(work_item__project=project)
    return given.values("work_item__dialogue").distinct().count()


# Probes that nobody came back to


def close_abandoned_probes(now: datetime | None = None) -> int:
    """End the probes whose prober's time lapsed a day ago and who did not come back. Returns how many."""
    before = (now or timezone.now()) - ABANDONED_AFTER
    recent = Slot.objects.filter(work_item=OuterRef("pk")).filter(
        Q(state=Slot.State.HELD) | Q(state=Slot.State.LAPSED, closed_at__gte=before)
    )
    left = WorkItem.objects.filter(
        ~Exists(recent), kind=WorkItem.Kind.PROBE, closed_at=None, dialogue__ended_at=None, created_at__lt=before
    )
    return sum(_close_abandoned(pk) for pk in left.order_by("pk").values_list("pk", flat=True)[:500])


@transaction.atomic
def _close_abandoned(pk: int) -> int:
    """Close one, unless its prober comes back at this moment: who locks the work item first has it."""
    item = WorkItem.objects.select_for_update(no_key=True).get(pk=pk)
    if item.dialogue_id is None or item.slots.filter(state=Slot.State.HELD).exists():
        return 0
    work_items.close_work(item, because="abandoned by its prober")
    dialogues.end(item.dialogue_id, "abandoned by its prober")
    return 1
