"""A benchmark's results for people: sentences, a chart, a page that opens offline, a console table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from pipelines.results import NO_TOKENIZER, Results, Row

# Okabe & Ito's colours, which colour-blind readers can tell apart.
COLOURS = {
    "better": "#009e73",
    "worse": "#d55e00",
    "no evidence": "#8fb8de",
    "reference": "#444c56",
    "floor": "#c3c8ce",
}

_NAMES = ("retriever", "tokenizer")
_FEW_SEEDS = "With fewer than three seeds, luck in training is not ruled out."


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


def verdicts(results: Results) -> list[str]:
    """One sentence for each retriever on which tokenizer is best and whether that is real.

    A further sentence names every floor that no tokenizer passes.
    """
    groups = results.by_retriever()
    sentences = [_verdict(results, retriever, rows) for retriever, rows in groups.items()]
    for floor in results.floors():
        score = floor.means[results.metric]
        below = [name for name, rows in groups.items() if rows[0].means[results.metric] < score]
        if below:
            sentences.append(
                f"{floor.retriever}, which uses no tokenizer, is above every tokenizer "
                f"with {', '.join(below)} ({metric_label(results.metric)} {decimal(score)})."
            )
    return sentences


def _verdict(results: Results, retriever: str, rows: Sequence[Row]) -> str:
    best, test = rows[0].tokenizer, rows[0].to_next
    label, score = metric_label(results.metric), decimal(rows[0].means[results.metric])
    if test is None:
        return f"{best} has {label} {score} with {retriever}; there is no tokenizer to compare it with."
    lead = (
        f"{rows[1].tokenizer}, the next best ({decimal(test.difference, sign=True)}, "
        f"95 % CI {interval(test.low, test.high)}"
    )
    p = f"p = {p_value(test.p_adjusted)} after Holm"
    p += "" if test.p_seeds is None else f", p = {p_value(test.p_seeds)} over seeds"
    p = p.replace("= <", "< ")
    few = f" {_FEW_SEEDS}" if min(rows[0].seeds, rows[1].seeds) < 3 else ""
    if test.verdict == "no evidence":
        return (
            f"No significant winner with {retriever}: {best} has the best {label} ({score}), "
            f"but its lead over {lead}) could be chance ({p}).{few}"
        )
    certain = "holds for these trained models" if few else "is real"
    return (
        f"{best} has the best {label} with {retriever} ({score}); its lead over {lead}) {certain} ({p}).{few}"
    )


def table(results: Results) -> list[dict[str, str]]:
    """The results as text, one dictionary of header → cell for each row; ``–`` where there is nothing."""
    return [
        {
            "retriever": row.retriever,
            "tokenizer": row.tokenizer,
            "seeds": str(row.seeds),
            **{metric_label(name): decimal(mean) for name, mean in row.means.items()},
            "seed SD": "–" if row.seed_spread is None else decimal(row.seed_spread),
            "collisions": f"{row.quality['collision_rate']:.1%}" if "collision_rate" in row.quality else "–",
            **_significance_cells(row),
            "verdict": row.verdict,
        }
        for row in results.rows
    ]


def _significance_cells(row: Row) -> dict[str, str]:
    test = row.comparison
    if test is None:
        return dict.fromkeys(("difference", "95 % interval", "p (users)", "p (seeds)", "p (Holm)"), "–")
    return {
        "difference": decimal(test.difference, sign=True),
        "95 % interval": interval(test.low, test.high),
        "p (users)": p_value(test.p_value),
        "p (seeds)": "–" if test.p_seeds is None else p_value(test.p_seeds),
        "p (Holm)": p_value(test.p_adjusted),
    }


def chart(results: Results) -> go.Figure:
    """Bars of the main metric, and beside them each tokenizer's difference to the reference.

    Whiskers are 95 % intervals: left of the mean over users, right of the paired difference.
    """
    label = metric_label(results.metric)
    figure = make_subplots(
        cols=2,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        subplot_titles=(label, f"Difference to {results.reference}"),
    )
    # The axis takes its order from the first trace, so that is the one that holds every row.
    whiskers = [(row.means[results.metric], row.low, row.high) for row in results.rows]
    figure.add_scatter(**_points(results.rows, whiskers), marker_opacity=0, hoverinfo="skip", row=1, col=1)
    for verdict in dict.fromkeys(row.verdict for row in results.rows):
        rows = [row for row in results.rows if row.verdict == verdict]
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
    colours = [COLOURS[row.verdict] for row in compared]
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
        legend_title={"text": f"Against {results.reference}: ", "font_size": 14},
        font={"size": 14, "family": "system-ui, sans-serif"},
    )
    return figure


def _places(rows: Sequence[Row]) -> list[list[str]]:
    """Two levels of a category axis: retrievers, and tokenizers within them."""
    return [[row.retriever for row in rows], [row.tokenizer for row in rows]]


def _points(rows: Sequence[Row], intervals: Sequence[tuple[float, float, float]]) -> dict[str, Any]:
    """Points with error bars, from ``(value, low, high)`` for each row."""
    values, lows, highs = np.array(intervals).reshape(-1, 3).T
    error = {"array": highs - values, "arrayminus": values - lows, "color": "#1f2328", "thickness": 1.5}
    return {"x": values, "y": _places(rows), "mode": "markers", "showlegend": False, "error_x": error}


def console_report(results: Results) -> Group:
    """Two tables and the verdicts, to be printed by rich; scores at the main metric's cutoff only."""
    scores, compared = _scores_and_differences(results)
    cutoff = metric_label(results.metric).partition("@")[2]
    headers = [header for header in scores[0] if header.partition("@")[2] in ("", cutoff)]
    differences = [*_NAMES, "difference", "95 % interval", "p (Holm)", "verdict"]
    parts: list[Table | Text] = [_console_table("Scores", headers, scores)]
    if compared:
        parts.append(_console_table(f"Difference to {results.reference}", differences, compared))
    return Group(*parts, Text(), *(Text(f"• {sentence}") for sentence in verdicts(results)))


