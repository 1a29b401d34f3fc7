"""Results on the console: tables that fit 80 columns, and verdicts."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.report.formatting import diagnostic_label
from pipelines.report.overview import Overview, OverviewTable
from pipelines.report.tables import (
    COLLISIONS_BY,
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

_HTML_ONLY = ("seeds", "distortion per bit", "dead codes", "Gini", "unique IDs", "encode seconds")
_COMPARISON = (*NAMES, "difference", "p", "verdict")
_SHORT = {
    "reconstruction error": "error",
    "utilization": "used",
    "perplexity": "perpl.",
    COLLISIONS_BY: "by",
    "by chance": "by\nchance",
    "search error of the beam, top 10": "search\nerror",
    "fit seconds": "fit\nsec.",
}
"""Header to a shorter one."""


def console_report(results: Results) -> Overview:
    """Return the tables and verdicts for the console.

    Scores are those at the main metric's cutoff. Where tokenizers alone are compared, their quality is
    shown.
    """
    tables = []
    if not results.rows:
        quality = tokenizer_table(results.tokenizers)
        headers = [header for header in quality[0] if header not in _HTML_ONLY]
        tables.append(_table("Semantic IDs", headers, quality))
    else:
        scores = score_table(results)
        tables.append(_table("Scores", _score_headers(results, scores), scores))
    if compared := reference_table(results):
        tables.append(_comparison_table(f"Difference to {results.reference}", compared))
    if against := baseline_table(results):
        best = results.baselines()[0].retriever
        tables.append(_comparison_table(f"Difference to the best baseline, {best}", against))
    if failed := failure_table(results):
        tables.append(_table("Failed", [*failed[0]], failed))
    return Overview(tables, verdicts(results))


def _comparison_table(title: str, rows: Table) -> OverviewTable:
    """Return a table of comparisons with the columns by which verdicts go."""
    headers = [header for header in rows[0] if header in _COMPARISON or header.endswith("interval")]
    return _table(title, headers, rows)


def _score_headers(results: Results, scores: Table) -> list[str]:
    """Return the headers to show: two metrics and the main one at its cutoff, and the beam's search error."""
    cutoff = results.label.partition("@")[2]
    metrics = [label for label in results.labels.values() if label.partition("@")[2] == cutoff]
    hidden = {*results.labels.values()} - {*metrics[:2], results.label}
    hidden |= {diagnostic_label(n) for n in results.diagnostic_names() if n != "search_error_at_10"}
    return [header for header in scores[0] if header not in hidden]


def _table(title: str, headers: Sequence[str], rows: Table) -> OverviewTable:
    """Return a table in which only names and reasons may be folded, and each spread is below its mean."""
    return OverviewTable(
        title,
        headers=[_SHORT.get(header, header) for header in headers],
        foldable=[*NAMES, "verdict", "reason"],
        rows=[[row[header].replace(" ±", "\n±") for header in headers] for row in rows],
        verdicts=[row.get("verdict", "").rstrip("*") for row in rows],
    )
