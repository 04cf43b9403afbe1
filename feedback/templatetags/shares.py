"""Shares and differences as people read them: no decimals that the count cannot carry, a true minus sign."""

from __future__ import annotations

from django import template

register = template.Library()

ENOUGH_FOR_A_DECIMAL = 1000


@register.filter
def percent(share: float | None, total: int | None = None) -> str:
    """A share as a percentage; a decimal only where `total` is a thousand or more.

    >>> [percent(0.7241), percent(0.7241, 4812), percent(None)]
    ['72%', '72.4%', '–']
    """
    if share is None:
        return "–"
    return f"{share:.1%}" if (total or 0) >= ENOUGH_FOR_A_DECIMAL else f"{share:.0%}"


@register.filter
def signed(value: float | None, decimals: int = 2) -> str:
    """A difference with its sign.

    >>> [signed(0.624), signed(-0.3, 1), signed(0)]
    ['+0.62', '−0.3', '0.00']
    """
    if value is None:
        return "–"
    text = f"{abs(value):.{decimals}f}"
    is_nothing = not float(text)
    return text if is_nothing else f"{'−' if value < 0 else '+'}{text}"


@register.filter
def decimal(value: float | None, decimals: int = 2) -> str:
    """A figure that may be negative, with a true minus.

    >>> [decimal(0.624), decimal(-0.051), decimal(-0.001), decimal(None)]
    ['0.62', '−0.05', '0.00', '–']
    """
    return "–" if value is None else signed(value, decimals).removeprefix("+")
