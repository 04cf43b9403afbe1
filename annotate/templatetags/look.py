"""Tags for the parts every page is made of: eggs, icons, times in words, small charts drawn as SVG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from django import template
from django.contrib.messages.storage.base import Message
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

register = template.Library()

EGG_WORDS = {"done": "done", "now": "now", "todo": "to come", "waits": "waits for you", "failed": "failed"}
EGG_SIZES = {"small": (9, 12), "large": (15, 20)}
MOST_EGGS = 30
THEMES = ("auto", "light", "dark")
CHART_WIDTH, CHART_HEIGHT = 400, 100
MOST_POINTS = 200

Point = tuple[float, float]


@register.simple_tag(takes_context=True)
def theme(context: template.Context) -> str:
    """`auto`, `light` or `dark`: this person's setting; before they sign in, the cookie that settings.js left here."""
    request: HttpRequest | None = context.get("request")
    user = context.get("user")
    cookie = request.COOKIES.get("theme", "auto") if request else "auto"
    chosen = getattr(user, "theme", cookie)
    return chosen if chosen in THEMES else "auto"


# Eggs and icons


@register.simple_tag
def icon(name: str) -> SafeString:
    """One icon of the sprite, 16 pixels, silent; a word always stands beside it."""
    return format_html(
        '<svg class="icon" width="16" height="16" aria-hidden="true" focusable="false"><use href="#i-{}"/></svg>', name
    )


def _egg(state: str, size: str) -> SafeString:
    width, height = EGG_SIZES[size]
    return format_html(
        '<svg class="egg {0}" width="{1}" height="{2}" aria-hidden="true" focusable="false">'
        '<use href="#egg-{0}"/></svg>',
        state if state in EGG_WORDS else "todo",
        width,
        height,
    )


@register.simple_tag
def egg(state: str, size: str = "small", said: bool = True) -> SafeString:
    """One egg in the shape of its state, with the state in words for a screen reader unless `said` is false."""
    if not said:
        return _egg(state, size)
    return format_html('{}<span class="sr">{}: </span>', _egg(state, size), EGG_WORDS.get(state, state))


@register.simple_tag
def eggs(*, total: int, done: int = 0, now: int = 0, label: str = "done") -> SafeString:
    """A row of `total` eggs: first the filled, then the half filled, then the hollow. A bar when they are too many."""
    said = f"{done} of {total} {label}"
    if total > MOST_EGGS:
        return format_html('<progress class="track" value="{}" max="{}" aria-label="{}"></progress>', done, total, said)
    states = ["done"] * done + ["now"] * now + ["todo"] * max(0, total - done - now)
    shapes = format_html_join("", "{}", ((_egg(state, "small"),) for state in states[:total]))
    return format_html('<span class="eggs" role="img" aria-label="{}">{}</span>', said, shapes)


# Numbers and times in words


@register.filter
def ordinal(number: int) -> str:
    """The number as a place: 1st, 2nd, 3rd, 11th."""
    teens = 10 < number % 100 < 14
    ending = "th" if teens else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


@register.filter
def elapsed(seconds: float) -> str:
    """A length of time as people say it: 3 s, 1 min 5 s, 1 h 48 min, 3 days. elapsed.js counts in the same words."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} day{'s' if whole >= 172_800 else ''}"


@register.filter
def roughly(seconds: float) -> str:
    """A usual length of time: seconds to the next ten below a minute and a half, then minutes."""
    if seconds < 90:
        return f"{max(10, round(seconds, -1)):.0f} s"
    return elapsed(60 * round(seconds / 60)).removesuffix(" 0 s").removesuffix(" 0 min")


@register.filter
def seconds_since(moment: datetime) -> int:
    """Whole seconds from `moment` until now, 0 when it lies ahead."""
    return max(0, int((timezone.now() - moment).total_seconds()))


@register.filter
def ago(moment: datetime) -> str:
    """How long ago, in one unit: 2 s ago, 5 min ago, 3 h ago, 2 days ago."""
    seconds = seconds_since(moment)
    if seconds < 60:
        return f"{seconds} s ago"
    if seconds < 3600:
        return f"{seconds // 60} min ago"
    if seconds < 86_400:
        return f"{seconds // 3600} h ago"
    return f"{elapsed(seconds)} ago"


@register.filter
def for_status(messages: Iterable[Message]) -> str:
    """What the status line has to say: the last message meant for it, or nothing."""
    return next((str(message) for message in reversed(list(messages)) if message.extra_tags == "status"), "")


# Charts


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most `most` of the points, evenly spread, the first and the last always among them."""
    if len(points) <= most:
        return list(points)
    step = (len(points) - 1) / (most - 1)
    return [points[round(at * step)] for at in range(most)]


