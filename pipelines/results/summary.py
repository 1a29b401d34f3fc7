"""The results of a benchmark: a table of tokenizers and retrievers, and their tested differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from pipelines.config.benchmark import NO_TOKENIZER
from pipelines.results.categories import CodeCategories
from pipelines.results.cell import Cell, Curve, Dataset
from recsys.evaluation.hypothesis_tests import TESTS, mean_interval
from recsys.evaluation.scores import QueryScores, check_comparable, mean_over_seeds
from recsys.evaluation.significance import Comparison, compare_all
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

    @property
    def verdict(self) -> str:
        """The verdict against the reference; without a comparison ``reference`` or ``baseline``."""
        if self.comparison:
            return self.comparison.verdict
        return "baseline" if self.is_baseline else "reference"


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
    """

    title: str
    dataset: Dataset
    protocol: str
    metric: str
    labels: Mapping[str, str]
    reference: str
    rows: Sequence[Row]
    tokenizers: Sequence[TokenizerRow]

    @property
    def label(self) -> str:
        """The label of the main metric."""
        return self.labels[self.metric]

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
            **{
                f"{name}_{what}": value
                for name, result in comparison.tests.items()
                for what, value in TESTS[name].record(result).items()
            },
            "queries": comparison.n,
            "verdict": comparison.verdict,
            "dissent": ", ".join(TESTS[name].label for name in comparison.dissent),
            "single_table": not {row.tokenizer, reference}.isdisjoint(self.single_tables()),
        }


def summarise(
    title: str,
    dataset: Dataset,
    protocol: str,
    cells: Sequence[Cell],
    *,
    reference: str,
    metric: str = "ndcg_at_10",
    labels: Mapping[str, str] | None = None,
) -> Results:
    """Return the table of a benchmark, with every row tested against the reference and the best baseline.

    The scores of a query are averaged over seeds first. One family of comparisons, over which p is adjusted,
    is all pairs of tokenizers under each retriever that uses one. A second family is each of these against
    the best baseline; which baseline is the best is known from the same scores only. With two seeds or more
    a difference must also hold over seeds, see
    :attr:`~recsys.evaluation.significance.Comparison.verdict`.

    Args:
        title: The benchmark's name.
        dataset: What it ran on.
        protocol: How it was evaluated, in words.
        cells: All cells.
        reference: The tokenizer with which all others are compared.
        metric: The main metric.
        labels: Metric to its label; the metrics' own names if not given.

    Raises:
        ValueError: If there are no cells, or one twice; if a retriever has no result for the reference; if
            the metric is unknown; or if cells were scored on different evaluation sets.
    """
    if not cells:
        raise ValueError("a benchmark without results cannot be summarised")
    _check_distinct(cells)
    groups: dict[tuple[str, str], list[Cell]] = {}
    runs: dict[tuple[str, str], list[QueryScores]] = {}
    for cell in cells:
        if cell.scores is not None:
            key = cell.name.retriever, cell.name.tokenizer
            groups.setdefault(key, []).append(cell)
            runs.setdefault(key, []).append(cell.scores)
            check_comparable(next(iter(runs.values()))[0], cell.scores)
    compared = [key for key in groups if key[1] != NO_TOKENIZER]
    for retriever, _ in compared:
        if (retriever, reference) not in groups:
            raise ValueError(f"no result for the reference tokenizer {reference!r} with {retriever}")
    # The second of a pair is compared with the first; the reference always comes first.
    pairs = [(b, a) if b[1] == reference else (a, b) for a, b in combinations(compared, 2) if a[0] == b[0]]
    tests = dict(zip(pairs, compare_all(runs, metric, pairs), strict=True))

    rows = [
        _row(same, runs[key], metric, tests.get(((key[0], reference), key))) for key, same in groups.items()
    ]
    rows = _with_next(_sorted_rows(rows, metric), tests)
    rows = _with_baseline(rows, runs, metric)
    if labels is None:
        labels = {name: name for row in rows for name in row.means}
    return Results(title, dataset, protocol, metric, labels, reference, rows, _tokenizer_rows(cells))


