"""What evaluation costs, beside the matrix product under it, a plain loop and scipy: ``make bench``.

CPU seconds of one thread. What is compared runs in turn, in one process, on the same inputs, and
is compared pair by pair, so that a machine whose speed drifts does not decide.
"""

from __future__ import annotations

import statistics
from itertools import combinations

import faiss
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy import stats

from recsys.evaluation.hypothesis_tests import FLIPS
from recsys.evaluation.metrics import per_query_scores
from recsys.evaluation.scores import QueryScores
from recsys.evaluation.significance import compare_all
from recsys.examples import Examples, Ragged, Ranking
from recsys.retrievers.vector_index import build_index
from tests.benchmarks.timing import in_turn, ratio

USERS, ITEMS, DIM, METHODS, SEEDS = 22_000, 18_000, 64, 8, 3
CUTOFFS = (5, 10, 50)


def median(times: list[float]) -> str:
    """In seconds."""
    return f"{statistics.median(times):.3f}"


def vectors() -> tuple[torch.Tensor, torch.Tensor]:
    """Of users and of items."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(USERS, DIM, generator=generator), torch.randn(ITEMS, DIM, generator=generator)


def leave_one_out() -> Examples:
    """One target for each user."""
    targets = np.random.default_rng(0).integers(ITEMS, size=USERS)
    ones = np.ones(USERS, dtype=np.int64)
    single = Ragged.from_lengths(targets, ones)
    names = np.array([f"{user:06}" for user in range(USERS)])
    return Examples(names, single, single, ones.astype(np.float32))


def product(queries: torch.Tensor, items: torch.Tensor) -> None:
    """All scores, in blocks that are thrown away: what no exact evaluation can do without."""
    block = torch.empty(256, len(items))
    for part in queries.split(len(block)):
        torch.mm(part, items.T, out=block[: len(part)])


def full_catalogue() -> Table:
    """Ranking all items for all users and scoring the lists; the target is 1.6 times the product."""
    queries, items = vectors()
    examples, index = leave_one_out(), build_index(items)

    def ours(k: int) -> None:
        found = Ranking(*index(queries, k))
        per_query_scores(found, examples, [cutoff for cutoff in CUTOFFS if cutoff <= k])

    title = f"full catalogue, {USERS:,} users × {ITEMS:,} items, {DIM}-d; product alone: 1.00"
    table = Table(
        "lists of", "product, s", "search, s", "÷ product", "search + metrics, s", "÷ product", title=title
    )
    for k in (10, 50, 100):
        alone, search, whole = in_turn(
            lambda: product(queries, items),
            lambda k=k: index(queries, k),
            lambda k=k: ours(k),
        )
        figures = (median(alone), median(search), ratio(search, alone), median(whole), ratio(whole, alone))
        table.add_row(f"{k}", *figures)
    return table


def sorting_everything() -> Table:
    """The same by a full sort of each user's scores, as evaluation is often written; on 1 of 20 users."""
    queries, items = vectors()
    examples, index, share = leave_one_out().select(slice(USERS // 20)), build_index(items), 20
    queries = queries[: len(examples)]
    targets, products = examples.targets.flat(), items.numpy().T

    def sorted_one_by_one() -> None:
        hits = [
            target in np.argsort(-(query @ products))[:10]
            for query, target in zip(queries.numpy(), targets, strict=True)
        ]
        np.mean(hits)

    slow, quick = in_turn(
        sorted_one_by_one,
        lambda: per_query_scores(Ranking(*index(queries, 10)), examples, [10]),
        repetitions=3,
    )
    table = Table("", "s", title=f"argsort for each user, 1 of {share} users measured, × {share}")
    table.add_row("argsort loop, Recall@10", f"{statistics.median(slow) * share:.1f}")
    table.add_row("search + Recall@10 and NDCG@10", f"{statistics.median(quick) * share:.2f}")
    table.add_row("ratio", ratio(slow, quick))
    return table


def metrics_of_lists() -> Table:
    """Recall and NDCG of lists that are there already."""
    examples = leave_one_out()
    items = np.random.default_rng(0).permuted(np.tile(np.arange(200), (USERS, 1)), axis=1)[:, :50]
    ranking = Ranking(items, np.zeros(items.shape, dtype=np.float32))
    (times,) = in_turn(lambda: per_query_scores(ranking, examples, CUTOFFS))
    table = Table("cutoffs", "ms", title=f"metrics of {USERS:,} lists of 50")
    table.add_row(", ".join(map(str, CUTOFFS)), f"{statistics.median(times) * 1e3:.0f}")
    return table


def significance() -> Table:
    """All tests of all pairs of methods; of scipy a part is measured and the rest is extrapolated."""
    rng = np.random.default_rng(0)
    users, names = rng.random(USERS), leave_one_out().query_ids
    runs = {
        method: [
            QueryScores(names, {"ndcg_at_10": users + rng.normal(0, 0.1, USERS)}, "d") for _ in range(SEEDS)
        ]
        for method in range(METHODS)
    }
    pairs = list(combinations(runs, 2))
    (ours,) = in_turn(lambda: compare_all(runs, "ndcg_at_10", pairs))

    a, b = (runs[method][0].values("ndcg_at_10") for method in (0, 1))
    part, differences = 100, b - a
    peers = {
        "paired t": (1, lambda: stats.ttest_rel(b, a)),
        "Wilcoxon": (1, lambda: stats.wilcoxon(differences)),
        "permutation": (
            FLIPS / part,
            lambda: stats.permutation_test(
                (differences,),
                lambda x, axis: x.mean(axis=axis),
                permutation_type="samples",
                n_resamples=part,
                batch=part,
                vectorized=True,
                rng=0,
            ),
        ),
    }
    title = f"{len(pairs)} pairs of {METHODS} methods, {SEEDS} seeds, {USERS:,} users, {FLIPS:,} flips"
    table = Table("", "s", "measured", title=title)
    total = 0.0
    for name, (times, work) in peers.items():
        (measured,) = in_turn(work, repetitions=3)
        whole = statistics.median(measured) * times * len(pairs)
        total += whole
        of = f", 1 of {times:.0f} flips" if times > 1 else ""
        table.add_row(f"scipy: {name}", f"{whole:.2f}", f"1 pair{of}; extrapolated")
    table.add_row("scipy: all", f"{total:.1f}", "")
    table.add_row("compare_all", median(ours), "whole, seeds and Holm included")
    table.add_row("ratio", f"{total / statistics.median(ours):.0f}", "")
    return table


def main() -> None:
    """Print all tables."""
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    console = Console()
    for table in (metrics_of_lists, significance, sorting_everything, full_catalogue):
        console.print(table())


if __name__ == "__main__":
    main()
