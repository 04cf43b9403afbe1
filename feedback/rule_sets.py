"""Rule sets: a draft is opened, edited and published; what is published is frozen, and the one before it retired.

Judgements belong to a rule in the wording that was judged. Where a rule of the next version `continues` one of the
version before, the earlier judgements count for it as well: by itself while its text is the same, and by a manager's
word where that text changed and its meaning did not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import Max
from django.utils import timezone
from django.utils.text import slugify

from feedback import audit, judging_handed_over
from feedback.errors import (
    DecisionMissing,
    DraftInTheWay,
    RuleRefused,
    RuleSetChanged,
    RuleSetEmpty,
    RuleSetFrozen,
    RuleSetUnchanged,
)
from feedback.models import Project, Rule, RuleSet, User
from feedback.rule_texts import FIELDS, LONGEST, MOST_RULES, TEXT, Values, checked
from feedback.word_diff import Stretch, marked_words

WORDING, STALE = "wording", "stale"
DECISIONS = {WORDING: "Wording only: earlier judgements count", STALE: "Another meaning: judge anew"}
FIELD_WORDS = {
    "name": "Name", "wording": "Wording", "breaks": "What breaks it", "keeps": "What does not", "category": "Kind",
    "theme": "Theme", "ideas": "Ideas for probing", "is_sensitive": "Sensitive", "warning": "What may appear",
    "probe_quota": "Probes wanted", "weight": "Weight in the reward",
}  # fmt: skip
NEXT_SEES = "Another window changed it meanwhile. Nothing was changed now; look at it as it stands."


# What there is


def published_set(project: Project) -> RuleSet | None:
    return project.rule_sets.filter(state=RuleSet.State.PUBLISHED).first()


def draft_of(project: Project) -> RuleSet | None:
    return project.rule_sets.filter(state=RuleSet.State.DRAFT).first()


def values_of(rule: Rule) -> Values:
    """What a rule says, apart from its key and where it stands."""
    return {name: getattr(rule, name) for name in FIELDS}


def fingerprint(rule_set: RuleSet) -> str:
    """Of what a rule set holds and of what is published beside it: another one when either changed."""
    published = RuleSet.objects.filter(project=rule_set.project_id, state=RuleSet.State.PUBLISHED)
    rules = [[rule.key, rule.position, values_of(rule)] for rule in rule_set.rules.order_by("position", "pk")]
    return _hash([rule_set.pk, rule_set.state, list(published.values_list("pk", flat=True)), rules])


def fingerprint_of_rule(rule: Rule) -> str:
    """Of one rule's values, wherever it stands."""
    return _hash([rule.rule_set_id, rule.key, values_of(rule)])


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


# Drafts


@transaction.atomic
def open_draft(*, project: Project, by: User | None) -> RuleSet:
    """The draft of a project: the one there is, or the next number with the published rules in it."""
    Project.objects.select_for_update().get(pk=project.pk)
    if draft := draft_of(project):
        return draft
    published = published_set(project)
    newest = project.rule_sets.aggregate(n=Max("number"))["n"] or 0
    draft = RuleSet.objects.create(project=project, number=newest + 1, created_by=by)
    if published:
        Rule.objects.bulk_create(
            Rule(rule_set=draft, key=rule.key, position=place, **values_of(rule))
            for place, rule in enumerate(published.rules.all(), start=1)
        )
    audit.record("rule_set.opened", project=project, actor=by, target=draft, number=draft.number)
    return draft


@transaction.atomic
def add_rule(*, draft: RuleSet, by: User | None, key: str = "", **values: Any) -> Rule:
    """A further rule at the end of a draft; its key follows from its name unless it is given.

    Raises  RuleRefused, RuleSetFrozen
    """
    draft = _editable(draft)
    found = checked(values)
    if draft.rules.count() >= MOST_RULES:
        raise RuleRefused({"name": f"A rule set has at most {MOST_RULES} rules. Remove one first."})
    _refuse_same_name(draft, found["name"])
    last = draft.rules.aggregate(n=Max("position"))["n"] or 0
    rule = Rule.objects.create(
        rule_set=draft, key=key or _fresh_key(draft.project, found["name"]), position=last + 1, **found
    )
    _note("rule.added", draft, rule, by)
    return rule


