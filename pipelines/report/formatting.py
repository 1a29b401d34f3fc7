"""How numbers, metrics and diagnostics are written for people."""

from __future__ import annotations

import re
from collections.abc import Callable


def decimal(value: float, places: int = 4, *, sign: bool = False) -> str:
    """Format a score as papers print it: ``.0312``, ``+.0021``, ``−.0021``.

    Example:
        >>> decimal(0.03124), decimal(-0.0021, sign=True)
        ('.0312', '−.0021')
    """
    text = f"{value:{'+' if sign else ''}.{places}f}"
    return re.sub(r"^([+-]?)0\.", r"\1.", text).replace("-", "−")


def p_value(value: float) -> str:
    """Format a p value: ``.016``, or ``<.001``."""
    return "<.001" if value < 0.001 else decimal(value, 3)


def interval(low: float, high: float) -> str:
    """Format an interval of a difference: ``+.0004 … +.0038``."""
    return f"{decimal(low, sign=True)} … {decimal(high, sign=True)}"


def confidence(level: float) -> str:
    """Format the confidence of intervals that miss with probability ``level``.

    Example:
        >>> confidence(0.05), confidence(0.05 / 7)
        ('95 %', '99.3 %')
    """
    return f"{100 * (1 - level):.3g} %"


def percent(value: float) -> str:
    """Format a share of 0.0123 as ``1.2%``."""
    return f"{value:.1%}"


def mean_and_spread(mean: float, spread: float | None, write: Callable[[float], str]) -> str:
    """Format ``.448 ±.003``, or ``.448`` where there is no standard deviation.

    Args:
        mean: The mean.
        spread: The standard deviation, or None.
        write: Formats one number.
    """
    return write(mean) + ("" if spread is None else f" ±{write(spread)}")


def diagnostic_label(name: str) -> str:
    """Return the header of a diagnostic: its name in words.

    Example:
        >>> diagnostic_label("search_error_at_10")
        'search error of the beam, top 10'
    """
    words = name.replace("_", " ")
    return re.sub(r"^search error at (\d+)$", r"search error of the beam, top \1", words)


def diagnostic_value(name: str, value: float) -> str:
    """Format a diagnostic: a share as :func:`percent`, any other number with four digits."""
    is_share = name == "certified" or name.startswith("search_error_at_")
    return percent(value) if is_share else f"{value:,.4g}"
