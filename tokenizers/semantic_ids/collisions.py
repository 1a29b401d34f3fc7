"""What to do with items that share all their codes, beyond letting them share a leaf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from semantic_ids.ids import Ints, SemanticIds

Collisions = Literal["shared", "digit", "sinkhorn"]
"""``shared``: items of a leaf share their score; the others are :func:`with_digit` and :func:`sinkhorn`."""

Doubles = npt.NDArray[np.float64]

_ROUNDS = 4
_ENTROPY = np.geomspace(0.1, 1e-5, 100)
"""Weights of the plan's entropy, sweep by sweep, in units of the widest difference of two costs."""


def with_digit(ids: SemanticIds) -> SemanticIds:
    """The collision digit as a level of its own (TIGER, arXiv 2305.05065, §3.1): one item an ID.

    Retrievers then learn the digit like any code, which *adds* to what a tokenizer found out: with
    one code for all items the digit is an ID of its own for each, and scores like one. So judge the
    tokenizer by the collisions before. To grow such a catalogue, extend ``ids`` and come here again.

    Returns:
        Codes ``(N, L + 1)``, the last codebook as large as the largest leaf.
    """
    return SemanticIds(ids.full_codes, (*ids.codebook_sizes, int(ids.leaf_sizes.max())), ids.generations)


def sinkhorn(ids: SemanticIds, distances: Callable[[Ints], Doubles]) -> SemanticIds:
    """Deal the last codes out anew among items that collide, at the least total distance.

    The uniform semantic mapping of LC-Rec (arXiv 2311.09049, §3.1): optimal transport from items to
    the codewords of the last level, each of which takes the same share. Two things are stricter
    here, because that alone moves near duplicates to codewords far from either: colliding items
    are dealt out together under each prefix of L − 1 codes, and only to codewords that no item
    beside them has there; and each codeword takes one item, or more only where items outnumber
    codewords. Items that still collide are dealt out again, a few times. Those that do in the end,
    such as items of the same embedding, share their leaf. Nothing is random.

    Only the last generation is dealt out; items before it keep their codes and the codewords they
    hold. So to grow a catalogue dealt out here, extend it with codes from the nearest codewords and
    come here again.

    Args:
        ids: of N items, those of the last generation with codes from the nearest codewords.
        distances: rows of items ``(n,)`` → squared distances ``(n, K_L)`` float64, see
            :meth:`semantic_ids.tokenizer.Tokenizer.last_level_distances`.

    Returns:
        The same codes but for the last of items of the last generation that collided.
    """
    colliding = _colliding(ids)
    cost = distances(np.flatnonzero(colliding))
    cost_row = np.cumsum(colliding) - 1
    prefix = np.unique(ids.codes[:, :-1], axis=0, return_inverse=True)[1].reshape(-1)
    for _ in range(_ROUNDS):
        if not colliding.any():
            break
        codes = ids.codes.copy()
        for items in _groups(prefix, colliding):
            moved, settled = items[colliding[items]], items[~colliding[items]]
            free = np.setdiff1d(np.arange(cost.shape[1]), codes[settled, -1])
            if len(free):
                codes[moved, -1] = free[_dealt(cost[cost_row[moved]][:, free])]
        ids = SemanticIds(codes, ids.codebook_sizes, ids.generations)
        colliding = _colliding(ids)
    return ids


def _colliding(ids: SemanticIds) -> npt.NDArray[np.bool_]:
    """``(N,)``: the items of the last generation that share a leaf, with whomever."""
    new = np.arange(ids.num_items) >= ids.num_items - ids.generations[-1]
    return new & (ids.leaf_sizes[ids.leaf_of_item] > 1)


def _groups(prefix: Ints, colliding: npt.NDArray[np.bool_]) -> list[Ints]:
    """The items ``(n,)`` under each prefix where some collide."""
    some = np.flatnonzero(np.isin(prefix, prefix[colliding]))
    order = some[np.argsort(prefix[some], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(prefix[order])) + 1)


def _dealt(cost: Doubles) -> Ints:
    """Costs ``(n, F)`` → for each row a column ``(n,)``, by Sinkhorn's algorithm in the log domain.

    Every row gives 1, every column takes ``max(1, n / F)``; where there are fewer rows than columns,
    a row that costs nothing gives the rest. The entropy's weight falls from sweep to sweep, so that
    the plan ends at an assignment (ε-scaling: Schmitzer 2019, arXiv 1610.06519).
    """
    n, free = cost.shape
    cost = (cost - cost.min()) / max(float(np.ptp(cost)), np.finfo(np.float64).tiny)
    given = np.zeros(n)
    if n < free:
        cost = np.vstack([cost, np.zeros(free)])
        given = np.append(given, np.log(free - n))
    takes = max(0.0, np.log(n / free))
    of_column = np.zeros(free)
    for weight in _ENTROPY:
        of_row = weight * (given - _log_sum_exp((of_column - cost) / weight, axis=1))
        of_column = weight * (takes - _log_sum_exp((of_row[:, None] - cost) / weight, axis=0))
    return (of_column - cost)[:n].argmax(axis=1)


def _log_sum_exp(values: Doubles, axis: int) -> Doubles:
    top = values.max(axis=axis, keepdims=True)
    sums: Doubles = np.log(np.exp(values - top).sum(axis=axis)) + top.squeeze(axis)
    return sums