@transaction.atomic
def edit_rule(*, rule: Rule, by: User | None, seen: str = "", **values: Any) -> Rule:
    """Give a draft's rule other values; `seen` is the fingerprint of what the page showed.

    Raises  RuleRefused, RuleSetFrozen, RuleSetChanged
    """
    draft = _editable(rule.rule_set)
    rule = _as_seen(draft, rule, seen)
    before = values_of(rule)
    found = checked({**before, **values})
    _refuse_same_name(draft, found["name"], but=rule)
    changed = [name for name in FIELDS if found[name] != before[name]]
    if changed:
        for name in changed:
            setattr(rule, name, found[name])
        rule.save(update_fields=changed)
        _note("rule.changed", draft, rule, by, fields=changed)
    return rule


@transaction.atomic
def remove_rule(*, rule: Rule, by: User | None, seen: str = "") -> None:
    """Take a rule out of a draft; those after it move up. Judgements of the published one stay.

    Raises  RuleSetFrozen, RuleSetChanged
    """
    draft = _editable(rule.rule_set)
    rule = _as_seen(draft, rule, seen)
    _note("rule.removed", draft, rule, by, name=rule.name, wording=rule.wording)
    rule.delete()
    _renumber(list(draft.rules.all()))


@transaction.atomic
def bring_back(*, draft: RuleSet, key: str, by: User | None) -> Rule:
    """Put a published rule that was removed from a draft back at its end; the draft's own where it is there already.

    Raises  RuleSetFrozen, RuleSetChanged
    """
    draft = _editable(draft)
    if found := draft.rules.filter(key=key).first():
        return found
    published = published_set(draft.project)
    before = published.rules.filter(key=key).first() if published else None
    if before is None:
        raise RuleSetChanged("The published rules have none such any more. Add it anew if it is wanted.")
    _refuse_same_name(draft, before.name)
    rule = Rule.objects.create(rule_set=draft, key=key, position=draft.rules.count() + 1, **values_of(before))
    _note("rule.brought_back", draft, rule, by)
    return rule


@transaction.atomic
def move_rule(*, rule: Rule, steps: int, by: User | None) -> int:
    """Move a rule of a draft down by so many places, or up by a negative number; its position then.

    Raises  RuleSetFrozen, RuleSetChanged
    """
    draft = _editable(rule.rule_set)
    rule = _as_seen(draft, rule, "")
    order = list(draft.rules.all())
    place = order.index(rule)
    to = min(len(order) - 1, max(0, place + steps))
    order.insert(to, order.pop(place))
    if to != place:
        _renumber(order)
        _note("rule.moved", draft, rule, by, position=to + 1)
    return to + 1


@transaction.atomic
def reorder_rules(*, draft: RuleSet, keys: Sequence[str], by: User | None) -> None:
    """Put a draft's rules in this order.

    Raises  RuleSetChanged unless the keys are exactly those of the draft; RuleSetFrozen
    """
    draft = _editable(draft)
    by_key = {rule.key: rule for rule in draft.rules.all()}
    if sorted(keys) != sorted(by_key):
        raise RuleSetChanged(NEXT_SEES)
    _renumber([by_key[key] for key in keys])
    audit.record("rule_set.reordered", project=draft.project, actor=by, target=draft, keys=list(keys))


@transaction.atomic
def replace_rules(
    *, draft: RuleSet, rules: Sequence[tuple[str, Values]], by: User | None, note: str = "", source: str = ""
) -> None:
    """Give a draft these rules and no others, in this order: what a file holds, all of it or nothing.

    Raises  RuleRefused, RuleSetFrozen
    """
    draft = _editable(draft)
    tidy = [(key, checked(values)) for key, values in rules]
    draft.rules.all().delete()
    Rule.objects.bulk_create(
        Rule(rule_set=draft, key=key, position=place, **values) for place, (key, values) in enumerate(tidy, start=1)
    )
    if note:
        RuleSet.objects.filter(pk=draft.pk).update(note=note)
    audit.record("rule_set.replaced", project=draft.project, actor=by, target=draft, rules=len(tidy), source=source)


@transaction.atomic
def discard_draft(*, draft: RuleSet, by: User | None, seen: str = "") -> None:
    """Delete a draft with its rules. What is published stays as it is.

    Raises  RuleSetFrozen, RuleSetChanged
    """
    draft = _editable(draft)
    _refuse_unseen(draft, seen)
    audit.record(
        "rule_set.discarded", project=draft.project, actor=by, target=draft, number=draft.number,
        rules=[[rule.key, rule.name, rule.wording] for rule in draft.rules.all()],
    )  # fmt: skip
    draft.rules.all().delete()
    draft.delete()


