"""Compare methods over several benchmarks: mean ranks, and strengths as Bradley and Terry (1952) define them.

Here a benchmark counts once, however many users it has. Intervals come from resampling benchmarks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.evaluation.metrics import Scores

RESAMPLES = 2_000
"""Number of resamples of an interval."""

_ITERATIONS = 200
_PRIOR = 0.5  # wins that each method of a pair has beforehand: strengths stay finite where one always wins


@dataclass(frozen=True)
class Standing:
    """How one method does over several benchmarks.

    Attributes:
        rank: Mean rank, from 1 for the best; methods with the same score share their mean rank.
        rank_interval: 95 % interval of the mean rank.
        strength: Log-odds of beating a method of average strength on a benchmark.
        strength_interval: 95 % interval of the strength.
    """

    rank: float
    rank_interval: tuple[float, float]
    strength: float
    strength_interval: tuple[float, float]


def standings(scores: Scores, seed: int = 0) -> list[Standing]:
    """Return the standing of each method.

    Args:
        scores: ``(B, M)`` the score of each of M methods on each of B benchmarks.
        seed: Seed of the resamples.

    Raises:
        ValueError: If there are fewer than two benchmarks or methods.
    """
    from scipy import stats  # noqa: PLC0415 — imports slowly

    benchmarks, methods = scores.shape
    if min(benchmarks, methods) < 2:
        raise ValueError(f"at least 2 benchmarks and 2 methods are needed, not {benchmarks} and {methods}")
    ranks = stats.rankdata(-scores, axis=1)
    wins = (scores[:, :, None] > scores[:, None, :]) + 0.5 * (scores[:, :, None] == scores[:, None, :])
    drawn = np.random.default_rng(seed).integers(benchmarks, size=(RESAMPLES, benchmarks))
    rank_ends = np.quantile(ranks[drawn].mean(axis=1), [0.025, 0.975], axis=0)
    resampled = np.stack([bradley_terry(wins[places].sum(axis=0)) for places in drawn])
    strength_ends = np.quantile(resampled, [0.025, 0.975], axis=0)
    strengths = bradley_terry(wins.sum(axis=0))
    return [
        Standing(
            float(ranks[:, method].mean()),
            (float(rank_ends[0, method]), float(rank_ends[1, method])),
            float(strengths[method]),
            (float(strength_ends[0, method]), float(strength_ends[1, method])),
        )
        for method in range(methods)
    ]


def bradley_terry(wins: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the log-strengths of methods, with mean 0, by the algorithm of Hunter (2004).

    Each pair begins with half a win for either method.

    Args:
        wins: ``(M, M)`` how often the method of a row beat that of a column; a tie is half a win for both.
    """
    counted = wins + _PRIOR
    np.fill_diagonal(counted, 0)
    games = counted + counted.T
    strengths = np.ones(len(wins))
    for _ in range(_ITERATIONS):
        strengths = counted.sum(axis=1) / (games / (strengths[:, None] + strengths)).sum(axis=1)
        strengths /= np.exp(np.log(strengths).mean())
    return np.log(strengths)
