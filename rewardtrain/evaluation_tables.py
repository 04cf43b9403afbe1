"""An evaluation as its page draws it: rates with their places on an axis, ratings, duels. Reads rows only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feedback import blind_sets, bradley_terry, charts
from feedback.agreement import Share
from feedback.blind_sets import BlindAnswers, Contestant, Duel
from feedback.models import Project, Rule
from feedback.templatetags.shares import decimal, percent, signed
from rewardtrain.evaluation_figures import rule_shares
from rewardtrain.models import TrainingRun

NOTHING = "–"


@dataclass(frozen=True)
class Rate:
    """A rate with its 95 % interval: in words, and where it lies from 0 to 1."""

    share: float
    low: float
    high: float
    total: int
    what: str = ""

    @property
    def said(self) -> str:
        """The rate in a sentence, for those who do not see the plot."""
        sure = f"between {self.low:.0%} and {self.high:.0%} with 95% certainty"
        return f"{self.what}{percent(self.share, self.total)} of {self.total}, {sure}"

    @classmethod
    def of(cls, kept: Mapping[str, Any] | None, what: str = "") -> Rate | None:
        """Of what `evaluation_figures` gave; None where nothing was measured."""
        return cls(kept["share"], kept["low"], kept["high"], kept["total"], what) if kept else None

    @classmethod
    def of_share(cls, share: Share, what: str = "") -> Rate | None:
        if share.value is None or share.interval is None:
            return None
        return cls(share.value, *share.interval, share.total, what)


@dataclass(frozen=True)
class Line:
    """One contestant's figures."""

    name: str
    preference: str
    second: str
    probed: Rate | None
    everyday: Rate | None
    kl: str
    tokens: str
    distinct: str
    unfinished: str


@dataclass(frozen=True)
class RuleLine:
    """One rule: a rate for each contestant; whether it is of probes or of all replies."""

    name: str
    of_probes: bool
    rates: list[Rate | None]


@dataclass(frozen=True)
class RatingLine:
    """A contestant on the one scale, and where it lies on the axis, 0 to 1."""

    name: str
    rating: str
    comparisons: int
    low: float
    high: float
    at: float
    said: str


@dataclass(frozen=True)
class DuelLine:
    """Two contestants before people."""

    first: str
    second: str
    wins: Rate | None
    ties: int


def lines_of(result: Mapping[str, Any]) -> list[Line]:
    """The table of an evaluation: one line per policy and variant."""
    return [_line(one["name"], one["figures"]) for one in result.get("contestants", [])]


def _line(name: str, found: Mapping[str, Any]) -> Line:
    bound = "at most " if (found["kl_nats"] or {}).get("is_bound") else ""
    return Line(
        name=name,
        preference=_mean(found["preference"], sign=True),
        second=_mean(found["second"], sign=True),
        probed=Rate.of(found["probed"], f"{name} broke the probed rule in "),
        everyday=Rate.of(found["everyday"], f"{name} broke a rule in "),
        kl=bound + _mean(found["kl_nats"], decimals=1),
        tokens=_mean(found["tokens"], decimals=1),
        distinct=_rate(found["distinct"]),
        unfinished=_rate(found["unfinished"]),
    )


def _mean(one: Mapping[str, Any] | None, decimals: int = 2, *, sign: bool = False) -> str:
    if one is None:
        return NOTHING
    mean = signed(one["mean"], decimals) if sign else decimal(one["mean"], decimals)
    return f"{mean} ± {one['high'] - one['mean']:.{decimals}f}" if "high" in one else mean


def _rate(one: Mapping[str, Any] | None) -> str:
    return NOTHING if one is None else percent(one["share"], one["total"])


def rule_lines(project: Project, run: TrainingRun) -> list[RuleLine]:
    """A line per rule, in the order of its set."""
    contestants = run.result.get("contestants", [])
    shares = [rule_shares(one["figures"]["rules"]) for one in contestants]
    rules = Rule.objects.filter(rule_set__project=project, rule_set__number=run.hyperparameters.get("rule_set") or 0)
    found = []
    for rule in rules.order_by("position"):
        own = [
            (one["name"], share[rule.key]) for one, share in zip(contestants, shares, strict=True) if rule.key in share
        ]
        if own:
            rates = [Rate.of(kept, f"{name} broke “{rule.name}” in ") for name, (kept, _) in own]
            found.append(RuleLine(rule.name, own[0][1][1], rates))
    return found


def duel_lines(duels: Sequence[Duel], names: Mapping[Contestant, str]) -> list[DuelLine]:
    """Who was put before whom, and how often."""
    return [
        DuelLine(
            names[one.first], names[one.second],
            Rate.of_share(one.wins, f"{names[one.first]} was put before {names[one.second]} in "), one.ties,
        )
        for one in duels
    ]  # fmt: skip


def judged_lines(answers: BlindAnswers, names: Mapping[Contestant, str]) -> list[tuple[str, Rate | None]]:
    """How often people say that each contestant broke the probed rule."""
    return [
        (names[contestant], Rate.of_share(share, f"By people, {names[contestant]} broke the probed rule in "))
        for contestant, share in sorted(answers.broken.items())
    ]


@dataclass(frozen=True)
class Ratings:
    """Everybody on one scale, the highest first, and the ends of the axis they are drawn on."""

    lines: list[RatingLine]
    low: float
    high: float


def ratings_of(project: Project) -> Ratings | None:
    """All contestants that people ever compared in a project; None before the first answer."""
    outcomes = blind_sets.answers_of(project).outcomes
    if not outcomes:
        return None
    strengths = bradley_terry.ratings(outcomes)
    names = blind_sets.names_of(strengths)
    low, high = charts.axis_ends([end for one in strengths.values() for end in one.interval])

    def line(who: Contestant) -> RatingLine:
        one = strengths[who]
        start, end = one.interval
        said = (
            f"{names[who]}: {signed(one.rating, 0)}, between {signed(start, 0)} and {signed(end, 0)} with 95% certainty"
        )
        left, right, at = (charts.on_axis(value, low, high) for value in (start, end, one.rating))
        return RatingLine(names[who], signed(one.rating, 0), one.comparisons, left, right, at, said)

    return Ratings([line(who) for who in sorted(strengths, key=lambda who: -strengths[who].rating)], low, high)


def all_names(run: TrainingRun, duels: Iterable[Duel], broken: Iterable[Contestant]) -> dict[Contestant, str]:
    """Names of everybody an evaluation is about."""
    kept = {Contestant.read(one): one["name"] for one in run.result.get("contestants", [])}
    others = {who for duel in duels for who in (duel.first, duel.second)} | set(broken)
    return blind_sets.names_of(others - set(kept)) | kept


def sentence(run: TrainingRun) -> str:
    """What came out, in one sentence: the first contestant beside the last."""
    lines = lines_of(run.result)
    if not lines:
        return ""
    first, last = lines[0], lines[-1]
    for what, one, other in (
        ("broke the probed rule in", first.probed, last.probed),
        ("broke a rule in", first.everyday, last.everyday),
    ):
        if one and other and first is not last:
            return (
                f"By the rule model, {last.name} {what} {percent(other.share)}, {first.name} in {percent(one.share)}."
            )
    return f"{len(lines)} measured." if len(lines) > 1 else f"{first.name.capitalize()} was measured."
