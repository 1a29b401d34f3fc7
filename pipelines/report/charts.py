"""Charts: scores and differences, use of codes while fitting, and categories of codes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from pipelines.report.formatting import decimal
from pipelines.results.rows import Results, Row, TokenizerRow

# Okabe & Ito's colours, which colour-blind readers can tell apart.
COLOURS = {
    "better": "#009e73",
    "worse": "#d55e00",
    "equivalent": "#0072b2",
    "undecided": "#8fb8de",
    "too few queries": "#8fb8de",
    "reference": "#444c56",
    "reference failed": "#8fb8de",
    "baseline": "#c3c8ce",
}
_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_DASHES = ("solid", "dot", "dash", "dashdot")
_FONT = {"size": 14, "family": "system-ui, sans-serif"}
_MOST_CATEGORIES = 12

_literal = partial(escape, quote=False)  # Plotly reads tags such as <b> in every text


def score_chart(results: Results) -> go.Figure:
    """Return bars of the main metric, and right of them each tokenizer's difference to the reference.

    Error bars are 95 % intervals: of the mean over queries on the left, of the difference on the right.
    """
    figure = _subplots(
        cols=2,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        subplot_titles=(_literal(results.label), f"Difference to {_literal(results.reference)}"),
    )
    # The axis takes its order from the first trace, so the first one holds every row.
    intervals = [(row.means[results.metric], *row.interval) for row in results.rows]
    figure.add_scatter(**_points(results.rows, intervals), marker_opacity=0, hoverinfo="skip", row=1, col=1)
    for verdict in dict.fromkeys(results.verdict(row) for row in results.rows):
        rows = [row for row in results.rows if results.verdict(row) == verdict]
        means = [row.means[results.metric] for row in rows]
        figure.add_bar(
            x=means,
            y=_places(rows),
            orientation="h",
            marker_color=COLOURS[verdict],
            name=verdict,
            text=[decimal(mean) for mean in means],
            textposition="inside",
            insidetextanchor="start",
            row=1,
            col=1,
        )
    compared = [row for row in results.rows if row.comparison]
    tests = [(t.difference, t.low, t.high) for row in compared if (t := row.comparison)]
    colours = [COLOURS[results.verdict(row)] for row in compared]
    figure.add_scatter(**_points(compared, tests), marker={"color": colours, "size": 11}, row=1, col=2)
    figure.add_vline(x=0, line_color=COLOURS["reference"], line_width=1, row=1, col=2)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_yaxes(showdividers=False, col=2)
    figure.update_layout(
        template="plotly_white",
        barmode="overlay",
        bargap=0.3,
        height=150 + 34 * len(results.rows),
        margin={"l": 10, "r": 20, "t": 40, "b": 70},
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
        legend_title={"text": f"Against {_literal(results.reference)}: ", "font_size": 14},
        font=_FONT,
    )
    return figure


def _subplots(**layout: Any) -> go.Figure:
    """Return an empty figure of several charts."""
    from plotly.subplots import make_subplots  # noqa: PLC0415 — imports slowly

    return make_subplots(**layout)


def _places(rows: Sequence[Row]) -> list[list[str]]:
    """Return the two levels of a category axis: retrievers, and tokenizers within them."""
    return [[_literal(row.retriever) for row in rows], [_literal(row.tokenizer) for row in rows]]


def _points(rows: Sequence[Row], intervals: Sequence[tuple[float, float, float]]) -> dict[str, Any]:
    """Return the arguments of a scatter with error bars, from ``(value, low, high)`` of each row."""
    values, lows, highs = np.array(intervals).reshape(-1, 3).T
    error = {"array": highs - values, "arrayminus": values - lows, "color": "#1f2328", "thickness": 1.5}
    return {"x": values, "y": _places(rows), "mode": "markers", "showlegend": False, "error_x": error}


def usage_curves(tokenizers: Sequence[TokenizerRow]) -> go.Figure | None:
    """Return utilization and dead codes of each level over the fit; None if no tokenizer reported them."""
    usage = [_usage(row) for row in tokenizers]
    levels = max((level for found in usage for _, level in found), default=0)
    if not levels:
        return None
    figure = _subplots(
        rows=2,
        cols=levels,
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.02,
        vertical_spacing=0.06,
        subplot_titles=[f"Level {level}" for level in range(1, levels + 1)],
    )
    for number, (row, found) in enumerate(zip(tokenizers, usage, strict=True)):
        dash = _DASHES[number // len(_LINES) % len(_DASHES)]
        for (metric, level), curve in found.items():
            steps, values = np.array(curve, dtype=np.float32).T
            figure.add_scatter(
                x=steps,
                y=values,
                mode="lines",
                line={"color": _LINES[number % len(_LINES)], "dash": dash, "width": 1.5},
                name=_literal(row.tokenizer),
                legendgroup=row.tokenizer,
                showlegend=(metric, level) == ("utilization", 1),
                row=1 if metric == "utilization" else 2,
                col=level,
            )
    figure.update_yaxes(title_text="utilization", row=1, col=1)
    figure.update_yaxes(title_text="dead codes", row=2, col=1)
    figure.update_xaxes(title_text="step", row=2)
    figure.update_layout(
        template="plotly_white",
        height=520,
        margin={"l": 10, "r": 20, "t": 40, "b": 10},
        legend={"orientation": "h", "y": -0.15},
        font=_FONT,
    )
    return figure


def _usage(row: TokenizerRow) -> dict[tuple[str, int], Sequence[tuple[int, float]]]:
    """Return the curves of a tokenizer by measure and level, such as ``("utilization", 1)``."""
    found = {name: re.fullmatch(r"tokenize_(utilization|dead_codes)_(\d+)", name) for name in row.curves}
    return {(match[1], int(match[2])): row.curves[name] for name, match in found.items() if match}


def category_maps(tokenizers: Sequence[TokenizerRow]) -> go.Figure | None:
    """Return a map of the categories of each first-level code's items, for each tokenizer.

    Codes are sorted by their most common category, the purest first. None if no code has several items of
    known category.
    """
    shown = {
        _literal(row.tokenizer): row.code_categories
        for row in tokenizers
        if row.code_categories and row.code_categories.codes
    }
    if not shown:
        return None
    names = next(iter(shown.values())).categories[:_MOST_CATEGORIES]
    gap, each = 50, 40 + 18 * len(names)
    height = 80 + len(shown) * each + (len(shown) - 1) * gap
    figure = _subplots(rows=len(shown), cols=1, vertical_spacing=gap / height, subplot_titles=list(shown))
    for row, divided in enumerate(shown.values(), start=1):
        counts = np.array(divided.counts)
        shares = counts / counts.sum(axis=1, keepdims=True)
        order = np.lexsort((-shares.max(axis=1), shares.argmax(axis=1)))
        figure.add_heatmap(
            # Whole per cent take a byte each: a page holds many of them.
            z=np.round(100 * shares[order, : len(names)].T).astype(np.uint8),
            x=[str(divided.codes[place]) for place in order],
            y=[_literal(name) for name in names],
            coloraxis="coloraxis",
            hovertemplate="code %{x}: %{z} % %{y}<extra></extra>",
            row=row,
            col=1,
        )
    figure.update_xaxes(type="category", showticklabels=False)
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 10, "r": 20, "t": 40, "b": 40},
        coloraxis={"colorscale": "Blues", "cmin": 0, "cmax": 100, "colorbar": {"title": "% of items"}},
        font=_FONT,
    )
    return figure
