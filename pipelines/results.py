"""What a benchmark found: its cells, and the table of tokenizer × retriever made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from recsys.evaluation.scores import QueryScores, check_comparable, mean_over_seeds
from recsys.evaluation.significance import Comparison, compare_all, mean_interval

NO_TOKENIZER = "–"
"""Stands in place of the tokenizer for a retriever that uses none: a floor under all others."""


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
        retriever: its name in the benchmark.
        seed: of both.
        scores: on the test set, for each query.
        quality: of the semantic IDs, as ``{"collision_rate": 0.01}``.
        seconds: wall time spent on it.
        digest: hex digits that change with anything the result depends on.
        curves: metric of fitting → ``(step, value)``; named otherwise than scores and quality.
        params: settings, possibly nested.
    """

    tokenizer: str
    retriever: str
    seed: int
    scores: QueryScores
    quality: Mapping[str, float]
    seconds: float
    digest: str
    curves: Mapping[str, Sequence[tuple[int, float]]]
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One tokenizer under one retriever, over all its seeds.

    Attributes:
        tokenizer: as in :class:`Cell`.
        retriever: as in :class:`Cell`.
        seeds: how many.
        means: metric → mean over users and seeds.
        low: lower end of the 95 % interval of the main metric's mean, over users.
        high: its upper end.
        seed_spread: standard deviation over seeds of the main metric's mean; None with one seed.
        quality: mean over seeds.
        seconds: mean over seeds.
        comparison: with the reference tokenizer under the same retriever; None for the reference
            itself and for floors.
        to_next: of this tokenizer, if it is the best under its retriever, with the next best.
    """

    tokenizer: str
    retriever: str
    seeds: int
    means: Mapping[str, float]
    low: float
    high: float
    seed_spread: float | None
    quality: Mapping[str, float]
    seconds: float
    comparison: Comparison | None
    to_next: Comparison | None = None

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
            tokenizer first.
    """

    title: str
    dataset: Dataset
    protocol: str
    metric: str
    reference: str
    rows: Sequence[Row]

    def by_retriever(self) -> dict[str, list[Row]]:
        """Retriever → its rows, best first; without floors."""
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            if row.tokenizer != NO_TOKENIZER:
                groups.setdefault(row.retriever, []).append(row)
        return groups

    def floors(self) -> list[Row]:
        """The retrievers that use no tokenizer."""
        return [row for row in self.rows if row.tokenizer == NO_TOKENIZER]

    def score_records(self) -> list[dict[str, Any]]:
        """One record a row: mean scores, spread, quality and time; all records have the same keys."""
        qualities = list(dict.fromkeys(name for row in self.rows for name in row.quality))
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
                "seconds": row.seconds,
            }
            for row in self.rows
        ]

    def significance_records(self) -> list[dict[str, Any]]:
        """One record for each comparison with the reference."""
        return [
            {
                "tokenizer": row.tokenizer,
                "reference": self.reference,
                "retriever": row.retriever,
                "metric": self.metric,
                "mean": row.comparison.mean_b,
                "reference_mean": row.comparison.mean_a,
                "difference": row.comparison.difference,
                "low": row.comparison.low,
                "high": row.comparison.high,
                "effect_size": row.comparison.effect_size,
                "p": row.comparison.p_value,
                "p_seeds": row.comparison.p_seeds,
                "p_holm": row.comparison.p_adjusted,
                "queries": row.comparison.n,
                "verdict": row.verdict,
            }
            for row in self.rows
            if row.comparison
        ]


def summarise(
    title: str,
    dataset: Dataset,
    protocol: str,
    cells: Sequence[Cell],
    *,
    reference: str,
    metric: str = "ndcg_at_10",
) -> Results:
    """The table of a benchmark, with every tokenizer tested against the reference.

    A user's scores are averaged over seeds first. The family that p is adjusted over is all pairs
    of tokenizers under each retriever that uses one. With two seeds or more a difference must also
    hold over seeds, see :attr:`~recsys.evaluation.significance.Comparison.verdict`.

    Raises:
        ValueError: there are no cells, or one twice; a retriever has no result for the reference;
            the metric is unknown; or cells were scored on different evaluation sets.
    """
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        check_comparable(cells[0].scores, cell.scores)
        same = groups.setdefault((cell.retriever, cell.tokenizer), [])
        if any(other.seed == cell.seed for other in same):
            raise ValueError(f"two results for {cell.tokenizer} with {cell.retriever} and seed {cell.seed}")
        same.append(cell)
    if not groups:
        raise ValueError("a benchmark without results cannot be summarised")

    runs = {key: [cell.scores for cell in same] for key, same in groups.items()}
    compared = [key for key in groups if key[1] != NO_TOKENIZER]
    for retriever, _ in compared:
        if (retriever, reference) not in groups:
            raise ValueError(f"no result for the reference tokenizer {reference!r} with {retriever}")
    # The first of a pair is what the second is compared with; the reference is always that.
    pairs = [(b, a) if b[1] == reference else (a, b) for a, b in combinations(compared, 2) if a[0] == b[0]]
    tests = dict(zip(pairs, compare_all(runs, metric, pairs), strict=True))

    rows = [_row(same, metric, tests.get(((key[0], reference), key))) for key, same in groups.items()]
    place = {retriever: i for i, retriever in enumerate(dict.fromkeys(row.retriever for row in rows))}
    rows.sort(key=lambda r: (r.tokenizer == NO_TOKENIZER, place[r.retriever], -r.means[metric]))
    for number, (row, after) in enumerate(pairwise(rows)):
        first = number == 0 or rows[number - 1].retriever != row.retriever
        if first and row.retriever == after.retriever:
            best, following = (row.retriever, row.tokenizer), (after.retriever, after.tokenizer)
            test = tests.get((following, best)) or tests[best, following].reversed()
            rows[number] = replace(row, to_next=test)
    return Results(title, dataset, protocol, metric, reference, rows)


def _row(cells: Sequence[Cell], metric: str, comparison: Comparison | None) -> Row:
    scores = mean_over_seeds([cell.scores for cell in cells])
    low, high = mean_interval(scores.values(metric))
    of_seeds = [cell.scores.values(metric).mean() for cell in cells]
    return Row(
        tokenizer=cells[0].tokenizer,
        retriever=cells[0].retriever,
        seeds=len(cells),
        means=scores.mean(),
        low=low,
        high=high,
        seed_spread=float(np.std(of_seeds, ddof=1)) if len(cells) > 1 else None,
        quality={name: float(np.mean([c.quality[name] for c in cells])) for name in cells[0].quality},
        seconds=float(np.mean([cell.seconds for cell in cells])),
        comparison=comparison,
    )
