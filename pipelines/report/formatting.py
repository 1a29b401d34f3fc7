"""How numbers and metrics are written for people."""

from __future__ import annotations

import re
from collections.abc import Callable


def decimal(value: float, places: int = 4, *, sign: bool = False) -> str:
    """A score as papers print it: ``.0312``, ``+.0021``, ``−.0021``."""
    text = f"{value:{'+' if sign else ''}.{places}f}"
    return re.sub(r"^([+-]?)0\.", r"\1.", text).replace("-", "−")


def p_value(value: float) -> str:
    """``.016``, or ``<.001``."""
    return "<.001" if value < 0.001 else decimal(value, 3)


def interval(low: float, high: float) -> str:
    """``+.0004 … +.0038``."""
    return f"{decimal(low, sign=True)} … {decimal(high, sign=True)}"


def metric_label(metric: str) -> str:
    """``ndcg_at_10`` → ``NDCG@10``, ``recall_at_10`` → ``Recall@10``."""
    name, _, cutoff = metric.partition("_at_")
    return f"{name.upper() if name == 'ndcg' else name.capitalize()}@{cutoff}"


def percent(value: float) -> str:
    """A share of 0.0123 as ``1.2%``."""
    return f"{value:.1%}"


def mean_and_spread(mean: float, spread: float | None, write: Callable[[float], str]) -> str:
    """``.448 ±.003``, or ``.448`` where there is no standard deviation; ``write`` writes a number."""
    return write(mean) + ("" if spread is None else f" ±{write(spread)}")


def figure_label(name: str) -> str:
    """``search_error_at_10`` → ``search error of the beam, top 10``; any other as words."""
    words = name.replace("_", " ")
    return re.sub(r"^search error at (\d+)$", r"search error of the beam, top \1", words)


def figure_value(name: str, value: float) -> str:
    """A share as :func:`percent`, any other in four digits."""
    share = name == "certified" or name.startswith("search_error_at_")
    return percent(value) if share else f"{value:,.4g}"
