"""The best of many scores, in an order that is the same every time."""

from __future__ import annotations

import numpy as np
import torch

from semantic_ids.types import Floats, Ints


def best_columns(scores: Floats, width: int, zeros: Ints | None = None) -> Ints:
    """The ``width`` best columns of each row; of equal scores the one on the left leads.

    Args:
        scores: ``(Q, N)`` float32. Those below 0 stand last, in no order.
        width: at most N.
        zeros: ``(N,)``, in which order columns whose score is 0 stand instead: each one's place.

    Returns:
        ``(Q, width)`` int64.
    """
    count = scores.shape[1]
    # The bits of floats that are not negative, read as an integer, are in the order of the floats.
    keys = scores.view(np.int32).astype(np.int64) * max(count, 1)
    left = np.arange(count)
    keys -= left if zeros is None else np.where(scores > 0, left, zeros)
    best: Ints = torch.from_numpy(keys).topk(width, dim=1).indices.numpy()
    return best
