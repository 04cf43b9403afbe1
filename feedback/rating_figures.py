"""What is said of replies, scale by scale: how many answers, which, how far people agree, and of which policy.

Each version of a question has figures of its own: answers to other words are answers to another question. Values that
follow from an earlier answer count like given ones, as LaMDA has it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from feedback.agreement import Alpha, Share, alpha_of
from feedback.models import ModelVersion, Project, Rating, Scale, ScaleSet
from feedback.models.ratings import BETWEEN_FLAGS
from feedback.scale_sets import newest_scales

FEW_UNITS = 10  # replies that two people rated, below which alpha says nothing yet
FLAGS, NUMBERS = Scale.Kind.FLAGS, Scale.Kind.NUMBERS
Units = dict[int, list[str]]  # {reply: the values it was given}


@dataclass(frozen=True)
class ValueShare:
    """One value, how many gave it, and what share of the answers that is; of flags, of those that might have held."""

    value: str
    words: str
    share: Share


@dataclass(frozen=True)
class Agreed:
    """How far people agree on a scale; of flags on each by itself."""

    words: str
    alpha: Alpha

    @property
    def has_few_units(self) -> bool:
        return self.alpha.units < FEW_UNITS


@dataclass(frozen=True)
class OfPolicy:
    """What is said of one policy's replies.

    speaking_for  the share of answers that speak for the reply; of numbers nothing
    mean          of numbers
    positive      of the replies that enough people rated, those called positive by the scale's rule of votes
    """

    policy: str
    answers: int
    replies: int
    values: list[ValueShare]
    speaking_for: Share | None
    mean: float | None
    positive: Share | None


@dataclass(frozen=True)
class Figures:
    """One scale and what was answered to it."""

    scale: Scale
    answers: int
    implied: int
    replies: int
    raters: int
    values: list[ValueShare]
    agreement: list[Agreed]
    policies: list[OfPolicy]
    earlier_answers: int  # to other versions of the question

    @property
    def is_asked(self) -> bool:
        return self.scale.asked_until is None


def figures_of(scale_set: ScaleSet) -> list[Figures]:
    """The newest version of each question of a set, in order, with its figures."""
    scales = newest_scales(scale_set)
    rows = Rating.objects.counted().filter(scale__scale_set=scale_set)
    columns = ("scale", "scale__key", "candidate", "value", "implied", "annotator_key", "candidate__model_version")
    answers: dict[int, list[tuple[int, str, bool, str, int | None]]] = defaultdict(list)
    by_key: Counter[str] = Counter()
    for scale, key, candidate, value, implied, rater, version in rows.values_list(*columns):
        answers[scale].append((candidate, value, implied, rater, version))
        by_key[key] += 1
    names = _policy_names(scale_set.project)
    return [_figures(scale, answers[scale.pk], by_key[scale.key], names) for scale in scales]


def _figures(
    scale: Scale, answers: Sequence[tuple[int, str, bool, str, int | None]], of_key: int, names: Mapping[int, str]
) -> Figures:
    units: Units = defaultdict(list)
    by_policy: dict[int | None, Units] = defaultdict(lambda: defaultdict(list))
    for candidate, value, _, _, version in answers:
        units[candidate].append(value)
        by_policy[version][candidate].append(value)
    return Figures(
        scale=scale,
        answers=len(answers),
        implied=sum(implied for _, _, implied, _, _ in answers),
        replies=len(units),
        raters=len({rater for _, _, _, rater, _ in answers}),
        values=value_shares(scale, [value for _, value, _, _, _ in answers]),
        agreement=agreement_on(scale, units.values()),
        policies=[_of_policy(scale, names.get(pk or 0, "elsewhere"), by_policy[pk]) for pk in _in_order(by_policy)],
        earlier_answers=of_key - len(answers),
    )


def _in_order(by_policy: Mapping[int | None, Units]) -> list[int | None]:
    """The newest policy first, last what no policy of the project wrote."""
    return sorted(by_policy, key=lambda pk: -(pk or 0))


def _policy_names(project: Project) -> dict[int, str]:
    return {version.pk: str(version) for version in ModelVersion.objects.filter(project=project)}


def value_shares(scale: Scale, values: Sequence[str]) -> list[ValueShare]:
    """How often each value was given; flags are counted each by itself."""
    held = [one for value in values for one in (value.split(BETWEEN_FLAGS) if scale.kind == FLAGS else [value])]
    counts = Counter(held)
    return [ValueShare(value, words, Share(counts[value], len(values))) for value, words in scale.choices]


def agreement_on(scale: Scale, units: Iterable[Sequence[str]]) -> list[Agreed]:
    """Krippendorff's alpha: ordinal for numbers, nominal for choices, and nominal for each flag by itself.

    units  the values that different people gave to each reply
    """
    found = [list(values) for values in units]
    codes = {value: place for place, (value, _) in enumerate(scale.choices)}
    if scale.kind != FLAGS:
        coded = [[codes[value] for value in values] for values in found]
        return [Agreed("", alpha_of(coded, is_ordered=scale.kind == NUMBERS))]
    return [
        Agreed(words, alpha_of([[int(flag in value.split(BETWEEN_FLAGS)) for value in values] for values in found],
                               is_ordered=False))
        for flag, words in scale.choices
    ]  # fmt: skip


def _of_policy(scale: Scale, policy: str, units: Units) -> OfPolicy:
    values = [value for given in units.values() for value in given]
    speaks = Share(sum(value in scale.positive for value in values), len(values)) if scale.positive else None
    mean = fmean(int(value) for value in values) if scale.kind == NUMBERS and values else None
    shares = value_shares(scale, values)
    return OfPolicy(policy, len(values), len(units), shares, speaks, mean, positive_replies(scale, units.values()))


def positive_replies(scale: Scale, units: Iterable[Sequence[str]]) -> Share | None:
    """The share of replies that are positive by the scale's rule of votes; None where it has none.

    Of so many raters so many must speak for a reply. Where more people rated it, the same share of them must; replies
    that fewer rated are left out.
    Source  Thoppilan et al. 2022, arXiv:2201.08239, section 4.1: of five raters three; for safety, of three two
    """
    if scale.positive_votes is None or scale.positive_raters is None:
        return None
    enough = [given for given in units if len(given) >= scale.positive_raters]
    return Share(sum(_is_positive(scale, given) for given in enough), len(enough))


def _is_positive(scale: Scale, given: Sequence[str]) -> bool:
    votes = sum(value in scale.positive for value in given)
    return votes * (scale.positive_raters or 1) >= (scale.positive_votes or 1) * len(given)
