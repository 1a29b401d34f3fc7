"""Exact, deterministic selection of the best items out of a matrix of scores.

The bits of a float32, read as an integer, keep the order of the numbers. This integer and the position of the
item fit into one 64-bit key, so equal scores of a row have different keys. The largest keys of a row are then
the same, whatever algorithm selects them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from recsys.examples import Ranking
from semantic_ids.types import Floats, Ints


def top_items(scores: npt.NDArray[np.floating[Any]], width: int) -> Ranking:
    """Return the ``width`` best items of each row of scores; equal scores are in the order of the items.

    A retriever that scores the whole catalogue can return this from
    :meth:`~recsys.retrievers.base.Retriever.candidates`.

    Args:
        scores: ``(Q, N)``, the score of each of N items for each of Q queries; any numbers but NaN. They are
            converted to float32 before they are compared.
        width: Number of items to return per query.

    Returns:
        Rankings ``(Q, min(width, N))``, best items first.

    Raises:
        ValueError: If ``scores`` is not a matrix, or if a score is NaN.

    Example:
        >>> ranking = top_items(np.array([[0.5, -1.0, 2.0, 0.5]]), width=3)
        >>> ranking.items.tolist(), ranking.scores.tolist()
        ([[2, 0, 3]], [[2.0, 0.5, 0.5]])
    """
    if scores.ndim != 2:
        raise ValueError(f"scores must be a matrix of queries by items, not of shape {scores.shape}")
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite
        scores = scores.astype(np.float32) + np.float32(0)  # the addition turns -0 into 0, which equals it
    if np.isnan(scores).any():
        row, item = np.argwhere(np.isnan(scores))[0].tolist()
        raise ValueError(f"scores must not be NaN, but that of item {item} in row {row} is")
    bits = scores.view(np.int32)
    # Bits of negative numbers rise as the numbers fall. Flipping all but the sign bit reverses their order.
    ordered = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)
    items = _largest(ordered, np.arange(scores.shape[1]), min(width, scores.shape[1]))
    return Ranking(items, np.take_along_axis(scores, items, axis=1))


def best_columns(scores: Floats, width: int, rank_of_zeros: Ints | None = None) -> Ints:
    """Return the ``width`` best columns of each row; among equal scores the left column comes first.

    It is faster than :func:`top_items`, but it orders only scores of at least 0.

    Args:
        scores: ``(Q, N)`` float32. Negative scores come last, in no particular order.
        width: Number of columns to return, at most N.
        rank_of_zeros: ``(N,)`` the rank of each column among those that score 0, from 0 for the first; by
            default they are ordered from left to right like other equal scores.

    Returns:
        ``(Q, width)`` int64, column numbers, best first.
    """
    columns = np.arange(scores.shape[1])
    ranks = columns if rank_of_zeros is None else np.where(scores > 0, columns, rank_of_zeros)
    return _largest(scores.view(np.int32), ranks, width)


def _largest(numbers: npt.NDArray[np.int32], ranks: Ints, width: int) -> Ints:
    """Return the columns of the ``width`` largest numbers of each row; among equal ones the lower rank wins.

    Args:
        numbers: ``(Q, N)`` int32.
        ranks: ``(N,)`` or ``(Q, N)``, from 0 to N - 1; different for equal numbers of a row.
        width: Number of columns, at most N.
    """
    keys = numbers.astype(np.int64) * max(numbers.shape[1], 1) - ranks
    largest: Ints = torch.from_numpy(keys).topk(width, dim=1).indices.numpy()
    return largest
