"""Rehearsals with probes side by side: their seeds in a table, what the variants differ by, both axes in a picture.

    python -m tests.benchmarks.rehearsals --rules r0.json r1.json r2.json --without w0.json w1.json w2.json \
        --picture docs/rehearsal_rules.svg

The files are what `rehearse --probes N [--without-rules] --json` wrote. Seeds are pooled: intervals are of the openings
drawn, as if each reply were independent of every other.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from feedback.agreement import Share

PREFERENCES_ALONE = "rl without rules"
START, RERANKED, TRAINED, BOTH = ORDER = ("starter", "reranked", "rl", "rl + reranked")
TITLES = {
    START: "starter", RERANKED: "starter reranked", TRAINED: "trained with rules", BOTH: "trained and reranked",
    PREFERENCES_ALONE: "trained without rules",
}  # fmt: skip


def rate(share: float, total: float) -> Share:
    """A share as rehearsals write it, of so many."""
    return Share(round(share * total), round(total))


def added(one: Share, other: Share) -> Share:
    return Share(one.hits + other.hits, one.total + other.total)


def said(one: Share) -> str:
    low, high = one.interval or (0.0, 1.0)
    return f"{one.value:.1%} ({low:.1%} to {high:.1%})"


def difference(one: Share, other: Share) -> tuple[float, float, float]:
    """By how much the first share is above the second, and the 95 % interval of that.

    Source  Newcombe 1998, Statistics in Medicine 17, 873-890, method 10: of independent shares, from their Wilson
            intervals
    """
    gap = one.value - other.value
    (low, high), (other_low, other_high) = one.interval, other.interval
    below = math.hypot(one.value - low, other_high - other.value)
    above = math.hypot(high - one.value, other.value - other_low)
    return gap, gap - below, gap + above


@dataclass(frozen=True)
class Point:
    """One way to answer: how often the probed rule is broken, how often its everyday replies are preferred."""

    broken: Share
    preferred: Share

    def __add__(self, other: Point) -> Point:
        return Point(added(self.broken, other.broken), added(self.preferred, other.preferred))


def points(found: Mapping[str, Any]) -> dict[str, Point]:
    """Of one rehearsal: its variants, or without rules the policy it led to."""
    if "variants" in found:
        return {one["name"]: _variant(one) for one in found["variants"]}
    decided = found["prompts"] * (1 - found["tie_rate"])
    broken = rate(found["after"]["violation_rate_probed"], found["probes"])
    return {PREFERENCES_ALONE: Point(broken, rate(found["preference_win_rate"], decided))}


def _variant(one: Mapping[str, Any]) -> Point:
    """The starter is never preferred to its own replies: half and half, of as many prompts as there are."""
    ties = 0.0 if one["preference_rate"] is None else one["tie_rate"]
    won = 0.5 if one["preference_rate"] is None else one["preference_rate"]
    decided = one["prompts"] * (1 - ties)
    broken = rate(one["violation_rate_probed"], one["probes"])
    return Point(broken, rate(won, decided))


def pooled(results: Sequence[Mapping[str, Any]]) -> dict[str, Point]:
    """The points of several seeds, each as one."""
    found: dict[str, Point] = {}
    for result in results:
        for name, point in points(result).items():
            found[name] = found[name] + point if name in found else point
    return found


def table(with_rules: Sequence[Mapping[str, Any]], without: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown: a row for each seed and variant, then the seeds pooled."""
    lines = ["| seed | | breaks the probed rule | preferred, everyday |", "|---|---|---|---|"]
    for result in sorted([*with_rules, *without], key=lambda one: one["seed"]):
        for name, point in points(result).items():
            lines.append(_row(str(result["seed"]), name, f"{point.broken.value:.1%}", f"{point.preferred.value:.1%}"))
    for name, point in (pooled(with_rules) | pooled(without)).items():
        lines.append(_row("**all**", name, said(point.broken), said(point.preferred)))
    return lines


