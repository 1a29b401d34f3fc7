"""Results on the console: tables that fit 80 columns, and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from pipelines.report.formatting import diagnostic_label
from pipelines.report.tables import (
    COLLISIONS_BY,
    NAMES,
    Table,
    baseline_table,
    reference_table,
    score_table,
    tokenizer_table,
)
from pipelines.report.verdicts import verdicts
from pipelines.results.rows import Results

_HTML_ONLY = ("seeds", "distortion per bit", "dead codes", "Gini", "unique IDs", "encode seconds")
_COMPARISON = (*NAMES, "difference", "95 % interval", "p (Holm)", "verdict")
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


def console_report(results: Results) -> Group:
    """Return tables and verdicts to be printed by rich.

    Scores are those at the main metric's cutoff. Where tokenizers alone are compared, their quality is
    shown.
    """
    sentences = [Text(f"• {sentence}") for sentence in verdicts(results)]
    if not results.rows:
        quality = tokenizer_table(results.tokenizers)
        headers = [header for header in quality[0] if header not in _HTML_ONLY]
        return Group(_console_table("Semantic IDs", headers, quality), Text(), *sentences)
    scores = score_table(results)
    parts: list[RichTable | Text] = [_console_table("Scores", _score_headers(results, scores), scores)]
    if compared := reference_table(results):
        parts.append(_console_table(f"Difference to {results.reference}", _COMPARISON, compared))
    if against := baseline_table(results):
        best = results.baselines()[0].retriever
        parts.append(_console_table(f"Difference to the best baseline, {best}", _COMPARISON, against))
    return Group(*parts, Text(), *sentences)


def _score_headers(results: Results, scores: Table) -> list[str]:
    """Return the headers to show: two metrics and the main one at its cutoff, and the beam's search error."""
    cutoff = results.label.partition("@")[2]
    metrics = [label for label in results.labels.values() if label.partition("@")[2] == cutoff]
    hidden = {*results.labels.values()} - {*metrics[:2], results.label}
    hidden |= {diagnostic_label(n) for n in results.diagnostic_names() if n != "search_error_at_10"}
    return [header for header in scores[0] if header not in hidden]


def _console_table(title: str, headers: Sequence[str], rows: Table) -> RichTable:
    """Return a table in which only names may be folded, and a standard deviation is below its mean."""
    table = RichTable(
        title=f"\n{title}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    for header in headers:
        justify: Literal["left", "right"] = "left" if header in (*NAMES, "verdict") else "right"
        shown = _SHORT.get(header, header)
        table.add_column(shown, justify=justify, no_wrap=header not in NAMES, overflow="fold")
    for row in rows:
        verdict = row.get("verdict", "").rstrip("*")
        style = {"better": "green", "worse": "red"}.get(verdict)
        table.add_row(*(row[header].replace(" ±", "\n±") for header in headers), style=style)
    return table
