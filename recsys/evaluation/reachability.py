"""Count the targets that no ranking can hold because their users have seen them already."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsys.examples import Examples, Ragged


@dataclass(frozen=True)
class SeenTargets:
    """How many targets are in the history of their own query, and so out of reach under ``exclude_seen``.

    Attributes:
        targets: Number of relevant targets that were seen.
        all_targets: Number of relevant targets.
        queries: Number of queries whose relevant targets were all seen: every ranking scores 0 on them.
        all_queries: Number of queries.
    """

    targets: int
    all_targets: int
    queries: int
    all_queries: int


def seen_targets(examples: Examples, relevant_gain: float = 0.0) -> SeenTargets:
    """Count the relevant targets that are in the history of their own query.

    Args:
        examples: The queries with their histories, targets and gains.
        relevant_gain: Smallest gain with which a target is relevant, as in
            :func:`~recsys.evaluation.metrics.per_query_scores`.

    Example:
        >>> examples = Examples(
        ...     query_ids=np.array(["u1", "u2"]),
        ...     history=Ragged.from_rows([[4, 7, 4], [5]]),
        ...     targets=Ragged.from_rows([[7], [6]]),
        ...     gains=np.ones(2, dtype=np.float32),
        ... )
        >>> seen_targets(examples)
        SeenTargets(targets=1, all_targets=2, queries=1, all_queries=2)
    """
    relevant = (examples.gains > 0) & (examples.gains >= np.float32(relevant_gain))
    items = 1 + max(
        int(examples.history.flat().max(initial=-1)), int(examples.targets.flat().max(initial=-1))
    )
    in_history = _incidence(examples.history, np.ones(len(examples.history.flat()), dtype=bool), items)
    wanted = _incidence(examples.targets, relevant, items)
    per_query = np.diff(wanted.indptr)
    seen_per_query = np.diff(sp.csr_array(wanted.multiply(in_history)).indptr)
    return SeenTargets(
        targets=int(seen_per_query.sum()),
        all_targets=int(per_query.sum()),
        queries=int(((seen_per_query == per_query) & (per_query > 0)).sum()),
        all_queries=len(examples),
    )


def _incidence(lists: Ragged, kept: npt.NDArray[np.bool_], items: int) -> sp.csr_array:
    """Return ``(Q, items)`` bool: whether an item is among the kept values of each list."""
    lengths = np.bincount(lists.row_ids()[kept], minlength=len(lists))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    values = lists.flat()[kept]
    matrix = sp.csr_array((np.ones(len(values), dtype=bool), values, starts), shape=(len(lists), items))
    matrix.sum_duplicates()
    return matrix
