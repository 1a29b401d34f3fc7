"""Add seeds to a benchmark one by one until it is decided which tokenizer is the best.

To look often and stop at the first success would err more often than to look once. So the level of every
family of comparisons is divided by the greatest number of looks, see docs/statistics.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.results.reading import read_results
from pipelines.results.rows import Results
from pipelines.screen import OUT
from recsys.evaluation.hypothesis_tests import UNDECIDED

if TYPE_CHECKING:
    from pipelines.config.benchmark import BenchmarkConfig

FEWEST_SEEDS = 2
"""With one seed nothing is claimed, so there is nothing to look at."""


def looks(config: BenchmarkConfig, settings: Sequence[str], at_most: int) -> list[list[str]]:
    """Return all settings of every look at a benchmark, the look with the fewest seeds first.

    The first look has the seeds of the benchmark, but at least two. Further seeds follow the largest one.

    Args:
        config: The benchmark, as its file and ``settings`` give it.
        settings: Overrides ``key=value``.
        at_most: The greatest number of seeds.

    Raises:
        ValueError: If the benchmark has more seeds already, or compares no tokenizers under retrievers.
    """
    if not config.retrievers_with_ids():
        raise ValueError("no retriever uses semantic IDs, so there is no comparison that seeds could decide")
    first = max(FEWEST_SEEDS, len(config.seeds))
    if at_most < first:
        raise ValueError(f"--at-most {at_most} is below the {first} seeds that are the least here")
    seeds = [*config.seeds, *range(max(config.seeds) + 1, max(config.seeds) + 1 + at_most)]
    number = at_most - first + 1
    others = [one for one in settings if not one.startswith(("seeds=", "seeds.", "evaluation.looks="))]
    return [
        [*others, f"seeds={seeds[:count]}", f"evaluation.looks={number}"]
        for count in range(first, at_most + 1)
    ]


def is_decided(results: Results) -> bool:
    """Return whether the main comparison has a verdict, under every retriever.

    It is that of the best tokenizer with the next best, or with the best baseline if there is no other
    tokenizer.
    """
    best = [rows[0] for rows in results.by_retriever().values()]
    main = [row.to_next or row.to_baseline for row in best]
    return all(test is None or test.verdict != UNDECIDED for test in main)


def run_until_decided(run: Callable[[list[str]], Path], settings: Sequence[list[str]]) -> None:
    """Run a benchmark with the settings of one look after the other until it is decided.

    Args:
        run: Runs the benchmark with these settings, and returns the folder of its report.
        settings: From :func:`looks`.
    """
    for number, of_look in enumerate(settings, start=1):
        decided = is_decided(read_results(run(of_look)))
        outcome = "decided" if decided else UNDECIDED
        OUT.print(f"Look {number} of at most {len(settings)}, {of_look[-2]}: {outcome}.", style="bold")
        if decided:
            return
