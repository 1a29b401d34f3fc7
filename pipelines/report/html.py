"""A benchmark's results for people: tables, and a page that opens offline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from html import escape
from typing import Literal

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from pipelines.report.charts import COLOURS, category_maps, score_chart, usage_curves
from pipelines.report.formatting import (
    decimal,
    figure_label,
    figure_value,
    interval,
    mean_and_spread,
    metric_label,
    p_value,
    percent,
)
from pipelines.report.verdicts import verdicts
from pipelines.results.summary import Results, TokenizerRow
from recsys.evaluation.significance import Comparison

_NAMES = ("retriever", "tokenizer")
_TESTS = (
    "difference",
    "95 % interval",
    "p (queries)",
    "p (seeds)",
    "p (Holm)",
    "p (Wilcoxon)",
    "p (permutation)",
    "bootstrap interval",
)
_POLICY = "collisions by"
_TENTHS, _HUNDREDTHS, _THOUSANDTHS = (partial(decimal, places=places) for places in (1, 2, 3))
_FIGURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "reconstruction error": ("reconstruction_error", _THOUSANDTHS),
    "distortion per bit": ("distortion_per_bit", decimal),
    "utilization": ("utilization", _THOUSANDTHS),
    "dead codes": ("dead_codes", _TENTHS),
    "perplexity": ("perplexity", _TENTHS),
    "Gini": ("gini", _THOUSANDTHS),
    "unique IDs": ("unique_id_rate", _THOUSANDTHS),
    "collisions": ("collision_rate", percent),
    "purity": ("purity_1", _THOUSANDTHS),
    "by chance": ("chance_purity_1", _THOUSANDTHS),
    "fit seconds": ("fit_seconds", _HUNDREDTHS),
    "encode seconds": ("encode_seconds", _HUNDREDTHS),
}
"""Header → figure of quality, and how it is written."""
_HTML_ONLY = ("seeds", "distortion per bit", "dead codes", "Gini", "unique IDs", "encode seconds")
_SHORT = {
    "reconstruction error": "error",
    "utilization": "used",
    "perplexity": "perpl.",
    _POLICY: "by",
    "by chance": "by\nchance",
    "search error of the beam, top 10": "search\nerror",
    "fit seconds": "fit\nsec.",
}
"""Header → what stands for it on the console, where all are to fit 80 columns."""
_COLLISIONS_NOTE = """<em>Collisions</em>: share of the items whose codes another item has too; these share
their score, unless a column <em>collisions by</em> says otherwise. By <em>digit</em> a further level tells
them apart, and all figures are of the codes before it; by <em>sinkhorn</em> last codes were dealt out anew,
and all figures are of the codes after that."""
_FIGURES_NOTE = """ <em>Search error of the beam</em>: share of the exact top that the beam missed;
<em>certified</em>: share of queries for which that exact top is proved to be it. Other columns are what
retrievers tell of themselves."""


_TESTS_NOTE = """<p class="note">Each tokenizer is compared with the reference under the same retriever, and
with the best of the floors, as all retrievers that use no semantic IDs are called here.
<em>P (queries)</em> is that of a paired two-sided t-test over queries (where the next item is asked
for, each user is one), on scores averaged over seeds, <em>p (Holm)</em> the same
adjusted over all comparisons of the table and those not shown,
<em>p (seeds)</em> that of a t-test over the means of seeds (Welch's; one-sample against
what has no seeds). <em>Better</em> or <em>worse</em> needs the last two below .05;
a verdict with * holds for one table of codes only. Intervals are over queries, of each
comparison alone. Beside these stand tests that assume less, all over queries: <em>p
(Wilcoxon)</em> of the signed-rank test, to which a difference counts by its rank only, and
<em>p (permutation)</em> of random flips of the differences' signs, both adjusted likewise;
and the 95 % percentile interval of the bootstrap.</p>"""


def table(results: Results) -> list[dict[str, str]]:
    """The results as text, one dictionary of header → cell for each row; ``–`` where there is nothing.

    A verdict with ``*`` speaks of one table of codes only, that of the tokenizer or of the reference.
    """
    policies = _policies(results.tokenizers)
    single = {*results.single_tables()}
    figures = results.figure_names()
    return [
        {
            "retriever": row.retriever,
            "tokenizer": row.tokenizer,
            "seeds": str(row.seeds),
            **{metric_label(name): decimal(mean) for name, mean in row.means.items()},
            "seed SD": "–" if row.seed_spread is None else decimal(row.seed_spread),
            "collisions": percent(row.quality["collision_rate"]) if "collision_rate" in row.quality else "–",
            **({_POLICY: policies.get(row.tokenizer, "–")} if policies else {}),
            **{
                figure_label(name): figure_value(name, row.figures[name]) if name in row.figures else "–"
                for name in figures
            },
            **_significance_cells(row.comparison),
            "verdict": row.verdict
            + ("*" if row.comparison and not single.isdisjoint((row.tokenizer, results.reference)) else ""),
        }
        for row in results.rows
    ]


def floor_table(results: Results) -> list[dict[str, str]]:
    """Every row that uses semantic IDs against the best floor, formatted; empty where there is no floor."""
    return [
        {
            "retriever": row.retriever,
            "tokenizer": row.tokenizer,
            **_significance_cells(row.to_floor),
            "verdict": row.to_floor.verdict,
        }
        for row in results.rows
        if row.to_floor
    ]


def _policies(tokenizers: Sequence[TokenizerRow]) -> dict[str, str]:
    """Tokenizer → what became of its collisions; empty if all are shared."""
    found = {row.tokenizer: str(row.collisions) for row in tokenizers}
    return found if {*found.values()} - {"shared"} else {}


def _significance_cells(test: Comparison | None) -> dict[str, str]:
    if test is None:
        return dict.fromkeys(_TESTS, "–")
    found = (
        decimal(test.difference, sign=True),
        interval(test.low, test.high),
        p_value(test.p_value),
        "–" if test.p_seeds is None else p_value(test.p_seeds),
        p_value(test.p_adjusted),
        p_value(test.p_wilcoxon),
        p_value(test.p_permutation),
        interval(test.boot_low, test.boot_high),
    )
    return dict(zip(_TESTS, found, strict=True))


def tokenizer_table(tokenizers: Sequence[TokenizerRow]) -> list[dict[str, str]]:
    """Quality of the semantic IDs as text, as of :func:`table`; figures that none has are left out."""
    policies = _policies(tokenizers)
    figures = {
        header: figure
        for header, figure in _FIGURES.items()
        if any(figure[0] in row.means for row in tokenizers)
    }
    return [
        {
            "tokenizer": row.tokenizer,
            "seeds": str(row.seeds),
            **({_POLICY: policies[row.tokenizer]} if policies else {}),
            **{
                header: mean_and_spread(row.means[name], row.spreads.get(name), write)
                if name in row.means
                else "–"
                for header, (name, write) in figures.items()
            },
        }
        for row in tokenizers
    ]


def console_report(results: Results) -> Group:
    """Tables and verdicts, to be printed by rich.

    Scores at the main metric's cutoff and differences; the semantic IDs where they alone are compared.
    """
    sentences = [Text(f"• {sentence}") for sentence in verdicts(results)]
    if not results.rows:
        figures = tokenizer_table(results.tokenizers)
        headers = [header for header in figures[0] if header not in _HTML_ONLY]
        return Group(_console_table("Semantic IDs", headers, figures), Text(), *sentences)
    scores, compared = _scores_and_differences(results)
    cutoff = metric_label(results.metric).partition("@")[2]
    left_out = {figure_label(name) for name in results.figure_names() if name != "search_error_at_10"}
    headers = [h for h in scores[0] if h.partition("@")[2] in ("", cutoff) and h not in left_out]
    differences = [*_NAMES, "difference", "95 % interval", "p (Holm)", "verdict"]
    parts: list[Table | Text] = [_console_table("Scores", headers, scores)]
    if compared:
        parts.append(_console_table(f"Difference to {results.reference}", differences, compared))
    if against := floor_table(results):
        parts.append(_console_table(f"Difference to the best floor, {_floor(results)}", differences, against))
    return Group(*parts, Text(), *sentences)


def _floor(results: Results) -> str:
    return results.floors()[0].retriever


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
    """Only names may be folded; a standard deviation stands below its mean."""
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
        shown = _SHORT.get(header, header)
        found.add_column(shown, justify=justify, no_wrap=header not in _NAMES, overflow="fold")
    for row in rows:
        style = {"better": "green", "worse": "red", "floor": "dim"}.get(row.get("verdict", "").rstrip("*"))
        found.add_row(*(row[header].replace(" ±", "\n±") for header in headers), style=style)
    return found


def html_report(results: Results) -> str:
    """A page that needs no other file and no network."""
    question = "which tokenizer recommends best?" if results.rows else "what are the semantic IDs like?"
    title = f"{escape(results.title)}: {question}"
    counts = (f"{count:,} {name}" for name, count in results.dataset.counts.items())
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_STYLE}</style>
<script>{get_plotlyjs()}</script>
</head>
<body>
<header>
<h1>{title}</h1>
<p class="about">{escape(results.dataset.name)} · {escape(" · ".join(counts))}<br>
{escape(results.protocol) if results.rows else ""}</p>
</header>
<section class="verdict">
{"".join(f"<p>{escape(sentence)}</p>" for sentence in verdicts(results))}
</section>
{_scores_section(results) if results.rows else ""}
{_tokenizers_section(results.tokenizers)}
</body>
</html>
"""


