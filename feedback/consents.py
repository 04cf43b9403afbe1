"""Who agreed to read what may harm: per theme of sensitive rules, in the very words that were shown.

The newest row of a person, project and theme holds. It covers a rule only when its wording names what that rule may
show: a new warning is asked about anew. `slots` leaves out what is not covered.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import Exists, OuterRef, Q

from feedback import audit, dialogues, slots
from feedback.errors import ConsentNeeded, WordingChanged
from feedback.models import Consent, Project, Rule, RuleSet, Slot, User, WorkItem

PROMISE = "Skipping costs you nothing, and you can stop these at any time."
STOPPED = "no more of this theme"


@dataclass(frozen=True)
class Theme:
    """A theme of sensitive rules as one person meets it."""

    name: str
    warnings: tuple[str, ...]
    agreed: bool = False
    decided_at: datetime | None = None  # None: never asked, or not in these words

    @property
    def wording(self) -> str:
        """What is told before anything is shown, word for word."""
        return "\n".join([*self.warnings, PROMISE])

    @property
    def title(self) -> str:
        return self.name or "Sensitive rules"


def themes(user: User, project: Project) -> list[Theme]:
    """The themes of a project's sensitive rules, and what this person said to each in the words it has now."""
    newest = _newest(user, project)
    found = []
    for name, warnings in _warnings(project).items():
        theme = Theme(name, tuple(warnings))
        said = newest.get(name)
        holds = said is not None and (not said.given or all(warning in said.wording for warning in warnings))
        found.append(Theme(name, theme.warnings, said.given, said.created_at) if said and holds else theme)
    return found


def _warnings(project: Project) -> dict[str, list[str]]:
    """{theme: what may appear}, of the published rules and of those that dialogues still wait to be judged by."""
    waits = Q(
        probes__dialogue__work_items__closed_at=None, probes__dialogue__work_items__slots__state__in=["free", "held"]
    )
    asked = {"work_item__closed_at": None, "state__in": [Slot.State.FREE, Slot.State.HELD]}
    judged = Slot.objects.filter(work_item__rule=OuterRef("pk"), work_item__kind=WorkItem.Kind.JUDGE, **asked)
    rated = Slot.objects.filter(work_item__candidate__dialogue__probe__rule=OuterRef("pk"), **asked)
    rules = Rule.objects.filter(rule_set__project=project, is_sensitive=True)
    current = rules.filter(
        Q(rule_set__state=RuleSet.State.PUBLISHED) | waits | Exists(judged) | Exists(rated)
    ).distinct()
    found: dict[str, list[str]] = {}
    for rule in current.order_by("-rule_set__number", "position"):
        told = found.setdefault(rule.theme, [])
        told += [rule.warning] * (rule.warning not in told)
    return found


def _newest(user: User, project: Project) -> dict[str, Consent]:
    """{theme: the newest row}."""
    return {consent.theme: consent for consent in Consent.objects.filter(user=user, project=project).order_by("pk")}


def covered(user: User, project: Project, rules: Iterable[Rule]) -> set[int]:
    """The rules, by id, that this person may meet: those that are not sensitive, and those they agreed to."""
    newest = _newest(user, project)

    def may_meet(rule: Rule) -> bool:
        said = newest.get(rule.theme)
        return not rule.is_sensitive or (said is not None and said.given and rule.warning in said.wording)

    return {rule.pk for rule in rules if may_meet(rule)}


def sensitive_rule(slot: Slot) -> Rule | None:
    """The sensitive rule for whose sake a slot's dialogue may show what harms; None where nothing is to be feared."""
    return next((rule for rule in _rules_met(slot) if rule.is_sensitive), None)


def _rules_met(slot: Slot) -> list[Rule]:
    """The rule that is asked about, and the one that the dialogue was to break."""
    item = slot.work_item
    dialogue = item.dialogue or (item.candidate.dialogue if item.candidate is not None else None)
    probe = getattr(dialogue, "probe", None)
    return [rule for rule in (item.rule, probe.rule if probe is not None else None) if rule is not None]


def may_be_shown(slot: Slot, user: User) -> bool:
    """Whether this person agreed to all that a slot's dialogue may show."""
    rules = _rules_met(slot)
    return len(covered(user, slot.work_item.project, rules)) == len({rule.pk for rule in rules})


@transaction.atomic
def give_consent(*, user: User, project: Project, theme: str, wording: str) -> Consent:
    """Record that a person agreed to read what a theme may show. Said twice it is one row.

    wording  what their page told them
    Raises   WordingChanged when something else would be told now, ConsentNeeded where there is no such theme
    """
    User.objects.select_for_update(no_key=True).get(pk=user.pk)
    told = _told(project, theme)
    if " ".join(wording.split()) != " ".join(told.wording.split()):
        raise WordingChanged("What may appear was described anew since this page was drawn. Read it again, please.")
    return _say(user, project, told, given=True)


@transaction.atomic
def take_back_consent(*, user: User, project: Project, theme: str) -> Consent:
    """Record that a person wants none of a theme, or no more. What they hold of it goes to others, at no cost to them.

    Raises  ConsentNeeded where there is no such theme
    """
    User.objects.select_for_update(no_key=True).get(pk=user.pk)
    said = _say(user, project, _told(project, theme), given=False)
    for slot in Slot.objects.filter(annotator=user, state=Slot.State.HELD, work_item__project=project):
        rule = sensitive_rule(slot)
        if rule is not None and rule.theme == theme:
            leave = dialogues.skip_dialogue if slot.work_item.is_chat else slots.skip
            leave(slot=slot, reason=STOPPED)
    return said


def _told(project: Project, theme: str) -> Theme:
    warnings = _warnings(project).get(theme)
    if warnings is None:
        raise ConsentNeeded("Nothing of that theme is probed here now. Go back to your home page.")
    return Theme(theme, tuple(warnings))


def _say(user: User, project: Project, told: Theme, *, given: bool) -> Consent:
    newest = _newest(user, project).get(told.name)
    if newest is not None and newest.given == given and newest.wording == told.wording:
        return newest
    consent = Consent.objects.create(user=user, project=project, theme=told.name, wording=told.wording, given=given)
    action = "consent.given" if given else "consent.taken_back"
    audit.record(action, project=project, actor=user, target=consent, theme=told.name)
    return consent
