"""Targets that exclude_seen keeps out of all rankings, against plain Python."""

from __future__ import annotations

import time

import numpy as np
import pytest

from recsys.evaluation.reachability import SeenTargets, seen_targets
from recsys.examples import Examples, Ragged


def examples_of(rows: list[tuple[list[int], dict[int, float]]]) -> Examples:
    """Return a query for each history with its targets and their gains."""
    return Examples(
        query_ids=np.array([f"u{number}" for number in range(len(rows))], dtype=np.str_),
        history=Ragged.from_rows([history for history, _ in rows]),
        targets=Ragged.from_rows([list(targets) for _, targets in rows]),
        gains=np.array([gain for _, targets in rows for gain in targets.values()], dtype=np.float32),
    )


def test_targets_in_the_own_history_are_counted() -> None:
    examples = examples_of(
        [
            ([1, 2, 1], {1: 1.0}),  # seen twice, counted once
            ([1, 2], {3: 1.0}),
            ([3], {4: 1.0, 3: 1.0}),  # one of two
            ([], {1: 1.0}),  # another user saw it
            ([5, 6], {6: 1.0, 5: 1.0}),
        ]
    )
    assert seen_targets(examples) == SeenTargets(targets=4, all_targets=7, queries=2, all_queries=5)


def test_only_relevant_targets_count() -> None:
    examples = examples_of([([1, 2], {1: 0.0, 3: 1.0}), ([2], {2: 0.5, 4: 0.0}), ([9], {9: 0.0})])
    assert seen_targets(examples) == SeenTargets(targets=1, all_targets=2, queries=1, all_queries=3)
    assert seen_targets(examples, 0.75) == SeenTargets(targets=0, all_targets=1, queries=0, all_queries=3)
    assert seen_targets(examples, 0.5).targets == 1


@pytest.mark.parametrize("rows", [[], [([], {0: 1.0})]])
def test_without_histories_nothing_is_seen(rows: list[tuple[list[int], dict[int, float]]]) -> None:
    assert seen_targets(examples_of(rows)).targets == 0


def test_it_counts_what_plain_python_counts() -> None:
    rng = np.random.default_rng(0)
    rows = [
        (
            rng.integers(12, size=rng.integers(9)).tolist(),
            {
                int(item): float(rng.integers(3))
                for item in rng.choice(12, size=rng.integers(1, 4), replace=False)
            },
        )
        for _ in range(500)
    ]
    relevant = [{item for item, gain in targets.items() if gain >= 1} for _, targets in rows]
    seen = [wanted & set(history) for wanted, (history, _) in zip(relevant, rows, strict=True)]
    assert seen_targets(examples_of(rows), 1.0) == SeenTargets(
        targets=sum(map(len, seen)),
        all_targets=sum(map(len, relevant)),
        queries=sum(some == wanted != set() for some, wanted in zip(seen, relevant, strict=True)),
        all_queries=500,
    )


def test_a_million_queries_take_seconds() -> None:
    queries, rng = 1_000_000, np.random.default_rng(0)
    examples = Examples(
        query_ids=np.arange(queries).astype(np.str_),
        history=Ragged.from_lengths(rng.integers(50_000, size=10 * queries), np.full(queries, 10)),
        targets=Ragged.from_lengths(rng.integers(50_000, size=queries), np.ones(queries, dtype=np.int64)),
        gains=np.ones(queries, dtype=np.float32),
    )
    before = time.process_time()
    found = seen_targets(examples)
    assert time.process_time() - before < 20
    assert found.targets == pytest.approx(queries * 10 / 50_000, rel=0.3)
