"""The results of a benchmark: rows of tokenizers and retrievers, with what their comparisons found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.names import NO_TOKENIZER
from pipelines.results.categories import CodeCategories
from pipelines.results.cell import Curve, Dataset, Failure
from recsys.evaluation.hypothesis_tests import TESTS
from recsys.evaluation.significance import Comparison
from semantic_ids.collisions import Collisions


@dataclass(frozen=True)
class TokenizerRow:
    """The semantic IDs of one tokenizer over all its seeds.

    Attributes:
        tokenizer: Its name in the benchmark.
        seeds: Number of seeds with semantic IDs of their own; 1 where all seeds share a table of codes.
        means: Measure of quality to its mean over these seeds. What one seed lacks is left out.
        spreads: The same measures' standard deviations; empty with one seed.
        curves: Curves of the first seed's fit, as in :class:`~pipelines.results.cell.Cell`.
        code_categories: Categories of the first seed's first codes.
        collisions: What happened to items with the same codes.
    """

    tokenizer: str
    seeds: int
    means: Mapping[str, float]
    spreads: Mapping[str, float]
    curves: Mapping[str, Curve]
    code_categories: CodeCategories | None
    collisions: Collisions


@dataclass(frozen=True)
class Row:
    """One tokenizer under one retriever over all its seeds, or one baseline.

    Attributes:
        tokenizer: Its name, or :data:`~pipelines.config.benchmark.NO_TOKENIZER` for a baseline.
        retriever: Its name.
        seeds: Number of seeds.
        means: Metric to its mean over queries and seeds.
        interval: 95 % interval of the main metric's mean, over queries.
        seed_spread: Standard deviation over seeds of the main metric's mean; None with one seed.
        quality: Measure of the semantic IDs to its mean over seeds. What one seed lacks is left out.
        diagnostics: Diagnostic of the retriever to its mean over seeds. What one seed lacks is left out.
        seconds: Mean time over seeds.
        comparison: Comparison with the reference tokenizer under the same retriever; None for the reference
            itself and for baselines.
        to_next: For the best tokenizer under its retriever, the comparison with the next best.
        to_baseline: Comparison with the best baseline; None for baselines, and where there is none.
    """

    tokenizer: str
    retriever: str
    seeds: int
    means: Mapping[str, float]
    interval: tuple[float, float]
    seed_spread: float | None
    quality: Mapping[str, float]
    diagnostics: Mapping[str, float]
    seconds: float
    comparison: Comparison | None
    to_next: Comparison | None = None
    to_baseline: Comparison | None = None

    @property
    def is_baseline(self) -> bool:
        """Whether the retriever uses no semantic IDs."""
        return self.tokenizer == NO_TOKENIZER


@dataclass(frozen=True)
class Results:
    """The outcome of a benchmark.

    Attributes:
        title: The benchmark's name.
        dataset: What it ran on.
        protocol: How it was evaluated, in words.
        metric: The main metric, as ``ndcg_at_10``.
        labels: Metric to its label in tables, as ``ndcg_at_10`` to ``NDCG@10``.
        reference: The tokenizer with which all others are compared.
        rows: Retrievers in the order of the benchmark, baselines last; under each retriever the best
            tokenizer first, and the best baseline first. Empty where tokenizers alone are compared.
        tokenizers: In the order of the benchmark.
        failures: The cells that have no results, and why. Rows of the same methods have fewer seeds.
        unreachable: Number of test answers that no ranking holds, because ``exclude_seen`` leaves them out.
        answers: Number of test answers.
    """

    title: str
    dataset: Dataset
    protocol: str
    metric: str
    labels: Mapping[str, str]
    reference: str
    rows: Sequence[Row]
    tokenizers: Sequence[TokenizerRow]
    failures: Sequence[Failure] = ()
    unreachable: int = 0
    answers: int = 0

    @property
    def label(self) -> str:
        """The label of the main metric."""
        return self.labels[self.metric]

    def verdict(self, row: Row) -> str:
        """Return the verdict against the reference; without a comparison, the reason why there is none."""
        if row.comparison:
            return row.comparison.verdict
        if row.is_baseline:
            return "baseline"
        return "reference" if row.tokenizer == self.reference else "reference failed"

    def by_retriever(self) -> dict[str, list[Row]]:
        """Return each retriever with its rows, best first; without baselines."""
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            if not row.is_baseline:
                groups.setdefault(row.retriever, []).append(row)
        return groups

    def baselines(self) -> list[Row]:
        """Return the retrievers that use no semantic IDs, best first."""
        return [row for row in self.rows if row.is_baseline]

    def single_tables(self) -> list[str]:
        """Return the tokenizers whose seeds share one table of codes, and so differ in the retriever only."""
        seeds = {row.tokenizer: row.seeds for row in self.rows}
        return [row.tokenizer for row in self.tokenizers if row.seeds < seeds.get(row.tokenizer, 1)]

    def diagnostic_names(self) -> list[str]:
        """Return the names of all diagnostics that any row has."""
        return list(dict.fromkeys(name for row in self.rows for name in row.diagnostics))

    def score_records(self) -> list[dict[str, Any]]:
        """Return one record per row, all with the same keys: scores, spread, quality, diagnostics, time."""
        qualities = list(dict.fromkeys(name for row in self.rows for name in row.quality))
        return [
            {
                "tokenizer": row.tokenizer,
                "retriever": row.retriever,
                "seeds": row.seeds,
                **row.means,
                f"{self.metric}_low": row.interval[0],
                f"{self.metric}_high": row.interval[1],
                f"{self.metric}_seed_spread": row.seed_spread,
                **{name: row.quality.get(name) for name in qualities},
                **{name: row.diagnostics.get(name) for name in self.diagnostic_names()},
                "seconds": row.seconds,
            }
            for row in self.rows
        ]

    def tokenizer_records(self) -> list[dict[str, Any]]:
        """Return one record per tokenizer: each measure's mean and standard deviation."""
        names = list(dict.fromkeys(name for row in self.tokenizers for name in row.means))
        return [
            {
                "tokenizer": row.tokenizer,
                "seeds": row.seeds,
                **{name: row.means.get(name) for name in names},
                **{f"{name}_seed_spread": row.spreads.get(name) for name in names},
            }
            for row in self.tokenizers
        ]

    def significance_records(self) -> list[dict[str, Any]]:
        """Return one record per comparison: first with the reference, then with the best baseline.

        ``reference_kind`` is ``tokenizer`` or ``baseline``. ``single_table`` tells whether the verdict holds
        for one table of codes only, see :meth:`single_tables`.
        """
        with_reference = [
            self._record(row, row.comparison, "tokenizer", self.reference)
            for row in self.rows
            if row.comparison
        ]
        with_baseline = [
            self._record(row, row.to_baseline, "baseline", self.baselines()[0].retriever)
            for row in self.rows
            if row.to_baseline
        ]
        return with_reference + with_baseline

    def _record(self, row: Row, comparison: Comparison, kind: str, reference: str) -> dict[str, Any]:
        """Return one comparison, with what each test says about it."""
        return {
            "tokenizer": row.tokenizer,
            "reference": reference,
            "reference_kind": kind,
            "retriever": row.retriever,
            "metric": self.metric,
            "mean": comparison.mean_b,
            "reference_mean": comparison.mean_a,
            "difference": comparison.difference,
            "low": comparison.low,
            "high": comparison.high,
            "effect_size": comparison.effect_size,
            "level": comparison.level,
            "equivalent_within": comparison.region,
            "detectable": comparison.outlook.detectable,
            "more_seeds": comparison.outlook.more_seeds,
            "more_users": comparison.outlook.more_users,
            **{
                f"{name}_{what}": value
                for name, result in comparison.tests.items()
                for what, value in (
                    ("p", result.p),
                    ("p_holm", result.p_adjusted),
                    ("effect", result.effect),
                )
            },
            "queries": comparison.n,
            "verdict": comparison.verdict,
            "dissent": ", ".join(TESTS[name].label for name in comparison.dissent),
            "single_table": not {row.tokenizer, reference}.isdisjoint(self.single_tables()),
        }