def _scores_section(results: Results) -> str:
    scores, differences = _scores_and_differences(results)
    label, reference = metric_label(results.metric), escape(results.reference)
    against = floor_table(results)
    parts = [
        f"<h2>Difference to {reference} in {label}</h2>\n{_html_table(differences)}" if differences else "",
        f"<h2>Difference to the best floor, {escape(_floor(results))}</h2>\n{_html_table(against)}"
        if against
        else "",
    ]
    return f"""<h2>{label}, and the difference to {reference}</h2>
{_drawn(score_chart(results))}
<p class="note">Left: the mean over queries, whiskers its 95 % interval; overlapping whiskers say nothing
about a difference, because all tokenizers answer the same queries. Right: the paired difference, which
does.</p>
<h2>Scores</h2>
{_html_table(scores)}
<p class="note">Means over queries and seeds; <em>seed SD</em> is the standard deviation of {label} over
seeds.
{_COLLISIONS_NOTE}{_FIGURES_NOTE if results.figure_names() else ""}</p>
{"".join(parts)}
{_TESTS_NOTE if any(parts) else ""}"""


def _tokenizers_section(tokenizers: Sequence[TokenizerRow]) -> str:
    parts = [
        f"""<h2>Semantic IDs</h2>
{_html_table(tokenizer_table(tokenizers))}
<p class="note">Means over seeds ± their standard deviation. <em>Reconstruction error</em>: share of the
embeddings' variance that the codes lose; <em>distortion per bit</em>: the same, divided by the sum of the
levels' entropies. <em>Utilization</em>, <em>perplexity</em> and <em>Gini</em> (0 if all codes are used
alike) are means over the levels, <em>dead codes</em> their sum. {_COLLISIONS_NOTE} <em>Purity</em>: share
of the items that are of the commonest category of their first code; <em>by chance</em>: the same with the
categories shuffled, which more codes raise too. Item texts name their categories, so purity says what a code
keeps of them.</p>"""
    ]
    if maps := category_maps(tokenizers):
        parts.append(f"""<h2>Categories of the first codes</h2>
{_drawn(maps)}
<p class="note">A column is a code of the first level, of the first seed; codes stand by their commonest
category. Dark blocks: the code tells the category. At most the 256 codes with the most items, those of
several items only, and the twelve largest categories are shown.</p>""")
    if curves := usage_curves(tokenizers):
        parts.append(f"""<h2>Use of the codes while fitting</h2>
{_drawn(curves)}
<p class="note">Of the first seed, as the tokenizers reported it.</p>""")
    return "\n".join(parts)


def _drawn(figure: go.Figure) -> str:
    return figure.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False})


def _html_table(rows: Sequence[Mapping[str, str]]) -> str:
    def cells(tag: str, texts: Mapping[str, str]) -> str:
        aligned = {name: ' class="name"' if name in _NAMES else "" for name in texts}
        return "".join(f"<{tag}{aligned[name]}>{escape(text)}</{tag}>" for name, text in texts.items())

    head = cells("th", {name: name for row in rows[:1] for name in row})
    body = "\n".join(
        f'<tr class="{row.get("verdict", "").rstrip("*")}">{cells("td", row)}</tr>' for row in rows
    )
    return f'<div class="wide"><table>\n<tr>{head}</tr>\n{body}\n</table></div>'


_STYLE = f"""
body {{ font: 16px/1.55 system-ui, sans-serif; color: #1f2328; max-width: 1400px; margin: 2rem auto;
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
