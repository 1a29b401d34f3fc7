"""Random sums over queries for the permutation test.

The sums of N methods are computed at once, with the same random numbers for all of them. The sum of the
difference between two methods is then the difference of their sums, so all pairs of methods cost no more than
the N methods. Queries with the score 0 under all methods add nothing and may be left out.
"""

from __future__ import annotations

import numpy as np
import torch

from recsys.evaluation.metrics import Scores

_FLIPPED_AT_ONCE = 64  # number of queries whose signs fit into the CPU's cache


def sign_flipped_sums(scores: Scores, flips: int, seed: int = 0) -> Scores:
    """Return sums over queries after flipping the signs of random queries.

    In each repetition every query flips with probability 1/2; then the signs of all its scores change.

    Args:
        scores: ``(Q, N)`` float64, the score of each query under each of N methods.
        flips: Number of repetitions.
        seed: Seed of the flips.

    Returns:
        ``(N, flips)`` float64.
    """
    rng = np.random.default_rng(seed)
    bytes_per_query = -(-flips // 8)  # one random bit per flip
    sums_of_kept = torch.zeros(scores.shape[1], flips, dtype=torch.float64)
    for part in torch.from_numpy(scores).split(_FLIPPED_AT_ONCE):
        random_bytes = rng.bytes(len(part) * bytes_per_query)
        packed = np.frombuffer(random_bytes, np.uint8).reshape(len(part), bytes_per_query)
        keeps_sign = torch.from_numpy(np.unpackbits(packed, axis=1, count=flips))
        sums_of_kept += part.T @ keeps_sign.double()
    # The signs are 2 · keeps_sign - 1, so the signed sums are twice the sums above minus the sums of all.
    return 2 * sums_of_kept.numpy() - scores.sum(axis=0)[:, None]
