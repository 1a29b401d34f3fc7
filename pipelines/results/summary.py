"""Summarise the cells of a benchmark: means over seeds, and tests of all differences."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations, pairwise

import numpy as np

from pipelines.names import NO_TOKENIZER
from pipelines.results.cell import Cell, Dataset, Failure
from pipelines.results.rows import Results, Row, TokenizerRow
from recsys.evaluation.hypothesis_tests import ALPHA, mean_interval
from recsys.evaluation.scores import QueryScores, check_comparable, mean_over_seeds
from recsys.evaluation.significance import EQUIVALENCE, Comparison, compare_all

Key = tuple[str, str]
"""Retriever and tokenizer."""


def summarise(
    title: str,
    dataset: Dataset,
    protocol: str,
    cells: Sequence[Cell],
    *,
    reference: str,
    metric: str = "ndcg_at_10",
    labels: Mapping[str, str] | None = None,
    failures: Sequence[Failure] = (),
    fixed: Collection[Key] | None = None,
    equivalence: float = EQUIVALENCE,
    looks: int = 1,
) -> Results:
    """Return the table of a benchmark, with every row tested against the reference and the best baseline.

    The scores of a query are averaged over seeds first. One family of comparisons, over which p is adjusted,
    is all pairs of tokenizers under the same retriever, under all retrievers together. A second family is
    each tokenizer under each retriever against the best baseline; which baseline is the best is known from
    the same scores only. Variances over trainings are shared by the tokenizers under one retriever, see
    :mod:`recsys.evaluation.uncertainty`.

    Args:
        title: The benchmark's name.
        dataset: What it ran on.
        protocol: How it was evaluated, in words.
        cells: All cells.
        reference: The tokenizer with which all others are compared.
        metric: The main metric.
        labels: Metric to its label; the metrics' own names if not given.
        failures: Cells that have no results. Where the reference failed, nothing is compared with it.
        fixed: Retriever and tokenizer of all methods that are deterministic. If not given, single runs beside
            methods with several are taken for theirs.
        equivalence: Share of the reference's mean within which a difference does not matter.
        looks: How often results are looked at; the level of 5 % is divided by it.

    Raises:
        ValueError: If there are no cells, or one twice; if a retriever has no result for the reference
            although nothing failed; if the metric is unknown; or if cells were scored on different evaluation
            sets.
    """
    if not cells:
        raise ValueError("a benchmark without results cannot be summarised")
    _check_distinct(cells)
    groups: dict[Key, list[Cell]] = {}
    runs: dict[Key, list[QueryScores]] = {}
    for cell in cells:
        if cell.scores is not None:
            key = cell.name.retriever, cell.name.tokenizer
            groups.setdefault(key, []).append(cell)
            runs.setdefault(key, []).append(cell.scores)
            check_comparable(next(iter(runs.values()))[0], cell.scores)
    compared = [key for key in groups if key[1] != NO_TOKENIZER]
    failed = {(failure.name.retriever, failure.name.tokenizer) for failure in failures}
    for retriever, _ in compared:
        if (retriever, reference) not in {*groups, *failed}:
            raise ValueError(f"no result for the reference tokenizer {reference!r} with {retriever}")
    # The second of a pair is compared with the first; the reference always comes first.
    pairs = [(b, a) if b[1] == reference else (a, b) for a, b in combinations(compared, 2) if a[0] == b[0]]
    compare = partial(
        compare_all,
        runs,
        metric,
        fixed=fixed,
        pools={key: key[0] for key in runs},
        equivalence=equivalence,
        level=ALPHA / looks,
    )
    tests = dict(zip(pairs, compare(pairs), strict=True))

    rows = [
        _row(same, runs[key], metric, tests.get(((key[0], reference), key))) for key, same in groups.items()
    ]
    rows = _with_next(_sorted_rows(rows, metric), tests)
    rows = _with_baseline(rows, compare)
    if labels is None:
        labels = {name: name for row in rows for name in row.means}
    return Results(
        title,
        dataset,
        protocol,
        metric,
        labels,
        reference,
        rows,
        _tokenizer_rows(cells),
        list(failures),
        unreachable=max(cell.unreachable for cell in cells),  # the same for all cells that were scored
        answers=max(cell.answers for cell in cells),
    )


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


def _with_next(rows: list[Row], tests: Mapping[tuple[Key, Key], Comparison]) -> list[Row]:
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
    rows: list[Row], compare: Callable[[Sequence[tuple[Key, Key]]], list[Comparison]]
) -> list[Row]:
    """Return sorted rows, where all that use semantic IDs are compared with the best baseline."""
    baselines = [(row.retriever, row.tokenizer) for row in rows if row.is_baseline]
    compared = [(row.retriever, row.tokenizer) for row in rows if not row.is_baseline]
    if not baselines:
        return rows
    tests = compare([(baselines[0], key) for key in compared])
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
