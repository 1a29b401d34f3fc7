"""Results as tables of text, for the console, the HTML report and anyone else.

A table is a list of rows; a row maps header to cell, and ``–`` stands where there is nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from pipelines.report.formatting import (
    confidence,
    decimal,
    diagnostic_label,
    diagnostic_value,
    interval,
    mean_and_spread,
    p_value,
    percent,
)
from pipelines.results.rows import Results, Row, TokenizerRow
from recsys.evaluation.hypothesis_tests import TESTS, TestResult
from recsys.evaluation.significance import Comparison

Table = list[dict[str, str]]

NAMES = ("retriever", "tokenizer")
"""Headers of columns that name a row."""

COLLISIONS_BY = "collisions by"
"""Header of the column that tells what happened to collisions."""

NOTHING = "–"

_tenths, _hundredths, _thousandths = (partial(decimal, places=places) for places in (1, 2, 3))
_MEASURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "reconstruction error": ("reconstruction_error", _thousandths),
    "distortion per bit": ("distortion_per_bit", decimal),
    "utilization": ("utilization", _thousandths),
    "dead codes": ("dead_codes", _tenths),
    "perplexity": ("perplexity", _tenths),
    "Gini": ("gini", _thousandths),
    "unique IDs": ("unique_id_rate", _thousandths),
    "collisions": ("collision_rate", percent),
    "purity": ("purity_1", _thousandths),
    "by chance": ("chance_purity_1", _thousandths),
    "fit seconds": ("fit_seconds", _hundredths),
    "encode seconds": ("encode_seconds", _hundredths),
}
"""Header to a measure of quality, and how it is formatted."""


def score_table(results: Results) -> Table:
    """Return the scores, quality and diagnostics of every row."""
    policies = _policies(results.tokenizers)
    return [
        {
            "retriever": row.retriever,
            "tokenizer": row.tokenizer,
            "seeds": str(row.seeds),
            **{results.labels[name]: decimal(mean) for name, mean in row.means.items()},
            "seed SD": NOTHING if row.seed_spread is None else decimal(row.seed_spread),
            "collisions": percent(row.quality["collision_rate"])
            if "collision_rate" in row.quality
            else NOTHING,
            **({COLLISIONS_BY: policies.get(row.tokenizer, NOTHING)} if policies else {}),
            **{
                diagnostic_label(name): diagnostic_value(name, row.diagnostics[name])
                if name in row.diagnostics
                else NOTHING
                for name in results.diagnostic_names()
            },
        }
        for row in results.rows
    ]


def reference_table(results: Results) -> Table:
    """Return the comparison of every row that has one with the reference tokenizer.

    A verdict with ``*`` holds for one table of codes only, that of the tokenizer or of the reference.
    """
    single = {*results.single_tables()}
    return _comparison_table(
        [
            (row, row.comparison, "*" if single & {row.tokenizer, results.reference} else "")
            for row in results.rows
            if row.comparison
        ]
    )


def baseline_table(results: Results) -> Table:
    """Return the comparison of every row that has one with the best baseline."""
    return _comparison_table([(row, row.to_baseline, "") for row in results.rows if row.to_baseline])


def interval_header(comparison: Comparison) -> str:
    """Return the header of the column of intervals, as ``95 % interval``."""
    return f"{confidence(comparison.level)} interval"


def failure_table(results: Results) -> Table:
    """Return every cell that has no results, and why."""
    return [
        {
            "retriever": failure.name.retriever,
            "tokenizer": failure.name.tokenizer,
            "seed": str(failure.name.seed),
            "reason": failure.reason,
        }
        for failure in results.failures
    ]


def tokenizer_table(tokenizers: Sequence[TokenizerRow]) -> Table:
    """Return the quality of the semantic IDs; measures that no tokenizer has are left out."""
    policies = _policies(tokenizers)
    measures = {
        header: measure
        for header, measure in _MEASURES.items()
        if any(measure[0] in row.means for row in tokenizers)
    }
    return [
        {
            "tokenizer": row.tokenizer,
            "seeds": str(row.seeds),
            **({COLLISIONS_BY: policies[row.tokenizer]} if policies else {}),
            **{
                header: mean_and_spread(row.means[name], row.spreads.get(name), write)
                if name in row.means
                else NOTHING
                for header, (name, write) in measures.items()
            },
        }
        for row in tokenizers
    ]


def _policies(tokenizers: Sequence[TokenizerRow]) -> dict[str, str]:
    """Return what happened to each tokenizer's collisions; empty if all share their score."""
    found = {row.tokenizer: str(row.collisions) for row in tokenizers}
    return found if {*found.values()} - {"shared"} else {}


def _comparison_table(compared: Sequence[tuple[Row, Comparison, str]]) -> Table:
    """Return comparisons with a column for every test that has one and applies, and marks after verdicts."""
    columns = {
        test.column: name
        for name, test in TESTS.items()
        if test.column and any(name in one.tests and one.tests[name].is_answer for _, one, _ in compared)
    }
    columns = {TESTS["t_test"].column: "t_test", **columns}
    return [
        {
            "retriever": row.retriever,
            "tokenizer": row.tokenizer,
            "difference": decimal(comparison.difference, sign=True),
            interval_header(comparison): interval(comparison.low, comparison.high),
            "detectable": f"±{decimal(comparison.outlook.detectable)}",
            **{header: _p_cell(comparison.tests.get(name)) for header, name in columns.items()},
            "verdict": comparison.verdict + mark,
        }
        for row, comparison, mark in compared
    ]


def _p_cell(result: TestResult | None) -> str:
    """Return a test's adjusted p."""
    return NOTHING if result is None or result.p_adjusted is None else p_value(result.p_adjusted)