def _row(seed: str, name: str, broken: str, preferred: str) -> str:
    return f"| {seed} | {TITLES[name]} | {broken} | {'' if name == START else preferred} |"


def comparisons(found: Mapping[str, Point]) -> list[str]:
    """What both together, and rules, are worth beside each alone, in points."""
    pairs = [(BOTH, TRAINED), (BOTH, RERANKED), (TRAINED, PREFERENCES_ALONE), (BOTH, PREFERENCES_ALONE)]
    lines = []
    for one, other in pairs:
        if one in found and other in found:
            broken = difference(found[one].broken, found[other].broken)
            preferred = difference(found[one].preferred, found[other].preferred)
            lines.append(
                f"- {TITLES[one]} beside {TITLES[other]}: breaks the probed rule {_points(broken)}, preferred "
                f"{_points(preferred)}"
            )
    return lines


def _points(found: tuple[float, float, float]) -> str:
    gap, low, high = (100 * value for value in found)
    return f"{gap:+.1f} points ({low:+.1f} to {high:+.1f})"


def runs(with_rules: Sequence[Mapping[str, Any]], without: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown: what each rehearsal came to, everyday prompts and rule model included."""
    lines = [
        "| seed | rules | breaks the probed rule | breaks a rule, everyday | preferred | ties | fluent | tokens | KL "
        "| rule model own / all / left out | gate | CPU |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in sorted([*with_rules, *without], key=lambda one: (one["seed"], "rule_model" not in one)):
        before, after, model = result["before"], result["after"], result.get("rule_model")
        cells = [
            str(result["seed"]), "yes" if model else "no",
            f"{before['violation_rate_probed']:.1%} → {after['violation_rate_probed']:.1%}",
            f"{before['violation_rate']:.1%} → {after['violation_rate']:.1%}",
            f"{result['preference_win_rate']:.1%}", f"{result['tie_rate']:.1%}",
            f"{before['fluent_rate']:.1%} → {after['fluent_rate']:.1%}",
            f"{before['mean_tokens']:.1f} → {after['mean_tokens']:.1f}", f"{result['kl_nats']:.2f}",
            " / ".join(_auc(model[key]) for key in ("own_auc", "mean_auc", "held_out_rule_auc")) if model else "",
            "passed" if result["gate_passed"] else "failed", f"{result['cpu_seconds'] / 60:.1f} min",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _auc(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


# The picture

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 24, 56
TICKS = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1)
STYLE = """
  text { font: 14px system-ui, sans-serif; fill: #1f2328 }
  .quiet { fill: #59636e; font-size: 12px }
  .grid { stroke: #d1d9e0; stroke-width: 1 }
  .bar { stroke-width: 2 } .dot { stroke: #fff; stroke-width: 1.5 } .seed { opacity: .35 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .quiet { fill: #9198a1 } .grid { stroke: #3d444d } .dot { stroke: #0d1117 }
  }
"""
COLORS = {START: "#818b98", RERANKED: "#bc8a00", TRAINED: "#2f81f7", BOTH: "#2da44e", PREFERENCES_ALONE: "#cf222e"}


def picture(with_rules: Sequence[Mapping[str, Any]], without: Sequence[Mapping[str, Any]]) -> str:
    """An SVG: right is preferred more, down breaks less. A dot with intervals for all seeds, faint ones for each.

    Broken shares stand by their square roots, where a share near nothing has as much room as its interval needs.
    """
    found = pooled(with_rules) | pooled(without)
    seeds = [(name, point) for one in [*with_rules, *without] for name, point in points(one).items()]
    everything = [point for _, point in [*seeds, *found.items()]]
    top = max(value for one in everything for value in (one.broken.value, one.broken.interval[1]))
    low = min(value for one in everything for value in (one.preferred.value, one.preferred.interval[0]))
    low = math.floor(low * 20) / 20

    def x(share: float) -> float:
        return LEFT + (share - low) / (1 - low) * (WIDTH - LEFT - RIGHT)

    def y(share: float) -> float:
        return HEIGHT - BOTTOM - math.sqrt(share / top) * (HEIGHT - TOP - BOTTOM)

    across = [value / 10 for value in range(math.ceil(low * 10 - 1e-9), 11)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="t">',
        '<title id="t">How often the probed rule is broken, against how often everyday replies are preferred</title>',
        f"<style>{STYLE}</style>",
        *_grid([(tick, y(tick)) for tick in TICKS if tick <= top], [(tick, x(tick)) for tick in across]),
    ]
    for name, point in seeds:
        at = f'cx="{x(point.preferred.value):.1f}" cy="{y(point.broken.value):.1f}"'
        parts.append(f'<circle class="seed" {at} r="4" fill="{COLORS[name]}"/>')
    for place, (name, point) in enumerate(found.items()):
        parts += [*_marked(name, point, x, y), *_named(name, place)]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _grid(down: Sequence[tuple[float, float]], across: Sequence[tuple[float, float]]) -> list[str]:
    """Lines and words of both axes: (share, where it lies) each."""
    foot, end = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for share, at in down:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{end}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="quiet" x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for share, at in across:
        parts.append(f'<line class="grid" y1="{TOP}" y2="{foot}" x1="{at:.1f}" x2="{at:.1f}"/>')
        parts.append(f'<text class="quiet" x="{at:.1f}" y="{foot + 18}" text-anchor="middle">{share:.0%}</text>')
    middle = f'x="{(LEFT + end) / 2}" y="{HEIGHT - 14}" text-anchor="middle"'
    turned = f'transform="translate(16 {(TOP + foot) / 2}) rotate(-90)" text-anchor="middle"'
    return [
        *parts,
        f"<text {middle}>preferred to the starter, everyday openings</text>",
        f"<text {turned}>breaks the probed rule</text>",
    ]


def _marked(name: str, point: Point, x: Callable[[float], float], y: Callable[[float], float]) -> list[str]:
    color, at_x, at_y = COLORS[name], x(point.preferred.value), y(point.broken.value)
    (left, right), (low, high) = point.preferred.interval, point.broken.interval
    parts = [_bar(color, (at_x, at_x), (y(low), y(high)))]
    if name != START:
        parts.append(_bar(color, (x(left), x(right)), (at_y, at_y)))
    return [*parts, f'<circle class="dot" cx="{at_x:.1f}" cy="{at_y:.1f}" r="6" fill="{color}"/>']


def _named(name: str, place: int) -> list[str]:
    """A line of the key, in the corner where nobody is: preferred always, and breaking every rule."""
    at_y = TOP + 20 + 24 * place
    return [
        f'<circle cx="{WIDTH - RIGHT - 190}" cy="{at_y - 5}" r="6" fill="{COLORS[name]}"/>',
        f'<text x="{WIDTH - RIGHT - 176}" y="{at_y}">{escape(TITLES[name])}</text>',
    ]


def _bar(color: str, across: tuple[float, float], down: tuple[float, float]) -> str:
    (x1, x2), (y1, y2) = across, down
    return f'<line class="bar" stroke="{color}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", nargs="+", type=Path, required=True, metavar="FILE")
    parser.add_argument("--without", nargs="*", type=Path, default=[], metavar="FILE")
    parser.add_argument("--picture", type=Path, metavar="FILE")
    options = parser.parse_args()
    with_rules, without = (
        [json.loads(path.read_text(encoding="utf-8")) for path in paths] for paths in (options.rules, options.without)
    )
    found = pooled(with_rules) | pooled(without)
    lines = [*runs(with_rules, without), "", *table(with_rules, without), "", *comparisons(found)]
    sys.stdout.write("\n".join(lines) + "\n")
    if options.picture:
        options.picture.write_text(picture(with_rules, without), encoding="utf-8")


if __name__ == "__main__":
    main()