def refuse_work_in_progress(draft: RuleSet) -> None:
    """Raises DraftInTheWay where a draft holds anything else than the published rules."""
    found = differences(draft, published_set(draft.project))
    if found.count:
        raise DraftInTheWay(
            f"Draft {draft.number} has {found.in_words()} that nobody published. Publish or discard it first."
        )


def _editable(draft: RuleSet) -> RuleSet:
    """The draft as it stands, held until the transaction ends."""
    found = RuleSet.objects.select_for_update(of=("self",)).select_related("project").filter(pk=draft.pk).first()
    if found is None or not found.is_draft:
        what = "discarded" if found is None else "published"
        raise RuleSetFrozen(f"Draft {draft.number} was {what} meanwhile, so nothing was changed. Open a new draft.")
    return found


def _as_seen(draft: RuleSet, rule: Rule, seen: str) -> Rule:
    found = draft.rules.filter(pk=rule.pk).first()
    if found is None:
        raise RuleSetChanged(f"“{rule.name}” was removed from the draft meanwhile. Add it anew if it is wanted.")
    if seen and seen != fingerprint_of_rule(found):
        raise RuleSetChanged(NEXT_SEES)
    return found


def _refuse_unseen(draft: RuleSet, seen: str) -> None:
    if seen and seen != fingerprint(draft):
        raise RuleSetChanged(NEXT_SEES)


def _refuse_same_name(draft: RuleSet, name: str, but: Rule | None = None) -> None:
    others = draft.rules.exclude(pk=but.pk) if but else draft.rules.all()
    if others.filter(name__iexact=name).exists():
        raise RuleRefused({"name": "Another rule of this draft has that name. Choose one that tells them apart."})


def _fresh_key(project: Project, name: str) -> str:
    """A key that no rule of any version has: a rule that is new has no history."""
    base = slugify(name)[: LONGEST["key"] - 4].strip("-_") or "rule"
    taken = set(Rule.objects.filter(rule_set__project=project, key__startswith=base).values_list("key", flat=True))
    return next(key for number in range(1, len(taken) + 2) if (key := _numbered(base, number)) not in taken)


def _numbered(base: str, number: int) -> str:
    return base if number == 1 else f"{base}-{number}"


def _renumber(order: Iterable[Rule]) -> None:
    for place, rule in enumerate(order, start=1):
        if rule.position != place:
            rule.position = place
            rule.save(update_fields=["position"])


def _note(action: str, draft: RuleSet, rule: Rule, by: User | None, **details: Any) -> None:
    audit.record(action, project=draft.project, actor=by, target=rule, rule_set=draft.number, key=rule.key, **details)


# Comparing


@dataclass(frozen=True)
class FieldChange:
    """One field of a rule before and after; what is gone is marked in `before`, what is new in `after`."""

    name: str
    before: list[Stretch]
    after: list[Stretch]

    @property
    def word(self) -> str:
        return FIELD_WORDS[self.name]


@dataclass(frozen=True)
class RuleChange:
    """A rule that both versions have, with other values."""

    before: Rule
    after: Rule
    fields: list[FieldChange]

    @property
    def asks(self) -> bool:
        """True where people judge by other words than before, so that somebody must say what that means."""
        return any(field.name in TEXT for field in self.fields)


@dataclass(frozen=True)
class Differences:
    """What a draft would change."""

    added: list[Rule]
    removed: list[Rule]
    changed: list[RuleChange]
    is_reordered: bool

    @property
    def count(self) -> int:
        return len(self.added) + len(self.removed) + len(self.changed) + int(self.is_reordered)

    @property
    def asking(self) -> list[RuleChange]:
        return [change for change in self.changed if change.asks]

    def in_words(self) -> str:
        """Such as `2 changed, 1 new, 1 removed`; empty where nothing differs."""
        counts = [(len(self.changed), "changed"), (len(self.added), "new"), (len(self.removed), "removed")]
        words = [f"{count} {word}" for count, word in counts if count]
        return ", ".join(words) or ("another order" if self.is_reordered else "")


def differences(draft: RuleSet, published: RuleSet | None) -> Differences:
    """What differs between a rule set and the one before it; a rule is the same by its key."""
    now = list(draft.rules.all())
    before = {rule.key: rule for rule in published.rules.all()} if published else {}
    keys = {rule.key for rule in now}
    pairs = [(before[rule.key], rule) for rule in now if rule.key in before]
    found = [change for old, new in pairs if (change := change_between(old, new))]
    return Differences(
        added=[rule for rule in now if rule.key not in before],
        removed=[rule for key, rule in before.items() if key not in keys],
        changed=found,
        is_reordered=[new.key for _, new in pairs] != [key for key in before if key in keys],
    )


