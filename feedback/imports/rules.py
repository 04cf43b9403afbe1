"""Which rules of a project the judgements of a file belong to; a project without rules is given the file's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from django.db import transaction

from feedback import rule_sets
from feedback.errors import FeedbackError, ImportRefused
from feedback.imports.records import WantedRule
from feedback.models import Project, Rule, RuleSet, User
from feedback.rule_texts import MOST_RULES

Chosen = Mapping[str, str]  # {what a file calls a rule: key of the project's rule in force that is meant}
Wanted = Mapping[str, WantedRule]  # {mark: rule}


def refuse_unknown(project: Project | None, wanted: Wanted, chosen: Chosen) -> None:
    """Raises ImportRefused when the rules a file speaks of are neither there nor can be made. Writes nothing."""
    names = {rule.name for rule in wanted.values()}
    if strange := sorted(set(chosen) - names):
        known = f"It speaks of {_listed(names)}" if names else "These files judge by no rule"
        raise ImportRefused(f"No rule of the file is called {strange[0]!r}. {known}. Nothing was imported.")
    missing = _missing(project, wanted, chosen)
    if missing:
        _refuse_if_not_makable(project, missing, chosen)


@transaction.atomic
def settle(project: Project, wanted: Wanted, chosen: Chosen, by: User | None, source: str) -> dict[str, int]:
    """{mark: id of the rule}; a project that never had rules gets those of the file, published.

    Raises  ImportRefused
    """
    missing = _missing(project, wanted, chosen)
    if missing:
        _refuse_if_not_makable(project, missing, chosen)
        _publish(project, missing, by, source)
    return {mark: rule.pk for mark, rule in _found(project, wanted.values(), chosen).items()}


def _missing(project: Project | None, wanted: Wanted, chosen: Chosen) -> list[WantedRule]:
    found = _found(project, wanted.values(), chosen) if project else {}
    return [rule for mark, rule in wanted.items() if mark not in found]


def _found(project: Project, wanted: Iterable[WantedRule], chosen: Chosen) -> dict[str, Rule]:
    """{mark: rule} of those that the project has; in a version that was published, the newest that fits."""
    frozen = Rule.objects.filter(rule_set__project=project).exclude(rule_set__state=RuleSet.State.DRAFT)
    rules = list(frozen.select_related("rule_set").order_by("-rule_set__number", "position"))
    pairs = ((one, _of(one, rules, chosen)) for one in wanted)
    return {one.mark: rule for one, rule in pairs if rule is not None}


def _of(wanted: WantedRule, rules: list[Rule], chosen: Chosen) -> Rule | None:
    key = chosen.get(wanted.name, wanted.key)
    by_words = wanted.wording and wanted.name not in chosen
    fitting = (
        rule
        for rule in rules
        if (not key or rule.key == key)
        and (rule.wording == wanted.wording if by_words else rule.rule_set.state == RuleSet.State.PUBLISHED)
    )
    return next(fitting, None)


def _refuse_if_not_makable(project: Project | None, missing: list[WantedRule], chosen: Chosen) -> None:
    names = _listed(rule.name for rule in missing)
    if project is not None and project.rule_sets.exists():
        published = rule_sets.published_set(project)
        known = _listed(published.rules.values_list("key", flat=True)) if published else ""
        here = f"The rules in force here are {known}" if known else "No rules are in force here yet: publish the draft"
        raise ImportRefused(
            f"{project.name} has no rule for {names}. {here}. Say which is meant with "
            f"--rule {missing[0].name}=KEY, or publish the missing ones first. Nothing was imported."
        )
    if chosen:
        raise ImportRefused("There are no rules here yet that --rule could mean. Leave it out. Nothing was imported.")
    whole = [rule for rule in missing if rule.values is not None]
    vague = [rule.name for rule in missing if not any(_is_meant(rule, one) for one in whole)]
    if vague:
        raise ImportRefused(
            f"There are no rules here yet, and the file does not say enough of {_listed(vague)} to make them: key, "
            "name, category and wording are needed. Publish rules first, or add the fields. Nothing was imported."
        )
    keys = [rule.key for rule in whole]
    if twin := next((key for key in keys if keys.count(key) > 1), None):
        raise ImportRefused(
            f"The file gives the rule {twin!r} two wordings, and a rule set has one. Publish one after the other here "
            "first, or give one another key. Nothing was imported."
        )
    if len(whole) > MOST_RULES:
        raise ImportRefused(f"The files speak of {len(whole)} rules; {MOST_RULES} is the most. Nothing was imported.")


def _is_meant(rule: WantedRule, whole: WantedRule) -> bool:
    """Whether what a file says of a rule fits one of which it says all."""
    return rule.key in ("", whole.key) and rule.wording in ("", whole.wording, (whole.values or {})["wording"])


def _publish(project: Project, missing: list[WantedRule], by: User | None, source: str) -> None:
    rules = [(rule.key, rule.values) for rule in missing if rule.values is not None]
    try:
        draft = rule_sets.open_draft(project=project, by=by)
        rule_sets.replace_rules(draft=draft, rules=rules, by=by, source=source)
        rule_sets.publish(draft=draft, by=by, note=f"Came with an import of {source}.")
    except FeedbackError as err:
        raise ImportRefused(f"The rules of the file cannot be published: {err.message} Nothing was imported.") from err


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"“{name[:60]}”" for name in sorted(set(names)))
