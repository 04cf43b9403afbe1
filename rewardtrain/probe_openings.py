"""Where people tried to have a rule broken: what they said, cut where the model answered, and the rule. No torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from feedback.models import Dialogue, Project, Rule, RuleSet
from rewardtrain.chat import Turn, as_turns
from rewardtrain.rule_term import ProbeOpening

AT_ONCE = 500  # dialogues looked up together: databases take only so many values in one question
ANSWERS = ("assistant", "search_query")

Cut = tuple[int, int]
"""A dialogue and how many of its messages are the opening. Turns are never changed, so it stays the same opening."""


def rules_in_force(project: Project) -> list[Rule]:
    """The rules of the published set that count in a reward, in their order."""
    counting = Rule.objects.filter(rule_set__project=project, rule_set__state=RuleSet.State.PUBLISHED, weight__gt=0)
    return list(counting.order_by("position"))


def probe_cuts(project: Project, split: str, rules: Sequence[Rule]) -> list[Cut]:
    """Every place where the model answered a probe of one of these rules, each opening once for each rule it probes.

    split  on which side of it the dialogue's prompt lies
    """
    keys = {rule.key for rule in rules}
    found = Dialogue.objects.filter(project=project, probe__rule__key__in=keys, prompt__group__split=split)
    cuts: dict[str, Cut] = {}
    for dialogue in found.select_related("probe__rule").prefetch_related("turns").order_by("pk").iterator(AT_ONCE):
        turns = as_turns(dialogue.messages())
        for end in _answered(turns):
            cuts.setdefault(repr((dialogue.probe.rule.key, turns[:end])), (dialogue.pk, end))
    return list(cuts.values())


def _answered(turns: Sequence[Turn]) -> Iterator[int]:
    """How many messages there are up to each of a person's that the model answered."""
    for end in range(1, len(turns)):
        if turns[end - 1]["role"] == "user" and turns[end]["role"] in ANSWERS:
            yield end


def openings_at(cuts: Collection[Cut]) -> list[ProbeOpening]:
    """The openings that `probe_cuts` found, in their order."""
    wanted = sorted({pk for pk, _ in cuts})
    known: dict[int, tuple[list[Turn], str]] = {}
    for start in range(0, len(wanted), AT_ONCE):
        some = Dialogue.objects.filter(pk__in=wanted[start : start + AT_ONCE])
        for dialogue in some.select_related("probe__rule").prefetch_related("turns"):
            known[dialogue.pk] = as_turns(dialogue.messages()), dialogue.probe.rule.key
    return [ProbeOpening(known[pk][0][:end], known[pk][1]) for pk, end in cuts]
