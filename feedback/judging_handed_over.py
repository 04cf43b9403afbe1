"""What waits to be judged follows the rules that are published: asked by their words, or by none where one is gone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet

from feedback import rule_lineage, work_items
from feedback.models import Dialogue, Project, Rule, RuleSet, Slot, WorkItem


def hand_over_what_returned(project: Project) -> int:
    """Ask by the rules in force what came back to a retired one: it lapsed, was skipped, or its answer was taken back.

    Returns how many questions; run again, it finds none.
    """
    came_back = Slot.objects.filter(work_item=OuterRef("pk"), state=Slot.State.FREE)
    if not _by_retired_rules(project).filter(Exists(came_back)).exists():
        return 0
    with transaction.atomic():
        Project.objects.select_for_update(no_key=True).get(pk=project.pk)  # not while somebody publishes
        published = RuleSet.objects.filter(project=project, state=RuleSet.State.PUBLISHED).first()
        return sum(hand_over(published)) if published is not None else 0


def _by_retired_rules(project: Project) -> QuerySet[WorkItem]:
    """What judges are asked by rules that are not in force any more, besides blind sets."""
    items = WorkItem.objects.filter(
        project=project, kind=WorkItem.Kind.JUDGE, closed_at=None, rule__rule_set__state=RuleSet.State.RETIRED
    )
    return items.exclude(dialogue__kind=Dialogue.Kind.EVALUATION)


def hand_over(published: RuleSet) -> tuple[int, int]:
    """(how many questions are asked by the new words, how many are asked no more) of those that wait to be judged.

    A question moves where the rule goes on, whatever its words are now: so what may appear is said as the new version
    says it. Where the rule means something else or is gone, its answer would count for nothing. What somebody has in
    hand stays theirs, in the words they read; should it come back, the sweep hands it over. A blind set stays as it was
    asked: it is one measure.
    """
    by_pk = {rule.pk: rule for rule in published.rules.select_related("rule_set")}
    standing = rule_lineage.heads(published.project)
    unanswered = Slot.objects.filter(work_item=OuterRef("pk"), state__in=[Slot.State.FREE, Slot.State.HELD])
    waiting = _by_retired_rules(published.project).filter(Exists(unanswered))
    about = Dialogue.objects.filter(pk__in=waiting.values("dialogue"))
    list(about.select_for_update(no_key=True).order_by("pk").values_list("pk"))  # not while a manager asks once more
    asked: dict[tuple[int, int], list[WorkItem]] = defaultdict(list)
    ended = 0
    for item in waiting.select_for_update(no_key=True, of=("self",)).order_by("pk"):
        now = by_pk.get(standing[item.rule_id or 0])
        if now is None:
            work_items.close_work(
                item, because=f"rule set {published.number} has this rule no more, or means something else"
            )
            ended += 1
        elif item.slots.filter(state=Slot.State.FREE).exists():
            asked[item.dialogue_id or 0, now.pk].append(item)
    for (_, rule), items in asked.items():
        _ask_anew(items, by_pk[rule])
    return len(asked), ended


def _ask_anew(items: Sequence[WorkItem], rule: Rule) -> None:
    """Ask by a rule in force what items about one dialogue and earlier versions of that rule still want of anybody."""
    because = f"asked by the words of rule set {rule.rule_set.number}"
    given_up = [work_items.give_up_free(item, because=because) for item in items]
    wanted, added = sum(free for free, _ in given_up), sum(on_top for _, on_top in given_up)
    if not wanted:  # somebody answered late at this instant
        return
    work_items.open_more(
        project=items[0].project, kind=items[0].kind, dialogue_id=items[0].dialogue_id, rule=rule, wanted=wanted,
        added=added, priority=max(item.priority for item in items),
    )  # fmt: skip
