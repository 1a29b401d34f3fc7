"""Put the results of several benchmarks into one table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.report.formatting import decimal
from pipelines.results.rows import Results
from recsys.evaluation.across import standings

FEW_BENCHMARKS = 6
"""With fewer, resampling benchmarks gives intervals that are too narrow."""


def across_table(benchmarks: Sequence[Results]) -> list[dict[str, str]]:
    """Return one row for each method that all benchmarks have, the strongest first.

    Raises:
        ValueError: If the main metrics differ, a benchmark is given twice, or too few methods are in all.
    """
    metrics = dict.fromkeys(results.metric for results in benchmarks)
    if len(metrics) > 1:
        raise ValueError(f"the benchmarks have different main metrics: {', '.join(metrics)}")
    if len({(one.dataset.digest, one.title) for one in benchmarks}) < len(benchmarks):
        raise ValueError("a benchmark is given twice; every one may count once")
    scores = [
        {(row.retriever, row.tokenizer): row.means[results.metric] for row in results.rows}
        for results in benchmarks
    ]
    common = [method for method in scores[0] if all(method in of_one for of_one in scores)]
    found = standings(np.array([[of_one[method] for method in common] for of_one in scores]))
    return [
        {
            "retriever": retriever,
            "tokenizer": tokenizer,
            "mean rank": decimal(one.rank, 2),
            "95 % interval": " … ".join(decimal(end, 2) for end in one.rank_interval),
            "strength": decimal(one.strength, 2, sign=True),
            "95 % of strength": " … ".join(decimal(end, 2, sign=True) for end in one.strength_interval),
        }
        for (retriever, tokenizer), one in sorted(
            zip(common, found, strict=True), key=lambda pair: -pair[1].strength
        )
    ]