def change_between(before: Rule, after: Rule) -> RuleChange | None:
    """What differs between two versions of a rule; None where nothing does."""
    changes = _changes(before, after)
    return RuleChange(before, after, changes) if changes else None


def _changes(before: Rule, after: Rule) -> list[FieldChange]:
    return [
        FieldChange(name, _gone(old, new), marked_words(old, new))
        for name in FIELDS
        if getattr(before, name) != getattr(after, name)
        for old, new in [(_written(before, name), _written(after, name))]
    ]


def _gone(before: str, after: str) -> list[Stretch]:
    return marked_words(after, before)


def _written(rule: Rule, name: str) -> str:
    """A field as it is read beside another version of itself."""
    value = getattr(rule, name)
    if name == "category":
        return rule.get_category_display()
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "\n".join(value) if isinstance(value, list) else str(value)


# Publishing


@transaction.atomic
def publish(
    *, draft: RuleSet, by: User | None, decisions: Mapping[str, str] | None = None, note: str = "", seen: str = ""
) -> RuleSet:
    """Freeze a draft as the rules in force; the ones before are retired.

    decisions  {key of a rule whose text changed: "wording" or "stale"}
    note       why, kept for ever; the draft's own note when it is empty
    seen       the fingerprint of the draft the page showed
    Raises     RuleSetFrozen, RuleSetChanged, RuleSetEmpty, RuleSetUnchanged, DecisionMissing
    """
    Project.objects.select_for_update(no_key=True).get(pk=draft.project_id)
    draft = _editable(draft)
    _refuse_unseen(draft, seen)
    published = published_set(draft.project)
    found = differences(draft, published)
    continued = _continued(draft, published, found, decisions or {})
    for rule, predecessor in continued:
        Rule.objects.filter(pk=rule.pk).update(continues=predecessor)
    _put_in_force(draft, published, by, note)
    moved, ended = judging_handed_over.hand_over(draft)
    audit.record(
        "rule_set.published", project=draft.project, actor=by, target=draft, number=draft.number,
        rules=draft.rules.count(), added=[rule.key for rule in found.added],
        removed=[rule.key for rule in found.removed],
        decisions={change.after.key: (decisions or {})[change.after.key] for change in found.asking},
        judging_moved=moved, judging_ended=ended,
    )  # fmt: skip
    draft.refresh_from_db()
    return draft


def _continued(
    draft: RuleSet, published: RuleSet | None, found: Differences, decisions: Mapping[str, str]
) -> list[tuple[Rule, Rule]]:
    """(rule, the one it continues) of every rule for which earlier judgements count."""
    if not draft.rules.exists():
        raise RuleSetEmpty("This draft has no rule. Add one, or discard the draft.")
    if published and not found.count:
        raise RuleSetUnchanged(f"Nothing differs from rule set {published.number}, so there is nothing to publish.")
    missing = [change.after for change in found.asking if decisions.get(change.after.key) not in DECISIONS]
    if missing:
        names = ", ".join(f"“{rule.name}”" for rule in missing)
        raise DecisionMissing(
            f"Say for {names} whether earlier judgements count, or the rule means something else now.",
            [rule.key for rule in missing],
        )
    before = {rule.key: rule for rule in published.rules.all()} if published else {}
    anew = {change.after.key for change in found.asking if decisions[change.after.key] == STALE}
    kept = [(rule, before[rule.key]) for rule in draft.rules.all() if rule.key in before and rule.key not in anew]
    return kept + _returning(draft, found.added)


def _returning(draft: RuleSet, added: list[Rule]) -> list[tuple[Rule, Rule]]:
    """(rule, the one it continues) of rules that were away and come back in the very words they had last."""
    earlier = Rule.objects.filter(rule_set__project=draft.project, key__in=[rule.key for rule in added])
    last = {rule.key: rule for rule in earlier.exclude(rule_set=draft).order_by("rule_set__number")}
    return [
        (rule, last[rule.key])
        for rule in added
        if rule.key in last and all(getattr(rule, name) == getattr(last[rule.key], name) for name in TEXT)
    ]


def _put_in_force(draft: RuleSet, published: RuleSet | None, by: User | None, note: str) -> None:
    now = timezone.now()
    if published:
        RuleSet.objects.filter(pk=published.pk).update(state=RuleSet.State.RETIRED, retired_at=now)
    RuleSet.objects.filter(pk=draft.pk).update(
        state=RuleSet.State.PUBLISHED, published_at=now, published_by=by, note=note.strip() or draft.note
    )
