"""The figures of a run's steps: which there are, what they are called, how they are written. Reads rows only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from feedback.templatetags.shares import percent, signed
from rewardtrain.models import LedgerEntry, MetricPoint, TrainingRun
from rewardtrain.terminal import Line

Points = list[tuple[float, float]]
VIOLATIONS = "rehearsal/violation_rate"  # written by the rehearsal alone, which knows the rules: see its measuring


@dataclass(frozen=True)
class Figure:
    """One figure that every step has.

    name     of its MetricPoint
    short    the same as the title where there is little room: a column of the table, a line of the terminal
    lowest   where its axis begins, for what cannot be smaller
    is_term  it is a part of the reward; one that never paid nor cost anything is not worth a place
    note     what must be said of where it comes from
    """

    name: str
    title: str
    short: str
    write: Callable[[float], str]
    unit: str = ""
    lowest: float | None = None
    is_term: bool = False
    note: str = ""


def _finely(share: float) -> str:
    """A share with one decimal: what moves by parts of a percent."""
    return f"{share:.1%}"


def _number(value: float) -> str:
    """Three digits that count."""
    return f"{value:#.3g}".rstrip(".").replace("-", "−")


def _rate(value: float) -> str:
    return f"{value:.1e}".replace("-", "−")


def plain(value: float, decimals: int = 2) -> str:
    """A figure that is seldom below 0, with a true minus where it is.

    >>> [plain(6.2, 1), plain(-0.1, 1), plain(-0.001)]
    ['6.2', '−0.1', '0.00']
    """
    return signed(value, decimals).removeprefix("+")


REWARD = Figure("ppo/reward", "Reward, all terms", "Reward", signed)
KL = Figure("ppo/kl_nats", "KL", "KL, nats", plain, "nats", 0.0)
BREAKS = Figure(
    VIOLATIONS, "Breaks a rule", "Breaks a rule", _finely, "of samples", 0.0,
    note="as the rehearsal judges it; training never sees this",
)  # fmt: skip
PROBED = Figure(
    "ppo/rules_probed", "Probed rule followed", "Rule kept", percent, "of probes", 0.0,
    note="the chance that the rule model gives it",
)  # fmt: skip
LOWEST = Figure(
    "ppo/rules_lowest", "Rule most in doubt followed", "In doubt", percent, "elsewhere", 0.0,
    note="the lowest chance over the rules, in the mean of everyday samples",
)  # fmt: skip
LENGTH = Figure("ppo/length", "Reply length", "Tokens", "{:.1f}".format, "tokens")
ENTROPY = Figure("ppo/entropy", "Entropy", "Entropy", "{:.2f}".format, "nats a token")
CLIPPED = Figure("ppo/clip_fraction", "Clip fraction", "Clipped", _finely, "of tokens", 0.0)
CLIPPED_REPLIES = Figure("rloo/clip_fraction", "Clip fraction", "Clipped", _finely, "of replies", 0.0)
"""RLOO's, whose ratio of chances is a whole reply's."""
VALUE_LOSS = Figure("ppo/value_loss", "Value loss", "Value loss", _number, lowest=0.0)
SFT_RATE = Figure("sft/learning_rate", "Learning rate", "Rate", _rate, lowest=0.0)
SFT_GRADIENT = Figure("sft/gradient_norm", "Norm of the gradient", "Gradient", _number, lowest=0.0)
PTX_LOSS = Figure(
    "ppo/ptx_loss", "Loss on what is mixed in", "Mixed in", "{:.3f}".format, "nats a token",
    note="demonstrations and corpus, learned word for word beside the reward",
)  # fmt: skip
OTHER_ALGORITHMS = (
    Figure("dpo/loss", "Loss", "Loss", "{:.3f}".format),
    Figure("dpo/accuracy", "Pairs in order", "In order", percent),
    Figure("best-of-n/loss", "Loss", "Loss", "{:.3f}".format),
    Figure("sft/loss", "Loss", "Loss", "{:.3f}".format, "nats a token"),
    Figure("sft/token_accuracy", "Tokens foreseen", "Accuracy", percent, "of tokens"),
    Figure("sft/held_out", "Loss on held-out demonstrations", "Held out", "{:.3f}".format, "nats a token"),
    Figure("sft/held_out_accuracy", "Held-out tokens foreseen", "Foreseen", percent, "of tokens"),
    SFT_RATE,
    SFT_GRADIENT,
)
"""What DPO, best of n and SFT have beside the figures that every algorithm has, PPO's names for them."""
LOSS = Figure("reward/loss", "Loss", "Loss", "{:.3f}".format)
IN_ORDER = Figure("reward/pair_accuracy", "Training pairs in order", "In order", percent)
RATE = Figure("reward/learning_rate", "Learning rate", "Rate", _rate, lowest=0.0)
GRADIENT = Figure("reward/gradient_norm", "Norm of the gradient", "Gradient", _number, lowest=0.0)
RULE_FIGURES = (
    Figure("rule/loss", "Loss", "Loss", "{:.3f}".format),
    Figure("rule/rule_loss", "Loss of rules alone", "Of rules", "{:.3f}".format),
    Figure("rule/held_out", "Held-out verdicts, cross entropy", "Held out", "{:.3f}".format, "nats"),
    Figure("rule/learning_rate", "Learning rate", "Rate", _rate, lowest=0.0),
    Figure("rule/gradient_norm", "Norm of the gradient", "Gradient", _number, lowest=0.0),
)