def _scores_and_differences(results: Results) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The table in two parts that fit a page: what every row scored, and the rows that are compared."""
    rows = table(results)
    split = list(rows[0]).index("difference")
    scores = [dict(list(row.items())[:split]) for row in rows]
    compared = [
        {header: cell for header, cell in row.items() if header in _NAMES or header not in scores[0]}
        for row in rows
        if row["difference"] != "–"
    ]
    return scores, compared


def _console_table(title: str, headers: Sequence[str], rows: Sequence[Mapping[str, str]]) -> Table:
    found = Table(
        title=f"\n{title}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    for header in headers:
        justify: Literal["left", "right"] = "left" if header in (*_NAMES, "verdict") else "right"
        found.add_column(header, justify=justify, no_wrap=header not in _NAMES, overflow="fold")
    for row in rows:
        style = {"better": "green", "worse": "red", "floor": "dim"}.get(row.get("verdict", ""))
        found.add_row(*(row[header] for header in headers), style=style)
    return found


def html_report(results: Results) -> str:
    """A page that needs no other file and no network."""
    title = f"{escape(results.title)}: which tokenizer recommends best?"
    counts = (f"{count:,} {name}" for name, count in results.dataset.counts.items())
    drawn = chart(results).to_html(full_html=False, include_plotlyjs=True, config={"displayModeBar": False})
    scores, differences = _scores_and_differences(results)
    label, reference = metric_label(results.metric), escape(results.reference)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p class="about">{escape(results.dataset.name)} · {escape(" · ".join(counts))}<br>
{escape(results.protocol)}</p>
</header>
<section class="verdict">
{"".join(f"<p>{escape(sentence)}</p>" for sentence in verdicts(results))}
</section>
<h2>{label}, and the difference to {reference}</h2>
{drawn}
<p class="note">Left: the mean over users, whiskers its 95 % interval; overlapping whiskers say nothing
about a difference, because all tokenizers answer the same users. Right: the paired difference, which
does.</p>
<h2>Scores</h2>
{_html_table(scores)}
<p class="note">Means over users and seeds; <em>seed SD</em> is the standard deviation of {label} over seeds.
<em>Collisions</em>: share of the items whose codes another item has too.</p>
<h2>Difference to {reference} in {label}</h2>
{_html_table(differences)}
<p class="note">Each tokenizer is compared with {reference} under the same retriever: <em>p (users)</em> is
that of a paired two-sided t-test over users, on scores averaged over seeds, <em>p (Holm)</em> the same
adjusted over all pairs of tokenizers, <em>p (seeds)</em> that of Welch's t-test over the means of seeds.
<em>Better</em> or <em>worse</em> needs the last two below .05. Intervals are over users, of each comparison
alone.</p>
<h2>Semantic IDs</h2>
{_html_table(_quality_table(results))}
</body>
</html>
"""


def _quality_table(results: Results) -> list[dict[str, str]]:
    """Quality of the semantic IDs, one row a tokenizer; ``–`` where a tokenizer has no such figure."""
    by_tokenizer = {row.tokenizer: row.quality for row in results.rows if row.tokenizer != NO_TOKENIZER}
    names = dict.fromkeys(name for quality in by_tokenizer.values() for name in quality)
    return [
        {"tokenizer": tokenizer}
        | {name.replace("_", " "): f"{quality[name]:.4g}" if name in quality else "–" for name in names}
        for tokenizer, quality in by_tokenizer.items()
    ]


def _html_table(rows: Sequence[Mapping[str, str]]) -> str:
    def cells(tag: str, texts: Mapping[str, str]) -> str:
        aligned = {name: ' class="name"' if name in _NAMES else "" for name in texts}
        return "".join(f"<{tag}{aligned[name]}>{escape(text)}</{tag}>" for name, text in texts.items())

    head = cells("th", {name: name for row in rows[:1] for name in row})
    body = "\n".join(f'<tr class="{row.get("verdict", "")}">{cells("td", row)}</tr>' for row in rows)
    return f'<div class="wide"><table>\n<tr>{head}</tr>\n{body}\n</table></div>'


_STYLE = f"""
body {{ font: 16px/1.55 system-ui, sans-serif; color: #1f2328; max-width: 1180px; margin: 2rem auto;
  padding: 0 1.25rem; }}
h1 {{ font-size: 1.6rem; margin-bottom: 0; }}
h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .5rem; }}
.about, .note {{ color: #57606a; }}
.about {{ margin-top: .2rem; }}
.note {{ font-size: .88rem; max-width: 60rem; }}
.verdict {{ border-left: 4px solid {COLOURS["better"]}; background: #f6f8fa; padding: .4rem 1.1rem;
  font-size: 1.08rem; }}
.verdict p {{ margin: .5rem 0; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .36rem .5rem; text-align: right; border-bottom: 1px solid #e4e7eb; }}
.name {{ text-align: left; }}
td {{ white-space: nowrap; }}
th {{ vertical-align: bottom; border-bottom: 2px solid #57606a; }}
.better td:last-child {{ color: {COLOURS["better"]}; font-weight: 600; }}
.worse td:last-child {{ color: {COLOURS["worse"]}; font-weight: 600; }}
.reference td {{ background: #f6f8fa; }}
.floor td {{ color: #57606a; }}
"""
