"""Two ways to resolve collisions, other than to let the colliding items share a leaf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from semantic_ids.ids import SemanticIds
from semantic_ids.types import Doubles, Ints

Collisions = Literal["shared", "digit", "sinkhorn"]
"""Treatment of items with equal codes.

``shared``: the items of a leaf share their score. ``digit``: see :func:`with_digit`. ``sinkhorn``: see
:func:`sinkhorn`.
"""

_MAX_ROUNDS = 4
_ENTROPY_WEIGHTS = np.geomspace(0.1, 1e-5, 100)
"""Weight of the plan's entropy in each sweep, in units of the largest difference between two costs."""


def with_digit(ids: SemanticIds) -> SemanticIds:
    """Append the collision digit as an additional level (TIGER, arXiv 2305.05065, §3.1).

    Then every item has a different ID, and retrievers learn the digit like any other code. The digit adds
    information that the tokenizer did not find. If, for example, all items had the same code, the digit
    would be an atomic ID and would score like one. So judge a tokenizer by its collisions without digits.
    To grow the catalogue, extend ``ids`` and call this function again.

    Args:
        ids: Semantic IDs of N items with L levels.

    Returns:
        IDs with codes ``(N, L + 1)``. The size of the last codebook is that of the largest leaf.

    Example:
        >>> ids = SemanticIds(np.array([[5], [5], [2]]), codebook_sizes=(8,))
        >>> unique = with_digit(ids)
        >>> sorted(unique.codes.tolist()), unique.codebook_sizes
        ([[2, 0], [5, 0], [5, 1]], (8, 2))
    """
    return SemanticIds(ids.full_codes, (*ids.codebook_sizes, int(ids.leaf_sizes.max())), ids.generations)


def sinkhorn(ids: SemanticIds, distances: Callable[[Ints], Doubles]) -> SemanticIds:
    """Reassign the last code of colliding items with a small total distance to the codewords.

    This is the uniform semantic mapping of LC-Rec (arXiv 2311.09049, §3.1): optimal transport from items
    to the codewords of the last level, where each codeword takes the same share of the items. On its own,
    that moves near duplicates to codewords far from either. So there are two stricter rules here:

    * Colliding items are reassigned together under each prefix of L − 1 codes, and only to last codes
      that no other item under the prefix has.
    * Each codeword takes one item. It takes more only if there are more items than codewords.

    Items that still collide are reassigned again, a few times. Items that collide after the last round,
    for example items with equal embeddings, share their leaf. Nothing is random.

    Only items of the last generation are reassigned. Earlier items keep their codes, and their codewords
    stay occupied. To grow the catalogue, extend it with codes from the nearest codewords and call this
    function again.

    Args:
        ids: Semantic IDs of N items. Items of the last generation have the codes of their nearest codewords.
        distances: Function of item rows ``(n,)`` int64 that returns squared distances ``(n, K_L)`` float64,
            see :meth:`semantic_ids.tokenizer.Tokenizer.last_level_distances`.

    Returns:
        IDs with the same codes, except for the last code of items of the last generation that collided.

    Example:
        Both items are nearest to codeword 0. The item with less to lose moves to codeword 1:

        >>> ids = SemanticIds(np.array([[7, 0], [7, 0]]), codebook_sizes=(8, 2))
        >>> squared = np.array([[0.0, 9.0], [1.0, 4.0]])
        >>> sinkhorn(ids, lambda rows: squared[rows]).codes.tolist()
        [[7, 0], [7, 1]]
    """
    colliding = _colliding(ids)
    cost = distances(np.flatnonzero(colliding))
    cost_row = np.cumsum(colliding) - 1
    prefix = np.unique(ids.codes[:, :-1], axis=0, return_inverse=True)[1].reshape(-1)
    for _ in range(_MAX_ROUNDS):
        if not colliding.any():
            break
        codes = ids.codes.copy()
        for items in _items_by_prefix(prefix, colliding):
            moving, staying = items[colliding[items]], items[~colliding[items]]
            free = np.setdiff1d(np.arange(cost.shape[1]), codes[staying, -1])
            if len(free):
                codes[moving, -1] = free[_assign_columns(cost[cost_row[moving]][:, free])]
        ids = SemanticIds(codes, ids.codebook_sizes, ids.generations)
        colliding = _colliding(ids)
    return ids


def _colliding(ids: SemanticIds) -> npt.NDArray[np.bool_]:
    """Return for each item whether it is of the last generation and shares its leaf, ``(N,)``."""
    is_new = np.arange(ids.num_items) >= ids.num_items - ids.generations[-1]
    return is_new & (ids.leaf_sizes[ids.leaf_of_item] > 1)


def _items_by_prefix(prefix: Ints, colliding: npt.NDArray[np.bool_]) -> list[Ints]:
    """Return the item rows ``(n,)`` of each prefix under which items collide, one array per prefix."""
    items = np.flatnonzero(np.isin(prefix, prefix[colliding]))
    order = items[np.argsort(prefix[items], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(prefix[order])) + 1)


def _assign_columns(cost: Doubles) -> Ints:
    """Assign a column to each row at a small total cost, by Sinkhorn's algorithm in the log domain.

    Every row supplies 1, and every column takes ``max(1, n / F)``. If there are fewer rows than columns,
    an additional row without costs supplies the rest. The weight of the entropy falls from sweep to sweep,
    so that the transport plan approaches an assignment (ε-scaling: Schmitzer 2019, arXiv 1610.06519).

    Args:
        cost: ``(n, F)``.

    Returns:
        ``(n,)``: the column of each row.
    """
    n, columns = cost.shape
    cost = (cost - cost.min()) / max(float(np.ptp(cost)), np.finfo(np.float64).tiny)
    log_supply = np.zeros(n)
    if n < columns:
        cost = np.vstack([cost, np.zeros(columns)])
        log_supply = np.append(log_supply, np.log(columns - n))
    log_demand = max(0.0, np.log(n / columns))
    column_potential = np.zeros(columns)
    for weight in _ENTROPY_WEIGHTS:
        row_sums = _log_sum_exp((column_potential - cost) / weight, axis=1)
        row_potential = weight * (log_supply - row_sums)
        column_sums = _log_sum_exp((row_potential[:, None] - cost) / weight, axis=0)
        column_potential = weight * (log_demand - column_sums)
    return (column_potential - cost)[:n].argmax(axis=1)


def _log_sum_exp(values: Doubles, axis: int) -> Doubles:
    """Return ``log Σ exp(values)`` along an axis, without overflow."""
    top = values.max(axis=axis, keepdims=True)
    sums: Doubles = np.log(np.exp(values - top).sum(axis=axis)) + top.squeeze(axis)
    return sums