def _check_distinct(cells: Sequence[Cell]) -> None:
    """Refuse two cells of one name."""
    seen = set()
    for cell in cells:
        if cell.name in seen:
            tokenizer, retriever, seed = cell.name
            raise ValueError(f"two results for {tokenizer} with {retriever} and seed {seed}")
        seen.add(cell.name)


def _sorted_rows(rows: list[Row], metric: str) -> list[Row]:
    """Return rows by retriever, baselines last, the best first within each."""
    place = {retriever: i for i, retriever in enumerate(dict.fromkeys(row.retriever for row in rows))}
    place |= {row.retriever: len(place) for row in rows if row.is_baseline}
    return sorted(rows, key=lambda row: (place[row.retriever], -row.means[metric]))


def _with_next(
    rows: list[Row], tests: Mapping[tuple[tuple[str, str], tuple[str, str]], Comparison]
) -> list[Row]:
    """Return sorted rows, where the first row of each retriever is compared with the second."""
    changed = list(rows)
    for number, (row, after) in enumerate(pairwise(rows)):
        first = number == 0 or rows[number - 1].retriever != row.retriever
        if first and row.retriever == after.retriever:
            best, following = (row.retriever, row.tokenizer), (after.retriever, after.tokenizer)
            test = tests.get((following, best)) or tests[best, following].reversed()
            changed[number] = replace(row, to_next=test)
    return changed


def _with_baseline(
    rows: list[Row], runs: Mapping[tuple[str, str], Sequence[QueryScores]], metric: str
) -> list[Row]:
    """Return sorted rows, where all that use semantic IDs are compared with the best baseline."""
    baselines = [(row.retriever, row.tokenizer) for row in rows if row.is_baseline]
    compared = [(row.retriever, row.tokenizer) for row in rows if not row.is_baseline]
    if not baselines:
        return rows
    tests = compare_all(runs, metric, [(baselines[0], key) for key in compared])
    against = dict(zip(compared, tests, strict=True))
    return [replace(row, to_baseline=against.get((row.retriever, row.tokenizer))) for row in rows]


def _tokenizer_rows(cells: Sequence[Cell]) -> list[TokenizerRow]:
    """Return one row per tokenizer; a seed has the same semantic IDs under all retrievers."""
    groups: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        if cell.ids:
            groups.setdefault(cell.name.tokenizer, {}).setdefault(cell.ids.digest, cell)
    rows = []
    for tokenizer, by_digest in groups.items():
        distinct = list(by_digest.values())
        first, several = distinct[0], len(distinct) > 1
        values = _shared([cell.quality for cell in distinct])
        assert first.ids  # noqa: S101 — only cells with semantic IDs are in a group
        rows.append(
            TokenizerRow(
                tokenizer=tokenizer,
                seeds=len(distinct),
                means={name: float(np.mean(each)) for name, each in values.items()},
                spreads={name: float(np.std(each, ddof=1)) for name, each in values.items() if several},
                curves=first.curves,
                code_categories=first.ids.code_categories,
                collisions=first.ids.collisions,
            )
        )
    return rows


def _shared(measures: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Return each name that all have, with its values."""
    return {
        name: [each[name] for each in measures]
        for name in measures[0]
        if all(name in each for each in measures)
    }


def _means(measures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return each name that all have, with the mean of its values."""
    return {name: float(np.mean(values)) for name, values in _shared(measures).items()}


def _row(
    cells: Sequence[Cell], runs: Sequence[QueryScores], metric: str, comparison: Comparison | None
) -> Row:
    """Return the row of some cells that differ in their seeds only."""
    scores = mean_over_seeds(runs)
    seed_means = [run.values(metric).mean() for run in runs]
    return Row(
        tokenizer=cells[0].name.tokenizer,
        retriever=cells[0].name.retriever,
        seeds=len(cells),
        means=scores.mean(),
        interval=mean_interval(scores.values(metric)),
        seed_spread=float(np.std(seed_means, ddof=1)) if len(cells) > 1 else None,
        quality=_means([cell.quality for cell in cells]),
        diagnostics=_means([cell.numeric_diagnostics() for cell in cells]),
        seconds=float(np.mean([cell.seconds for cell in cells])),
        comparison=comparison,
    )
