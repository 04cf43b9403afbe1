"""Student's t distribution: how far a mean may lie off by chance when its spread was itself estimated. Pure."""

from __future__ import annotations

import math
from functools import cache

HALVINGS = 60


@cache
def t_quantile(probability: float, freedom: int) -> float:
    """Below which value t stays with this probability (from one half up), with so many degrees of freedom.

    Infinite without a degree of freedom: a single value says nothing of its spread.

    >>> [round(t_quantile(0.95, freedom), 3) for freedom in (1, 2, 10)]
    [6.314, 2.92, 1.812]
    """
    if freedom < 1:
        return math.inf
    low, high = 0.0, math.pi / 2  # t = √freedom · tan θ
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if (1 + _within(middle, freedom)) / 2 < probability:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _within(angle: float, freedom: int) -> float:
    """The probability of |t| < √freedom · tan(angle): a finite sum, of even or odd powers of the cosine.

    Abramowitz and Stegun, 26.7.3 and 26.7.4.
    """
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for power in range(2 + odd, freedom - 1, 2):
        term *= cosine**2 * (power - 1) / power
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
