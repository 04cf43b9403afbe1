"""A project's questions about replies: sets are added, opened and closed; other words are another version.

A scale is never changed: each answer keeps the words it was given to, and a page that is open asks what it showed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import IntegrityError, transaction
from django.forms.models import model_to_dict
from django.utils import timezone

from feedback import audit
from feedback.errors import ScaleRefused, ScaleSetInTheWay
from feedback.models import Project, Scale, ScaleSet, User
from feedback.scale_files import ScaleFile
from feedback.scale_texts import FIELDS, MOST_RATERS, Values, checked

MOST_READY = 500


@transaction.atomic
def add_set(*, project: Project, key: str, found: ScaleFile, by: User | None) -> ScaleSet:
    """A set of questions in a project, closed until somebody opens it. Raises ScaleSetInTheWay."""
    try:
        with transaction.atomic():
            scale_set = ScaleSet.objects.create(
                project=project,
                key=key,
                name=found.name,
                source=found.source,
                by_program=found.by_program,
                raters=found.raters,
            )
    except IntegrityError as err:
        raise ScaleSetInTheWay(f"{project.name} has the set “{key}” already. Change its words on its page.") from err
    now = timezone.now()
    Scale.objects.bulk_create(
        Scale(scale_set=scale_set, key=scale, position=position, asked_from=now, **values)
        for position, (scale, values) in enumerate(found.scales, start=1)
    )
    audit.record("scale_set.added", project=project, actor=by, target=scale_set, key=key, scales=len(found.scales))
    return scale_set


@transaction.atomic
def open_or_close(*, scale_set: ScaleSet, is_open: bool, by: User | None) -> None:
    """Have annotators asked from now on, or no more; what they hold they may still send.

    Raises  ScaleSetInTheWay for questions that a program answers
    """
    scale_set = _locked(scale_set)
    if is_open and scale_set.by_program:
        raise ScaleSetInTheWay("A program answers these questions, so nobody is asked.")
    if scale_set.is_open == is_open:
        return
    ScaleSet.objects.filter(pk=scale_set.pk).update(is_open=is_open)
    action = "scale_set.opened" if is_open else "scale_set.closed"
    audit.record(action, project=scale_set.project, actor=by, target=scale_set)


@transaction.atomic
def set_asking(*, scale_set: ScaleSet, raters: int, ready: int, by: User | None) -> None:
    """How many people rate the same reply, of what is asked for from now on, and how many replies are kept waiting.

    Raises  ScaleRefused
    """
    problems = {}
    if not 1 <= raters <= MOST_RATERS:
        problems["raters"] = f"1 to {MOST_RATERS} people can rate a reply."
    if not 0 <= ready <= MOST_READY:
        problems["ready"] = f"0 to {MOST_READY} replies can be kept waiting."
    if problems:
        raise ScaleRefused(problems)
    scale_set = _locked(scale_set)
    if (scale_set.raters, scale_set.ready) == (raters, ready):
        return
    ScaleSet.objects.filter(pk=scale_set.pk).update(raters=raters, ready=ready)
    audit.record("scale_set.changed", project=scale_set.project, actor=by, target=scale_set, raters=raters, ready=ready)


@transaction.atomic
def change_words(*, scale: Scale, words: Mapping[str, Any], options: Mapping[str, str], by: User | None) -> Scale:
    """Ask the same in other words from now on: another version. The same words are no version.

    words    of name, question, guidance, low_words, high_words those that change
    options  {value: words} of those that change
    Raises   ScaleRefused, ScaleSetInTheWay where another version is asked by now, or none
    """
    _locked(scale.scale_set)
    scale.refresh_from_db()
    if scale.asked_until is not None:
        raise ScaleSetInTheWay("Somebody has changed this question, or turned it off, since. Look at it again.")
    said = values_of(scale)
    changed = [{**one, "words": " ".join(options.get(one["value"], one["words"]).split())} for one in said["options"]]
    values = checked(said | dict(words) | {"options": changed}, _before(scale))
    if values == said:
        return scale
    return _next_version(scale, values, by, "scale.changed")


@transaction.atomic
def turn_off(*, scale: Scale, by: User | None) -> None:
    """Ask a question no more. Raises ScaleSetInTheWay for the last one of its set."""
    _locked(scale.scale_set)
    asked = Scale.objects.asked().filter(scale_set=scale.scale_set)
    if not asked.filter(pk=scale.pk).exists():
        return
    if asked.count() == 1:
        raise ScaleSetInTheWay("This is the last question of its set. Close the set instead.")
    Scale.objects.filter(pk=scale.pk).update(asked_until=timezone.now())
    audit.record("scale.turned_off", project=scale.scale_set.project, actor=by, target=scale)


@transaction.atomic
def turn_on(*, scale_set: ScaleSet, key: str, by: User | None) -> Scale | None:
    """Ask a question again, in the words it had last: as another version. None where there is nothing to turn on."""
    _locked(scale_set)
    newest = scale_set.scales.filter(key=key).order_by("-version").first()
    if newest is None or newest.asked_until is None:
        return newest
    return _next_version(newest, values_of(newest), by, "scale.turned_on")


def values_of(scale: Scale) -> Values:
    """What a question says, as a file or form would give it."""
    return model_to_dict(scale, fields=FIELDS)


def newest_scales(scale_set: ScaleSet) -> list[Scale]:
    """The newest version of every question a set has had, in order; those that are off too."""
    newest: dict[str, Scale] = {}
    for scale in scale_set.scales.order_by("position", "version"):
        newest[scale.key] = scale
    return sorted(newest.values(), key=lambda scale: (scale.position, scale.key))


def _before(scale: Scale) -> dict[str, Values]:
    """The questions before one in its set, also such as are off."""
    earlier = [one for one in newest_scales(scale.scale_set) if one.position < scale.position]
    return {one.key: values_of(one) for one in earlier}


def _next_version(scale: Scale, values: Values, by: User | None, action: str) -> Scale:
    now = timezone.now()
    Scale.objects.filter(pk=scale.pk, asked_until=None).update(asked_until=now)
    made = Scale.objects.create(
        scale_set=scale.scale_set,
        key=scale.key,
        version=scale.version + 1,
        position=scale.position,
        asked_from=now,
        **values,
    )
    audit.record(action, project=scale.scale_set.project, actor=by, target=made, key=made.key, version=made.version)
    return made


def _locked(scale_set: ScaleSet) -> ScaleSet:
    """The set as it is now; its questions change one after the other."""
    return ScaleSet.objects.select_for_update(no_key=True, of=("self",)).select_related("project").get(pk=scale_set.pk)