def scaled(value: float, low: float, high: float, length: float) -> float:
    """Where `value` lies on an axis of `length` from `low` to `high`; a value outside lies on the end."""
    if high <= low:
        return 0.0
    share = (value - low) / (high - low)
    return round(length * min(1.0, max(0.0, share)), 1)


def polyline(points: Iterable[Point], x_ends: Point, y_ends: Point) -> str:
    """The points for an SVG polyline in the chart's own 400 by 100 box, y upwards."""
    return " ".join(
        f"{scaled(x, *x_ends, CHART_WIDTH):g},{CHART_HEIGHT - scaled(y, *y_ends, CHART_HEIGHT):g}" for x, y in points
    )


def ends_of(values: Sequence[float]) -> Point:
    """The lowest and the highest value, a little apart when they are the same; (0, 1) for none."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def figure(number: float) -> str:
    """A number at the end of an axis, at most three digits that count, with a minus and not a hyphen."""
    return f"{number:.3g}".replace("-", "−")


@register.inclusion_tag("parts/_line_chart.html")
def line_chart(
    *,
    title: str,
    points: Sequence[Point],
    value: str,
    unit: str = "",
    before: Sequence[Point] = (),
    low: float | None = None,
    high: float | None = None,
    last_x: float | None = None,
    x_unit: str = "steps",
    bound: float | None = None,
    bound_name: str = "",
    words: str = "",
) -> dict[str, Any]:
    """One measure over the steps of a run, in teal, with the round before it in grey and a dashed bound.

    points, before  (x, y), x rising; before may be empty
    value           the current figure as it is to be read, large, above the chart
    low, high       ends of the y axis; the data's own (bound included) when left out
    last_x          end of the x axis, for a run that is still going
    words           the course of the lines in words, read to whoever points at them or does not see them
    """
    ys = [y for _, y in [*points, *before]] + ([] if bound is None else [bound])
    xs = [x for x, _ in [*points, *before]]
    found_low, found_high = ends_of(ys)
    y_ends = (found_low if low is None else low, found_high if high is None else high)
    x_ends = (0.0, last_x if last_x is not None else max(xs, default=1.0))
    now = polyline(thinned(points), x_ends, y_ends)
    said = f"{title}: {value} {unit}".rstrip() + (f", {bound_name}" if bound_name else "")
    return {
        "title": title,
        "value": value,
        "unit": unit,
        "said": said,
        "words": words,
        "now": now,
        "end": now.rsplit(" ", 1)[-1].replace(",", " "),
        "before": polyline(thinned(before), x_ends, y_ends),
        "bound_y": None if bound is None else f"{CHART_HEIGHT - scaled(bound, *y_ends, CHART_HEIGHT):g}",
        "bound_name": bound_name,
        "low": figure(y_ends[0]),
        "high": figure(y_ends[1]),
        "first_x": "0",
        "last_x": f"{x_ends[1]:g} {x_unit}",
    }


@register.inclusion_tag("parts/_sparkline.html")
def sparkline(*, values: Sequence[float], said: str) -> dict[str, Any]:
    """A line the height of a word through `values`; `said` is what it shows, in words."""
    points = list(enumerate(values))
    return {"said": said, "now": polyline(thinned(points), (0, max(1, len(points) - 1)), ends_of([0.0, *values]))}


@register.inclusion_tag("parts/_interval.html")
def interval(
    *, low: float, high: float, at: float, said: str, bound: float | None = None, before: float | None = None
) -> dict[str, Any]:
    """A rate with its 95 % interval on an axis from 0 to 1; every figure from 0 to 1, `said` in words."""

    def percent(value: float | None) -> str | None:
        return None if value is None else f"{scaled(value, 0, 1, 100):g}"

    return {
        "said": said,
        "low": percent(low),
        "width": percent(high - low),
        "at": percent(at),
        "bound": percent(bound),
        "before": percent(before),
    }
