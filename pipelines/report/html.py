"""Results as an HTML page that needs no other file and no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from pipelines.report.charts import COLOURS, category_maps, score_chart, usage_curves
from pipelines.report.tables import (
    NAMES,
    Table,
    baseline_table,
    failure_table,
    reference_table,
    score_table,
    tokenizer_table,
)
from pipelines.report.verdicts import verdicts
from pipelines.results.rows import Results
from recsys.audit.findings import Finding

_COLLISIONS_NOTE = """<em>Collisions</em>: share of items whose codes another item has too. Such items
get the same score, unless a column <em>collisions by</em> says otherwise. By <em>digit</em>: one more
level tells them apart, and all figures are about the codes before it. By <em>sinkhorn</em>: their last
codes were assigned anew, and all figures are about the codes after that."""
_DIAGNOSTICS_NOTE = """ <em>Search error of the beam</em>: share of the exact top that the beam search
missed. <em>Certified</em>: share of queries for which the exact top is proved. Other columns are further
diagnostics of retrievers."""
_TESTS_NOTE = """<p class="note">Each tokenizer is compared with the reference under the same retriever,
and with the best baseline; baselines are the retrievers that use no semantic IDs. <em>P</em> is that of a
two-sided t-test of the mean difference over queries (one per user where the next item is predicted) and over
trainings from several seeds, adjusted by Holm's method. The family of the first table is all pairs of
tokenizers under the same retriever, for all retrievers together, also pairs that are not shown; that of the
second is every tokenizer under every retriever against the best baseline. <em>Better</em> and <em>worse</em>
need p below the level, .05 for the whole family unless the sentences above say otherwise.
<em>Equivalent</em>: the whole interval lies within the region of equivalence, a share of the reference's
score. <em>Undecided</em>: neither; with one seed of a random method always, because nothing is known of luck
in training. A verdict with * holds for one table of codes only. Intervals are over queries and trainings, for
each comparison alone. <em>Detectable</em>: the true difference that this comparison would find in 80 % of
repetitions, at the corrected level. The other tests assume less, but are over queries alone: <em>p
(Wilcoxon)</em> of the signed-rank test, for which a difference counts by its rank only, <em>p
(permutation)</em> of random flips of the differences' signs, and for hits <em>p (McNemar)</em>; all are
adjusted likewise.</p>"""


def html_report(results: Results, findings: Sequence[Finding] = ()) -> str:
    """Return the page.

    Args:
        results: The results.
        findings: What an audit of the data found.
    """
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
{_failures_section(results) if results.failures else ""}
{_tokenizers_section(results) if results.tokenizers else ""}
{_audit_section(findings) if findings else ""}
</body>
</html>
"""


def _scores_section(results: Results) -> str:
    """Return the chart, the scores and the comparisons."""
    label, reference = escape(results.label), escape(results.reference)
    compared, against = reference_table(results), baseline_table(results)
    parts = []
    if compared:
        parts.append(f"<h2>Difference to {reference} in {label}</h2>\n{_html_table(compared)}")
    if against:
        best = escape(results.baselines()[0].retriever)
        parts.append(f"<h2>Difference to the best baseline, {best}</h2>\n{_html_table(against)}")
    heading = f"{label}, and the difference to {reference}" if compared else label
    return f"""<h2>{heading}</h2>
{_drawn(score_chart(results))}
<p class="note">Left: the mean over queries, with its 95 % interval. Overlapping intervals say nothing about a
difference, because all methods answer the same queries. Right: the paired difference, which does.</p>
<h2>Scores</h2>
{_html_table(score_table(results))}
<p class="note">Means over queries and seeds; <em>seed SD</em> is the standard deviation of {label} over
seeds.
{_COLLISIONS_NOTE}{_DIAGNOSTICS_NOTE if results.diagnostic_names() else ""}</p>
{"".join(parts)}
{_TESTS_NOTE if parts else ""}"""


def _audit_section(findings: Sequence[Finding]) -> str:
    """Return what of the scores could be an artefact of the data; findings that are in order in one line."""
    serious = sorted(
        (one for one in findings if one.severity != "ok"), key=lambda one: one.severity == "note"
    )
    lines = [
        f"<li><strong>{one.severity}: {escape(one.name)}, {escape(one.shown)}.</strong> {escape(one.meaning)}"
        f" What to do: {escape(one.advice)}.</li>"
        for one in serious
    ]
    return f"""<h2>What of the scores could be an artefact of the data</h2>
<ul>
{"".join(lines)}
</ul>
<p class="note">{len(findings) - len(serious)} of {len(findings)} findings are in order.
<em>gritrec audit</em> also probes what ids and the order of events are worth to baselines.</p>"""


def _failures_section(results: Results) -> str:
    """Return the cells that have no results, and why."""
    return f"""<h2>Failed</h2>
{_html_table(failure_table(results))}
<p class="note">These cells have no results, for the reasons given. Other seeds of the same methods are in the
tables above.</p>"""


def _tokenizers_section(results: Results) -> str:
    """Return the quality of the semantic IDs, as a table and as charts."""
    parts = [
        f"""<h2>Semantic IDs</h2>
{_html_table(tokenizer_table(results.tokenizers))}
<p class="note">Means over seeds ± their standard deviation. <em>Reconstruction error</em>: share of the
embeddings' variance that the codes lose; <em>distortion per bit</em>: the same, divided by the sum of the
levels' entropies. <em>Utilization</em>, <em>perplexity</em> and <em>Gini</em> (0 if all codes are used
equally) are means over the levels, <em>dead codes</em> their sum. {_COLLISIONS_NOTE} <em>Purity</em>: share
of items in the most common category of their first code; <em>by chance</em>: the same with the categories
shuffled, which more codes raise too. Item texts name their categories, so purity tells how much of them
a code keeps.</p>"""
    ]
    if maps := category_maps(results.tokenizers):
        parts.append(f"""<h2>Categories of the first codes</h2>
{_drawn(maps)}
<p class="note">Each column is a code of the first level, of the first seed, sorted by the code's most common
category. Dark blocks: the code determines the category. Shown are at most the 256 codes with the most items,
without codes of a single item, and the twelve largest categories.</p>""")
    if curves := usage_curves(results.tokenizers):
        parts.append(f"""<h2>Use of the codes while fitting</h2>
{_drawn(curves)}
<p class="note">Of the first seed, as the tokenizers reported it.</p>""")
    return "\n".join(parts)


def _drawn(figure: go.Figure) -> str:
    """Return a chart as HTML that uses the page's copy of Plotly."""
    return figure.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False})


def _html_table(rows: Table) -> str:
    """Return a table as HTML; the class of a row is its verdict."""

    def cells(tag: str, texts: dict[str, str]) -> str:
        aligned = {name: ' class="name"' if name in (*NAMES, "reason") else "" for name in texts}
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
td:last-child.name {{ white-space: pre-wrap; }}
th {{ vertical-align: bottom; border-bottom: 2px solid #57606a; }}
.better td:last-child {{ color: {COLOURS["better"]}; font-weight: 600; }}
.worse td:last-child {{ color: {COLOURS["worse"]}; font-weight: 600; }}
.reference td {{ background: #f6f8fa; }}
.baseline td {{ color: #57606a; }}
"""
