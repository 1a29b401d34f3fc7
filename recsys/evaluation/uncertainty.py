"""How uncertain a difference between two methods is: over users, and over trainings.

A method's score varies for two reasons: other users would have scored differently, and another training, from
another seed, would have given another model. A difference is real only if it exceeds both. The rule of
:func:`half_width`, and how seed variances are pooled, were chosen by simulation, see docs/statistics.md.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from recsys.evaluation.metrics import Scores

POWER = 0.8
"""Probability with which a test finds the minimum detectable difference."""

ROUNDING = 1e-12
"""Smaller differences of scores are rounding: means of the same seeds in another order differ by it."""

_MOST_SEEDS = 50  # nobody trains more often to decide a comparison
_MOST_USERS = 1000.0  # times as many users as there are


@dataclass(frozen=True)
class Trainings:
    """What the trainings of one method, from several seeds, tell of its luck in training.

    Attributes:
        seeds: Number of trainings.
        variance: Variance over trainings of the mean score of one training; 0 for one training.
        residual: The part of ``variance`` that more users would remove: each training scores some users
            better and others worse.
        fixed: Whether the method is deterministic, so that one training tells everything.
        pool: Methods with the same value share what they tell about the variance over trainings.
    """

    seeds: int
    variance: float = 0.0
    residual: float = 0.0
    fixed: bool = False
    pool: Hashable = None

    @classmethod
    def of(cls, scores: Scores, *, fixed: bool = False, pool: Hashable = None) -> Trainings:
        """Return what scores tell; runs that are all alike are those of a deterministic method.

        Args:
            scores: ``(S, Q)``, the score of each query under each of S trainings.
            fixed: Whether the method is known to be deterministic.
            pool: See :class:`Trainings`.
        """
        seeds, queries = scores.shape
        alike = seeds > 1 and np.ptp(scores, axis=0).max() <= ROUNDING
        if fixed or alike or seeds == 1:
            return cls(seeds, fixed=bool(fixed or alike), pool=pool)
        means = scores.mean(axis=1, keepdims=True)
        apart = scores - means
        apart -= apart.mean(axis=0)
        residual = (apart**2).sum() / max(1, (queries - 1) * (seeds - 1)) / queries
        return cls(seeds, float(means.var(ddof=1)), float(residual), pool=pool)


@dataclass(frozen=True)
class Uncertainty:
    """The variance of one difference, in parts.

    Attributes:
        users: Variance of the difference due to users: of their lasting preference for one of the methods.
        users_df: Degrees of freedom of ``users``.
        sides: The random methods of the pair, with the variance over trainings that is assumed of them.
        trainings_df: Degrees of freedom of these variances.
        is_known: Whether there is a variance over trainings of every random method.
    """

    users: float
    users_df: float
    sides: Sequence[Trainings] = ()
    trainings_df: float = 1.0
    is_known: bool = True

    @property
    def trainings(self) -> float:
        """Variance of the difference due to trainings."""
        return sum(side.variance / side.seeds for side in self.sides)

    def half_width(self, level: float) -> float:
        """Return half the width of the difference's interval at confidence ``1 - level``."""
        return float(half_width(level, self.users, self.users_df, self.trainings, self.trainings_df))

    def p(self, difference: float) -> float:
        """Return the two-sided p of a difference."""
        parts = (self.users, self.users_df, self.trainings, self.trainings_df)
        return float(p_value(np.asarray(difference), *parts))

    def detectable(self, level: float) -> float:
        """Return the smallest true difference that is found with a power of 80 % at ``level``."""
        from scipy import special  # noqa: PLC0415 — imports slowly

        return self.half_width(level) + float(special.ndtri(POWER)) * float(
            np.sqrt(self.users + self.trainings)
        )

    def decides(self, difference: float, corrected: float, level: float, region: float) -> bool:
        """Return whether a difference would be called better, worse or equivalent.

        Args:
            difference: The difference.
            corrected: The level of a claim that a method is better or worse.
            level: The level of the interval that must lie within the region of equivalence.
            region: Half the width of that region.
        """
        distance = abs(difference)
        return distance > self.half_width(corrected) or distance + self.half_width(level) <= region

    def with_seeds(self, more: int) -> Uncertainty:
        """Return the uncertainty to expect after ``more`` trainings of each random method."""
        sides = [replace(side, seeds=side.seeds + more) for side in self.sides]
        growth = sum(side.seeds - 1 for side in sides) / max(1, sum(side.seeds - 1 for side in self.sides))
        return replace(self, sides=sides, trainings_df=self.trainings_df * growth)

    def with_users(self, times: float) -> Uncertainty:
        """Return the uncertainty to expect with ``times`` as many users."""
        sides = [
            replace(side, variance=side.variance - side.residual * (1 - 1 / times)) for side in self.sides
        ]
        freedom = (self.users_df + 1) * times - 1
        return replace(self, users=self.users / times, users_df=freedom, sides=sides)

    def more_seeds(self, difference: float, corrected: float, level: float, region: float) -> int | None:
        """Return how many more seeds decide, if the difference stays as it is; None if 50 do not.

        For the arguments see :meth:`decides`.
        """
        for more in range(1, _MOST_SEEDS + 1 if self.sides else 1):
            if self.with_seeds(more).decides(difference, corrected, level, region):
                return more
        return None

    def more_users(self, difference: float, corrected: float, level: float, region: float) -> int | None:
        """Return how many more users decide, if the difference stays as it is; None if no number does.

        Numbers above a thousand times the present one count as none. For the arguments see :meth:`decides`.
        """
        users = self.users_df + 1
        low, high = 1.0, _MOST_USERS
        if not self.with_users(high).decides(difference, corrected, level, region):
            return None
        while (high - low) * users > 1:
            middle = (low + high) / 2
            enough = self.with_users(middle).decides(difference, corrected, level, region)
            low, high = (low, middle) if enough else (middle, high)
        return int(np.ceil((high - 1) * users))


