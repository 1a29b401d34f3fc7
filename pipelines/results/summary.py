"""What a benchmark found: its cells, and the table of tokenizer × retriever made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from pipelines.results.categories import CodeCategories
from recsys.evaluation.scores import QueryScores, check_comparable, mean_over_seeds
from recsys.evaluation.significance import Comparison, compare_all, mean_interval
from semantic_ids.collisions import Collisions

NO_TOKENIZER = "–"
"""Stands in place of the tokenizer for a retriever that uses none: a floor under all others."""

NO_RETRIEVER = "–"
"""Stands in place of the retriever where tokenizers alone are compared."""


@dataclass(frozen=True)
class Dataset:
    """What a benchmark ran on.

    Attributes:
        name: of the corpus, as ``amazon2014-beauty``.
        digest: hex digits that change with the prepared data.
        source: where the raw files came from, a path or an address.
        counts: as ``{"users": 22363, "items": 12101}``.
    """

    name: str
    digest: str
    source: str
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Cell:
    """One tokenizer under one retriever with one seed.

    Attributes:
        tokenizer: its name in the benchmark, or :data:`NO_TOKENIZER`.
        retriever: its name in the benchmark, or :data:`NO_RETRIEVER`.
        seed: of both.
        scores: on the test set, for each query; None without a retriever.
        quality: of the semantic IDs, as ``{"collision_rate": 0.01}``, and the seconds they took.
        seconds: wall time spent on it.
        digest: hex digits that change with anything the result depends on.
        curves: metric of fitting → ``(step, value)``; named otherwise than scores and quality.
        params: settings, possibly nested.
        code_categories: what the first codes tell of categories; None without a tokenizer.
        ids_digest: hex digits of the semantic IDs; seeds that share a table of codes share these. Empty
            without a tokenizer.
        collisions: what became of items with the same codes.
        figures: what the retriever tells of itself, as ``{"search_error_at_10": 0.01, "chosen": "k 50"}``.
    """

    tokenizer: str
    retriever: str
    seed: int
    scores: QueryScores | None
    quality: Mapping[str, float]
    seconds: float
    digest: str
    curves: Mapping[str, Sequence[tuple[int, float]]]
    params: Mapping[str, Any]
    code_categories: CodeCategories | None
    ids_digest: str
    collisions: Collisions
    figures: Mapping[str, Any] = field(default_factory=dict)

    def numbers(self) -> dict[str, float]:
        """The figures of the retriever that are numbers."""
        return {name: float(value) for name, value in self.figures.items() if isinstance(value, (int, float))}


@dataclass(frozen=True)
class TokenizerRow:
    """The semantic IDs of one tokenizer, over all its seeds.

    Attributes:
        tokenizer: its name in the benchmark.
        seeds: how many have semantic IDs of their own: one, where all share a table of codes.
        means: figure of quality → mean over these; what one lacks is left out.
        spreads: the same figures' standard deviations; empty with one seed.
        curves: of the first seed's fitting, as in :class:`Cell`.
        code_categories: of the first seed.
        collisions: as in :class:`Cell`.
    """

    tokenizer: str
    seeds: int
    means: Mapping[str, float]
    spreads: Mapping[str, float]
    curves: Mapping[str, Sequence[tuple[int, float]]]
    code_categories: CodeCategories | None
    collisions: Collisions


@dataclass(frozen=True)
class Row:
    """One tokenizer under one retriever, over all its seeds.

    Attributes:
        tokenizer: as in :class:`Cell`.
        retriever: as in :class:`Cell`.
        seeds: how many.
        means: metric → mean over queries and seeds.
        low: lower end of the 95 % interval of the main metric's mean, over queries.
        high: its upper end.
        seed_spread: standard deviation over seeds of the main metric's mean; None with one seed.
        quality: mean over seeds; what one lacks is left out.
        figures: the retriever's that are numbers; mean over seeds, what one lacks is left out.
        seconds: mean over seeds.
        comparison: with the reference tokenizer under the same retriever; None for the reference
            itself and for floors.
        to_next: of this tokenizer, if it is the best under its retriever, with the next best.
        to_floor: with the best floor; None for floors, and where there is none.
    """

    tokenizer: str
    retriever: str
    seeds: int
    means: Mapping[str, float]
    low: float
    high: float
    seed_spread: float | None
    quality: Mapping[str, float]
    figures: Mapping[str, float]
    seconds: float
    comparison: Comparison | None
    to_next: Comparison | None = None
    to_floor: Comparison | None = None

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``no evidence`` against the reference; else what the row is."""
        if self.comparison:
            return self.comparison.verdict
        return "floor" if self.tokenizer == NO_TOKENIZER else "reference"


