"""What must never be among ratings; `invariants` runs these with the others."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import CharField, Count, F, OuterRef, Q, Subquery, Value
from django.db.models.functions import Cast, Coalesce, Concat

from feedback.models import Rating, Scale, WorkItem

Found = Iterator[tuple[str, str]]  # (target, what was found)


def ratings_are_their_holders() -> Found:
    """A rating was given by whoever holds its slot, of the reply and by the questions that the slot asks about."""
    own = Q(
        slot__annotator=F("annotator"),
        annotator_key=Concat(Value("u"), Cast("annotator_id", CharField())),
        slot__work_item__candidate=F("candidate"),
        slot__work_item__scale_set=F("scale__scale_set"),
    )
    people = Rating.objects.by_people()
    for rating in people.exclude(pk__in=people.filter(own).values("pk")):
        yield f"rating {rating.pk}", f"given by user {rating.annotator_id} in a slot or name not theirs"


def ratings_are_sent_whole() -> Found:
    """Each time somebody rates a reply they say something to every question that was asked when they took it."""
    then = Q(asked_until=None) | Q(asked_until__gt=OuterRef("slot__claimed_at"))
    asked = Scale.objects.filter(
        then, scale_set=OuterRef("slot__work_item__scale_set"), asked_from__lte=OuterRef("slot__claimed_at")
    )
    count = asked.order_by().values("scale_set").annotate(n=Count("pk")).values("n")
    sent = Rating.objects.by_people().annotate(asked=Coalesce(Subquery(count), 0))
    groups = sent.values("slot", "revision", "asked").annotate(n=Count("pk"))
    for row in groups.exclude(n=F("asked")):
        yield f"slot {row['slot']}", f"{row['n']} ratings of revision {row['revision']} for {row['asked']} questions"


def ratings_have_a_value_of_their_scale() -> Found:
    """What was answered is among the answers that the question has."""
    given = Rating.objects.order_by().values_list("scale", "value").distinct()
    scales = {scale.pk: scale for scale in Scale.objects.all()}
    for scale, value in given:
        if not scales[scale].takes(value):
            yield f"scale {scale}", f"somebody answered {value!r}"


def ratings_follow_from_earlier_ones() -> Found:
    """Where an earlier answer settles a question it was not asked, and has the value that follows; and only there."""
    earlier = Rating.objects.filter(
        slot=OuterRef("slot"), revision=OuterRef("revision"), scale__key=OuterRef("scale__asked_after")
    )
    rows = Rating.objects.by_people().annotate(before=Subquery(earlier.values("value")[:1]))
    for rating in rows.filter(Q(implied=True) | ~Q(scale__asked_after="")).select_related("scale").iterator():
        scale = rating.scale
        settled = rating.before is not None and rating.before not in scale.asked_values
        if rating.implied != settled or (settled and rating.value != scale.implied):
            yield f"rating {rating.pk}", f"{rating.value!r} after {rating.before!r}"


def counted_ratings_within_wanted() -> Found:
    """People whose rating of a reply counts are never more than were wanted."""
    counted = Rating.objects.counted().by_people().filter(slot__work_item__kind=WorkItem.Kind.RATE)
    items = counted.values("slot__work_item", "slot__work_item__wanted").annotate(n=Count("annotator", distinct=True))
    for row in items.filter(n__gt=F("slot__work_item__wanted")):
        yield (
            f"work item {row['slot__work_item']}",
            f"{row['n']} people's ratings count, {row['slot__work_item__wanted']} were wanted",
        )


CHECKS = [
    ratings_are_their_holders,
    ratings_are_sent_whole,
    ratings_have_a_value_of_their_scale,
    ratings_follow_from_earlier_ones,
    counted_ratings_within_wanted,
]
