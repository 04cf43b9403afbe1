"""A run's figures as charts and as a table, the run before behind each, and its best paid samples. Reads rows only."""

from __future__ import annotations

from dataclasses import dataclass, field

from feedback import charts
from feedback.templatetags.shares import percent, signed
from rewardtrain import run_figures
from rewardtrain.models import LedgerEntry, MetricPoint, TrainingRun
from rewardtrain.round_settings import gate_of
from rewardtrain.run_figures import (
    CLIPPED,
    CLIPPED_REPLIES,
    GRADIENT,
    KL,
    LENGTH,
    LOWEST,
    RATE,
    SFT_GRADIENT,
    SFT_RATE,
    VALUE_LOSS,
    Figure,
    Points,
    in_order,
    name_of,
    plain,
    term_word,
)

BEST_PAID_STEPS = 10
BEST_PAID = 4
FAR_BELOW = 0.35  # a line that stays below so much of its bound is drawn without it, or it would be flat
AT_A_GLANCE_WITHOUT = (
    LOWEST,
    CLIPPED,
    CLIPPED_REPLIES,
    VALUE_LOSS,
    RATE,
    GRADIENT,
    SFT_RATE,
    SFT_GRADIENT,
)  # to see them one opens the run
MOST_ROWS = 100


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
    words: str = ""
    note: str = ""


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


@dataclass(frozen=True)
class StepTable:
    """The figures of a run's steps as numbers, newest step first.

    every  one step in so many stands there
    rows   (step, values in the order of the heads)
    """

    heads: list[str]
    rows: list[tuple[int, list[str]]]
    every: int


def charts_of(run: TrainingRun, earlier: TrainingRun | None = None, *, all_of_them: bool = False) -> list[RunChart]:
    """The charts of a run, those at a glance or all; none for a run that has no figures."""
    figures = run_figures.figures_of(run)
    series = run_figures.series_of([run, *([earlier] if earlier else [])], figures)
    own = {one.name: series[run.pk, one.name] for one in figures}
    shown = run_figures.worth_showing(figures, own)
    return [
        _chart(one, run, own[one.name], earlier, series[earlier.pk, one.name] if earlier else [])
        for one in shown
        if all_of_them or one not in AT_A_GLANCE_WITHOUT
    ]


def _chart(figure: Figure, run: TrainingRun, points: Points, earlier: TrainingRun | None, behind: Points) -> RunChart:
    title, unit = figure.title, figure.unit
    bound, bound_name = _bound(figure, run, points)
    if figure is KL:
        title = f"KL from {run.parent or 'the policy before'}"
    drawn = [y for _, y in (*points, *behind)]
    if bound is not None and max(drawn) < FAR_BELOW * bound:
        unit, bound, bound_name = f"of {bound:.3g} {unit}", None, ""
    drawn += [] if bound is None else [bound]
    low, high = charts.axis_ends(drawn, lowest=figure.lowest)
    longest = int(max([run.steps_total, 1, *(x for x, _ in (*points, *behind))]))
    return RunChart(
        title=title,
        value=figure.write(points[-1][1]),
        unit=unit,
        points=points,
        before=behind,
        low=low,
        high=high,
        steps=longest,
        bound=bound,
        bound_name=bound_name,
        words=_in_words(figure, points, earlier, behind),
        note=figure.note,
    )


def _bound(figure: Figure, run: TrainingRun, points: Points) -> tuple[float | None, str]:
    """Where the gate would refuse a policy, and how that is called; (None, "") for what it does not look at."""
    if figure not in (KL, LENGTH) or run.round is None:
        return None, ""
    gate = gate_of(run.round.hyperparameters)
    if figure is KL:
        return gate.most_kl_nats, f"gate at {gate.most_kl_nats:g}"
    longest = points[0][1] * (1 + gate.most_length_change)
    return longest, f"gate near {longest:.0f}"


def _in_words(figure: Figure, points: Points, earlier: TrainingRun | None, behind: Points) -> str:
    """Where a line begins and ends, and the one behind it; for whoever does not see it, or points at it."""
    said = [
        f"{figure.write(points[0][1])} at step {points[0][0]}, {figure.write(points[-1][1])} at step {points[-1][0]}."
    ]
    if earlier and behind:
        said.append(f"{name_of(earlier).capitalize()}: {figure.write(behind[0][1])} to {figure.write(behind[-1][1])}.")
    return " ".join(said)


def table_of(run: TrainingRun, most: int = MOST_ROWS) -> StepTable:
    """The same figures as numbers: every step, or where there are too many one in so many, and always the last."""
    figures = run_figures.figures_of(run)
    series = run_figures.series_of([run], figures)
    own = {one.name: series[run.pk, one.name] for one in figures}
    shown = run_figures.worth_showing(figures, own)
    values = {one.name: dict(own[one.name]) for one in shown}
    steps = sorted({int(step) for points in values.values() for step in points}, reverse=True)
    every = -(-len(steps) // most) or 1
    rows = [
        (step, [one.write(values[one.name][step]) if step in values[one.name] else "" for one in shown])
        for step in steps[::every]
    ]
    return StepTable([one.short for one in shown], rows, every)


def smaller_figures(run: TrainingRun) -> list[tuple[str, str]]:
    """What is worth a line below the charts of a policy: (name, newest value)."""
    names = {"ppo/clip_fraction": "clip fraction", "rloo/clip_fraction": "replies clipped",
             "ppo/value_loss": "value loss", "ppo/kl_coef": "KL weight", "dpo/loss": "loss",
             "dpo/accuracy": "pairs in order", "best-of-n/loss": "loss"}  # fmt: skip
    newest = MetricPoint.objects.filter(run=run, name__in=names, step=run.steps_done).values_list("name", "value")
    values = dict(newest)
    words = {"ppo/clip_fraction": percent, "rloo/clip_fraction": percent, "dpo/accuracy": percent}
    return [(names[name], words.get(name, "{:.3g}".format)(values[name])) for name in names if name in values]


def best_paid(run: TrainingRun, steps: int = BEST_PAID_STEPS, most: int = BEST_PAID) -> BestPaid:
    """The samples with the highest reward in the last steps of a run: what the reward praises is read, not guessed."""
    recent = LedgerEntry.objects.filter(run=run, step__gt=run.steps_done - steps)
    entries = list(recent.order_by("-reward", "-step", "index")[:most])
    paying = {name: None for entry in entries for name, value in entry.terms.items() if value}
    names = in_order(paying)[:3]
    samples = [
        PaidSample(
            response=entry.response,
            prompt=next((turn["content"] for turn in reversed(entry.prompt) if turn["role"] == "user"), ""),
            terms=[signed(entry.terms.get(name), 1) for name in names],
            kl_nats=plain(entry.kl_nats, 1),
            reward=signed(entry.reward, 1),
        )
        for entry in entries
    ]
    return BestPaid([term_word(name) for name in names], samples)