@dataclass(frozen=True)
class Results:
    """A benchmark's outcome.

    Attributes:
        title: the benchmark's name.
        dataset: what it ran on.
        protocol: how it was evaluated, in words; whether items already seen were left out belongs there.
        metric: the main metric, as ``ndcg_at_10``.
        reference: the tokenizer that all others are compared with.
        rows: retriever after retriever in the order of the benchmark, floors last; the best
            tokenizer first, and the best floor first. Empty where tokenizers alone are compared.
        tokenizers: in the order of the benchmark.
    """

    title: str
    dataset: Dataset
    protocol: str
    metric: str
    reference: str
    rows: Sequence[Row]
    tokenizers: Sequence[TokenizerRow]

    def by_retriever(self) -> dict[str, list[Row]]:
        """Retriever → its rows, best first; without floors."""
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            if row.tokenizer != NO_TOKENIZER:
                groups.setdefault(row.retriever, []).append(row)
        return groups

    def floors(self) -> list[Row]:
        """The retrievers that use no tokenizer, best first."""
        return [row for row in self.rows if row.tokenizer == NO_TOKENIZER]

    def single_tables(self) -> list[str]:
        """Tokenizers whose seeds share one table of codes, and so differ in their retrievers alone."""
        trained = {row.tokenizer: row.seeds for row in self.rows}
        return [row.tokenizer for row in self.tokenizers if row.seeds < trained.get(row.tokenizer, 1)]

    def figure_names(self) -> list[str]:
        """The figures of retrievers that any row has."""
        return list(dict.fromkeys(name for row in self.rows for name in row.figures))

    def score_records(self) -> list[dict[str, Any]]:
        """One record a row: mean scores, spread, quality, figures, time; all records have the same keys."""
        qualities = list(dict.fromkeys(name for row in self.rows for name in row.quality))
        figures = self.figure_names()
        return [
            {
                "tokenizer": row.tokenizer,
                "retriever": row.retriever,
                "seeds": row.seeds,
                **row.means,
                f"{self.metric}_low": row.low,
                f"{self.metric}_high": row.high,
                f"{self.metric}_seed_spread": row.seed_spread,
                **{name: row.quality.get(name) for name in qualities},
                **{name: row.figures.get(name) for name in figures},
                "seconds": row.seconds,
            }
            for row in self.rows
        ]

    def tokenizer_records(self) -> list[dict[str, Any]]:
        """One record a tokenizer: each figure's mean and standard deviation; all have the same keys."""
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
        """One record for each comparison with the reference, then one for each with the best floor.

        ``reference_kind``: ``tokenizer`` or ``floor``.
        ``single_table``: the verdict holds for one table of codes only, see :meth:`single_tables`.
        """
        with_reference = [
            self._record(row, row.comparison, "tokenizer", self.reference)
            for row in self.rows
            if row.comparison
        ]
        with_floor = [
            self._record(row, row.to_floor, "floor", self.floors()[0].retriever)
            for row in self.rows
            if row.to_floor
        ]
        return with_reference + with_floor

    def _record(self, row: Row, test: Comparison, kind: str, reference: str) -> dict[str, Any]:
        return {
            "tokenizer": row.tokenizer,
            "reference": reference,
            "reference_kind": kind,
            "retriever": row.retriever,
            "metric": self.metric,
            "mean": test.mean_b,
            "reference_mean": test.mean_a,
            "difference": test.difference,
            "low": test.low,
            "high": test.high,
            "effect_size": test.effect_size,
            "p": test.p_value,
            "p_seeds": test.p_seeds,
            "p_holm": test.p_adjusted,
            "p_wilcoxon_holm": test.p_wilcoxon,
            "rank_effect": test.rank_effect,
            "p_permutation_holm": test.p_permutation,
            "boot_low": test.boot_low,
            "boot_high": test.boot_high,
            "queries": test.n,
            "verdict": test.verdict,
            "dissent": ", ".join(test.dissent),
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
) -> Results:
    """The table of a benchmark, with every tokenizer tested against the reference and the best floor.

    A user's scores are averaged over seeds first. The family that p is adjusted over is all pairs
    of tokenizers under each retriever that uses one. Another is each of these against the best
    floor: which of them is the best is known only from the same scores. With two seeds or more a
    difference must also hold over seeds, see
    :attr:`~recsys.evaluation.significance.Comparison.verdict`.

    Raises:
        ValueError: there are no cells, or one twice; a retriever has no result for the reference;
            the metric is unknown; or cells were scored on different evaluation sets.
    """
    if not cells:
        raise ValueError("a benchmark without results cannot be summarised")
    _check_distinct(cells)
    groups: dict[tuple[str, str], list[Cell]] = {}
    runs: dict[tuple[str, str], list[QueryScores]] = {}
    for cell in cells:
        if cell.scores is not None:
            key = cell.retriever, cell.tokenizer
            groups.setdefault(key, []).append(cell)
            runs.setdefault(key, []).append(cell.scores)
            check_comparable(next(iter(runs.values()))[0], cell.scores)
    compared = [key for key in groups if key[1] != NO_TOKENIZER]
    for retriever, _ in compared:
        if (retriever, reference) not in groups:
            raise ValueError(f"no result for the reference tokenizer {reference!r} with {retriever}")
    # The first of a pair is what the second is compared with; the reference is always that.
    pairs = [(b, a) if b[1] == reference else (a, b) for a, b in combinations(compared, 2) if a[0] == b[0]]
    tests = dict(zip(pairs, compare_all(runs, metric, pairs), strict=True))

    rows = [
        _row(same, runs[key], metric, tests.get(((key[0], reference), key))) for key, same in groups.items()
    ]
    place = {retriever: i for i, retriever in enumerate(dict.fromkeys(row.retriever for row in rows))}
    place |= {row.retriever: len(place) for row in rows if row.tokenizer == NO_TOKENIZER}
    rows.sort(key=lambda row: (place[row.retriever], -row.means[metric]))
    for number, (row, after) in enumerate(pairwise(rows)):
        first = number == 0 or rows[number - 1].retriever != row.retriever
        if first and row.retriever == after.retriever:
            best, following = (row.retriever, row.tokenizer), (after.retriever, after.tokenizer)
            test = tests.get((following, best)) or tests[best, following].reversed()
            rows[number] = replace(row, to_next=test)
    if floors := [(row.retriever, NO_TOKENIZER) for row in rows if row.tokenizer == NO_TOKENIZER]:
        against = dict(
            zip(compared, compare_all(runs, metric, [(floors[0], key) for key in compared]), strict=True)
        )
        rows = [replace(row, to_floor=against.get((row.retriever, row.tokenizer))) for row in rows]
    return Results(title, dataset, protocol, metric, reference, rows, _tokenizer_rows(cells))


