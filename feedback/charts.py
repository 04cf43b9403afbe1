"""Numbers made into places on a drawing. Pure functions; templates write the SVG from what they return.

Bars count sideways in percent of their box, so that they stretch with it, and upwards in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

ROOM_BELOW = 0.12  # share of an axis kept free below the lowest value, where the label of its end stands


@dataclass(frozen=True)
class Bar:
    """One upright bar: place sideways in percent, upwards in pixels from the top of the box, and what it stands for."""

    left: float
    width: float
    middle: float
    top: float
    height: float
    value: float
    label: str


@dataclass(frozen=True)
class Bars:
    """Bars over one axis from 0, at the bottom of a box `height` pixels high, to `high`, at its top."""

    bars: list[Bar]
    high: float
    height: float

    @property
    def half(self) -> float:
        """The value at half the height."""
        return self.high / 2


def bars(
    values: Sequence[float],
    labels: Sequence[str] = (),
    *,
    height: float = 96,
    high: float | None = None,
    gap: float = 0.3,
) -> Bars:
    """Upright bars side by side, the first on the left.

    labels  one per value, or none
    high    where the axis ends; a round number not below the largest value when left out
    gap     share of a bar's place that stays empty
    """
    end = high if high is not None else round_up(max(values, default=0))
    place = 100 / max(1, len(values))
    names = labels or [""] * len(values)
    return Bars(
        bars=[
            _bar(index * place, place, min(1.0, value / end) * height, height, gap, value, name)
            for index, (value, name) in enumerate(zip(values, names, strict=True))
        ],
        high=end,
        height=height,
    )


def _bar(start: float, place: float, length: float, height: float, gap: float, value: float, label: str) -> Bar:
    return Bar(
        left=round(start + place * gap / 2, 3),
        width=round(place * (1 - gap), 3),
        middle=round(start + place / 2, 3),
        top=round(height - length, 2),
        height=round(length, 2),
        value=value,
        label=label,
    )


def round_up(value: float) -> float:
    """The end of an axis for counts: the next round number that has a round half.

    >>> [round_up(0), round_up(7), round_up(13), round_up(64), round_up(100)]
    [2, 8, 20, 80, 100]
    """
    if value <= 2:
        return 2
    power = 10 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 4, 6, 8, 10) if value <= factor * power)


def axis_ends(values: Sequence[float], lowest: float | None = None) -> tuple[float, float]:
    """Round numbers below and above all values, never the same; values that are no number are passed over.

    lowest  where the axis begins, for what cannot be smaller

    >>> axis_ends([-0.17, 0.62]), axis_ends([-0.05, 0.62])
    ((-0.4, 0.8), (-0.2, 0.8))
    >>> axis_ends([6.2, 12], lowest=0)
    (0, 15.0)
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return lowest or 0.0, (lowest or 0.0) + 1
    least, most = (min(finite) if lowest is None else lowest), max(finite)
    if least >= most:
        least, most = (least, least + 1) if lowest is not None else (most - 0.5, most + 0.5)
    step = nice_step((most - least) / 4)
    high = round(math.ceil(most / step - 1e-9) * step, 10)
    if lowest is not None:
        return lowest, high
    low = math.floor(least / step + 1e-9) * step
    is_near = least - low < ROOM_BELOW * (high - low)
    return round(low - step if is_near else low, 10), high


def nice_step(rough: float) -> float:
    """The next of 1, 2, 5 times a power of ten.

    >>> [nice_step(0.13), nice_step(3), nice_step(50)]
    [0.2, 5.0, 50.0]
    """
    power = 10.0 ** math.floor(math.log10(rough))
    factor = next(factor for factor in (1, 2, 5, 10) if rough <= factor * power * (1 + 1e-9))
    return round(factor * power, 12)


def on_axis(share: float, low: float, high: float) -> float:
    """Where a value lies between the ends of an axis, 0 to 1; what lies outside is at the edge.

    >>> [on_axis(0.75, 0.5, 1), on_axis(0.4, 0.5, 1)]
    [0.5, 0.0]
    """
    return min(1.0, max(0.0, (share - low) / (high - low)))
