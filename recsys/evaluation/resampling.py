"""What sums over queries could have been: signs flipped at random, or queries drawn anew.

Many methods go at once and share their randomness, so that all pairs of them cost what one does: the
sum of a difference is the difference of the sums. Rows of zeros count for nothing and may be left out.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import embedding_bag

from recsys.evaluation.metrics import Scores

_FLIPPED_AT_ONCE = 64  # queries; their signs then stay in a cache
_DRAWN_AT_ONCE = 2**20  # queries


def sign_flipped_sums(scores: Scores, flips: int, seed: int = 0) -> Scores:
    """Sums over queries, each of which keeps or changes the sign of all its scores by the toss of a coin.

    Args:
        scores: ``(Q, N)``, of each query under each of N methods.
        flips: how often all coins are tossed.
        seed: of the coins.

    Returns:
        ``(N, flips)``.
    """
    rng = np.random.default_rng(seed)
    sums, octets = torch.zeros(scores.shape[1], flips, dtype=torch.float64), -(-flips // 8)
    for part in torch.from_numpy(scores).split(_FLIPPED_AT_ONCE):
        coins = np.frombuffer(rng.bytes(len(part) * octets), np.uint8).reshape(len(part), octets)
        heads = torch.from_numpy(np.unpackbits(coins, axis=1, count=flips))
        sums += part.T @ heads.double()
    # A coin counts 2 · head - 1; so the product above needs no signs.
    return 2 * sums.numpy() - scores.sum(axis=0)[:, None]


def bootstrap_sums(scores: Scores, resamples: int, total: int, seed: int = 0) -> Scores:
    """Sums over ``total`` queries drawn with replacement from as many (Efron 1979).

    Args:
        scores: ``(Q, N)``, of each query under each of N methods; the other ``total - Q`` are all 0.
        resamples: how often all are drawn.
        total: of the queries, Q or more.
        seed: of the draws.

    Returns:
        ``(N, resamples)``, of float32 precision.
    """
    sums = torch.zeros(resamples, scores.shape[1])
    if len(scores) == 0:
        return sums.T.double().numpy()
    rng = np.random.default_rng(seed)
    weight = torch.from_numpy(scores.astype(np.float32))
    # How many of the drawn are among the Q is binomial; which of them, uniform.
    sizes = rng.binomial(total, len(scores) / total, resamples)
    at_once = max(1, _DRAWN_AT_ONCE // len(scores))
    for start in range(0, resamples, at_once):
        counts = sizes[start : start + at_once]
        drawn = torch.from_numpy(rng.integers(len(scores), size=counts.sum(), dtype=np.int32))
        starts = torch.from_numpy((np.cumsum(counts) - counts).astype(np.int32))
        sums[start : start + at_once] = embedding_bag(drawn, weight, starts, mode="sum")
    return sums.T.double().numpy()