def figures_of(run: TrainingRun) -> list[Figure]:
    """What may be drawn of a run, in the order in which it is read."""
    return figures_of_kind(run.kind, terms_of(run))


def figures_of_kind(kind: str, terms: Sequence[str]) -> list[Figure]:
    """The same for any run of a kind whose reward has these terms."""
    if kind == TrainingRun.Kind.POLICY:
        clipped = [CLIPPED, CLIPPED_REPLIES]
        followed = [PROBED, LOWEST]
        return [
            REWARD, *map(term_figure, terms), *followed, KL, BREAKS, LENGTH, ENTROPY, *clipped, VALUE_LOSS, PTX_LOSS,
            *OTHER_ALGORITHMS,
        ]  # fmt: skip
    if kind == TrainingRun.Kind.RULE_MODEL:
        return list(RULE_FIGURES)
    return [] if kind in TrainingRun.MEASURING else [LOSS, IN_ORDER, RATE, GRADIENT]


def terms_of(run: TrainingRun) -> list[str]:
    """The names of the terms of a run's reward, the preference first."""
    first = LedgerEntry.objects.filter(run=run).order_by("step", "index").values_list("terms", flat=True).first()
    return in_order({"preference", *(first or {})})


def in_order(terms: Iterable[str]) -> list[str]:
    """The preference first, then what rules pay."""
    return sorted(terms, key=lambda name: (name != "preference", name != "rules", name))


def term_figure(name: str) -> Figure:
    """A term's mean over the samples of a step, as it was weighed."""
    title = "Preference reward" if name == "preference" else name.replace("_", " ").capitalize()
    return Figure(f"ppo/{name}", title, term_word(name), signed, is_term=True)


TERM_WORDS = {
    "preference": "Pref.",
    "rules": "Rules",
    "length_penalty": "Length",
    "malformed_penalty": "Malformed",
    "repetition_penalty": "Repeats",
}


def term_word(name: str) -> str:
    """What heads the column of a term."""
    return TERM_WORDS.get(name, name.replace("_", " ").capitalize())


def series_of(runs: Sequence[TrainingRun], figures: Sequence[Figure]) -> dict[tuple[int, str], Points]:
    """The (step, value) of each figure of each run, by (run, name of the figure)."""
    found: dict[tuple[int, str], Points] = defaultdict(list)
    points = MetricPoint.objects.filter(run__in=runs, name__in=[one.name for one in figures]).order_by("step")
    for run, name, step, value in points.values_list("run", "name", "step", "value"):
        found[run, name].append((step, value))
    return found


def worth_showing(figures: Sequence[Figure], own: dict[str, Points]) -> list[Figure]:
    """The figures a run has; terms that paid something; and their sum where more than one did."""
    paying = [one for one in figures if one.is_term and any(value for _, value in own.get(one.name, []))]
    shown = [one for one in figures if own.get(one.name) and (not one.is_term or one in paying)]
    return [one for one in shown if one is not REWARD or len(paying) != 1]


def earlier_run(run: TrainingRun) -> TrainingRun | None:
    """The run of the same kind that was done last before: in the newest round before, or before one by command."""
    older = TrainingRun.objects.filter(project=run.project, kind=run.kind, state="done").select_related("round")
    if run.round is None:
        return older.filter(pk__lt=run.pk).order_by("-pk").first()
    return older.filter(round__number__lt=run.round.number).order_by("-round__number").first()


def name_of(run: TrainingRun) -> str:
    """What a run is called beside others of its kind."""
    return f"round {run.round.number}" if run.round else f"run {run.pk}"


def terminal_lines(kind: str, earlier: TrainingRun | None) -> dict[str, Line]:
    """The same figures for the terminal, by name, each with where the run before ended. Asked before a run begins."""
    terms = {*TERM_WORDS, *(terms_of(earlier) if earlier else [])}
    ends = MetricPoint.objects.filter(run=earlier, step=earlier.steps_done) if earlier else MetricPoint.objects.none()
    before = dict(ends.values_list("name", "value"))
    return {
        one.name: Line(one.short, one.write, before.get(one.name), one.is_term)
        for one in figures_of_kind(kind, in_order(terms))
    }