def half_width(
    level: float | npt.NDArray[np.float64],
    users: npt.ArrayLike,
    users_df: npt.ArrayLike,
    trainings: npt.ArrayLike,
    trainings_df: npt.ArrayLike,
) -> npt.NDArray[np.float64]:
    """Return half the width of intervals of differences at confidence ``1 - level``.

    Each part of the variance is multiplied by the square of its own t quantile (Banerjee 1960). For normal
    scores this holds the level whatever the true variances are: the sum of the two products falls short no
    more often than the products do by themselves, since the distribution function of a χ² with one degree
    is concave. Satterthwaite's single t quantile is narrower, but errs too often where seeds are few.

    Args:
        level: Share of intervals that may miss the true difference.
        users: Variance of the difference due to users.
        users_df: Its degrees of freedom.
        trainings: Variance of the difference due to trainings.
        trainings_df: Its degrees of freedom.
    """
    from scipy import special  # noqa: PLC0415 — imports slowly

    tail = np.asarray(level) / 2
    width = (
        special.stdtrit(users_df, tail) ** 2 * users + special.stdtrit(trainings_df, tail) ** 2 * trainings
    )
    return np.sqrt(np.asarray(width, dtype=np.float64))


def p_value(
    differences: npt.NDArray[np.float64],
    users: npt.ArrayLike,
    users_df: npt.ArrayLike,
    trainings: npt.ArrayLike,
    trainings_df: npt.ArrayLike,
) -> npt.NDArray[np.float64]:
    """Return the smallest level at which the interval of each difference leaves 0 out, at least 1e-150.

    For the arguments see :func:`half_width`.
    """
    low, high = np.full(differences.shape, -150.0), np.zeros(differences.shape)
    for _ in range(60):
        middle = (low + high) / 2
        too_wide = half_width(10.0**middle, users, users_df, trainings, trainings_df) > np.abs(differences)
        low, high = np.where(too_wide, middle, low), np.where(too_wide, high, middle)
    return np.asarray(10.0**high)


def pooled_variance(
    variances: npt.NDArray[np.float64], df: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the mean variance over trainings of some methods, and its degrees of freedom.

    The degrees of freedom are Satterthwaite's (1946), with the unbiased estimate of each squared variance:
    all of them where the methods' variances are alike, few where one is far above the others.

    Args:
        variances: ``(..., M)`` variance over trainings of each of M methods.
        df: ``(M,)`` its degrees of freedom, one less than the number of trainings.

    Returns:
        ``(...)`` means, weighted by ``df``, and ``(...)`` degrees of freedom.
    """
    sums = df * variances
    total = sums.sum(axis=-1)
    spread = (sums**2 / (df + 2)).sum(axis=-1)
    freedom = np.divide(total**2, spread, out=np.full(total.shape, np.inf), where=spread > 0) - 2
    return total / df.sum(), freedom.clip(df.min(), df.sum())


def uncertainties(
    user_variances: Sequence[float],
    queries: int,
    trainings: Sequence[Trainings],
    pairs: Iterable[tuple[int, int]],
) -> list[Uncertainty]:
    """Return the uncertainty of the difference of each pair of methods.

    Few seeds tell little of a variance over trainings. So each method of a pair gets the mean of all random
    methods in the pools of the two, or its own if that is larger. The variance over users of differences
    between means of seeds contains the residual of the trainings, and so does the variance over trainings:
    it is counted once.

    Args:
        user_variances: For each pair the variance over users of the difference, over the number of users.
        queries: Number of users.
        trainings: One for each method.
        pairs: Pairs of places in ``trainings``.
    """
    found = []
    for variance, pair in zip(user_variances, pairs, strict=True):
        sides = [trainings[place] for place in dict.fromkeys(pair) if not trainings[place].fixed]
        if not sides or min(side.seeds for side in sides) < 2:
            found.append(Uncertainty(variance, queries - 1, is_known=not sides))
            continue
        pools = {trainings[place].pool for place in pair}
        pooled = [one for one in trainings if one.pool in pools and not one.fixed and one.seeds > 1]
        mean, freedom = pooled_variance(
            np.array([one.variance for one in pooled]), np.array([one.seeds - 1.0 for one in pooled])
        )
        assumed = [replace(side, variance=max(side.variance, float(mean), side.residual)) for side in sides]
        counted_twice = sum(side.residual / side.seeds for side in assumed)
        users = max(0.0, variance - counted_twice)
        found.append(Uncertainty(users, queries - 1, assumed, float(freedom)))
    return found
