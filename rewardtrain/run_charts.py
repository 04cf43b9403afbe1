"""A run's figures as charts, the round before it behind each, and its best paid samples. Reads rows only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from feedback import charts
from feedback.templatetags.shares import percent, signed
from rewardtrain.models import LedgerEntry, MetricPoint, TrainingRun
from rewardtrain.round_settings import gate_of

BEST_PAID_STEPS = 10
BEST_PAID = 4
FAR_BELOW = 0.35  # a line that stays below so much of its bound is drawn without it, or it would be flat
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class RunChart:
    """One figure over the steps of a run, as the tag `line_chart` takes it."""

    title: str
    value: str
    unit: str
    points: Points
    before: Points
    low: float
    high: float
    steps: int
    bound: float | None = None
    bound_name: str = ""


@dataclass(frozen=True)
class PaidSample:
    """A sample of a training with what each term paid for it."""

    response: str
    prompt: str
    terms: list[str]  # in the order of `BestPaid.names`
    kl_nats: str
    reward: str


@dataclass(frozen=True)
class BestPaid:
    """The samples with the highest reward in the last steps of a run."""

    names: list[str]  # the terms that paid or cost anything
    samples: list[PaidSample] = field(default_factory=list)


def charts_of(run: TrainingRun, earlier: TrainingRun | None = None) -> list[RunChart]:
    """The four charts of a policy, or the two of a reward model; none for a run that has no figures."""
    wanted = POLICY_NAMES if run.kind == TrainingRun.Kind.POLICY else REWARD_NAMES
    series = _series([run.pk, *([earlier.pk] if earlier else [])], wanted)
    own = {name: series[run.pk, name] for name in wanted}
    before = {name: series[earlier.pk, name] if earlier else [] for name in wanted}
    if not any(own.values()):
        return []
    steps = max(run.steps_total, 1)
    if run.kind == TrainingRun.Kind.POLICY:
        return _policy_charts(run, own, before, steps)
    return _reward_charts(own, before, steps)


POLICY_NAMES = ("ppo/preference", "ppo/kl_nats", "ppo/length", "ppo/entropy")
REWARD_NAMES = ("reward/loss", "reward/pair_accuracy")


def _series(runs: Sequence[int], names: Sequence[str]) -> dict[tuple[int, str], Points]:
    found: dict[tuple[int, str], Points] = defaultdict(list)
    points = MetricPoint.objects.filter(run__in=runs, name__in=names).order_by("step")
    for run, name, step, value in points.values_list("run", "name", "step", "value"):
        found[run, name].append((step, value))
    return found


def _policy_charts(run: TrainingRun, own: dict[str, Points], before: dict[str, Points], steps: int) -> list[RunChart]:
    gate = gate_of(run.round.hyperparameters if run.round else {})
    policy = str(run.parent) if run.parent else "the policy before"
    longest = own["ppo/length"][0][1] * (1 + gate.most_length_change) if own["ppo/length"] else None
    at_most = f"gate near {longest:.0f}" if longest else ""
    return [
        _chart("Preference reward", "ppo/preference", own, before, steps, value=signed),
        _chart(
            f"KL from {policy}", "ppo/kl_nats", own, before, steps, unit="nats", value="{:.1f}".format, floor=0.0,
            bound=gate.most_kl_nats, bound_name=f"gate at {gate.most_kl_nats:g}",
        ),
        _chart(
            "Reply length", "ppo/length", own, before, steps, unit="tokens", value="{:.0f}".format,
            bound=longest, bound_name=at_most,
        ),
        _chart("Entropy", "ppo/entropy", own, before, steps, unit="nats a token", value="{:.2f}".format),
    ]  # fmt: skip


def _reward_charts(own: dict[str, Points], before: dict[str, Points], steps: int) -> list[RunChart]:
    return [
        _chart("Loss", "reward/loss", own, before, steps, value="{:.3f}".format),
        _chart("Training pairs in order", "reward/pair_accuracy", own, before, steps, value=percent),
    ]


def _chart(
    title: str,
    name: str,
    own: dict[str, Points],
    before: dict[str, Points],
    steps: int,
    *,
    value,
    unit: str = "",
    floor: float | None = None,
    bound: float | None = None,
    bound_name: str = "",
) -> RunChart:
    points, behind = own[name], before[name]
    drawn = [y for _, y in (*points, *behind)]
    if bound is not None and max(drawn, default=0.0) < FAR_BELOW * bound:
        unit, bound, bound_name = f"of {bound:.3g} {unit}", None, ""
    drawn += [] if bound is None else [bound]
    low, high = charts.axis_ends(drawn, lowest=floor)
    last = value(points[-1][1]) if points else "–"
    longest = int(max([steps, *(x for x, _ in behind)]))
    return RunChart(title, last, unit, points, behind, low, high, longest, bound, bound_name)


def smaller_figures(run: TrainingRun) -> list[tuple[str, str]]:
    """What is worth a line below the charts of a policy: (name, newest value)."""
    names = {"ppo/clip_fraction": "clip fraction", "ppo/value_loss": "value loss", "ppo/kl_coef": "KL weight",
             "dpo/loss": "loss", "dpo/accuracy": "pairs in order", "best-of-n/loss": "loss"}  # fmt: skip
    newest = MetricPoint.objects.filter(run=run, name__in=names, step=run.steps_done).values_list("name", "value")
    values = dict(newest)
    words = {"ppo/clip_fraction": percent, "dpo/accuracy": percent}
    return [(names[name], words.get(name, "{:.3g}".format)(values[name])) for name in names if name in values]


def best_paid(run: TrainingRun, steps: int = BEST_PAID_STEPS, most: int = BEST_PAID) -> BestPaid:
    """The samples with the highest reward in the last steps of a run: what the reward praises is read, not guessed."""
    recent = LedgerEntry.objects.filter(run=run, step__gt=run.steps_done - steps)
    entries = list(recent.order_by("-reward", "-step", "index")[:most])
    paying = {name: None for entry in entries for name, value in entry.terms.items() if value}
    names = sorted(paying, key=lambda name: (name != "preference", name))[:3]
    samples = [
        PaidSample(
            response=entry.response,
            prompt=next((turn["content"] for turn in reversed(entry.prompt) if turn["role"] == "user"), ""),
            terms=[signed(entry.terms.get(name), 1) for name in names],
            kl_nats=f"{entry.kl_nats:.1f}",
            reward=signed(entry.reward, 1),
        )
        for entry in entries
    ]
    return BestPaid([term_word(name) for name in names], samples)


TERM_WORDS = {
    "preference": "Pref.",
    "length_penalty": "Length",
    "malformed_penalty": "Malformed",
    "repetition_penalty": "Repeats",
}


def term_word(name: str) -> str:
    """What heads the column of a term."""
    return TERM_WORDS.get(name, name.replace("_", " ").capitalize())


def earlier_run(run: TrainingRun) -> TrainingRun | None:
    """The run of the same kind in the newest round before, whose line is drawn behind."""
    if run.round is None:
        return None
    older = TrainingRun.objects.filter(project=run.project, kind=run.kind, round__number__lt=run.round.number)
    return older.filter(state="done").select_related("round").order_by("-round__number").first()