def _check_distinct(cells: Sequence[Cell]) -> None:
    seen = set()
    for cell in cells:
        key = cell.tokenizer, cell.retriever, cell.seed
        if key in seen:
            raise ValueError(f"two results for {cell.tokenizer} with {cell.retriever} and seed {cell.seed}")
        seen.add(key)


def _tokenizer_rows(cells: Sequence[Cell]) -> list[TokenizerRow]:
    """One a tokenizer; under all retrievers a seed has the same semantic IDs."""
    groups: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        if cell.tokenizer != NO_TOKENIZER:
            groups.setdefault(cell.tokenizer, {}).setdefault(cell.ids_digest, cell)
    rows = []
    for tokenizer, by_ids in groups.items():
        distinct = list(by_ids.values())
        first, several = distinct[0], len(distinct) > 1
        figures = _shared([cell.quality for cell in distinct])
        rows.append(
            TokenizerRow(
                tokenizer=tokenizer,
                seeds=len(distinct),
                means={name: float(np.mean(values)) for name, values in figures.items()},
                spreads={name: float(np.std(values, ddof=1)) for name, values in figures.items() if several},
                curves=first.curves,
                code_categories=first.code_categories,
                collisions=first.collisions,
            )
        )
    return rows


def _shared(figures: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Name → its values in all, if all have it."""
    return {
        name: [each[name] for each in figures] for name in figures[0] if all(name in each for each in figures)
    }


def _means(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean(values)) for name, values in _shared(figures).items()}


def _row(
    cells: Sequence[Cell], runs: Sequence[QueryScores], metric: str, comparison: Comparison | None
) -> Row:
    scores = mean_over_seeds(runs)
    low, high = mean_interval(scores.values(metric))
    of_seeds = [run.values(metric).mean() for run in runs]
    return Row(
        tokenizer=cells[0].tokenizer,
        retriever=cells[0].retriever,
        seeds=len(cells),
        means=scores.mean(),
        low=low,
        high=high,
        seed_spread=float(np.std(of_seeds, ddof=1)) if len(cells) > 1 else None,
        quality=_means([cell.quality for cell in cells]),
        figures=_means([cell.numbers() for cell in cells]),
        seconds=float(np.mean([cell.seconds for cell in cells])),
        comparison=comparison,
    )
